//! The programmer: reads, settles, applies, remembers. It owns both halves of the kernel, and the ledger.
//!
//! ```text
//! Work ─► read ─► Read ─► settle ─► Settled ─► apply ─► Applied ─► remember ─► Pass
//! ```
//!
//! Each step takes what the step before made of it, so that none can be left out or made twice.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::catalog::{NamespacedName, Scope};
use crate::host::preflight::{self, Inspection};
use crate::host::{self, BoundAddress, HostChange, HostError, HostFailure, HostStore, Network};
use crate::ipvs::{self, Failure, IpvsError, ServiceKey, Table, TableStore};
use crate::ledger::{Entries, Ledger, LedgerError};
use crate::phases::drain::Drains;

use super::globals::{self, GlobalFailure};
use super::memory::{Memory, Summary};
use super::settle::{Current, Desired, Leaving, SettledTable, settle_around, settle_table};
use super::steps::{Rights, Steps, diff};
use super::work::{AroundWork, Failed, Leavers, Pass, TableWork, Undone, Work};

/// How often services are looked at again of which the picture turned out stale.
const LOOKS: usize = 3;

/// Why a pass was not made, or not to its end.
#[derive(Debug, Error)]
pub enum PassError {
    /// It was not begun. What is in the kernel stays.
    #[error("nothing has been changed")]
    NotBegun(#[source] Cause),
    /// It broke off half way.
    #[error("broken off after {} steps", done.steps.len())]
    Unfinished {
        /// What had been done until then.
        done: Box<Pass>,
        /// Why it broke off.
        #[source]
        cause: Cause,
    },
}

impl PassError {
    /// Why.
    pub fn cause(&self) -> &Cause {
        let (Self::NotBegun(cause) | Self::Unfinished { cause, .. }) = self;
        cause
    }
}

/// What kept a pass from being made.
#[derive(Debug, Error)]
pub enum Cause {
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

/// Who knows which services of the kernel are ours.
pub trait Possession {
    /// What is known.
    fn entries(&self) -> &Entries;
}

/// It can be written, and what is wanted be taken possession of.
impl Possession for Ledger {
    fn entries(&self) -> &Entries {
        self.entries()
    }
}

/// It was read, for whoever only looks.
impl Possession for Entries {
    fn entries(&self) -> &Entries {
        self
    }
}

/// Programs one node. Without a [`Ledger`] it can say what it would do, and not do it.
#[derive(Debug)]
pub struct Programmer<S, H, L = Ledger> {
    pub(super) store: S,
    pub(super) host: H,
    pub(super) ledger: L,
    /// Whether every service of the kernel is ours.
    exclusive: bool,
    memory: Memory,
    drains: Drains,
    /// The service that was looked at last to see whether it is still there.
    seen_last: Option<ServiceKey>,
}

/// What a pass would do.
#[derive(Debug)]
pub struct Preview {
    /// What there is.
    pub current: Current,
    /// What there would be.
    pub desired: Desired,
    /// The steps that it would take.
    pub steps: Steps,
    /// Deletions that it would leave out, because not all that is wanted is known.
    pub withheld: Vec<ipvs::Change>,
}

/// What there is.
struct Read {
    work: Work,
    /// The services that the pass concerns: those that are wanted, and those that were.
    keys: BTreeSet<ServiceKey>,
    current: Current,
    inspection: Option<Inspection>,
    /// Why it could not be read what the node has once.
    unread_globals: Option<GlobalFailure>,
}

/// What there is, what there should be, and the steps between them.
struct Settled {
    work: Work,
    keys: BTreeSet<ServiceKey>,
    current: Current,
    desired: Desired,
    pass: Pass,
    /// Services that somebody else has changed.
    disturbed: BTreeSet<ServiceKey>,
}

/// What was done.
struct Applied {
    scope: Scope,
    keys: BTreeSet<ServiceKey>,
    desired: Desired,
    pass: Pass,
    disturbed: BTreeSet<ServiceKey>,
}

impl<S: TableStore, H: HostStore, L: Possession> Programmer<S, H, L> {
    /// A node of which nothing is known yet. With `exclusive` every service of the kernel is ours.
    pub fn new(store: S, host: H, ledger: L, exclusive: bool) -> Self {
        Self {
            store,
            host,
            ledger,
            exclusive,
            memory: Memory::default(),
            drains: Drains::default(),
            seen_last: None,
        }
    }

