//! IPVS: the kernel's table as a value, the difference of two tables, and the ways to read and change one.
//!
//! | file | what |
//! | --- | --- |
//! | `table`, `scheduler`, `forwarding` | the table and its words; pure |
//! | `listing` | the table with what the kernel counts; pure |
//! | `encoding` | an entry as bytes, for its digest; pure |
//! | `diff` | two tables → changes in order; pure |
//! | `outcome` | what became of changes, errnos as advice; pure |
//! | `wire` | attributes ↔ values; pure |
//! | `memory` | a table in memory that refuses like the kernel |
//! | `netlink` | the kernel's table |

use std::collections::BTreeSet;

mod diff;
mod encoding;
mod forwarding;
mod listing;
mod memory;
mod netlink;
mod outcome;
mod scheduler;
mod table;
pub mod wire;

pub use diff::{Change, diff};
pub use forwarding::{ForwardingMethod, Tunnel, TunnelChecksum};
pub use listing::{Connections, ListedDestination, ListedService, Statistics};
pub use memory::MemoryTable;
pub use netlink::{Info, IpvsError, KernelTable};
pub use outcome::{ChangeError, Failure, Outcome};
pub use scheduler::{NAME_MAX as SCHEDULER_NAME_MAX, Scheduler, SchedulerNameError};
pub use table::{
    Destination, DestinationKey, Entry, Family, Granularity, Persistence, Protocol, SchedulerFlags, Service,
    ServiceKey, ServiceKeyError, SyncDaemon, SyncDaemonRole, Table, Timeouts, Weight,
};

/// A table that can be read and changed: the kernel's, or one in memory.
pub trait TableStore {
    /// Reads the whole table.
    ///
    /// The kernel's dumps carry no mark of consistency: what another program adds or deletes meanwhile can hide
    /// entries that were there throughout. So nothing may be concluded from an entry's absence; a change that
    /// meets the unexpected says so in its outcome and is followed by [`TableStore::read`] of that service.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    fn list(&mut self) -> Result<Table, IpvsError>;

    /// Which services there are, as [`TableStore::list`] finds them. Reads no destinations.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    fn keys(&mut self) -> Result<BTreeSet<ServiceKey>, IpvsError> {
        Ok(self.list()?.services.into_keys().collect())
    }

    /// Reads the given services with what the kernel counts, each with all its destinations; those that are not there
    /// are left out. Costs as much as they are many, however large the table.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    fn look(&mut self, keys: &mut dyn Iterator<Item = ServiceKey>) -> Result<Vec<ListedService>, IpvsError>;

    /// The configuration in [`TableStore::look`].
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    fn read(&mut self, keys: &mut dyn Iterator<Item = ServiceKey>) -> Result<Table, IpvsError> {
        Ok(self.look(keys)?.into_iter().collect())
    }

    /// The connection timeouts.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    fn timeouts(&mut self) -> Result<Timeouts, IpvsError>;

    /// Sets the connection timeouts; a zero leaves one as it is.
    ///
    /// # Errors
    ///
    /// The kernel refused them.
    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), IpvsError>;

    /// The sync daemons that run (`ipvsadm -L --daemon`): at most one of each role.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    fn daemons(&mut self) -> Result<Vec<SyncDaemon>, IpvsError>;

    /// Starts a sync daemon (`ipvsadm --start-daemon`).
    ///
    /// # Errors
    ///
    /// `EEXIST` if one of this role runs, `ENODEV` without the interface.
    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), IpvsError>;

    /// Stops the sync daemon of a role (`ipvsadm --stop-daemon`).
    ///
    /// # Errors
    ///
    /// `ESRCH` if none runs.
    fn stop_daemon(&mut self, role: SyncDaemonRole) -> Result<(), IpvsError>;

    /// Makes changes in their order, and goes on after a failed one where later changes do not depend on it.
    fn apply(&mut self, changes: &[Change]) -> Outcome;
}
