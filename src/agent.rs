//! The agent: when to pass over what. It decides nothing about the table itself.
//!
//! ```text
//! source ─► SourceEvent ─┐
//! audit, every minute ───┼─► scope ─► Reconciler::pass ─► Report ─► log, NodeState
//! retry after a failure ─┤
//! a service is missing ──┘
//! ```
//!
//! One task runs the loop; a pass runs on a blocking thread, since the kernel works while we wait. What arrives
//! during a pass is gathered and passed over together. Until the source has reported everything once, nothing is
//! passed over. When the agent stops, everything stays as it is.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::catalog::Scope;
use crate::host::{HostFailure, HostStore};
use crate::ipvs::{IpvsError, SyncDaemonRole, TableStore};
use crate::metrics::{self, Metrics};
use crate::plan::Role;
use crate::reconcile::{Pass, Reconciler};
use crate::report::{Numbers, Report, ReportedFailure};
use crate::serve::Vitals;
use crate::source::SourceEvent;

/// The first wait before something that failed is tried again; it doubles up to the audit interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// How often neighbours are told again that a VIP is here, in case one did not hear, and how long after each other.
const ANNOUNCEMENTS: u8 = 4;
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// How often one of the services is looked at between audits: the kernel tells nobody of a flush.
const GLANCE_INTERVAL: Duration = Duration::from_secs(1);

/// The agent's loop.
#[derive(Debug)]
pub struct Agent<S, H> {
    /// Absent only while a pass has it.
    reconciler: Option<Reconciler<S, H>>,
    audit_interval: Duration,
    complete: bool,
    /// Where it says whether it wants to know of Services and their endpoints; nobody listens where there are none.
    wants_endpoints: Option<watch::Sender<bool>>,
    knows_endpoints: bool,
    /// Whether the source holds something that could not be read since the start.
    unread: bool,
    /// Whether everything that is there has been understood at least once, so that what is missing is gone.
    understood: bool,
    scope: Scope,
    problems: Vec<String>,
    /// Why the last pass could not be made.
    stopped_by: Option<String>,
    retry: Duration,
    next_retry: Option<Instant>,
    next_audit: Instant,
    next_glance: Instant,
    /// How many announcements are left, and when the next one is due.
    announcements: Option<(u8, Instant)>,
    metrics: Metrics,
    vitals: Vitals,
    reports: watch::Sender<Report>,
}

impl<S: TableStore + Send + 'static, H: HostStore + Send + 'static> Agent<S, H> {
    /// An agent that has not seen anything yet. `reports` always holds its latest report.
    pub fn new(
        reconciler: Reconciler<S, H>,
        audit_interval: Duration,
        reports: watch::Sender<Report>,
    ) -> Self {
        Self {
            reconciler: Some(reconciler),
            audit_interval,
            complete: false,
            wants_endpoints: None,
            knows_endpoints: false,
            unread: false,
            understood: false,
            scope: Scope::default(),
            problems: Vec::new(),
            stopped_by: None,
            retry: FIRST_RETRY,
            next_retry: None,
            next_audit: Instant::now() + audit_interval,
            next_glance: Instant::now() + GLANCE_INTERVAL,
            announcements: None,
            metrics: Metrics::default(),
            vitals: Vitals::new(),
            reports,
        }
    }

    /// Lets the agent ask for Services and their endpoints while it has use for them.
    pub fn asking_for_endpoints(self, wants: watch::Sender<bool>) -> Self {
        Self {
            wants_endpoints: Some(wants),
            ..self
        }
    }

    /// Lets others see what the agent does, and that it does something.
    pub fn watched_by(self, metrics: Metrics, vitals: Vitals) -> Self {
        Self {
            metrics,
            vitals,
            ..self
        }
    }

