//! What there is: the part of the table, and of the node around it, that a pass is about.

use std::collections::BTreeSet;

use crate::catalog::Scope;
use crate::host::preflight::{self, Inspection};
use crate::host::{self, HostError, HostStore};
use crate::ipvs::{IpvsError, ServiceKey, Table, TableStore};

use super::globals::{self, GlobalFailure};
use super::programmer::{Cause, Possession, Programmer};
use super::settle::Current;
use super::work::{AroundWork, Leavers, TableWork, Work};

/// What there is.
pub(super) struct Read {
    pub(super) work: Work,
    /// The services that the pass concerns: those that are wanted, and those that were.
    pub(super) keys: BTreeSet<ServiceKey>,
    pub(super) current: Current,
    pub(super) inspection: Option<Inspection>,
    /// Why it could not be read what the node has once.
    pub(super) unread_globals: Option<GlobalFailure>,
}

impl<S: TableStore, H: HostStore, L: Possession> Programmer<S, H, L> {
    pub(super) fn read(&mut self, work: Work) -> Result<Read, Cause> {
        let mut keys = self.concerned(&work);
        if work.table == TableWork::Unwanted {
            keys.extend(self.read_unwanted()?);
        }
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

    /// Looks at which services there are: counts those of others, and names those of ours that nobody wants.
    fn read_unwanted(&mut self) -> Result<BTreeSet<ServiceKey>, IpvsError> {
        let mut there = self.store.keys()?;
        self.memory.foreign = there.iter().filter(|key| !self.is_ours(key)).count();
        there.retain(|key| self.is_ours(key) && !self.memory.desired.contains(key));
        Ok(there)
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
        self.memory.around.see(current.network.without_own());
        Ok(Some(current))
    }

    fn read_globals(&mut self, work: &Work) -> Option<Result<globals::CurrentGlobals, IpvsError>> {
        let wanted = &work.plan.globals;
        let memory = &self.memory.globals;
        let is_news = memory.brought.as_ref() != Some(wanted) || !memory.failures.is_empty();
        let is_audit = matches!(work.around, AroundWork::Inspect { .. });
        (is_news || is_audit).then(|| globals::read(&mut self.store, wanted, memory.sync_role))
    }
}
