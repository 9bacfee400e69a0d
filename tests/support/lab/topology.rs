//! The cluster that tests and the demo run in, one network namespace per node:
//!
//! ```text
//!              sw: bridge front, 10.0.0.0/24, fd00::/64
//!    ┌──────────┬──────────┬──────────┬──────────┬──────────┐
//!  client       d1         d2        rs1        rs2        rs3       VIP .200
//!   .100        .1         .2        .11        .12        .13
//!               └──────────┴──────────┴──────────┴──────────┘
//!              sw: bridge back, 10.1.0.0/24, fd01::/64
//! ```
//!
//! The client sits on one Ethernet segment with directors and real servers. That is the hardest case for ARP: whoever
//! answers for the VIP answers the client itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::netns::{Netns, write_sysctl};
use super::route::{End, LOOPBACK, Route};
use super::sniff::Mac;
use crate::poll::eventually;

/// The virtual address of most cases.
pub const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 200));
/// Its IPv6 companion.
pub const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x200));

// Beyond the indexes that the kernel gives to a namespace's own links (lo, and tunl0 and others once their modules are
// loaded).
/// Index of a node's interface `front`, and of the bridge of that name.
pub const FRONT: u32 = 101;
/// Index of a node's interface `back`, and of the bridge of that name.
pub const BACK: u32 = 102;
/// Index of the link `vip0`, see [`Node::bind_vips`].
pub const VIP_LINK: u32 = 103;
/// Index of a node's interface `uplink`, see [`Topology::connect_host`].
pub const UPLINK: u32 = 104;

/// How long the kernel may take to notice that both ends of every cable are up.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(20);

/// The two segments: interface and bridge name, index, third octet of the IPv4 network, IPv6 network.
const SEGMENTS: [(&str, u32, u8, u16); 2] = [("front", FRONT, 0, 0xfd00), ("back", BACK, 1, 0xfd01)];

/// One machine of the cluster.
#[derive(Debug)]
pub struct Node {
    /// Its namespace, which has its name.
    pub netns: Netns,
    number: u8,
}

impl Node {
    fn new(name: &str, number: u8) -> Self {
        let node = Self {
            netns: Netns::new(name),
            number,
        };
        let mut route = node.route();
        // A namespace without any address refuses every destination.
        route.set_up(LOOPBACK, true);
        route.commit();
        node.netns.run(|| {
            if name.starts_with('d') {
                // First, because the kernel resets other settings when it becomes a router.
                write_sysctl("ipv4/ip_forward", "1");
                write_sysctl("ipv6/conf/all/forwarding", "1");
            }
            for scope in ["all", "default"] {
                write_sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0");
                write_sysctl(&format!("ipv4/conf/{scope}/send_redirects"), "0");
                write_sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0");
                write_sysctl(&format!("ipv6/conf/{scope}/accept_ra"), "0");
            }
        });
        node
    }

    /// `client`, `d1`, `d2`, `rs1`, `rs2`, `rs3`.
    pub fn name(&self) -> &str {
        self.netns.name()
    }

    /// Its address on the front segment.
    pub fn front4(&self) -> IpAddr {
        self.address4(0)
    }

    /// Its IPv6 address on the front segment.
    pub fn front6(&self) -> IpAddr {
        self.address6(0xfd00)
    }

    /// Its address on the back segment.
    pub fn back4(&self) -> IpAddr {
        self.address4(1)
    }

    /// Its IPv6 address on the back segment.
    pub fn back6(&self) -> IpAddr {
        self.address6(0xfd01)
    }

    /// The link-layer address of its interface `front`.
    pub fn mac(&self) -> Mac {
        Mac([2, 0, 0, 0, 0, self.number])
    }

