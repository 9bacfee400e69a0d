//! The agent's latest report, as gauges.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::sync::watch;

use crate::agent::report::Report;
use crate::catalog::Finding;
use crate::plan::Role;

use super::{Label, gauges};

/// How many objects with findings have series of their own: who breaks ten thousand objects at once does not want ten
/// thousand alerts.
const NAMED_OBJECTS: usize = 256;

/// The latest report.
#[derive(Debug)]
pub(super) struct LatestReport(pub(super) watch::Receiver<Report>);

impl Collector for LatestReport {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        // Encoding can wait, writing a report cannot.
        let report = self.0.borrow().clone();
        let mut one = |name, help, value: usize| gauges(&mut encoder, name, help, [(vec![], value as u64)]);
        one(
            "foreign_services",
            "Services of the kernel's table that are not Weir's",
            report.node.foreign,
        )?;
        one(
            "drain_in_progress",
            "Destinations that are no longer wanted and stay until their connections have ended",
            report.node.leaving,
        )?;
        one(
            "failures",
            "Changes and steps that are refused now, passes that cannot be made included",
            report.failure_count(),
        )?;
        one(
            "source_problems",
            "What is wrong with the source of the objects now",
            report.problems.len(),
        )?;
        let states = [
            ("desired", report.node.desired),
            ("programmed", report.node.programmed),
        ];
        gauges(
            &mut encoder,
            "services",
            "Virtual services that the kernel's table should hold, and those of them that it holds",
            states.map(|(state, numbers)| (state_label(state), numbers.services as u64)),
        )?;
        gauges(
            &mut encoder,
            "destinations",
            "Destinations that the kernel's table should hold, and those of them that it holds",
            states.map(|(state, numbers)| (state_label(state), numbers.destinations as u64)),
        )?;
        gauges(
            &mut encoder,
            "director",
            "The node's part in a director group: 1 for the role that it has",
            report.roles.iter().flat_map(director),
        )?;
        gauges(
            &mut encoder,
            "obstacles",
            "What about the node stands in the way of what it should have; always 1",
            report
                .obstacles()
                .iter()
                .map(|check| (vec![("subject", check.subject.to_string().into())], 1)),
        )?;
        gauges(
            &mut encoder,
            "findings",
            "What is to be said about an object, by the reason",
            tally(report.findings.iter()),
        )
    }
}

fn state_label(state: &'static str) -> Vec<Label> {
    vec![("state", state.into())]
}

/// Both roles, so that a group without an active director adds up to 0 and not to nothing.
fn director((group, role): &(String, Role)) -> [(Vec<Label>, u64); 2] {
    [("active", Role::Active), ("standby", Role::Standby)].map(|(word, which)| {
        let labels = vec![("director_group", group.clone().into()), ("role", word.into())];
        (labels, u64::from(*role == which))
    })
}

fn tally<'a>(findings: impl Iterator<Item = &'a Finding>) -> impl Iterator<Item = (Vec<Label>, u64)> {
    let mut tally: BTreeMap<_, u64> = BTreeMap::new();
    for finding in findings {
        *tally.entry((&finding.object, finding.reason)).or_default() += 1;
    }
    let series: Vec<_> = tally
        .into_iter()
        .take(NAMED_OBJECTS)
        .map(|((object, reason), count)| {
            let namespace = object.namespace.as_deref().unwrap_or_default().to_owned();
            let labels = vec![
                ("kind", object.kind.name().into()),
                ("namespace", namespace.into()),
                ("name", object.name.to_string().into()),
                ("reason", reason.word().into()),
            ];
            (labels, count)
        })
        .collect();
    series.into_iter()
}
