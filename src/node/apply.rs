//! The steps of a pass, taken in their order.

use std::collections::BTreeSet;

use crate::catalog::Scope;
use crate::host::{HostChange, HostStore};
use crate::ipvs::{self, Failure, IpvsError, ServiceKey, Table, TableStore};

use super::globals::{self, GlobalChange, GlobalFailure};
use super::programmer::{Cause, PassError, Programmer, Settled};
use super::settle::Desired;
use super::work::Pass;

/// How often services are looked at again of which the picture turned out stale.
const LOOKS: usize = 3;

/// What was done.
pub(super) struct Applied {
    pub(super) scope: Scope,
    pub(super) keys: BTreeSet<ServiceKey>,
    pub(super) desired: Desired,
    pub(super) pass: Pass,
    pub(super) disturbed: BTreeSet<ServiceKey>,
}

impl<S: TableStore, H: HostStore> Programmer<S, H> {
    /// Takes possession of what is wanted, before the kernel is told.
    pub(super) fn take_possession(&mut self, mut settled: Settled) -> Result<Settled, Cause> {
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

    pub(super) fn apply(&mut self, settled: Settled) -> Result<Applied, PassError> {
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
            // What was not come to is no step that was taken, and neither is what failed.
            pass.steps.around.after.clear();
            let failures = &pass.around_failures;
            let is_taken = |change: &HostChange| failures.iter().all(|failure| failure.change != *change);
            pass.steps.around.before.retain(is_taken);
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
        let mut still_runs = None;
        pass.steps.globals.retain(|change| {
            let starts = matches!(change, GlobalChange::StartSyncDaemon(_));
            if starts && still_runs.is_some() {
                failures.push(GlobalFailure {
                    act: change.to_string().into(),
                    message: "not tried, because another one still runs".into(),
                });
                return false;
            }
            let result = globals::apply(&mut self.store, change);
            if let Err(error) = &result {
                failures.push(GlobalFailure::new(change, error));
                if let GlobalChange::StopSyncDaemon(role) = change {
                    still_runs = Some(*role);
                }
            }
            result.is_ok()
        });
        let memory = &mut self.memory.globals;
        if were_read || !failures.is_empty() {
            memory.failures.clone_from(failures);
        }
        if were_read {
            let wanted = desired.globals.sync_daemon.as_ref().map(|daemon| daemon.role);
            // One that could not be stopped is still ours to stop.
            memory.sync_role = still_runs
                .filter(|role| memory.sync_role == Some(*role))
                .or(wanted);
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
}
