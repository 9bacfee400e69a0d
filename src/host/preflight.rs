//! What about a node stands in the way of what it should have: each thing that was looked at, with the way out where
//! something is wrong. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::ipvs::ServiceKey;
use crate::nft::{ArpPacket, ForeignChain, Hook};

use super::network::{KUBE_PROXY_LINK, Link, Network};
use super::setting::escaped;
use super::state::{ArpMethod, BoundAddress, Current, HostState};

/// What was looked at beside what a pass reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Capabilities that this process lacks, by the kernel's names.
    pub missing_capabilities: Vec<&'static str>,
    /// Whether settings can be written.
    pub sysctls_writable: bool,
    /// The settings that [`settings`] names and this kernel has.
    pub sysctls: BTreeMap<Box<str>, Box<str>>,
    /// Other people's chains of nftables' family `arp`.
    pub foreign_arp: Vec<ForeignChain>,
    /// Tables of the old arptables, whose rules nftables does not show (`/proc/net/arp_tables_names`).
    pub old_arptables: Vec<Box<str>>,
    /// VIPs, whether or not this node has a part in them, that kube-proxy has on its link: addresses of Services as well.
    pub vips_of_kube_proxy: BTreeSet<IpAddr>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// What.
    pub subject: Box<str>,
    /// How it is, where all is well; what is wrong and the way out, where not.
    pub result: Result<Box<str>, Box<str>>,
}

/// `net.ipv4.conf.eth0.rp_filter: …`.
impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.subject, self.words())
    }
}

impl Check {
    /// How it is, or what is wrong and the way out.
    pub fn words(&self) -> &str {
        let (Ok(words) | Err(words)) = &self.result;
        words
    }

    fn good(subject: &str, how: impl Into<Box<str>>) -> Self {
        Self {
            subject: subject.into(),
            result: Ok(how.into()),
        }
    }

    fn bad(subject: &str, problem: impl Into<Box<str>>) -> Self {
        Self {
            subject: subject.into(),
            result: Err(problem.into()),
        }
    }
}

/// The settings that tell whether a node does what it should.
pub fn settings(network: &Network) -> Vec<String> {
    let of_link = |link: &Link| {
        ["rp_filter", "arp_ignore", "proxy_arp"]
            .map(|name| format!("net.ipv4.conf.{}.{name}", escaped(&link.name)))
    };
    let mut names: Vec<String> = heard_on(network).flat_map(of_link).collect();
    names.extend(["rp_filter", "arp_ignore"].map(|name| format!("net.ipv4.conf.all.{name}")));
    names.push(IPV6_FORWARDING.to_owned());
    names
}

const IPV6_FORWARDING: &str = "net.ipv6.conf.all.forwarding";

/// Links on which neighbours may ask for a VIP.
fn heard_on(network: &Network) -> impl Iterator<Item = &Link> {
    network
        .links
        .iter()
        .filter(|link| link.resolves && !link.loopback && !link.ours && link.primary_address(false).is_some())
}

/// Looks at everything that what a node should have depends on.
pub fn preflight(inspection: &Inspection, current: &Current, desired: &HostState) -> Vec<Check> {
    let look = Look {
        inspection,
        network: &current.network,
        desired,
    };
    let mut checks = vec![look.capabilities(), look.writable(), rules(current, desired)];
    checks.extend(look.routers());
    checks.extend(look.sources());
    checks.extend(look.questions_heard());
    checks.extend(look.questions_answered_for_others());
    checks.extend(look.questions_answered_by_kube_proxy());
    checks.extend(look.foreign_rules());
    checks.extend(look.old_arptables());
    checks
}

fn rules(current: &Current, desired: &HostState) -> Check {
    match (&current.rules, current.arp_rules) {
        (None, _) if desired.rules.is_empty() => {
            Check::good("nftables", "this kernel has none, and none is needed")
        }
        (None, _) => Check::bad(
            "nftables",
            "this kernel has no nf_tables, which marks, translation and MSS clamping need: load the module nf_tables",
        ),
        (Some(_), false) => Check::good("nftables", "without family arp: ARP is suppressed by settings"),
        (Some(_), true) => Check::good("nftables", "with family arp"),
    }
}

struct Look<'a> {
    inspection: &'a Inspection,
    network: &'a Network,
    desired: &'a HostState,
}

