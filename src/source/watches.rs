//! Several watches read as one: what they see, in batches, and what is wrong with any of them.

use std::ops::Range;

use kube::runtime::watcher;

use super::watch::{Event, Name, Seen, Watch};

/// How many are handed on together while a list is read.
const BATCH: usize = 500;

/// Watches by their numbers, and what is to be handed on of what they have seen.
#[derive(Debug)]
pub struct Watches<const N: usize, U> {
    watches: [Watch; N],
    batch: Vec<U>,
}

/// What follows from something that happened to one of the watches.
#[derive(Debug, PartialEq, Eq)]
pub struct Told<U> {
    /// What has been seen. Of a list nothing is told until there is enough of it, or it is over.
    pub batch: Vec<U>,
    /// Everything that is wrong now, where that is not what was said before.
    pub problems: Option<Vec<String>>,
}

impl<const N: usize, U> Watches<N, U> {
    /// Watches that have seen nothing.
    pub fn new(watches: [Watch; N]) -> Self {
        Self {
            watches,
            batch: Vec::new(),
        }
    }

    /// Whether each of these has seen everything that is there once.
    pub fn are_complete(&self, numbers: Range<usize>) -> bool {
        self.watches[numbers].iter().all(Watch::is_complete)
    }

    /// Takes in an event of one watch; `meaning` says what is to be handed on of what it has seen.
    pub fn take<T>(
        &mut self,
        number: usize,
        event: Event<(Name, T)>,
        meaning: impl FnMut(Seen<T>) -> Option<U>,
    ) -> Told<U> {
        let problems_before = self.problems();
        let in_list = matches!(event, Event::Said(watcher::Event::InitApply(_)));
        let seen = self.watches[number].take(event);
        self.batch.extend(seen.into_iter().filter_map(meaning));
        let batch = if in_list && self.batch.len() < BATCH {
            Vec::new()
        } else {
            std::mem::take(&mut self.batch)
        };
        self.told(batch, &problems_before)
    }

    /// Forgets what these have seen; `meaning` says of each object, with the number of its watch, what is to be handed on.
    pub fn forget(&mut self, numbers: Range<usize>, meaning: impl Fn(usize, Name) -> Option<U>) -> Told<U> {
        let problems_before = self.problems();
        let mut batch = std::mem::take(&mut self.batch);
        for number in numbers {
            let names = self.watches[number].forget();
            batch.extend(names.filter_map(|name| meaning(number, name)));
        }
        self.told(batch, &problems_before)
    }

    fn told(&self, batch: Vec<U>, problems_before: &[String]) -> Told<U> {
        let problems = self.problems();
        Told {
            batch,
            problems: (problems != problems_before).then_some(problems),
        }
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.watches.iter().filter_map(Watch::problem);
        problems.map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_handed_on_in_batches_and_a_change_at_once() {
        let mut watches = Watches::new([Watch::new("services")]);
        let mut take = |event| {
            let told = watches.take(0, Event::Said(event), |seen| match seen {
                Seen::There(name, ()) | Seen::Gone(name) => Some(name),
            });
            assert_eq!(told.problems, None);
            told.batch.len()
        };
        let object = |number: usize| {
            let name = Name {
                namespace: None,
                name: number.to_string().into(),
            };
            (name, ())
        };
        assert_eq!(take(watcher::Event::Init), 0);
        for number in 1..BATCH {
            assert_eq!(take(watcher::Event::InitApply(object(number))), 0);
        }
        assert_eq!(take(watcher::Event::InitApply(object(BATCH))), BATCH);
        assert_eq!(take(watcher::Event::InitApply(object(0))), 0);
        assert_eq!(take(watcher::Event::InitDone), 1);
        assert_eq!(take(watcher::Event::Apply(object(0))), 1);
    }
}
