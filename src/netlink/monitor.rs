//! What others change in the kernel, as it tells whoever listens (multicast).
//!
//! An event is a hint to look: nothing is applied that one says, and their order means nothing. What could not be heard
//! for want of room is [`Heard::Lost`]: look at everything.
//!
//! An event says the port of the socket whose request caused it, so that one's own changes can be told from others'
//! ([`Connection::port`]). But the kernel does not always know: of links, IPv6 addresses and routes that follow
//! from an address it says 0, whoever asked.
//!
//! IPVS tells nobody what is changed in a table.
//!
//! [`Connection::port`]: super::Connection::port

use std::fmt;
use std::io;
use std::net::IpAddr;

use neli::consts::genl::{CtrlAttr, CtrlCmd, NlAttrType};
use neli::consts::nl::GenlId;
use neli::consts::rtnl::{Ifa, Iff, Ifla, RtAddrFamily, Rta, Rtm};
use neli::consts::socket::{Msg, NlFamily};
use neli::neli_enum;
use neli::socket::NlSocket;
use neli::utils::Groups;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use super::attribute::{Attributes, read_string, read_u8, read_u32, read_u32_be};
use super::connection::NetlinkError;
use super::message::{Body, Messages};
use super::socket;

/// Bytes of `struct ifinfomsg`, `struct ifaddrmsg` and `struct rtmsg`; of `struct nfgenmsg` and of `struct genlmsghdr`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const NETFILTER_HEADER: usize = 4;
const GENERIC_HEADER: usize = 4;
/// `NFNL_SUBSYS_NFTABLES`, and `NFT_MSG_NEWGEN` of it.
const NFTABLES: u16 = 10;
const NEW_GENERATION: u16 = NFTABLES << 8 | 15;
/// `IFA_PROTO`, which neli does not know yet.
const IFA_PROTO: Ifa = Ifa::UnrecognizedConst(11);
/// More than any event has.
const BUFFER: usize = 64 * 1024;

/// `NFTA_TABLE_NAME`, which is also the first attribute of whatever a table holds: the name of its table.
const TABLE_NAME: u16 = 1;

/// `NFTA_GEN_*`.
#[neli_enum(serialized_type = "u16")]
enum GenerationAttribute {
    Id = 1,
    ProcessId = 2,
    ProcessName = 3,
}

impl NlAttrType for GenerationAttribute {}

/// Whose events are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Links, addresses and routes.
    Route,
    /// nf_tables' rules. Needs `CAP_NET_ADMIN`.
    Rules,
    /// Which families generic netlink has: one comes and goes with its module.
    GenericFamilies,
}

impl Source {
    fn family(self) -> NlFamily {
        match self {
            Self::Route => NlFamily::Route,
            Self::Rules => NlFamily::Netfilter,
            Self::GenericFamilies => NlFamily::Generic,
        }
    }

    /// Multicast groups, which each protocol numbers for itself.
    fn groups(self) -> &'static [u32] {
        match self {
            // RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
            Self::Route => &[1, 5, 7, 9, 11],
            // NFNLGRP_NFTABLES
            Self::Rules => &[7],
            // "notify" of "nlctrl", the one group whose number is always the same
            Self::GenericFamilies => &[16],
        }
    }
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A link came, went or changed.
    Link {
        /// Its number.
        index: u32,
        /// Its name.
        name: Option<Box<str>>,
        /// Whether it is up and carries packets.
        carrier: bool,
        /// Whether it is gone.
        removed: bool,
    },
    /// An address came, went or changed.
    Address {
        /// The number of its link.
        link: u32,
        /// The address.
        address: IpAddr,
        /// Who put it there, if that one said so (`IFA_PROTO`).
        protocol: Option<u8>,
        /// Whether it is gone.
        removed: bool,
    },
    /// A route came, went or changed.
    Route {
        /// The routing table that it is in.
        table: u32,
        /// Whether it is gone.
        removed: bool,
    },
    /// Something in a table of nf_tables came or went.
    Ruleset {
        /// The table's name.
        table: Box<str>,
    },
    /// The rules are of a new generation: what was heard of tables since the last one is in force.
    Generation {
        /// Who changed them.
        by: Option<Program>,
    },
    /// A generic-netlink family came or went.
    GenericFamily {
        /// Its name: "IPVS".
        name: Box<str>,
        /// Whether it came.
        appeared: bool,
    },
    /// Events were lost: look at everything.
    Lost,
}

/// A program that did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The number of its process.
    pub process: u32,
    /// Its name, of at most 15 bytes.
    pub name: Box<str>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The port of the socket whose request caused it; 0 where the kernel does not say.
    pub port: u32,
    /// What it says.
    pub heard: Heard,
}

impl Event {
    /// Events were lost.
    pub const LOST: Self = Self {
        port: 0,
        heard: Heard::Lost,
    };
}

/// Reads the events of a datagram from a source; those of which nothing is known here are left out.
pub fn read_events(source: Source, datagram: &[u8]) -> impl Iterator<Item = Event> {
    Messages::new(datagram).filter_map(move |message| {
        let Body::Reply { kind, payload } = message.body else {
            return None;
        };
        let heard = match source {
            Source::Route => read_route_event(kind.into(), payload),
            Source::Rules => read_rules_event(kind, payload),
            Source::GenericFamilies => read_family_event(kind.into(), payload),
        };
        Some(Event {
            port: message.port,
            heard: heard?,
        })
    })
}

