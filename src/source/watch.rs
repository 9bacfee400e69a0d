//! One kind of object of the Kubernetes API, watched: what is there, and what is gone.
//!
//! Each object is shrunk to what matters as it arrives; nothing keeps the whole of it. When the connection is lost, what
//! was last read stays in force. When a watch begins anew, the list that it begins with is the truth: what is no longer
//! in it has been deleted meanwhile. Whoever is refused asks again, and waits longer each time.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::{self, DefaultBackoff, watcher};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use crate::catalog::{Kind, ObjectRef};

use super::kinds::Collection;

/// How long the server may keep one watch open, in seconds. A connection that died silently is noticed by the
/// silence after this time, so it is short.
const WATCH_TIMEOUT: u32 = 40;
/// How long a connection may be silent. The server ends each watch sooner than that.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_TIMEOUT as u64 + 20);
/// A watch that has not failed for so long stands: a try to begin it has [`READ_TIMEOUT`] for the answer, and the client
/// half a minute to connect.
const RECOVERED_AFTER: Duration = Duration::from_secs(100);

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

/// What a watch observes of one object.
#[derive(Debug, PartialEq, Eq)]
pub enum Observation<T> {
    /// It is there, in this form.
    Present(Name, T),
    /// It is gone.
    Gone(Name),
}

/// What happened to a watch.
#[derive(Debug)]
pub enum Event<O> {
    /// The server said something.
    Received(watcher::Event<O>),
    /// The server was not reached, or refused. It will be asked again.
    Failed(watcher::Error),
    /// What failed has not failed any more.
    Recovered,
}

/// Events of watches, each with what it watches.
pub type Stream<T> = BoxStream<'static, (Collection, Event<(Name, T)>)>;

/// One kind that is watched.
#[derive(Debug)]
pub struct Watch {
    collection: Collection,
    /// Objects that somebody has been told of.
    known: BTreeSet<Name>,
    /// Objects seen in the list that is being read.
    listed: BTreeSet<Name>,
    complete: bool,
    problem: Option<String>,
}

