//! What an agent has done, and what kept it from doing more: for the log, NodeState and metrics. A value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::{Finding, NamespacedName};
use crate::host::preflight::Check;
use crate::node::{RefusedChange, Summary};
use crate::plan::{Role, World};

/// What an agent has done and what kept it from doing more.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Whether the source has reported everything once, and all that it reported until now has been brought about as far
    /// as it can be.
    pub complete: bool,
    /// The node's part in each director group that its labels put it in.
    pub roles: Vec<(String, Role)>,
    /// What is in the kernel, and what is not.
    pub node: Summary,
    /// The RealServers that drain or are deleted, each with how many destinations it still is.
    pub leaving_real_servers: BTreeMap<NamespacedName, usize>,
    /// What is to be said about objects.
    pub findings: Arc<BTreeSet<Finding>>,
    /// Why the last pass could not be made, or not to its end.
    pub stopped_by: Option<String>,
    /// What others undo again and again.
    pub contests: Vec<Check>,
    /// What is wrong with the source.
    pub problems: Vec<String>,
}

impl Report {
    /// What could not be done.
    pub fn failures(&self) -> impl Iterator<Item = RefusedChange> {
        let stopped_by = self.stopped_by.iter().map(|message| RefusedChange {
            virtual_service: None,
            message: message.clone(),
        });
        stopped_by.chain(self.node.refused.iter().cloned())
    }

    /// How many things that is.
    pub fn failure_count(&self) -> usize {
        usize::from(self.stopped_by.is_some()) + self.node.refused.len()
    }

    /// What about the node stands in the way of what it should have.
    pub fn obstacles(&self) -> BTreeSet<&Check> {
        self.node.checks.iter().chain(&self.contests).collect()
    }
}

/// Puts the parts of a report together, each only when it may have changed.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    report: Report,
    /// The version of the catalog's findings that are in the report.
    findings_version: Option<u64>,
    /// Whether what follows from the world without a pass is yet to be put in.
    world_changed: bool,
    /// The findings of planning that are in it.
    planning: Arc<BTreeSet<Finding>>,
}

impl Reporter {
    /// Takes in what there is to be told of the node after a pass.
    pub(super) fn node(&mut self, summary: Summary) {
        self.report.node = summary;
        self.world_changed = true;
    }

    /// Takes in that something else is known of the world: what follows from it without a pass may be another.
    pub(super) fn world_changed(&mut self) {
        self.world_changed = true;
    }

    /// Takes in why the last pass could not be made, if so.
    pub(super) fn stopped_by(&mut self, why: Option<String>) {
        self.report.stopped_by = why;
    }

    /// Whether the last pass could not be made.
    pub(super) fn is_stopped(&self) -> bool {
        self.report.stopped_by.is_some()
    }

    /// Whether the kernel holds anything of ours.
    pub(super) fn programs_anything(&self) -> bool {
        self.report.node.programmed.services > 0
    }

    /// Takes in what others undo.
    pub(super) fn contests(&mut self, contests: Vec<Check>) {
        self.report.contests = contests;
    }

    /// The report as it is now.
    pub(super) fn report(&mut self, complete: bool, problems: Vec<String>, world: &World) -> &Report {
        self.report.complete = complete;
        self.report.problems = problems;
        if std::mem::take(&mut self.world_changed) {
            self.report.roles = roles(world);
            self.report.leaving_real_servers = leaving_real_servers(world, &self.report.node);
        }
        let catalog = &world.catalog;
        let version = catalog.findings_version();
        let planning = &self.report.node.findings;
        if self.findings_version != Some(version) || !Arc::ptr_eq(planning, &self.planning) {
            self.findings_version = Some(version);
            self.planning = planning.clone();
            self.report.findings = match catalog.findings().next() {
                None => planning.clone(),
                Some(_) => Arc::new(planning.iter().cloned().chain(catalog.findings()).collect()),
            };
        }
        &self.report
    }
}

fn roles(world: &World) -> Vec<(String, Role)> {
    let groups = world.catalog.director_groups();
    groups
        .map(|(name, group)| (name.to_string(), world.node.role(group)))
        .filter(|(_, role)| *role != Role::None)
        .collect()
}

fn leaving_real_servers(world: &World, summary: &Summary) -> BTreeMap<NamespacedName, usize> {
    let leaving = world.catalog.leaving_real_servers();
    leaving
        .map(|name| {
            let destinations = summary.leaving_real_servers.get(&name).copied();
            (name, destinations.unwrap_or_default())
        })
        .collect()
}
