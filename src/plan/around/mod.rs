//! One virtual service and the node's part in it → what it needs around the table. A file for each part.

mod director;
mod real_server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::catalog::validated::{ValidatedDirectorGroup, ValidatedRealServer, ValidatedVirtualService};
use crate::catalog::{Finding, NamespacedName};
use crate::host::{Around, Network};
use crate::ipvs::{Entry, Family, Protocol, ServiceKey, Tunnel, TunnelChecksum};

use super::roles::Role;
use super::services::{KernelService, vips};
use super::world::World;

/// What one virtual service needs of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceAround {
    /// As its active director.
    pub director: Around,
    /// As each of its real servers that is this node, by the address.
    pub real_servers: BTreeMap<IpAddr, RealServerAround>,
}

impl ServiceAround {
    /// As director, and as each of its real servers.
    pub fn all(&self) -> impl Iterator<Item = &Around> {
        let real_servers = self.real_servers.values().map(|part| &part.around);
        std::iter::once(&self.director).chain(real_servers)
    }
}

/// What a virtual service needs of a node as one of its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealServerAround {
    /// Its VIPs and what has to do with them.
    pub around: Around,
    /// Whether its object is deleted, and held only until its connections have ended.
    pub deleted: bool,
}

/// A virtual service whose part is planned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) world: &'a World,
    pub(super) network: &'a Network,
    pub(super) name: &'a NamespacedName,
    pub(super) service: &'a ValidatedVirtualService,
    /// The services of the kernel that it has, and their entries, in the order of their keys.
    pub(super) services: &'a [KernelService],
    pub(super) entries: &'a [(ServiceKey, Entry)],
}

/// Plans one virtual service's part.
pub(super) struct Planner<'a> {
    subject: Subject<'a>,
    group: Option<&'a ValidatedDirectorGroup>,
    vips: BTreeSet<IpAddr>,
    around: ServiceAround,
    findings: Vec<Finding>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(subject: Subject<'a>) -> Self {
        let Subject {
            world,
            service,
            services,
            ..
        } = subject;
        Self {
            subject,
            group: world.catalog.director_group(&service.director_group),
            vips: vips(service, services),
            around: ServiceAround::default(),
            findings: Vec::new(),
        }
    }

    /// What it needs, and what is to be said about that.
    pub(super) fn plan(mut self, role: Role) -> (ServiceAround, Vec<Finding>) {
        if role == Role::Active {
            self.director();
        }
        self.real_servers();
        (self.around, self.findings)
    }

    fn selected(&self) -> impl Iterator<Item = (NamespacedName, &'a ValidatedRealServer)> + use<'a> {
        let (catalog, namespace, service) = (
            &self.subject.world.catalog,
            self.subject.name.namespace.clone(),
            self.subject.service,
        );
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
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

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
