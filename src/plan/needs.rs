//! Virtual services and the node's part in them → what they need of it around its table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::host::{
    ArpSuppression, BoundAddress, GuePort, KUBE_PROXY_LINK, Listened, Needs, Network, TunnelKind,
};
use crate::ipvs::{
    Destination, DestinationKey, Family, ForwardingMethod, Protocol, ServiceKey, SyncDaemon, SyncDaemonRole,
    Tunnel, TunnelChecksum,
};

use super::roles::{Node, Role};
use super::services::{KernelService, services, vips};
use super::{Plan, in_scope};
use crate::catalog::validated::{
    AdminState, Binding, Listen, Snat, ValidatedDirectorGroup, ValidatedFailover, ValidatedForwarding,
    ValidatedRealServer, ValidatedVirtualService,
};
use crate::catalog::{Catalog, Finding, NamespacedName, ObjectRef, Reason, Scope};

/// What the virtual services of a scope need of a node, and what is to be said about that.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeNeeds {
    /// By virtual service; those that need nothing are not here.
    pub needs: BTreeMap<NamespacedName, ServiceNeeds>,
    /// What is to be said about each virtual service of the scope and the objects it uses.
    pub findings: BTreeMap<NamespacedName, Vec<Finding>>,
}

/// What one virtual service needs of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceNeeds {
    /// As its active director.
    pub director: Needs,
    /// As each of its real servers that is this node, by the address.
    pub real_servers: BTreeMap<IpAddr, RealServerNeeds>,
}

impl ServiceNeeds {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Needs> {
        let real_servers = self.real_servers.values().map(|part| &part.needs);
        std::iter::once(&self.director).chain(real_servers)
    }
}

/// What a virtual service needs of a node as one of its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealServerNeeds {
    /// Its VIPs and what has to do with them.
    pub needs: Needs,
    /// Whether its object is deleted, and held only until its connections have ended.
    pub deleted: bool,
}

/// Plans what the virtual services of a scope need of a node around its table. `plan` is the table's, of the same scope.
pub fn node_needs(
    catalog: &Catalog,
    node: &Node,
    network: &Network,
    scope: &Scope,
    plan: &Plan,
) -> NodeNeeds {
    let mut all = NodeNeeds::default();
    for (name, service) in in_scope(catalog, scope) {
        let mut planner = Planner::new(catalog, node, network, &name, service);
        if planner.node.role_for(catalog, &name, service).0 == Role::Active {
            planner.director(plan);
        }
        planner.real_servers();
        let Planner {
            needs, mut findings, ..
        } = planner;
        if needs != ServiceNeeds::default() {
            all.needs.insert(name.clone(), needs);
        }
        if !findings.is_empty() {
            findings.sort();
            findings.dedup();
            all.findings.insert(name, findings);
        }
    }
    all
}

