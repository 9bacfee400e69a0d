//! The agent: what to reconcile, and when. It decides nothing about the table itself.
//!
//! ```text
//!  source ─► SourceEvent ─► World ─┐
//!  Agenda: audit, retry, who leaves,├─► Pending ─► Request ─► node::Worker ─► Reply ─► Report ─► log, NodeState
//!          announce, flush check ──┤      ▲                                    │
//!  kernel ─► what others change ───┘      │                                    │
//!                                         └──────── refused, or another network ┘
//! ```
//!
//! One task runs the loop. The kernel works on another thread, for one request at a time; the loop hears on meanwhile, and
//! asks for the most urgent thing next: what has changed, then announcements, then a slice of an audit. What arrives
//! together is reconciled together. Until the source has reported everything once, nothing is planned. When the agent
//! stops, everything stays as it is.
//!
//! | file | what | |
//! | --- | --- | --- |
//! | `source` | what the agent knows of its source | pure but for what it asks for |
//! | `listen`, `heard` | what others change in the kernel, and what of it concerns this node | I/O; pure |
//! | `pending` | what is still to be done, and in which order | pure |
//! | `audit` | everything, in slices | pure |
//! | `replies`, `hearing` | what the agent makes of what the worker has done, and of what it hears | driver |
//! | `report` | what an agent has done, and what kept it from doing more | pure |
//! | `timing` | everything that takes time, and when it is due | pure |
//! | `undone` | what others undo: how soon it is repaired | pure |
//! | `tell` | the log | |
//! | `status`, `publish` | the report → NodeState | pure; I/O |

mod audit;
mod heard;
mod hearing;
mod listen;
mod pending;
pub mod publish;
mod replies;
pub mod report;
mod source;
pub mod status;
mod tell;
mod timing;
mod undone;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::catalog::Scope;
use crate::host::HostStore;
use crate::ipvs::TableStore;
use crate::metrics::Metrics;
use crate::netlink::Event;
use crate::node::{Programmer, Request, TableWork, Worker};
use crate::plan::{Concern, Knowledge, World};
use crate::serve::Vitals;
use crate::source::SourceEvent;

use audit::Audit;
use heard::Hearing;
pub use listen::listen;
use pending::Pending;
use report::{Report, Reporter};
use source::{Reported, SourceState};
use timing::{Timer, Timing};

/// How long a pass may take that is under way when the agent is told to stop.
const LAST_PASS: Duration = Duration::from_secs(20);

/// The agent's loop.
#[derive(Debug)]
pub struct Agent<S, H> {
    world: World,
    source: SourceState,
    worker: Worker<S, H>,
    /// What the worker does now.
    under_way: Option<UnderWay>,
    pending: Pending,
    audit: Audit,
    timing: Timing,
    hearing: Hearing,
    /// What is heard of the kernel; absent where nobody listens.
    events: Option<mpsc::Receiver<Vec<Event>>>,
    reporter: Reporter,
    watchers: Watchers,
}

/// Who watches the agent.
#[derive(Debug)]
struct Watchers {
    metrics: Metrics,
    vitals: Vitals,
    reports: watch::Sender<Report>,
}

/// What the worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnderWay {
    Look,
    /// A pass over what has changed.
    Change {
        began: Instant,
        everything: bool,
    },
    /// A pass over what nobody should have changed.
    Audit {
        began: Instant,
    },
    /// Announcing what is on a link that carries packets again.
    AnnounceLink,
    Other,
}

impl<S: TableStore + Send + 'static, H: HostStore + Send + 'static> Agent<S, H> {
    /// An agent that has not seen anything yet. `reports` always holds its latest report.
    pub fn new(
        world: World,
        programmer: Programmer<S, H>,
        audit_interval: Duration,
        reports: watch::Sender<Report>,
    ) -> Self {
        let mut timing = Timing::new(audit_interval);
        let first_audit = Instant::now() + audit_interval;
        timing.agenda.set(Timer::Audit, Some(first_audit.into_std()));
        Self {
            world,
            source: SourceState::default(),
            worker: Worker::new(programmer),
            under_way: None,
            pending: Pending::default(),
            audit: Audit::new(audit_interval),
            timing,
            hearing: Hearing::default(),
            events: None,
            reporter: Reporter::default(),
            watchers: Watchers {
                metrics: Metrics::default(),
                vitals: Vitals::new(),
                reports,
            },
        }
    }

