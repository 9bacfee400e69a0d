//! One kind of object of the Kubernetes API, watched: what is there, and what is gone.
//!
//! Each object is shrunk to what matters as it arrives; nothing keeps the whole of it. When the connection is lost, what
//! was last read stays in force. When a watch begins anew, the list that it begins with is the truth: what is no longer
//! in it has been deleted meanwhile.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::plan::{Kind, ObjectRef};

/// How long the server may keep one watch open, in seconds. A connection that died silently is noticed by the
/// silence after this time, so it is short.
pub const WATCH_TIMEOUT: u32 = 40;

/// Names an object among those of its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Its namespace, where its kind has them.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
}

impl Name {
    /// Names an object of a kind.
    pub fn of(self, kind: Kind) -> ObjectRef {
        let Self { namespace, name } = self;
        ObjectRef {
            kind,
            namespace,
            name,
        }
    }
}

/// What a watch says of one object.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// It is there, in this form.
    There(Name, T),
    /// It is gone.
    Gone(Name),
}

/// What happened to a watch.
pub type Event<T> = Result<watcher::Event<(Name, T)>, watcher::Error>;

/// Events of watches, each with the number of its watch.
pub type Stream<T> = BoxStream<'static, (usize, Event<T>)>;

/// One kind that is watched.
#[derive(Debug)]
pub struct Watch {
    /// What it is called in messages.
    plural: &'static str,
    /// Objects in force.
    known: BTreeSet<Name>,
    /// Objects seen in the list that is being read.
    listed: BTreeSet<Name>,
    complete: bool,
    problem: Option<String>,
    /// Whether the API server may not have the kind, which is as good as if there were no object of it.
    may_be_unknown: bool,
}

impl Watch {
    /// A kind of which nothing is known yet.
    pub fn new(plural: &'static str) -> Self {
        Self {
            plural,
            known: BTreeSet::new(),
            listed: BTreeSet::new(),
            complete: false,
            problem: None,
            may_be_unknown: false,
        }
    }

    /// A kind that the API server need not have.
    pub fn may_be_unknown(plural: &'static str) -> Self {
        Self {
            may_be_unknown: true,
            ..Self::new(plural)
        }
    }

    /// Whether everything that is there has been seen once.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// What is wrong with it now.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Forgets everything, and says what that was.
    pub fn forget(&mut self) -> impl Iterator<Item = Name> + use<> {
        let forgotten = Self {
            may_be_unknown: self.may_be_unknown,
            ..Self::new(self.plural)
        };
        std::mem::replace(self, forgotten).known.into_iter()
    }

    /// Takes in an event and says what it means.
    pub fn take<T>(&mut self, event: Event<T>) -> Vec<Seen<T>> {
        let event = match event {
            Ok(event) => event,
            Err(error) if self.may_be_unknown && is_unknown(&error) => {
                self.problem = None;
                self.complete = true;
                self.listed.clear();
                return std::mem::take(&mut self.known)
                    .into_iter()
                    .map(Seen::Gone)
                    .collect();
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                self.problem = Some(format!(
                    "cannot watch {}: {error:#}; what was last read stays in force",
                    self.plural
                ));
                return Vec::new();
            }
        };
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply((name, form)) => {
                self.listed.insert(name.clone());
                vec![Seen::There(name, form)]
            }
            watcher::Event::InitDone => {
                self.problem = None;
                self.complete = true;
                let listed = std::mem::take(&mut self.listed);
                let gone = self.known.difference(&listed).cloned().map(Seen::Gone).collect();
                self.known = listed;
                gone
            }
            watcher::Event::Apply((name, form)) => {
                self.problem = None;
                self.known.insert(name.clone());
                vec![Seen::There(name, form)]
            }
            watcher::Event::Delete((name, _)) => {
                self.known.remove(&name);
                vec![Seen::Gone(name)]
            }
        }
    }
}

