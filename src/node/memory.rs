//! What a node knows between passes, and what is to be told of it. A value.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::catalog::{Finding, Generation, Generations, NamespacedName, Scope};
use crate::host::preflight::Check;
use crate::host::{Around, ArpMethod, BoundAddress, HostChange, HostFailure, Network};
use crate::ipvs::{Failure, ServiceKey, SyncDaemonRole};
use crate::ledger::Entries;
use crate::phases::linger::Lingering;
use crate::plan::{Globals, Plan, ServiceAround};

use super::globals::GlobalFailure;
use super::table_digest::TableDigest;
use super::work::{Failed, Leavers};

/// What a node knows between passes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What the kernel's table should hold, and what it holds of that, as of the last look.
    pub(super) desired: TableDigest,
    pub(super) programmed: TableDigest,
    /// What is refused of the table.
    pub(super) refused: BTreeMap<ServiceKey, Vec<Failure>>,
    /// How many services of the kernel are not ours, as of the last full look.
    pub(super) foreign: usize,
    pub(super) around: AroundMemory,
    pub(super) globals: GlobalsMemory,
    serving: Serving,
    findings: BTreeMap<NamespacedName, Vec<Finding>>,
    /// All of them together, as they were told last; nothing while that is out of date.
    told_findings: Option<Arc<BTreeSet<Finding>>>,
}

/// What a node knows of what is around the table.
#[derive(Debug, Default)]
pub(super) struct AroundMemory {
    /// What each virtual service needs; those that need nothing are not here.
    services: BTreeMap<NamespacedName, ServiceAround>,
    /// What it needs no longer, and keeps for a while.
    pub(super) lingering: Lingering,
    /// Whether what is needed is something else than the last steps were taken for.
    pub(super) is_behind: bool,
    pub(super) failures: Vec<HostFailure>,
    /// Whether they are others than when it was last counted what is served: a step may be for any virtual service.
    failures_changed: bool,
    /// How VIPs are kept from being heard of.
    pub(super) arp: BTreeSet<ArpMethod>,
    /// What stands in the way, as of the last inspection.
    pub(super) checks: BTreeSet<Check>,
    /// What planning knows of the node's network, and whether it is yet to be told.
    pub(super) network: Network,
    pub(super) network_is_news: bool,
}

/// What a node knows of what it has once.
#[derive(Debug, Default)]
pub(super) struct GlobalsMemory {
    /// What was brought last.
    pub(super) brought: Option<Globals>,
    pub(super) failures: Vec<GlobalFailure>,
    /// The role of the sync daemon that this process started.
    pub(super) sync_role: Option<SyncDaemonRole>,
}

/// The virtual services of which this node is the active director.
#[derive(Debug, Default)]
struct Serving {
    /// Those that it should serve.
    planned: HashMap<NamespacedName, Generation>,
    /// Those that it has everything for.
    served: HashMap<NamespacedName, Generation>,
    generations: Generations,
}

/// What is to be told of a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// What the kernel should hold.
    pub desired: Numbers,
    /// What it holds of that.
    pub programmed: Numbers,
    /// Services of the kernel that are not ours.
    pub foreign: usize,
    /// Destinations that are not wanted any more and stay until their connections have ended.
    pub leaving: usize,
    /// How many destinations each RealServer still is that leaves.
    pub leaving_real_servers: BTreeMap<NamespacedName, usize>,
    /// How the node is kept from answering ARP for VIPs of which it is not the director.
    pub arp_suppression: BTreeSet<ArpMethod>,
    /// The virtual services of which the node is active director and has everything.
    pub generations: Generations,
    /// What is refused.
    pub refused: Vec<RefusedChange>,
    /// What about the node stands in the way of what it should have.
    pub checks: BTreeSet<Check>,
    /// What planning has to say of objects.
    pub findings: Arc<BTreeSet<Finding>>,
}

/// Something that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedChange {
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

impl From<&TableDigest> for Numbers {
    fn from(table: &TableDigest) -> Self {
        Self {
            services: table.services(),
            destinations: table.destinations(),
            digest: table.digest(),
        }
    }
}

impl Memory {
    /// Puts what is planned for the virtual services of a scope in place of what was planned for them.
    pub(super) fn replan(&mut self, scope: &Scope, plan: &Plan, leavers: Leavers) {
        self.replace_findings(scope, plan);
        self.serving.replan(scope, plan);
        self.around.replan(scope, plan, leavers);
        if self
            .globals
            .brought
            .as_ref()
            .is_some_and(|brought| brought.sysctls != plan.globals.sysctls)
        {
            self.around.is_behind = true;
        }
    }

    fn replace_findings(&mut self, scope: &Scope, plan: &Plan) {
        let before = match scope {
            Scope::Every => std::mem::take(&mut self.findings),
            Scope::These(names) => names
                .iter()
                .filter_map(|name| self.findings.remove_entry(name))
                .collect(),
        };
        let planned = plan.services.iter();
        let after: BTreeMap<NamespacedName, Vec<Finding>> = planned
            .filter(|(_, service)| !service.findings.is_empty())
            .map(|(name, service)| (name.clone(), service.findings.clone()))
            .collect();
        if before != after {
            self.told_findings = None;
        }
        self.findings.extend(after);
    }

    /// Counts anew which virtual services of a scope are served.
    pub(super) fn count_serving(&mut self, scope: &Scope, entries: &Entries) {
        let Self {
            serving,
            desired,
            programmed,
            around,
            ..
        } = self;
        let has_everything = |name: &NamespacedName| {
            entries
                .keys_of(name)
                .all(|key| desired.agrees_about(programmed, &key))
                && !around.lacks_something(name)
        };
        let scope = if around.failures_changed {
            &Scope::Every
        } else {
            scope
        };
        serving.count(scope, has_everything);
        around.failures_changed = false;
    }

