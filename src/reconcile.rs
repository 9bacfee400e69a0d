//! One node's pass: what should be → what is → the difference → done. Everything an agent knows between passes is
//! here; what to pass over, and when, is the agent's business.
//!
//! ```text
//! Catalog ─► plan ─► Plan ──┐
//!                            ├─► diff ─► Vec<Change> ─► ledger ─► apply ─► Outcome
//! kernel ─► read ─► Table ───┘
//!
//!          node_needs ─► HostState ─┐
//!                                   ├─► diff ─► Steps: before the table, after it
//! node ─► read ─► Current ──────────┘
//! ```
//!
//! A destination that is not wanted any more is drained: `draining` puts it back into the plan, without new
//! connections, until those it has have ended. A node that is no longer a real server lets it go on to answer meanwhile:
//! `lingering`.
//!
//! A pass never trusts the one before: it reads from the kernel what it is about to change. A pass over some
//! virtual services reads only theirs, so that its cost does not grow with the table. The node around the table is
//! looked at by passes over everything, and by others only where what they plan needs something else of it than before.

mod draining;
mod lingering;
mod programming;
mod serving;
mod settings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use thiserror::Error;

use crate::catalog::{
    Catalog, Finding, Generation, Generations, Kind, MarkMask, NamespacedName, Scope, Update,
};
use crate::host::preflight::{self, Check};
use crate::host::{
    self, ArpMethod, BoundAddress, Current, HostChange, HostError, HostFailure, HostStore, KUBE_PROXY_LINK,
    Network, Steps,
};
use crate::ipvs::{Change, Failure, IpvsError, ServiceKey, SyncDaemonRole, Table, TableStore, diff};
use crate::ledger::{Ledger, LedgerError};
use crate::plan::{
    Node, NodeNeeds, Plan, ServiceNeeds, group_needs, node_needs, plan, plan_timeouts, sync_daemon,
    vips_of_kube_proxy,
};

pub use draining::Drained;
use draining::Drains;
use lingering::Lingering;
pub use programming::Programming;

/// How often a pass looks again at services of which its picture turned out stale.
const LOOKS: usize = 3;

/// Why a pass could not be made. What is in the kernel stays.
#[derive(Debug, Error)]
pub enum PassError {
    /// The kernel's table could not be read.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
    /// The node around the table could not be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Possession could not be recorded.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// The changes it asked the kernel for.
    pub changes: Vec<Change>,
    /// Those the kernel did not make.
    pub failures: Vec<Failure>,
    /// Services that were there without being ours, and are ours now because a virtual service wants them.
    pub adopted: Vec<ServiceKey>,
    /// Deletions that were left out, because not all that is wanted is known.
    pub withheld: Vec<Change>,
    /// How the draining of destinations ended that it removed for that.
    pub drained: Vec<Drained>,
    /// Whether the connection timeouts had to be set.
    pub timeouts_set: bool,
    /// The half of connection sync that had to be started.
    pub sync_daemon_started: Option<SyncDaemonRole>,
    /// The steps it took around the table.
    pub steps: Steps,
}

/// What is to be done around the table.
struct HostPlan {
    steps: Steps,
    /// How VIPs are kept quiet once it is.
    arp: BTreeSet<ArpMethod>,
}

/// The state of a node between passes.
#[derive(Debug)]
pub struct Reconciler<S, H> {
    catalog: Catalog,
    node: Node,
    ledger: Ledger,
    store: S,
    host: H,
    exclusive: bool,
    /// Whether nothing may be deleted, because not all that is wanted is known.
    keeps_everything: bool,
    /// The node's links and addresses at the last look.
    network: Network,
    needs: BTreeMap<NamespacedName, ServiceNeeds>,
    lingering: Lingering,
    /// Whether the needs are others than the last steps were taken for.
    host_is_behind: bool,
    arp: BTreeSet<ArpMethod>,
    /// VIPs that the last steps around the table brought here.
    taken: Vec<BoundAddress>,
    /// The half of connection sync that this agent started.
    sync_role: Option<SyncDaemonRole>,
    host_failures: Vec<HostFailure>,
    /// What about the node stands in the way.
    obstacles: BTreeSet<Check>,
    /// What is refused of the table's own settings: timeouts, connection sync.
    table_failures: Vec<IpvsError>,
    findings: BTreeMap<NamespacedName, Vec<Finding>>,
    failures: BTreeMap<ServiceKey, Vec<Failure>>,
    drains: Drains,
    desired: Programming,
    programmed: Programming,
    /// The virtual services of which the node is active director and has everything.
    serving: HashMap<NamespacedName, Generation>,
    generations: Generations,
    foreign: usize,
    /// The service that was looked at last between passes.
    glanced_at: Option<ServiceKey>,
}