fn read_route_event(kind: Rtm, payload: &[u8]) -> Option<Heard> {
    match kind {
        Rtm::Newlink | Rtm::Dellink => read_link(payload, kind == Rtm::Dellink),
        Rtm::Newaddr | Rtm::Deladdr => read_address(payload, kind == Rtm::Deladdr),
        Rtm::Newroute | Rtm::Delroute => read_route(payload, kind == Rtm::Delroute),
        _ => None,
    }
}

fn read_link(payload: &[u8], removed: bool) -> Option<Heard> {
    let family = RtAddrFamily::from(read_u8(payload)?);
    let flags = Iff::from_bits_retain(read_u32(payload.get(8..)?)?);
    let name = Attributes::after_header(payload, LINK_HEADER).get(Ifla::Ifname);
    Some(Heard::Link {
        index: read_u32(payload.get(4..)?)?,
        name: name.and_then(read_string).map(Into::into),
        carrier: flags.contains(Iff::UP | Iff::LOWERUP),
        // A link that leaves a bridge is told as gone in the bridge's family.
        removed: removed && family == RtAddrFamily::Unspecified,
    })
}

fn read_address(payload: &[u8], removed: bool) -> Option<Heard> {
    let link = read_u32(payload.get(4..)?)?;
    let attributes = Attributes::after_header(payload, ADDRESS_HEADER);
    // On a link between two, IFA_ADDRESS is the other end's; IPv6 has no other.
    let address = attributes
        .get(Ifa::Local)
        .or_else(|| attributes.get(Ifa::Address))?;
    let four = <[u8; 4]>::try_from(address).map(IpAddr::from);
    let six = || <[u8; 16]>::try_from(address).map(IpAddr::from);
    Some(Heard::Address {
        link,
        address: four.or_else(|_| six()).ok()?,
        protocol: attributes.get(IFA_PROTO).and_then(read_u8),
        removed,
    })
}

fn read_route(payload: &[u8], removed: bool) -> Option<Heard> {
    let table = read_u8(payload.get(4..)?)?;
    let attributes = Attributes::after_header(payload, ROUTE_HEADER);
    let wide = attributes.get(Rta::Table).and_then(read_u32);
    Some(Heard::Route {
        table: wide.unwrap_or(table.into()),
        removed,
    })
}

fn read_rules_event(kind: u16, payload: &[u8]) -> Option<Heard> {
    if kind >> 8 != NFTABLES {
        return None;
    }
    if kind == NEW_GENERATION {
        let attributes = Attributes::after_header(payload, NETFILTER_HEADER);
        let process = attributes
            .get(GenerationAttribute::ProcessId)
            .and_then(read_u32_be);
        let name = attributes
            .get(GenerationAttribute::ProcessName)
            .and_then(read_string);
        let by = process.zip(name).map(|(process, name)| Program {
            process,
            name: name.into(),
        });
        return Some(Heard::Generation { by });
    }
    let name = Attributes::after_header(payload, NETFILTER_HEADER).get(TABLE_NAME);
    let table = name.and_then(read_string)?.into();
    Some(Heard::Ruleset { table })
}

fn read_family_event(kind: GenlId, payload: &[u8]) -> Option<Heard> {
    let appeared = match (kind, CtrlCmd::from(read_u8(payload)?)) {
        (GenlId::Ctrl, CtrlCmd::Newfamily) => true,
        (GenlId::Ctrl, CtrlCmd::Delfamily) => false,
        _ => return None,
    };
    let name = Attributes::after_header(payload, GENERIC_HEADER).get(CtrlAttr::FamilyName);
    Some(Heard::GenericFamily {
        name: name.and_then(read_string)?.into(),
        appeared,
    })
}

/// Listens to one source.
pub struct Monitor {
    source: Source,
    socket: AsyncFd<NlSocket>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Monitor")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Monitor {
    /// Begins to listen in the network namespace of the calling thread, and stays in it. What happens from now on is heard,
    /// or known to be lost: whoever looks at everything afterwards misses nothing.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Open`] where the system refuses the socket or its groups, or outside of a runtime.
    ///
    /// # Panics
    ///
    /// In a runtime that was built without I/O.
    pub fn open(source: Source) -> Result<Self, NetlinkError> {
        Handle::try_current().map_err(|error| NetlinkError::Open(io::Error::other(error)))?;
        let socket = socket::open(source.family(), Groups::new_groups(source.groups()))
            .and_then(socket::watched)
            .map_err(NetlinkError::Open)?;
        Ok(Self {
            source,
            socket,
            buffer: vec![0; BUFFER],
        })
    }

    /// Waits for the next events. Whoever gives up waiting loses none.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Receive`] where the socket is of no more use.
    pub async fn hear(&mut self) -> Result<Vec<Event>, NetlinkError> {
        loop {
            let mut guard = self.socket.readable().await.map_err(NetlinkError::Receive)?;
            let buffer = &mut self.buffer;
            let received =
                guard.try_io(|socket| socket.get_ref().recv(&mut **buffer, Msg::DONTWAIT | Msg::TRUNC));
            let events: Vec<Event> = match received {
                // Nothing is there after all.
                Err(_) => continue,
                Ok(Ok((length, _))) => match self.buffer.get(..length) {
                    Some(datagram) => read_events(self.source, datagram).collect(),
                    None => vec![Event::LOST],
                },
                Ok(Err(error)) => match Errno::from_io_error(&error) {
                    Some(Errno::NOBUFS) => vec![Event::LOST],
                    Some(Errno::INTR) => continue,
                    _ => return Err(NetlinkError::Receive(error)),
                },
            };
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

#[cfg(test)]
mod tests;
