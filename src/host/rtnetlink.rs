//! Links, addresses and routes ↔ the messages of `NETLINK_ROUTE`. Pure.
//!
//! Source: kernel `include/uapi/linux/{rtnetlink,if_link,if_addr,if_tunnel,if}.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use neli::ToBytes;
use neli::consts::genl::NlAttrType;
use neli::consts::rtnl::{Af, Arphrd, Ifa, Iff, Ifla, IflaInfo, RtScope, RtTable, Rta, RtmF, Rtn};
use neli::neli_enum;

use crate::netlink::{
    Attributes, MessageWriter, Word, read_string, read_u8, read_u16, read_u16_be, read_u32, written,
};

use super::network::{Address, Link, Route};
use super::state::{LinkKind, TUNNEL_ADDRESS, TunnelKind};

/// What marks an address as Weir's (`IFA_PROTO`). The kernel gives numbers below 4 a meaning of its own, and the rest
/// to whoever takes one.
pub(super) const ADDRESS_PROTOCOL: u8 = 0x77;
/// What the alias of a link of Weir's begins with.
const ALIAS: &str = "weir";

/// Bytes of `struct ifinfomsg`, `struct ifaddrmsg` and `struct rtmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
/// Bytes of `struct rtnexthop`.
const NEXT_HOP_HEADER: usize = 8;

/// Data of an `ipip`, `sit` or `ip6tnl` link (`IFLA_IPTUN_*`).
#[neli_enum(serialized_type = "u16")]
enum IptunAttribute {
    Local = 2,
}

impl NlAttrType for IptunAttribute {}

/// Data of a `gre` or `ip6gre` link (`IFLA_GRE_*`).
#[neli_enum(serialized_type = "u16")]
enum GreAttribute {
    InputFlags = 2,
    Local = 6,
}

impl NlAttrType for GreAttribute {}

/// `GRE_CSUM`: packets without a checksum are dropped with it, and those with one without it.
const GRE_CHECKSUM: u16 = 0x8000;

/// `IFA_PROTO`, which neli does not know yet.
const IFA_PROTO: Ifa = Ifa::UnrecognizedConst(11);
/// `IFA_F_NODAD` and `IFA_F_NOPREFIXROUTE`, as bits of `IFA_FLAGS`.
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// A link as a dump tells it, and what it is, if it is Weir's.
pub fn read_link(payload: &[u8]) -> Option<(Link, Option<LinkKind>)> {
    let kind = read_u16(payload.get(2..)?)?;
    let flags = Iff::from_bits_retain(read_u32(payload.get(8..)?)?);
    let mut link = Link {
        index: read_u32(payload.get(4..)?)?,
        up: flags.contains(Iff::UP),
        loopback: flags.contains(Iff::LOOPBACK),
        // Links on which neighbours are asked for by ARP or neighbour discovery.
        resolves: Arphrd::from(kind) == Arphrd::Ether && !flags.contains(Iff::NOARP),
        ..Link::default()
    };
    let mut what = None;
    for (attribute, value) in Attributes::after_header(payload, LINK_HEADER) {
        match attribute {
            Ifla::Ifname => link.name = text(value).into(),
            Ifla::Mtu => link.mtu = read_u32(value)?,
            Ifla::Address => link.mac = value.try_into().ok(),
            Ifla::Ifalias => link.ours = text(value).starts_with(ALIAS),
            Ifla::Linkinfo => what = read_kind(value),
            _ => {}
        }
    }
    let what = what.filter(|_| link.ours);
    Some((link, what))
}

fn read_kind(info: &[u8]) -> Option<LinkKind> {
    let info = Attributes::new(info);
    let data = info.get(IflaInfo::Data);
    let kind = match text(info.get(IflaInfo::Kind)?) {
        "dummy" => return Some(LinkKind::Dummy),
        "ipip" => TunnelKind::Ipip,
        "sit" => TunnelKind::Sit,
        "ip6tnl" => TunnelKind::Ip6tnl,
        "gre" => TunnelKind::Gre {
            checksum: has_checksum(data?),
        },
        "ip6gre" => TunnelKind::Ip6gre {
            checksum: has_checksum(data?),
        },
        _ => return None,
    };
    let local = match kind {
        TunnelKind::Ipip | TunnelKind::Sit | TunnelKind::Ip6tnl => {
            Attributes::new(data?).get(IptunAttribute::Local)?
        }
        TunnelKind::Gre { .. } | TunnelKind::Ip6gre { .. } => {
            Attributes::new(data?).get(GreAttribute::Local)?
        }
    };
    let local = address(local)?;
    Some(LinkKind::Tunnel { kind, local })
}