impl<S: TableStore, H: HostStore> Reconciler<S, H> {
    /// A node that knows no objects yet. With `exclusive` every service of the kernel is ours.
    pub fn new(node: Node, ledger: Ledger, store: S, host: H, exclusive: bool, mark_mask: MarkMask) -> Self {
        Self {
            catalog: Catalog::new(mark_mask),
            node,
            ledger,
            store,
            host,
            exclusive,
            keeps_everything: false,
            network: Network::default(),
            needs: BTreeMap::new(),
            lingering: Lingering::default(),
            host_is_behind: false,
            arp: BTreeSet::new(),
            taken: Vec::new(),
            sync_role: None,
            host_failures: Vec::new(),
            obstacles: BTreeSet::new(),
            table_failures: Vec::new(),
            findings: BTreeMap::new(),
            failures: BTreeMap::new(),
            drains: Drains::default(),
            desired: Programming::default(),
            programmed: Programming::default(),
            serving: HashMap::new(),
            generations: Generations::default(),
            foreign: 0,
            glanced_at: None,
        }
    }

    /// Takes in a report of a source and says what it concerns.
    pub fn update(&mut self, update: Update) -> Scope {
        let (Update::Put { object, .. } | Update::Delete(object)) = &update;
        if object.kind != Kind::DirectorGroup {
            return self.catalog.update(update);
        }
        let before = self.of_the_node();
        let scope = self.catalog.update(update);
        if self.of_the_node() == before {
            scope
        } else {
            Scope::All
        }
    }

    /// What is the node's and no virtual service's: a pass over everything brings it.
    fn of_the_node(&self) -> impl PartialEq + use<S, H> {
        (
            plan_timeouts(&self.catalog, &self.node),
            group_needs(&self.catalog, &self.node),
            sync_daemon(&self.catalog, &self.node, &self.network),
        )
    }

    /// Whether the node has use for Services and their endpoints: virtual services refer to some, and it may balance them.
    pub fn needs_endpoints(&self) -> bool {
        self.catalog.refers_to_services() && self.node.may_direct(&self.catalog)
    }

    /// Takes in the node's labels and says what that concerns.
    pub fn set_labels(&mut self, labels: BTreeMap<String, String>) -> Scope {
        if self.node.labels == labels {
            return Scope::default();
        }
        self.node.labels = labels;
        Scope::All
    }