    /// What is refused now.
    pub(super) fn failed(&self, entries: &Entries) -> Failed {
        let owners = self.refused.keys().filter_map(|key| entries.owner(key));
        Failed {
            services: owners.cloned().collect(),
            around: !self.around.failures.is_empty(),
            globals: !self.globals.failures.is_empty(),
        }
    }

    /// What is to be told, but for who leaves.
    pub(super) fn summary(&mut self, entries: &Entries) -> Summary {
        let all = &self.findings;
        let findings = self
            .told_findings
            .get_or_insert_with(|| Arc::new(all.values().flatten().cloned().collect()));
        Summary {
            findings: findings.clone(),
            desired: (&self.desired).into(),
            programmed: (&self.programmed).into(),
            foreign: self.foreign,
            arp_suppression: self.around.arp.clone(),
            generations: self.serving.generations.clone(),
            refused: self.refusals(entries),
            checks: self.around.checks.clone(),
            ..Summary::default()
        }
    }

    fn refusals(&self, entries: &Entries) -> Vec<RefusedChange> {
        let of_entries = self.refused.iter().flat_map(|(key, failures)| {
            failures.iter().map(|failure| RefusedChange {
                virtual_service: entries.owner(key).cloned(),
                message: failure.to_string(),
            })
        });
        let around = self.around.failures.iter().map(ToString::to_string);
        let globals = self.globals.failures.iter().map(ToString::to_string);
        let of_the_node = around.chain(globals).map(|message| RefusedChange {
            virtual_service: None,
            message,
        });
        of_entries.chain(of_the_node).collect()
    }
}

impl AroundMemory {
    fn replan(&mut self, scope: &Scope, plan: &Plan, leavers: Leavers) {
        let names: BTreeSet<NamespacedName> = match scope {
            Scope::These(names) => names.clone(),
            Scope::Every => {
                let names = self.services.keys().chain(plan.services.keys());
                names.chain(self.lingering.names()).cloned().collect()
            }
        };
        let nothing = ServiceAround::default();
        for name in names {
            let after = plan.services.get(&name);
            let needed = after
                .map(|service| &service.around)
                .filter(|around| **around != nothing);
            let before = self.services.remove(&name);
            self.is_behind |= before.as_ref() != needed;
            if let Leavers::Drain(now) = leavers {
                self.is_behind |= self.lingering.take_in(&name, before.as_ref(), after, now);
            }
            if let Some(needed) = needed {
                self.services.insert(name, needed.clone());
            }
        }
    }

    /// What all virtual services need, and what they still need.
    pub(super) fn all(&self) -> impl Iterator<Item = &Around> {
        let services = self.services.values().flat_map(ServiceAround::all);
        services.chain(self.lingering.around())
    }

    /// The VIPs that this node answers for on a link.
    pub(super) fn announced_on(&self, link: &str) -> Vec<BoundAddress> {
        let answered = self.all().flat_map(|around| &around.answered);
        let on_link: BTreeSet<&BoundAddress> = answered.filter(|bound| *bound.link == *link).collect();
        on_link.into_iter().cloned().collect()
    }

    /// Takes in the network as it is.
    pub(super) fn see(&mut self, network: Network) {
        self.network_is_news |= self.network != network;
        self.network = network;
    }

    /// Puts the steps that fail now in place of those that failed.
    pub(super) fn replace_failures(&mut self, failures: &[HostFailure]) {
        self.failures_changed |= self.failures != failures;
        self.failures = failures.to_vec();
    }

    /// Whether a virtual service does not work because a step failed.
    fn lacks_something(&self, name: &NamespacedName) -> bool {
        self.failures
            .iter()
            .any(|failure| self.depends_on(name, &failure.change))
    }

    fn depends_on(&self, name: &NamespacedName, change: &HostChange) -> bool {
        let Some(service) = self.services.get(name) else {
            return false;
        };
        match change {
            HostChange::AddAddress(bound) | HostChange::Announce(bound) => service
                .all()
                .any(|around| around.answered.contains(bound) || around.held.contains(&bound.address)),
            HostChange::SetSysctl { .. }
            | HostChange::AddLink { .. }
            | HostChange::OpenGuePort(_)
            | HostChange::ChangeRules(_) => true,
            HostChange::RestoreSysctl { .. }
            | HostChange::DeleteLink { .. }
            | HostChange::DeleteAddress(_)
            | HostChange::CloseGuePort(_) => false,
        }
    }
}

impl Serving {
    fn replan(&mut self, scope: &Scope, plan: &Plan) {
        match scope {
            Scope::Every => self.planned.clear(),
            Scope::These(names) => {
                for name in names {
                    self.planned.remove(name);
                }
            }
        }
        let planned = plan.services.iter();
        self.planned
            .extend(planned.filter_map(|(name, service)| Some((name.clone(), service.served_as?))));
    }

    fn count(&mut self, scope: &Scope, has_everything: impl Fn(&NamespacedName) -> bool) {
        let names: BTreeSet<NamespacedName> = match scope {
            Scope::These(names) => names.clone(),
            Scope::Every => self.planned.keys().chain(self.served.keys()).cloned().collect(),
        };
        for name in names {
            let new = self.planned.get(&name).copied().filter(|_| has_everything(&name));
            let old = match new {
                Some(new) => self.served.insert(name, new),
                None => self.served.remove(&name),
            };
            self.generations.exchange(old, new);
        }
    }
}
