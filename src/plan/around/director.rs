//! What a virtual service needs of its active director.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::catalog::validated::{Snat, ValidatedFailover, ValidatedForwarding};
use crate::catalog::{Finding, ObjectRef, Reason};
use crate::host::{BoundAddress, Link, Listened};
use crate::ipvs::{Destination, DestinationKey, Family, ForwardingMethod, Protocol, ServiceKey};

use super::super::services::KernelService;
use super::{PROTOCOLS, Planner, overhead};

impl<'a> Planner<'a> {
    pub(super) fn director(&mut self) {
        self.answer();
        self.around.director.drains = true;
        for service in self.subject.services {
            if let ServiceKey::Mark { mark, .. } = service.key {
                let listened = service.listened.iter().cloned();
                self.around
                    .director
                    .marked
                    .extend(listened.map(|listened| (listened, mark.get())));
            }
        }
        self.masquerade();
        self.warn_of_long_datagrams();
    }

    /// Finds each VIP the link that carries it.
    fn answer(&mut self) {
        let routed = self
            .group
            .is_some_and(|group| group.failover == ValidatedFailover::Routed);
        for vip in self.vips.clone() {
            if routed {
                self.around.director.held.insert(vip);
            } else if !self.subject.network.is_own(vip)
                && let Some(link) = self.link_for(vip)
            {
                let link = link.into();
                self.around
                    .director
                    .answered
                    .insert(BoundAddress { link, address: vip });
            }
        }
    }

