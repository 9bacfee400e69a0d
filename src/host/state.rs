//! What Weir keeps true on a node around the IPVS table, as a value: desired, and as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use crate::nft::Ruleset;

use super::network::Network;

/// The dummy link that carries the VIPs of a real server: nothing is ever sent over it.
pub const VIP_LINK: &str = "weir0";

/// The address of a tunnel link that brings IPv4 packets: the dummy address of RFC 7600, section 4.8, which stands for no
/// node. It is there because a link without any IPv4 address fails the reverse path filter even where that is loose
/// (`__fib_validate_source` in net/ipv4/fib_frontend.c).
pub const TUNNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// What Weir should keep true on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState {
    /// Links of Weir's own by name.
    pub links: BTreeMap<Box<str>, LinkKind>,
    /// VIPs on links, and what tunnels need, as host addresses.
    pub addresses: BTreeSet<BoundAddress>,
    /// Settings by name (`net.ipv4.ip_forward`).
    pub sysctls: BTreeMap<Box<str>, Box<str>>,
    /// UDP ports on which encapsulated packets are taken.
    pub gue_ports: BTreeSet<GuePort>,
    /// The tables named `weir`.
    pub rules: Ruleset,
    /// How VIPs are kept from being heard of.
    pub arp: BTreeSet<ArpMethod>,
    /// Addresses on which directors reach this node as a real server.
    pub reached_at: BTreeSet<IpAddr>,
    /// Whether answers of IPv6 real servers to clients are passed on by this node.
    pub routes_ipv6: bool,
}

/// A way to keep a node from answering ARP for a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArpMethod {
    /// By rules of nftables' family `arp`.
    Nftables,
    /// By `arp_ignore` and `arp_announce`.
    Sysctl,
}

/// What Weir finds on a node: of all but the network only what is its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Current {
    /// All links, addresses and routes.
    pub network: Network,
    /// Links of Weir's own by name.
    pub links: BTreeMap<Box<str>, LinkKind>,
    /// The values of the settings that were asked for, and of those that Weir has changed. One that this kernel does
    /// not have is absent.
    pub sysctls: BTreeMap<Box<str>, Box<str>>,
    /// Settings that Weir has changed.
    pub changed_sysctls: BTreeMap<Box<str>, ChangedSysctl>,
    /// UDP ports on which encapsulated packets are taken, whoever saw to that.
    pub gue_ports: BTreeSet<GuePort>,
    /// Those of them that Weir opened.
    pub own_gue_ports: BTreeSet<GuePort>,
    /// The tables named `weir`; `None` where this kernel has no nf_tables at all.
    pub rules: Option<Ruleset>,
    /// Whether this kernel's nf_tables knows family `arp`.
    pub arp_rules: bool,
}

/// What a setting was before Weir changed it, and what Weir made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedSysctl {
    /// Its value before.
    pub before: Box<str>,
    /// What Weir set it to.
    pub set: Box<str>,
}

/// A link of Weir's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// Carries addresses and nothing else.
    Dummy,
    /// Takes encapsulated packets that are sent to an address of this node's, from anybody.
    Tunnel {
        /// Which encapsulation.
        kind: TunnelKind,
        /// The address they are sent to.
        local: IpAddr,
    },
}

/// The kernel's tunnel drivers, by outer and inner family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TunnelKind {
    /// IPv4 in IPv4 (`ipip`).
    Ipip,
    /// IPv6 in IPv4 (`sit`).
    Sit,
    /// IPv4 and IPv6 in IPv6 (`ip6tnl`).
    Ip6tnl,
    /// Both in GRE over IPv4 (`gre`).
    Gre {
        /// Whether packets have a checksum: the driver drops those that are otherwise.
        checksum: bool,
    },
    /// Both in GRE over IPv6 (`ip6gre`).
    Ip6gre {
        /// As with [`Self::Gre`].
        checksum: bool,
    },
}

/// An address on a link, as a host address (/32 or /128).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundAddress {
    /// The link's name.
    pub link: Box<str>,
    /// The address.
    pub address: IpAddr,
}

/// A UDP port on which packets in generic UDP encapsulation are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuePort {
    /// Whether the outer packets are IPv6.
    pub ipv6: bool,
    /// The port.
    pub port: NonZeroU16,
}

impl ArpMethod {
    /// What does it: "nftables", "settings".
    pub fn words(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Sysctl => "settings",
        }
    }
}

impl TunnelKind {
    /// The kernel's name of the driver.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Sit => "sit",
            Self::Ip6tnl => "ip6tnl",
            Self::Gre { .. } => "gre",
            Self::Ip6gre { .. } => "ip6gre",
        }
    }
}

impl LinkKind {
    /// The kernel's name of the driver.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Dummy => "dummy",
            Self::Tunnel { kind, .. } => kind.driver(),
        }
    }
}

/// `dummy`, `ipip to 10.0.0.11`.
impl fmt::Display for LinkKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dummy => formatter.write_str("dummy"),
            Self::Tunnel {
                kind: kind @ (TunnelKind::Gre { checksum: true } | TunnelKind::Ip6gre { checksum: true }),
                local,
            } => write!(formatter, "{} with checksum to {local}", kind.driver()),
            Self::Tunnel { kind, local } => write!(formatter, "{} to {local}", kind.driver()),
        }
    }
}

/// `10.0.0.200 on eth0`.
impl fmt::Display for BoundAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} on {}", self.address, self.link)
    }
}

/// `GUE port 6080`, `GUE port 6080 of IPv6`.
impl fmt::Display for GuePort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GUE port {}", self.port)?;
        if self.ipv6 {
            formatter.write_str(" of IPv6")
        } else {
            Ok(())
        }
    }
}

impl HostState {
    /// The VIPs that this node answers for: those on links that are not Weir's own.
    pub fn answered(&self) -> impl Iterator<Item = &BoundAddress> {
        let addresses = self.addresses.iter();
        addresses.filter(|bound| !self.links.contains_key(&bound.link))
    }
}

impl TunnelKind {
    /// Whether IPv4 packets come out of it.
    pub fn brings_ipv4(self) -> bool {
        !matches!(self, Self::Sit)
    }
}

impl Current {
    /// The addresses that Weir has put on links.
    pub fn own_addresses(&self) -> BTreeSet<BoundAddress> {
        let on_link = |link: &super::network::Link| {
            let name = link.name.clone();
            let own = link.addresses.clone().into_iter().filter(|address| address.ours);
            own.map(move |address| BoundAddress {
                link: name.clone(),
                address: address.address,
            })
            .collect::<Vec<_>>()
        };
        self.network.links.iter().flat_map(on_link).collect()
    }
}
