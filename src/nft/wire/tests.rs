//! What is written is read back, what is strange is never taken for Weir's, and no bytes make reading panic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use neli::consts::nl::NlmF;

use crate::netlink::{Batch, Body, Errno, Messages, Refused, written};
use crate::nft::diff::transaction;
use crate::nft::ruleset::{
    Base, Chain, ChainKind, Element, Expression, Field, Hook, MetaKey, Register, Ruleset, Set, Table, Verdict,
};

use super::chain::ChainAttribute;
use super::set::ElementsAttribute;
use super::value::ListAttribute;
use super::*;

fn assemble(batch: &Batch) -> Ruleset {
    let mut assembly = Assembly::default();
    for message in Messages::new(batch.as_bytes()) {
        if let Body::Reply { kind, payload } = message.body {
            assembly.take(kind, payload);
        }
    }
    assembly.into_ruleset()
}

fn chain(hook: Hook, rules: Vec<Vec<Expression>>) -> Chain {
    Chain {
        kind: ChainKind::Filter,
        hook,
        priority: -150,
        rules,
    }
}

/// A table with every form there is of sets, chains and expressions.
fn everything() -> Table {
    let addresses = Set {
        key: vec![Field::Ipv4Address],
        data: None,
        ranges: false,
        elements: (0..600u32)
            .map(|host| (key(&host.to_be_bytes(), None), None))
            .collect(),
    };
    let protocols = Set {
        key: vec![Field::Protocol],
        data: None,
        ranges: false,
        elements: [(key(&[6, 0, 0, 0], None), None)].into(),
    };
    let marks = Set {
        key: vec![Field::Ipv6Address, Field::Protocol, Field::Port],
        data: Some(Field::Mark),
        ranges: true,
        elements: [(
            key(
                &[[1; 16].as_slice(), &[6, 0, 0, 0, 0, 80, 0, 0]].concat(),
                Some(&[[1; 16].as_slice(), &[6, 0, 0, 0, 0, 90, 0, 0]].concat()),
            ),
            Some(vec![7, 0, 0, 0]),
        )]
        .into(),
    };
    let ports = Set {
        data: Some(Field::Port),
        ranges: false,
        elements: [(
            key(&[[1; 16].as_slice(), &[6, 0, 0, 0, 0, 80, 0, 0]].concat(), None),
            Some(vec![0, 80, 0, 0]),
        )]
        .into(),
        ..marks.clone()
    };
    let register = Register(5);
    let expressions = vec![
        Expression::Payload {
            base: Base::Transport,
            offset: 2,
            length: 2,
            register,
        },
        Expression::PayloadWrite {
            base: Base::Network,
            offset: 14,
            length: 4,
            register,
        },
        Expression::Meta {
            key: MetaKey::OutputInterface,
            register,
        },
        Expression::Meta {
            key: MetaKey::Mark,
            register,
        },
        Expression::SetMark { register },
        Expression::Mask {
            register,
            mask: vec![6],
        },
        Expression::Compare {
            register,
            equal: false,
            value: vec![2],
        },
        Expression::Lookup {
            set: "marks".into(),
            register,
            into: None,
        },
        Expression::Lookup {
            set: "marks".into(),
            register,
            into: Some(Register(0)),
        },
        Expression::Immediate {
            register,
            value: vec![1, 2, 3, 4],
        },
        Expression::DestinationNat {
            family: Family::Ipv6,
            address: register,
        },
        Expression::Masquerade,
        Expression::ClampSegmentSize { register },
        Expression::Verdict(Verdict::Accept),
    ];
    Table {
        sets: [
            ("addresses", addresses),
            ("protocols", protocols),
            ("marks", marks),
            ("ports", ports),
        ]
        .map(|(name, set)| (name.into(), set))
        .into(),
        chains: [
            (
                "first",
                chain(
                    Hook::Prerouting,
                    vec![expressions, vec![Expression::Verdict(Verdict::Drop)]],
                ),
            ),
            (
                "second",
                Chain {
                    kind: ChainKind::Nat,
                    ..chain(Hook::Postrouting, vec![])
                },
            ),
        ]
        .map(|(name, chain)| (name.into(), chain))
        .into(),
    }
}

fn key(first: &[u8], last: Option<&[u8]>) -> Element {
    Element {
        first: first.to_vec(),
        last: last.map(<[u8]>::to_vec),
    }
}

