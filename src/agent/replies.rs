//! What the agent makes of what the worker has done.

use tokio::time::{Duration, Instant};
use tracing::warn;

use crate::catalog::Scope;
use crate::causes::with_causes;
use crate::host::{HostChange, HostStore};
use crate::ipvs::TableStore;
use crate::node::{Looked, Pass, PassError, Passed, Reply, TableWork};
use crate::phases::contest;

use super::timing::Timer;
use super::{Agent, UnderWay, tell};

/// How often one of the entries is looked at between audits.
const FLUSH_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl<S: TableStore + Send + 'static, H: HostStore + Send + 'static> Agent<S, H> {
    pub(super) fn take_reply(&mut self, reply: Reply) {
        self.watchers.vitals.beat();
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
    pub(super) fn repair_table(&mut self) {
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
            table,
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
        self.reporter.node(summary);
        if self.reporter.programs_anything() && self.timing.agenda.time_of(&Timer::FlushCheck).is_none() {
            self.plan_flush_check();
        }
        let is_audit = matches!(under_way, Some(UnderWay::Audit { .. }));
        let everything = table == TableWork::Everything;
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
        for change in pass.steps.around.all() {
            // Another node may answer for it by now.
            if let HostChange::DeleteAddress(bound) = change {
                self.pending.announce.remove(bound);
            }
        }
        self.tell_contests();
    }

    pub(super) fn tell_contests(&mut self) {
        let now = Instant::now().into_std();
        let (checks, next) = self.timing.undone.checks(self.world.network.as_ref(), now);
        self.timing.agenda.set(Timer::Contest, next);
        self.reporter.contests(checks);
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
