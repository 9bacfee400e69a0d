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
//! | `report` | what an agent has done, and what kept it from doing more | pure |
//! | `timing` | everything that takes time, and when it is due | pure |
//! | `undone` | what others undo: how soon it is repaired | pure |
//! | `tell` | the log | |
//! | `status`, `publish` | the report → NodeState | pure; I/O |

mod audit;
mod heard;
mod listen;
mod pending;
pub mod publish;
pub mod report;
mod source;
pub mod status;
mod tell;
mod timing;
mod undone;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::catalog::Scope;
use crate::causes::with_causes;
use crate::host::HostStore;
use crate::ipvs::TableStore;
use crate::metrics::Metrics;
use crate::netlink::Event;
use crate::node::{Looked, Pass, PassError, Passed, Programmer, Reply, Request, Worker};
use crate::phases::contest;
use crate::plan::{Concern, Knowledge, World};
use crate::serve::Vitals;
use crate::source::SourceEvent;

use audit::Audit;
use heard::{Concerned, Hearing};
pub use listen::listen;
use pending::Pending;
use report::{Report, Reporter};
use source::{Reported, SourceState};
use timing::{Timer, Timing};

/// How often one of the entries is looked at between audits.
const FLUSH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

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
                heard = next(&mut self.events) => self.take_heard(heard),
                () = sleep_until(wake) => self.take_due(),
            }
        }
        if self.worker.is_busy() {
            self.worker.reply().await;
        }
    }

    fn next_wake(&mut self) -> Instant {
        self.watchers.vitals.beat();
        let beat = Instant::now() + Vitals::INTERVAL;
        self.timing.agenda.set(Timer::Beat, Some(beat.into_std()));
        self.timing.agenda.next().map_or(beat, Instant::from_std)
    }

    fn take_event(&mut self, event: SourceEvent) {
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

    /// Takes in what was heard of the kernel. While something is done, it waits: what is heard then may be an echo of that.
    fn take_heard(&mut self, events: Vec<Event>) {
        self.hearing.hear(events);
        if !self.worker.is_busy() {
            self.judge_heard();
        }
    }

    fn judge_heard(&mut self) {
        let now = Instant::now().into_std();
        for concerned in self.hearing.concerned(&self.world, now) {
            match concerned {
                Concerned::Around(work) => self.look_at_heard(work, now),
                Concerned::Table => self.repair_table(),
                Concerned::Everything => {
                    self.look_at_heard(contest::Work::Addresses, now);
                    self.pending.check_for_flush = true;
                }
                Concerned::Carrier(link) => {
                    self.look_at_heard(contest::Work::Addresses, now);
                    self.pending.announce_links.insert(link);
                }
                Concerned::Program(program) => {
                    self.timing.undone.seen(contest::Work::Rules, &program);
                    self.tell_contests();
                }
            }
        }
    }

    /// Plans a look at what is around the table, as soon as somebody else's undoing of it may be repaired.
    fn look_at_heard(&mut self, work: contest::Work, now: std::time::Instant) {
        let look = self.hearing.look_at(now);
        let look = self
            .timing
            .undone
            .may_repair(work)
            .map_or(look, |time| time.max(look));
        self.timing.agenda.set_at_latest(Timer::Heard, look);
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
            let everything = work.scope == Scope::Every;
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

    fn take_reply(&mut self, reply: Reply) {
        let under_way = self.under_way.take();
        self.take_reply_of(reply, under_way);
        self.judge_heard();
    }

    fn take_reply_of(&mut self, reply: Reply, under_way: Option<UnderWay>) {
        match reply {
            Reply::Looked(Ok(Looked { network, ports })) => {
                self.world.network = Some(network);
                self.hearing.took_steps(false, ports, Instant::now().into_std());
            }
            Reply::Looked(Err(error)) => {
                self.reporter
                    .stopped_by(Some(why_stopped(&PassError::NotBegun(error.into()))));
                self.timing.plan_retry(true, Instant::now().into_std());
            }
            Reply::Passed(passed) => self.take_pass(*passed, under_way),
            Reply::Announced { vips, failures } => {
                if under_way == Some(UnderWay::AnnounceLink) {
                    self.timing.announced(&vips, Instant::now().into_std());
                }
                for failure in failures {
                    warn!("{failure}");
                }
            }
            Reply::CheckedForFlush { misses_an_entry } => {
                if self.reporter.programs_anything() {
                    self.plan_flush_check();
                }
                if misses_an_entry {
                    self.repair_table();
                }
            }
        }
    }

    /// Somebody has deleted entries, maybe all: others flush the table, as kube-proxy does at each start in nftables mode.
    fn repair_table(&mut self) {
        let now = Instant::now().into_std();
        let may_repair = self.timing.undone.may_repair(contest::Work::Table);
        if may_repair.is_none_or(|time| time <= now) {
            self.pending.add_services(Scope::Every);
        }
    }

    fn plan_flush_check(&mut self) {
        let next = Instant::now() + FLUSH_CHECK_INTERVAL;
        self.timing.agenda.set(Timer::FlushCheck, Some(next.into_std()));
    }

    fn take_pass(&mut self, passed: Passed, under_way: Option<UnderWay>) {
        let now = Instant::now();
        self.measure(&passed, under_way, now);
        let Passed {
            scope,
            result,
            failed,
            leaving,
            network,
            ports,
            summary,
        } = passed;
        let steps = match &result {
            Ok(pass) => Some(pass),
            Err(PassError::Unfinished { done, .. }) => Some(&**done),
            Err(PassError::NotBegun(_)) => None,
        };
        let took_steps = steps.is_some_and(|pass| !pass.steps.around.is_empty());
        self.hearing.took_steps(took_steps, ports, now.into_std());
        self.hearing
            .looked(took_steps || network.is_some(), now.into_std());
        if let Some(network) = network {
            self.world.network = Some(network);
            self.pending.network_changed();
        }
        for (name, time) in leaving {
            self.timing.agenda.set(Timer::Leaving(name), time);
        }
        self.reporter.node(summary, &self.world);
        if self.reporter.programs_anything() && self.timing.agenda.time_of(&Timer::FlushCheck).is_none() {
            self.plan_flush_check();
        }
        let is_audit = matches!(under_way, Some(UnderWay::Audit { .. }));
        let everything = scope == Scope::Every;
        let mut failed_now = !failed.is_empty();
        match &result {
            Ok(pass) => {
                self.reporter.stopped_by(None);
                self.watchers.vitals.ready();
                self.took_steps(pass, is_audit, now);
            }
            Err(error) => {
                failed_now = true;
                self.reporter.stopped_by(Some(why_stopped(error)));
                if let PassError::Unfinished { done, .. } = error {
                    self.took_steps(done, is_audit, now);
                }
                self.pending.add_services(scope);
                self.pending.add_around();
                self.audit.stop();
            }
        }
        self.timing.failed = failed;
        self.timing.plan_retry(failed_now, now.into_std());
        self.plan_audit(everything && result.is_ok(), is_audit, now);
    }

    /// Plans the next audit after the last slice of one. After a pass over everything only the rest of one is due.
    fn plan_audit(&mut self, everything: bool, is_audit: bool, now: Instant) {
        if everything {
            self.audit.begin_with_rest();
        } else if is_audit && !self.audit.is_under_way() {
            let next = self.audit.next(&self.world.node.name, now.into_std());
            self.timing.agenda.set(Timer::Audit, Some(next));
            self.watchers.metrics.took("audit", self.audit.took);
            self.timing.undone.audited();
            self.tell_contests();
        }
    }

    fn measure(&mut self, passed: &Passed, under_way: Option<UnderWay>, now: Instant) {
        let metrics = &self.watchers.metrics;
        let is_audit = matches!(under_way, Some(UnderWay::Audit { .. }));
        metrics.passed(is_audit, &passed.result);
        match under_way {
            Some(UnderWay::Change { began, everything }) => {
                metrics.took(if everything { "all" } else { "some" }, now - began);
            }
            Some(UnderWay::Audit { began }) => self.audit.took += now - began,
            _ => {}
        }
    }

    fn took_steps(&mut self, pass: &Pass, is_audit: bool, now: Instant) {
        tell::tell(pass, is_audit);
        self.timing.took_steps(pass, now.into_std());
        self.tell_contests();
    }

    fn tell_contests(&mut self) {
        let now = Instant::now().into_std();
        let (checks, next) = self.timing.undone.checks(self.world.network.as_ref(), now);
        self.timing.agenda.set(Timer::Contest, next);
        self.reporter.contests(checks);
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
        let report = self.reporter.report(complete, problems, &self.world.catalog);
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

/// What is heard next; waits for ever where nobody listens.
async fn next(events: &mut Option<mpsc::Receiver<Vec<Event>>>) -> Vec<Event> {
    let heard = match events {
        Some(events) => events.recv().await,
        None => None,
    };
    match heard {
        Some(heard) => heard,
        None => std::future::pending().await,
    }
}

fn why_stopped(error: &PassError) -> String {
    match error {
        PassError::NotBegun(cause) => {
            format!(
                "no pass could be made, everything stays as it is: {}",
                with_causes(cause)
            )
        }
        PassError::Unfinished { done, cause } => format!(
            "a pass broke off after {} steps, what it has done stays: {}",
            done.steps.len(),
            with_causes(cause)
        ),
    }
}

#[cfg(test)]
mod tests;
