//! The IPVS table as a value: virtual services, their destinations, and what else a network namespace holds.
//!
//! Nothing here knows about bytes or sockets. A [`Table`] holds configuration only, so that two of them can be
//! compared; what the kernel counts is in [`listing`](super::listing).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::{ForwardingMethod, Scheduler};

/// Address family of a service or a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The transport protocols IPVS schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP (`ipvsadm -t`).
    Tcp,
    /// UDP (`ipvsadm -u`).
    Udp,
    /// SCTP (`ipvsadm --sctp-service`).
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// What makes a packet belong to a virtual service, and what the kernel finds the service by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKey {
    /// Packets of a protocol to an address and a port; port 0 means every port, for persistent services only.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// The VIP.
        address: IpAddr,
        /// The port clients connect to.
        port: u16,
    },
    /// Packets of a family that carry a firewall mark (`ipvsadm -f`).
    Mark {
        /// Address family.
        family: Family,
        /// The mark.
        mark: NonZeroU32,
    },
}

impl ServiceKey {
    /// The family of the packets that the service takes.
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::Mark { family, .. } => *family,
        }
    }
}

/// `TCP 10.0.0.200:80`, `UDP [fd00::200]:53`, `FWM IPv4 100`.
impl fmt::Display for ServiceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                protocol,
                address,
                port,
            } => {
                write!(formatter, "{protocol} {}", SocketAddr::new(*address, *port))
            }
            Self::Mark { family, mark } => write!(formatter, "FWM {family} {mark}"),
        }
    }
}

/// A text that is no service key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected PROTOCOL ADDRESS:PORT or FWM FAMILY MARK")]
pub struct ServiceKeyError;

impl FromStr for ServiceKey {
    type Err = ServiceKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once(' ').ok_or(ServiceKeyError)?;
        let protocol = match kind {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            "FWM" => {
                let (family, mark) = rest.split_once(' ').ok_or(ServiceKeyError)?;
                let family = match family {
                    "IPv4" => Family::V4,
                    "IPv6" => Family::V6,
                    _ => return Err(ServiceKeyError),
                };
                return Ok(Self::Mark {
                    family,
                    mark: mark.parse().map_err(|_| ServiceKeyError)?,
                });
            }
            _ => return Err(ServiceKeyError),
        };
        let socket: SocketAddr = rest.parse().map_err(|_| ServiceKeyError)?;
        Ok(Self::Address {
            protocol,
            address: socket.ip(),
            port: socket.port(),
        })
    }
}

/// The configuration of a virtual service, destinations apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// How destinations are picked; `None` is the kernel's `none`: nothing is scheduled.
    pub scheduler: Option<Scheduler>,
    /// Options of the scheduler.
    pub flags: SchedulerFlags,
    /// Each packet is scheduled on its own (`ipvsadm -o`, UDP and marks).
    pub one_packet: bool,
    /// The same client reaches the same destination for a time.
    pub persistence: Option<Persistence>,
}

impl Service {
    /// A service with a scheduler and no options.
    pub fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler: Some(scheduler),
            flags: SchedulerFlags::default(),
            one_packet: false,
            persistence: None,
        }
    }
}

/// Options whose meaning depends on the scheduler (`ipvsadm -b`): for `sh` and `mh` the first is *fallback*
/// (pick another destination when the hashed one cannot take connections), the second *port* (hash the source
/// port too).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchedulerFlags {
    /// `flag-1`, `sh-fallback`, `mh-fallback`.
    pub flag1: bool,
    /// `flag-2`, `sh-port`, `mh-port`.
    pub flag2: bool,
    /// `flag-3`.
    pub flag3: bool,
}

/// Persistence: connections of one client, or one network of clients, go to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Persistence {
    /// How long the assignment outlives its last connection, in whole seconds.
    pub timeout: Duration,
    /// Which clients count as one.
    pub granularity: Granularity,
    /// What else identifies a client (`ipvsadm --pe`), such as `sip`.
    pub engine: Option<Box<str>>,
}

/// Which client addresses count as one client (`ipvsadm -M`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Granularity {
    /// A mask, which the kernel does not require to be contiguous.
    V4(Ipv4Addr),
    /// A prefix length, 1 to 128.
    V6(u8),
}

impl Granularity {
    /// Every address is a client of its own.
    pub fn single(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4(Ipv4Addr::BROADCAST),
            Family::V6 => Self::V6(128),
        }
    }
}

/// What the kernel finds a destination by within its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey {
    /// The real server's address; its family may differ from the service's only for tunnels.
    pub address: IpAddr,
    /// The real server's port; 0 under a mark or an all-ports service means the port of the packet.
    pub port: u16,
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(formatter)
    }
}

/// A destination's share of new connections, 0 to 2147483647.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// No new connections; those that exist stay.
    pub const QUIESCED: Self = Self(0);
    /// The largest the kernel takes.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// A weight, cut off at [`Weight::MAX`].
    pub fn saturating(weight: u64) -> Self {
        Self(u32::try_from(weight).map_or(Self::MAX.0, |weight| weight.min(Self::MAX.0)))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The configuration of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination {
    /// How packets get to it.
    pub forwarding: ForwardingMethod,
    /// Its share of new connections.
    pub weight: Weight,
    /// Connections, active and inactive, above which it gets no new ones; 0 is no limit (`ipvsadm -x`).
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again; 0 is three quarters of the upper (`ipvsadm -y`).
    pub lower_threshold: u32,
}

impl Destination {
    /// A destination without connection limits.
    pub fn new(forwarding: ForwardingMethod, weight: u32) -> Self {
        Self {
            forwarding,
            weight: Weight::saturating(weight.into()),
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }

    /// The same without new connections.
    pub fn quiesced(self) -> Self {
        Self {
            weight: Weight::QUIESCED,
            ..self
        }
    }
}

/// A virtual service with its destinations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The service's own configuration.
    pub service: Service,
    /// Its destinations.
    pub destinations: BTreeMap<DestinationKey, Destination>,
}

/// A set of virtual services: the kernel's whole table or the part of it that is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The services by what the kernel finds them by.
    pub services: BTreeMap<ServiceKey, Entry>,
}

