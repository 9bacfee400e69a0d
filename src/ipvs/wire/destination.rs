//! Destinations.

use std::num::NonZeroU16;

use crate::ipvs::forwarding::{ForwardingMethod, Tunnel, TunnelChecksum};
use crate::ipvs::listing::{Connections, ListedDestination};
use crate::ipvs::table::{Destination, DestinationKey, Family, Weight};
use crate::netlink::{Attributes, MessageWriter, read_u8, read_u16, read_u16_be, read_u32};

use super::attribute;
use super::value::{address_bytes, family_number, read_address, read_family, read_statistics};

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

/// `IP_VS_CONN_F_FWD_MASK`.
const FORWARDING_MASK: u32 = 0x7;

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
