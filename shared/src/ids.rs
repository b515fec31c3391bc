//! One type an id, so that no bare number crosses a function boundary.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
        pub struct $name(pub u32);

        impl $name {
            /// The id of the `index`-th thing of its kind.
            pub fn new(index: usize) -> $name {
                $name(u32::try_from(index).expect("fewer than 2^32 of a kind"))
            }

            /// Its place in a flat array.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// A node of the graph, in the manifest's order.
    NodeId
);
id!(
    /// A place in the pool; a worker forked after a crash takes over the place of the dead one.
    WorkerId
);
id!(
    /// An artifact of the manifest, in its order.
    ArtifactId
);
id!(
    /// An op of the registry that was given to `init`.
    OpId
);
