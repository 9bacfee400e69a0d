//! What is said of a node, by what is found on it.

use super::super::{Address, Route};
use super::*;
use crate::nft::{Base, Expression, ForeignRule, Register, Verdict};

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
