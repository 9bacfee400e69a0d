//! One node's pass: what should be → what is → the difference → done. Everything an agent knows between passes is
//! here; what to pass over, and when, is the agent's business.
//!
//! ```text
//! Snapshot ─► plan ─► Plan ──┐
//!                            ├─► diff ─► Vec<Change> ─► ledger ─► apply ─► Outcome
//! kernel ─► read ─► Table ───┘
//! ```
//!
//! A pass never trusts the one before: it reads from the kernel what it is about to change. A pass over some
//! virtual services reads only theirs, so that its cost does not grow with the table.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::digest;
use crate::ipvs::{Change, Failure, IpvsError, ServiceKey, Table, TableStore, diff};
use crate::ledger::{Ledger, LedgerError};
use crate::plan::{Finding, Kind, NamespacedName, Node, Plan, Scope, Snapshot, Update, plan, plan_timeouts};

/// How often a pass looks again at services of which its picture turned out stale.
const LOOKS: usize = 3;

/// Why a pass could not be made. What is in the kernel stays.
#[derive(Debug, Error)]
pub enum PassError {
    /// The kernel's table could not be read.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
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
    /// Whether the connection timeouts had to be set.
    pub timeouts_set: bool,
}

/// The state of a node between passes.
#[derive(Debug)]
pub struct Reconciler<S> {
    snapshot: Snapshot,
    node: Node,
    ledger: Ledger,
    store: S,
    exclusive: bool,
    /// Whether nothing may be deleted, because not all that is wanted is known.
    keeps_everything: bool,
    findings: BTreeMap<NamespacedName, Vec<Finding>>,
    failures: BTreeMap<ServiceKey, Vec<Failure>>,
    desired: Programming,
    programmed: Programming,
    foreign: usize,
}

/// Which entries there are, in as little room as tells whether two sets of them are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programming {
    services: BTreeMap<ServiceKey, ServiceDigest>,
    destinations: usize,
    digest: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ServiceDigest {
    digest: u64,
    destinations: u32,
}

impl Programming {
    /// How many services there are.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// How many destinations they have together.
    pub fn destinations(&self) -> usize {
        self.destinations
    }

    /// Equal digests mean equal entries.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Puts what a table says of a service, or that it is not there.
    fn set(&mut self, key: ServiceKey, table: &Table) {
        let digest = table.services.get(&key).map(|entry| ServiceDigest {
            digest: digest::value(&(key, entry)),
            destinations: u32::try_from(entry.destinations.len()).unwrap_or(u32::MAX),
        });
        self.exchange(key, digest);
    }

    /// Puts what another programming says of a service, or that it is not there.
    fn copy(&mut self, key: ServiceKey, other: &Self) {
        self.exchange(key, other.services.get(&key).copied());
    }

    /// A sum does not depend on order, so one service's part can be exchanged.
    fn exchange(&mut self, key: ServiceKey, new: Option<ServiceDigest>) {
        let old = match new {
            Some(new) => self.services.insert(key, new),
            None => self.services.remove(&key),
        };
        if let Some(part) = old {
            self.digest = self.digest.wrapping_sub(part.digest);
            self.destinations -= part.destinations as usize;
        }
        if let Some(part) = new {
            self.digest = self.digest.wrapping_add(part.digest);
            self.destinations += part.destinations as usize;
        }
    }
}

impl<S: TableStore> Reconciler<S> {
    /// A node that knows no objects yet. With `exclusive` every service of the kernel is ours.
    pub fn new(node: Node, ledger: Ledger, store: S, exclusive: bool) -> Self {
        Self {
            snapshot: Snapshot::default(),
            node,
            ledger,
            store,
            exclusive,
            keeps_everything: false,
            findings: BTreeMap::new(),
            failures: BTreeMap::new(),
            desired: Programming::default(),
            programmed: Programming::default(),
            foreign: 0,
        }
    }

