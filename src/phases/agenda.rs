//! What is due when. What it costs does not grow with how much waits.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// Things to do, each at one time.
#[derive(Debug, Clone)]
pub struct Agenda<K> {
    times: HashMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self {
            times: HashMap::new(),
            by_time: BTreeSet::new(),
        }
    }
}

impl<K: Clone + Ord + Hash> Agenda<K> {
    /// Plans a thing for a time, in place of when it was planned before; `None` takes it off.
    pub fn set(&mut self, key: K, time: Option<Instant>) {
        if let Some(before) = self.times.remove(&key) {
            self.by_time.remove(&(before, key.clone()));
        }
        if let Some(time) = time {
            self.times.insert(key.clone(), time);
            self.by_time.insert((time, key));
        }
    }

    /// Plans a thing for a time, unless it is planned for an earlier one.
    pub fn set_at_latest(&mut self, key: K, time: Instant) {
        if self.times.get(&key).is_none_or(|planned| *planned > time) {
            self.set(key, Some(time));
        }
    }

    /// When a thing is due, if it is planned.
    pub fn time_of(&self, key: &K) -> Option<Instant> {
        self.times.get(key).copied()
    }

    /// When the next thing is due.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// Takes off the first thing that is due by now.
    pub fn take_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.times.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
    fn things_come_in_the_order_of_their_times_and_each_once() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut agenda = Agenda::default();
        for (key, seconds) in [("c", 3), ("a", 1), ("b", 2), ("a", 4)] {
            agenda.set(key, Some(after(seconds)));
        }
        agenda.set("b", None);
        agenda.set_at_latest("a", after(9));
        assert_eq!(agenda.next(), Some(after(3)));
        assert_eq!(agenda.take_due(after(2)), None);
        assert_eq!(agenda.take_due(after(9)), Some("c"));
        assert_eq!(agenda.time_of(&"a"), Some(after(4)));
        assert_eq!(agenda.take_due(after(9)), Some("a"));
        assert_eq!((agenda.take_due(after(9)), agenda.next()), (None, None));
    }
}