fn write(current: &Ruleset, desired: &Ruleset) -> Script {
    write_transaction(&transaction(current, desired), 7).unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let arp = Table {
        sets: BTreeMap::new(),
        chains: [("output".into(), chain(Hook::Output, vec![]))].into(),
    };
    let wanted: Ruleset = [
        (Family::Arp, arp),
        (Family::Ipv4, everything()),
        (Family::Ipv6, everything()),
    ]
    .into();
    let script = write(&Ruleset::new(), &wanted);
    assert_eq!(assemble(&script.batch), wanted);
    assert_eq!(script.last(), script.batch.len() - 2);
    assert_eq!(script.act(0), None);
    assert_eq!(script.act(1).unwrap().to_string(), "add table arp");
    assert_eq!(script.act(script.last() + 1), None);
}

/// Both names of one register: `NFT_REG_2` and `NFT_REG32_04`.
#[test]
fn a_register_is_known_by_its_old_name_too() {
    assert_eq!(value::read_register(&2u32.to_be_bytes()), Some(Register(4)));
    assert_eq!(value::read_register(&12u32.to_be_bytes()), Some(Register(4)));
    assert_eq!(value::read_register(&0u32.to_be_bytes()), None);
    assert_eq!(value::read_register(&24u32.to_be_bytes()), None);
}

#[test]
fn an_expression_that_says_more_is_unknown() {
    let inverted = |message: &mut MessageWriter<'_, u16>| {
        message.string(1, "lookup");
        message.nest(2, |data| {
            data.string(1u16, "vips");
            data.u32_be(2, 8);
            data.u32_be(5, 1);
        });
    };
    let jump = |message: &mut MessageWriter<'_, u16>| {
        message.string(1, "immediate");
        message.nest(2, |data| {
            data.u32_be(1u16, 0);
            data.nest(2, |data| {
                data.nest(2u16, |verdict| verdict.u32_be(1u16, -3i32 as u32));
            });
        });
    };
    let counter = |message: &mut MessageWriter<'_, u16>| message.string(1, "counter");
    let mut batch = Batch::default();
    let rule = written(|message| {
        message.nest(1u16, inverted);
        message.nest(1, jump);
        message.nest(1, counter);
    });
    batch.push(MessageType::NewRule, NlmF::empty(), &rule);
    let Some(Body::Reply { payload, .. }) =
        Messages::new(batch.as_bytes()).next().map(|message| message.body)
    else {
        panic!("one message");
    };
    let unknown = ["lookup", "jump", "counter"].map(|name| Expression::Unknown(name.into()));
    assert_eq!(expression::read_expressions(payload), unknown);
}

#[test]
fn what_has_no_form_is_refused_before_it_is_sent() {
    let of = |table: Table, family: Family| {
        let desired = [(family, table)].into();
        write_transaction(&transaction(&Ruleset::new(), &desired), 7).unwrap_err()
    };
    let with_chain = |chain: Chain| Table {
        sets: BTreeMap::new(),
        chains: [("input".into(), chain)].into(),
    };
    let ranges = Set {
        key: vec![Field::Port],
        data: None,
        ranges: true,
        elements: BTreeMap::new(),
    };
    let with_set = Table {
        sets: [("ports".into(), ranges)].into(),
        chains: BTreeMap::new(),
    };
    assert_eq!(
        of(with_set, Family::Ipv4),
        Unwritable::RangesOfOneField("ports".into())
    );
    let error = of(with_chain(chain(Hook::Prerouting, vec![])), Family::Arp);
    assert_eq!(
        error.to_string(),
        "chain input: there is no hook Prerouting in family arp"
    );
    let counter = Expression::Unknown("counter".into());
    let error = of(with_chain(chain(Hook::Input, vec![vec![counter]])), Family::Arp);
    assert_eq!(
        error.to_string(),
        "chain input: an expression \"counter\" can be read and not written"
    );
}

/// A set with an element that expires, a chain without hook, a dormant table: each reads as something that Weir would
/// not write, so that the difference to what it wants is never empty.
#[test]
fn what_others_put_into_weirs_tables_shows() {
    let mut wanted: Ruleset = [(Family::Ipv4, everything())].into();
    let mut script = write(&Ruleset::new(), &wanted);
    let elements = body(family_number(Family::Ipv4), |message| {
        set::write_set_name(message, TABLE, "addresses");
        message.nest(ElementsAttribute::Elements, |list| {
            list.nest(ListAttribute::Item, |item| {
                value::write_value(item, 1u16, &[10, 0, 0, 1]);
                item.array(4, 1000u64.to_be_bytes());
            });
        });
    });
    script
        .batch
        .push(MessageType::NewElements, NlmF::empty(), &elements);
    let chain = body(family_number(Family::Ipv4), |message| {
        message.string(ChainAttribute::Table, TABLE);
        message.string(ChainAttribute::Name, "regular");
    });
    script.batch.push(MessageType::NewChain, NlmF::empty(), &chain);
    let found = assemble(&script.batch);
    let table = wanted.get_mut(&Family::Ipv4).unwrap();
    assert_eq!(found[&Family::Ipv4].sets["addresses"].key, []);
    assert_eq!(found[&Family::Ipv4].chains.len(), table.chains.len() + 1);
    table.sets.remove("addresses");
    assert_eq!(found[&Family::Ipv4].sets["marks"], table.sets["marks"]);

    let mut dormant = Batch::default();
    let table = body(family_number(Family::Ipv4), |message| {
        message.string(TableAttribute::Name, TABLE);
        message.u32_be(TableAttribute::Flags, 1);
    });
    dormant.push(MessageType::NewTable, NlmF::empty(), &table);
    assert_eq!(assemble(&dormant)[&Family::Ipv4].chains.len(), 1);
}

