//! Links, addresses, routes and neighbours of one namespace, by netlink: a program per `ip` command would cost more
//! under emulation than the kernel's work.
//!
//! Requests are collected and sent together by [`Route::commit`]. Links are named by an index that the caller chooses,
//! so that nothing has to be read back.
//!
//! Source: kernel `include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,veth}.h`.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{
    Af, Ifa, IfaF, Iff, Ifla, IflaInfo, Nda, Nud, RtScope, RtTable, Rta, Rtm, Rtn, Rtprot,
};
use neli::consts::socket::NlFamily;
use weir::netlink::{
    AttributeType, Attributes, Batch, Connection, MessageWriter, read_u16, read_u32, written,
};

use super::netns::Netns;
use super::sniff::Mac;

/// Data of a bridge and of a port of one, of a veth; and of an address, which neli does not know yet.
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_STATE: u16 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFA_PROTO: Ifa = Ifa::UnrecognizedConst(11);
const AF_BRIDGE: u8 = 7;

/// Make it, and refuse if it is there.
const CREATE: NlmF = NlmF::CREATE.union(NlmF::EXCL);

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
            connection: netns.run(|| Connection::open(NlFamily::Route)).unwrap(),
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

    fn push<T: AttributeType>(&mut self, kind: Rtm, flags: NlmF, write: impl Fn(&mut MessageWriter<'_, T>)) {
        self.batch.push(kind, flags, &written(write));
    }

    /// `ip link set dev INDEX up` (or `down`).
    pub fn set_up(&mut self, index: u32, up: bool) {
        self.push(Rtm::Newlink, NlmF::empty(), |message| {
            link_header(message, index, up)
        });
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

    fn add_link(&mut self, index: u32, name: &str, kind: &str, data: impl Fn(&mut MessageWriter<'_, u16>)) {
        self.push(Rtm::Newlink, CREATE, |message| {
            link_header(message, index, true);
            message.string(Ifla::Ifname, name);
            message.nest(Ifla::Linkinfo, |info| {
                info.string(IflaInfo::Kind, kind);
                info.nest(IflaInfo::Data, &data);
            });
        });
    }

    /// `ip link add A type veth peer B`, both ends in their namespaces and on their bridges. A is up; B is not, because
    /// the kernel refuses to open an end whose other does not exist yet.
    pub fn add_cable(&mut self, a: End<'_>, b: End<'_>) {
        self.push(Rtm::Newlink, CREATE, |message| {
            end(message, a, true);
            message.nest(Ifla::Linkinfo, |info| {
                info.string(IflaInfo::Kind, "veth");
                info.nest(IflaInfo::Data, |data| {
                    data.nest(VETH_INFO_PEER, |peer| end(peer, b, false))
                });
            });
        });
    }

    /// `ip link set dev INDEX master BRIDGE`.
    pub fn set_master(&mut self, index: u32, bridge: u32) {
        self.push(Rtm::Newlink, NlmF::empty(), |message| {
            link_header(message, index, true);
            message.u32(Ifla::Master, bridge);
        });
    }

    /// `bridge link show`: how many ports there are, and how many of them forward.
    pub fn bridge_ports(&mut self) -> (usize, usize) {
        const HEADER: usize = 16;
        const FORWARDING: u8 = 3;
        let (mut ports, mut forwarding) = (0, 0);
        let on_reply = |_: u16, payload: &[u8]| {
            let port = Attributes::after_header(payload, HEADER).get(Ifla::Protinfo);
            let state = port.and_then(|port| Attributes::new(port).get(IFLA_BRPORT_STATE));
            ports += usize::from(state.is_some());
            forwarding += usize::from(state == Some(&[FORWARDING]));
        };
        let question = written(|message: &mut MessageWriter<'_, Ifla>| {
            let mut header = [0; HEADER];
            header[0] = AF_BRIDGE;
            message.header(header);
        });
        self.connection
            .request(Rtm::Getlink, NlmF::DUMP, &question, on_reply)
            .unwrap();
        (ports, forwarding)
    }

    /// `ip link delete dev INDEX`.
    pub fn delete_link(&mut self, index: u32) {
        self.push(Rtm::Dellink, NlmF::empty(), |message| {
            link_header(message, index, false)
        });
    }

    /// `ip address add ADDRESS/PREFIX dev INDEX nodad`.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        self.address(Rtm::Newaddr, CREATE, index, address, prefix);
    }

    /// `ip address delete ADDRESS/PREFIX dev INDEX`.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        self.address(Rtm::Deladdr, NlmF::empty(), index, address, prefix);
    }

    fn address(&mut self, kind: Rtm, flags: NlmF, index: u32, address: IpAddr, prefix: u8) {
        self.push(kind, flags, |message| {
            let [a, b, c, d] = index.to_ne_bytes();
            message.header([family(address), prefix, IfaF::NODAD.bits(), 0, a, b, c, d]);
            message.bytes(Ifa::Local, &octets(address));
            message.bytes(Ifa::Address, &octets(address));
        });
    }

    /// `ip address show proto PROTOCOL`: those that whoever added them marked so.
    pub fn addresses_of(&mut self, protocol: u8) -> Vec<IpAddr> {
        const HEADER: usize = 8;
        let mut found = Vec::new();
        let on_reply = |_: u16, payload: &[u8]| {
            let attributes = Attributes::after_header(payload, HEADER);
            if attributes.get(IFA_PROTO) == Some(&[protocol]) {
                found.extend(attributes.get(Ifa::Address).and_then(address_in));
            }
        };
        let question = written(|message: &mut MessageWriter<'_, Ifa>| message.header([0; HEADER]));
        self.connection
            .request(Rtm::Getaddr, NlmF::DUMP, &question, on_reply)
            .unwrap();
        found.sort();
        found
    }

    /// `ip route replace DESTINATION/PREFIX [via GATEWAY] [dev INDEX]`.
    pub fn add_route(&mut self, to: (IpAddr, u8), gateway: Option<IpAddr>, index: Option<u32>) {
        let scope = if gateway.is_some() {
            RtScope::Universe
        } else {
            RtScope::Link
        };
        let [table, protocol] = [RtTable::Main.into(), Rtprot::Static.into()];
        let [scope, kind] = [scope.into(), Rtn::Unicast.into()];
        self.push(Rtm::Newroute, NlmF::CREATE | NlmF::REPLACE, |message| {
            message.header([family(to.0), to.1, 0, 0, table, protocol, scope, kind, 0, 0, 0, 0]);
            if to.1 > 0 {
                message.bytes(Rta::Dst, &octets(to.0));
            }
            if let Some(gateway) = gateway {
                message.bytes(Rta::Gateway, &octets(gateway));
            }
            if let Some(index) = index {
                message.u32(Rta::Oif, index);
            }
        });
    }

    /// `ip neighbour delete ADDRESS dev INDEX`; that there is none is no error.
    pub fn forget_neighbour(&mut self, index: u32, address: IpAddr) {
        let mut batch = Batch::default();
        let neighbour = written(|message| {
            neighbour_header(message, family(address), index);
            message.bytes(Nda::Dst, &octets(address));
        });
        batch.push(Rtm::Delneigh, NlmF::empty(), &neighbour);
        self.connection.batch(&mut batch).unwrap();
    }

    /// `ip neighbour show ADDRESS dev INDEX`: the link-layer address that packets to `address` are sent to.
    pub fn neighbour(&mut self, index: u32, address: IpAddr) -> Option<Mac> {
        const HEADER: usize = 12;
        const UNUSABLE: Nud = Nud::FAILED.union(Nud::INCOMPLETE);
        let mut found = None;
        let on_reply = |_: u16, payload: &[u8]| {
            let attributes = Attributes::after_header(payload, HEADER);
            let here = read_u32(&payload[4..]) == Some(index);
            let usable = read_u16(&payload[8..])
                .is_some_and(|state| !Nud::from_bits_retain(state).intersects(UNUSABLE));
            if here && usable && attributes.get(Nda::Dst) == Some(&octets(address)) {
                found = attributes
                    .get(Nda::Lladdr)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Mac);
            }
        };
        let question = written(|message| neighbour_header(message, family(address), 0));
        self.connection
            .request(Rtm::Getneigh, NlmF::DUMP, &question, on_reply)
            .unwrap();
        found
    }
}