impl Look<'_> {
    fn sysctl(&self, name: &str) -> Option<&str> {
        self.inspection.sysctls.get(name).map(|value| &**value)
    }

    /// A setting of a link as the kernel takes it: the larger of `all` and the link's.
    fn of_link(&self, link: &str, name: &str) -> u8 {
        let value = |scope: &str| {
            let value = self.sysctl(&format!("net.ipv4.conf.{}.{name}", escaped(scope)));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        u8::max(value("all"), value(link))
    }

    fn capabilities(&self) -> Check {
        let missing = &self.inspection.missing_capabilities;
        if missing.is_empty() {
            return Check::good("capabilities", "CAP_NET_ADMIN, CAP_NET_RAW");
        }
        Check::bad(
            "capabilities",
            format!(
                "{} is missing: run as root, or give it by the pod's securityContext or the unit's AmbientCapabilities",
                missing.join(" and ")
            ),
        )
    }

    fn writable(&self) -> Check {
        if self.inspection.sysctls_writable {
            return Check::good("settings", "can be written");
        }
        Check::bad(
            "settings",
            "/proc/sys/net is read-only here: mount the node's at another place and name it with --sysctl-root",
        )
    }

    fn answered(&self) -> impl Iterator<Item = &BoundAddress> {
        self.desired.answered()
    }

    /// Links that carry VIPs of which this node is the active director.
    fn directing(&self) -> BTreeSet<&str> {
        self.answered()
            .filter(|bound| bound.address.is_ipv4())
            .map(|bound| &*bound.link)
            .collect()
    }

    /// Masqueraded packets are routed on.
    fn routers(&self) -> Option<Check> {
        if !self.desired.routes_ipv6 {
            return None;
        }
        Some(match self.sysctl(IPV6_FORWARDING) {
            Some("1") => Check::good(IPV6_FORWARDING, "1"),
            _ => Check::bad(
                IPV6_FORWARDING,
                format!(
                    "it is off, and answers of IPv6 real servers are not passed on to clients: sysctl -w \
                     {IPV6_FORWARDING}=1. Weir leaves that to you, because a router no longer listens to other \
                     routers: where the default route comes from router advertisements, set accept_ra=2 first"
                ),
            ),
        })
    }

    /// Packets of clients come by the link that a real server is reached on, and its answers leave by the default route.
    fn sources(&self) -> Vec<Check> {
        let anywhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let Some(back) = self.network.route_to(anywhere) else {
            return Vec::new();
        };
        let reached = |link: &&Link| {
            link.addresses
                .iter()
                .any(|own| self.desired.reached_at.contains(&own.address))
        };
        heard_on(self.network)
            .filter(reached)
            .map(|link| {
                let name = format!("net.ipv4.conf.{}.rp_filter", escaped(&link.name));
                if back.link == link.index || self.of_link(&link.name, "rp_filter") != 1 {
                    return Check::good(&name, "lets packets of clients in");
                }
                let other = self.network.link_by_index(back.link).map_or("another link", |link| &link.name);
                Check::bad(
                    &name,
                    format!(
                        "packets of clients come by {} but the way back to them leads over {other}, so the kernel \
                         drops them: sysctl -w {name}=2",
                        link.name
                    ),
                )
            })
            .collect()
    }

    /// A director must answer for a VIP, which is a host address of its own.
    fn questions_heard(&self) -> Vec<Check> {
        let check = |link: &str| {
            let name = format!("net.ipv4.conf.{}.arp_ignore", escaped(link));
            match self.of_link(link, "arp_ignore") {
                ignore @ (2 | 4..) => Check::bad(
                    &name,
                    format!(
                        "with {ignore} (here or in conf.all) this director does not answer for the VIPs on {link}: set \
                         it to 1, which is enough for real servers as well"
                    ),
                ),
                _ => Check::good(&name, "lets the VIPs be answered for"),
            }
        };
        self.directing().into_iter().map(check).collect()
    }

    /// Settings keep a node from answering for itself, not for others.
    fn questions_answered_for_others(&self) -> Vec<Check> {
        if !self.desired.arp.contains(&ArpMethod::Sysctl) {
            return Vec::new();
        }
        heard_on(self.network)
            .filter(|link| self.of_link(&link.name, "proxy_arp") != 0)
            .map(|link| {
                let name = format!("net.ipv4.conf.{}.proxy_arp", escaped(&link.name));
                Check::bad(
                    &name,
                    format!(
                        "this real server answers for other hosts on {}, the VIPs among them: sysctl -w {name}=0, or \
                         use arpSuppression Nftables",
                        link.name
                    ),
                )
            })
            .collect()
    }

    /// An address on kube-proxy's link is this node's, so the kernel answers for it on every other link. Where Weir has
    /// put it on a link of its own, it has seen to that.
    fn questions_answered_by_kube_proxy(&self) -> Vec<Check> {
        let handled = |vip: &IpAddr| self.desired.addresses.iter().any(|bound| bound.address == *vip);
        let mut heard: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for vip in &self.inspection.vips_of_kube_proxy {
            let link = self
                .network
                .link_of_network(*vip)
                .filter(|_| vip.is_ipv4() && !handled(vip));
            if let Some(link) = link.filter(|link| self.of_link(&link.name, "arp_ignore") == 0) {
                heard.entry(&link.name).or_default().push(*vip);
            }
        }
        let check = |(link, vips): (&str, Vec<IpAddr>)| {
            Check::bad(
                &format!("net.ipv4.conf.{}.arp_ignore", escaped(link)),
                format!(
                    "this node answers for {} on {link} besides the director, because kube-proxy has it on \
                     {KUBE_PROXY_LINK}, as an address of a Service: set ipvs.strictARP in kube-proxy's configuration, or \
                     take the address out of the Service",
                    first_of(&vips)
                ),
            )
        };
        heard.into_iter().map(check).collect()
    }

    /// A rule that drops questions for a VIP, or the answers, makes a director deaf or mute.
    fn foreign_rules(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for bound in self.answered() {
            let (IpAddr::V4(vip), Some(link)) = (bound.address, self.network.link(&bound.link)) else {
                continue;
            };
            let question = ArpPacket::question(vip, &link.name);
            let answer = ArpPacket::answer(vip, &link.name, link.mac.unwrap_or_default());
            for chain in &self.inspection.foreign_arp {
                let (packet, what) = match chain.hook {
                    Some(Hook::Input) => (&question, "questions for"),
                    Some(Hook::Output) => (&answer, "answers for"),
                    _ => continue,
                };
                if let Some(by) = packet.dropped_by(chain) {
                    checks.push(Check::bad(
                        &format!("nftables arp {}", chain.table),
                        format!(
                            "chain {} drops {what} {vip} on {}, {by}: take that out, since this node is its director; \
                             real servers are kept quiet by Weir",
                            chain.chain, link.name
                        ),
                    ));
                }
            }
        }
        checks
    }

    fn old_arptables(&self) -> Option<Check> {
        let tables = &self.inspection.old_arptables;
        if tables.is_empty() || self.directing().is_empty() {
            return None;
        }
        Some(Check::bad(
            "arptables",
            "rules of the old arptables may be in force, which nobody but itself can read: look for the VIPs in \
             arptables-legacy -L, and remove the module arptable_filter when it is not needed",
        ))
    }
}

