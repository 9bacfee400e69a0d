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

/// How long the server may keep one watch open, in seconds. A connection that died silently is noticed by the
/// silence after this time, so it is short.
const WATCH_TIMEOUT: u32 = 40;
/// How long a connection may be silent. The server ends each watch sooner than that.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_TIMEOUT as u64 + 20);
/// A watch that has not failed for so long stands: a try to begin it has [`READ_TIMEOUT`] for the answer, and the client
/// half a minute to connect.
const STANDS: Duration = Duration::from_secs(100);

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
#[derive(Debug)]
pub enum Event<O> {
    /// The server said something.
    Said(watcher::Event<O>),
    /// The server was not reached, or refused. It will be asked again.
    Failed(watcher::Error),
    /// What failed has not failed any more.
    Stands,
}

/// Events of watches, each with the number of its watch.
pub type Stream<T> = BoxStream<'static, (usize, Event<(Name, T)>)>;

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
    pub fn take<T>(&mut self, event: Event<(Name, T)>) -> Vec<Seen<T>> {
        let event = match event {
            Event::Said(event) => event,
            Event::Stands => {
                self.problem = None;
                return Vec::new();
            }
            Event::Failed(error) if self.may_be_unknown && is_unknown(&error) => {
                self.problem = None;
                self.complete = true;
                self.listed.clear();
                return std::mem::take(&mut self.known)
                    .into_iter()
                    .map(Seen::Gone)
                    .collect();
            }
            Event::Failed(error) => {
                self.problem = Some(format!(
                    "cannot watch {}: {}; what was last read stays in force",
                    self.plural,
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
                self.problem = None;
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
    persistent(move || watcher(api.clone(), config.clone()))
        .map(move |event| (number, event.map(&read)))
        .boxed()
}

impl<O> Event<O> {
    fn map<T>(self, read: impl Fn(O) -> T) -> Event<T> {
        Event::Said(match self {
            Self::Failed(error) => return Event::Failed(error),
            Self::Stands => return Event::Stands,
            Self::Said(watcher::Event::Apply(object)) => watcher::Event::Apply(read(object)),
            Self::Said(watcher::Event::Delete(object)) => watcher::Event::Delete(read(object)),
            Self::Said(watcher::Event::Init) => watcher::Event::Init,
            Self::Said(watcher::Event::InitApply(object)) => watcher::Event::InitApply(read(object)),
            Self::Said(watcher::Event::InitDone) => watcher::Event::InitDone,
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
            timeout(STANDS, self.events.next()).await
        } else {
            Ok(self.events.next().await)
        };
        let Ok(event) = event else {
            self.failed = false;
            return Some(Event::Stands);
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
                Some(Event::Said(event))
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Event::{Failed, Said};
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
        watch.take::<()>(Said(watcher::Event::Init));
        watch.take(Said(watcher::Event::InitApply(seen("a"))));
        assert_eq!(words(watch.take(Said(watcher::Event::InitDone))), [] as [&str; 0]);
        assert_eq!(words(watch.take(Said(watcher::Event::Apply(seen("b"))))), ["+ b"]);
        watch.take::<()>(Said(watcher::Event::Init));
        assert_eq!(
            words(watch.take(Said(watcher::Event::InitApply(seen("b"))))),
            ["+ b"]
        );
        assert_eq!(words(watch.take(Said(watcher::Event::InitDone))), ["- a"]);
    }

    #[test]
    fn a_lost_connection_is_a_problem_until_the_next_event_and_deletes_nothing() {
        let mut watch = Watch::new("directorgroups.weir.dev");
        watch.take::<()>(Said(watcher::Event::Init));
        watch.take(Said(watcher::Event::InitApply(seen("a"))));
        watch.take::<()>(Said(watcher::Event::InitDone));
        assert_eq!(watch.take::<()>(Failed(watcher::Error::NoResourceVersion)), []);
        assert!(
            watch
                .problem()
                .is_some_and(|problem| problem.contains("stays in force"))
        );
        assert_eq!(words(watch.take(Said(watcher::Event::Apply(seen("a"))))), ["+ a"]);
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
        assert_eq!(grants.take::<()>(Failed(unknown())), []);
        assert!(grants.is_complete());
        // Of other kinds it is a problem.
        let mut servers = Watch::new("realservers.weir.dev");
        assert_eq!(servers.take::<()>(Failed(unknown())), []);
        assert!(!servers.is_complete());
        let problem = "cannot watch realservers.weir.dev: the server could not find the requested resource (404); \
                       what was last read stays in force";
        assert_eq!(servers.problem(), Some(problem));
    }

    fn refused(code: u16) -> kube::Error {
        kube::Error::Api(kube::core::Status::failure("no", "No").with_code(code).boxed())
    }

    /// What a watch says whose server answers as `answers` do, one after the other each time that it is begun, and then
    /// not at all; and how often it is begun within an hour.
    async fn hour<A>(answers: impl Fn() -> A + Send + 'static) -> (Vec<Event<()>>, usize)
    where
        A: IntoIterator<Item = Result<watcher::Event<()>, watcher::Error>>,
        A::IntoIter: Send + 'static,
    {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = begun.clone();
        let events = persistent(move || {
            count.fetch_add(1, Ordering::Relaxed);
            stream::iter(answers()).chain(stream::pending())
        });
        let said = events
            .take_until(sleep(Duration::from_secs(3600)))
            .collect()
            .await;
        (said, begun.load(Ordering::Relaxed))
    }

    /// Before each list comes the event that says so, which is no success.
    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_refused_is_asked_for_more_and_more_rarely() {
        let refusal = || {
            [
                Ok(watcher::Event::Init),
                Err(watcher::Error::InitialListFailed(refused(500))),
            ]
        };
        let (said, _) = hour(move || std::iter::repeat_with(refusal).flatten()).await;
        let failures = said.iter().filter(|event| matches!(event, Failed(_))).count();
        assert!((60..150).contains(&failures), "{failures} in an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_cannot_go_on_from_its_list_begins_with_a_new_one() {
        let list = || [watcher::Event::Init, watcher::Event::InitDone].map(Ok);
        let too_old = || Err(watcher::Error::WatchStartFailed(refused(410)));
        let (_, begun) = hour(move || list().into_iter().chain([too_old()])).await;
        assert!((60..150).contains(&begun), "begun {begun} times in an hour");
        // Any other refusal leaves the list as it is.
        let busy = || Err(watcher::Error::WatchStartFailed(refused(500)));
        let (_, begun) = hour(move || list().into_iter().chain([busy()])).await;
        assert_eq!(begun, 1);
    }

    /// Where nothing changes, nothing would be heard of it.
    #[tokio::test(start_paused = true)]
    async fn a_failure_that_does_not_come_again_is_over_though_nothing_changes() {
        let failure = || {
            [
                Ok(watcher::Event::InitDone),
                Err(watcher::Error::WatchStartFailed(refused(500))),
            ]
        };
        let (said, _) = hour(failure).await;
        assert!(
            matches!(
                said[..],
                [Said(watcher::Event::InitDone), Failed(_), Event::Stands]
            ),
            "{said:?}"
        );
        let mut watch = Watch::new("directorgroups.weir.dev");
        watch.take::<()>(Failed(watcher::Error::NoResourceVersion));
        assert!(watch.problem().is_some());
        watch.take::<()>(Event::Stands);
        assert_eq!(watch.problem(), None);
    }
}