    /// Looks at the node's network, as planning needs it.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    pub fn look(&mut self) -> Result<Network, HostError> {
        let current = self.host.read(&mut std::iter::empty())?;
        let network = current.network.without_own();
        self.memory.around.network = network.clone();
        Ok(network)
    }

    /// What there is and the steps that [`Self::run`] would take, none of which is taken.
    ///
    /// # Errors
    ///
    /// The kernel could not be read.
    pub fn preview(&mut self, work: Work) -> Result<Preview, Cause> {
        self.memory.replan(&work.scope, &work.plan, work.leavers);
        let read = self.read(work)?;
        let Settled {
            current,
            desired,
            pass,
            ..
        } = self.settle(read);
        Ok(Preview {
            current,
            desired,
            steps: pass.steps,
            withheld: pass.withheld,
        })
    }

    fn is_ours(&self, key: &ServiceKey) -> bool {
        self.exclusive || self.ledger.entries().owns(key)
    }

    fn read(&mut self, work: Work) -> Result<Read, Cause> {
        let keys = self.concerned(&work);
        let table = self.read_table(&work, &keys)?;
        let around = self.read_around(&work)?;
        let mut inspection = None;
        if let (AroundWork::Inspect { vips_of_kube_proxy }, Some(around)) = (&work.around, &around) {
            let found = self.host.inspect(&preflight::settings(&around.network))?;
            inspection = Some(Inspection {
                vips_of_kube_proxy: vips_of_kube_proxy.clone(),
                ..found
            });
        }
        let (globals, unread_globals) = match self.read_globals(&work) {
            Some(Ok(globals)) => (Some(globals), None),
            Some(Err(error)) => (
                None,
                Some(GlobalFailure::new("read what the node has once", &error)),
            ),
            None => (None, None),
        };
        Ok(Read {
            work,
            keys,
            current: Current {
                table,
                around,
                globals,
            },
            inspection,
            unread_globals,
        })
    }

    /// The services that a pass concerns: those that are wanted, and those that were.
    fn concerned(&self, work: &Work) -> BTreeSet<ServiceKey> {
        let entries = self.ledger.entries();
        let planned = work.plan.services.values().flat_map(|service| &service.entries);
        let mut keys: BTreeSet<ServiceKey> = planned.map(|(key, _)| *key).collect();
        match (work.table, &work.scope) {
            (TableWork::Nothing, _) => keys.clear(),
            (TableWork::Unwanted, _) => {
                keys.extend(entries.keys().filter(|key| !self.memory.desired.contains(key)));
            }
            (TableWork::Everything, _) | (TableWork::Planned, Scope::Every) => {
                keys.extend(entries.keys());
                keys.extend(self.memory.desired.keys());
            }
            (TableWork::Planned, Scope::These(names)) => {
                keys.extend(names.iter().flat_map(|name| entries.keys_of(name)));
            }
        }
        keys
    }

    fn read_table(&mut self, work: &Work, keys: &BTreeSet<ServiceKey>) -> Result<Table, IpvsError> {
        let drained_by = |now| {
            let drains = &self.drains;
            move |key: &&ServiceKey| drains.next_look(key).is_some_and(|time| time <= now)
        };
        let due: BTreeSet<ServiceKey> = match work.leavers {
            Leavers::Drain(now) if work.may_delete => keys.iter().filter(drained_by(now)).copied().collect(),
            _ => BTreeSet::new(),
        };
        if work.table == TableWork::Everything {
            let table = self.store.list()?;
            self.observe_drains(work, &due)?;
            return Ok(table);
        }
        if work.table == TableWork::Unwanted {
            let there = self.store.keys()?;
            self.memory.foreign = there.iter().filter(|key| !self.is_ours(key)).count();
        }
        let rest = keys.iter().filter(|key| !due.contains(key)).copied();
        let mut table = self.store.read(&mut rest.collect::<Vec<_>>().into_iter())?;
        table.services.extend(self.observe_drains(work, &due)?.services);
        Ok(table)
    }

