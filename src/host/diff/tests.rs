//! The order of steps: who is heard when.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::{Address, Around, ArpSuppression, Link, LinkKind, Network, TunnelKind, VIP_LINK, desired};
use super::*;
use crate::host::Decapsulated;

const VIP: [u8; 4] = [10, 0, 0, 200];

fn vip() -> IpAddr {
    VIP.into()
}

/// A node with one link of its own.
fn bare() -> Current {
    let own = Address {
        address: [10, 0, 0, 1].into(),
        prefix: 24,
        ours: false,
    };
    let eth0 = Link {
        index: 2,
        name: "eth0".into(),
        up: true,
        resolves: true,
        mtu: 1500,
        addresses: vec![own],
        ..Link::default()
    };
    Current {
        network: Network::new(vec![eth0], Vec::new()),
        sysctls: super::super::SYSCTLS.map(|name| (name.into(), "0".into())).into(),
        rules: Some(Ruleset::new()),
        arp_rules: true,
        ..Current::default()
    }
}

/// The node when everything that should be is.
fn with(state: &HostState) -> Current {
    let mut current = bare();
    current.links.clone_from(&state.links);
    let links = (9..).zip(state.links.keys()).map(|(index, name)| Link {
        index,
        name: name.clone(),
        ours: true,
        ..Link::default()
    });
    current.network.links.extend(links);
    for bound in &state.addresses {
        let link = current
            .network
            .links
            .iter_mut()
            .find(|link| link.name == bound.link)
            .unwrap();
        link.addresses.push(Address {
            address: bound.address,
            prefix: 32,
            ours: true,
        });
    }
    for (name, value) in &state.sysctls {
        let before = current
            .sysctls
            .insert(name.clone(), value.clone())
            .unwrap_or_default();
        let set = value.clone();
        current
            .changed_sysctls
            .insert(name.clone(), super::super::ChangedSysctl { before, set });
    }
    current.rules = Some(state.rules.clone());
    current.gue_ports.clone_from(&state.gue_ports);
    current.own_gue_ports.clone_from(&state.gue_ports);
    current
}

fn director() -> Around {
    let bound = BoundAddress {
        link: "eth0".into(),
        address: vip(),
    };
    Around {
        answered: [bound].into(),
        ..Around::default()
    }
}

fn real_server() -> Around {
    Around {
        held: [vip()].into(),
        quiet: [(vip(), ArpSuppression::Auto)].into(),
        ..Around::default()
    }
}

fn both() -> Around {
    Around {
        answered: director().answered,
        ..real_server()
    }
}

fn state(needs: &[Around]) -> HostState {
    desired(needs.iter(), &BTreeMap::new(), &bare())
}

/// What happens before and after the table on the way from some needs to others, without numbers.
fn story(from: &[Around], to: &[Around]) -> [Vec<String>; 2] {
    let Steps { before, after } = diff(&with(&state(from)), &state(to), false);
    let words = |change: &HostChange| match change {
        HostChange::ChangeRules(_) => "rules".to_owned(),
        other => other.to_string(),
    };
    [before, after].map(|steps| steps.iter().map(words).collect())
}

#[test]
fn nothing_to_do_is_no_step() {
    for needs in [[director()], [real_server()], [both()]] {
        assert_eq!(story(&needs, &needs), [[""; 0], [""; 0]]);
    }
}

#[test]
fn a_real_server_is_quiet_before_it_has_the_vip_and_as_long_as_it_has_it() {
    let came = story(&[], &[real_server()]);
    assert_eq!(
        came[0],
        [
            "add link weir0 (dummy)",
            "rules",
            "add address 10.0.0.200 on weir0"
        ]
    );
    assert_eq!(came[1], [""; 0]);
    let went = story(&[real_server()], &[]);
    assert_eq!(went[0], [""; 0]);
    assert_eq!(
        went[1],
        ["delete address 10.0.0.200 on weir0", "rules", "delete link weir0"]
    );
}

#[test]
fn a_director_answers_when_its_table_is_there_and_no_longer_when_it_goes() {
    let came = story(&[], &[director()]);
    assert_eq!(came[0], [""; 0]);
    assert_eq!(
        came[1],
        ["add address 10.0.0.200 on eth0", "announce 10.0.0.200 on eth0"]
    );
    let went = story(&[director()], &[]);
    assert_eq!(went[0], ["delete address 10.0.0.200 on eth0"]);
    assert_eq!(went[1], [""; 0]);
}

#[test]
fn taking_is_lift_then_announce_and_giving_is_suppress_then_release() {
    let took = story(&[real_server()], &[both()]);
    assert_eq!(took[0], [""; 0]);
    assert_eq!(
        took[1],
        [
            "rules",
            "add address 10.0.0.200 on eth0",
            "announce 10.0.0.200 on eth0"
        ]
    );
    let gave = story(&[both()], &[real_server()]);
    assert_eq!(gave[0], ["rules", "delete address 10.0.0.200 on eth0"]);
    assert_eq!(gave[1], [""; 0]);
}

