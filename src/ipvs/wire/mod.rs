//! IPVS attributes as bytes, both ways.
//!
//! Weir always writes whole entries: `SET_SERVICE` and `SET_DEST` replace what is there. Reading takes what it
//! knows and leaves out what it does not, since a newer kernel may say more.
//!
//! Source: `include/uapi/linux/ip_vs.h`, and `net/netfilter/ipvs/ip_vs_ctl.c` for what is in network order.
//!
//! | file | what |
//! | --- | --- |
//! | `service`, `destination` | the table's entries |
//! | `global` | timeouts and sync daemons |
//! | `value` | what several of them have |

mod destination;
mod global;
mod service;
mod value;

use crate::ipvs::diff::Change;
use crate::netlink::{Family as GenericFamily, MessageWriter};

pub use destination::{read_destination, write_destination, write_destination_key};
pub use global::{read_daemon, read_timeouts, write_daemon, write_daemon_role, write_timeouts};
pub use service::{read_service, write_service, write_service_key};

/// The name under which the kernel registers the family.
pub const FAMILY_NAME: &str = "IPVS";
/// `IPVS_GENL_VERSION`.
pub const FAMILY_VERSION: u8 = 1;

/// Commands (`IPVS_CMD_*`).
pub mod command {
    /// Add a service; `EEXIST` if it is there.
    pub const NEW_SERVICE: u8 = 1;
    /// Replace a service; `ESRCH` if it is not there.
    pub const SET_SERVICE: u8 = 2;
    /// Delete a service and its destinations.
    pub const DEL_SERVICE: u8 = 3;
    /// Read one service, or all as a dump.
    pub const GET_SERVICE: u8 = 4;
    /// Add a destination.
    pub const NEW_DEST: u8 = 5;
    /// Replace a destination; `ENOENT` if it is not there.
    pub const SET_DEST: u8 = 6;
    /// Delete a destination.
    pub const DEL_DEST: u8 = 7;
    /// Read the destinations of a service; a dump only.
    pub const GET_DEST: u8 = 8;
    /// Start a sync daemon.
    pub const NEW_DAEMON: u8 = 9;
    /// Stop a sync daemon.
    pub const DEL_DAEMON: u8 = 10;
    /// Read the sync daemons; a dump only.
    pub const GET_DAEMON: u8 = 11;
    /// Set the timeouts; 0 keeps one.
    pub const SET_CONFIG: u8 = 12;
    /// Read the timeouts.
    pub const GET_CONFIG: u8 = 13;
    /// Read version and table size; the answer says `SET_INFO`.
    pub const GET_INFO: u8 = 15;
    /// Zero the counters of one service or of all.
    pub const ZERO: u8 = 16;
    /// Delete everything.
    pub const FLUSH: u8 = 17;
}

/// Attributes of a command (`IPVS_CMD_ATTR_*`).
mod attribute {
    pub(super) const SERVICE: u16 = 1;
    pub(super) const DESTINATION: u16 = 2;
    pub(super) const DAEMON: u16 = 3;
    pub(super) const TIMEOUT_TCP: u16 = 4;
    pub(super) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(super) const TIMEOUT_UDP: u16 = 6;
}

/// Writes the request that makes a change.
pub fn write_change(message: &mut MessageWriter<'_>, family: GenericFamily, change: &Change) {
    match change {
        Change::AddService { key, service } => {
            family.command(message, command::NEW_SERVICE);
            write_service(message, key, service);
        }
        Change::EditService { key, service } => {
            family.command(message, command::SET_SERVICE);
            write_service(message, key, service);
        }
        Change::DeleteService { key } => {
            family.command(message, command::DEL_SERVICE);
            write_service_key(message, key);
        }
        Change::AddDestination {
            service,
            key,
            destination,
        } => {
            family.command(message, command::NEW_DEST);
            write_service_key(message, service);
            write_destination(message, key, destination);
        }
        Change::EditDestination {
            service,
            key,
            destination,
        } => {
            family.command(message, command::SET_DEST);
            write_service_key(message, service);
            write_destination(message, key, destination);
        }
        Change::DeleteDestination { service, key } => {
            family.command(message, command::DEL_DEST);
            write_service_key(message, service);
            write_destination_key(message, key);
        }
    }
}