    /// Looks at the connections of services whose destinations leave.
    fn observe_drains(&mut self, work: &Work, due: &BTreeSet<ServiceKey>) -> Result<Table, IpvsError> {
        let Leavers::Drain(now) = work.leavers else {
            return Ok(Table::default());
        };
        let listed = self.store.look(&mut due.iter().copied())?;
        self.drains.observe(&listed, now);
        Ok(listed.into_iter().collect())
    }

    fn read_around(&mut self, work: &Work) -> Result<Option<host::Current>, HostError> {
        if work.around == AroundWork::IfNeeded && !self.memory.around.is_behind {
            return Ok(None);
        }
        let of_groups = work.plan.globals.sysctls.keys().map(|name| &**name);
        let current = self.host.read(&mut of_groups.chain(host::SYSCTLS))?;
        self.memory.around.network = current.network.without_own();
        Ok(Some(current))
    }

    fn read_globals(&mut self, work: &Work) -> Option<Result<globals::CurrentGlobals, IpvsError>> {
        let wanted = &work.plan.globals;
        let memory = &self.memory.globals;
        let is_news = memory.brought.as_ref() != Some(wanted) || !memory.failures.is_empty();
        let is_audit = matches!(work.around, AroundWork::Inspect { .. });
        (is_news || is_audit).then(|| globals::read(&mut self.store, wanted, memory.sync_role))
    }

    /// What there should be, and the steps to it.
    fn settle(&mut self, read: Read) -> Settled {
        let Read {
            mut work,
            keys,
            current,
            inspection,
            unread_globals,
        } = read;
        let (desired, disturbed) = self.desired(&mut work, &keys, &current);
        if work.table == TableWork::Everything {
            self.memory.foreign = self.count_foreign(&current.table, &desired);
        }
        for key in &keys {
            self.memory.desired.set(*key, &desired.table);
        }
        if let (Some(inspection), Some(around), Some(wanted)) =
            (&inspection, &current.around, &desired.around)
        {
            let checks = preflight::preflight(inspection, around, wanted).into_iter();
            self.memory.around.checks = checks.filter(|check| check.result.is_err()).collect();
        }
        let rights = Rights {
            owns: &|key| self.is_ours(key),
            sync_role: self.memory.globals.sync_role,
            may_delete: work.may_delete,
        };
        let mut steps = diff(&current, &desired, rights);
        let mut pass = Pass::default();
        if !work.may_delete {
            pass.withheld = steps.withhold_deletions();
        }
        pass.steps = steps;
        pass.global_failures.extend(unread_globals);
        Settled {
            work,
            keys,
            current,
            desired,
            pass,
            disturbed,
        }
    }

    /// What there should be, and which services somebody else has changed.
    fn desired(
        &mut self,
        work: &mut Work,
        keys: &BTreeSet<ServiceKey>,
        current: &Current,
    ) -> (Desired, BTreeSet<ServiceKey>) {
        let mut leaving = match work.leavers {
            // A destination that nobody wants may be wanted after all, and keeps its weight.
            _ if !work.may_delete && work.leavers != Leavers::KeepServing => Leaving::Ignore,
            Leavers::Drain(now) => Leaving::Drains(&mut self.drains, now),
            Leavers::KeepServing => Leaving::KeepServing,
        };
        if work.table == TableWork::Nothing {
            work.plan
                .services
                .values_mut()
                .for_each(|service| service.entries.clear());
        }
        let memory = &self.memory;
        let left = |key: &ServiceKey| memory.desired.agreed(&memory.programmed, key);
        let SettledTable {
            table,
            owners,
            disturbed,
        } = settle_table(&mut work.plan, keys, &current.table, left, &mut leaving);
        let around = current.around.as_ref();
        let desired = Desired {
            table,
            owners,
            around: around.map(|around| settle_around(self.memory.around.all(), &work.plan.globals, around)),
            globals: work.plan.globals.clone(),
        };
        (desired, disturbed)
    }

