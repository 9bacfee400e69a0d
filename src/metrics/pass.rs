//! What the agent's loop does, as numbers: it hands over what happened, and here it is counted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use crate::host::HostChange;
use crate::ipvs::{Change, ChangeError};
use crate::netlink::Errno;
use crate::node::{Cause, Pass, PassError};

use super::Label;

/// In seconds: a pass over one changed object takes milliseconds, one over ten thousand services seconds.
const DURATIONS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];
/// The default of `draining.timeout` is a minute.
const DRAINS: [f64; 9] = [1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];
const LATENCIES: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

pub(super) type Counters<const LABELS: usize> = Family<[Label; LABELS], Counter>;

/// What the agent's loop tells of itself. Clones share their numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    durations: Family<[Label; 1], Histogram, fn() -> Histogram>,
    errors: Counters<1>,
    latency: Histogram,
    waiting: Waiting,
    saved: Saved,
    requests: Counters<1>,
    refusals: Counters<2>,
    corrections: Counters<1>,
    steps: Counters<1>,
    drains: Histogram,
    forced_drains: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            errors: from_zero("reason", ["host", "ipvs", "ledger"]),
            latency: Histogram::new(LATENCIES),
            waiting: Waiting::default(),
            saved: Saved::default(),
            requests: from_zero(
                "op",
                [
                    "add_service",
                    "edit_service",
                    "delete_service",
                    "add_destination",
                    "edit_destination",
                    "delete_destination",
                ],
            ),
            refusals: Family::default(),
            corrections: from_zero("kind", ["added", "changed", "removed"]),
            steps: Family::default(),
            drains: Histogram::new(DRAINS),
            forced_drains: Counter::default(),
        }
    }
}

impl Metrics {
    /// Takes in that a pass begins that brings all news there have been into the kernel.
    pub fn begins(&self) {
        let mut news = self.waiting.lock();
        let (waiting, under_way) = (news.waiting.take(), news.under_way);
        news.under_way = [waiting, under_way].into_iter().flatten().min();
    }

    /// Takes in what became of a pass; an audit is one that nothing was asked of.
    pub fn passed(&self, audit: bool, result: &Result<Pass, PassError>) {
        let done = match result {
            Ok(pass) => Some(pass),
            Err(error) => {
                increase(&self.errors, [("reason", reason(error.cause()).into())], 1);
                match error {
                    PassError::Unfinished { done, .. } => Some(&**done),
                    PassError::NotBegun(_) => None,
                }
            }
        };
        if !audit && let Some(since) = self.waiting.ended(result.is_ok()) {
            self.latency.observe(since.elapsed().as_secs_f64());
        }
        if let Some(pass) = done {
            self.count(pass, audit);
        }
    }

    /// Takes in how long a pass took: over `all` virtual services, over `some`, or all slices of an `audit` together.
    pub fn took(&self, scope: &'static str, time: Duration) {
        let durations = self.durations.get_or_create(&[("scope", scope.into())]);
        durations.observe(time.as_secs_f64());
    }

    /// Takes in that there has been news since a time: it waits for a pass that brings it into the kernel.
    pub fn arrived(&self, since: Instant) {
        self.waiting.lock().waiting.get_or_insert(since);
    }

    /// Takes in that no news waits any more, whether or not it concerned this node.
    pub fn settled(&self) {
        *self.waiting.lock() = News::default();
    }

    fn count(&self, pass: &Pass, audit: bool) {
        let asked = tally(pass.steps.table.iter().map(op));
        for (op, count) in &asked {
            increase(&self.requests, [("op", (*op).into())], *count);
        }
        for failure in &pass.refused {
            let labels = [
                ("op", op(&failure.change).into()),
                ("errno", errno(&failure.error)),
            ];
            increase(&self.refusals, labels, 1);
        }
        for drained in &pass.drained {
            self.drains.observe(drained.took.as_secs_f64());
            self.forced_drains.inc_by(drained.forced.into());
        }
        let mut repaired = tally(pass.repairs(audit).map(op));
        if let Some(deleted) = repaired.get_mut("delete_destination") {
            // What drains goes when it is time, be it during an audit.
            *deleted = deleted.saturating_sub(pass.drained.len() as u64);
        }
        for (op, count) in repaired {
            increase(&self.corrections, [("kind", correction(op).into())], count);
        }
        for (step, count) in tally(pass.steps.around.all().map(step)) {
            increase(&self.steps, [("step", step.into())], count);
        }
    }

    /// Takes in when the objects in force were saved, where they are not the source's own.
    pub fn remembers(&self, saved: Option<SystemTime>) {
        *self.saved.lock() = saved;
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "reconcile_duration",
            "Time of a pass over all virtual services or over some",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Passes that could not be made",
            self.errors.clone(),
        );
        registry.register_with_unit(
            "programming_latency",
            "Time from the arrival of news to the end of the pass that programmed it",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register_collector(Box::new(self.waiting.clone()));
        registry.register_collector(Box::new(self.saved.clone()));
        registry.register(
            "netlink_requests",
            "Changes of the table that the kernel was asked for",
            self.requests.clone(),
        );
        registry.register(
            "netlink_errors",
            "Changes of the table that the kernel refused",
            self.refusals.clone(),
        );
        registry.register(
            "kernel_drift_corrections",
            "Entries of the table that audits had to repair",
            self.corrections.clone(),
        );
        registry.register_with_unit(
            "drain_duration",
            "Time from when a destination was no longer wanted to its removal",
            Unit::Seconds,
            self.drains.clone(),
        );
        registry.register(
            "drain_forced",
            "Destinations that were removed with connections left, because their time was over",
            self.forced_drains.clone(),
        );
        registry.register("node_steps", "Steps taken around the table", self.steps.clone());
    }
}