impl Watch {
    /// A kind of which nothing is known yet.
    pub fn new(collection: Collection) -> Self {
        Self {
            collection,
            known: BTreeSet::new(),
            listed: BTreeSet::new(),
            complete: false,
            problem: None,
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

    /// Whether it has told of objects without having observed everything that is there.
    pub fn assumes_any(&self) -> bool {
        !self.complete && !self.known.is_empty()
    }

    /// Takes an object for there until a list says otherwise, unless this is known better already.
    pub fn assume(&mut self, name: Name) -> bool {
        !self.complete && self.known.insert(name)
    }

    /// Forgets everything, and says what that was.
    pub fn forget(&mut self) -> impl Iterator<Item = Name> + use<> {
        let unread = Self::new(self.collection);
        std::mem::replace(self, unread).known.into_iter()
    }

    /// Takes in an event and says what it means.
    pub fn take<T>(&mut self, event: Event<(Name, T)>) -> Vec<Observation<T>> {
        let event = match event {
            Event::Received(event) => event,
            Event::Recovered => {
                self.problem = None;
                return Vec::new();
            }
            Event::Failed(error) if self.collection.is_optional() && is_unknown(&error) => {
                self.problem = None;
                self.complete = true;
                self.listed.clear();
                return std::mem::take(&mut self.known)
                    .into_iter()
                    .map(Observation::Gone)
                    .collect();
            }
            Event::Failed(error) => {
                self.problem = Some(format!(
                    "cannot watch {}: {}; what was last read stays in force",
                    self.collection.resource(),
                    why(&error)
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
                self.known.insert(name.clone());
                self.listed.insert(name.clone());
                vec![Observation::Present(name, form)]
            }
            watcher::Event::InitDone => {
                self.problem = None;
                self.complete = true;
                let listed = std::mem::take(&mut self.listed);
                let gone = self
                    .known
                    .difference(&listed)
                    .cloned()
                    .map(Observation::Gone)
                    .collect();
                self.known = listed;
                gone
            }
            watcher::Event::Apply((name, form)) => {
                self.problem = None;
                self.known.insert(name.clone());
                vec![Observation::Present(name, form)]
            }
            watcher::Event::Delete((name, _)) => {
                self.problem = None;
                self.known.remove(&name);
                vec![Observation::Gone(name)]
            }
        }
    }
}

/// The events of one kind, each object turned into what it means.
pub fn objects<K, T>(
    collection: Collection,
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
    persistent(move || watcher(api.clone(), config.clone()))
        .map(move |event| (collection, event.map(&read)))
        .boxed()
}

impl<O> Event<O> {
    fn map<T>(self, read: impl Fn(O) -> T) -> Event<T> {
        Event::Received(match self {
            Self::Failed(error) => return Event::Failed(error),
            Self::Recovered => return Event::Recovered,
            Self::Received(watcher::Event::Apply(object)) => watcher::Event::Apply(read(object)),
            Self::Received(watcher::Event::Delete(object)) => watcher::Event::Delete(read(object)),
            Self::Received(watcher::Event::Init) => watcher::Event::Init,
            Self::Received(watcher::Event::InitApply(object)) => watcher::Event::InitApply(read(object)),
            Self::Received(watcher::Event::InitDone) => watcher::Event::InitDone,
        })
    }
}

/// The events of the watch that `begin` makes, and when it stands again after a failure: [`watcher`] itself goes on
/// without a word when nothing has changed meanwhile, and without a wait.
fn persistent<O, S>(begin: impl Fn() -> S + Send + 'static) -> impl stream::Stream<Item = Event<O>> + Send
where
    O: Send + 'static,
    S: stream::Stream<Item = Result<watcher::Event<O>, watcher::Error>> + Send + 'static,
{
    let tries = Tries {
        events: begin().boxed(),
        begin: move || begin().boxed(),
        backoff: DefaultBackoff::default(),
        wait: None,
        failed: false,
    };
    stream::unfold(tries, |mut tries| async move {
        let event = tries.next().await?;
        Some((event, tries))
    })
}

/// What [`watcher`] gives.
type Watching<O> = BoxStream<'static, Result<watcher::Event<O>, watcher::Error>>;

/// A watch, and how it fares.
struct Tries<O, F> {
    events: Watching<O>,
    begin: F,
    /// Begins anew when something has changed, or nothing has failed for two minutes. A list is no reason: a server that
    /// refuses each watch after it would be asked for one after the other.
    backoff: DefaultBackoff,
    wait: Option<Duration>,
    failed: bool,
}

impl<O, F> Tries<O, F>
where
    F: Fn() -> Watching<O>,
{
    async fn next(&mut self) -> Option<Event<O>> {
        if let Some(wait) = self.wait.take() {
            sleep(wait).await;
        }
        let event = if self.failed {
            timeout(RECOVERED_AFTER, self.events.next()).await
        } else {
            Ok(self.events.next().await)
        };
        let Ok(event) = event else {
            self.failed = false;
            return Some(Event::Recovered);
        };
        match event? {
            Ok(event) => {
                match event {
                    watcher::Event::Init | watcher::Event::InitApply(_) => {}
                    watcher::Event::InitDone => self.failed = false,
                    watcher::Event::Apply(_) | watcher::Event::Delete(_) => {
                        self.failed = false;
                        self.backoff.reset();
                    }
                }
                Some(Event::Received(event))
            }
            Err(error) => {
                self.failed = true;
                self.wait = self.backoff.next();
                if is_too_old(&error) {
                    self.events = (self.begin)();
                }
                Some(Event::Failed(error))
            }
        }
    }
}

/// A client for watches.
///
/// # Errors
///
/// The configuration is of no use.
pub fn client(mut config: Config) -> kube::Result<Client> {
    // Counts from when something came last, so that a connection that died while it was idle is given up all the sooner.
    config.read_timeout = Some(READ_TIMEOUT);
    // The client's own tries would be silent, and as far apart as a Retry-After says.
    config.default_retry = false;
    Client::try_from(config)
}

/// All objects of a kind.
pub fn everything() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_TIMEOUT).any_semantic()
}

fn why(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => words(error),
        watcher::Error::WatchError(status) => refusal(status),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// What is wrong, once: the client repeats the cause of an error in each error on the way, and prints whole objects.
pub fn words(error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else {
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        return causes.last().unwrap_or(error).to_string();
    };
    refusal(status)
}

fn refusal(status: &kube::core::Status) -> String {
    let kube::core::Status { message, code, .. } = status;
    format!("{message} ({code})")
}

/// Whether an API server does not know a kind at all.
fn is_unknown(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the server no longer knows what has changed since the last list. Most say so in the watch, which [`watcher`]
/// understands; to one that says so in place of a watch it would put the same question for ever.
fn is_too_old(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

#[cfg(test)]
mod tests;