    /// Its own addresses.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        let mut own = vec![self.front4(), self.front6()];
        if self.has_back() {
            own.extend([self.back4(), self.back6()]);
        }
        own
    }

    /// Addresses it may be asked on: its own, and the VIPs it may come to hold.
    pub fn addresses(&self) -> Vec<IpAddr> {
        [self.own_addresses(), vec![VIP4, VIP6]].concat()
    }

    /// A connection to its route netlink.
    pub fn route(&self) -> Route {
        Route::open(&self.netns)
    }

    /// Holds a VIP as a director does: on the front interface, answering ARP.
    pub fn hold_vip(&self, vip: IpAddr) {
        self.with_route(|route| route.add_address(FRONT, vip, host_prefix(vip)));
    }

    /// Gives up a VIP held by [`Self::hold_vip`].
    pub fn release_vip(&self, vip: IpAddr) {
        self.with_route(|route| route.delete_address(FRONT, vip, host_prefix(vip)));
    }

    /// Binds VIPs as a real server does: on a dummy link `vip0`. This alone does not keep it from answering ARP.
    pub fn bind_vips(&self, vips: &[IpAddr]) {
        self.with_route(|route| {
            route.add_dummy(VIP_LINK, "vip0");
            for vip in vips {
                route.add_address(VIP_LINK, *vip, host_prefix(*vip));
            }
        });
    }

    /// Keeps it from answering ARP for, and from announcing, addresses that the asked interface does not have.
    pub fn suppress_arp_by_sysctl(&self) {
        self.netns.run(|| {
            write_sysctl("ipv4/conf/all/arp_ignore", "1");
            write_sysctl("ipv4/conf/all/arp_announce", "2");
        });
    }

    /// Sends what is for elsewhere through `gateway`, as masquerading wants of a real server.
    pub fn default_via(&self, gateway: IpAddr) {
        let anywhere: IpAddr = if gateway.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        self.with_route(|route| route.add_route((anywhere, 0), Some(gateway), None));
    }

    /// Sends what it answers from its address on the back segment through `gateway`, as masquerading wants of a real
    /// server. A default route would not do: the client is its neighbour on the front segment.
    pub fn answers_through(&self, gateway: IpAddr) {
        let own = self.back4();
        self.netns.sh(&format!(
            "ip rule add from {own} lookup 100 && ip route add default via {gateway} table 100"
        ));
    }

    /// Pulls or plugs the cable of an interface, [`FRONT`] or [`BACK`].
    pub fn set_link(&self, index: u32, up: bool) {
        self.with_route(|route| route.set_up(index, up));
    }

    #[track_caller]
    fn with_route(&self, act: impl FnOnce(&mut Route)) {
        let mut route = self.route();
        act(&mut route);
        route.commit();
    }

    fn has_back(&self) -> bool {
        self.name() != "client"
    }

    fn address4(&self, segment: u8) -> IpAddr {
        Ipv4Addr::new(10, segment, 0, self.number).into()
    }

    fn address6(&self, network: u16) -> IpAddr {
        // The same digits as in IPv4, so that both are read alike: fd00::100 for 10.0.0.100.
        let number = u16::from(self.number);
        let host = number / 100 * 0x100 + number / 10 % 10 * 0x10 + number % 10;
        Ipv6Addr::new(network, 0, 0, 0, 0, 0, 0, host).into()
    }
}

/// The whole cluster. It goes away with the last process and socket in it.
#[derive(Debug)]
pub struct Topology {
    /// The switch with both bridges.
    pub switch: Netns,
    /// Where requests come from.
    pub client: Node,
    /// The first director.
    pub d1: Node,
    /// The second director.
    pub d2: Node,
    /// The first real server.
    pub rs1: Node,
    /// The second real server.
    pub rs2: Node,
    /// The third real server.
    pub rs3: Node,
}

impl Topology {
    /// Builds a cluster of its own, whatever else is running.
    pub fn new() -> Self {
        let topology = Self {
            switch: Netns::new("sw"),
            client: Node::new("client", 100),
            d1: Node::new("d1", 1),
            d2: Node::new("d2", 2),
            rs1: Node::new("rs1", 11),
            rs2: Node::new("rs2", 12),
            rs3: Node::new("rs3", 13),
        };
        topology.connect();
        topology
    }

    /// All nodes.
    pub fn nodes(&self) -> [&Node; 6] {
        [&self.client, &self.d1, &self.d2, &self.rs1, &self.rs2, &self.rs3]
    }

    /// The directors.
    pub fn directors(&self) -> [&Node; 2] {
        [&self.d1, &self.d2]
    }

    /// The real servers.
    pub fn real_servers(&self) -> [&Node; 3] {
        [&self.rs1, &self.rs2, &self.rs3]
    }

