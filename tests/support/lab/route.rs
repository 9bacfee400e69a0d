//! Links, addresses, routes and neighbours of one namespace, by netlink: a program per `ip` command would cost more
//! under emulation than the kernel's work.
//!
//! Requests are collected and sent together by [`Route::commit`]. Links are named by an index that the caller chooses,
//! so that nothing has to be read back.
//!
//! Source: kernel `include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,veth}.h`.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use weir::netlink::{Attributes, Batch, Connection, MessageWriter, flags, read_u16, read_u32};

use super::netns::Netns;
use super::sniff::Mac;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_STATE: u16 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_PROTO: u16 = 11;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const IFF_UP: u32 = 1;
const IFA_F_NODAD: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `lo` in every namespace.
pub const LOOPBACK: u32 = 1;

/// One end of a cable: an interface to be.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Its namespace, or `None` for that of the connection.
    pub netns: Option<&'a Netns>,
    /// Its index there.
    pub index: u32,
    /// Its name there.
    pub name: &'a str,
    /// Its link-layer address, or `None` for one that the kernel chooses.
    pub mac: Option<Mac>,
    /// The bridge it belongs to, by index.
    pub master: Option<u32>,
}

/// Requests to one namespace's route netlink.
#[derive(Debug)]
pub struct Route {
    connection: Connection,
    batch: Batch,
}

impl Route {
    /// Opens a connection to a namespace.
    pub fn open(netns: &Netns) -> Self {
        Self {
            connection: netns.run(Connection::open_route).unwrap(),
            batch: Batch::default(),
        }
    }

    /// Has the collected requests executed.
    ///
    /// # Panics
    ///
    /// When the kernel refuses one.
    #[track_caller]
    pub fn commit(&mut self) {
        let refused = self.connection.batch(&mut self.batch).unwrap();
        self.batch.clear();
        assert!(refused.is_empty(), "requests refused by the kernel: {refused:?}");
    }

    /// `ip link set dev INDEX up` (or `down`).
    pub fn set_up(&mut self, index: u32, up: bool) {
        self.batch
            .push(RTM_NEWLINK, 0, |message| link_header(message, index, up));
    }

    /// `ip link add NAME type bridge`, forwarding at once, and up.
    pub fn add_bridge(&mut self, index: u32, name: &str) {
        self.add_link(index, name, "bridge", |data| {
            data.u32(IFLA_BR_FORWARD_DELAY, 0);
            data.u8(IFLA_BR_MCAST_SNOOPING, 0);
        });
    }

    /// `ip link add NAME type dummy`, and up.
    pub fn add_dummy(&mut self, index: u32, name: &str) {
        self.add_link(index, name, "dummy", |_| {});
    }

    fn add_link(&mut self, index: u32, name: &str, kind: &str, data: impl FnOnce(&mut MessageWriter<'_>)) {
        self.batch
            .push(RTM_NEWLINK, flags::CREATE | flags::EXCLUSIVE, |message| {
                link_header(message, index, true);
                message.string(IFLA_IFNAME, name);
                message.nest(IFLA_LINKINFO, |info| {
                    info.string(IFLA_INFO_KIND, kind);
                    info.nest(IFLA_INFO_DATA, data);
                });
            });
    }

    /// `ip link add A type veth peer B`, both ends in their namespaces and on their bridges. A is up; B is not, because
    /// the kernel refuses to open an end whose other does not exist yet.
    pub fn add_cable(&mut self, a: End<'_>, b: End<'_>) {
        self.batch
            .push(RTM_NEWLINK, flags::CREATE | flags::EXCLUSIVE, |message| {
                end(message, a, true);
                message.nest(IFLA_LINKINFO, |info| {
                    info.string(IFLA_INFO_KIND, "veth");
                    info.nest(IFLA_INFO_DATA, |data| {
                        data.nest(VETH_INFO_PEER, |peer| end(peer, b, false))
                    });
                });
            });
    }

    /// `ip link set dev INDEX master BRIDGE`.
    pub fn set_master(&mut self, index: u32, bridge: u32) {
        self.batch.push(RTM_NEWLINK, 0, |message| {
            link_header(message, index, true);
            message.u32(IFLA_MASTER, bridge);
        });
    }

    /// `bridge link show`: how many ports there are, and how many of them forward.
    pub fn bridge_ports(&mut self) -> (usize, usize) {
        const HEADER: usize = 16;
        const FORWARDING: u8 = 3;
        let (mut ports, mut forwarding) = (0, 0);
        let on_reply = |_: u16, payload: &[u8]| {
            let protocol = Attributes::after_header(payload, HEADER).find(|(kind, _)| *kind == IFLA_PROTINFO);
            let state = protocol.and_then(|(_, port)| {
                Attributes::new(port)
                    .find(|(kind, _)| *kind == IFLA_BRPORT_STATE)
                    .map(|(_, state)| state)
            });
            ports += usize::from(state.is_some());
            forwarding += usize::from(state == Some(&[FORWARDING]));
        };
        let write = |message: &mut MessageWriter<'_>| {
            let mut header = [0; HEADER];
            header[0] = AF_BRIDGE;
            message.header(&header);
        };
        self.connection
            .request(RTM_GETLINK, flags::DUMP, write, on_reply)
            .unwrap();
        (ports, forwarding)
    }

    /// `ip link delete dev INDEX`.
    pub fn delete_link(&mut self, index: u32) {
        self.batch
            .push(RTM_DELLINK, 0, |message| link_header(message, index, false));
    }