fn has_checksum(gre: &[u8]) -> bool {
    Attributes::new(gre)
        .get(GreAttribute::InputFlags)
        .and_then(read_u16_be)
        .is_some_and(|flags| flags & GRE_CHECKSUM != 0)
}

/// An address as a dump tells it, with the number of its link.
pub fn read_address(payload: &[u8]) -> Option<(u32, Address)> {
    let prefix = read_u8(payload.get(1..)?)?;
    let index = read_u32(payload.get(4..)?)?;
    let (mut local, mut peer, mut ours) = (None, None, false);
    for (attribute, value) in Attributes::after_header(payload, ADDRESS_HEADER) {
        match attribute {
            Ifa::Local => local = address(value),
            Ifa::Address => peer = address(value),
            IFA_PROTO => ours = read_u8(value) == Some(ADDRESS_PROTOCOL),
            _ => {}
        }
    }
    // On a link between two, IFA_ADDRESS is the other end's; IPv6 has no other.
    let address = local.or(peer)?;
    Some((
        index,
        Address {
            address,
            prefix,
            ours,
        },
    ))
}

/// A route as a dump tells it, if it is one of the main table that leads somewhere.
pub fn read_route(payload: &[u8]) -> Option<Route> {
    let [family, prefix, _, _, table, _, _, kind] = *payload.first_chunk::<8>()?;
    let flags = RtmF::from_bits_retain(read_u32(payload.get(8..)?)?);
    // A cloned route is one that the kernel derived from another for one destination.
    if Rtn::from(kind) != Rtn::Unicast || flags.contains(RtmF::CLONED) {
        return None;
    }
    let mut route = Route {
        network: match Af::from(family) {
            Af::Inet => Ipv4Addr::UNSPECIFIED.into(),
            Af::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            Af::UnrecognizedConst(_) => return None,
        },
        prefix,
        link: 0,
        gateway: false,
        metric: 0,
    };
    let mut in_table = u32::from(table);
    for (attribute, value) in Attributes::after_header(payload, ROUTE_HEADER) {
        match attribute {
            Rta::Dst => route.network = address(value)?,
            Rta::Oif => route.link = read_u32(value)?,
            Rta::Gateway | Rta::Via => route.gateway = true,
            Rta::Priority => route.metric = read_u32(value)?,
            Rta::Table => in_table = read_u32(value)?,
            Rta::Multipath => {
                let hop = value.get(..NEXT_HOP_HEADER)?;
                route.link = read_u32(&hop[4..])?;
                let length = usize::from(read_u16(hop)?);
                let attributes = value.get(..length).unwrap_or_default();
                route.gateway = Attributes::after_header(attributes, NEXT_HOP_HEADER)
                    .any(|(attribute, _)| matches!(attribute, Rta::Gateway | Rta::Via));
            }
            _ => {}
        }
    }
    (in_table == u32::from(u8::from(RtTable::Main))).then_some(route)
}

/// A link to be made.
pub(super) fn new_link(name: &str, kind: LinkKind) -> impl ToBytes {
    written(move |message| {
        link_header(message, 0, Iff::empty());
        message.string(Ifla::Ifname, name);
        message.nest(Ifla::Linkinfo, |info| {
            info.string(IflaInfo::Kind, kind.driver());
            if let LinkKind::Tunnel { kind, local } = kind {
                write_tunnel(info, kind, local);
            }
        });
    })
}

fn write_tunnel(info: &mut MessageWriter<'_, IflaInfo>, kind: TunnelKind, local: IpAddr) {
    match kind {
        TunnelKind::Ipip | TunnelKind::Sit | TunnelKind::Ip6tnl => info.nest(IflaInfo::Data, |data| {
            data.bytes(IptunAttribute::Local, &octets(local));
        }),
        TunnelKind::Gre { checksum } | TunnelKind::Ip6gre { checksum } => info.nest(IflaInfo::Data, |data| {
            data.bytes(GreAttribute::Local, &octets(local));
            data.u16_be(GreAttribute::InputFlags, if checksum { GRE_CHECKSUM } else { 0 });
        }),
    }
}

/// What marks a link as Weir's, and brings it up. The kernel takes no alias with a new link.
pub(super) fn alias_and_up(name: &str) -> impl ToBytes {
    written(move |message| {
        link_header(message, 0, Iff::UP);
        message.string(Ifla::Ifname, name);
        message.bytes(
            Ifla::Ifalias,
            format!("{ALIAS}: made and removed by the agent").as_bytes(),
        );
    })
}

