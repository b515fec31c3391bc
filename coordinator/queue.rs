//! The way from any number of threads to one consumer: first in, first out for each producer.
//!
//! Two phases. Producers append to a shard that is theirs as long as there are no more threads than shards, so that
//! registering costs one short lock that nobody else wants. The consumer takes a whole shard with a swap and works
//! without a lock from then on: however long that takes, no producer waits for it.
//!
//! One word says which shards have something, and whether the consumer sleeps. It goes to sleep by an exchange that
//! succeeds only if there is nothing; whoever makes the first entry finds the mark and has to wake it, and nobody else
//! has. All of that happens in one atomic word, whose changes have one order for all threads: there is nothing between
//! looking and sleeping in which an entry could be missed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

/// Set in the word while the consumer sleeps; the lower bits are shards.
const ASLEEP: u64 = 1 << 63;

/// As many as a machine has cores, within reason: more would be more to look through.
const SHARDS: usize = 16;

/// The producers' side, and what both sides share.
pub struct Queue<T, const N: usize = SHARDS> {
    word: CachePadded<AtomicU64>,
    shards: [CachePadded<Mutex<VecDeque<T>>>; N],
}

/// The consumer's side: what it has taken and not yet worked off.
pub struct Taken<T, const N: usize = SHARDS> {
    shards: [VecDeque<T>; N],
    /// Those that have something.
    held: u64,
}

/// The number of the calling thread, among those that have ever asked.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Relaxed));
        }
        number.get()
    })
}

impl<T, const N: usize> Default for Queue<T, N> {
    fn default() -> Queue<T, N> {
        const { assert!(N > 0 && N < 63, "a bit for each shard, and one for the sleeper") };
        Queue { word: CachePadded::default(), shards: std::array::from_fn(|_| CachePadded::default()) }
    }
}

impl<T, const N: usize> Default for Taken<T, N> {
    fn default() -> Taken<T, N> {
        Taken { shards: std::array::from_fn(|_| VecDeque::new()), held: 0 }
    }
}

impl<T, const N: usize> Queue<T, N> {
    /// Appends an entry. True: the consumer sleeps, and the caller has to wake it.
    #[must_use]
    pub fn push(&self, item: T) -> bool {
        let shard = thread_number() % N;
        let mut items = self.lock(shard);
        let is_first = items.is_empty();
        items.push_back(item);
        is_first && self.announce(shard)
    }

    /// Appends entries, likewise; no other thread's come between them.
    #[must_use]
    pub fn push_all(&self, more: impl IntoIterator<Item = T>) -> bool {
        let shard = thread_number() % N;
        let mut items = self.lock(shard);
        let is_first = items.is_empty();
        items.extend(more);
        is_first && !items.is_empty() && self.announce(shard)
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, VecDeque<T>> {
        self.shards[shard].lock()
    }

    /// A shard has its first entry. To be said while its lock is held: a shard that has something is in the word, or
    /// in the hands of the consumer that is about to take it.
    fn announce(&self, shard: usize) -> bool {
        self.word.fetch_or(1 << shard, AcqRel) == ASLEEP
    }

    /// Consumer: calls `each` with up to `most` entries, those of a producer in its order. How many there were.
    pub fn drain(&self, taken: &mut Taken<T, N>, most: usize, mut each: impl FnMut(T)) -> usize {
        let mut left = most;
        while left > 0 && (taken.held != 0 || self.take(taken)) {
            let shard = taken.held.trailing_zeros() as usize;
            let items = &mut taken.shards[shard];
            let now = items.len().min(left);
            items.drain(..now).for_each(&mut each);
            left -= now;
            if items.is_empty() {
                taken.held &= !(1 << shard);
            }
        }
        most - left
    }

    /// Takes everything there is, if all that was taken before is worked off; whether there was anything.
    fn take(&self, taken: &mut Taken<T, N>) -> bool {
        let mut full = self.word.swap(0, AcqRel) & !ASLEEP;
        taken.held = full;
        while full != 0 {
            let shard = full.trailing_zeros() as usize;
            std::mem::swap(&mut *self.lock(shard), &mut taken.shards[shard]);
            full &= full - 1;
        }
        taken.held != 0
    }

    /// Whether something has come that the consumer has not taken.
    pub fn has_any(&self) -> bool {
        self.word.load(Relaxed) & !ASLEEP != 0
    }

    /// Consumer: from now on whoever makes the first entry wakes it. False if there is something already.
    #[must_use]
    pub fn may_sleep(&self) -> bool {
        self.word.compare_exchange(0, ASLEEP, AcqRel, Relaxed).is_ok()
    }

    /// Consumer: nobody needs to wake it any more.
    pub fn is_awake(&self) {
        self.word.fetch_and(!ASLEEP, AcqRel);
    }
}

impl<T, const N: usize> Taken<T, N> {
    /// Whether everything is worked off.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    /// A consumer that works off what there is and then sleeps, and producers, in small steps whose order is `next`'s
    /// to choose: by each call one of the so many that can go on.
    fn interleave(pushes: [u32; 2], mut next: impl FnMut(usize) -> usize) {
        let queue = Queue::<(usize, u32), 2>::default();
        let mut taken = Taken::<_, 2>::default();
        let mut seen = [0, 0];
        // For each producer: what it has pushed, and the lock that it holds meanwhile.
        let mut pushed = [0, 0];
        type Held<'a> = (MutexGuard<'a, VecDeque<(usize, u32)>>, bool);
        let mut locked: [Option<Held>; 2] = [None, None];
        // The consumer: shards that it has seen in the word and not taken yet; whether it sleeps; a wake-up that
        // waits for it.
        let (mut full, mut asleep, mut woken) = (0u64, false, false);
        let mut wakes_due = 0;
        loop {
            let producers = (0..2).filter(|p| locked[*p].is_some() || pushed[*p] < pushes[*p]);
            let mut able: Vec<usize> = producers.collect();
            let shard = full.trailing_zeros() as usize;
            let waits_for_lock = full != 0 && locked[shard].is_some();
            if !waits_for_lock && (!asleep || woken) {
                able.push(2);
            }
            if able.is_empty() {
                break;
            }
            match able[next(able.len())] {
                2 if full != 0 => {
                    std::mem::swap(&mut *queue.lock(shard), &mut taken.shards[shard]);
                    for (producer, number) in taken.shards[shard].drain(..) {
                        assert_eq!(number, seen[producer], "each once, and in order");
                        seen[producer] += 1;
                    }
                    full &= full - 1;
                }
                2 if asleep => {
                    (asleep, woken) = (false, false);
                    full = queue.word.swap(0, AcqRel) & !ASLEEP;
                }
                2 if queue.may_sleep() => asleep = true,
                2 => full = queue.word.swap(0, AcqRel) & !ASLEEP,
                producer => match locked[producer].take() {
                    None => {
                        let mut items = queue.lock(producer);
                        let is_first = items.is_empty();
                        items.push_back((producer, pushed[producer]));
                        pushed[producer] += 1;
                        locked[producer] = Some((items, is_first));
                    }
                    Some((items, is_first)) => {
                        if is_first && queue.announce(producer) {
                            assert!(asleep && !woken, "one wake-up for each sleep");
                            woken = true;
                            wakes_due += 1;
                        }
                        drop(items);
                    }
                },
            }
        }
        assert_eq!(seen, pushes, "it sleeps over an entry");
        assert!(asleep && wakes_due <= 4);
    }

