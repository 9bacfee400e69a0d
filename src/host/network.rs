//! The node's links, addresses and routes as a value, and the questions that planning asks of them.

use std::collections::HashSet;
use std::net::IpAddr;

/// The link on which kube-proxy in IPVS mode puts the addresses of all Services, on every node.
pub const KUBE_PROXY_LINK: &str = "kube-ipvs0";

/// What the node's network looked like when it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Links with their addresses, in the order of their indexes.
    pub links: Vec<Link>,
    /// Routes of the main table, but for those that go nowhere (`blackhole` and its like).
    pub routes: Vec<Route>,
    /// The addresses that are this node's, by somebody else's doing than Weir's: a node may have thousands of Weir's, and
    /// every real server is looked up here.
    own: HashSet<IpAddr>,
}

/// A link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: Box<str>,
    /// Whether Weir made it, which its alias says.
    pub ours: bool,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is `lo`.
    pub loopback: bool,
    /// Whether neighbours on it are asked for by ARP or neighbour discovery.
    pub resolves: bool,
    /// The longest packet it takes, in bytes, its own header not counted.
    pub mtu: u32,
    /// Its link-layer address, where it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Its addresses, in the kernel's order: the first of a network is the primary one.
    pub addresses: Vec<Address>,
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// How many leading bits are its network's.
    pub prefix: u8,
    /// Whether Weir added it, which its protocol tag says (`IFA_PROTO`).
    pub ours: bool,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The network it leads to.
    pub network: IpAddr,
    /// How many leading bits are the network's.
    pub prefix: u8,
    /// The link it leads over, by number.
    pub link: u32,
    /// Whether it leads through another router rather than straight to the neighbour.
    pub gateway: bool,
    /// Of two routes to one network the lower counts.
    pub metric: u32,
}

impl Network {
    /// A network of links with their addresses, and routes.
    pub fn new(links: Vec<Link>, routes: Vec<Route>) -> Self {
        // What kube-proxy has on every node tells none from another. It gives up what another link has as well.
        let own_links = links.iter().filter(|link| *link.name != *KUBE_PROXY_LINK);
        let addresses = own_links.flat_map(|link| &link.addresses);
        let own = addresses.filter(|own| !own.ours).map(|own| own.address);
        Self {
            own: own.collect(),
            links,
            routes,
        }
    }

    /// The same without the links and addresses that Weir put there: what planning depends on, which must not depend on what is
    /// planned.
    pub fn without_own(&self) -> Self {
        let mut network = self.clone();
        network.links.retain(|link| !link.ours);
        for link in &mut network.links {
            link.addresses.retain(|address| !address.ours);
        }
        network
    }

    /// The link of a name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| *link.name == *name)
    }

    /// Whether an address is the node's own, by somebody else's doing than Weir's or kube-proxy's.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// The link in whose network an address lies: the narrowest, where several do. Host addresses span no network.
    pub fn link_of_network(&self, address: IpAddr) -> Option<&Link> {
        self.links
            .iter()
            .filter(|link| !link.loopback && !link.ours)
            .flat_map(|link| link.addresses.iter().map(move |own| (own, link)))
            .filter(|(own, _)| own.prefix < width(own.address) && own.spans(address))
            .max_by_key(|(own, link)| (own.prefix, std::cmp::Reverse(link.index)))
            .map(|(_, link)| link)
    }

    /// The route that packets to an address take: the narrowest, then the one of the lowest metric.
    pub fn route_to(&self, address: IpAddr) -> Option<&Route> {
        self.routes
            .iter()
            .filter(|route| shares_prefix(route.network, address, route.prefix))
            .max_by_key(|route| (route.prefix, std::cmp::Reverse(route.metric)))
    }

    /// The link of a number.
    pub fn link_by_index(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }
}

impl Link {
    /// The address by which others know this link, of a family: the first that Weir did not add.
    pub fn primary_address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses
            .iter()
            .filter(|own| !own.ours && own.address.is_ipv6() == ipv6 && !is_link_local(own.address))
            .map(|own| own.address)
            .next()
    }

    /// Whether the link has an address, whoever added it.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.address == address)
    }
}

impl Address {
    fn spans(&self, address: IpAddr) -> bool {
        shares_prefix(self.address, address, self.prefix)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The bits of an address of a family.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn shares_prefix(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let (a, b, width) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let shift = width - u32::from(prefix).min(width);
    (a ^ b).checked_shr(shift).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, ours: bool) -> Address {
        let (address, prefix) = text.split_once('/').unwrap();
        Address {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
            ours,
        }
    }

    fn network() -> Network {
        let link = |index, name: &str, addresses: &[Address]| Link {
            index,
            name: name.into(),
            loopback: name == "lo",
            addresses: addresses.to_vec(),
            ..Link::default()
        };
        Network::new(
            vec![
                link(
                    1,
                    "lo",
                    &[address("127.0.0.1/8", false), address("10.0.0.77/32", false)],
                ),
                link(
                    2,
                    "eth0",
                    &[
                        address("10.0.0.200/32", true),
                        address("10.0.0.1/24", false),
                        address("fe80::1/64", false),
                        address("fd00::1/64", false),
                    ],
                ),
                link(3, "eth1", &[address("10.0.0.129/25", false)]),
                link(4, KUBE_PROXY_LINK, &[address("10.0.0.201/32", false)]),
            ],
            ["0.0.0.0/0 2 gw", "10.0.0.0/24 2", "10.0.0.128/25 3"]
                .iter()
                .map(|text| {
                    let mut words = text.split(' ');
                    let network = address(words.next().unwrap(), false);
                    Route {
                        network: network.address,
                        prefix: network.prefix,
                        link: words.next().unwrap().parse().unwrap(),
                        gateway: words.next().is_some(),
                        metric: 0,
                    }
                })
                .collect(),
        )
    }

    #[test]
    fn the_narrowest_network_has_an_address() {
        let network = network();
        let link = |address: &str| {
            network
                .link_of_network(address.parse().unwrap())
                .map(|link| &*link.name)
        };
        assert_eq!(link("10.0.0.5"), Some("eth0"));
        assert_eq!(link("10.0.0.200"), Some("eth1"));
        assert_eq!(link("fd00::200"), Some("eth0"));
        assert_eq!(link("127.0.0.5"), None, "lo carries no VIP");
        assert_eq!(link("192.0.2.1"), None);
    }

    #[test]
    fn what_weir_and_kube_proxy_added_is_not_the_nodes_own() {
        let network = network();
        assert!(network.is_own("10.0.0.1".parse().unwrap()));
        assert!(network.is_own("10.0.0.77".parse().unwrap()));
        assert!(!network.is_own("10.0.0.200".parse().unwrap()));
        assert!(!network.is_own("10.0.0.201".parse().unwrap()), "kube-proxy's");
        let eth0 = network.link("eth0").unwrap();
        assert_eq!(eth0.primary_address(false), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(eth0.primary_address(true), Some("fd00::1".parse().unwrap()));
    }

    #[test]
    fn the_narrowest_route_leads() {
        let network = network();
        let route = |address: &str| {
            let route = network.route_to(address.parse().unwrap())?;
            Some((route.link, route.gateway))
        };
        assert_eq!(route("10.0.0.130"), Some((3, false)));
        assert_eq!(route("192.0.2.1"), Some((2, true)));
        assert_eq!(route("fd00::5"), None);
    }
}