/// `struct ifinfomsg`: family, type, index, flags, and which of the flags count.
fn link_header(message: &mut MessageWriter<'_, Ifla>, index: u32, up: bool) {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let flags = if up { Iff::UP } else { Iff::empty() };
    header[8..12].copy_from_slice(&flags.bits().to_ne_bytes());
    header[12..16].copy_from_slice(&Iff::UP.bits().to_ne_bytes());
    message.header(header);
}

fn end(message: &mut MessageWriter<'_, Ifla>, end: End<'_>, up: bool) {
    link_header(message, end.index, up);
    message.string(Ifla::Ifname, end.name);
    if let Some(mac) = end.mac {
        message.bytes(Ifla::Address, &mac.0);
    }
    if let Some(netns) = end.netns {
        message.u32(Ifla::NetNsFd, netns.descriptor().as_raw_fd() as u32);
    }
    if let Some(master) = end.master {
        message.u32(Ifla::Master, master);
    }
}

/// `struct ndmsg`: family, interface, state, flags, type.
fn neighbour_header(message: &mut MessageWriter<'_, Nda>, family: u8, index: u32) {
    let [a, b, c, d] = index.to_ne_bytes();
    message.header([family, 0, 0, 0, a, b, c, d, 0, 0, 0, 0]);
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { Af::Inet } else { Af::Inet6 }.into()
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