    fn count_foreign(&self, current: &Table, desired: &Desired) -> usize {
        let foreign = |key: &&ServiceKey| !self.is_ours(key) && !desired.owners.contains_key(key);
        current.services.keys().filter(foreign).count()
    }
}

impl<S: TableStore, H: HostStore> Programmer<S, H> {
    /// Brings the kernel to what is planned.
    ///
    /// # Errors
    ///
    /// The kernel could not be read or the ledger not written. What the kernel refuses is no error but part of the
    /// [`Pass`].
    pub fn run(&mut self, work: Work) -> Result<Pass, PassError> {
        self.memory.replan(&work.scope, &work.plan, work.leavers);
        let read = self.read(work).map_err(PassError::NotBegun)?;
        let settled = self.settle(read);
        let settled = self.take_possession(settled).map_err(PassError::NotBegun)?;
        let applied = self.apply(settled)?;
        self.remember(applied)
    }

    /// Tells the neighbours again that VIPs are here.
    pub fn announce(&mut self, vips: Vec<BoundAddress>) -> Vec<HostFailure> {
        let changes: Vec<HostChange> = vips.into_iter().map(HostChange::Announce).collect();
        let mut failures = Vec::new();
        self.host.apply(&changes, &mut failures);
        failures
    }

    /// Whether a service that was programmed is gone: somebody has deleted it, and maybe all. Each call looks at the next
    /// one, so that it costs the same however many there are.
    pub fn misses_an_entry(&mut self) -> bool {
        self.seen_last = self.memory.programmed.after(self.seen_last.as_ref());
        let Some(key) = self.seen_last else {
            return false;
        };
        // What cannot be read is no news: the next pass says so.
        let found = self.store.read(&mut std::iter::once(key));
        found.is_ok_and(|found| found.services.is_empty())
    }

    /// What is to be told of the node.
    pub fn summary(&mut self) -> Summary {
        Summary {
            leaving: self.drains.len(),
            leaving_real_servers: self.drains.real_servers().clone(),
            ..self.memory.summary(self.ledger.entries())
        }
    }

    /// What is refused now, and is to be tried again.
    pub fn failed(&self) -> Failed {
        self.memory.failed(self.ledger.entries())
    }

    /// What planning knows of the network, as of the last look.
    pub fn network(&self) -> &Network {
        &self.memory.around.network
    }

    /// Whether anything is programmed.
    pub fn holds_entries(&self) -> bool {
        self.memory.programmed.services() > 0
    }

    /// When something that leaves should be looked at again, for each virtual service of a scope: its destinations, or what
    /// lingers of it on this node.
    pub fn leaving<'a>(
        &'a self,
        names: impl Iterator<Item = &'a NamespacedName>,
    ) -> impl Iterator<Item = (&'a NamespacedName, Option<std::time::Instant>)> {
        names.map(|name| {
            let keys = self.ledger.entries().keys_of(name);
            let looks = keys.filter_map(|key| self.drains.next_look(&key));
            (name, looks.chain(self.memory.around.lingering.ends(name)).min())
        })
    }

    /// Takes possession of what is wanted, before the kernel is told.
    fn take_possession(&mut self, mut settled: Settled) -> Result<Settled, Cause> {
        let entries = self.ledger.entries();
        let new: Vec<_> = settled
            .desired
            .owners
            .iter()
            .filter(|(key, owner)| entries.owner(key) != Some(owner))
            .map(|(key, owner)| (*key, owner.clone()))
            .collect();
        let there = &settled.current.table.services;
        let adopted = new.iter().map(|(key, _)| *key);
        settled.pass.adopted = adopted
            .filter(|key| there.contains_key(key) && !entries.owns(key))
            .collect();
        self.ledger.take(new)?;
        Ok(settled)
    }

