//! What is the whole table's and no virtual service's: connection timeouts, connection sync.

use crate::host::HostStore;
use crate::ipvs::{IpvsError, SyncDaemon, SyncDaemonRole, TableStore};
use crate::plan::{plan_timeouts, sync_daemon};

use super::{Pass, Reconciler};

impl<S: TableStore, H: HostStore> Reconciler<S, H> {
    pub(super) fn bring_timeouts(&mut self, pass: &mut Pass) {
        let Some(wanted) = plan_timeouts(&self.catalog, &self.node) else {
            return;
        };
        let brought = self.store.timeouts().and_then(|current| {
            let differs = wanted.over(&current) != current;
            if differs {
                self.store.set_timeouts(&wanted)?;
            }
            Ok(differs)
        });
        match brought {
            Ok(set) => pass.timeouts_set = set,
            Err(error) => self.table_failures.push(error),
        }
    }

    pub(super) fn bring_sync_daemon(&mut self, pass: &mut Pass) {
        let wanted = sync_daemon(&self.catalog, &self.node, &self.network);
        if wanted.is_none() && self.sync_role.is_none() {
            return;
        }
        match self.exchange_sync_daemon(wanted.as_ref()) {
            Ok(started) => pass.sync_daemon_started = started,
            Err(error) => self.table_failures.push(error),
        }
    }

    /// Stops what runs instead of what is wanted, and starts that. What somebody else started is stopped only where it
    /// is in the way.
    fn exchange_sync_daemon(
        &mut self,
        wanted: Option<&SyncDaemon>,
    ) -> Result<Option<SyncDaemonRole>, IpvsError> {
        let running = self.store.daemons()?;
        let is_wanted = |daemon: &SyncDaemon| {
            let essence = |daemon: &SyncDaemon| (daemon.role, daemon.interface.clone(), daemon.sync_id);
            wanted.is_some_and(|wanted| essence(wanted) == essence(daemon))
        };
        for daemon in running.iter().filter(|daemon| !is_wanted(daemon)) {
            if wanted.is_some() || self.sync_role == Some(daemon.role) {
                self.store.stop_daemon(daemon.role)?;
            }
        }
        self.sync_role = wanted.map(|wanted| wanted.role);
        match wanted.filter(|_| !running.iter().any(is_wanted)) {
            Some(wanted) => {
                self.store.start_daemon(wanted)?;
                Ok(Some(wanted.role))
            }
            None => Ok(None),
        }
    }
}
