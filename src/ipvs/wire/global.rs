//! What a network namespace has once: sync daemons and timeouts.

use std::net::IpAddr;
use std::time::Duration;

use crate::ipvs::table::{SyncDaemon, SyncDaemonRole, Timeouts};
use crate::netlink::{Attributes, MessageWriter, read_u8, read_u16, read_u32};

use super::attribute;
use super::value::{read_string, read_v4, read_v6, whole_seconds};

/// Attributes of a sync daemon (`IPVS_DAEMON_ATTR_*`).
mod daemon_attribute {
    pub(super) const STATE: u16 = 1;
    pub(super) const INTERFACE: u16 = 2;
    pub(super) const SYNC_ID: u16 = 3;
    pub(super) const MAX_LENGTH: u16 = 4;
    pub(super) const GROUP: u16 = 5;
    pub(super) const GROUP6: u16 = 6;
    pub(super) const PORT: u16 = 7;
    pub(super) const TTL: u16 = 8;
}

/// Writes timeouts for `SET_CONFIG`.
pub fn write_timeouts(message: &mut MessageWriter<'_>, timeouts: &Timeouts) {
    message.u32(attribute::TIMEOUT_TCP, whole_seconds(timeouts.tcp));
    message.u32(attribute::TIMEOUT_TCP_FIN, whole_seconds(timeouts.tcp_fin));
    message.u32(attribute::TIMEOUT_UDP, whole_seconds(timeouts.udp));
}

/// Reads timeouts from the reply to `GET_CONFIG`; one that the kernel does not say is zero.
pub fn read_timeouts(attributes: Attributes<'_>) -> Timeouts {
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
            attribute::TIMEOUT_TCP => timeouts.tcp = seconds,
            attribute::TIMEOUT_TCP_FIN => timeouts.tcp_fin = seconds,
            attribute::TIMEOUT_UDP => timeouts.udp = seconds,
            _ => {}
        }
    }
    timeouts
}

/// Writes which sync daemon is meant, for `DEL_DAEMON`.
pub fn write_daemon_role(message: &mut MessageWriter<'_>, role: SyncDaemonRole) {
    message.nest(attribute::DAEMON, |daemon| {
        daemon.u32(daemon_attribute::STATE, daemon_state(role))
    });
}

fn daemon_state(role: SyncDaemonRole) -> u32 {
    match role {
        SyncDaemonRole::Master => 1,
        SyncDaemonRole::Backup => 2,
    }
}

/// Writes a sync daemon for `NEW_DAEMON`.
pub fn write_daemon(message: &mut MessageWriter<'_>, value: &SyncDaemon) {
    let SyncDaemon {
        role,
        interface,
        sync_id,
        max_length,
        group,
        port,
        ttl,
    } = value;
    message.nest(attribute::DAEMON, |daemon| {
        daemon.u32(daemon_attribute::STATE, daemon_state(*role));
        daemon.string(daemon_attribute::INTERFACE, interface);
        daemon.u32(daemon_attribute::SYNC_ID, (*sync_id).into());
        if let Some(length) = max_length {
            daemon.u16(daemon_attribute::MAX_LENGTH, *length);
        }
        match group {
            Some(IpAddr::V4(group)) => daemon.bytes(daemon_attribute::GROUP, &group.octets()),
            Some(IpAddr::V6(group)) => daemon.bytes(daemon_attribute::GROUP6, &group.octets()),
            None => {}
        }
        // Unlike every other port in this family, the daemon's is in host order.
        if let Some(port) = port {
            daemon.u16(daemon_attribute::PORT, *port);
        }
        if let Some(ttl) = ttl {
            daemon.u8(daemon_attribute::TTL, *ttl);
        }
    });
}

/// Reads a sync daemon from a reply to `GET_DAEMON`.
pub fn read_daemon(mut attributes: Attributes<'_>) -> Option<SyncDaemon> {
    let (_, nested) = attributes.find(|(kind, _)| *kind == attribute::DAEMON)?;
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
            daemon_attribute::STATE => {
                role = match read_u32(payload)? {
                    1 => Some(SyncDaemonRole::Master),
                    2 => Some(SyncDaemonRole::Backup),
                    _ => None,
                };
            }
            daemon_attribute::INTERFACE => daemon.interface = read_string(payload)?.into(),
            daemon_attribute::SYNC_ID => daemon.sync_id = u8::try_from(read_u32(payload)?).ok()?,
            daemon_attribute::MAX_LENGTH => daemon.max_length = read_u16(payload),
            daemon_attribute::GROUP => daemon.group = read_v4(payload).map(IpAddr::V4),
            daemon_attribute::GROUP6 => daemon.group = read_v6(payload).map(IpAddr::V6),
            daemon_attribute::PORT => daemon.port = read_u16(payload),
            daemon_attribute::TTL => daemon.ttl = read_u8(payload),
            _ => {}
        }
    }
    daemon.role = role?;
    Some(daemon)
}