    #[test]
    fn no_order_of_steps_loses_an_entry_or_a_wake_up() {
        for pushes in [[1, 1], [2, 1], [2, 2]] {
            // All orders, one after the other: the choices of the last one, with the last that can be raised raised.
            let (mut choices, mut orders): (Vec<(usize, usize)>, u64) = (Vec::new(), 0);
            loop {
                let mut at = 0;
                interleave(pushes, |able| {
                    if at == choices.len() {
                        choices.push((0, able));
                    }
                    at += 1;
                    choices[at - 1].0
                });
                orders += 1;
                while choices.pop_if(|(choice, able)| *choice + 1 == *able).is_some() {}
                match choices.last_mut() {
                    Some((choice, _)) => *choice += 1,
                    None => break,
                }
            }
            assert!(orders > 100, "{orders} orders of {pushes:?}");
        }
    }

    #[test]
    fn a_turn_is_bounded_and_goes_on_where_it_stopped() {
        let queue = Queue::<u32>::default();
        let mut taken = Taken::<_>::default();
        assert!(!queue.push_all(0..5) && !queue.push_all([]));
        let mut seen = Vec::new();
        assert_eq!(queue.drain(&mut taken, 2, |n| seen.push(n)), 2);
        assert!(!queue.push(5) && !taken.is_empty() && queue.has_any());
        assert_eq!(queue.drain(&mut taken, 100, |n| seen.push(n)), 4);
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        assert!(taken.is_empty() && !queue.has_any());
    }

    #[test]
    fn only_the_first_entry_wakes_the_sleeper() {
        let queue = Queue::<u32>::default();
        let mut taken = Taken::<_>::default();
        assert!(queue.may_sleep());
        assert!(queue.push(1) && !queue.push(2));
        assert!(!queue.may_sleep(), "there is something");
        assert_eq!(queue.drain(&mut taken, 9, drop), 2);
        assert!(queue.may_sleep());
        queue.is_awake();
        assert!(!queue.push(3), "it has looked up by itself");
    }

    #[test]
    fn everything_arrives_once_and_in_each_producers_order() {
        const THREADS: usize = 20;
        const EACH: usize = 20_000;
        let (queue, start) = (Queue::<(usize, usize)>::default(), Barrier::new(THREADS + 1));
        thread::scope(|scope| {
            let consumer = thread::current();
            for producer in 0..THREADS {
                let (queue, start, consumer) = (&queue, &start, consumer.clone());
                scope.spawn(move || {
                    start.wait();
                    for number in 0..EACH {
                        if queue.push((producer, number)) {
                            consumer.unpark();
                        }
                    }
                });
            }
            start.wait();
            let (mut taken, mut seen) = (Taken::default(), vec![0; THREADS]);
            while seen.iter().sum::<usize>() < THREADS * EACH {
                let worked = queue.drain(&mut taken, 128, |(producer, number)| {
                    assert_eq!(number, seen[producer]);
                    seen[producer] += 1;
                });
                if worked == 0 && queue.may_sleep() {
                    // Without a limit: a wake-up that is lost hangs here.
                    thread::park();
                    queue.is_awake();
                }
            }
            assert_eq!(seen, [EACH; THREADS]);
        });
    }
}
