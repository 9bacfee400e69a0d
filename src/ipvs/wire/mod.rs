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

use neli::ToBytes;
use neli::consts::genl::{Cmd, NlAttrType};
use neli::neli_enum;

use crate::ipvs::diff::Change;
use crate::netlink::{Family as GenericFamily, MessageWriter};

pub use destination::{read_destination, write_destination, write_destination_key};
pub use global::{
    InfoAttribute, read_daemon, read_timeouts, write_daemon, write_daemon_role, write_timeouts,
};
pub use service::{read_service, write_service, write_service_key};

/// The name under which the kernel registers the family.
pub const FAMILY_NAME: &str = "IPVS";
/// `IPVS_GENL_VERSION`.
pub const FAMILY_VERSION: u8 = 1;

/// Commands (`IPVS_CMD_*`).
#[neli_enum(serialized_type = "u8")]
pub enum Command {
    /// Add a service; `EEXIST` if it is there.
    NewService = 1,
    /// Replace a service; `ESRCH` if it is not there.
    SetService = 2,
    /// Delete a service and its destinations.
    DelService = 3,
    /// Read one service, or all as a dump.
    GetService = 4,
    /// Add a destination.
    NewDest = 5,
    /// Replace a destination; `ENOENT` if it is not there.
    SetDest = 6,
    /// Delete a destination.
    DelDest = 7,
    /// Read the destinations of a service; a dump only.
    GetDest = 8,
    /// Start a sync daemon.
    NewDaemon = 9,
    /// Stop a sync daemon.
    DelDaemon = 10,
    /// Read the sync daemons; a dump only.
    GetDaemon = 11,
    /// Set the timeouts; 0 keeps one.
    SetConfig = 12,
    /// Read the timeouts.
    GetConfig = 13,
    /// Read version and table size; the answer says `SET_INFO`.
    GetInfo = 15,
    /// Zero the counters of one service or of all.
    Zero = 16,
    /// Delete everything.
    Flush = 17,
}

impl Cmd for Command {}

/// Attributes of a command (`IPVS_CMD_ATTR_*`).
#[neli_enum(serialized_type = "u16")]
pub enum CommandAttribute {
    /// A service.
    Service = 1,
    /// A destination.
    Destination = 2,
    /// A sync daemon.
    Daemon = 3,
    /// Seconds an established TCP connection may be idle.
    TimeoutTcp = 4,
    /// Seconds a TCP connection may be idle after FIN.
    TimeoutTcpFin = 5,
    /// Seconds a UDP exchange may be idle.
    TimeoutUdp = 6,
}

impl NlAttrType for CommandAttribute {}

/// The body of the request that makes a change.
pub fn request(family: GenericFamily, change: &Change) -> impl ToBytes {
    family.command(command_of(change), move |message| write_change(message, change))
}

#[inline]
fn command_of(change: &Change) -> Command {
    match change {
        Change::AddService { .. } => Command::NewService,
        Change::EditService { .. } => Command::SetService,
        Change::DeleteService { .. } => Command::DelService,
        Change::AddDestination { .. } => Command::NewDest,
        Change::EditDestination { .. } => Command::SetDest,
        Change::DeleteDestination { .. } => Command::DelDest,
    }
}

#[inline]
fn write_change(message: &mut MessageWriter<'_, CommandAttribute>, change: &Change) {
    match change {
        Change::AddService { key, service } | Change::EditService { key, service } => {
            write_service(message, key, service);
        }
        Change::DeleteService { key } => write_service_key(message, key),
        Change::AddDestination {
            service,
            key,
            destination,
        }
        | Change::EditDestination {
            service,
            key,
            destination,
        } => {
            write_service_key(message, service);
            write_destination(message, key, destination);
        }
        Change::DeleteDestination { service, key } => {
            write_service_key(message, service);
            write_destination_key(message, key);
        }
    }
}
