//! Destinations.

use std::num::NonZeroU16;

use neli::consts::genl::NlAttrType;
use neli::neli_enum;

use crate::ipvs::forwarding::{ForwardingMethod, Tunnel, TunnelChecksum};
use crate::ipvs::listing::{Connections, ListedDestination};
use crate::ipvs::table::{Destination, DestinationKey, Family, Weight};
use crate::netlink::{Attributes, Fixed, MessageWriter, Word, read_u8, read_u16, read_u16_be, read_u32};

use super::CommandAttribute;
use super::value::{address_bytes, family_number, read_address, read_family, read_statistics};

/// Attributes of a destination (`IPVS_DEST_ATTR_*`).
#[neli_enum(serialized_type = "u16")]
enum DestinationAttribute {
    Address = 1,
    Port = 2,
    Forwarding = 3,
    Weight = 4,
    UpperThreshold = 5,
    LowerThreshold = 6,
    Active = 7,
    Inactive = 8,
    Persistent = 9,
    Statistics = 10,
    Family = 11,
    Statistics64 = 12,
    TunnelType = 13,
    TunnelPort = 14,
    TunnelFlags = 15,
}

impl NlAttrType for DestinationAttribute {}

/// `IP_VS_CONN_F_FWD_MASK`.
const FORWARDING_MASK: u32 = 0x7;

/// Writes what identifies a destination, for `DEL_DEST`.
pub fn write_destination_key(message: &mut MessageWriter<'_, CommandAttribute>, key: &DestinationKey) {
    message.nest_fixed::<_, KEY>(CommandAttribute::Destination, |destination| {
        write_key_attributes(destination, key)
    });
}

/// Writes a whole destination for `NEW_DEST` and `SET_DEST`.
#[inline]
pub fn write_destination(
    message: &mut MessageWriter<'_, CommandAttribute>,
    key: &DestinationKey,
    value: &Destination,
) {
    let kind = CommandAttribute::Destination;
    match value.forwarding {
        ForwardingMethod::Tunnel(tunnel) => message.nest_fixed::<_, TUNNELLED>(kind, |destination| {
            write_attributes(destination, key, value);
            destination.words(tunnel_attributes(tunnel));
        }),
        _ => message.nest_fixed::<_, WHOLE>(kind, |destination| write_attributes(destination, key, value)),
    }
}

/// Bytes of an attribute that holds what identifies a destination: its header, an address, two small attributes; of one that
/// holds a whole destination, and a tunnelled one.
const KEY: usize = 4 + 20 + 2 * 8;
const WHOLE: usize = KEY + 4 * 8;
const TUNNELLED: usize = WHOLE + 3 * 8;

#[inline(always)]
fn write_attributes(
    destination: &mut Fixed<'_, DestinationAttribute>,
    key: &DestinationKey,
    value: &Destination,
) {
    let Destination {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    } = value;
    write_key_attributes(destination, key);
    destination.words([
        Word::u32(DestinationAttribute::Forwarding, forwarding_number(*forwarding)),
        Word::u32(DestinationAttribute::Weight, weight.get()),
        Word::u32(DestinationAttribute::UpperThreshold, *upper_threshold),
        Word::u32(DestinationAttribute::LowerThreshold, *lower_threshold),
    ]);
}

#[inline(always)]
fn write_key_attributes(destination: &mut Fixed<'_, DestinationAttribute>, key: &DestinationKey) {
    let family = family_number(Family::of(key.address));
    destination.array(DestinationAttribute::Address, address_bytes(key.address));
    destination.words([
        Word::u16_be(DestinationAttribute::Port, key.port),
        Word::u16(DestinationAttribute::Family, family),
    ]);
}

fn tunnel_attributes(tunnel: Tunnel) -> [Word<DestinationAttribute>; 3] {
    let (kind, port, checksum) = match tunnel {
        Tunnel::Ipip => (0, 0, TunnelChecksum::None),
        Tunnel::Gue { port, checksum } => (1, port.get(), checksum),
        Tunnel::Gre { checksum } => (2, 0, checksum),
    };
    [
        Word::u8(DestinationAttribute::TunnelType, kind),
        Word::u16_be(DestinationAttribute::TunnelPort, port),
        Word::u16(DestinationAttribute::TunnelFlags, checksum_number(checksum)),
    ]
}

/// Reads a destination from a reply to `GET_DEST` for a service of the given family.
pub fn read_destination(
    attributes: Attributes<'_, CommandAttribute>,
    service_family: Family,
) -> Option<ListedDestination> {
    let nested = attributes.get(CommandAttribute::Destination)?;
    let (mut family, mut address, mut port) = (service_family, None, 0);
    let (mut forwarding, mut weight, mut upper_threshold, mut lower_threshold) = (0, 0, 0, 0);
    let (mut tunnel_type, mut tunnel_port, mut tunnel_flags) = (0, 0, 0);
    let (mut statistics, mut statistics64) = (None, None);
    let mut connections = Connections::default();
    for (kind, payload) in Attributes::new(nested) {
        match kind {
            DestinationAttribute::Address => address = Some(payload),
            DestinationAttribute::Port => port = read_u16_be(payload)?,
            DestinationAttribute::Forwarding => forwarding = read_u32(payload)?,
            DestinationAttribute::Weight => weight = read_u32(payload)?,
            DestinationAttribute::UpperThreshold => upper_threshold = read_u32(payload)?,
            DestinationAttribute::LowerThreshold => lower_threshold = read_u32(payload)?,
            DestinationAttribute::Active => connections.active = read_u32(payload)?,
            DestinationAttribute::Inactive => connections.inactive = read_u32(payload)?,
            DestinationAttribute::Persistent => connections.persistent = read_u32(payload)?,
            DestinationAttribute::Statistics => statistics = Some(payload),
            DestinationAttribute::Family => family = read_family(payload)?,
            DestinationAttribute::Statistics64 => statistics64 = Some(payload),
            DestinationAttribute::TunnelType => tunnel_type = read_u8(payload)?,
            DestinationAttribute::TunnelPort => tunnel_port = read_u16_be(payload)?,
            DestinationAttribute::TunnelFlags => tunnel_flags = read_u16(payload)?,
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