    /// Runs until the token is cancelled or the source ends. The table stays as it is then.
    pub async fn run(mut self, mut events: mpsc::Receiver<SourceEvent>, shutdown: CancellationToken) {
        // When the pass began during which the next event came, if one did: it cannot have come before.
        let mut came = None;
        loop {
            self.vitals.beat();
            let next_look = self.reconciler.as_ref().and_then(Reconciler::next_look);
            let due = [
                self.next_retry,
                self.announcements.map(|(_, due)| due),
                next_look.map(Instant::from_std),
            ];
            let latest = self.next_audit.min(Instant::now() + Vitals::INTERVAL);
            let wake = due.into_iter().flatten().fold(latest, Instant::min);
            let mut audit = false;
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.recv() => {
                    let Some(event) = event else { return };
                    self.metrics.arrived(came.take().unwrap_or_else(Instant::now));
                    self.take(event);
                    while let Ok(event) = events.try_recv() {
                        self.take(event);
                    }
                }
                () = sleep_until(self.next_glance), if self.may_miss_something() => {
                    if !self.glance().await {
                        continue;
                    }
                    audit = true;
                }
                () = sleep_until(wake) => {
                    audit = self.wake();
                    self.announce_again().await;
                }
            }
            if self.complete && !self.scope.is_empty() && !self.lacks_endpoints() && !self.waits() {
                let began = Instant::now();
                self.pass(audit).await;
                if !events.is_empty() {
                    came.get_or_insert(began);
                }
            }
            if self.complete && self.scope.is_empty() {
                self.metrics.settled();
            }
            self.report();
        }
    }

    fn take(&mut self, event: SourceEvent) {
        let Some(reconciler) = self.reconciler.as_mut() else {
            return;
        };
        match event {
            SourceEvent::Updates(updates) => {
                for update in updates {
                    let concerned = reconciler.update(update);
                    self.scope.extend(concerned);
                }
            }
            SourceEvent::NodeLabels(labels) => {
                let concerned = reconciler.set_labels(labels);
                self.scope.extend(concerned);
            }
            SourceEvent::Complete { unread } => {
                self.complete = true;
                self.unread = unread;
                self.scope = Scope::All;
            }
            SourceEvent::Endpoints { known } => self.knows_endpoints = known,
            SourceEvent::Problems(problems) => self.problems = problems,
        }
    }

    /// Says whether endpoints are wanted, and whether they are and nothing is known of them yet: then they would look as
    /// if they were gone.
    fn lacks_endpoints(&self) -> bool {
        let (Some(wants), Some(reconciler)) = (&self.wants_endpoints, &self.reconciler) else {
            return false;
        };
        let needed = reconciler.needs_endpoints();
        wants.send_if_modified(|wanted| std::mem::replace(wanted, needed) != needed);
        needed && !self.knows_endpoints
    }

    /// After a pass that could not be made, news alone is no reason to try again at once.
    fn waits(&self) -> bool {
        self.stopped_by.is_some() && self.next_retry.is_some_and(|retry| Instant::now() < retry)
    }

    /// What a timer asks for; says whether it is the audit.
    fn wake(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.next_audit {
            // Whether or not it can be made now: a time that stays past would wake us for ever.
            self.next_audit = now + self.audit_interval;
            self.scope = Scope::All;
            return true;
        }
        let retries = self.next_retry.take_if(|retry| now >= *retry).is_some();
        if let Some(reconciler) = &self.reconciler {
            self.scope.extend(reconciler.leaving_scope(now.into_std()));
            if retries {
                self.scope.extend(reconciler.failed_scope());
            }
        }
        false
    }

    fn may_miss_something(&self) -> bool {
        let reconciler = self.reconciler.as_ref();
        reconciler.is_some_and(|reconciler| reconciler.programmed().services() > 0)
    }

    /// Looks at one service, and if that is gone, has everything looked at: others flush the table, as kube-proxy does at
    /// each start in nftables mode.
    async fn glance(&mut self) -> bool {
        self.next_glance = Instant::now() + GLANCE_INTERVAL;
        let Some(mut reconciler) = self.reconciler.take() else {
            return false;
        };
        let glanced = blocking(move || {
            let misses_one = reconciler.misses_one();
            (reconciler, misses_one)
        });
        let Some((reconciler, misses_one)) = glanced.await else {
            return false;
        };
        self.reconciler = Some(reconciler);
        if misses_one {
            self.scope = Scope::All;
        }
        misses_one
    }

    async fn pass(&mut self, audit: bool) {
        let Some(mut reconciler) = self.reconciler.take() else {
            return;
        };
        self.judge(&mut reconciler);
        let scope = std::mem::take(&mut self.scope);
        let everything = scope == Scope::All;
        let began = Instant::now();
        let passed = blocking(move || {
            let result = reconciler.pass(&scope, began.into_std());
            (reconciler, scope, result)
        });
        let Some((reconciler, scope, result)) = passed.await else {
            return;
        };
        let kind = metrics::Kind { everything, audit };
        self.metrics.passed(kind, began.elapsed(), &result);
        if everything {
            self.next_audit = Instant::now() + jittered(self.audit_interval, &reconciler.node().name);
        }
        let again = match result {
            Ok(pass) => {
                self.stopped_by = None;
                self.vitals.ready();
                tell(&pass, audit);
                if !reconciler.taken().is_empty() {
                    self.announcements = Some((ANNOUNCEMENTS, Instant::now() + ANNOUNCEMENT_INTERVAL));
                }
                !reconciler.failed_scope().is_empty()
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                self.stopped_by = Some(format!(
                    "no pass could be made, everything stays as it is: {error:#}"
                ));
                self.scope.extend(scope);
                true
            }
        };
        self.reconciler = Some(reconciler);
        self.plan_retry(again);
    }

    /// Tells the neighbours again that a VIP is here, if that is due.
    async fn announce_again(&mut self) {
        let Some((left, due)) = self.announcements else {
            return;
        };
        if Instant::now() < due {
            return;
        }
        self.announcements = (left > 1).then(|| (left - 1, Instant::now() + ANNOUNCEMENT_INTERVAL));
        if let Some(mut reconciler) = self.reconciler.take() {
            let announce = move || {
                let failures = reconciler.announce_again();
                (reconciler, failures)
            };
            if let Some((reconciler, failures)) = blocking(announce).await {
                for failure in failures {
                    warn!("{failure}");
                }
                self.reconciler = Some(reconciler);
            }
        }
    }

    /// Until everything has been understood once, nothing is deleted: what an earlier agent programmed may be
    /// wanted by an object that cannot be read just now.
    fn judge(&mut self, reconciler: &mut Reconciler<S, H>) {
        if self.understood {
            return;
        }
        self.understood = !self.unread && !reconciler.catalog().has_formless();
        reconciler.keep_everything(!self.understood);
        if self.understood {
            self.scope = Scope::All;
        }
    }

    /// Why nothing is deleted, if so.
    fn withholding(&self) -> Option<String> {
        let withholds = self.complete && !self.understood;
        withholds.then(|| "nothing is deleted until every object has been read once".to_owned())
    }

    /// Plans the next try, unless one is planned: news about something else neither hurries it nor puts it off.
    fn plan_retry(&mut self, again: bool) {
        if !again {
            self.retry = FIRST_RETRY;
            self.next_retry = None;
        } else if self.next_retry.is_none() {
            self.next_retry = Some(Instant::now() + self.retry);
            self.retry = (self.retry * 2).min(self.audit_interval);
        }
    }

    fn failures(&self, reconciler: &Reconciler<S, H>) -> Vec<ReportedFailure> {
        let of_the_node = |message| ReportedFailure {
            virtual_service: None,
            message,
        };
        let of_entries = reconciler.failures().map(|(owner, failure)| ReportedFailure {
            virtual_service: owner.cloned(),
            message: failure.to_string(),
        });
        let around = reconciler.host_failures().iter().map(HostFailure::to_string);
        let of_the_table = reconciler.table_failures().iter().map(chain_of);
        let stopped_by = self.stopped_by.iter().cloned();
        stopped_by
            .map(of_the_node)
            .chain(of_entries)
            .chain(around.chain(of_the_table).map(of_the_node))
            .collect()
    }

    /// Publishes the state, and tells what is new about it.
    fn report(&mut self) {
        let Some(reconciler) = &self.reconciler else {
            return;
        };
        let report = Report {
            complete: self.complete && self.scope.is_empty(),
            roles: roles(reconciler),
            desired: numbers(reconciler.desired()),
            programmed: numbers(reconciler.programmed()),
            foreign: reconciler.foreign(),
            leaving: reconciler.leaving(),
            leaving_real_servers: reconciler.leaving_real_servers(),
            arp_suppression: reconciler.arp_suppression().clone(),
            generations: reconciler.generations().clone(),
            failures: self.failures(reconciler),
            obstacles: reconciler.obstacles().clone(),
            findings: reconciler.findings(),
            problems: self.problems.iter().cloned().chain(self.withholding()).collect(),
        };
        self.reports.send_if_modified(|last| {
            let news = *last != report;
            if news {
                tell_news(last, &report);
                *last = report;
            }
            news
        });
    }
}