/// Which link is meant; or, with index 0, a question for all links, or all addresses of both families.
pub(super) fn link(index: u32) -> impl ToBytes {
    written(move |message| link_header(message, index, Iff::empty()))
}

/// An address of Weir's on a link, as a host address. No connection of the node itself shall start from an IPv6 one, so it
/// is never a preferred address.
pub(super) fn own_address(index: u32, address: IpAddr) -> impl ToBytes {
    written(move |message| write_address(message, index, address))
}

fn write_address(message: &mut MessageWriter<'_, Ifa>, index: u32, address: IpAddr) {
    const FOR_EVER: u32 = u32::MAX;
    let (family, prefix) = match address {
        IpAddr::V4(_) => (Af::Inet, 32),
        IpAddr::V6(_) => (Af::Inet6, 128),
    };
    let [a, b, c, d] = index.to_ne_bytes();
    // Nothing is ever sent from what stands for no node.
    let scope = if address == TUNNEL_ADDRESS {
        RtScope::Host
    } else {
        RtScope::Universe
    };
    message.header([family.into(), prefix, 0, scope.into(), a, b, c, d]);
    message.bytes(Ifa::Local, &octets(address));
    message.bytes(Ifa::Address, &octets(address));
    message.words([
        Word::u32(Ifa::Flags, IFA_F_NODAD | IFA_F_NOPREFIXROUTE),
        Word::u8(IFA_PROTO, ADDRESS_PROTOCOL),
    ]);
    if address.is_ipv6() {
        let mut lifetimes = [0; 16];
        lifetimes[4..8].copy_from_slice(&FOR_EVER.to_ne_bytes());
        message.array(Ifa::Cacheinfo, lifetimes);
    }
}

/// A question for all routes of a family.
pub(super) fn route_question(ipv6: bool) -> impl ToBytes {
    written(move |message: &mut MessageWriter<'_, Rta>| {
        let mut header = [0; ROUTE_HEADER];
        header[0] = if ipv6 { Af::Inet6 } else { Af::Inet }.into();
        message.header(header);
    })
}

/// `struct ifinfomsg`: family, type, index, flags, and which of the flags count.
fn link_header(message: &mut MessageWriter<'_, Ifla>, index: u32, flags: Iff) {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.bits().to_ne_bytes());
    header[12..16].copy_from_slice(&flags.bits().to_ne_bytes());
    message.header(header);
}

fn text(value: &[u8]) -> &str {
    read_string(value).unwrap_or_default()
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(*value.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*value.first_chunk::<16>()?)),
        _ => None,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    use proptest::prelude::*;

    fn payload(body: &impl ToBytes) -> Vec<u8> {
        let mut bytes = Cursor::default();
        body.to_bytes(&mut bytes).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for vip in ["10.0.0.200", "fd00::200"] {
            let vip: IpAddr = vip.parse().unwrap();
            let expected = Address {
                address: vip,
                prefix: if vip.is_ipv4() { 32 } else { 128 },
                ours: true,
            };
            assert_eq!(read_address(&payload(&own_address(7, vip))), Some((7, expected)));
        }
    }

    #[test]
    fn a_link_is_written_as_it_is_read() {
        let (four, six) = ("10.0.0.11".parse().unwrap(), "fd00::11".parse().unwrap());
        for kind in [
            LinkKind::Dummy,
            LinkKind::Tunnel {
                kind: TunnelKind::Ipip,
                local: four,
            },
            LinkKind::Tunnel {
                kind: TunnelKind::Sit,
                local: four,
            },
            LinkKind::Tunnel {
                kind: TunnelKind::Gre { checksum: true },
                local: four,
            },
            LinkKind::Tunnel {
                kind: TunnelKind::Ip6tnl,
                local: six,
            },
            LinkKind::Tunnel {
                kind: TunnelKind::Ip6gre { checksum: false },
                local: six,
            },
        ] {
            let of_somebody_else = payload(&new_link("weir0", kind));
            let mark = written(|message| message.bytes(Ifla::Ifalias, b"weir: for a test"));
            let ours = [of_somebody_else.clone(), payload(&mark)].concat();
            let (link, read) = read_link(&ours).unwrap();
            assert_eq!((&*link.name, link.ours, read), ("weir0", true, Some(kind)));
            let (_, read) = read_link(&of_somebody_else).unwrap();
            assert_eq!(read, None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (read_link(&bytes), read_address(&bytes), read_route(&bytes));
        }
    }
}