#[test]
fn settings_are_there_before_addresses_and_restored_last_and_stay_while_roles_change() {
    let by_settings = |needs: Around| Around {
        quiet: [(vip(), ArpSuppression::Sysctl)].into(),
        ..needs
    };
    let came = story(&[], &[by_settings(real_server())]);
    assert_eq!(
        came[0],
        [
            "add link weir0 (dummy)",
            "set net.ipv4.conf.all.arp_announce to 2",
            "set net.ipv4.conf.all.arp_ignore to 1",
            "add address 10.0.0.200 on weir0",
        ]
    );
    let took = story(&[by_settings(real_server())], &[by_settings(both())]);
    assert_eq!(
        took[1],
        ["add address 10.0.0.200 on eth0", "announce 10.0.0.200 on eth0"]
    );
    let went = story(&[by_settings(real_server())], &[]);
    assert_eq!(
        went[1],
        [
            "delete address 10.0.0.200 on weir0",
            "delete link weir0",
            "restore net.ipv4.conf.all.arp_announce",
            "restore net.ipv4.conf.all.arp_ignore",
        ]
    );
}

#[test]
fn a_stricter_setting_of_somebody_else_is_enough() {
    let mut current = bare();
    current
        .sysctls
        .insert("net.ipv4.conf.all.arp_ignore".into(), "2".into());
    let needs = Around {
        quiet: [(vip(), ArpSuppression::Sysctl)].into(),
        ..real_server()
    };
    let steps = diff(
        &current,
        &desired([&needs].into_iter(), &BTreeMap::new(), &current),
        false,
    );
    assert!(
        !steps.all().any(|step| step.to_string().contains("arp_ignore")),
        "{steps:?}"
    );
}

#[test]
fn a_kernel_without_rules_for_arp_is_quiet_by_settings() {
    let current = Current {
        arp_rules: false,
        ..bare()
    };
    let state = desired([&real_server()].into_iter(), &BTreeMap::new(), &current);
    assert_eq!(state.rules, Ruleset::new());
    assert_eq!(state.sysctls.len(), 2);
}

#[test]
fn while_not_all_that_is_wanted_is_known_nothing_is_taken_away() {
    let mut everything = real_server();
    everything.decapsulated.tunnels = [(super::super::TunnelKind::Ipip, [10, 0, 0, 1].into())].into();
    everything.sysctls = [("net.ipv4.ip_forward".into(), "1".into())].into();
    let needs = [everything, director()];
    assert_eq!(
        diff(&with(&state(&needs)), &HostState::default(), true),
        Steps::default()
    );
    let all = diff(&with(&state(&needs)), &HostState::default(), false);
    assert!(
        all.all()
            .any(|step| matches!(step, HostChange::DeleteLink { .. }))
    );
}

#[test]
fn a_link_of_another_kind_is_made_anew() {
    let mut current = with(&state(&[real_server()]));
    let tunnel = LinkKind::Tunnel {
        kind: TunnelKind::Ipip,
        local: vip(),
    };
    current.links.insert(VIP_LINK.into(), tunnel);
    let steps = diff(&current, &state(&[real_server()]), false);
    let words: Vec<String> = steps.all().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "delete link weir0",
            "add link weir0 (dummy)",
            "add address 10.0.0.200 on weir0"
        ]
    );
}

#[test]
fn the_way_out_of_a_tunnel_is_open_however_strict_the_node_is() {
    let behind = |checksum| Around {
        decapsulated: Decapsulated {
            tunnels: [(TunnelKind::Gre { checksum }, [10, 0, 0, 1].into())].into(),
            ..Decapsulated::default()
        },
        ..real_server()
    };
    let opened = [
        "set net.ipv4.conf.weir-gre-ff78d.rp_filter to 2",
        "add address 192.0.0.8 on weir-gre-ff78d",
    ];
    let came = story(&[], &[behind(false)]);
    assert!(
        opened.iter().all(|step| came[0].contains(&(*step).to_owned())),
        "{came:?}"
    );
    // A link that is made anew begins as any.
    let anew = story(&[behind(false)], &[behind(true)]);
    assert_eq!(anew[0].len(), 4, "{anew:?}");
    assert!(
        opened.iter().all(|step| anew[0].contains(&(*step).to_owned())),
        "{anew:?}"
    );
    // Neither the filter of IPv4 nor its addresses are anything to a tunnel of IPv6 packets.
    let of_ipv6 = Around {
        decapsulated: Decapsulated {
            tunnels: [(TunnelKind::Sit, [10, 0, 0, 1].into())].into(),
            ..Decapsulated::default()
        },
        ..real_server()
    };
    assert!(
        !story(&[], &[of_ipv6])[0]
            .iter()
            .any(|step| step.contains("set ") || step.contains("192.0.0.8"))
    );
}

#[test]
fn settings_that_kube_proxy_wants_as_well_are_not_put_back_beside_it() {
    let changed = super::super::ChangedSysctl {
        before: "0".into(),
        set: "1".into(),
    };
    let mut current = bare();
    for name in ["net.ipv4.conf.eth0.rp_filter", "net.ipv4.vs.conntrack"] {
        current.changed_sysctls.insert(name.into(), changed.clone());
    }
    let put_back = |current: &Current| -> Vec<Box<str>> {
        let steps = diff(current, &HostState::default(), false);
        let names = steps.all().filter_map(|change| match change {
            HostChange::RestoreSysctl { name } => Some(name.clone()),
            _ => None,
        });
        names.collect()
    };
    assert_eq!(put_back(&current).len(), 2);
    current.network.links.push(Link {
        name: KUBE_PROXY_LINK.into(),
        ..Link::default()
    });
    assert_eq!(put_back(&current), ["net.ipv4.conf.eth0.rp_filter".into()]);
}