    /// The node whose front interface has this link-layer address.
    pub fn owner(&self, mac: Mac) -> &str {
        self.nodes()
            .into_iter()
            .find(|node| node.mac() == mac)
            .map_or("nobody", Node::name)
    }

    /// Makes all namespaces known to `ip netns`.
    pub fn publish(&self) {
        self.switch.publish();
        for node in self.nodes() {
            node.netns.publish();
        }
    }

    /// Lets the nodes reach the host as 10.0.2.2, through the VM's network card and from 10.0.2.(100 + their number).
    ///
    /// QEMU's user network answers every address of its segment, so the nodes are bridged to it and nothing is translated.
    pub fn connect_host(&self) {
        let root = Netns::current();
        let card = root.run(|| std::fs::read_to_string("/sys/class/net/eth0/ifindex"));
        let card: u32 = card
            .expect("the VM has a network card (run --net)")
            .trim()
            .parse()
            .unwrap();
        let mut route = Route::open(&root);
        let own = Ipv4Addr::new(10, 0, 2, 15).into();
        route.delete_address(card, own, 24);
        route.add_bridge(UPLINK, "uplink");
        route.add_address(UPLINK, own, 24);
        route.add_route(
            (Ipv4Addr::UNSPECIFIED.into(), 0),
            Some(Ipv4Addr::new(10, 0, 2, 2).into()),
            None,
        );
        route.set_master(card, UPLINK);
        for node in self.nodes() {
            let port = format!("{}-up", node.name());
            route.add_cable(
                End {
                    netns: None,
                    index: port_index(UPLINK, node),
                    name: &port,
                    mac: None,
                    master: Some(UPLINK),
                },
                End {
                    netns: Some(&node.netns),
                    index: UPLINK,
                    name: "uplink",
                    mac: None,
                    master: None,
                },
            );
        }
        route.commit();
        for node in self.nodes() {
            let address = Ipv4Addr::new(10, 0, 2, 100 + node.number).into();
            node.with_route(|route| {
                route.set_up(UPLINK, true);
                route.add_address(UPLINK, address, 24);
            });
        }
        wait_until_forwarding(&mut route);
    }

    /// Both bridges, a cable from each to each node, and the addresses.
    fn connect(&self) {
        let mut route = Route::open(&self.switch);
        route.set_up(LOOPBACK, true);
        for (name, bridge, ..) in SEGMENTS {
            route.add_bridge(bridge, name);
        }
        for node in self.nodes() {
            for (name, bridge, third, _) in segments(node) {
                let port = format!("{}-{name}", node.name());
                let mac = Mac([2, 0, 0, 0, third, node.number]);
                route.add_cable(
                    End {
                        netns: None,
                        index: port_index(bridge, node),
                        name: &port,
                        mac: None,
                        master: Some(bridge),
                    },
                    End {
                        netns: Some(&node.netns),
                        index: bridge,
                        name,
                        mac: Some(mac),
                        master: None,
                    },
                );
            }
        }
        route.commit();
        for node in self.nodes() {
            node.with_route(|route| {
                for (_, index, third, network) in segments(node) {
                    route.set_up(index, true);
                    route.add_address(index, node.address4(third), 24);
                    route.add_address(index, node.address6(network), 64);
                }
            });
        }
        wait_until_forwarding(&mut route);
    }
}

/// The segments a node is on: all but the client are on both.
fn segments(node: &Node) -> impl Iterator<Item = (&'static str, u32, u8, u16)> {
    SEGMENTS.into_iter().take(1 + usize::from(node.has_back()))
}

/// The kernel notices a carrier in the background. Until then a bridge drops what comes through the port, and a lost first
/// packet costs a TCP client a second and an SCTP client three.
fn wait_until_forwarding(route: &mut Route) {
    eventually(CARRIER_TIMEOUT, "all ports of the bridges forward", || {
        let (ports, forwarding) = route.bridge_ports();
        (ports > 0 && ports == forwarding).then_some(())
    });
}

/// An index for a node's port on a bridge.
fn port_index(bridge: u32, node: &Node) -> u32 {
    bridge * 1000 + u32::from(node.number)
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
