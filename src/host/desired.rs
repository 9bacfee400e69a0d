//! What all virtual services need around the table → what a node should have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::digest;

use super::around::{Around, ArpSuppression, Decapsulated};
use super::rules::{RuleParts, ruleset};
use super::state::{
    ArpMethod, BoundAddress, Current, HostState, LinkKind, TUNNEL_ADDRESS, TunnelKind, VIP_LINK,
};

/// Answer only for addresses of the link that is asked on; 2 asks yet more of the asker, 8 answers nobody.
const ARP_IGNORE: (&str, &[&str]) = ("net.ipv4.conf.all.arp_ignore", &["1", "2", "8"]);
/// Ask in the name of an address of the link.
const ARP_ANNOUNCE: (&str, &[&str]) = ("net.ipv4.conf.all.arp_announce", &["2"]);

/// What a drained destination leaves behind does not lead to it any more: a client that persistence binds to it is bound
/// to another, and a packet of a connection to it starts a new one, instead of being dropped
/// (`Documentation/networking/ipvs-sysctl.rst`).
const AFTER_DRAINING: [&str; 2] = [
    "net.ipv4.vs.expire_quiescent_template",
    "net.ipv4.vs.expire_nodest_conn",
];

/// Settings that Weir may want, whatever the virtual services are; their values are read at every look.
pub const SYSCTLS: [&str; 6] = [
    ARP_IGNORE.0,
    ARP_ANNOUNCE.0,
    "net.ipv4.ip_forward",
    "net.ipv4.vs.conntrack",
    AFTER_DRAINING[0],
    AFTER_DRAINING[1],
];

/// What a node should have for its virtual services, and the settings that director groups own. `current` tells its links
/// and what its kernel can do.
pub fn desired<'a>(
    around: impl Iterator<Item = &'a Around>,
    of_groups: &BTreeMap<Box<str>, Box<str>>,
    current: &Current,
) -> HostState {
    let mut parts = Parts::default();
    for one in around {
        parts.add(one, current);
    }
    for (name, value) in of_groups {
        parts.own(name, value);
    }
    parts.compose(current)
}

/// What has been gathered of all virtual services.
#[derive(Default)]
struct Parts {
    state: HostState,
    rules: RuleParts,
    drains: bool,
    quiet: BTreeMap<IpAddr, BTreeSet<ArpMethod>>,
}

impl Parts {
    fn add(&mut self, around: &Around, current: &Current) {
        let Around {
            answered,
            held,
            quiet,
            redirected,
            marked,
            masqueraded,
            decapsulated,
            reached_at,
            drains,
            routes_ipv6,
            sysctls,
        } = around;
        let state = &mut self.state;
        self.drains |= drains;
        state.reached_at.extend(reached_at);
        state.routes_ipv6 |= routes_ipv6;
        state.addresses.extend(answered.iter().cloned());
        state.addresses.extend(held.iter().map(|vip| BoundAddress {
            link: VIP_LINK.into(),
            address: *vip,
        }));
        for (vip, suppression) in quiet {
            let methods = self.quiet.entry(*vip).or_default();
            methods.extend(method(*suppression, current));
        }
        self.rules.redirected.extend(redirected.clone());
        self.rules.marked.extend(marked.clone());
        let masqueraded = masqueraded.iter().map(|listened| (listened.clone(), ()));
        self.rules.masqueraded.extend(masqueraded);
        for (name, value) in sysctls {
            self.own(name, value);
        }
        self.decapsulate(decapsulated);
    }

    /// A setting that somebody else wants already stays as that wants it.
    fn own(&mut self, name: &str, value: &str) {
        let sysctls = &mut self.state.sysctls;
        sysctls.entry(name.into()).or_insert_with(|| value.into());
    }

