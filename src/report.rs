//! What an agent has done, and what kept it from doing more: for the log, NodeState and metrics. A value.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{Finding, Generations, NamespacedName};
use crate::host::ArpMethod;
use crate::host::preflight::Check;
use crate::plan::Role;

/// What an agent has done and what kept it from doing more.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Whether the source has reported everything once and a pass was made of it.
    pub complete: bool,
    /// The node's part in each director group that its labels put it in.
    pub roles: Vec<(String, Role)>,
    /// What the kernel should hold.
    pub desired: Numbers,
    /// What it holds of that.
    pub programmed: Numbers,
    /// Services of the kernel that are not ours.
    pub foreign: usize,
    /// Destinations that are not wanted any more and stay until their connections have ended.
    pub leaving: usize,
    /// The RealServers that drain or are deleted, each with how many destinations it still is.
    pub leaving_real_servers: BTreeMap<NamespacedName, usize>,
    /// How the node is kept from answering ARP for VIPs of which it is not the director.
    pub arp_suppression: BTreeSet<ArpMethod>,
    /// The virtual services of which the node is active director and has everything.
    pub generations: Generations,
    /// Changes that the kernel refuses, or why no pass could be made.
    pub failures: Vec<ReportedFailure>,
    /// What about the node stands in the way of what it should have.
    pub obstacles: BTreeSet<Check>,
    /// What is to be said about objects.
    pub findings: BTreeSet<Finding>,
    /// What is wrong with the source.
    pub problems: Vec<String>,
}

/// Something that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedFailure {
    /// The virtual service that lacks it; otherwise it may be any, or all.
    pub virtual_service: Option<NamespacedName>,
    /// What, and why.
    pub message: String,
}

/// A set of entries in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Services.
    pub services: usize,
    /// Destinations.
    pub destinations: usize,
    /// Equal digests mean equal entries.
    pub digest: u64,
}
