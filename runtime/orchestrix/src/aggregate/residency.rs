//! Who stays in memory: moka decides by recency, by idle time and by weight; the directory carries it out.

use std::sync::Arc;
use std::time::Duration;

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::sync::Mutex;

use super::directory::Slot;

type Evicted = Arc<[Mutex<Vec<Slot>>]>;

/// The resident aggregates of a node, by weight and recency.
///
/// What moka gives up is put on a list per arbiter, which the arbiter empties in each round: nothing is lost when its
/// inbox is full. The lists hold each resident aggregate at most once, so residency itself bounds them.
pub(crate) struct Residents {
    cache: Cache<Slot, u32>,
    evicted: Evicted,
}

impl Residents {
    pub(crate) fn new(bytes_max: u64, idle_max: Duration, arbiters: usize) -> Self {
        let evicted: Evicted = (0..arbiters).map(|_| Mutex::default()).collect();
        let lists = Arc::clone(&evicted);
        let cache = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_: &Slot, weight: &u32| *weight)
            .time_to_idle(idle_max)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |slot: Arc<Slot>, _, cause| {
                if matches!(cause, RemovalCause::Size | RemovalCause::Expired) {
                    list(&lists, slot.arbiter).push(*slot);
                }
            })
            .build();
        Self { cache, evicted }
    }

    /// Takes note of an aggregate's weight in bytes.
    pub(crate) fn weigh(&self, slot: Slot, bytes: usize) {
        self.cache.insert(slot, u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Takes note that an aggregate was used.
    pub(crate) fn touch(&self, slot: Slot) {
        let _ = self.cache.get(&slot);
    }

    /// Forgets an aggregate that has gone.
    pub(crate) fn forget(&self, slot: Slot) {
        self.cache.invalidate(&slot);
    }

    /// Returns the aggregates of an arbiter that should leave, each once.
    pub(crate) fn take_evicted(&self, arbiter: u16) -> Vec<Slot> {
        std::mem::take(&mut *list(&self.evicted, arbiter))
    }

    /// Lets moka do what is due; its listener is called only from here and from other calls.
    pub(crate) fn maintain(&self) {
        self.cache.run_pending_tasks();
    }

    /// Returns how many aggregates are resident and what they weigh, as of the last maintenance.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.cache.entry_count(), self.cache.weighted_size())
    }
}

fn list(lists: &Evicted, arbiter: u16) -> std::sync::MutexGuard<'_, Vec<Slot>> {
    lists[arbiter as usize].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_are_given_up_when_memory_is_short() {
        let residents = Residents::new(3_000, Duration::from_hours(1), 2);
        for index in 0..4 {
            residents.weigh(Slot::fake(1, index), 1_000);
            residents.maintain();
            residents.touch(Slot::fake(1, 0));
        }
        residents.maintain();
        assert_eq!(residents.take_evicted(0), []);
        assert_eq!(residents.take_evicted(1), [Slot::fake(1, 1)]);
        assert_eq!(residents.take_evicted(1), [], "each is given up once");
        assert_eq!(residents.totals(), (3, 3_000));
    }

    #[test]
    fn an_aggregate_that_left_by_itself_is_not_given_up() {
        let residents = Residents::new(10_000, Duration::from_hours(1), 1);
        residents.weigh(Slot::fake(0, 1), 1_000);
        residents.forget(Slot::fake(0, 1));
        residents.maintain();
        assert_eq!(residents.take_evicted(0), []);
        assert_eq!(residents.totals(), (0, 0));
    }
}