/// When the oldest news came that no pass has brought into the kernel yet.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Mutex<News>>);

/// When the oldest news came.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    /// Of that which waits for a pass.
    waiting: Option<Instant>,
    /// Of that which a pass is bringing.
    under_way: Option<Instant>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, News> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in that a pass has ended, and says since when the news waited that it brought. What it did not bring waits on.
    fn ended(&self, well: bool) -> Option<Instant> {
        let mut news = self.lock();
        let since = news.under_way.take();
        if !well {
            news.waiting = [since, news.waiting].into_iter().flatten().min();
        }
        since.filter(|_| well)
    }
}

impl Collector for Waiting {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let News { waiting, under_way } = *self.lock();
        let oldest = [waiting, under_way].into_iter().flatten().min();
        let seconds = oldest.map_or(0.0, |since| since.elapsed().as_secs_f64());
        let help =
            "For how long the oldest news that is not programmed yet has been waiting; 0 if nothing is.";
        encoder
            .encode_descriptor("config_pending", help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&seconds)
    }
}

/// When the objects in force were saved, if they were read from disk.
#[derive(Debug, Clone, Default)]
struct Saved(Arc<Mutex<Option<SystemTime>>>);

impl Saved {
    fn lock(&self) -> MutexGuard<'_, Option<SystemTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Saved {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let age = self.lock().and_then(|saved| saved.elapsed().ok());
        let seconds = age.map_or(0.0, |age| age.as_secs_f64());
        let help = "How old the saved objects are that are in force since the API server has not answered; 0 if none are.";
        encoder
            .encode_descriptor("cache_age", help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&seconds)
    }
}

/// What first appears with its first increment hides it from `increase()`.
pub(super) fn from_zero<const N: usize>(label: &'static str, values: [&'static str; N]) -> Counters<1> {
    let family = Counters::default();
    for value in values {
        increase(&family, [(label, value.into())], 0);
    }
    family
}

pub(super) fn increase<const N: usize>(family: &Counters<N>, labels: [Label; N], by: u64) {
    family.get_or_create(&labels).inc_by(by);
}

fn tally(words: impl Iterator<Item = &'static str>) -> BTreeMap<&'static str, u64> {
    let mut tally = BTreeMap::new();
    for word in words {
        *tally.entry(word).or_default() += 1;
    }
    tally
}

fn op(change: &Change) -> &'static str {
    match change {
        Change::AddService { .. } => "add_service",
        Change::EditService { .. } => "edit_service",
        Change::DeleteService { .. } => "delete_service",
        Change::AddDestination { .. } => "add_destination",
        Change::EditDestination { .. } => "edit_destination",
        Change::DeleteDestination { .. } => "delete_destination",
    }
}

/// What an audit did about what somebody else had done.
fn correction(op: &str) -> &'static str {
    match op.split_once('_') {
        Some(("add", _)) => "added",
        Some(("delete", _)) => "removed",
        _ => "changed",
    }
}

fn step(change: &HostChange) -> &'static str {
    match change {
        HostChange::SetSysctl { .. } => "set_sysctl",
        HostChange::RestoreSysctl { .. } => "restore_sysctl",
        HostChange::AddLink { .. } => "add_link",
        HostChange::DeleteLink { .. } => "delete_link",
        HostChange::AddAddress(_) => "add_address",
        HostChange::DeleteAddress(_) => "delete_address",
        HostChange::OpenGuePort(_) => "open_gue_port",
        HostChange::CloseGuePort(_) => "close_gue_port",
        HostChange::ChangeRules(_) => "change_rules",
        HostChange::Announce(_) => "announce",
    }
}

fn reason(cause: &Cause) -> &'static str {
    match cause {
        Cause::Ipvs(_) => "ipvs",
        Cause::Host(_) => "host",
        Cause::Ledger(_) => "ledger",
    }
}

/// The kernel's name of an error, where it has a common one.
fn errno(error: &ChangeError) -> Cow<'static, str> {
    match error {
        ChangeError::AlreadyThere => "EEXIST".into(),
        ChangeError::NotThere | ChangeError::NoScheduler(_) | ChangeError::NoSchedulerOrEngine { .. } => {
            "ENOENT".into()
        }
        ChangeError::NotPermitted => "EPERM".into(),
        ChangeError::NoFamily(_) => "EAFNOSUPPORT".into(),
        ChangeError::NoProtocol => "EPROTONOSUPPORT".into(),
        ChangeError::Invalid => "EINVAL".into(),
        ChangeError::Thresholds => "ERANGE".into(),
        ChangeError::Skipped => "skipped".into(),
        ChangeError::Unknown(_) => "unknown".into(),
        ChangeError::Other(refused) => match refused.errno {
            Errno::INVAL => "EINVAL".into(),
            Errno::RANGE => "ERANGE".into(),
            other => other.raw_os_error().to_string().into(),
        },
    }
}