    /// Lets the agent ask for Services and their endpoints while it has use for them.
    pub fn asking_for_endpoints(self, wants: watch::Sender<bool>) -> Self {
        Self {
            source: SourceState::asked_for_endpoints(wants),
            ..self
        }
    }

    /// Lets the agent hear what others change in the kernel.
    pub fn hearing(self, events: mpsc::Receiver<Vec<Event>>) -> Self {
        Self {
            events: Some(events),
            ..self
        }
    }

    /// Lets others see what the agent does, and that it does something.
    pub fn watched_by(mut self, metrics: Metrics, vitals: Vitals) -> Self {
        self.watchers.metrics = metrics;
        self.watchers.vitals = vitals;
        self
    }

    /// Runs until the token is cancelled or the source ends; what is under way then is finished. The table stays as it is.
    pub async fn run(mut self, mut events: mpsc::Receiver<SourceEvent>, shutdown: CancellationToken) {
        loop {
            self.begin_the_most_urgent();
            self.report();
            let wake = self.next_wake();
            tokio::select! {
                () = shutdown.cancelled() => break,
                reply = self.worker.reply() => match reply {
                    Some(reply) => self.take_reply(reply),
                    None => break,
                },
                event = events.recv() => {
                    let Some(event) = event else { break };
                    self.watchers.metrics.arrived(Instant::now());
                    self.take_event(event);
                    while let Ok(event) = events.try_recv() {
                        self.take_event(event);
                    }
                }
                heard = hearing::next(&mut self.events) => self.take_heard(heard),
                () = sleep_until(wake) => self.take_due(),
            }
        }
        if self.worker.is_busy() && timeout(LAST_PASS, self.worker.reply()).await.is_err() {
            warn!("stopped in the middle of a pass: the kernel does not answer");
        }
    }

    fn next_wake(&mut self) -> Instant {
        // A kernel that does not answer any more is no sign of life.
        if !self.worker.is_busy() {
            self.watchers.vitals.beat();
        }
        let beat = Instant::now() + Vitals::INTERVAL;
        self.timing.agenda.set(Timer::Beat, Some(beat.into_std()));
        self.timing.agenda.next().map_or(beat, Instant::from_std)
    }

    fn take_event(&mut self, event: SourceEvent) {
        self.reporter.world_changed();
        match event {
            SourceEvent::Updates(updates) => {
                for update in updates {
                    let concern = self.world.update(update);
                    self.pending.add(concern);
                }
            }
            SourceEvent::NodeLabels(labels) => {
                let concern = self.world.set_labels(labels);
                self.pending.add(concern);
            }
            SourceEvent::Complete { unread } => {
                self.source.reported = match unread {
                    true => Reported::Readable,
                    false => Reported::Everything,
                };
                self.watchers.metrics.remembers(None);
                self.pending.add_services(Scope::Every);
            }
            SourceEvent::Remembered { saved } => {
                self.source.reported = Reported::Readable;
                self.watchers.metrics.remembers(Some(saved));
                self.pending.add_services(Scope::Every);
            }
            SourceEvent::Endpoints { known } => self.source.knows_endpoints = known,
            SourceEvent::Problems(problems) => self.source.problems = problems,
        }
    }

