//! What several objects have: families, protocols, addresses, seconds, texts, counters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use neli::consts::genl::NlAttrType;
use neli::neli_enum;

use crate::ipvs::listing::Statistics;
use crate::ipvs::table::{Family, Protocol};
use crate::netlink::{Attributes, read_u16, read_u32, read_u64};

/// `AF_INET` and `AF_INET6` as the kernel numbers them.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

pub(super) fn family_number(family: Family) -> u16 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

pub(super) fn read_family(payload: &[u8]) -> Option<Family> {
    match read_u16(payload)? {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

pub(super) fn protocol_number(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

pub(super) fn protocol_from_number(number: u16) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}

/// `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four.
pub(super) fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

pub(super) fn read_address(family: Family, payload: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => read_v4(payload).map(IpAddr::V4),
        Family::V6 => read_v6(payload).map(IpAddr::V6),
    }
}

pub(super) fn read_v4(payload: &[u8]) -> Option<Ipv4Addr> {
    payload.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

pub(super) fn read_v6(payload: &[u8]) -> Option<Ipv6Addr> {
    payload.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
}

/// Whole seconds, at most what the kernel's field holds.
pub(super) fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Counters (`IPVS_STATS_ATTR_*`).
#[neli_enum(serialized_type = "u16")]
enum StatisticsAttribute {
    Connections = 1,
    PacketsIn = 2,
    PacketsOut = 3,
    BytesIn = 4,
    BytesOut = 5,
    ConnectionsPerSecond = 6,
    PacketsInPerSecond = 7,
    PacketsOutPerSecond = 8,
    BytesInPerSecond = 9,
    BytesOutPerSecond = 10,
}

impl NlAttrType for StatisticsAttribute {}

/// Reads the 64-bit counters, or the older ones of which only bytes had 64 bits.
pub(super) fn read_statistics(wide: Option<&[u8]>, narrow: Option<&[u8]>) -> Statistics {
    let mut statistics = Statistics::default();
    for (kind, payload) in Attributes::new(wide.or(narrow).unwrap_or_default()) {
        let Some(value) = read_u64(payload).or_else(|| read_u32(payload).map(u64::from)) else {
            continue;
        };
        let field = match kind {
            StatisticsAttribute::Connections => &mut statistics.connections,
            StatisticsAttribute::PacketsIn => &mut statistics.packets_in,
            StatisticsAttribute::PacketsOut => &mut statistics.packets_out,
            StatisticsAttribute::BytesIn => &mut statistics.bytes_in,
            StatisticsAttribute::BytesOut => &mut statistics.bytes_out,
            StatisticsAttribute::ConnectionsPerSecond => &mut statistics.connections_per_second,
            StatisticsAttribute::PacketsInPerSecond => &mut statistics.packets_in_per_second,
            StatisticsAttribute::PacketsOutPerSecond => &mut statistics.packets_out_per_second,
            StatisticsAttribute::BytesInPerSecond => &mut statistics.bytes_in_per_second,
            StatisticsAttribute::BytesOutPerSecond => &mut statistics.bytes_out_per_second,
            StatisticsAttribute::UnrecognizedConst(_) => continue,
        };
        *field = value;
    }
    statistics
}