/// Connection timeouts of a network namespace (`ipvsadm --set`), in whole seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP.
    pub tcp: Duration,
    /// TCP after a FIN.
    pub tcp_fin: Duration,
    /// UDP.
    pub udp: Duration,
}

impl Timeouts {
    /// What `before` becomes when these are set: a zero leaves a timeout as it was.
    pub fn over(&self, before: &Self) -> Self {
        let pick = |new: Duration, old: Duration| if new.is_zero() { old } else { new };
        Self {
            tcp: pick(self.tcp, before.tcp),
            tcp_fin: pick(self.tcp_fin, before.tcp_fin),
            udp: pick(self.udp, before.udp),
        }
    }
}

/// `TCP 900 s, TCP after FIN 120 s, UDP 300 s`.
impl fmt::Display for Timeouts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "TCP {} s, TCP after FIN {} s, UDP {} s",
            self.tcp.as_secs(),
            self.tcp_fin.as_secs(),
            self.udp.as_secs()
        )
    }
}

/// Which half of connection sync a daemon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncDaemonRole {
    /// Sends the connections of an active director.
    Master,
    /// Receives them.
    Backup,
}

/// A connection-sync daemon (`ipvsadm --start-daemon`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncDaemon {
    /// Which half.
    pub role: SyncDaemonRole,
    /// The interface whose neighbours it speaks to.
    pub interface: Box<str>,
    /// Tells groups of directors on one network apart, 0 to 255.
    pub sync_id: u8,
    /// Largest message in bytes, 1 to 65507; `None` leaves the choice to the kernel.
    pub max_length: Option<u16>,
    /// Multicast group; the kernel's default is 224.0.0.81.
    pub group: Option<IpAddr>,
    /// UDP port; the kernel's default is 8848.
    pub port: Option<u16>,
    /// Multicast time to live; the kernel's default is 1.
    pub ttl: Option<u8>,
}

impl SyncDaemon {
    /// A daemon that leaves all else to the kernel.
    pub fn new(role: SyncDaemonRole, interface: &str, sync_id: u8) -> Self {
        Self {
            role,
            interface: interface.into(),
            sync_id,
            max_length: None,
            group: None,
            port: None,
            ttl: None,
        }
    }

    /// Whether a running daemon, as the kernel lists it, is what `wanted` asks for: what that leaves to the kernel must be
    /// what the kernel chooses, since another group or port speaks to nobody else.
    ///
    /// Source: `start_sync_thread` in `net/netfilter/ipvs/ip_vs_sync.c`. A backup takes messages as long as its
    /// interface's packets, and no shorter ones than every master's default.
    pub fn is_what_is_wanted(&self, wanted: &Self) -> bool {
        const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
        const PORT: u16 = 8848;
        const TTL: u8 = 1;
        const MAX_LENGTH: u16 = 1500 - 20 - 8;
        let Self {
            role,
            interface,
            sync_id,
            max_length,
            group,
            port,
            ttl,
        } = self;
        let length_fits = match (wanted.max_length, role) {
            (Some(wanted), _) => *max_length == Some(wanted),
            (None, SyncDaemonRole::Master) => max_length.is_none_or(|length| length == MAX_LENGTH),
            (None, SyncDaemonRole::Backup) => max_length.is_none_or(|length| length >= MAX_LENGTH),
        };
        (role, interface, sync_id) == (&wanted.role, &wanted.interface, &wanted.sync_id)
            && group.unwrap_or(GROUP) == wanted.group.unwrap_or(GROUP)
            && port.unwrap_or(PORT) == wanted.port.unwrap_or(PORT)
            && ttl.unwrap_or(TTL) == wanted.ttl.unwrap_or(TTL)
            && length_fits
    }
}

/// `master`, `backup`.
impl fmt::Display for SyncDaemonRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Master => "master",
            Self::Backup => "backup",
        })
    }
}

/// `master on eth1 with sync ID 3`.
impl fmt::Display for SyncDaemon {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} on {} with sync ID {}",
            self.role, self.interface, self.sync_id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_key_is_read_from_its_text() {
        for text in [
            "TCP 10.0.0.200:80",
            "UDP [fd00::200]:53",
            "SCTP 10.0.0.1:0",
            "FWM IPv6 7",
        ] {
            let key: ServiceKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
        }
        for text in [
            "",
            "TCP",
            "TCP 10.0.0.1",
            "ICMP 10.0.0.1:1",
            "FWM IPv4 0",
            "FWM 1",
        ] {
            assert_eq!(text.parse::<ServiceKey>(), Err(ServiceKeyError), "{text}");
        }
    }

    #[test]
    fn a_weight_stops_at_what_the_kernel_takes() {
        assert_eq!(Weight::saturating(u64::MAX), Weight::MAX);
        assert_eq!(Weight::saturating(65_535).get(), 65_535);
    }
}