    /// Takes what is due off the agenda, and into what is to be done.
    fn take_due(&mut self) {
        let now = Instant::now().into_std();
        while let Some(timer) = self.timing.agenda.take_due(now) {
            match timer {
                Timer::Beat => {}
                Timer::Audit => {
                    if self.may_plan() {
                        self.audit.begin();
                    } else {
                        let next = self.audit.next(&self.world.node.name, now);
                        self.timing.agenda.set(Timer::Audit, Some(next));
                    }
                }
                Timer::Retry => {
                    self.timing.retry.due();
                    self.pending.add_failed(&self.timing.failed);
                }
                Timer::FlushCheck => self.pending.check_for_flush = true,
                Timer::Contest => self.tell_contests(),
                Timer::Heard => {
                    self.hearing.begin_look();
                    self.pending.add_around();
                }
                Timer::Leaving(name) => self.pending.add_services(Scope::These([name].into())),
                Timer::Announce(bound) => {
                    if self.timing.announces(&bound, now) {
                        self.pending.announce.insert(bound);
                    }
                }
            }
        }
    }

    /// Whether enough is known to plan anything.
    fn may_plan(&self) -> bool {
        let lacks_endpoints = self.source.lacks_endpoints(&self.world);
        self.world.knowledge.allows_planning() && !lacks_endpoints && self.world.network.is_some()
    }

    /// After a pass that could not be made, news alone is no reason to try again at once.
    fn waits(&self) -> bool {
        self.reporter.is_stopped() && self.timing.retry.is_planned()
    }

    /// Until everything has been understood once, nothing is deleted: what an earlier agent programmed may be wanted by an
    /// object that cannot be read just now.
    fn judge_knowledge(&mut self) {
        let knowledge = self.source.knowledge(&self.world);
        if self.world.knowledge != knowledge {
            self.world.knowledge = knowledge;
            self.pending.add(Concern {
                services: Scope::Every,
                globals: true,
            });
        }
    }

    /// Has the worker do the most urgent thing, if it does nothing.
    fn begin_the_most_urgent(&mut self) {
        if self.worker.is_busy() {
            return;
        }
        self.judge_knowledge();
        let began = Instant::now();
        let now = began.into_std();
        let may_pass = self.may_plan() && !self.waits();
        if self.world.network.is_none() && !self.waits() {
            // Nothing can be planned without it.
            self.begin(Request::Look, UnderWay::Look);
        } else if may_pass && let Some(work) = self.pending.take(&self.world, now) {
            self.watchers.metrics.begins();
            let everything = work.table == TableWork::Everything;
            self.begin(
                Request::Pass(Box::new(work)),
                UnderWay::Change { began, everything },
            );
        } else if !self.pending.announce.is_empty() {
            let vips = std::mem::take(&mut self.pending.announce);
            self.begin(Request::Announce(vips.into_iter().collect()), UnderWay::Other);
        } else if let Some(link) = self.pending.announce_links.pop_first() {
            self.begin(Request::AnnounceLink(link), UnderWay::AnnounceLink);
        } else if may_pass && let Some(work) = self.audit.slice(&self.world, now) {
            self.begin(Request::Pass(Box::new(work)), UnderWay::Audit { began });
        } else if std::mem::take(&mut self.pending.check_for_flush) {
            self.begin(Request::CheckForFlush, UnderWay::Other);
        }
    }

    fn begin(&mut self, request: Request, under_way: UnderWay) {
        self.under_way = Some(under_way);
        self.worker.begin(request);
    }

    /// Publishes the state, and tells what is new about it.
    fn report(&mut self) {
        let may_plan = self.may_plan();
        let is_idle = !matches!(self.under_way, Some(UnderWay::Look | UnderWay::Change { .. }));
        let complete = may_plan && is_idle && self.pending.is_settled();
        if complete {
            self.watchers.metrics.settled();
        }
        let withholds = self.world.knowledge == Knowledge::Partial;
        let withholding =
            withholds.then(|| "nothing is deleted until every object has been read once".to_owned());
        let problems = self.source.problems.iter().cloned().chain(withholding).collect();
        let report = self.reporter.report(complete, problems, &self.world);
        self.watchers.reports.send_if_modified(|last| {
            let news = *last != *report;
            if news {
                tell::tell_news(last, report);
                last.clone_from(report);
            }
            news
        });
    }
}

#[cfg(test)]
mod tests;
