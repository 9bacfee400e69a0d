//! What a pass left: what the kernel holds now, what it refused, and what is no longer ours.

use std::collections::BTreeSet;

use crate::host::{self, HostStore};
use crate::ipvs::{self, ServiceKey, TableStore};

use super::apply::Applied;
use super::memory::Memory;
use super::programmer::{Cause, PassError, Programmer};
use super::steps::Steps;
use super::work::{Pass, Undone};

impl<S: TableStore, H: HostStore> Programmer<S, H> {
    /// Records what became of the steps around the table, and leaves those among them that were taken.
    pub(super) fn remember_around(&mut self, pass: &mut Pass, desired: Option<&host::HostState>) {
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
    pub(super) fn remember(&mut self, applied: Applied) -> Result<Pass, PassError> {
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
