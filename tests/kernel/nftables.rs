//! The kernel's nf_tables through Weir's eyes, with nft as the second opinion and ARP on a segment as the third.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::lab::netns::Netns;
use crate::lab::sniff::{EtherType, Sniffer, who_answers};
use crate::lab::topology::{Topology, VIP4};
use crate::poll::scaled;
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use weir::nft::{
    Base, Chain, ChainKind, Element, Expression, Family, Field, Hook, KernelRuleset, MetaKey, NftError,
    Register, Rule, Ruleset, Set, Table, Transaction, Verdict, transaction, widened,
};

const R0: Register = Register(0);
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where the ARP header has the operation, the sender's address and the address asked for, with IPv4 over Ethernet.
const ARP_OPERATION: u32 = 6;
const ARP_SENDER: u32 = 14;
const ARP_TARGET: u32 = 24;

fn namespace() -> Netns {
    Netns::new("nft")
}

fn element(address: IpAddr) -> Element {
    Element {
        first: octets(address),
        last: None,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Address, protocol and port as registers hold them.
fn endpoint(address: IpAddr, protocol: u8, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [octets(address), vec![protocol, 0, 0, 0, high, low, 0, 0]].concat()
}

fn ports(address: IpAddr, protocol: u8, first: u16, last: u16) -> Element {
    Element {
        first: endpoint(address, protocol, first),
        last: Some(endpoint(address, protocol, last)),
    }
}

fn load(base: Base, offset: u32, length: u32, register: Register) -> Expression {
    Expression::Payload {
        base,
        offset,
        length,
        register,
    }
}

fn equals(register: Register, value: &[u8]) -> Expression {
    Expression::Compare {
        register,
        equal: true,
        value: value.to_vec(),
    }
}

fn lookup(set: &str, register: Register, into: Option<Register>) -> Expression {
    Expression::Lookup {
        set: set.into(),
        register,
        into,
    }
}

fn set(key: &[Field], elements: impl IntoIterator<Item = Element>) -> Set {
    Set {
        key: key.to_vec(),
        data: None,
        ranges: false,
        elements: elements.into_iter().map(|element| (element, None)).collect(),
    }
}

fn range_map(key: &[Field], data: Field, elements: impl IntoIterator<Item = (Element, Vec<u8>)>) -> Set {
    Set {
        key: key.to_vec(),
        data: Some(data),
        ranges: true,
        elements: elements
            .into_iter()
            .map(|(element, data)| (element, Some(data)))
            .collect(),
    }
}

fn chain(kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        kind,
        hook,
        priority,
        rules,
    }
}

fn table<const SETS: usize, const CHAINS: usize>(
    sets: [(&str, Set); SETS],
    chains: [(&str, Chain); CHAINS],
) -> Table {
    Table {
        sets: sets.map(|(name, set)| (name.into(), set)).into(),
        chains: chains.map(|(name, chain)| (name.into(), chain)).into(),
    }
}

/// Keeps quiet about VIPs: requests for them are not answered, and questions of our own are asked in an interface's own
/// name.
fn quiet(vips: impl IntoIterator<Item = Ipv4Addr>, interfaces: &[(&str, Ipv4Addr)]) -> Table {
    let request = vec![
        load(Base::Network, ARP_OPERATION, 2, R0),
        equals(R0, &[0, 1]),
        load(Base::Network, ARP_TARGET, 4, R0),
        lookup("vips", R0, None),
        Expression::Verdict(Verdict::Drop),
    ];
    let mut output: Vec<Rule> = interfaces
        .iter()
        .map(|(name, own)| {
            let mut padded = name.as_bytes().to_vec();
            padded.resize(16, 0);
            vec![
                Expression::Meta {
                    key: MetaKey::OutputInterface,
                    register: R0,
                },
                equals(R0, &padded),
                load(Base::Network, ARP_SENDER, 4, R0),
                lookup("vips", R0, None),
                Expression::Immediate {
                    register: R0,
                    value: own.octets().to_vec(),
                },
                Expression::PayloadWrite {
                    base: Base::Network,
                    offset: ARP_SENDER,
                    length: 4,
                    register: R0,
                },
                Expression::Verdict(Verdict::Accept),
            ]
        })
        .collect();
    output.push(vec![
        load(Base::Network, ARP_SENDER, 4, R0),
        lookup("vips", R0, None),
        Expression::Verdict(Verdict::Drop),
    ]);
    let vips = vips.into_iter().map(|vip| element(vip.into()));
    table(
        [("vips", set(&[Field::Ipv4Address], vips))],
        [
            ("input", chain(ChainKind::Filter, Hook::Input, 0, vec![request])),
            ("output", chain(ChainKind::Filter, Hook::Output, 0, output)),
        ],
    )
}

/// What the tables of IPv4 and IPv6 are made from.
#[derive(Debug, Clone, Default)]
struct Contents {
    translated: Vec<(Element, IpAddr)>,
    marked: Vec<(Element, u32)>,
    masqueraded: Vec<(IpAddr, u8, u16)>,
    clamped: Vec<IpAddr>,
}

/// Translates, marks, masquerades and clamps.
fn inet(family: Family, contents: &Contents) -> Table {
    let (address, length, source, destination) = match family {
        Family::Ipv6 => (Field::Ipv6Address, 16, 8, 24),
        _ => (Field::Ipv4Address, 4, 12, 16),
    };
    let words = u8::try_from(length / 4).unwrap();
    let key = [address, Field::Protocol, Field::Port];
    let of_destination = |then: Vec<Expression>| -> Rule {
        let mut rule = vec![
            load(Base::Network, destination, length, R0),
            Expression::Meta {
                key: MetaKey::Protocol,
                register: Register(words),
            },
            load(Base::Transport, 2, 2, Register(words + 1)),
        ];
        rule.extend(then);
        rule
    };
    let translate = of_destination(vec![
        lookup("translated", R0, Some(R0)),
        Expression::DestinationNat { family, address: R0 },
    ]);
    let mark = of_destination(vec![
        lookup("marked", R0, Some(R0)),
        Expression::SetMark { register: R0 },
    ]);
    let masquerade = of_destination(vec![lookup("masqueraded", R0, None), Expression::Masquerade]);
    let clamp = vec![
        Expression::Meta {
            key: MetaKey::Protocol,
            register: R0,
        },
        equals(R0, &[TCP]),
        load(Base::Transport, 13, 1, R0),
        Expression::Mask {
            register: R0,
            mask: vec![0x02],
        },
        Expression::Compare {
            register: R0,
            equal: false,
            value: vec![0],
        },
        load(Base::Network, source, length, Register(4)),
        lookup("clamped", Register(4), None),
        Expression::Immediate {
            register: Register(9),
            value: 1400u16.to_be_bytes().to_vec(),
        },
        Expression::ClampSegmentSize {
            register: Register(9),
        },
    ];
    let translated = contents
        .translated
        .iter()
        .map(|(element, to)| (element.clone(), octets(*to)));
    let marked = contents
        .marked
        .iter()
        .map(|(element, mark)| (element.clone(), mark.to_ne_bytes().to_vec()));
    let masqueraded = contents
        .masqueraded
        .iter()
        .map(|(address, protocol, port)| Element {
            first: endpoint(*address, *protocol, *port),
            last: None,
        });
    let clamped = contents.clamped.iter().map(|address| element(*address));
    table(
        [
            ("translated", range_map(&key, address, translated)),
            ("marked", range_map(&key, Field::Mark, marked)),
            ("masqueraded", set(&key, masqueraded)),
            ("clamped", set(&[address], clamped)),
        ],
        [
            (
                "translate",
                chain(ChainKind::Nat, Hook::Prerouting, -100, vec![translate]),
            ),
            (
                "mark",
                chain(ChainKind::Filter, Hook::Prerouting, -150, vec![mark]),
            ),
            (
                "masquerade",
                chain(ChainKind::Nat, Hook::Postrouting, 100, vec![masquerade]),
            ),
            ("clamp", chain(ChainKind::Filter, Hook::Output, -150, vec![clamp])),
        ],
    )
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()
}

/// Everything that Weir's rules use.
fn everything() -> Ruleset {
    let inet_of = |family: Family, vip: IpAddr, server: IpAddr| {
        inet(
            family,
            &Contents {
                translated: vec![
                    (ports(vip, TCP, 8000, 8999), server),
                    (ports(vip, UDP, 53, 53), vip),
                ],
                marked: vec![
                    (ports(vip, TCP, 80, 80), 0x1234_5678),
                    (ports(vip, TCP, 443, 450), 7),
                    (ports(server, UDP, 0, 65535), 8),
                ],
                masqueraded: vec![(server, TCP, 80), (server, 132, 3868)],
                clamped: vec![vip, server],
            },
        )
    };
    let own = [
        ("front", Ipv4Addr::new(10, 0, 0, 11)),
        ("back", Ipv4Addr::new(10, 1, 0, 11)),
    ];
    let vips = [200, 201, 202].map(|last| Ipv4Addr::new(10, 0, 0, last));
    [
        (Family::Arp, quiet(vips, &own)),
        (Family::Ipv4, inet_of(Family::Ipv4, v4(200), v4(11))),
        (Family::Ipv6, inet_of(Family::Ipv6, v6(0x200), v6(0x11))),
    ]
    .into()
}

/// What a connection of its own reads.
fn kernel_says() -> Ruleset {
    KernelRuleset::open().unwrap().read().unwrap()
}

fn go_to(kernel: &mut KernelRuleset, desired: &Ruleset) -> Transaction {
    let step = transaction(&kernel.read().unwrap(), desired);
    kernel
        .commit(&step)
        .unwrap_or_else(|error| panic!("{step}: {}", causes(&error)));
    step
}

/// An error with all its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let rest = error.source().map(causes);
    rest.map_or(error.to_string(), |rest| format!("{error}: {rest}"))
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn everything_comes_back_as_it_was_sent() {
    namespace().run(|| {
        let mut kernel = KernelRuleset::open().unwrap();
        assert_eq!(kernel.read().unwrap(), Ruleset::new());
        go_to(&mut kernel, &everything());
        assert_eq!(kernel_says(), everything());
        assert_eq!(kernel.read().unwrap(), everything());
        go_to(&mut kernel, &Ruleset::new());
        assert_eq!(kernel_says(), Ruleset::new());
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn nft_prints_what_weir_wrote_in_its_own_words() {
    let netns = namespace();
    netns.run(|| go_to(&mut KernelRuleset::open().unwrap(), &everything()));
    let listing = netns.sh("nft list ruleset");
    let lines: Vec<&str> = listing.lines().map(str::trim).collect();
    for line in [
        "table arp weir {",
        "elements = { 10.0.0.200, 10.0.0.201,",
        "type filter hook input priority filter; policy accept;",
        "arp operation request arp daddr ip @vips drop",
        "oifname \"front\" arp saddr ip @vips arp saddr ip set 10.0.0.11 accept",
        "arp saddr ip @vips drop",
        "table ip weir {",
        "type ipv4_addr . inet_proto . inet_service : mark",
        "flags interval",
        "10.0.0.200 . 6 . 80 : 0x12345678,",
        "10.0.0.200 . 6 . 443-450 : 0x00000007 }",
        "type ipv4_addr . inet_proto . inet_service : ipv4_addr",
        "elements = { 10.0.0.200 . 6 . 8000-8999 : 10.0.0.11,",
        "type nat hook prerouting priority dstnat; policy accept;",
        "dnat to ip daddr . meta l4proto . th dport map @translated",
        "type filter hook prerouting priority mangle; policy accept;",
        "meta mark set ip daddr . meta l4proto . th dport map @marked",
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip daddr . meta l4proto . th dport @masqueraded masquerade",
        "tcp flags syn ip saddr @clamped tcp option maxseg size set 1400",
        "table ip6 weir {",
        "type ipv6_addr . inet_proto . inet_service : ipv6_addr",
        "elements = { fd00::200 . 6 . 8000-8999 : fd00::11,",
        "dnat to ip6 daddr . meta l4proto . th dport map @translated",
    ] {
        assert!(lines.contains(&line), "nft does not say {line}:\n{listing}");
    }
}

/// One of a few tables of a family that differ in chains, or in elements alone.
fn some_table(family: Family) -> BoxedStrategy<Table> {
    let numbers = || btree_set(1..5u8, 0..4);
    match family {
        Family::Arp => (numbers(), 0..3usize)
            .prop_map(|(vips, interfaces)| {
                let own = [
                    ("front", Ipv4Addr::new(10, 0, 0, 11)),
                    ("back", Ipv4Addr::new(10, 1, 0, 11)),
                ];
                let vips = vips.into_iter().map(|last| Ipv4Addr::new(10, 0, 0, last));
                quiet(vips, &own[..interfaces])
            })
            .boxed(),
        family => {
            let address = move |last: u8| match family {
                Family::Ipv6 => v6(last.into()),
                _ => v4(last),
            };
            // Slots of ports keep the ranges of one table apart, but not from those of another.
            let ranges = || btree_map((1..3u8, 1..4u16), (0..8u16, 0..8u16, 1..3u8), 0..4);
            (ranges(), ranges(), numbers(), numbers(), any::<bool>())
                .prop_map(move |(translated, marked, masqueraded, clamped, clamps)| {
                    let range = |((last, slot), (first, span, _)): (&(u8, u16), &(u16, u16, u8))| {
                        let first = slot * 100 + first;
                        ports(address(*last), TCP, first, first + span)
                    };
                    let contents = Contents {
                        translated: translated
                            .iter()
                            .map(|entry| (range(entry), address(entry.1.2)))
                            .collect(),
                        marked: marked
                            .iter()
                            .map(|entry| (range(entry), entry.1.2.into()))
                            .collect(),
                        masqueraded: masqueraded
                            .into_iter()
                            .map(|last| (address(last), UDP, last.into()))
                            .collect(),
                        clamped: clamped.into_iter().map(address).collect(),
                    };
                    let mut table = inet(family, &contents);
                    if !clamps {
                        table.chains.remove("clamp");
                    }
                    table
                })
                .boxed()
        }
    }
}

fn some_ruleset() -> impl Strategy<Value = Ruleset> {
    let families = [Family::Arp, Family::Ipv4, Family::Ipv6];
    btree_set(select(families.to_vec()), 0..=3).prop_flat_map(|families| {
        let tables: Vec<_> = families
            .into_iter()
            .map(|family| (Just(family), some_table(family)))
            .collect();
        tables.prop_map(|tables| tables.into_iter().collect())
    })
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn the_kernel_goes_from_any_ruleset_to_any_other_by_way_of_both() {
    let mut runner = TestRunner::new(Config {
        cases: 32,
        failure_persistence: None,
        ..Config::default()
    });
    let law = |(before, after): (Ruleset, Ruleset)| {
        let both = widened(&before, &after);
        let steps = [&before, &after, &before, &both, &after];
        let (remembered, found): (Vec<_>, Vec<_>) = namespace().run(|| {
            let mut kernel = KernelRuleset::open().unwrap();
            steps
                .iter()
                .map(|step| {
                    go_to(&mut kernel, step);
                    (kernel.read().unwrap(), kernel_says())
                })
                .unzip()
        });
        prop_assert!(remembered.iter().eq(steps));
        prop_assert!(found.iter().eq(steps));
        Ok(())
    };
    runner.run(&(some_ruleset(), some_ruleset()), law).unwrap();
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_refused_transaction_leaves_everything_as_it_was() {
    namespace().run(|| {
        let mut kernel = KernelRuleset::open().unwrap();
        go_to(&mut kernel, &everything());
        let mut desired = everything();
        let vips = &mut desired
            .get_mut(&Family::Arp)
            .unwrap()
            .sets
            .get_mut("vips")
            .unwrap()
            .elements;
        vips.remove(&element(v4(200)));
        vips.insert(element(v4(210)), None);
        let chains = &mut desired.get_mut(&Family::Ipv4).unwrap().chains;
        chains
            .get_mut("mark")
            .unwrap()
            .rules
            .push(vec![lookup("nosuch", R0, None)]);
        desired.remove(&Family::Ipv6);
        let error = kernel.commit(&transaction(&everything(), &desired)).unwrap_err();
        assert_eq!(
            causes(&error),
            "cannot add rule 2 of chain mark of ip: expression 1, lookup: No such file or directory (os error 2)"
        );
        assert_eq!(kernel_says(), everything());
        assert_eq!(kernel.read().unwrap(), everything());
        go_to(&mut kernel, &Ruleset::new());
        assert_eq!(kernel_says(), Ruleset::new());
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn what_somebody_else_changes_in_weirs_tables_is_noticed() {
    let netns = namespace();
    let mut kernel = netns.run(|| KernelRuleset::open().unwrap());
    let seen = everything();
    go_to(&mut kernel, &seen);
    let mut desired = seen.clone();
    desired.remove(&Family::Ipv6);
    let step = transaction(&seen, &desired);
    netns.sh("nft add element arp weir vips { 10.0.0.99 }");
    assert!(matches!(kernel.commit(&step), Err(NftError::Stale)));
    let found = kernel.read().unwrap();
    assert!(
        found[&Family::Arp].sets["vips"]
            .elements
            .contains_key(&element(v4(99)))
    );
    assert!(found.contains_key(&Family::Ipv6));
    go_to(&mut kernel, &desired);
    assert_eq!(kernel.read().unwrap(), desired);

    // Whatever it is that was added, it is not what Weir would have written.
    for line in [
        "nft add rule arp weir input counter",
        "nft add chain arp weir regular",
        "nft 'add set arp weir other { type ipv4_addr; flags timeout; }'",
        "nft 'add set ip weir ranges { type inet_service; flags interval; }'",
        "nft 'add element arp weir vips { 10.0.0.98 comment \"mine\" }'",
        "nft 'add chain ip weir clamp { policy drop; }'",
        "nft 'add table ip weir { flags dormant; }'",
        "nft flush chain arp weir output",
        "nft delete table arp weir",
        "nft flush ruleset",
    ] {
        netns.sh(line);
        let found = kernel.read().unwrap();
        assert_ne!(found, desired, "after {line}");
        go_to(&mut kernel, &desired);
        assert_eq!(netns.run(kernel_says), desired, "after {line}");
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn other_tables_are_left_alone_and_their_changes_do_no_harm() {
    let netns = namespace();
    netns.sh(
        "nft add table ip other && nft add set ip other s '{ type ipv4_addr; elements = { 10.0.0.1 }; }' && \
         nft add chain ip other c '{ type filter hook prerouting priority -150; }' && \
         nft add rule ip other c ip saddr @s counter accept && \
         nft add table arp other && \
         nft add chain arp other c '{ type filter hook input priority 0; policy drop; }' && \
         nft add table inet weir && nft add chain inet weir c '{ type filter hook input priority 0; }'",
    );
    let others =
        || ["ip other", "arp other", "inet weir"].map(|name| netns.sh(&format!("nft list table {name}")));
    let before = others();
    let mut kernel = netns.run(|| KernelRuleset::open().unwrap());
    assert_eq!(kernel.read().unwrap(), Ruleset::new());
    let step = transaction(&Ruleset::new(), &everything());
    netns.sh("nft add table ip third");
    kernel.commit(&step).unwrap();
    netns.sh("nft add chain ip third c");
    let both = kernel.read().unwrap();
    assert_eq!(both, everything());
    netns.sh("nft delete table ip third");
    kernel.commit(&transaction(&both, &Ruleset::new())).unwrap();
    assert_eq!(others(), before);
    assert_eq!(netns.run(kernel_says), Ruleset::new());
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn thousands_of_vips_go_in_one_transaction() {
    namespace().run(|| {
        let addresses = |count: u32| (0..count).map(|number| Ipv4Addr::from(0x0a00_0000 + number));
        let of = |count: u32| -> Ruleset {
            let contents = Contents {
                translated: addresses(count)
                    .map(|vip| (ports(vip.into(), TCP, 80, 89), v4(11)))
                    .collect(),
                ..Contents::default()
            };
            [
                (Family::Arp, quiet(addresses(count), &[])),
                (Family::Ipv4, inet(Family::Ipv4, &contents)),
            ]
            .into()
        };
        let mut kernel = KernelRuleset::open().unwrap();
        // The first is longer than a socket's usual send buffer, the second lets many ranges go.
        for count in [5000, 2000, 1984, 2000] {
            go_to(&mut kernel, &of(count));
            assert_eq!(kernel_says(), of(count));
            assert_eq!(kernel.read().unwrap(), of(count));
        }
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn asking_for_family_arp_leaves_nothing_behind() {
    let netns = namespace();
    let mut kernel = netns.run(|| KernelRuleset::open().unwrap());
    go_to(&mut kernel, &everything());
    let before = netns.sh("nft list ruleset");
    assert!(kernel.has_arp().unwrap());
    assert_eq!(netns.sh("nft list ruleset"), before);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn other_programs_rules_for_arp_are_told() {
    let netns = namespace();
    let mut kernel = netns.run(|| KernelRuleset::open().unwrap());
    go_to(&mut kernel, &everything());
    assert_eq!(kernel.foreign_arp().unwrap(), []);
    netns.sh("nft add table arp x && nft add chain arp x regular && \
         nft add chain arp x y '{ type filter hook input priority 5; policy drop; }' && \
         nft add rule arp x y arp daddr ip 10.0.0.200 counter drop && nft add rule arp x y jump regular");
    netns.sh("arptables-nft -A INPUT -d 10.0.0.200 -j DROP");
    let foreign = kernel.foreign_arp().unwrap();
    let names: BTreeSet<_> = foreign
        .iter()
        .map(|chain| (&*chain.table, &*chain.chain))
        .collect();
    assert!(
        names.contains(&("x", "y")) && names.contains(&("filter", "INPUT")),
        "{names:?}"
    );
    let asked_for = |chain: &str| {
        let found = foreign.iter().find(|found| *found.chain == *chain).unwrap();
        assert_eq!(found.hook, Some(Hook::Input));
        let rule = &found.rules[0];
        assert!(rule.handle > 0);
        let expected = [
            load(Base::Network, ARP_TARGET, 4, R0),
            equals(R0, &[10, 0, 0, 200]),
            Expression::Unknown("counter".into()),
            Expression::Verdict(Verdict::Drop),
        ];
        assert!(rule.expressions.ends_with(&expected), "{rule:?}");
        found
    };
    let ours = asked_for("y");
    assert_eq!((ours.priority, ours.policy), (5, Verdict::Drop));
    assert_eq!(ours.rules[1].expressions, [Expression::Unknown("jump".into())]);
    assert_eq!(asked_for("INPUT").policy, Verdict::Accept);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn without_the_capability_the_way_out_is_told() {
    let netns = namespace();
    let error = netns.run(|| {
        let sets = capabilities(None).unwrap();
        let without = sets.effective - CapabilitySet::NET_ADMIN;
        let fewer = CapabilitySets {
            effective: without,
            ..sets
        };
        set_capabilities(None, fewer).unwrap();
        KernelRuleset::open().unwrap_err()
    });
    assert!(
        matches!(error, NftError::NotPermitted { .. }),
        "{}",
        causes(&error)
    );
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

/// Both hold the VIP, and the real server would answer for it, since Linux answers for any address that it has.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_real_server_keeps_quiet_about_the_vip() {
    const ASKS: usize = 6;
    let topology = Topology::new();
    let (client, server) = (&topology.client, &topology.rs1);
    topology.d1.hold_vip(VIP4);
    server.bind_vips(&[VIP4]);
    let answers = who_answers(&client.netns, VIP4, ASKS);
    assert_eq!(
        answers,
        [(topology.d1.mac(), ASKS), (server.mac(), ASKS)].into(),
        "both answer"
    );

    let IpAddr::V4(vip) = VIP4 else { unreachable!() };
    let own = Ipv4Addr::new(10, 0, 0, 11);
    let mut kernel = server.netns.run(|| KernelRuleset::open().unwrap());
    let rules =
        |interfaces: &[(&str, Ipv4Addr)]| -> Ruleset { [(Family::Arp, quiet([vip], interfaces))].into() };
    go_to(&mut kernel, &rules(&[("front", own)]));
    let answers = who_answers(&client.netns, VIP4, ASKS);
    assert_eq!(answers, [(topology.d1.mac(), ASKS)].into());

    // What it asks in the VIP's name, it asks in its own.
    let senders = || {
        let sniffer = Sniffer::open(&client.netns, EtherType::Arp);
        server
            .netns
            .sh("ip neighbour flush dev front; ping -c 1 -W 1 -I 10.0.0.200 10.0.0.100 >/dev/null || true");
        let deadline = Instant::now() + scaled(Duration::from_millis(200));
        let mut senders = BTreeSet::new();
        while let Some(frame) = sniffer.next(deadline) {
            if frame.source() == server.mac() {
                senders.insert(Ipv4Addr::from(frame.field::<4>(28)));
            }
        }
        senders
    };
    assert_eq!(senders(), [own].into());
    go_to(&mut kernel, &rules(&[]));
    assert_eq!(
        senders(),
        [].into(),
        "without an address of its own it asks nothing"
    );
    go_to(&mut kernel, &Ruleset::new());
    assert!(
        senders().contains(&vip),
        "without rules it asks in the VIP's name"
    );
}