/// What the director groups themselves need of a node: the settings they own. Of two groups that own one, the first in
/// the order of names has it.
pub fn group_needs(catalog: &Catalog, node: &Node) -> Needs {
    let mut needs = Needs::default();
    for (_, group) in catalog.director_groups() {
        if node.role(group) != Role::None {
            for (name, value) in &group.sysctls {
                needs.sysctls.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    needs
}

/// The sync daemon that the node should run, by the first group, in the order of names, that wants connections passed on
/// and in which the node has a part: one sends as active, or receives as standby.
pub fn sync_daemon(catalog: &Catalog, node: &Node, network: &Network) -> Option<SyncDaemon> {
    let (name, group, sync) = catalog.director_groups().find_map(|(name, group)| {
        let has_part = node.role(group) != Role::None;
        Some((name, group, group.connection_sync.as_ref().filter(|_| has_part)?))
    })?;
    let interface = sync.interface.as_deref().or(group.interface.as_deref());
    let of_first_vip = || {
        let mut services = catalog.virtual_services();
        let (_, service) = services.find(|(_, service)| service.director_group == *name)?;
        let Listen::Addresses { addresses, .. } = &service.listen else {
            return None;
        };
        Some(&*network.link_of_network(*addresses.first()?)?.name)
    };
    let role = match node.role(group) {
        Role::Active => SyncDaemonRole::Master,
        Role::Standby | Role::None => SyncDaemonRole::Backup,
    };
    Some(SyncDaemon::new(
        role,
        interface.or_else(of_first_vip)?,
        sync.sync_id,
    ))
}

/// The VIPs that kube-proxy has on its link as well, of all virtual services: each node's kube-proxy has them, whatever its
/// part.
pub fn vips_of_kube_proxy(catalog: &Catalog, network: &Network) -> BTreeSet<IpAddr> {
    let Some(link) = network.link(KUBE_PROXY_LINK) else {
        return BTreeSet::new();
    };
    let vips = catalog
        .virtual_services()
        .flat_map(|(_, service)| service.listen.addresses());
    let vips: BTreeSet<IpAddr> = vips.copied().collect();
    let theirs = link.addresses.iter().map(|own| own.address);
    theirs.filter(|address| vips.contains(address)).collect()
}

struct Planner<'a> {
    catalog: &'a Catalog,
    node: &'a Node,
    network: &'a Network,
    name: &'a NamespacedName,
    service: &'a ValidatedVirtualService,
    group: Option<&'a ValidatedDirectorGroup>,
    services: Vec<KernelService>,
    vips: BTreeSet<IpAddr>,
    needs: ServiceNeeds,
    findings: Vec<Finding>,
}

impl<'a> Planner<'a> {
    fn new(
        catalog: &'a Catalog,
        node: &'a Node,
        network: &'a Network,
        name: &'a NamespacedName,
        service: &'a ValidatedVirtualService,
    ) -> Self {
        // What another virtual service has is said by the table's plan.
        let services = services(catalog, name, service, &mut Vec::new());
        Self {
            catalog,
            node,
            network,
            name,
            service,
            group: catalog.director_group(&service.director_group),
            vips: vips(service, &services),
            services,
            needs: ServiceNeeds::default(),
            findings: Vec::new(),
        }
    }

    fn director(&mut self, plan: &Plan) {
        self.answer();
        self.needs.director.drains = true;
        for service in &self.services {
            if let ServiceKey::Mark { mark, .. } = service.key {
                let listened = service.listened.iter().cloned();
                self.needs
                    .director
                    .marked
                    .extend(listened.map(|listened| (listened, mark.get())));
            }
        }
        self.masquerade(plan);
        self.warn_of_long_datagrams(plan);
    }

    /// Finds each VIP the link that carries it.
    fn answer(&mut self) {
        let routed = self
            .group
            .is_some_and(|group| group.failover == ValidatedFailover::Routed);
        for vip in self.vips.clone() {
            if routed {
                self.needs.director.held.insert(vip);
            } else if !self.network.is_own(vip)
                && let Some(link) = self.link_for(vip)
            {
                let link = link.into();
                self.needs
                    .director
                    .answered
                    .insert(BoundAddress { link, address: vip });
            }
        }
    }

    fn link_for(&mut self, vip: IpAddr) -> Option<&'a str> {
        let named = self.group.and_then(|group| group.interface.as_deref());
        let link = match named {
            Some(interface) => self.network.link(interface),
            None => self.network.link_of_network(vip),
        };
        if let Some(link) = link {
            return Some(&link.name);
        }
        let (node, group) = (&self.node.name, &self.service.director_group);
        self.findings.push(match named {
            Some(interface) => Finding::new(
                ObjectRef::director_group(group.clone()),
                "spec.interface",
                Reason::NotFound,
                format!("{node} has no link {interface}, so it cannot carry the VIPs: it has {}", self.link_names()),
            ),
            None => Finding::new(
                ObjectRef::virtual_service(self.name),
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
                    server.forwarding.unwrap_or(self.service.forwarding),
                )
            })
            .collect()
    }

    fn selected(&self) -> impl Iterator<Item = (NamespacedName, &'a ValidatedRealServer)> + use<'a> {
        let (catalog, namespace, service) = (self.catalog, self.name.namespace.clone(), self.service);
        service.backends.iter().flat_map(move |backend| {
            let namespace = namespace.clone();
            let selector = backend.source.selector();
            let servers = selector.map(|selector| catalog.select(&namespace, selector));
            let servers = servers.into_iter().flatten().collect::<Vec<_>>();
            servers.into_iter().map(move |(name, server)| {
                let name = NamespacedName {
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                (name, server)
            })
        })
    }

    /// Masqueraded packets are routed on as any others, and where the answers would find another way to the client,
    /// the real server must think that this node asked.
    fn masquerade(&mut self, plan: &Plan) {
        let forwarding = self.forwarding_by_address();
        let mut hidden_by_itself = BTreeSet::new();
        for service in &self.services {
            for (key, destination) in destinations(plan, service) {
                if destination.forwarding != ForwardingMethod::Masquerade || self.network.is_own(key.address)
                {
                    continue;
                }
                if key.address.is_ipv4() {
                    self.needs
                        .director
                        .sysctls
                        .insert("net.ipv4.ip_forward".into(), "1".into());
                } else {
                    self.needs.director.routes_ipv6 = true;
                }
                let snat = forwarding
                    .get(&key.address)
                    .map_or(self.service.forwarding.snat, |own| own.snat);
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
                    self.needs.director.masqueraded.extend(masqueraded);
                    self.needs
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
                ObjectRef::virtual_service(self.name),
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
        let Some(route) = self.network.route_to(server).filter(|route| !route.gateway) else {
            return false;
        };
        let Some(link) = self.network.link_by_index(route.link) else {
            return false;
        };
        self.needs
            .director
            .answered
            .iter()
            .all(|vip| vip.link != link.name)
    }

    /// A TCP connection adapts to the room in a tunnel; datagrams do not.
    fn warn_of_long_datagrams(&mut self, plan: &Plan) {
        let mut narrowest: Option<(u32, u32, IpAddr)> = None;
        for service in &self.services {
            let datagrams = service
                .listened
                .iter()
                .any(|listened| listened.protocol != Protocol::Tcp);
            for (key, destination) in destinations(plan, service).filter(|_| datagrams) {
                let ForwardingMethod::Tunnel(tunnel) = destination.forwarding else {
                    continue;
                };
                let mtu = |link: Option<&crate::host::Link>| link.map(|link| link.mtu);
                let answered = self.needs.director.answered.iter();
                let comes = answered.filter_map(|vip| mtu(self.network.link(&vip.link))).max();
                let route = self.network.route_to(key.address);
                let leaves = route.and_then(|route| mtu(self.network.link_by_index(route.link)));
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
                ObjectRef::virtual_service(self.name),
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

    fn real_servers(&mut self) {
        let mut any = false;
        for (name, server) in self.selected() {
            let named = server.node_name.as_deref() == Some(&*self.node.name);
            let own = self.network.is_own(server.address);
            let forwarding = server.forwarding.unwrap_or(self.service.forwarding);
            let tunnel = match forwarding.method {
                ForwardingMethod::DirectRoute => None,
                ForwardingMethod::Tunnel(tunnel) => Some(tunnel),
                _ => continue,
            };
            if !named && !own {
                continue;
            }
            any = true;
            if !own {
                self.findings.push(Finding::new(
                    ObjectRef::real_server(&name),
                    "spec.address",
                    Reason::Mismatch,
                    format!(
                        "it says that it is node {}, but no link of that node has {}: correct one of the two",
                        self.node.name, server.address
                    ),
                ));
            }
            let vips = self.vips_served_by(server.address, tunnel.is_some());
            // Of two objects with this address one may have been here before.
            let before = self.needs.real_servers.remove(&server.address);
            let deleted = server.admin_state == AdminState::Deleted;
            let mut part = before.unwrap_or(RealServerNeeds {
                needs: Needs::default(),
                deleted,
            });
            part.deleted &= deleted;
            let needs = &mut part.needs;
            self.bind(&name, server.address, forwarding, &vips, needs);
            match tunnel {
                Some(tunnel) if own => self.receive(server.address, tunnel, &vips, needs),
                Some(_) => {}
                None => drop(needs.reached_at.insert(server.address)),
            }
            self.needs.real_servers.insert(server.address, part);
        }
        if any && self.vips.is_empty() && matches!(self.service.listen, Listen::Mark { .. }) {
            self.findings.push(Finding::new(
                ObjectRef::virtual_service(self.name),
                "spec.addresses",
                Reason::Notice,
                "real servers cannot know which addresses the firewallMark stands for: give them here, or bind them \
                 by hand",
            ));
        }
    }

    /// In a dual-stack virtual service each real server serves the VIPs of its own family; only if there are none, and
    /// through a tunnel, the others.
    fn vips_served_by(&self, server: IpAddr, tunnel: bool) -> BTreeSet<IpAddr> {
        let same = |vip: &&IpAddr| vip.is_ipv4() == server.is_ipv4();
        let served: BTreeSet<IpAddr> = self.vips.iter().filter(same).copied().collect();
        if served.is_empty() && tunnel {
            self.vips.clone()
        } else {
            served
        }
    }

    fn bind(
        &mut self,
        name: &NamespacedName,
        server: IpAddr,
        forwarding: ValidatedForwarding,
        vips: &BTreeSet<IpAddr>,
        needs: &mut Needs,
    ) {
        let suppression = forwarding
            .arp_suppression
            .or(self.group.and_then(|group| group.arp_suppression))
            .unwrap_or(ArpSuppression::Auto);
        match forwarding.binding {
            Binding::None => {}
            Binding::Address => {
                needs.held.extend(vips);
                let heard_of = vips.iter().filter(|vip| vip.is_ipv4());
                needs.quiet.extend(heard_of.map(|vip| (*vip, suppression)));
            }
            Binding::Redirect if vips.iter().any(|vip| vip.is_ipv4() != server.is_ipv4()) => {
                self.findings.push(Finding::new(
                    ObjectRef::real_server(name),
                    "spec.forwarding.realServerBinding",
                    Reason::Mismatch,
                    format!(
                        "Redirect cannot translate a VIP of the other family to {server}: use Address for this real \
                         server"
                    ),
                ));
            }
            Binding::Redirect => {
                let listened = self
                    .listened()
                    .filter(|listened| vips.contains(&listened.address));
                let redirected: Vec<_> = listened.map(|listened| (listened, server)).collect();
                needs.redirected.extend(redirected);
            }
        }
    }

    /// What clients connect to; behind somebody else's mark, anything on the VIPs.
    fn listened(&self) -> impl Iterator<Item = Listened> {
        let of_mark = match &self.service.listen {
            Listen::Mark { .. } => self.vips.iter().copied().collect(),
            Listen::Addresses { .. } => Vec::new(),
        };
        let anything = of_mark
            .into_iter()
            .flat_map(|vip| PROTOCOLS.map(|protocol| Listened::new(vip, protocol, 0..=u16::MAX)));
        let listened = self
            .services
            .iter()
            .flat_map(|service| &service.listened)
            .cloned();
        listened.chain(anything)
    }

    /// What takes tunnelled packets apart, and how long they may be.
    fn receive(&self, local: IpAddr, tunnel: Tunnel, vips: &BTreeSet<IpAddr>, needs: &mut Needs) {
        for vip in vips {
            let kind = match (tunnel, local, vip) {
                (Tunnel::Gre { checksum }, _, _) => {
                    let checksum = checksum != TunnelChecksum::None;
                    match local {
                        IpAddr::V4(_) => TunnelKind::Gre { checksum },
                        IpAddr::V6(_) => TunnelKind::Ip6gre { checksum },
                    }
                }
                (_, IpAddr::V4(_), IpAddr::V4(_)) => TunnelKind::Ipip,
                (_, IpAddr::V4(_), IpAddr::V6(_)) => TunnelKind::Sit,
                (_, IpAddr::V6(_), _) => TunnelKind::Ip6tnl,
            };
            needs.tunnels.insert((kind, local));
            let link = self.network.links.iter().find(|link| link.has(local));
            if let Some(link) = link {
                let fits = link.mtu.saturating_sub(overhead(tunnel, Family::of(local)));
                let fits = u16::try_from(fits).unwrap_or(u16::MAX);
                let least = needs.clamped.entry(*vip).or_insert(fits);
                *least = (*least).min(fits);
            }
        }
        if let Tunnel::Gue { port, .. } = tunnel {
            let ipv6 = local.is_ipv6();
            needs.gue_ports.insert(GuePort { ipv6, port });
        }
    }
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// What the plan of the table has behind a service.
fn destinations<'a>(
    plan: &'a Plan,
    service: &KernelService,
) -> impl Iterator<Item = (&'a DestinationKey, &'a Destination)> + use<'a> {
    let entry = plan.table.services.get(&service.key);
    entry.into_iter().flat_map(|entry| &entry.destinations)
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

/// Bytes that a tunnel puts before a packet, its options included.
///
/// Source: `ip_vs_prepare_tunneled_skb`, `ip_vs_tunnel_xmit` and `__ip_vs_get_out_rt` in
/// `net/netfilter/ipvs/ip_vs_xmit.c`; `include/net/gue.h`.
fn overhead(tunnel: Tunnel, outer: Family) -> u32 {
    let address_header = match outer {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    let (udp, gue, gue_checksum_option, gre, gre_checksum) = (8, 4, 8, 4, 4);
    address_header
        + match tunnel {
            Tunnel::Ipip => 0,
            Tunnel::Gue {
                checksum: TunnelChecksum::Remote,
                ..
            } => udp + gue + gue_checksum_option,
            Tunnel::Gue { .. } => udp + gue,
            Tunnel::Gre {
                checksum: TunnelChecksum::None,
            } => gre,
            Tunnel::Gre { .. } => gre + gre_checksum,
        }
}