    /// Says whether nothing may be deleted, because not all that is wanted is known: an object that cannot be read
    /// looks like one that is gone.
    pub fn keep_everything(&mut self, keep: bool) {
        self.keeps_everything = keep;
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// All objects.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What the kernel should hold.
    pub fn desired(&self) -> &Programming {
        &self.desired
    }

    /// What it holds of that, as of the last look.
    pub fn programmed(&self) -> &Programming {
        &self.programmed
    }

    /// Which virtual services, in which generations, this node has everything for as their active director.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// How many services of the kernel were not ours at the last full look.
    pub fn foreign(&self) -> usize {
        self.foreign
    }

    /// How the node is kept from answering ARP for VIPs of which it is not the director.
    pub fn arp_suppression(&self) -> &BTreeSet<ArpMethod> {
        &self.arp
    }

    /// What about the node stands in the way of what it should have, as of the last look at everything.
    pub fn obstacles(&self) -> &BTreeSet<Check> {
        &self.obstacles
    }

    /// Steps around the table that failed, as of the last try.
    pub fn host_failures(&self) -> &[HostFailure] {
        &self.host_failures
    }

    /// What is refused of timeouts and connection sync, as of the last try.
    pub fn table_failures(&self) -> &[IpvsError] {
        &self.table_failures
    }

    /// The VIPs that the last pass brought to this node, of which neighbours should be told more than once.
    pub fn taken(&self) -> &[BoundAddress] {
        &self.taken
    }

    /// Tells the neighbours once more that the VIPs which the last pass brought are here.
    pub fn announce_again(&mut self) -> Vec<HostFailure> {
        let again: Vec<_> = self.taken.iter().cloned().map(HostChange::Announce).collect();
        let mut failures = Vec::new();
        self.host.apply(&again, &mut failures);
        failures
    }

    /// Changes that the kernel refuses, as of the last try, each with the virtual service that wants it.
    pub fn failures(&self) -> impl Iterator<Item = (Option<&NamespacedName>, &Failure)> {
        let owner = |key| self.ledger.entries().owner(key);
        let failures = self.failures.iter();
        failures.flat_map(move |(key, failures)| failures.iter().map(move |failure| (owner(key), failure)))
    }

    /// Everything there is to say about objects.
    pub fn findings(&self) -> BTreeSet<Finding> {
        self.findings
            .values()
            .flatten()
            .cloned()
            .chain(self.catalog.findings())
            .collect()
    }

    /// What has to be passed over again, because something was refused.
    pub fn failed_scope(&self) -> Scope {
        // What is around the table is for all virtual services together.
        if !self.host_failures.is_empty() || !self.table_failures.is_empty() {
            return Scope::All;
        }
        let owners = self
            .failures
            .keys()
            .filter_map(|key| self.ledger.entries().owner(key))
            .cloned();
        Scope::Some(owners.collect())
    }

    /// How many destinations are leaving.
    pub fn leaving(&self) -> usize {
        self.drains.len()
    }

    /// The RealServers that drain or are deleted, each with how many destinations it still is.
    pub fn leaving_real_servers(&self) -> BTreeMap<NamespacedName, usize> {
        let mut leaving: BTreeMap<_, _> = self
            .catalog
            .leaving_real_servers()
            .map(|name| (name, 0))
            .collect();
        for name in self.drains.real_servers() {
            if let Some(destinations) = leaving.get_mut(name) {
                *destinations += 1;
            }
        }
        leaving
    }

    /// When something that leaves should be looked at next, by a pass over [`Self::leaving_scope`].
    pub fn next_look(&self) -> Option<Instant> {
        let looks = [self.drains.next_look(), self.lingering.next_look()];
        looks.into_iter().flatten().min()
    }

    /// The virtual services of which something leaves that should be looked at by now: the connections of destinations, and
    /// what lingers on a node that was a real server.
    pub fn leaving_scope(&self, now: Instant) -> Scope {
        let entries = self.ledger.entries();
        let owners = self.drains.due(now).filter_map(|key| entries.owner(&key));
        Scope::Some(owners.chain(self.lingering.due(now)).cloned().collect())
    }

    /// Whether a service that was programmed is gone: somebody has deleted it, and maybe all. Each call looks at the next
    /// one, so that it costs the same however many there are.
    pub fn misses_one(&mut self) -> bool {
        self.glanced_at = self.programmed.after(self.glanced_at.as_ref());
        let Some(key) = self.glanced_at else {
            return false;
        };
        // What cannot be read is no news: the next pass says so.
        let found = self.store.read(&mut std::iter::once(key));
        found.is_ok_and(|found| found.services.is_empty())
    }

    /// Brings the kernel's entries for the virtual services of a scope to what they should be. Destinations that are
    /// not wanted any more are drained: later passes remove them.
    ///
    /// # Errors
    ///
    /// The kernel could not be read or the ledger not written. What the kernel refuses is no error but part of
    /// the [`Pass`].
    pub fn pass(&mut self, scope: &Scope, now: Instant) -> Result<Pass, PassError> {
        self.pass_from(scope, Some(now)).map(|(_, pass)| pass)
    }

    /// The only pass there is, over everything, with the table as it was before. What is not wanted any more goes at
    /// once, since nobody would come back for it, but for destinations that still serve.
    ///
    /// # Errors
    ///
    /// As [`Self::pass`].
    pub fn pass_once(&mut self) -> Result<(Table, Pass), PassError> {
        self.pass_from(&Scope::All, None)
    }

    fn pass_from(&mut self, scope: &Scope, now: Option<Instant>) -> Result<(Table, Pass), PassError> {
        let mut plan = plan(&self.catalog, &self.node, scope);
        self.replace_findings(scope, &mut plan);
        let keys = self.concerned(scope, &plan);
        let current = match scope {
            Scope::All => self.store.list()?,
            Scope::Some(_) => self.store.read(&mut keys.iter().copied())?,
        };
        let in_order = self.in_order(scope, &plan.table);
        match now {
            Some(now) => self.hold_leaving(&keys, &current, &mut plan, now)?,
            None => plan.keep_leaving(&current),
        }
        let host = self.plan_host(scope, &plan, now)?;
        let mut pass = Pass::default();
        if *scope == Scope::All {
            self.foreign = self.count_foreign(&current, &plan);
            self.table_failures.clear();
            self.bring_timeouts(&mut pass);
            self.bring_sync_daemon(&mut pass);
        }
        for key in &keys {
            self.desired.set(*key, &plan.table);
        }
        self.take_possession(&current, &plan, &mut pass)?;
        let mut failures = Vec::new();
        if let Some(HostPlan { steps, .. }) = &host {
            self.host.apply(&steps.before, &mut failures);
        }
        self.bring(&current, plan.table, &mut pass)?;
        self.tell_of_kube_proxy(&in_order, &pass);
        if let Some(HostPlan { steps, .. }) = &host {
            self.host.apply(&steps.after, &mut failures);
        }
        self.remember(&keys, &mut pass)?;
        if let Some(host) = host {
            self.remember_host(host, failures, &mut pass);
        }
        self.count_serving(scope);
        Ok((current, pass))
    }

    /// Lets the destinations that leave stay in the plan until their connections have ended. While not all that is wanted
    /// is known, a destination that nobody wants may be wanted, and keeps its weight.
    fn hold_leaving(
        &mut self,
        keys: &BTreeSet<ServiceKey>,
        current: &Table,
        plan: &mut Plan,
        now: Instant,
    ) -> Result<(), PassError> {
        if self.keeps_everything {
            return Ok(());
        }
        let due: Vec<ServiceKey> = self.drains.due(now).filter(|key| keys.contains(key)).collect();
        let listed = self.store.look(&mut due.into_iter())?;
        self.drains.judge(&listed, now);
        let catalog = &self.catalog;
        let draining = |owner: &_| Some(catalog.virtual_service(owner)?.draining);
        self.drains.hold(keys, current, plan, draining, now);
        Ok(())
    }

    /// Plans what a scope needs of the node, and if that is news or all is looked at, the steps to it. What a pass that
    /// broke down did not come to is still news.
    fn plan_host(
        &mut self,
        scope: &Scope,
        plan: &Plan,
        now: Option<Instant>,
    ) -> Result<Option<HostPlan>, PassError> {
        let everything = *scope == Scope::All;
        let mut current = None;
        if everything {
            current = Some(self.look_at_host()?);
        }
        let NodeNeeds { needs, findings } = node_needs(&self.catalog, &self.node, &self.network, scope, plan);
        for (name, findings) in findings {
            self.findings.entry(name).or_default().extend(findings);
        }
        self.host_is_behind |= self.replace_needs(scope, needs, now);
        if !everything && !self.host_is_behind {
            return Ok(None);
        }
        let current = match current {
            Some(current) => current,
            None => self.look_at_host()?,
        };
        let of_groups = group_needs(&self.catalog, &self.node);
        let needs = self.needs.values().flat_map(ServiceNeeds::all);
        let needs = needs.chain(self.lingering.needs()).chain([&of_groups]);
        let desired = host::desired(needs, &current);
        if everything {
            let mut inspection = self.host.inspect(&preflight::settings(&current.network))?;
            inspection.vips_of_kube_proxy = vips_of_kube_proxy(&self.catalog, &current.network);
            let checks = preflight::preflight(&inspection, &current, &desired).into_iter();
            self.obstacles = checks.filter(|check| check.result.is_err()).collect();
        }
        Ok(Some(HostPlan {
            steps: host::diff(&current, &desired, self.keeps_everything),
            arp: desired.arp,
        }))
    }

    fn look_at_host(&mut self) -> Result<Current, PassError> {
        let of_groups = group_needs(&self.catalog, &self.node).sysctls;
        let mut names = of_groups.keys().map(|name| &**name).chain(host::SYSCTLS);
        let current = self.host.read(&mut names)?;
        self.network.clone_from(&current.network);
        Ok(current)
    }

    /// Puts what a scope needs in place of what it needed, and says whether that is something else.
    fn replace_needs(
        &mut self,
        scope: &Scope,
        mut needs: BTreeMap<NamespacedName, ServiceNeeds>,
        now: Option<Instant>,
    ) -> bool {
        let all: BTreeSet<NamespacedName>;
        let names = match scope {
            Scope::All => {
                let names = self.needs.keys().chain(needs.keys());
                all = names.chain(self.lingering.names()).cloned().collect();
                &all
            }
            Scope::Some(names) => names,
        };
        let mut news = false;
        // By name, since a node may have needs of ten thousand others.
        for name in names {
            let (before, after) = (self.needs.remove(name), needs.remove(name));
            news |= before != after;
            if let Some(now) = now {
                let service = self.catalog.virtual_service(name);
                let (before, after) = (before.as_ref(), after.as_ref());
                news |= self.lingering.take_in(name, before, after, service, now);
            }
            if let Some(after) = after {
                self.needs.insert(name.clone(), after);
            }
        }
        news
    }

    fn remember_host(&mut self, host: HostPlan, failures: Vec<HostFailure>, pass: &mut Pass) {
        let HostPlan { mut steps, arp } = host;
        self.host_is_behind = false;
        if !failures.iter().any(|failure| failure.change.keeps_quiet()) {
            self.arp = arp;
        }
        for side in [&mut steps.before, &mut steps.after] {
            side.retain(|change| !failures.iter().any(|failure| failure.change == *change));
        }
        let announced = steps.all().filter_map(|change| match change {
            HostChange::Announce(bound) => Some(bound.clone()),
            _ => None,
        });
        self.taken = announced.collect();
        self.host_failures = failures;
        pass.steps = steps;
    }

    fn is_ours(&self, key: &ServiceKey) -> bool {
        self.exclusive || self.ledger.entries().owns(key)
    }

    /// The services that a pass over a scope concerns: those that are wanted, and those that were.
    fn concerned(&self, scope: &Scope, plan: &Plan) -> BTreeSet<ServiceKey> {
        let mut keys: BTreeSet<ServiceKey> = plan.owners.keys().copied().collect();
        match scope {
            Scope::All => {
                keys.extend(self.ledger.entries().keys());
                keys.extend(self.desired.keys());
            }
            Scope::Some(names) => {
                keys.extend(names.iter().flat_map(|name| self.ledger.entries().keys_of(name)));
            }
        }
        keys
    }

    fn count_foreign(&self, current: &Table, plan: &Plan) -> usize {
        let foreign = |key: &&ServiceKey| !self.is_ours(key) && !plan.owners.contains_key(key);
        current.services.keys().filter(foreign).count()
    }

    fn replace_findings(&mut self, scope: &Scope, plan: &mut Plan) {
        match scope {
            Scope::All => self.findings.clear(),
            Scope::Some(names) => names.iter().for_each(|name| drop(self.findings.remove(name))),
        }
        self.findings.append(&mut plan.findings);
    }

    /// Takes possession of what is wanted, before the kernel is told.
    fn take_possession(&mut self, current: &Table, plan: &Plan, pass: &mut Pass) -> Result<(), PassError> {
        let entries = self.ledger.entries();
        let new: Vec<_> = plan
            .owners
            .iter()
            .filter(|(key, owner)| entries.owner(key) != Some(owner))
            .map(|(key, owner)| (*key, owner.clone()))
            .collect();
        let adopted = new.iter().map(|(key, _)| *key);
        pass.adopted
            .extend(adopted.filter(|key| current.services.contains_key(key) && !entries.owns(key)));
        self.ledger.take(new)?;
        Ok(())
    }

    /// Makes the changes from `current` to `wanted`. Where the picture of the kernel turns out stale, because
    /// somebody else changed it or a dump hid something, those services are looked at and brought again.
    fn bring(&mut self, current: &Table, mut wanted: Table, pass: &mut Pass) -> Result<(), PassError> {
        let mut newer = None;
        for look in 1..=LOOKS {
            let mut changes = diff(newer.as_ref().unwrap_or(current), &wanted, |key| {
                self.is_ours(key)
            });
            if self.keeps_everything {
                pass.withheld
                    .extend(changes.extract_if(.., |change| change.is_deletion()));
            }
            let outcome = self.store.apply(&changes);
            // There may be a hundred thousand of them, and normally there is one look.
            if pass.changes.is_empty() {
                pass.changes = changes
            } else {
                pass.changes.extend(changes)
            }
            let stale: BTreeSet<ServiceKey> = if look < LOOKS {
                outcome.stale_services().collect()
            } else {
                BTreeSet::new()
            };
            let settled = |failure: &Failure| !stale.contains(failure.change.service());
            pass.failures.extend(outcome.failures.into_iter().filter(settled));
            if stale.is_empty() {
                break;
            }
            newer = Some(self.store.read(&mut stale.iter().copied())?);
            wanted.services.retain(|key, _| stale.contains(key));
        }
        Ok(())
    }

    /// The services of which nothing else is wanted than what the last passes left, where kube-proxy may have changed them
    /// since and all are looked at.
    fn in_order(&self, scope: &Scope, wanted: &Table) -> BTreeSet<ServiceKey> {
        if *scope != Scope::All || self.network.link(KUBE_PROXY_LINK).is_none() {
            return BTreeSet::new();
        }
        let keys = self.programmed.keys().copied();
        keys.filter(|key| self.programmed.agrees_with(wanted, key))
            .collect()
    }

    /// What had to be changed of services that were in order, somebody else had changed.
    fn tell_of_kube_proxy(&mut self, in_order: &BTreeSet<ServiceKey>, pass: &Pass) {
        let by_others = |change: &&Change| in_order.contains(change.service());
        let mut deleted = BTreeSet::new();
        let mut changed = BTreeSet::new();
        for change in pass.changes.iter().filter(by_others) {
            match change {
                Change::AddService { key, .. } => deleted.insert(*key),
                change => changed.insert(*change.service()),
            };
        }
        let changed: Vec<ServiceKey> = changed.difference(&deleted).copied().collect();
        let deleted: Vec<ServiceKey> = deleted.into_iter().collect();
        self.obstacles
            .extend(preflight::changed_beside_kube_proxy(&deleted, &changed));
    }

    /// Records what a pass left: what the kernel holds now, what it refused, and what is no longer ours.
    fn remember(&mut self, keys: &BTreeSet<ServiceKey>, pass: &mut Pass) -> Result<(), PassError> {
        for key in keys {
            self.failures.remove(key);
        }
        for failure in &pass.failures {
            self.failures
                .entry(*failure.change.service())
                .or_default()
                .push(failure.clone());
        }
        for change in &pass.changes {
            if let Change::DeleteDestination { service, key } = change
                && !pass.failures.iter().any(|failure| failure.change == *change)
            {
                pass.drained.extend(self.drains.removed(service, key));
            }
        }
        let withheld: BTreeSet<ServiceKey> = pass.withheld.iter().map(|change| *change.service()).collect();
        let (differs, done): (Vec<ServiceKey>, Vec<ServiceKey>) = keys
            .iter()
            .copied()
            .partition(|key| self.failures.contains_key(key) || withheld.contains(key));
        for key in done {
            self.programmed.copy(key, &self.desired);
        }
        let actual = self.store.read(&mut differs.iter().copied())?;
        for key in differs {
            self.programmed.set(key, &actual);
        }
        self.give_up(keys, pass)
    }

    /// Gives up what is ours, no longer wanted, and gone. What this pass did not delete itself is looked for once
    /// more: a dump may have hidden it, and what is given up will never be deleted.
    fn give_up(&mut self, keys: &BTreeSet<ServiceKey>, pass: &Pass) -> Result<(), PassError> {
        let deleted: BTreeSet<&ServiceKey> = pass
            .changes
            .iter()
            .filter(|change| matches!(change, Change::DeleteService { .. }))
            .map(Change::service)
            .collect();
        let gone: Vec<ServiceKey> = keys
            .iter()
            .filter(|key| self.ledger.entries().owns(key))
            .filter(|key| !self.desired.contains(key))
            .filter(|key| !self.programmed.contains(key))
            .copied()
            .collect();
        let unsure = gone.iter().copied().filter(|key| !deleted.contains(key));
        let hidden = self.store.read(&mut unsure.collect::<Vec<_>>().into_iter())?;
        self.ledger
            .give_up(gone.into_iter().filter(|key| !hidden.services.contains_key(key)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
