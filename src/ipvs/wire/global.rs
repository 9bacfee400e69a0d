//! What a network namespace has once: sync daemons and timeouts.

use std::net::IpAddr;
use std::time::Duration;

use neli::consts::genl::NlAttrType;
use neli::neli_enum;

use crate::ipvs::table::{SyncDaemon, SyncDaemonRole, Timeouts};
use crate::netlink::{Attributes, MessageWriter, Word, read_string, read_u8, read_u16, read_u32};

use super::CommandAttribute;
use super::value::{read_v4, read_v6, whole_seconds};

/// Attributes of the answer to `GET_INFO` (`IPVS_INFO_ATTR_*`).
#[neli_enum(serialized_type = "u16")]
pub enum InfoAttribute {
    /// Version: major, minor and patch in the low three bytes.
    Version = 1,
    /// Slots of the connection table.
    ConnectionTableSize = 2,
}

impl NlAttrType for InfoAttribute {}

/// Attributes of a sync daemon (`IPVS_DAEMON_ATTR_*`).
#[neli_enum(serialized_type = "u16")]
enum DaemonAttribute {
    State = 1,
    Interface = 2,
    SyncId = 3,
    MaxLength = 4,
    Group = 5,
    Group6 = 6,
    Port = 7,
    Ttl = 8,
}

impl NlAttrType for DaemonAttribute {}

/// Writes timeouts for `SET_CONFIG`.
pub fn write_timeouts(message: &mut MessageWriter<'_, CommandAttribute>, timeouts: &Timeouts) {
    message.words([
        Word::u32(CommandAttribute::TimeoutTcp, whole_seconds(timeouts.tcp)),
        Word::u32(CommandAttribute::TimeoutTcpFin, whole_seconds(timeouts.tcp_fin)),
        Word::u32(CommandAttribute::TimeoutUdp, whole_seconds(timeouts.udp)),
    ]);
}

/// Reads timeouts from the reply to `GET_CONFIG`; one that the kernel does not say is zero.
pub fn read_timeouts(attributes: Attributes<'_, CommandAttribute>) -> Timeouts {
    let mut timeouts = Timeouts {
        tcp: Duration::ZERO,
        tcp_fin: Duration::ZERO,
        udp: Duration::ZERO,
    };
    for (kind, payload) in attributes {
        let Some(seconds) = read_u32(payload).map(|seconds| Duration::from_secs(seconds.into())) else {
            continue;
        };
        match kind {
            CommandAttribute::TimeoutTcp => timeouts.tcp = seconds,
            CommandAttribute::TimeoutTcpFin => timeouts.tcp_fin = seconds,
            CommandAttribute::TimeoutUdp => timeouts.udp = seconds,
            _ => {}
        }
    }
    timeouts
}

/// Writes which sync daemon is meant, for `DEL_DAEMON`.
pub fn write_daemon_role(message: &mut MessageWriter<'_, CommandAttribute>, role: SyncDaemonRole) {
    message.nest(CommandAttribute::Daemon, |daemon| {
        daemon.u32(DaemonAttribute::State, daemon_state(role))
    });
}

fn daemon_state(role: SyncDaemonRole) -> u32 {
    match role {
        SyncDaemonRole::Master => 1,
        SyncDaemonRole::Backup => 2,
    }
}

/// Writes a sync daemon for `NEW_DAEMON`.
pub fn write_daemon(message: &mut MessageWriter<'_, CommandAttribute>, value: &SyncDaemon) {
    let SyncDaemon {
        role,
        interface,
        sync_id,
        max_length,
        group,
        port,
        ttl,
    } = value;
    message.nest(CommandAttribute::Daemon, |daemon| {
        daemon.u32(DaemonAttribute::State, daemon_state(*role));
        daemon.string(DaemonAttribute::Interface, interface);
        daemon.u32(DaemonAttribute::SyncId, (*sync_id).into());
        if let Some(length) = max_length {
            daemon.u16(DaemonAttribute::MaxLength, *length);
        }
        match group {
            Some(IpAddr::V4(group)) => daemon.bytes(DaemonAttribute::Group, &group.octets()),
            Some(IpAddr::V6(group)) => daemon.bytes(DaemonAttribute::Group6, &group.octets()),
            None => {}
        }
        // Unlike every other port in this family, the daemon's is in host order.
        if let Some(port) = port {
            daemon.u16(DaemonAttribute::Port, *port);
        }
        if let Some(ttl) = ttl {
            daemon.u8(DaemonAttribute::Ttl, *ttl);
        }
    });
}

/// Reads a sync daemon from a reply to `GET_DAEMON`.
pub fn read_daemon(attributes: Attributes<'_, CommandAttribute>) -> Option<SyncDaemon> {
    let nested = attributes.get(CommandAttribute::Daemon)?;
    let mut role = None;
    let mut daemon = SyncDaemon {
        role: SyncDaemonRole::Master,
        interface: "".into(),
        sync_id: 0,
        max_length: None,
        group: None,
        port: None,
        ttl: None,
    };
    for (kind, payload) in Attributes::new(nested) {
        match kind {
            DaemonAttribute::State => {
                role = match read_u32(payload)? {
                    1 => Some(SyncDaemonRole::Master),
                    2 => Some(SyncDaemonRole::Backup),
                    _ => None,
                };
            }
            DaemonAttribute::Interface => daemon.interface = read_string(payload)?.into(),
            DaemonAttribute::SyncId => daemon.sync_id = u8::try_from(read_u32(payload)?).ok()?,
            DaemonAttribute::MaxLength => daemon.max_length = read_u16(payload),
            DaemonAttribute::Group => daemon.group = read_v4(payload).map(IpAddr::V4),
            DaemonAttribute::Group6 => daemon.group = read_v6(payload).map(IpAddr::V6),
            DaemonAttribute::Port => daemon.port = read_u16(payload),
            DaemonAttribute::Ttl => daemon.ttl = read_u8(payload),
            _ => {}
        }
    }
    daemon.role = role?;
    Some(daemon)
}