/// What is to be said of virtual services that somebody deleted, or else changed, where kube-proxy is in IPVS mode.
pub fn changed_beside_kube_proxy(deleted: &[ServiceKey], changed: &[ServiceKey]) -> Vec<Check> {
    let mut checks = Vec::new();
    if !deleted.is_empty() {
        checks.push(Check::bad(
            "kube-proxy, ipvs.excludeCIDRs",
            "kube-proxy in IPVS mode runs here, and virtual services of Weir's have been deleted since the last look: it \
             deletes all that it does not know. Name the VIPs' networks in ipvs.excludeCIDRs of its configuration and \
             restart it",
        ));
    }
    if !changed.is_empty() {
        checks.push(Check::bad(
            "kube-proxy, addresses of Services",
            format!(
                "kube-proxy in IPVS mode runs here, and {} has been changed since the last look: a Service seems to have \
                 the same address and port. Take it out of the Service's externalIPs (or say ipMode: Proxy beside it in \
                 status.loadBalancer.ingress), or give the virtual service another",
                first_of(changed)
            ),
        ));
    }
    checks
}

/// `10.0.0.200`, `10.0.0.200 and 3 more`.
fn first_of<T: fmt::Display>(all: &[T]) -> String {
    match all {
        [] => String::new(),
        [one] => one.to_string(),
        [first, more @ ..] => format!("{first} and {} more", more.len()),
    }
}

#[cfg(test)]
mod tests;