    fn apply(&mut self, settled: Settled) -> Result<Applied, PassError> {
        let Settled {
            work,
            keys,
            current,
            desired,
            mut pass,
            disturbed,
        } = settled;
        let around_was_read = current.around.is_some();
        self.host
            .apply(&pass.steps.around.before, &mut pass.around_failures);
        self.apply_globals(&mut pass, &desired, current.globals.is_some());
        // The picture is not needed any more, and it may be large.
        drop(current);
        if let Err(cause) = self.apply_table(&desired.table, work.may_delete, &mut pass) {
            self.memory.around.is_behind |= around_was_read;
            return Err(PassError::Unfinished {
                done: Box::new(pass),
                cause: cause.into(),
            });
        }
        self.host
            .apply(&pass.steps.around.after, &mut pass.around_failures);
        if around_was_read {
            let was_needed = self.memory.around.is_behind || !self.memory.around.failures.is_empty();
            pass.undone.around = !was_needed && !pass.steps.around.is_empty();
            self.remember_around(&mut pass, desired.around.as_ref());
        }
        Ok(Applied {
            scope: work.scope,
            keys,
            desired,
            pass,
            disturbed,
        })
    }

    fn apply_globals(&mut self, pass: &mut Pass, desired: &Desired, were_read: bool) {
        let failures = &mut pass.global_failures;
        pass.steps.globals.retain(|change| {
            let result = globals::apply(&mut self.store, change);
            failures.extend(
                result
                    .as_ref()
                    .err()
                    .map(|error| GlobalFailure::new(change, error)),
            );
            result.is_ok()
        });
        let memory = &mut self.memory.globals;
        if were_read || !failures.is_empty() {
            memory.failures.clone_from(failures);
        }
        if were_read {
            memory.sync_role = desired.globals.sync_daemon.as_ref().map(|daemon| daemon.role);
            memory.brought = Some(desired.globals.clone());
        }
    }

    /// Makes the changes of the table. Where the picture of the kernel turns out stale, because somebody else changed it or
    /// a dump hid something, those services are looked at and brought again.
    fn apply_table(&mut self, wanted: &Table, may_delete: bool, pass: &mut Pass) -> Result<(), IpvsError> {
        let mut outcome = self.store.apply(&pass.steps.table);
        for _ in 1..LOOKS {
            let stale: BTreeSet<ServiceKey> = outcome.stale_services().collect();
            let is_stale = |failure: &Failure| stale.contains(failure.change.service());
            pass.refused
                .extend(outcome.failures.into_iter().filter(|failure| !is_stale(failure)));
            if stale.is_empty() {
                return Ok(());
            }
            let newer = self.store.read(&mut stale.iter().copied())?;
            let wanted_of = |key: &ServiceKey| Some((*key, wanted.services.get(key)?.clone()));
            let wanted = Table {
                services: stale.iter().filter_map(wanted_of).collect(),
            };
            let mut changes = ipvs::diff(&newer, &wanted, |key| self.is_ours(key));
            if !may_delete {
                pass.withheld
                    .extend(changes.extract_if(.., |change| change.is_deletion()));
            }
            outcome = self.store.apply(&changes);
            pass.steps.table.extend(changes);
        }
        pass.refused.extend(outcome.failures);
        Ok(())
    }

    /// Records what became of the steps around the table, and leaves those among them that were taken.
    fn remember_around(&mut self, pass: &mut Pass, desired: Option<&host::HostState>) {
        let memory = &mut self.memory.around;
        memory.is_behind = false;
        let failures = &pass.around_failures;
        if !failures.iter().any(|failure| failure.change.keeps_quiet()) {
            memory.arp = desired.map(|desired| desired.arp.clone()).unwrap_or_default();
        }
        if !failures.is_empty() {
            let Steps { around, .. } = &mut pass.steps;
            for side in [&mut around.before, &mut around.after] {
                side.retain(|change| !failures.iter().any(|failure| failure.change == *change));
            }
        }
        memory.replace_failures(failures);
    }