    fn link_for(&mut self, vip: IpAddr) -> Option<&'a str> {
        let named = self.group.and_then(|group| group.interface.as_deref());
        let link = match named {
            Some(interface) => self.subject.network.link(interface),
            None => self.subject.network.link_of_network(vip),
        };
        if let Some(link) = link {
            return Some(&link.name);
        }
        let (node, group) = (
            &self.subject.world.node.name,
            &self.subject.service.director_group,
        );
        self.findings.push(match named {
            Some(interface) => Finding::new(
                ObjectRef::director_group(group.clone()),
                "spec.interface",
                Reason::NotFound,
                format!("{node} has no link {interface}, so it cannot carry the VIPs: it has {}", self.link_names()),
            ),
            None => Finding::new(
                ObjectRef::virtual_service(self.subject.name),
                "spec.addresses",
                Reason::NotFound,
                format!(
                    "no link of {node} has a network that {vip} is in: say which one carries it in DirectorGroup \
                     {group}, spec.interface"
                ),
            ),
        });
        None
    }

    fn link_names(&self) -> String {
        let usable = self
            .subject
            .network
            .links
            .iter()
            .filter(|link| !link.loopback && !link.ours);
        let names: Vec<&str> = usable.map(|link| &*link.name).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    }

    /// What forwarding a real server has, by its address; the sorry server has the virtual service's.
    fn forwarding_by_address(&self) -> BTreeMap<IpAddr, ValidatedForwarding> {
        self.selected()
            .map(|(_, server)| {
                (
                    server.address,
                    server.forwarding.unwrap_or(self.subject.service.forwarding),
                )
            })
            .collect()
    }

    /// Masqueraded packets are routed on as any others, and where the answers would find another way to the client,
    /// the real server must think that this node asked.
    fn masquerade(&mut self) {
        let forwarding = self.forwarding_by_address();
        let mut hidden_by_itself = BTreeSet::new();
        for service in self.subject.services {
            for (key, destination) in self.destinations(service) {
                if destination.forwarding != ForwardingMethod::Masquerade
                    || self.subject.network.is_own(key.address)
                {
                    continue;
                }
                if key.address.is_ipv4() {
                    self.around
                        .director
                        .sysctls
                        .insert("net.ipv4.ip_forward".into(), "1".into());
                } else {
                    self.around.director.routes_ipv6 = true;
                }
                let snat = forwarding
                    .get(&key.address)
                    .map_or(self.subject.service.forwarding.snat, |own| own.snat);
                let hide = match snat {
                    Snat::Never => false,
                    Snat::Always => true,
                    Snat::Auto => !self.leads_back_here(key.address),
                };
                if hide {
                    let ports = ports_behind(service, key.port);
                    let masqueraded = ports
                        .into_iter()
                        .map(|(protocol, first, last)| Listened::new(key.address, protocol, first..=last));
                    self.around.director.masqueraded.extend(masqueraded);
                    self.around
                        .director
                        .sysctls
                        .insert("net.ipv4.vs.conntrack".into(), "1".into());
                }
                if hide && snat == Snat::Auto {
                    hidden_by_itself.insert(key.address);
                }
            }
        }
        if let Some(first) = hidden_by_itself.first() {
            let more = match hidden_by_itself.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            self.findings.push(Finding::new(
                ObjectRef::virtual_service(self.subject.name),
                "spec.forwarding.snat",
                Reason::Notice,
                format!(
                    "{first}{more} would answer past the director, so they see the director's address in place of \
                     the client's: make the director their way back and say Never, accept it and say Always, or use \
                     DirectRoute"
                ),
            ));
        }
    }

    /// Whether what a real server answers to a client comes through this node: if it lives on a network of this node's
    /// that the VIPs are not on, this node is its router. On the VIPs' own network it would answer the client, or
    /// another router, straight; and behind another router who knows.
    fn leads_back_here(&self, server: IpAddr) -> bool {
        let Some(route) = self
            .subject
            .network
            .route_to(server)
            .filter(|route| !route.gateway)
        else {
            return false;
        };
        let Some(link) = self.subject.network.link_by_index(route.link) else {
            return false;
        };
        self.around
            .director
            .answered
            .iter()
            .all(|vip| vip.link != link.name)
    }

    /// A TCP connection adapts to the room in a tunnel; datagrams do not.
    fn warn_of_long_datagrams(&mut self) {
        let mut narrowest: Option<(u32, u32, IpAddr)> = None;
        for service in self.subject.services {
            let datagrams = service
                .listened
                .iter()
                .any(|listened| listened.protocol != Protocol::Tcp);
            for (key, destination) in self.destinations(service).filter(|_| datagrams) {
                let ForwardingMethod::Tunnel(tunnel) = destination.forwarding else {
                    continue;
                };
                let mtu = |link: Option<&Link>| link.map(|link| link.mtu);
                let answered = self.around.director.answered.iter();
                let comes = answered
                    .filter_map(|vip| mtu(self.subject.network.link(&vip.link)))
                    .max();
                let route = self.subject.network.route_to(key.address);
                let leaves = route.and_then(|route| mtu(self.subject.network.link_by_index(route.link)));
                if let (Some(comes), Some(leaves)) = (comes, leaves) {
                    let fits = leaves.saturating_sub(overhead(tunnel, Family::of(key.address)));
                    if fits < comes && narrowest.is_none_or(|(least, ..)| fits < least) {
                        narrowest = Some((fits, comes, key.address));
                    }
                }
            }
        }
        if let Some((fits, comes, server)) = narrowest {
            self.findings.push(Finding::new(
                ObjectRef::virtual_service(self.subject.name),
                "spec.forwarding.tunnel",
                Reason::Notice,
                format!(
                    "packets of more than {fits} bytes do not fit into the tunnel to {server}, and clients may send \
                     {comes}: what is not TCP is answered with \"fragmentation needed\"; raise the MTU of the link to \
                     the real servers, or keep datagrams shorter"
                ),
            ));
        }
    }

    /// What the table has behind a service.
    fn destinations(
        &self,
        service: &KernelService,
    ) -> impl Iterator<Item = (&'a DestinationKey, &'a Destination)> + use<'a> {
        let place = self
            .subject
            .entries
            .binary_search_by_key(&service.key, |(key, _)| *key);
        let entry = place.ok().map(|place| &self.subject.entries[place].1);
        entry.into_iter().flat_map(|entry| &entry.destinations)
    }
}

/// The protocols and ports that packets to a destination have.
fn ports_behind(service: &KernelService, port: u16) -> Vec<(Protocol, u16, u16)> {
    let range = |first, last| if port == 0 { (first, last) } else { (port, port) };
    match service.key {
        ServiceKey::Address { protocol, .. } => {
            let (first, last) = range(0, u16::MAX);
            vec![(protocol, first, last)]
        }
        ServiceKey::Mark { .. } if service.listened.is_empty() => {
            let (first, last) = range(0, u16::MAX);
            PROTOCOLS.map(|protocol| (protocol, first, last)).to_vec()
        }
        ServiceKey::Mark { .. } => {
            let of = |listened: &Listened| {
                let (first, last) = range(listened.first, listened.last);
                (listened.protocol, first, last)
            };
            service.listened.iter().map(of).collect()
        }
    }
}