    /// `ip address add ADDRESS/PREFIX dev INDEX nodad`.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        self.address(
            RTM_NEWADDR,
            flags::CREATE | flags::EXCLUSIVE,
            index,
            address,
            prefix,
        );
    }

    /// `ip address delete ADDRESS/PREFIX dev INDEX`.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        self.address(RTM_DELADDR, 0, index, address, prefix);
    }

    fn address(&mut self, kind: u16, flags: u16, index: u32, address: IpAddr, prefix: u8) {
        self.batch.push(kind, flags, |message| {
            let [a, b, c, d] = index.to_ne_bytes();
            message.header(&[family(address), prefix, IFA_F_NODAD, 0, a, b, c, d]);
            message.bytes(IFA_LOCAL, &octets(address));
            message.bytes(IFA_ADDRESS, &octets(address));
        });
    }

    /// `ip address show proto PROTOCOL`: those that whoever added them marked so.
    pub fn addresses_of(&mut self, protocol: u8) -> Vec<IpAddr> {
        const HEADER: usize = 8;
        let mut found = Vec::new();
        let on_reply = |_: u16, payload: &[u8]| {
            let attribute = |wanted| {
                Attributes::after_header(payload, HEADER)
                    .find(|(kind, _)| *kind == wanted)
                    .map(|(_, value)| value)
            };
            if attribute(IFA_PROTO) == Some(&[protocol]) {
                found.extend(attribute(IFA_ADDRESS).and_then(address_in));
            }
        };
        let write = |message: &mut MessageWriter<'_>| message.header(&[0; HEADER]);
        self.connection
            .request(RTM_GETADDR, flags::DUMP, write, on_reply)
            .unwrap();
        found.sort();
        found
    }

    /// `ip route replace DESTINATION/PREFIX [via GATEWAY] [dev INDEX]`.
    pub fn add_route(&mut self, to: (IpAddr, u8), gateway: Option<IpAddr>, index: Option<u32>) {
        const MAIN_TABLE: u8 = 254;
        const STATIC: u8 = 4;
        const UNICAST: u8 = 1;
        const SCOPE_UNIVERSE: u8 = 0;
        const SCOPE_LINK: u8 = 253;
        let scope = if gateway.is_some() {
            SCOPE_UNIVERSE
        } else {
            SCOPE_LINK
        };
        self.batch
            .push(RTM_NEWROUTE, flags::CREATE | flags::REPLACE, |message| {
                message.header(&[
                    family(to.0),
                    to.1,
                    0,
                    0,
                    MAIN_TABLE,
                    STATIC,
                    scope,
                    UNICAST,
                    0,
                    0,
                    0,
                    0,
                ]);
                if to.1 > 0 {
                    message.bytes(RTA_DST, &octets(to.0));
                }
                if let Some(gateway) = gateway {
                    message.bytes(RTA_GATEWAY, &octets(gateway));
                }
                if let Some(index) = index {
                    message.u32(RTA_OIF, index);
                }
            });
    }

    /// `ip neighbour delete ADDRESS dev INDEX`; that there is none is no error.
    pub fn forget_neighbour(&mut self, index: u32, address: IpAddr) {
        let mut batch = Batch::default();
        batch.push(RTM_DELNEIGH, 0, |message| {
            neighbour_header(message, family(address), index);
            message.bytes(NDA_DST, &octets(address));
        });
        self.connection.batch(&mut batch).unwrap();
    }

    /// `ip neighbour show ADDRESS dev INDEX`: the link-layer address that packets to `address` are sent to.
    pub fn neighbour(&mut self, index: u32, address: IpAddr) -> Option<Mac> {
        const HEADER: usize = 12;
        const UNUSABLE: u16 = 0x20 | 0x01; // NUD_FAILED, NUD_INCOMPLETE
        let mut found = None;
        let on_reply = |_: u16, payload: &[u8]| {
            let attribute = |wanted| {
                Attributes::after_header(payload, HEADER)
                    .find(|(kind, _)| *kind == wanted)
                    .map(|(_, value)| value)
            };
            let here = read_u32(&payload[4..]) == Some(index);
            let usable = read_u16(&payload[8..]).is_some_and(|state| state & UNUSABLE == 0);
            if here && usable && attribute(NDA_DST) == Some(&octets(address)) {
                found = attribute(NDA_LLADDR)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Mac);
            }
        };
        let write = |message: &mut MessageWriter<'_>| neighbour_header(message, family(address), 0);
        self.connection
            .request(RTM_GETNEIGH, flags::DUMP, write, on_reply)
            .unwrap();
        found
    }
}

/// `struct ifinfomsg`: family, type, index, flags, and which of the flags count.
fn link_header(message: &mut MessageWriter<'_>, index: u32, up: bool) {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&(u32::from(up) * IFF_UP).to_ne_bytes());
    header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    message.header(&header);
}

fn end(message: &mut MessageWriter<'_>, end: End<'_>, up: bool) {
    link_header(message, end.index, up);
    message.string(IFLA_IFNAME, end.name);
    if let Some(mac) = end.mac {
        message.bytes(IFLA_ADDRESS, &mac.0);
    }
    if let Some(netns) = end.netns {
        message.u32(IFLA_NET_NS_FD, netns.descriptor().as_raw_fd() as u32);
    }
    if let Some(master) = end.master {
        message.u32(IFLA_MASTER, master);
    }
}

/// `struct ndmsg`: family, interface, state, flags, type.
fn neighbour_header(message: &mut MessageWriter<'_>, family: u8, index: u32) {
    let [a, b, c, d] = index.to_ne_bytes();
    message.header(&[family, 0, 0, 0, a, b, c, d, 0, 0, 0, 0]);
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn address_in(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
