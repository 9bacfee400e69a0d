//! IPVS attributes as bytes, both ways.
//!
//! Weir always writes whole entries: `SET_SERVICE` and `SET_DEST` replace what is there. Reading takes what it
//! knows and leaves out what it does not, since a newer kernel may say more.
//!
//! Source: `include/uapi/linux/ip_vs.h`, and `net/netfilter/ipvs/ip_vs_ctl.c` for what is in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use crate::netlink::{
    Attributes, Family as GenericFamily, MessageWriter, read_u8, read_u16, read_u16_be, read_u32, read_u64,
};

use super::diff::Change;
use super::forwarding::{ForwardingMethod, Tunnel, TunnelChecksum};
use super::listing::{Connections, ListedDestination, ListedService, Statistics};
use super::table::{
    Destination, DestinationKey, Family, Granularity, Persistence, Protocol, SchedulerFlags, Service,
    ServiceKey, SyncDaemon, SyncDaemonRole, Timeouts, Weight,
};

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

/// Attributes of a service (`IPVS_SVC_ATTR_*`).
mod service_attribute {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDRESS: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const MARK: u16 = 5;
    pub(super) const SCHEDULER: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    pub(super) const TIMEOUT: u16 = 8;
    pub(super) const NETMASK: u16 = 9;
    pub(super) const STATISTICS: u16 = 10;
    pub(super) const ENGINE: u16 = 11;
    pub(super) const STATISTICS64: u16 = 12;
}

/// Attributes of a destination (`IPVS_DEST_ATTR_*`).
mod destination_attribute {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const PORT: u16 = 2;
    pub(super) const FORWARDING: u16 = 3;
    pub(super) const WEIGHT: u16 = 4;
    pub(super) const UPPER_THRESHOLD: u16 = 5;
    pub(super) const LOWER_THRESHOLD: u16 = 6;
    pub(super) const ACTIVE: u16 = 7;
    pub(super) const INACTIVE: u16 = 8;
    pub(super) const PERSISTENT: u16 = 9;
    pub(super) const STATISTICS: u16 = 10;
    pub(super) const FAMILY: u16 = 11;
    pub(super) const STATISTICS64: u16 = 12;
    pub(super) const TUNNEL_TYPE: u16 = 13;
    pub(super) const TUNNEL_PORT: u16 = 14;
    pub(super) const TUNNEL_FLAGS: u16 = 15;
}

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

/// `AF_INET` and `AF_INET6` as the kernel numbers them.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `IP_VS_SVC_F_*`.
const FLAG_PERSISTENT: u32 = 0x1;
const FLAG_ONE_PACKET: u32 = 0x4;
const FLAG_SCHEDULER: [u32; 3] = [0x8, 0x10, 0x20];
/// `IP_VS_CONN_F_FWD_MASK`.
const FORWARDING_MASK: u32 = 0x7;
/// The kernel's word for a service that schedules nothing.
const NO_SCHEDULER: &str = "none";

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

/// Writes what identifies a service, as `DEL_SERVICE`, `GET_DEST` and the destination commands need it.
pub fn write_service_key(message: &mut MessageWriter<'_>, key: &ServiceKey) {
    message.nest(attribute::SERVICE, |service| write_key_attributes(service, key));
}

