//! Which events concern a node.

use std::net::IpAddr;

use super::*;
use crate::catalog::MarkMask;
use crate::host::{Address, Network};
use crate::netlink::Program;
use crate::plan::Node;

const OWN: u32 = 7;
const OTHER: u32 = 8;

/// A node with `eth0`, which has an address, and `veth1`, which has none.
fn world() -> World {
    let link = |index, name: &str, addresses: &[IpAddr]| Link {
        index,
        name: name.into(),
        addresses: addresses
            .iter()
            .map(|address| Address {
                address: *address,
                prefix: 24,
                ours: false,
            })
            .collect(),
        ..Link::default()
    };
    let links = vec![link(2, "eth0", &[[10, 0, 0, 1].into()]), link(3, "veth1", &[])];
    World {
        network: Some(Network::new(links, Vec::new())),
        ..World::new(Node::default(), MarkMask::default())
    }
}

/// Events are told what time it is.
#[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
fn start() -> Instant {
    Instant::now()
}

fn concerned(port: u32, heard: Heard) -> Option<Concerned> {
    let mut hearing = Hearing::default();
    hearing.took_steps(false, [OWN], start());
    hearing.judge(&Event { port, heard }, &world(), start())
}

fn address(text: &str) -> Heard {
    Heard::Address {
        link: 2,
        address: text.parse().unwrap(),
        protocol: None,
        removed: true,
    }
}

fn link(index: u32, name: &str, carrier: bool) -> Heard {
    Heard::Link {
        index,
        name: Some(name.into()),
        carrier,
        removed: false,
    }
}

#[test]
fn what_others_do_concerns_and_own_changes_do_not() {
    let addresses = Some(Concerned::Around(Work::Addresses));
    for heard in [
        address("10.0.0.200"),
        link(2, "eth0", true),
        Heard::Route {
            table: MAIN,
            removed: true,
        },
    ] {
        assert_eq!(concerned(OTHER, heard.clone()), addresses, "{heard:?}");
        assert_eq!(concerned(OWN, heard.clone()), None, "{heard:?}");
    }
}

#[test]
fn what_weir_has_nothing_to_do_with_concerns_nobody() {
    for heard in [
        address("fe80::1"),
        link(3, "veth1", true),
        link(9, "veth2", true),
        Heard::Route {
            table: 255,
            removed: true,
        },
        Heard::Ruleset {
            table: "kube-proxy".into(),
        },
        Heard::GenericFamily {
            name: "ethtool".into(),
            appeared: true,
        },
    ] {
        assert_eq!(concerned(OTHER, heard.clone()), None, "{heard:?}");
    }
}

#[test]
fn what_the_kernel_does_not_say_who_caused_is_an_echo_only_soon_after_own_steps() {
    let (mut hearing, start) = (Hearing::default(), start());
    hearing.took_steps(true, [OWN], start);
    let event = Event {
        port: 0,
        heard: address("fd00::200"),
    };
    assert_eq!(hearing.judge(&event, &world(), start), None);
    let later = hearing.judge(&event, &world(), start + ECHO);
    assert_eq!(later, Some(Concerned::Around(Work::Addresses)));
}

#[test]
fn a_link_that_carries_packets_again_is_told_once() {
    let (mut hearing, start) = (Hearing::default(), start());
    let mut hear = |carrier| {
        let event = Event {
            port: 0,
            heard: link(2, "eth0", carrier),
        };
        hearing.judge(&event, &world(), start)
    };
    let around = Some(Concerned::Around(Work::Addresses));
    assert_eq!([hear(true), hear(false)], [around.clone(), around.clone()]);
    assert_eq!(hear(true), Some(Concerned::Carrier("eth0".into())));
    assert_eq!(hear(true), around);
}

#[test]
fn who_changed_rules_is_told_only_of_weirs() {
    let (mut hearing, start) = (Hearing::default(), start());
    let by = Some(Program {
        process: 42,
        name: "nft".into(),
    });
    let generation = Event {
        port: OTHER,
        heard: Heard::Generation { by },
    };
    assert_eq!(hearing.judge(&generation, &world(), start), None);
    let rules = Event {
        port: OTHER,
        heard: Heard::Ruleset { table: TABLE.into() },
    };
    let around = Some(Concerned::Around(Work::Rules));
    assert_eq!(hearing.judge(&rules, &world(), start), around);
    let program = Some(Concerned::Program("nft (process 42)".to_owned()));
    assert_eq!(hearing.judge(&generation, &world(), start), program);
    assert_eq!(hearing.judge(&generation, &world(), start), None);
}

#[test]
fn looks_that_find_nothing_come_less_and_less_often() {
    let (mut hearing, mut now) = (Hearing::default(), start());
    let mut waits = Vec::new();
    for _ in 0..9 {
        let look = hearing.look_at(now);
        waits.push((look - now).as_millis());
        hearing.begin_look();
        hearing.looked(false, look);
        now = look;
    }
    assert_eq!(waits, [10, 10, 10, 20, 40, 80, 160, 320, 640]);
    hearing.begin_look();
    hearing.looked(true, now);
    assert_eq!(hearing.look_at(now), now + QUIET);
}