    /// Records what a pass left in the table: what the kernel holds now, what it refused, and what is no longer ours.
    fn remember(&mut self, applied: Applied) -> Result<Pass, PassError> {
        let Applied {
            scope,
            keys,
            desired,
            mut pass,
            disturbed,
        } = applied;
        self.remember_refusals(&keys, &pass);
        self.remember_drained(&mut pass);
        pass.undone = undone(&disturbed, &pass);
        let withheld: BTreeSet<ServiceKey> = pass.withheld.iter().map(|change| *change.service()).collect();
        let (differs, done): (Vec<ServiceKey>, Vec<ServiceKey>) = keys
            .iter()
            .copied()
            .partition(|key| self.memory.refused.contains_key(key) || withheld.contains(key));
        for key in done {
            self.memory.programmed.copy(key, &self.memory.desired);
        }
        drop(desired);
        let result = self
            .remember_differing(differs)
            .and_then(|()| self.give_up(&keys, &pass));
        self.memory.count_serving(&scope, self.ledger.entries());
        match result {
            Ok(()) => Ok(pass),
            Err(cause) => Err(PassError::Unfinished {
                done: Box::new(pass),
                cause,
            }),
        }
    }

    fn remember_refusals(&mut self, keys: &BTreeSet<ServiceKey>, pass: &Pass) {
        for key in keys {
            self.memory.refused.remove(key);
        }
        for failure in &pass.refused {
            let of_service = self.memory.refused.entry(*failure.change.service());
            of_service.or_default().push(failure.clone());
        }
    }

    fn remember_drained(&mut self, pass: &mut Pass) {
        for change in &pass.steps.table {
            if let ipvs::Change::DeleteDestination { service, key } = change
                && !pass.refused.iter().any(|failure| failure.change == *change)
            {
                pass.drained.extend(self.drains.removed(service, key));
            }
        }
    }

    /// Looks at services which are not as they should be.
    fn remember_differing(&mut self, keys: Vec<ServiceKey>) -> Result<(), Cause> {
        let actual = self.store.read(&mut keys.iter().copied())?;
        for key in keys {
            self.memory.programmed.set(key, &actual);
        }
        Ok(())
    }

    /// Gives up what is ours, no longer wanted, and gone. What this pass did not delete itself is looked for once
    /// more: a dump may have hidden it, and what is given up will never be deleted.
    fn give_up(&mut self, keys: &BTreeSet<ServiceKey>, pass: &Pass) -> Result<(), Cause> {
        let deleted: BTreeSet<&ServiceKey> = pass
            .steps
            .table
            .iter()
            .filter(|change| matches!(change, ipvs::Change::DeleteService { .. }))
            .map(ipvs::Change::service)
            .collect();
        let Memory {
            desired, programmed, ..
        } = &self.memory;
        let gone: Vec<ServiceKey> = keys
            .iter()
            .filter(|key| self.ledger.entries().owns(key))
            .filter(|key| !desired.contains(key) && !programmed.contains(key))
            .copied()
            .collect();
        let unsure = gone.iter().copied().filter(|key| !deleted.contains(key));
        let hidden = self.store.read(&mut unsure.collect::<Vec<_>>().into_iter())?;
        self.ledger
            .give_up(gone.into_iter().filter(|key| !hidden.services.contains_key(key)))?;
        Ok(())
    }
}

/// What others had undone, by what had to be done again.
fn undone(disturbed: &BTreeSet<ServiceKey>, pass: &Pass) -> Undone {
    let mut undone = Undone {
        around: pass.undone.around,
        ..Undone::default()
    };
    for change in &pass.steps.table {
        let service = change.service();
        if disturbed.contains(service) {
            match change {
                ipvs::Change::AddService { .. } => undone.deleted.insert(*service),
                _ => undone.changed.insert(*service),
            };
        }
    }
    let Undone { deleted, changed, .. } = &mut undone;
    changed.retain(|service| !deleted.contains(service));
    undone
}