/// The events of one kind, each object turned into what it means.
pub fn objects<K, T>(
    number: usize,
    api: Api<K>,
    config: watcher::Config,
    read: impl Fn(K) -> T + Send + 'static,
) -> Stream<T>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
    T: Send + 'static,
{
    let read = move |object: K| {
        let name = Name {
            namespace: object.namespace().map(Arc::from),
            name: object.name_any().into(),
        };
        (name, read(object))
    };
    watcher(api, config)
        .default_backoff()
        .map(move |event| {
            let event = event.map(|event| match event {
                watcher::Event::Apply(object) => watcher::Event::Apply(read(object)),
                watcher::Event::Delete(object) => watcher::Event::Delete(read(object)),
                watcher::Event::Init => watcher::Event::Init,
                watcher::Event::InitApply(object) => watcher::Event::InitApply(read(object)),
                watcher::Event::InitDone => watcher::Event::InitDone,
            });
            (number, event)
        })
        .boxed()
}

/// All objects of a kind.
pub fn everything() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_TIMEOUT).any_semantic()
}

/// Whether an API server does not know a kind at all.
fn is_unknown(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str) -> (Name, ()) {
        let name = Name {
            namespace: None,
            name: name.into(),
        };
        (name, ())
    }

    fn words(news: Vec<Seen<()>>) -> Vec<String> {
        let word = |seen| match seen {
            Seen::There(name, ()) => format!("+ {}", name.name),
            Seen::Gone(name) => format!("- {}", name.name),
        };
        news.into_iter().map(word).collect()
    }

    #[test]
    fn what_a_new_list_does_not_hold_was_deleted_while_nobody_watched() {
        let mut watch = Watch::new("directorgroups.weir.dev");
        watch.take::<()>(Ok(watcher::Event::Init));
        watch.take(Ok(watcher::Event::InitApply(seen("a"))));
        assert_eq!(words(watch.take(Ok(watcher::Event::InitDone))), [] as [&str; 0]);
        assert_eq!(words(watch.take(Ok(watcher::Event::Apply(seen("b"))))), ["+ b"]);
        watch.take::<()>(Ok(watcher::Event::Init));
        assert_eq!(
            words(watch.take(Ok(watcher::Event::InitApply(seen("b"))))),
            ["+ b"]
        );
        assert_eq!(words(watch.take(Ok(watcher::Event::InitDone))), ["- a"]);
    }

    #[test]
    fn a_lost_connection_is_a_problem_until_the_next_event_and_deletes_nothing() {
        let mut watch = Watch::new("directorgroups.weir.dev");
        watch.take::<()>(Ok(watcher::Event::Init));
        watch.take(Ok(watcher::Event::InitApply(seen("a"))));
        watch.take::<()>(Ok(watcher::Event::InitDone));
        assert_eq!(watch.take::<()>(Err(watcher::Error::NoResourceVersion)), []);
        assert!(
            watch
                .problem()
                .is_some_and(|problem| problem.contains("stays in force"))
        );
        assert_eq!(words(watch.take(Ok(watcher::Event::Apply(seen("a"))))), ["+ a"]);
        assert_eq!(watch.problem(), None);
    }

    #[test]
    fn a_kind_that_the_server_does_not_have_is_as_good_as_no_object_of_it() {
        let unknown = || {
            let status =
                kube::core::Status::failure("the server could not find the requested resource", "NotFound");
            watcher::Error::InitialListFailed(kube::Error::Api(status.with_code(404).boxed()))
        };
        let mut grants = Watch::may_be_unknown("referencegrants.gateway.networking.k8s.io");
        assert_eq!(grants.take::<()>(Err(unknown())), []);
        assert!(grants.is_complete());
        // Of other kinds it is a problem.
        let mut servers = Watch::new("realservers.weir.dev");
        assert_eq!(servers.take::<()>(Err(unknown())), []);
        assert!(!servers.is_complete() && servers.problem().is_some());
    }
}
