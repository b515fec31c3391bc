//! Presets: settings that go together, by the name of what the nodes are like. What a manifest or the command line says
//! itself comes first.

use crate::store::Layout;

/// How many workers there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// So many.
    Fixed(usize),
    /// From so many for each core on; more while the others only wait, up to so many for each core, and as memory allows.
    Auto { from: usize, to: usize },
}

/// What nobody says otherwise.
pub(crate) const AUTO: Workers = Workers::Auto { from: 1, to: 64 };

/// The part of what is available that artifacts, coordinator and workers may take together.
pub(crate) const SHARE: f64 = 0.8;

/// Results that later nodes read are kept in memory up to this size, if nobody says otherwise.
pub(crate) const CACHE_BYTES: u64 = 64 << 20;

/// Settings by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Preset {
    pub name: &'static str,
    pub workers: Workers,
    pub share: f64,
    pub cache_bytes: u64,
    /// Of a store that is yet to be made.
    pub layout: Layout,
}

/// All presets; their numbers are in docs/manifest.md too. (`cores` there is what the process may use.)
pub(crate) const PRESETS: [Preset; 4] = [
    // Nodes that compute: more workers than cores gain nothing.
    Preset {
        name: "cpu",
        workers: Workers::Auto { from: 1, to: 1 },
        share: SHARE,
        cache_bytes: 256 << 20,
        layout: Layout::Hybrid,
    },
    // Nodes that wait for a network or a disk.
    Preset {
        name: "io",
        workers: Workers::Auto { from: 2, to: 128 },
        share: SHARE,
        cache_bytes: 512 << 20,
        layout: Layout::Hybrid,
    },
    // A machine that has other things to do.
    Preset {
        name: "memory",
        workers: Workers::Fixed(2),
        share: 0.5,
        cache_bytes: 16 << 20,
        layout: Layout::Sqlite,
    },
    // Large results: as files, as many of them in memory as pays.
    Preset {
        name: "large-data",
        workers: Workers::Fixed(4),
        share: SHARE,
        cache_bytes: 1 << 30,
        layout: Layout::Filesystem,
    },
];

impl Preset {
    /// The preset of a name.
    pub fn from_name(name: &str) -> Option<&'static Preset> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The workers that it starts with on so many cores.
    pub fn first(&self, cores: usize) -> usize {
        match self.workers {
            Workers::Fixed(count) => count,
            Workers::Auto { from, .. } => from * cores,
        }
    }

    /// What it says, for people.
    pub fn describe(&self) -> String {
        let workers = match self.workers {
            Workers::Fixed(count) => format!("{count} workers"),
            Workers::Auto { from: 1, to: 1 } => "a worker a core".into(),
            Workers::Auto { from, to } => format!("{from} to {to} workers a core"),
        };
        let (share, cache) = (self.share * 100.0, crate::text::bytes(self.cache_bytes));
        format!("{workers}, {share:.0}% of the memory, cache {cache}, layout {}", self.layout.name())
    }
}
