//! Links, addresses and routes ↔ the messages of `NETLINK_ROUTE`. Pure.
//!
//! Source: kernel `include/uapi/linux/{rtnetlink,if_link,if_addr,if_tunnel,if}.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{Attributes, MessageWriter, read_u8, read_u16, read_u16_be, read_u32};

use super::network::{Address, Link, Route};
use super::state::{LinkKind, TUNNEL_ADDRESS, TunnelKind};

/// Message types.
pub(super) mod message {
    pub(crate) const NEW_LINK: u16 = 16;
    pub(crate) const DELETE_LINK: u16 = 17;
    pub(crate) const GET_LINK: u16 = 18;
    pub(crate) const NEW_ADDRESS: u16 = 20;
    pub(crate) const DELETE_ADDRESS: u16 = 21;
    pub(crate) const GET_ADDRESS: u16 = 22;
    pub(crate) const GET_ROUTE: u16 = 26;
}

/// What marks an address as Weir's (`IFA_PROTO`). The kernel gives numbers below 4 a meaning of its own, and the rest
/// to whoever takes one.
pub(super) const ADDRESS_PROTOCOL: u8 = 0x77;
/// What the alias of a link of Weir's begins with.
const ALIAS: &str = "weir";

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Bytes of `struct ifinfomsg`, `struct ifaddrmsg` and `struct rtmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
/// Bytes of `struct rtnexthop`.
const NEXT_HOP_HEADER: usize = 8;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_NOARP: u32 = 0x80;
/// `ARPHRD_ETHER`: links on which neighbours are asked for by ARP or neighbour discovery.
const ETHERNET: u16 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_IPTUN_LOCAL: u16 = 2;
const IFLA_GRE_IFLAGS: u16 = 2;
const IFLA_GRE_LOCAL: u16 = 6;
/// `GRE_CSUM`: packets without a checksum are dropped with it, and those with one without it.
const GRE_CHECKSUM: u16 = 0x8000;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_HOST: u8 = 254;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RT_TABLE_MAIN: u32 = 254;
const RTN_UNICAST: u8 = 1;
/// A route that the kernel derived from another for one destination.
const RTM_F_CLONED: u32 = 0x200;

/// A link as a dump tells it, and what it is, if it is Weir's.
pub fn read_link(payload: &[u8]) -> Option<(Link, Option<LinkKind>)> {
    let kind = read_u16(payload.get(2..)?)?;
    let flags = read_u32(payload.get(8..)?)?;
    let mut link = Link {
        index: read_u32(payload.get(4..)?)?,
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        resolves: kind == ETHERNET && flags & IFF_NOARP == 0,
        ..Link::default()
    };
    let mut what = None;
    for (attribute, value) in Attributes::after_header(payload, LINK_HEADER) {
        match attribute {
            IFLA_IFNAME => link.name = text(value).into(),
            IFLA_MTU => link.mtu = read_u32(value)?,
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_IFALIAS => link.ours = text(value).starts_with(ALIAS),
            IFLA_LINKINFO => what = read_kind(value),
            _ => {}
        }
    }
    let what = what.filter(|_| link.ours);
    Some((link, what))
}

fn read_kind(info: &[u8]) -> Option<LinkKind> {
    let attribute = |wanted| {
        Attributes::new(info)
            .find(|(attribute, _)| *attribute == wanted)
            .map(|(_, value)| value)
    };
    let data = |wanted| {
        Attributes::new(attribute(IFLA_INFO_DATA)?)
            .find(|(attribute, _)| *attribute == wanted)
            .map(|(_, value)| value)
    };
    let checksum = || {
        data(IFLA_GRE_IFLAGS)
            .and_then(read_u16_be)
            .is_some_and(|flags| flags & GRE_CHECKSUM != 0)
    };
    let (kind, local) = match text(attribute(IFLA_INFO_KIND)?) {
        "dummy" => return Some(LinkKind::Dummy),
        "ipip" => (TunnelKind::Ipip, IFLA_IPTUN_LOCAL),
        "sit" => (TunnelKind::Sit, IFLA_IPTUN_LOCAL),
        "ip6tnl" => (TunnelKind::Ip6tnl, IFLA_IPTUN_LOCAL),
        "gre" => (TunnelKind::Gre { checksum: checksum() }, IFLA_GRE_LOCAL),
        "ip6gre" => (TunnelKind::Ip6gre { checksum: checksum() }, IFLA_GRE_LOCAL),
        _ => return None,
    };
    let local = address(data(local)?)?;
    Some(LinkKind::Tunnel { kind, local })
}

/// An address as a dump tells it, with the number of its link.
pub fn read_address(payload: &[u8]) -> Option<(u32, Address)> {
    let prefix = read_u8(payload.get(1..)?)?;
    let index = read_u32(payload.get(4..)?)?;
    let (mut local, mut peer, mut ours) = (None, None, false);
    for (attribute, value) in Attributes::after_header(payload, ADDRESS_HEADER) {
        match attribute {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => peer = address(value),
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
    let flags = read_u32(payload.get(8..)?)?;
    if kind != RTN_UNICAST || flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut route = Route {
        network: match family {
            AF_INET => Ipv4Addr::UNSPECIFIED.into(),
            AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        },
        prefix,
        link: 0,
        gateway: false,
        metric: 0,
    };
    let mut in_table = u32::from(table);
    for (attribute, value) in Attributes::after_header(payload, ROUTE_HEADER) {
        match attribute {
            RTA_DST => route.network = address(value)?,
            RTA_OIF => route.link = read_u32(value)?,
            RTA_GATEWAY | RTA_VIA => route.gateway = true,
            RTA_PRIORITY => route.metric = read_u32(value)?,
            RTA_TABLE => in_table = read_u32(value)?,
            RTA_MULTIPATH => {
                let hop = value.get(..NEXT_HOP_HEADER)?;
                route.link = read_u32(&hop[4..])?;
                let length = usize::from(read_u16(hop)?);
                let attributes = value.get(..length).unwrap_or_default();
                route.gateway = Attributes::after_header(attributes, NEXT_HOP_HEADER)
                    .any(|(attribute, _)| matches!(attribute, RTA_GATEWAY | RTA_VIA));
            }
            _ => {}
        }
    }
    (in_table == RT_TABLE_MAIN).then_some(route)
}

/// Writes a link to be made.
pub(super) fn write_new_link(message: &mut MessageWriter<'_>, name: &str, kind: LinkKind) {
    link_header(message, 0, 0);
    message.string(IFLA_IFNAME, name);
    message.nest(IFLA_LINKINFO, |info| {
        info.string(IFLA_INFO_KIND, kind.driver());
        if let LinkKind::Tunnel { kind, local } = kind {
            info.nest(IFLA_INFO_DATA, |data| match kind {
                TunnelKind::Ipip | TunnelKind::Sit | TunnelKind::Ip6tnl => {
                    data.bytes(IFLA_IPTUN_LOCAL, &octets(local));
                }
                TunnelKind::Gre { checksum } | TunnelKind::Ip6gre { checksum } => {
                    data.bytes(IFLA_GRE_LOCAL, &octets(local));
                    data.u16_be(IFLA_GRE_IFLAGS, if checksum { GRE_CHECKSUM } else { 0 });
                }
            });
        }
    });
}

/// Writes what marks a link as Weir's, and brings it up. The kernel takes no alias with a new link.
pub(super) fn write_alias_and_up(message: &mut MessageWriter<'_>, name: &str) {
    link_header(message, 0, IFF_UP);
    message.string(IFLA_IFNAME, name);
    message.bytes(
        IFLA_IFALIAS,
        format!("{ALIAS}: made and removed by the agent").as_bytes(),
    );
}

/// Writes which link is meant.
pub(super) fn write_link_index(message: &mut MessageWriter<'_>, index: u32) {
    link_header(message, index, 0);
}

/// Writes an address of Weir's on a link, as a host address. No connection of the node itself shall start from an IPv6
/// one, so it is never a preferred address.
pub(super) fn write_address(message: &mut MessageWriter<'_>, index: u32, address: IpAddr) {
    const FOR_EVER: u32 = u32::MAX;
    let (family, prefix) = match address {
        IpAddr::V4(_) => (AF_INET, 32),
        IpAddr::V6(_) => (AF_INET6, 128),
    };
    let [a, b, c, d] = index.to_ne_bytes();
    // Nothing is ever sent from what stands for no node.
    let scope = if address == TUNNEL_ADDRESS {
        SCOPE_HOST
    } else {
        SCOPE_UNIVERSE
    };
    message.header(&[family, prefix, 0, scope, a, b, c, d]);
    message.bytes(IFA_LOCAL, &octets(address));
    message.bytes(IFA_ADDRESS, &octets(address));
    message.u32(IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
    message.u8(IFA_PROTO, ADDRESS_PROTOCOL);
    if address.is_ipv6() {
        let mut lifetimes = [0; 16];
        lifetimes[4..8].copy_from_slice(&FOR_EVER.to_ne_bytes());
        message.array(IFA_CACHEINFO, lifetimes);
    }
}

/// Writes a question for all routes of a family.
pub(super) fn write_route_question(message: &mut MessageWriter<'_>, ipv6: bool) {
    let mut header = [0; ROUTE_HEADER];
    header[0] = if ipv6 { AF_INET6 } else { AF_INET };
    message.header(&header);
}

/// Writes a question for all links, or all addresses of both families.
pub(super) fn write_link_question(message: &mut MessageWriter<'_>) {
    link_header(message, 0, 0);
}

/// `struct ifinfomsg`: family, type, index, flags, and which of the flags count.
fn link_header(message: &mut MessageWriter<'_>, index: u32, flags: u32) {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    message.header(&header);
}

fn text(value: &[u8]) -> &str {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or_default()
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
    use crate::netlink::{Batch, Body, Messages};
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.push(message::NEW_LINK, 0, write);
        let Some(Body::Reply { payload, .. }) =
            Messages::new(batch.as_bytes()).next().map(|message| message.body)
        else {
            panic!("a message");
        };
        payload.to_vec()
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
            assert_eq!(
                read_address(&written(|message| write_address(message, 7, vip))),
                Some((7, expected))
            );
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
            let payload = written(|message| {
                write_new_link(message, "weir0", kind);
                message.bytes(IFLA_IFALIAS, b"weir: for a test");
            });
            let (link, read) = read_link(&payload).unwrap();
            assert_eq!((&*link.name, link.ours, read), ("weir0", true, Some(kind)));
            let (_, of_somebody_else) =
                read_link(&written(|message| write_new_link(message, "weir0", kind))).unwrap();
            assert_eq!(of_somebody_else, None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (read_link(&bytes), read_address(&bytes), read_route(&bytes));
        }
    }
}
