//! What one virtual service needs of a node around the IPVS table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::ipvs::Protocol;

use super::state::{BoundAddress, GuePort, TunnelKind};

/// How a real server keeps from answering ARP for a VIP, and from announcing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArpSuppression {
    /// By rules where the kernel can, else by settings.
    Auto,
    /// By rules of nftables' family `arp`.
    Nftables,
    /// By `arp_ignore` and `arp_announce`.
    Sysctl,
    /// Not at all: somebody else sees to it.
    None,
}

/// Ports of a protocol on an address: what packets of a connection are sent to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listened {
    /// The address.
    pub address: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Listened {
    /// Ports of a protocol on an address.
    pub fn new(address: IpAddr, protocol: Protocol, ports: RangeInclusive<u16>) -> Self {
        Self {
            address,
            protocol,
            first: *ports.start(),
            last: *ports.end(),
        }
    }
}

/// What one virtual service needs of a node. Those of all of them are one state ([`desired`](super::desired)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    /// VIPs that this node answers for, as their active director.
    pub answered: BTreeSet<BoundAddress>,
    /// VIPs that are this node's without anybody hearing of it, as their real server; or which a routing daemon tells of.
    pub held: BTreeSet<IpAddr>,
    /// How not to be heard of each of them. IPv6 needs nothing: neighbours are told only of addresses of the link they
    /// ask on.
    pub quiet: BTreeMap<IpAddr, ArpSuppression>,
    /// What is translated to an address of this node, instead of an address of its own for the VIP.
    pub redirected: BTreeMap<Listened, IpAddr>,
    /// What gets a mark, as their active director.
    pub marked: BTreeMap<Listened, u32>,
    /// Destinations that see this node's address in place of the client's.
    pub masqueraded: BTreeSet<Listened>,
    /// What takes packets in tunnels apart.
    pub decapsulated: Decapsulated,
    /// The addresses on which directors reach this node as a real server, tunnels aside.
    pub reached_at: BTreeSet<IpAddr>,
    /// Whether destinations are drained here: what is bound to one that has left goes on with another.
    pub drains: bool,
    /// Whether answers of IPv6 real servers to clients are passed on by this node.
    pub routes_ipv6: bool,
    /// Settings that it takes.
    pub sysctls: BTreeMap<Box<str>, Box<str>>,
}

/// Packets in tunnels, which a real server takes apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decapsulated {
    /// Which tunnels, each with the address that packets are sent to.
    pub tunnels: BTreeSet<(TunnelKind, IpAddr)>,
    /// UDP ports on which packets in generic UDP encapsulation come.
    pub gue_ports: BTreeSet<GuePort>,
    /// VIPs behind a tunnel, each with the longest packet that still fits in.
    pub clamped: BTreeMap<IpAddr, u16>,
}

impl Around {
    /// Leaves nothing of other VIPs than these.
    pub fn keep_vips(&mut self, vips: &[IpAddr]) {
        let is_kept = |vip: &IpAddr| vips.contains(vip);
        self.answered.retain(|bound| is_kept(&bound.address));
        self.held.retain(is_kept);
        self.quiet.retain(|vip, _| is_kept(vip));
        self.redirected.retain(|listened, _| is_kept(&listened.address));
        self.marked.retain(|listened, _| is_kept(&listened.address));
        self.decapsulated.clamped.retain(|vip, _| is_kept(vip));
    }
}
