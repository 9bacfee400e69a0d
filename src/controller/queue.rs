//! Which object is judged next, and when. Pure: it is told the time.
//!
//! What it costs does not grow with the number of objects that wait.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::catalog::{Kind, ObjectRef};

/// News that come together are judged together.
const GATHERING: Duration = Duration::from_millis(50);
/// Time between two writes to one object.
const COALESCING: Duration = Duration::from_secs(1);
/// The first wait after a write that failed; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// There may be ten thousand real servers to write for the first time: what people wait for does not wait for them.
const ORDER: [Kind; 3] = [Kind::DirectorGroup, Kind::VirtualService, Kind::RealServer];

/// The objects that are to be judged.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: HashMap<ObjectRef, Wait>,
    /// The same of each of [`ORDER`] in the order of time.
    by_time: [BTreeSet<(Instant, ObjectRef)>; ORDER.len()],
    /// Objects with a write under way.
    writing: HashSet<ObjectRef>,
    /// How long to wait when the next write to an object fails as the last one did.
    retries: HashMap<ObjectRef, Duration>,
}

/// When an object is judged.
#[derive(Debug, Clone, Copy)]
struct Wait {
    until: Instant,
    /// News make it sooner, but no sooner than this.
    at_least_until: Instant,
}

impl Queue {
    /// Lets an object be judged as soon as it may be written again. One with a write under way is judged after that.
    pub fn concern(&mut self, name: &ObjectRef, now: Instant) {
        let soon = now + GATHERING;
        match self.waiting.get(name).copied() {
            _ if self.writing.contains(name) => {}
            None => self.put(name, soon, soon),
            Some(Wait {
                until,
                at_least_until,
            }) => self.put(name, soon.max(at_least_until).min(until), at_least_until),
        }
    }

    /// Lets an object be judged then, unless there are news of it before.
    pub fn look_again(&mut self, name: &ObjectRef, then: Instant, now: Instant) {
        self.put(name, then, now);
    }

    /// The next object to judge, if one is due.
    pub fn next(&mut self, now: Instant) -> Option<ObjectRef> {
        let mut first = self.by_time.iter().filter_map(BTreeSet::first);
        let (_, name) = first.find(|(until, _)| *until <= now)?;
        let name = name.clone();
        self.remove(&name);
        Some(name)
    }

    /// When the next object is due.
    pub fn next_due(&self) -> Option<Instant> {
        let first = self.by_time.iter().filter_map(BTreeSet::first);
        first.map(|(until, _)| *until).min()
    }

    /// Takes in that an object is being written.
    pub fn writes(&mut self, name: &ObjectRef) {
        self.remove(name);
        self.writing.insert(name.clone());
    }

    /// Takes in that an object has been written. It is judged once more, for what came meanwhile and what a finalizer kept
    /// from being written.
    pub fn wrote(&mut self, name: &ObjectRef, now: Instant) {
        self.writing.remove(name);
        self.retries.remove(name);
        self.put(name, now + COALESCING, now + COALESCING);
    }

    /// Takes in that an object could not be written, and says when that is tried again.
    pub fn failed(&mut self, name: &ObjectRef, now: Instant) -> Duration {
        self.writing.remove(name);
        let wait = self.retries.get(name).copied().unwrap_or(FIRST_RETRY);
        self.retries.insert(name.clone(), (wait * 2).min(LONGEST_RETRY));
        self.put(name, now + wait, now + wait);
        wait
    }

    fn put(&mut self, name: &ObjectRef, until: Instant, at_least_until: Instant) {
        self.remove(name);
        if let Some(place) = place(name) {
            self.waiting.insert(
                name.clone(),
                Wait {
                    until,
                    at_least_until,
                },
            );
            self.by_time[place].insert((until, name.clone()));
        }
    }

    fn remove(&mut self, name: &ObjectRef) {
        if let (Some(place), Some(wait)) = (place(name), self.waiting.remove(name)) {
            self.by_time[place].remove(&(wait.until, name.clone()));
        }
    }
}

/// Nobody judges objects of others.
fn place(name: &ObjectRef) -> Option<usize> {
    ORDER.iter().position(|kind| *kind == name.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::NamespacedName;

    fn name(name: &str) -> NamespacedName {
        NamespacedName {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn server(number: u32) -> ObjectRef {
        ObjectRef::real_server(&name(&format!("rs-{number}")))
    }

    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn news_wait_for_a_moment_and_come_once() {
        let (mut queue, begin) = (Queue::default(), start());
        queue.concern(&server(1), begin);
        queue.concern(&server(1), begin + GATHERING / 2);
        assert_eq!(queue.next_due(), Some(begin + GATHERING));
        assert_eq!(queue.next(begin + GATHERING / 2), None);
        assert_eq!(queue.next(begin + GATHERING), Some(server(1)));
        assert_eq!((queue.next(begin + COALESCING), queue.next_due()), (None, None));
    }

    #[test]
    fn virtual_services_do_not_wait_for_real_servers() {
        let (mut queue, begin) = (Queue::default(), start());
        (0..10).for_each(|number| queue.concern(&server(number), begin));
        let (web, edge) = (
            ObjectRef::virtual_service(&name("web")),
            ObjectRef::director_group("edge".into()),
        );
        queue.concern(&web, begin + GATHERING);
        queue.concern(&edge, begin + GATHERING);
        let order: Vec<_> = std::iter::from_fn(|| queue.next(begin + 2 * GATHERING)).collect();
        assert_eq!(order[..3], [edge, web, server(0)]);
        assert_eq!(order.len(), 12);
    }

    /// Whenever in the life of a write the news come.
    #[test]
    fn two_writes_to_one_object_are_a_second_apart() {
        let (mut queue, begin) = (Queue::default(), start());
        let web = ObjectRef::virtual_service(&name("web"));
        let mut written = Vec::new();
        for millisecond in 0..10_000 {
            let now = begin + Duration::from_millis(millisecond);
            queue.concern(&web, now);
            if queue.next(now).is_some() {
                assert!(!queue.writing.contains(&web), "one is under way");
                queue.writes(&web);
            }
            if queue.writing.contains(&web) && millisecond % 300 == 299 {
                queue.wrote(&web, now);
                written.push(now);
            }
        }
        assert!(written.len() >= 6, "{written:?}");
        assert!(
            written.is_sorted_by(|one, next| *next - *one >= COALESCING),
            "{written:?}"
        );
    }

    #[test]
    fn news_do_not_hurry_a_retry_and_waits_double() {
        let (mut queue, begin) = (Queue::default(), start());
        let mut now = begin;
        let waits = [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs);
        for wait in waits {
            queue.writes(&server(1));
            assert_eq!(queue.failed(&server(1), now), wait);
            queue.concern(&server(1), now);
            assert_eq!(queue.next_due(), Some(now + wait));
            now += wait;
            assert_eq!(queue.next(now), Some(server(1)));
        }
        queue.writes(&server(1));
        queue.wrote(&server(1), now);
        queue.writes(&server(1));
        assert_eq!(queue.failed(&server(1), now), FIRST_RETRY);
    }

    #[test]
    fn news_come_before_a_deadline() {
        let (mut queue, begin) = (Queue::default(), start());
        queue.look_again(&server(1), begin + Duration::from_secs(60), begin);
        queue.concern(&server(1), begin);
        assert_eq!(queue.next_due(), Some(begin + GATHERING));
    }
}