/// Runs on a thread where waiting for the kernel keeps nobody else waiting. `None` while the runtime is being shut down.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => Some(done),
        // A broken invariant: what the act knew is lost, so the agent ends rather than go on blindly.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

fn roles<S: TableStore, H: HostStore>(reconciler: &Reconciler<S, H>) -> Vec<(String, Role)> {
    let node = reconciler.node();
    let groups = reconciler.catalog().director_groups();
    groups
        .map(|(name, group)| (name.to_string(), node.role(group)))
        .filter(|(_, role)| *role != Role::None)
        .collect()
}

fn numbers(programming: &crate::reconcile::Programming) -> Numbers {
    Numbers {
        services: programming.services(),
        destinations: programming.destinations(),
        digest: programming.digest(),
    }
}

/// Spreads the audits of many nodes over a tenth of the interval.
fn jittered(interval: Duration, node: &str) -> Duration {
    let share = (crate::digest::text(node) % 1000) as u32;
    interval - interval / 10 * share / 1000
}

/// An error with its causes.
fn chain_of(error: &IpvsError) -> String {
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn tell(pass: &Pass, audit: bool) {
    for change in pass.steps.all() {
        info!("{change}");
    }
    for change in &pass.changes {
        debug!(service = %change.service(), "{change}");
    }
    for key in &pass.adopted {
        warn!(service = %key, "{key} was in the kernel already and is wanted: it is Weir's from now on");
    }
    let changes = pass.changes.len() - pass.failures.len();
    // What drains goes when it is time, be it during an audit.
    let repairs = changes - pass.drained.len();
    if audit && repairs > 0 {
        warn!(
            changes = repairs,
            "the kernel's table was not as it should be and has been repaired"
        );
    } else if changes > 0 {
        info!(changes, "the kernel's table has been changed");
    }
    if pass.timeouts_set {
        info!("the connection timeouts have been set");
    }
    match pass.sync_daemon_started {
        Some(SyncDaemonRole::Master) => info!("connections are passed on to the standby directors"),
        Some(SyncDaemonRole::Backup) => info!("connections are taken from the active director"),
        None => {}
    }
}

/// Tells what came and what went since the last report.
fn tell_news(last: &Report, report: &Report) {
    for failure in report
        .failures
        .iter()
        .filter(|failure| !last.failures.contains(failure))
    {
        error!("{}", failure.message);
    }
    if report.arp_suppression != last.arp_suppression {
        let methods: Vec<&str> = report
            .arp_suppression
            .iter()
            .map(|method| method.words())
            .collect();
        match methods[..] {
            [] => info!("no VIP has to be kept quiet any more"),
            _ => info!("VIPs are kept quiet by {}", methods.join(" and ")),
        }
    }
    if report.leaving != last.leaving {
        match report.leaving {
            0 => info!("no destination is leaving any more"),
            leaving => info!("destinations without new connections, until those they have end: {leaving}"),
        }
    }
    for finding in report.findings.difference(&last.findings) {
        let (object, reason) = (&finding.object, finding.reason.word());
        let (kind, namespace, name) = (object.kind.name(), object.namespace.as_deref(), &*object.name);
        warn!(kind, namespace, name, reason, "{finding}");
    }
    for finding in last.findings.difference(&report.findings) {
        let (object, reason) = (&finding.object, finding.reason.word());
        let (kind, namespace, name) = (object.kind.name(), object.namespace.as_deref(), &*object.name);
        info!(kind, namespace, name, reason, "no longer: {finding}");
    }
    for obstacle in report.obstacles.difference(&last.obstacles) {
        warn!("{obstacle}");
    }
    for obstacle in last.obstacles.difference(&report.obstacles) {
        info!("no longer: {obstacle}");
    }
    for problem in report
        .problems
        .iter()
        .filter(|problem| !last.problems.contains(problem))
    {
        error!("{}", problem.trim_start_matches("error: "));
    }
    for problem in last
        .problems
        .iter()
        .filter(|problem| !report.problems.contains(problem))
    {
        info!("no longer: {problem}");
    }
}

#[cfg(test)]
mod tests;
