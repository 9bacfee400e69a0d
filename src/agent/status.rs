//! An agent's report → the status of its NodeState. Pure.

use crate::api::{
    ArpSuppressionMethod, DirectorRole, FailureReport, FindingReport, LeavingRealServer, NodeStateStatus,
    PreflightReport, Programmed, RoleReport,
};
use crate::host::ArpMethod;
use crate::node::Numbers;
use crate::plan::Role;

use super::report::Report;

/// How many failures and findings a NodeState lists; its counts say how many there are.
const LISTED: usize = 32;
/// How many RealServers that leave it lists; the others follow as these go.
const LEAVING_LISTED: usize = 256;

/// What a node's agent says of itself in the cluster.
pub fn node_state(report: &Report) -> NodeStateStatus {
    let problems = report.problems.iter().map(|message| FailureReport {
        virtual_service: None,
        message: bounded(message, 512),
    });
    let failures = report.failures().map(|failure| FailureReport {
        virtual_service: failure.virtual_service.as_ref().map(ToString::to_string),
        message: bounded(&failure.message, 512),
    });
    NodeStateStatus {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        roles: report.roles.iter().filter_map(role).take(64).collect(),
        desired: programmed(&report.node.desired),
        programmed: programmed(&report.node.programmed),
        programmed_virtual_services: (!report.node.generations.is_empty())
            .then(|| report.node.generations.to_string()),
        foreign_services: count(report.node.foreign),
        leaving_destinations: count(report.node.leaving),
        leaving_real_servers: leaving_real_servers(report),
        arp_suppression: report.node.arp_suppression.iter().map(arp_suppression).collect(),
        failure_count: count(report.problems.len() + report.failure_count()),
        failures: problems.chain(failures).take(LISTED).collect(),
        preflight: report
            .obstacles()
            .into_iter()
            .take(LISTED)
            .map(|obstacle| PreflightReport {
                subject: bounded(&obstacle.subject, 253),
                message: bounded(obstacle.words(), 1024),
            })
            .collect(),
        finding_count: count(report.findings.len()),
        findings: report
            .findings
            .iter()
            .take(LISTED)
            .map(|finding| FindingReport {
                object: finding.object.to_string(),
                field: (!finding.field.is_empty()).then(|| bounded(&finding.field, 253)),
                reason: finding.reason.word().to_owned(),
                message: bounded(&finding.message, 1024),
            })
            .collect(),
    }
}

/// Only directors are asked; those that have left first, since somebody waits to hear it.
fn leaving_real_servers(report: &Report) -> Vec<LeavingRealServer> {
    if report.roles.is_empty() {
        return Vec::new();
    }
    let mut leaving: Vec<_> = report.leaving_real_servers.iter().collect();
    leaving.sort_by_key(|(_, destinations)| **destinations);
    let leaving = leaving.into_iter().take(LEAVING_LISTED);
    leaving
        .map(|(name, destinations)| LeavingRealServer {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            destinations: count(*destinations),
        })
        .collect()
}

fn arp_suppression(method: &ArpMethod) -> ArpSuppressionMethod {
    match method {
        ArpMethod::Nftables => ArpSuppressionMethod::Nftables,
        ArpMethod::Sysctl => ArpSuppressionMethod::Sysctl,
    }
}

fn role((group, role): &(String, Role)) -> Option<RoleReport> {
    let role = match role {
        Role::Active => DirectorRole::Active,
        Role::Standby => DirectorRole::Standby,
        Role::None => return None,
    };
    Some(RoleReport {
        director_group: group.clone(),
        role,
    })
}

fn programmed(numbers: &Numbers) -> Programmed {
    Programmed {
        digest: format!("{:016x}", numbers.digest),
        services: count(numbers.services),
        destinations: count(numbers.destinations),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The first characters of a text, as many as the schema takes.
fn bounded(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::{Finding, ObjectRef, Reason};
    use crate::node::{RefusedChange, Summary};

    #[test]
    fn long_lists_are_cut_and_counted() {
        let finding = |number: u32| {
            let object = ObjectRef::director_group(format!("group-{number:03}").into());
            Finding::new(object, "spec", Reason::Invalid, "x".repeat(5000))
        };
        let report = Report {
            findings: Arc::new((0..100).map(finding).collect()),
            ..Report::default()
        };
        let status = node_state(&report);
        assert_eq!((status.finding_count, status.findings.len()), (100, LISTED));
        assert_eq!(status.findings[0].message.len(), 1024);
        assert_eq!(status.findings[0].object, "DirectorGroup group-000");
    }

    #[test]
    fn problems_of_the_source_come_before_failures_of_the_kernel() {
        let report = Report {
            problems: vec!["folder".to_owned()],
            node: Summary {
                refused: vec![RefusedChange {
                    virtual_service: None,
                    message: "kernel".to_owned(),
                }],
                ..Summary::default()
            },
            ..Report::default()
        };
        let status = node_state(&report);
        let messages: Vec<_> = status.failures.iter().map(|failure| &*failure.message).collect();
        assert_eq!((messages, status.failure_count), (vec!["folder", "kernel"], 2));
    }
}
