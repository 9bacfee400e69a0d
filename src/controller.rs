//! The controller: what the agents say and what the objects are → the status of each object, events, finalizers.
//!
//! ```text
//! source ─► News ─► Cluster ─► which objects that concerns ─► judge ─► Status ─► what differs is written
//!                   (value)                                   (pure)              at most once a second per object
//! Lease ─► whether this one writes
//! ```
//!
//! Every replica knows everything, so that another takes over at once; only the holder of the Lease writes. It writes
//! nothing that is so already: what an object's status is, it knows from the API. Two that both believe to hold the Lease write
//! the same.
//!
//! | file | what | |
//! | --- | --- | --- |
//! | `cluster` | what is known, and whom a piece of news concerns | pure |
//! | `statuses`, `conditions` | the status that an object should have | pure |
//! | `holding` | whether a deleted real server is held | pure |
//! | `queue` | which object is judged next, and when | pure |
//! | `events` | what is told, and how often | pure |
//! | `election`, `campaign` | who writes | pure; I/O |
//! | `source`, `write` | the Kubernetes API | I/O |

mod campaign;
mod cluster;
mod conditions;
mod election;
mod events;
mod holding;
mod queue;
mod source;
mod statuses;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::catalog::{Kind, ObjectRef};
use crate::metrics::ControllerMetrics;
use crate::serve::Vitals;

use campaign::{elect, is_to_come};
use cluster::{Cluster, Object, Status};
use events::{Limiter, Told};
use holding::Holding;
use queue::Queue;
use source::SourceNews;
use statuses::Judgement;
use write::{LeaseWriter, Writer};

/// Writes under way at a time.
const WRITES: usize = 16;
/// News that may wait for the controller.
const NEWS: usize = 256;

/// What a controller is told when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A name that no other replica has.
    pub identity: String,
    /// Where the Lease is.
    pub lease_namespace: String,
    /// How long what a node's agent said is kept when the node is gone, in case it comes back.
    pub forget_after: Duration,
}

/// The name of the Lease.
const LEASE: &str = "weir-controller";

/// Clients of the API, each with connections of its own.
pub struct Clients {
    /// For watches: [`watch::client`](crate::source::watch::client).
    pub reading: Client,
    /// For statuses and what else is written.
    pub writing: Client,
    /// For the Lease. When connections have died silently, there is time to try one of them, and not each of those that wrote
    /// statuses.
    pub electing: Client,
}

/// Runs until the token is cancelled, and tells how it fares. The Lease is given back then.
pub async fn run(
    clients: Clients,
    settings: Settings,
    (metrics, vitals): (ControllerMetrics, Vitals),
    shutdown: CancellationToken,
) {
    let (sender, news) = mpsc::channel(NEWS);
    let (leading, leads) = watch::channel(None);
    let lease = LeaseWriter::new(clients.electing, &settings.lease_namespace, LEASE);
    let election = elect(lease, settings.identity.clone(), leading, shutdown.clone());
    let source = source::watch(clients.reading, sender, shutdown.clone());
    let writer = Writer::new(clients.writing, settings.identity);
    let controller = Controller::new(writer, leads, settings.forget_after, metrics, vitals);
    let ((), (), ()) = tokio::join!(election, source, controller.run(news, shutdown));
}

/// Takes the finalizer off every RealServer, and says off how many.
///
/// # Errors
///
/// The API server could not be asked, or refused.
pub async fn release(client: Client) -> anyhow::Result<usize> {
    Writer::new(client, String::new()).release_all().await
}

/// What is to be written to one object.
#[derive(Debug, Clone, PartialEq)]
enum Write {
    Status(Status),
    Hold(bool),
}

struct Controller {
    watchers: Watchers,
    forget_after: Duration,
    cluster: Cluster,
    writer: Writer,
    /// Until when this controller writes. A time, since a process that was frozen has other things to do, too, before it hears
    /// that it no longer does.
    leads: watch::Receiver<Option<Instant>>,
    led: bool,
    complete: bool,
    problems: Vec<String>,
    /// Objects to judge.
    queue: Queue,
    writes: JoinSet<(ObjectRef, anyhow::Result<Written>)>,
    first_seen: FirstSeen,
    limiter: Limiter,
}

/// Who watches the controller.
struct Watchers {
    metrics: ControllerMetrics,
    vitals: Vitals,
}

