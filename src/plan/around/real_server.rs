//! What a virtual service needs of a node that is one of its real servers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::catalog::validated::{AdminState, Binding, Listen, ValidatedForwarding};
use crate::catalog::{Finding, NamespacedName, ObjectRef, Reason};
use crate::host::{Around, ArpSuppression, GuePort, Listened, TunnelKind};
use crate::ipvs::{Family, ForwardingMethod, Tunnel, TunnelChecksum};

use super::{PROTOCOLS, Planner, RealServerAround, overhead};

impl Planner<'_> {
    pub(super) fn real_servers(&mut self) {
        let mut any = false;
        for (name, server) in self.selected() {
            let named = server.node_name.as_deref() == Some(&*self.subject.world.node.name);
            let own = self.subject.network.is_own(server.address);
            let forwarding = server.forwarding.unwrap_or(self.subject.service.forwarding);
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
                        self.subject.world.node.name, server.address
                    ),
                ));
            }
            let vips = self.vips_served_by(server.address, tunnel.is_some());
            // Of two objects with this address one may have been here before.
            let before = self.around.real_servers.remove(&server.address);
            let deleted = server.admin_state == AdminState::Deleted;
            let mut part = before.unwrap_or(RealServerAround {
                around: Around::default(),
                deleted,
            });
            part.deleted &= deleted;
            let around = &mut part.around;
            self.bind(&name, server.address, forwarding, &vips, around);
            match tunnel {
                Some(tunnel) if own => self.receive(server.address, tunnel, &vips, around),
                Some(_) => {}
                None => drop(around.reached_at.insert(server.address)),
            }
            self.around.real_servers.insert(server.address, part);
        }
        if any && self.vips.is_empty() && matches!(self.subject.service.listen, Listen::Mark { .. }) {
            self.findings.push(Finding::new(
                ObjectRef::virtual_service(self.subject.name),
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
        around: &mut Around,
    ) {
        let suppression = forwarding
            .arp_suppression
            .or(self.group.and_then(|group| group.arp_suppression))
            .unwrap_or(ArpSuppression::Auto);
        match forwarding.binding {
            Binding::None => {}
            Binding::Address => {
                around.held.extend(vips);
                let heard_of = vips.iter().filter(|vip| vip.is_ipv4());
                around.quiet.extend(heard_of.map(|vip| (*vip, suppression)));
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
                around.redirected.extend(redirected);
            }
        }
    }

    /// What clients connect to; behind somebody else's mark, anything on the VIPs.
    fn listened(&self) -> impl Iterator<Item = Listened> {
        let of_mark = match &self.subject.service.listen {
            Listen::Mark { .. } => self.vips.iter().copied().collect(),
            Listen::Addresses { .. } => Vec::new(),
        };
        let anything = of_mark
            .into_iter()
            .flat_map(|vip| PROTOCOLS.map(|protocol| Listened::new(vip, protocol, 0..=u16::MAX)));
        let listened = self
            .subject
            .services
            .iter()
            .flat_map(|service| &service.listened)
            .cloned();
        listened.chain(anything)
    }

    /// What takes tunnelled packets apart, and how long they may be.
    fn receive(&self, local: IpAddr, tunnel: Tunnel, vips: &BTreeSet<IpAddr>, around: &mut Around) {
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
            around.decapsulated.tunnels.insert((kind, local));
            let link = self.subject.network.links.iter().find(|link| link.has(local));
            if let Some(link) = link {
                let fits = link.mtu.saturating_sub(overhead(tunnel, Family::of(local)));
                let fits = u16::try_from(fits).unwrap_or(u16::MAX);
                let least = around.decapsulated.clamped.entry(*vip).or_insert(fits);
                *least = (*least).min(fits);
            }
        }
        if let Tunnel::Gue { port, .. } = tunnel {
            let ipv6 = local.is_ipv6();
            around.decapsulated.gue_ports.insert(GuePort { ipv6, port });
        }
    }
}
