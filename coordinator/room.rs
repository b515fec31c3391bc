//! Room for what a run will come to know of its nodes, taken when it is known how many they are: then nothing grows, and
//! nothing is copied, while they run.

use std::collections::HashMap;
use std::hash::Hash;

use forkyard_shared::sys;

/// Nobody takes room for more nodes than this beforehand; beyond it lists grow as they fill.
pub(crate) const NODES_MAX: usize = 1 << 24;

/// An empty list with room for so many elements, in large pages if that is much.
pub(crate) fn list<T>(capacity: usize) -> Vec<T> {
    let mut list = Vec::with_capacity(capacity);
    sys::prefer_large_pages(list.spare_capacity_mut());
    list
}

/// So many of the same, likewise.
pub(crate) fn filled<T: Copy>(count: usize, element: T) -> Vec<T> {
    let mut list = list(count);
    list.resize(count, element);
    list
}

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

/// The same of a map, for so many more elements. `key` gives keys, each once.
pub(crate) fn take_map<K: Eq + Hash, V>(
    map: &mut HashMap<K, V>,
    more: usize,
    key: impl Fn(usize) -> K,
    filler: impl Fn() -> V,
) {
    let held = std::mem::take(map);
    let total = held.len() + more;
    map.reserve(total);
    map.extend((0..total).map(|n| (key(n), filler())));
    // All of it: what is removed one by one leaves marks, which count as elements.
    map.clear();
    map.extend(held);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_with_room_keeps_what_it_has() {
        let mut map = HashMap::from([(1u32, 'a')]);
        take_map(&mut map, 1000, |n| 1000 + n as u32, || 'x');
        assert_eq!((map.len(), map[&1]), (1, 'a'));
        let capacity = map.capacity();
        map.extend((2..1000).map(|n| (n, 'b')));
        assert_eq!(map.capacity(), capacity);
    }

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