/// When things were first seen to be so, which the API does not say.
#[derive(Default)]
struct FirstSeen {
    /// Real servers to be deleted, by their uid.
    deleted: HashMap<String, Instant>,
    /// Nodes with agents to be gone.
    gone: BTreeMap<Arc<str>, Instant>,
}

/// What a write has brought.
struct Written {
    write: Write,
    uid: String,
}

impl Controller {
    fn new(
        writer: Writer,
        leads: watch::Receiver<Option<Instant>>,
        forget_after: Duration,
        metrics: ControllerMetrics,
        vitals: Vitals,
    ) -> Self {
        Self {
            watchers: Watchers { metrics, vitals },
            forget_after,
            cluster: Cluster::default(),
            writer,
            leads,
            led: false,
            complete: false,
            problems: Vec::new(),
            queue: Queue::default(),
            writes: JoinSet::new(),
            first_seen: FirstSeen::default(),
            limiter: Limiter::new(Instant::now().into_std()),
        }
    }

    async fn run(mut self, mut news: mpsc::Receiver<SourceNews>, shutdown: CancellationToken) {
        loop {
            self.watchers.vitals.beat();
            let wake = self.wake();
            tokio::select! {
                () = shutdown.cancelled() => return,
                told = news.recv() => {
                    let Some(told) = told else { return };
                    self.take(told);
                    while let Ok(told) = news.try_recv() {
                        self.take(told);
                    }
                }
                changed = self.leads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let leads = self.leads();
                    if leads != self.led {
                        self.led = leads;
                        self.watchers.metrics.leads(leads);
                        self.judge_everything();
                    }
                }
                Some(done) = self.writes.join_next() => self.done(done),
                () = sleep_until(wake) => {}
            }
            if self.judges() {
                self.judge_due();
                self.forget_nodes().await;
            }
        }
    }

    fn leads(&self) -> bool {
        is_to_come(*self.leads.borrow())
    }

    fn judges(&self) -> bool {
        self.complete && self.leads()
    }

    fn wake(&self) -> Instant {
        let now = Instant::now();
        let far = now + Vitals::INTERVAL;
        if !self.judges() {
            return far;
        }
        // When as many writes are under way as may be, the end of one wakes.
        let may_write = self.writes.len() < WRITES;
        let due = self.queue.next_due().filter(|_| may_write).map(Instant::from_std);
        let gone = self
            .first_seen
            .gone
            .values()
            .map(|since| *since + self.forget_after);
        due.into_iter()
            .chain(gone)
            .fold(far, Instant::min)
            .max(now + Duration::from_millis(1))
    }

    fn take(&mut self, told: SourceNews) {
        match told {
            SourceNews::News(news) => {
                for news in news {
                    let concerned = self.cluster.take(news);
                    self.concern(concerned);
                }
            }
            SourceNews::Complete => {
                self.complete = true;
                self.watchers.vitals.ready();
                info!("everything has been read once");
                self.judge_everything();
            }
            SourceNews::Problems(problems) => {
                for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
                    error!("{problem}");
                }
                for problem in self.problems.iter().filter(|problem| !problems.contains(problem)) {
                    info!("no longer: {problem}");
                }
                self.problems = problems;
            }
        }
        let now = Instant::now();
        let gone = self.cluster.agents_without_node();
        self.first_seen.gone.retain(|node, _| gone.contains(node));
        for node in gone {
            self.first_seen.gone.entry(node.clone()).or_insert(now);
        }
    }

    /// Who begins to judge begins with everything; until then there is nothing to remember.
    fn concern(&mut self, concerned: impl IntoIterator<Item = ObjectRef>) {
        if !self.judges() {
            // Its time may have passed without a word: then the next word that it leads is a beginning.
            self.led &= !self.complete;
            return;
        }
        let now = Instant::now().into_std();
        for name in concerned {
            self.queue.concern(&name, now);
        }
    }

    fn judge_everything(&mut self) {
        let all: Vec<ObjectRef> = self.cluster.object_names().cloned().collect();
        self.concern(all);
    }

    fn judge_due(&mut self) {
        let now = Instant::now();
        while self.writes.len() < WRITES
            && let Some(name) = self.queue.next(now.into_std())
        {
            self.judge(&name, now);
        }
    }

    fn judge(&mut self, name: &ObjectRef, now: Instant) {
        // To the second, as Kubernetes writes times.
        let time = format!("{:.0}", Timestamp::now());
        let Some(Judgement { status, findings }) = self.cluster.judge(name, &time) else {
            return;
        };
        if let (Kind::VirtualService, Some(service)) = (name.kind, name.namespaced_name()) {
            let concerned = self.cluster.hear_about(&service, findings);
            self.concern(concerned);
        }
        let hold = self.hold(name, now);
        let Some(Object {
            uid, status: before, ..
        }) = self.cluster.object(name).cloned()
        else {
            return;
        };
        if let Some(hold) = hold {
            // The status follows when that is written.
            self.write(name, uid, Write::Hold(hold), Vec::new());
        } else if status != before {
            let mut told = events::of_change(&before, &status);
            told.retain(|told| {
                let tell = self.limiter.may_tell(name, &told.reason, now.into_std());
                self.watchers.metrics.told(tell);
                tell
            });
            self.write(name, uid, Write::Status(status), told);
        }
    }

    /// Whether the finalizer of a real server is to be put on, or taken off.
    fn hold(&mut self, name: &ObjectRef, now: Instant) -> Option<bool> {
        let server = name.namespaced_name().filter(|_| name.kind == Kind::RealServer)?;
        let object = self.cluster.object(name)?;
        let since = if object.deleted {
            *self.first_seen.deleted.entry(object.uid.clone()).or_insert(now)
        } else {
            now
        };
        match self.cluster.holding(&server, since.into_std(), now.into_std()) {
            Holding::AsItShouldBe => None,
            Holding::Hold => Some(true),
            Holding::Release => Some(false),
            Holding::Until(deadline) => {
                self.queue.look_again(name, deadline, now.into_std());
                None
            }
        }
    }

    fn write(&mut self, name: &ObjectRef, uid: String, write: Write, told: Vec<Told>) {
        let (writer, name) = (self.writer.clone(), name.clone());
        self.queue.writes(&name);
        self.writes.spawn(async move {
            let written = match &write {
                Write::Status(status) => writer.status(&name, &uid, status).await,
                Write::Hold(true) => writer.hold(&name, &uid).await,
                Write::Hold(false) => writer.release(&name, &uid).await,
            };
            if written.is_ok() {
                for told in told {
                    if let Err(error) = writer.event(&name, &uid, &told).await {
                        warn!("cannot write an event of {name}: {error:#}");
                    }
                }
            }
            (name, written.map(|()| Written { write, uid }))
        });
    }

    fn done(&mut self, done: Result<(ObjectRef, anyhow::Result<Written>), tokio::task::JoinError>) {
        let (name, written) = match done {
            Ok(done) => done,
            // A broken invariant: what was to be written is lost, so the controller ends rather than go on blindly.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        let now = Instant::now().into_std();
        self.watchers.metrics.wrote(name.kind.name(), written.is_ok());
        match written {
            Ok(Written { write, uid }) => {
                self.queue.wrote(&name, now);
                if write == Write::Hold(false) {
                    self.first_seen.deleted.remove(&uid);
                }
                self.cluster.written(&name, &uid, |object| match write {
                    Write::Status(status) => object.status = status,
                    Write::Hold(hold) => object.held = hold,
                });
            }
            Err(error) => {
                let wait = self.queue.failed(&name, now);
                warn!("cannot write {name}, trying again in {wait:?}: {error:#}");
            }
        }
    }

    /// Forgets the agents of nodes that have been gone for long.
    async fn forget_nodes(&mut self) {
        let now = Instant::now();
        let gone: Vec<Arc<str>> = self
            .first_seen
            .gone
            .iter()
            .filter(|(_, since)| **since + self.forget_after <= now)
            .map(|(node, _)| node.clone())
            .collect();
        for node in gone {
            match self.writer.forget_node(&node).await {
                Ok(()) => {
                    warn!(
                        "node {node} has been gone for {:?}: its NodeState is deleted",
                        self.forget_after
                    );
                    self.first_seen.gone.remove(&node);
                }
                Err(error) => {
                    warn!("cannot delete NodeState {node}: {error:#}");
                    self.first_seen.gone.insert(node, now);
                }
            }
        }
    }
}