    fn decapsulate(&mut self, decapsulated: &Decapsulated) {
        let Decapsulated {
            tunnels,
            gue_ports,
            clamped,
        } = decapsulated;
        let state = &mut self.state;
        for (vip, fits) in clamped {
            let least = self.rules.clamped.entry(*vip).or_insert(*fits);
            *least = (*least).min(*fits);
        }
        for (kind, local) in tunnels {
            let (kind, local) = (*kind, *local);
            let name = tunnel_name(kind, local);
            if kind.brings_ipv4() {
                let (setting, value) = loose_filter(&name);
                state.sysctls.insert(setting, value);
                state.addresses.insert(BoundAddress {
                    link: name.clone(),
                    address: TUNNEL_ADDRESS.into(),
                });
            }
            state.links.insert(name, LinkKind::Tunnel { kind, local });
        }
        state.gue_ports.extend(gue_ports);
    }

    fn compose(mut self, current: &Current) -> HostState {
        if self.drains {
            for name in AFTER_DRAINING {
                // A director group may say otherwise.
                self.own(name, "1");
            }
        }
        let Self {
            mut state,
            mut rules,
            mut quiet,
            ..
        } = self;
        if state.addresses.iter().any(|bound| *bound.link == *VIP_LINK) {
            state.links.insert(VIP_LINK.into(), LinkKind::Dummy);
        }
        // Who is director of a VIP answers for it and balances it, even if it is real server of the same VIP as well.
        let answered: BTreeSet<IpAddr> = state.answered().map(|bound| bound.address).collect();
        rules
            .redirected
            .retain(|listened, _| !answered.contains(&listened.address));
        // Settings hold for every VIP and do no harm to one that is on the link it is asked for on, so that they stay while
        // roles come and go.
        state.arp = quiet.values().flatten().copied().collect();
        quiet.retain(|vip, methods| methods.contains(&ArpMethod::Nftables) && !answered.contains(vip));
        rules.quiet = quiet.into_keys().collect();
        if state.arp.contains(&ArpMethod::Sysctl) {
            suppress_by_settings(&mut state, current);
        }
        state.rules = ruleset(&rules, &current.network);
        state
    }
}

/// A stricter setting that is there already is enough.
fn suppress_by_settings(state: &mut HostState, current: &Current) {
    for (name, enough) in [ARP_IGNORE, ARP_ANNOUNCE] {
        let is_set = current
            .sysctls
            .get(name)
            .filter(|value| enough.contains(&&***value));
        let value = is_set.cloned().unwrap_or_else(|| enough[0].into());
        state.sysctls.insert(name.into(), value);
    }
}

fn method(suppression: ArpSuppression, current: &Current) -> Option<ArpMethod> {
    match suppression {
        ArpSuppression::None => None,
        ArpSuppression::Nftables => Some(ArpMethod::Nftables),
        ArpSuppression::Sysctl => Some(ArpMethod::Sysctl),
        ArpSuppression::Auto if current.arp_rules => Some(ArpMethod::Nftables),
        ArpSuppression::Auto => Some(ArpMethod::Sysctl),
    }
}

/// What comes out of a tunnel is from clients, to whom no route leads over it. The larger of this setting and `conf.all`
/// counts, and 2 asks only that there be some route.
fn loose_filter(tunnel: &str) -> (Box<str>, Box<str>) {
    (format!("net.ipv4.conf.{tunnel}.rp_filter").into(), "2".into())
}

/// `weir-ipip-1a2b3`: a link's name has at most 15 bytes, so that of an address there is a digest in it.
fn tunnel_name(kind: TunnelKind, local: IpAddr) -> Box<str> {
    let kind = match kind {
        TunnelKind::Ipip => "ipip",
        TunnelKind::Sit => "sit",
        TunnelKind::Ip6tnl => "ip6",
        TunnelKind::Gre { .. } => "gre",
        TunnelKind::Ip6gre { .. } => "gre6",
    };
    let digest = digest::text(&local.to_string()) & 0xf_ffff;
    format!("weir-{kind}-{digest:05x}").into()
}