/// Writes a whole service for `NEW_SERVICE` and `SET_SERVICE`.
pub fn write_service(message: &mut MessageWriter<'_>, key: &ServiceKey, value: &Service) {
    let Service {
        scheduler,
        flags,
        one_packet,
        persistence,
    } = value;
    message.nest(attribute::SERVICE, |service| {
        write_key_attributes(service, key);
        service.string(
            service_attribute::SCHEDULER,
            scheduler
                .as_ref()
                .map_or(NO_SCHEDULER, |scheduler| scheduler.name()),
        );
        let mut bits = 0;
        for (set, bit) in [flags.flag1, flags.flag2, flags.flag3]
            .into_iter()
            .zip(FLAG_SCHEDULER)
        {
            bits |= if set { bit } else { 0 };
        }
        bits |= if *one_packet { FLAG_ONE_PACKET } else { 0 };
        bits |= if persistence.is_some() { FLAG_PERSISTENT } else { 0 };
        let mut flags_and_mask = [0xff; 8];
        flags_and_mask[..4].copy_from_slice(&bits.to_ne_bytes());
        service.array(service_attribute::FLAGS, flags_and_mask);
        let seconds = persistence
            .as_ref()
            .map_or(0, |persistence| whole_seconds(persistence.timeout));
        service.u32(service_attribute::TIMEOUT, seconds);
        let granularity = persistence
            .as_ref()
            .map_or(Granularity::single(key.family()), |persistence| {
                persistence.granularity
            });
        match granularity {
            Granularity::V4(mask) => service.array(service_attribute::NETMASK, mask.octets()),
            Granularity::V6(prefix) => service.u32(service_attribute::NETMASK, prefix.into()),
        }
        if let Some(engine) = persistence
            .as_ref()
            .and_then(|persistence| persistence.engine.as_deref())
        {
            service.string(service_attribute::ENGINE, engine);
        }
    });
}

fn write_key_attributes(service: &mut MessageWriter<'_>, key: &ServiceKey) {
    service.u16(service_attribute::FAMILY, family_number(key.family()));
    match key {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            service.u16(service_attribute::PROTOCOL, protocol_number(*protocol));
            service.array(service_attribute::ADDRESS, address_bytes(*address));
            service.u16_be(service_attribute::PORT, *port);
        }
        ServiceKey::Mark { mark, .. } => service.u32(service_attribute::MARK, mark.get()),
    }
}

/// Writes what identifies a destination, for `DEL_DEST`.
pub fn write_destination_key(message: &mut MessageWriter<'_>, key: &DestinationKey) {
    message.nest(attribute::DESTINATION, |destination| {
        write_destination_key_attributes(destination, key)
    });
}

/// Writes a whole destination for `NEW_DEST` and `SET_DEST`.
pub fn write_destination(message: &mut MessageWriter<'_>, key: &DestinationKey, value: &Destination) {
    let Destination {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    } = value;
    message.nest(attribute::DESTINATION, |destination| {
        write_destination_key_attributes(destination, key);
        destination.u32(destination_attribute::FORWARDING, forwarding_number(*forwarding));
        destination.u32(destination_attribute::WEIGHT, weight.get());
        destination.u32(destination_attribute::UPPER_THRESHOLD, *upper_threshold);
        destination.u32(destination_attribute::LOWER_THRESHOLD, *lower_threshold);
        if let ForwardingMethod::Tunnel(tunnel) = forwarding {
            let (kind, port, checksum) = match tunnel {
                Tunnel::Ipip => (0, 0, TunnelChecksum::None),
                Tunnel::Gue { port, checksum } => (1, port.get(), *checksum),
                Tunnel::Gre { checksum } => (2, 0, *checksum),
            };
            destination.u8(destination_attribute::TUNNEL_TYPE, kind);
            destination.u16_be(destination_attribute::TUNNEL_PORT, port);
            destination.u16(destination_attribute::TUNNEL_FLAGS, checksum_number(checksum));
        }
    });
}