/// Where the kernel points, its errno, and what it means.
#[test]
fn what_the_kernel_points_at_is_named() {
    let table: Ruleset = [(Family::Ipv4, everything())].into();
    let script = write(&Ruleset::new(), &table);
    let told = |act: &str, pointed: &[u8], errno: Errno| {
        let index = (1..=script.last())
            .find(|index| script.act(*index).unwrap().to_string() == act)
            .unwrap();
        let message = script.batch.message(index);
        let place = message
            .windows(pointed.len())
            .position(|window| window == pointed);
        let mut refused = Refused {
            offset: place.map(|place| place as u32),
            ..errno.into()
        };
        script.explain(index, &mut refused);
        refused.to_string()
    };
    // What begins with the attribute's length and type.
    let table = [&[9, 0, 1, 0], &b"weir"[..]].concat();
    let set = [&[10, 0, 2, 0], &b"marks"[..]].concat();
    let chain = [&[10, 0, 2, 0], &b"first"[..]].concat();
    let lookup = [&[11, 0, 1, 0], &b"lookup"[..]].concat();
    for (act, pointed, errno, words) in [
        ("add set marks of ip", &table, Errno::NOENT, "no such table: weir"),
        (
            "add set marks of ip",
            &set,
            Errno::EXIST,
            "set marks: File exists (os error 17)",
        ),
        (
            "add elements to marks of ip",
            &set,
            Errno::NOENT,
            "no such set: marks",
        ),
        (
            "add rule 1 of chain first of ip",
            &chain,
            Errno::NOENT,
            "no such chain: first",
        ),
        (
            "add rule 1 of chain first of ip",
            &lookup,
            Errno::NOENT,
            "expression 8, lookup: No such file or directory (os error 2)",
        ),
        (
            "add elements to addresses of ip",
            &vec![8, 0, 1, 0, 0, 0, 0, 3],
            Errno::EXIST,
            "element 4: File exists (os error 17)",
        ),
        (
            "add set marks of ip",
            &vec![1; 30],
            Errno::INVAL,
            "Invalid argument (os error 22)",
        ),
    ] {
        assert_eq!(told(act, pointed, errno), words);
    }
}

proptest! {
    #[test]
    fn naming_what_any_bytes_point_at_never_panics(
        kind in 0..25u16,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        offset in prop_oneof![0..220u32, any::<u32>()],
    ) {
        let kind = (SUBSYSTEM << 8 | kind).to_ne_bytes();
        let message = [&[0; 4][..], &kind, &bytes].concat();
        let mut refused = Refused { offset: Some(offset), ..Errno::INVAL.into() };
        fault::explain(&message, &mut refused);
    }

    #[test]
    fn reading_any_bytes_never_panics(
        family in prop::sample::select(vec![2u8, 3, 10]),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 0..25u16,
    ) {
        let table: Ruleset = [(Family::Ipv4, everything())].into();
        let mut assembly = assembly::of(table);
        let payload = [&[family, 0, 0, 0], bytes.as_slice()].concat();
        assembly.take(SUBSYSTEM << 8 | kind, &payload);
        read_generation(&payload);
        let mut chains: Vec<_> = read_foreign_chain(&payload).into_iter().collect();
        read_foreign_rule(&payload, &mut chains);
        expression::read_expressions(&bytes);
        set::read_elements(&bytes, &mut set::foreign_set());
    }

    /// One byte of a message changed: whatever that makes of it, reading ends.
    #[test]
    fn reading_a_damaged_message_never_panics(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let wanted: Ruleset = [(Family::Ipv4, everything())].into();
        let script = write(&Ruleset::new(), &wanted);
        let mut bytes = script.batch.as_bytes().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let mut assembly = Assembly::default();
        for message in Messages::new(&bytes) {
            if let Body::Reply { kind, payload } = message.body {
                assembly.take(kind, payload);
            }
        }
    }
}
