//! Room for what a run will come to know of its nodes, taken when it is known how many they are: then nothing grows, and
//! nothing is copied, while they run.

/// Nobody takes room for more nodes than this beforehand; beyond it lists grow as they fill.
pub(crate) const NODES_MAX: usize = 1 << 24;

/// Has a list hold so many elements in all without growing. The memory is written to, so that it is there: the kernel
/// gives a page only when somebody does.
pub(crate) fn take<T: Copy>(list: &mut Vec<T>, total: usize, filler: T) {
    let before = list.capacity();
    list.reserve_exact(total.saturating_sub(list.len()));
    let used = list.len();
    for slot in list.spare_capacity_mut().iter_mut().skip(before - used) {
        slot.write(filler);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_room_does_not_grow() {
        let mut list = vec![1u32, 2];
        take(&mut list, 1000, 7);
        take(&mut list, 10, 7);
        let capacity = list.capacity();
        list.extend(0..998);
        assert_eq!((list.len(), list[1], list.capacity()), (1000, 2, capacity));
        assert!(capacity >= 1000);
    }
}