fn write_destination_key_attributes(destination: &mut MessageWriter<'_>, key: &DestinationKey) {
    destination.array(destination_attribute::ADDRESS, address_bytes(key.address));
    destination.u16_be(destination_attribute::PORT, key.port);
    destination.u16(
        destination_attribute::FAMILY,
        family_number(Family::of(key.address)),
    );
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

/// Reads a service from a reply to `GET_SERVICE`, without its destinations.
///
/// `None` for a service that Weir cannot name, such as one of a protocol that is neither TCP, UDP nor SCTP.
pub fn read_service(mut attributes: Attributes<'_>) -> Option<ListedService> {
    let (_, nested) = attributes.find(|(kind, _)| *kind == attribute::SERVICE)?;
    let (mut family, mut protocol, mut address, mut port, mut mark) = (None, None, None, 0, None);
    let (mut scheduler, mut bits, mut timeout, mut netmask, mut engine) = (None, 0, 0, None, None);
    let (mut statistics, mut statistics64) = (None, None);
    for (kind, payload) in Attributes::new(nested) {
        match kind {
            service_attribute::FAMILY => family = read_family(payload),
            service_attribute::PROTOCOL => protocol = read_u16(payload),
            service_attribute::ADDRESS => address = Some(payload),
            service_attribute::PORT => port = read_u16_be(payload)?,
            service_attribute::MARK => mark = read_u32(payload).and_then(NonZeroU32::new),
            service_attribute::SCHEDULER => scheduler = read_string(payload),
            service_attribute::FLAGS => bits = read_u32(payload)?,
            service_attribute::TIMEOUT => timeout = read_u32(payload)?,
            service_attribute::NETMASK => netmask = Some(payload),
            service_attribute::STATISTICS => statistics = Some(payload),
            service_attribute::ENGINE => engine = read_string(payload),
            service_attribute::STATISTICS64 => statistics64 = Some(payload),
            _ => {}
        }
    }
    let family = family?;
    let key = match mark {
        Some(mark) => ServiceKey::Mark { family, mark },
        None => ServiceKey::Address {
            protocol: protocol_from_number(protocol?)?,
            address: read_address(family, address?)?,
            port,
        },
    };
    let granularity = match (family, netmask) {
        (_, None) => Granularity::single(family),
        (Family::V4, Some(mask)) => Granularity::V4(read_v4(mask)?),
        (Family::V6, Some(prefix)) => Granularity::V6(u8::try_from(read_u32(prefix)?).ok()?),
    };
    let scheduler = match scheduler {
        None | Some(NO_SCHEDULER) => None,
        Some(name) => name.parse().ok(),
    };
    let [flag1, flag2, flag3] = FLAG_SCHEDULER.map(|bit| bits & bit != 0);
    let service = Service {
        scheduler,
        flags: SchedulerFlags { flag1, flag2, flag3 },
        one_packet: bits & FLAG_ONE_PACKET != 0,
        persistence: (bits & FLAG_PERSISTENT != 0).then(|| Persistence {
            timeout: Duration::from_secs(timeout.into()),
            granularity,
            engine: engine.map(Into::into),
        }),
    };
    let statistics = read_statistics(statistics64, statistics);
    Some(ListedService {
        key,
        service,
        statistics,
        destinations: Vec::new(),
    })
}

/// Reads a destination from a reply to `GET_DEST` for a service of the given family.
pub fn read_destination(mut attributes: Attributes<'_>, service_family: Family) -> Option<ListedDestination> {
    let (_, nested) = attributes.find(|(kind, _)| *kind == attribute::DESTINATION)?;
    let (mut family, mut address, mut port) = (service_family, None, 0);
    let (mut forwarding, mut weight, mut upper_threshold, mut lower_threshold) = (0, 0, 0, 0);
    let (mut tunnel_type, mut tunnel_port, mut tunnel_flags) = (0, 0, 0);
    let (mut statistics, mut statistics64) = (None, None);
    let mut connections = Connections::default();
    for (kind, payload) in Attributes::new(nested) {
        match kind {
            destination_attribute::ADDRESS => address = Some(payload),
            destination_attribute::PORT => port = read_u16_be(payload)?,
            destination_attribute::FORWARDING => forwarding = read_u32(payload)?,
            destination_attribute::WEIGHT => weight = read_u32(payload)?,
            destination_attribute::UPPER_THRESHOLD => upper_threshold = read_u32(payload)?,
            destination_attribute::LOWER_THRESHOLD => lower_threshold = read_u32(payload)?,
            destination_attribute::ACTIVE => connections.active = read_u32(payload)?,
            destination_attribute::INACTIVE => connections.inactive = read_u32(payload)?,
            destination_attribute::PERSISTENT => connections.persistent = read_u32(payload)?,
            destination_attribute::STATISTICS => statistics = Some(payload),
            destination_attribute::FAMILY => family = read_family(payload)?,
            destination_attribute::STATISTICS64 => statistics64 = Some(payload),
            destination_attribute::TUNNEL_TYPE => tunnel_type = read_u8(payload)?,
            destination_attribute::TUNNEL_PORT => tunnel_port = read_u16_be(payload)?,
            destination_attribute::TUNNEL_FLAGS => tunnel_flags = read_u16(payload)?,
            _ => {}
        }
    }
    let key = DestinationKey {
        address: read_address(family, address?)?,
        port,
    };
    let forwarding = match forwarding & FORWARDING_MASK {
        0 => ForwardingMethod::Masquerade,
        1 => ForwardingMethod::Local,
        2 => ForwardingMethod::Tunnel(read_tunnel(tunnel_type, tunnel_port, tunnel_flags)?),
        3 => ForwardingMethod::DirectRoute,
        4 => ForwardingMethod::Bypass,
        _ => return None,
    };
    let weight = Weight::saturating(weight.into());
    let destination = Destination {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    };
    Some(ListedDestination {
        key,
        destination,
        connections,
        statistics: read_statistics(statistics64, statistics),
    })
}

fn read_tunnel(kind: u8, port: u16, flags: u16) -> Option<Tunnel> {
    let checksum = match flags {
        1 => TunnelChecksum::Full,
        2 => TunnelChecksum::Remote,
        _ => TunnelChecksum::None,
    };
    match kind {
        0 => Some(Tunnel::Ipip),
        1 => Some(Tunnel::Gue {
            port: NonZeroU16::new(port)?,
            checksum,
        }),
        2 => Some(Tunnel::Gre { checksum }),
        _ => None,
    }
}

/// Reads the 64-bit counters, or the older ones of which only bytes had 64 bits.
fn read_statistics(wide: Option<&[u8]>, narrow: Option<&[u8]>) -> Statistics {
    let mut statistics = Statistics::default();
    for (kind, payload) in Attributes::new(wide.or(narrow).unwrap_or_default()) {
        let Some(value) = read_u64(payload).or_else(|| read_u32(payload).map(u64::from)) else {
            continue;
        };
        let field = match kind {
            1 => &mut statistics.connections,
            2 => &mut statistics.packets_in,
            3 => &mut statistics.packets_out,
            4 => &mut statistics.bytes_in,
            5 => &mut statistics.bytes_out,
            6 => &mut statistics.connections_per_second,
            7 => &mut statistics.packets_in_per_second,
            8 => &mut statistics.packets_out_per_second,
            9 => &mut statistics.bytes_in_per_second,
            10 => &mut statistics.bytes_out_per_second,
            _ => continue,
        };
        *field = value;
    }
    statistics
}

/// Whole seconds, at most what the kernel's field holds.
fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn family_number(family: Family) -> u16 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

fn read_family(payload: &[u8]) -> Option<Family> {
    match read_u16(payload)? {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

fn protocol_number(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol_from_number(number: u16) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}

fn forwarding_number(forwarding: ForwardingMethod) -> u32 {
    match forwarding {
        ForwardingMethod::Masquerade => 0,
        ForwardingMethod::Local => 1,
        ForwardingMethod::Tunnel(_) => 2,
        ForwardingMethod::DirectRoute => 3,
        ForwardingMethod::Bypass => 4,
    }
}

fn checksum_number(checksum: TunnelChecksum) -> u16 {
    match checksum {
        TunnelChecksum::None => 0,
        TunnelChecksum::Full => 1,
        TunnelChecksum::Remote => 2,
    }
}

/// `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four.
fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn read_address(family: Family, payload: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => read_v4(payload).map(IpAddr::V4),
        Family::V6 => read_v6(payload).map(IpAddr::V6),
    }
}

fn read_v4(payload: &[u8]) -> Option<Ipv4Addr> {
    payload.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

fn read_v6(payload: &[u8]) -> Option<Ipv6Addr> {
    payload.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
}

/// Reads a NUL-terminated string.
fn read_string(payload: &[u8]) -> Option<&str> {
    let text = payload.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok()
}
