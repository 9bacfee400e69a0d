//! What an agent tells its log.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use crate::ipvs::SyncDaemonRole;
use crate::node::{GlobalChange, Pass};

use super::report::Report;

/// Tells what a pass did.
pub(super) fn tell(pass: &Pass, audit: bool) {
    for change in pass.steps.around.all() {
        info!("{change}");
    }
    for change in &pass.steps.table {
        debug!(service = %change.service(), "{change}");
    }
    for key in &pass.adopted {
        warn!(service = %key, "{key} was in the kernel already and is wanted: it is Weir's from now on");
    }
    let changes = pass.steps.table.len() - pass.refused.len();
    let repairs = pass.repairs(audit).count().saturating_sub(pass.drained.len());
    if repairs > 0 {
        warn!(
            changes = repairs,
            "the kernel's table was not as it should be and has been repaired"
        );
    } else if changes > 0 {
        info!(changes, "the kernel's table has been changed");
    }
    for change in &pass.steps.globals {
        match change {
            GlobalChange::SetTimeouts(timeouts) => info!("the connection timeouts have been set: {timeouts}"),
            GlobalChange::StopSyncDaemon(role) => info!("sync daemon {role} has been stopped"),
            GlobalChange::StartSyncDaemon(daemon) => match daemon.role {
                SyncDaemonRole::Master => info!("connections are passed on to the standby directors"),
                SyncDaemonRole::Backup => info!("connections are taken from the active director"),
            },
        }
    }
}

/// Tells what came and what went since the last report.
pub(super) fn tell_news(last: &Report, report: &Report) {
    if report.stopped_by != last.stopped_by || report.node.refused != last.node.refused {
        let before: BTreeSet<String> = last.failures().map(|failure| failure.message).collect();
        for failure in report
            .failures()
            .filter(|failure| !before.contains(&failure.message))
        {
            error!("{}", failure.message);
        }
    }
    if report.node.arp_suppression != last.node.arp_suppression {
        let methods: Vec<&str> = report
            .node
            .arp_suppression
            .iter()
            .map(|method| method.words())
            .collect();
        match methods[..] {
            [] => info!("ARP suppression is no longer needed"),
            _ => info!("ARP is suppressed by {}", methods.join(" and ")),
        }
    }
    if report.node.leaving != last.node.leaving {
        match report.node.leaving {
            0 => info!("no destination is leaving any more"),
            leaving => info!("destinations without new connections, until those they have end: {leaving}"),
        }
    }
    if !Arc::ptr_eq(&report.findings, &last.findings) {
        tell_findings(last, report);
    }
    for obstacle in report.obstacles().difference(&last.obstacles()) {
        warn!("{obstacle}");
    }
    for obstacle in last.obstacles().difference(&report.obstacles()) {
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

fn tell_findings(last: &Report, report: &Report) {
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
}
