//! Several watches read as one: what they observe, in batches, and what is wrong with any of them.

use std::collections::BTreeMap;

use kube::runtime::watcher;

use super::kinds::Collection;
use super::watch::{Event, Name, Observation, Watch};

/// How many are handed on together while a list is read.
const BATCH: usize = 500;

/// Watches by what they watch, and what is to be handed on of what they have observed.
#[derive(Debug)]
pub struct Watches<U> {
    watches: BTreeMap<Collection, Watch>,
    batch: Vec<U>,
}

/// What follows from something that happened to one of the watches.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice<U> {
    /// What has been observed. Of a list nothing is handed on until there is enough of it, or it is over.
    pub batch: Vec<U>,
    /// Everything that is wrong now, where that is not what was said before.
    pub problems: Option<Vec<String>>,
}

impl<U> Watches<U> {
    /// Watches that have observed nothing.
    pub fn new(collections: impl IntoIterator<Item = Collection>) -> Self {
        let watches = collections.into_iter();
        Self {
            watches: watches
                .map(|collection| (collection, Watch::new(collection)))
                .collect(),
            batch: Vec::new(),
        }
    }

    /// Whether each of these has observed everything that is there once.
    pub fn are_complete(&self, collections: &[Collection]) -> bool {
        collections
            .iter()
            .all(|collection| self.watches.get(collection).is_some_and(Watch::is_complete))
    }

    /// Whether all of them have.
    pub fn are_all_complete(&self) -> bool {
        self.watches.values().all(Watch::is_complete)
    }

    /// Whether any of these has told of objects without having observed everything that is there.
    pub fn assume_any(&self, collections: &[Collection]) -> bool {
        let mut watches = collections
            .iter()
            .filter_map(|collection| self.watches.get(collection));
        watches.any(Watch::assumes_any)
    }

    /// Takes an object for there until a list says otherwise, unless this is known better already.
    pub fn assume(&mut self, collection: Collection, name: Name) -> bool {
        let watch = self.watches.get_mut(&collection);
        watch.is_some_and(|watch| watch.assume(name))
    }

    /// Takes in an event of one watch; `update` says what is to be handed on of what it has observed.
    pub fn take<T>(
        &mut self,
        collection: Collection,
        event: Event<(Name, T)>,
        update: impl FnMut(Observation<T>) -> Option<U>,
    ) -> Notice<U> {
        let problems_before = self.problems();
        let in_list = matches!(event, Event::Received(watcher::Event::InitApply(_)));
        let watch = self.watches.get_mut(&collection);
        let observations = watch.map(|watch| watch.take(event)).unwrap_or_default();
        self.batch.extend(observations.into_iter().filter_map(update));
        let batch = if in_list && self.batch.len() < BATCH {
            Vec::new()
        } else {
            std::mem::take(&mut self.batch)
        };
        self.notice(batch, &problems_before)
    }

    /// Forgets what these have observed; `update` says of each object what is to be handed on.
    pub fn forget(
        &mut self,
        collections: &[Collection],
        update: impl Fn(Collection, Name) -> Option<U>,
    ) -> Notice<U> {
        let problems_before = self.problems();
        let mut batch = std::mem::take(&mut self.batch);
        for collection in collections {
            if let Some(watch) = self.watches.get_mut(collection) {
                batch.extend(watch.forget().filter_map(|name| update(*collection, name)));
            }
        }
        self.notice(batch, &problems_before)
    }

    fn notice(&self, batch: Vec<U>, problems_before: &[String]) -> Notice<U> {
        let problems = self.problems();
        Notice {
            batch,
            problems: (problems != problems_before).then_some(problems),
        }
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.watches.values().filter_map(Watch::problem);
        problems.map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_handed_on_in_batches_and_a_change_at_once() {
        let mut watches = Watches::new([Collection::Services]);
        let mut take = |event| {
            let event = Event::Received(event);
            let notice = watches.take(Collection::Services, event, |observation| match observation {
                Observation::Present(name, ()) | Observation::Gone(name) => Some(name),
            });
            assert_eq!(notice.problems, None);
            notice.batch.len()
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