    /// Takes in a report of a source and says what it concerns.
    pub fn update(&mut self, update: Update) -> Scope {
        let (Update::Put { object, .. } | Update::Delete(object)) = &update;
        if object.kind != Kind::DirectorGroup {
            return self.snapshot.update(update);
        }
        let before = plan_timeouts(&self.snapshot, &self.node);
        let scope = self.snapshot.update(update);
        // The timeouts are the node's and no virtual service's: a pass over everything brings them.
        if plan_timeouts(&self.snapshot, &self.node) == before {
            scope
        } else {
            Scope::All
        }
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
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What the kernel should hold.
    pub fn desired(&self) -> &Programming {
        &self.desired
    }

    /// What it holds of that, as of the last look.
    pub fn programmed(&self) -> &Programming {
        &self.programmed
    }

    /// How many services of the kernel were not ours at the last full look.
    pub fn foreign(&self) -> usize {
        self.foreign
    }

    /// Changes that the kernel refuses, as of the last try.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.failures.values().flatten()
    }

    /// Everything there is to say about objects.
    pub fn findings(&self) -> BTreeSet<Finding> {
        self.findings
            .values()
            .flatten()
            .cloned()
            .chain(self.snapshot.findings())
            .collect()
    }

    /// The virtual services that have changes the kernel refused.
    pub fn failed_scope(&self) -> Scope {
        let owners = self
            .failures
            .keys()
            .filter_map(|key| self.ledger.entries().owner(key))
            .cloned();
        Scope::Some(owners.collect())
    }

    /// Brings the kernel's entries for the virtual services of a scope to what they should be.
    ///
    /// # Errors
    ///
    /// The kernel could not be read or the ledger not written. What the kernel refuses is no error but part of
    /// the [`Pass`].
    pub fn pass(&mut self, scope: &Scope) -> Result<Pass, PassError> {
        self.pass_from(scope).map(|(_, pass)| pass)
    }

    /// As [`Self::pass`] over everything, with the table as it was before.
    ///
    /// # Errors
    ///
    /// As [`Self::pass`].
    pub fn pass_once(&mut self) -> Result<(Table, Pass), PassError> {
        self.pass_from(&Scope::All)
    }

    fn pass_from(&mut self, scope: &Scope) -> Result<(Table, Pass), PassError> {
        let mut plan = plan(&self.snapshot, &self.node, scope);
        self.replace_findings(scope, &mut plan);
        let keys = self.concerned(scope, &plan);
        let current = match scope {
            Scope::All => self.store.list()?,
            Scope::Some(_) => self.store.read(&mut keys.iter().copied())?,
        };
        let mut pass = Pass::default();
        if *scope == Scope::All {
            self.foreign = self.count_foreign(&current, &plan);
            self.bring_timeouts(&mut pass)?;
        }
        for key in &keys {
            self.desired.set(*key, &plan.table);
        }
        self.take_possession(&current, &plan, &mut pass)?;
        self.bring(&current, plan.table, &mut pass)?;
        self.remember(&keys, &pass)?;
        Ok((current, pass))
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
                keys.extend(self.desired.services.keys());
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
            Scope::Some(names) => self.findings.retain(|name, _| !names.contains(name)),
        }
        self.findings.append(&mut plan.findings);
    }

    fn bring_timeouts(&mut self, pass: &mut Pass) -> Result<(), PassError> {
        let Some(wanted) = plan_timeouts(&self.snapshot, &self.node) else {
            return Ok(());
        };
        let current = self.store.timeouts()?;
        if wanted.over(&current) != current {
            self.store.set_timeouts(&wanted)?;
            pass.timeouts_set = true;
        }
        Ok(())
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

    /// Records what a pass left: what the kernel holds now, what it refused, and what is no longer ours.
    fn remember(&mut self, keys: &BTreeSet<ServiceKey>, pass: &Pass) -> Result<(), PassError> {
        for key in keys {
            self.failures.remove(key);
        }
        for failure in &pass.failures {
            self.failures
                .entry(*failure.change.service())
                .or_default()
                .push(failure.clone());
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
            .filter(|key| !self.desired.services.contains_key(key))
            .filter(|key| !self.programmed.services.contains_key(key))
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
