//! What about a node stands in the way of what it should have: each thing that was looked at, with the way out where
//! something is wrong. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::ipvs::ServiceKey;
use crate::nft::{Base, Expression, ForeignChain, Hook, MetaKey, Register, Verdict};

use super::network::{KUBE_PROXY_LINK, Link, Network};
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

/// A link's name may hold dots, which the name of a setting writes as slashes (sysctl(8)).
fn escaped(link: &str) -> String {
    link.replace('.', "/")
}

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
            let question = Packet::question(vip, &link.name);
            let answer = Packet::answer(vip, link);
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

/// An ARP packet on its way in or out.
struct Packet {
    /// From the hardware type on (RFC 826).
    bytes: [u8; 28],
    link: Box<str>,
}

impl Packet {
    fn new(operation: u8, sender: Ipv4Addr, target: Ipv4Addr, mac: [u8; 6], link: &str) -> Self {
        let mut bytes = [0; 28];
        bytes[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
        bytes[8..14].copy_from_slice(&mac);
        bytes[14..18].copy_from_slice(&sender.octets());
        bytes[24..].copy_from_slice(&target.octets());
        Self {
            bytes,
            link: link.into(),
        }
    }

    /// Somebody's question who has the VIP. Who asks is unknown, so a rule that goes by that is not recognized.
    fn question(vip: Ipv4Addr, link: &str) -> Self {
        Self::new(1, Ipv4Addr::UNSPECIFIED, vip, [0; 6], link)
    }

    fn answer(vip: Ipv4Addr, link: &Link) -> Self {
        Self::new(
            2,
            vip,
            Ipv4Addr::UNSPECIFIED,
            link.mac.unwrap_or_default(),
            &link.name,
        )
    }

    /// What of a chain drops this packet for sure. Where a rule cannot be judged, nothing is said.
    fn dropped_by(&self, chain: &ForeignChain) -> Option<String> {
        for rule in &chain.rules {
            match self.meets(&rule.expressions)? {
                Some(Verdict::Drop) => return Some(format!("by the rule with handle {}", rule.handle)),
                Some(Verdict::Accept) => return None,
                None => {}
            }
        }
        (chain.policy == Verdict::Drop).then(|| "by its policy".to_owned())
    }

    /// The rule's verdict on this packet, if it comes to one; `None` where it cannot be judged.
    fn meets(&self, rule: &[Expression]) -> Option<Option<Verdict>> {
        let mut registers: BTreeMap<Register, Vec<u8>> = BTreeMap::new();
        for expression in rule {
            match expression {
                Expression::Payload {
                    base: Base::Network,
                    offset,
                    length,
                    register,
                } => {
                    let (offset, length) = (usize::try_from(*offset).ok()?, usize::try_from(*length).ok()?);
                    let bytes = self.bytes.get(offset..offset.checked_add(length)?)?;
                    registers.insert(*register, bytes.to_vec());
                }
                Expression::Meta {
                    key: MetaKey::InputInterface | MetaKey::OutputInterface,
                    register,
                } => {
                    let mut name = self.link.as_bytes().to_vec();
                    name.resize(16, 0);
                    registers.insert(*register, name);
                }
                Expression::Mask { register, mask } => {
                    let value = registers.get_mut(register)?;
                    value.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
                }
                Expression::Compare {
                    register,
                    equal,
                    value,
                } => {
                    if registers.get(register)?.starts_with(value) != *equal {
                        return Some(None);
                    }
                }
                Expression::Verdict(verdict) => return Some(Some(*verdict)),
                // It counts, and goes on.
                Expression::Unknown(name) if **name == *"counter" => {}
                _ => return None,
            }
        }
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Address, Route};
    use super::*;
    use crate::nft::ForeignRule;

    fn own(address: &str, prefix: u8) -> Address {
        Address {
            address: address.parse().unwrap(),
            prefix,
            ours: false,
        }
    }

    fn link(index: u32, name: &str, address: &str) -> Link {
        Link {
            index,
            name: name.into(),
            up: true,
            resolves: true,
            mtu: 1500,
            mac: Some([2, 0, 0, 0, 0, 1]),
            addresses: vec![own(address, 24)],
            ..Link::default()
        }
    }

    /// Two links; the default route leads over the second.
    fn node() -> Current {
        let default = Route {
            network: "0.0.0.0".parse().unwrap(),
            prefix: 0,
            link: 3,
            gateway: true,
            metric: 0,
        };
        Current {
            network: Network::new(
                vec![link(2, "eth0", "10.0.0.1"), link(3, "eth1", "10.1.0.1")],
                vec![default],
            ),
            rules: Some(Default::default()),
            arp_rules: true,
            ..Current::default()
        }
    }

    fn inspection(sysctls: &[(&str, &str)]) -> Inspection {
        Inspection {
            sysctls_writable: true,
            sysctls: sysctls
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            ..Inspection::default()
        }
    }

    fn director() -> HostState {
        let bound = BoundAddress {
            link: "eth0".into(),
            address: "10.0.0.200".parse().unwrap(),
        };
        HostState {
            addresses: [bound].into(),
            ..HostState::default()
        }
    }

    fn real_server() -> HostState {
        HostState {
            reached_at: ["10.0.0.1".parse().unwrap()].into(),
            ..HostState::default()
        }
    }

    fn problems(inspection: &Inspection, desired: &HostState) -> Vec<String> {
        preflight(inspection, &node(), desired)
            .iter()
            .filter(|check| check.result.is_err())
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_node_as_it_should_be_has_no_problem_and_every_check_says_so() {
        for desired in [director(), real_server(), HostState::default()] {
            assert_eq!(problems(&inspection(&[]), &desired), [""; 0]);
        }
        assert!(preflight(&inspection(&[]), &node(), &director()).len() > 3);
    }

    #[test]
    fn what_the_process_may_not_do_is_named() {
        let inspection = Inspection {
            missing_capabilities: vec!["CAP_NET_ADMIN", "CAP_NET_RAW"],
            ..Inspection::default()
        };
        let problems = problems(&inspection, &HostState::default());
        assert!(
            problems[0].starts_with("capabilities: CAP_NET_ADMIN and CAP_NET_RAW is missing"),
            "{problems:?}"
        );
        assert!(problems[1].contains("--sysctl-root"), "{problems:?}");
    }

    #[test]
    fn a_strict_filter_where_the_way_back_is_another_eats_packets_of_clients() {
        for scope in ["all", "eth0"] {
            let strict = inspection(&[(&format!("net.ipv4.conf.{scope}.rp_filter"), "1")]);
            let problems = problems(&strict, &real_server());
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(
                problems[0].contains("over eth1")
                    && problems[0].ends_with("sysctl -w net.ipv4.conf.eth0.rp_filter=2")
            );
        }
        let loose = inspection(&[
            ("net.ipv4.conf.all.rp_filter", "1"),
            ("net.ipv4.conf.eth0.rp_filter", "2"),
        ]);
        assert_eq!(problems(&loose, &real_server()), [""; 0]);
    }

    #[test]
    fn a_director_that_ignores_questions_is_told() {
        for (ignore, bad) in [("1", false), ("2", true), ("3", false), ("8", true)] {
            let inspection = inspection(&[("net.ipv4.conf.all.arp_ignore", ignore)]);
            assert_eq!(
                problems(&inspection, &director()).len(),
                usize::from(bad),
                "{ignore}"
            );
            assert_eq!(problems(&inspection, &real_server()), [""; 0]);
        }
    }

    #[test]
    fn who_is_quiet_by_settings_must_not_answer_for_others() {
        let by_settings = HostState {
            arp: [ArpMethod::Sysctl].into(),
            ..real_server()
        };
        let proxy = inspection(&[("net.ipv4.conf.eth0.proxy_arp", "1")]);
        assert_eq!(problems(&proxy, &by_settings).len(), 1);
        assert_eq!(problems(&proxy, &real_server()), [""; 0]);
    }

    #[test]
    fn what_kube_proxy_answers_for_is_told_where_weir_does_not_see_to_it() {
        let beside = |ignore: &str| Inspection {
            vips_of_kube_proxy: ["10.0.0.200", "10.0.0.201", "192.0.2.1"]
                .map(|vip| vip.parse().unwrap())
                .into(),
            ..inspection(&[("net.ipv4.conf.all.arp_ignore", ignore)])
        };
        let nothing = HostState::default();
        let found = problems(&beside("0"), &nothing);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(
                "net.ipv4.conf.eth0.arp_ignore: this node answers for 10.0.0.200 and 1 more on eth0"
            ),
            "{found:?}"
        );
        assert_eq!(problems(&beside("1"), &nothing), [""; 0]);
        let found = problems(&beside("0"), &director());
        assert!(found[0].contains("answers for 10.0.0.201 on eth0"), "{found:?}");
    }

    #[test]
    fn ipv6_real_servers_need_a_router() {
        let routes = HostState {
            routes_ipv6: true,
            ..HostState::default()
        };
        assert_eq!(problems(&inspection(&[(IPV6_FORWARDING, "0")]), &routes).len(), 1);
        assert_eq!(problems(&inspection(&[(IPV6_FORWARDING, "1")]), &routes), [""; 0]);
    }

    fn chain(hook: Hook, drops: bool, rule: Vec<Expression>) -> Inspection {
        Inspection {
            foreign_arp: vec![ForeignChain {
                table: "filter".into(),
                chain: "INPUT".into(),
                hook: Some(hook),
                priority: 0,
                policy: if drops { Verdict::Drop } else { Verdict::Accept },
                rules: vec![ForeignRule {
                    handle: 7,
                    expressions: rule,
                }],
            }],
            ..inspection(&[])
        }
    }

    fn field(offset: u32, value: &[u8]) -> [Expression; 2] {
        let payload = Expression::Payload {
            base: Base::Network,
            offset,
            length: value.len() as u32,
            register: Register(0),
        };
        let compare = Expression::Compare {
            register: Register(0),
            equal: true,
            value: value.to_vec(),
        };
        [payload, compare]
    }

    #[test]
    fn a_foreign_rule_that_makes_a_director_deaf_is_named() {
        let drop = [
            Expression::Unknown("counter".into()),
            Expression::Verdict(Verdict::Drop),
        ];
        let deaf = |vip: [u8; 4]| [field(24, &vip).as_slice(), &drop].concat();
        let problems_of = |inspection: &Inspection| problems(inspection, &director());
        let found = problems_of(&chain(Hook::Input, false, deaf([10, 0, 0, 200])));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("drops questions for 10.0.0.200 on eth0, by the rule with handle 7"),
            "{found:?}"
        );
        // Another address, another hook, a rule that nobody here can judge, an accept that comes first.
        assert_eq!(
            problems_of(&chain(Hook::Input, false, deaf([10, 0, 0, 201]))),
            [""; 0]
        );
        assert_eq!(
            problems_of(&chain(Hook::Output, false, deaf([10, 0, 0, 200]))),
            [""; 0]
        );
        let unknown = [Expression::Unknown("match".into())]
            .into_iter()
            .chain(drop.clone())
            .collect();
        assert_eq!(problems_of(&chain(Hook::Input, false, unknown)), [""; 0]);
        let accepts = vec![Expression::Verdict(Verdict::Accept)];
        assert_eq!(problems_of(&chain(Hook::Input, true, accepts)), [""; 0]);
    }

    #[test]
    fn a_foreign_policy_or_rule_that_makes_a_director_mute_is_named() {
        let by_policy = problems(&chain(Hook::Output, true, Vec::new()), &director());
        assert!(
            by_policy[0].contains("drops answers for 10.0.0.200 on eth0, by its policy"),
            "{by_policy:?}"
        );
        let mute = [
            field(14, &[10, 0, 0, 200]).as_slice(),
            &[Expression::Verdict(Verdict::Drop)],
        ]
        .concat();
        assert_eq!(problems(&chain(Hook::Output, false, mute), &director()).len(), 1);
    }

    #[test]
    fn rules_that_nobody_can_read_are_mentioned_to_directors() {
        let old = Inspection {
            old_arptables: vec!["filter".into()],
            ..inspection(&[])
        };
        assert_eq!(problems(&old, &director()).len(), 1);
        assert_eq!(problems(&old, &real_server()), [""; 0]);
    }

    #[test]
    fn dots_in_a_links_name_are_written_as_slashes() {
        let network = Network::new(vec![link(2, "eth0.7", "10.0.0.1")], Vec::new());
        assert!(settings(&network).contains(&"net.ipv4.conf.eth0/7.rp_filter".to_owned()));
    }
}
