//! What is written is read back, what is strange is never taken for Weir's, and no bytes make reading panic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::netlink::{Body, Messages};
use crate::nft::diff::transaction;
use crate::nft::ruleset::{Base, Element, Field, MetaKey, Register, Verdict};

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
    let inverted = |message: &mut MessageWriter<'_>| {
        message.string(1, "lookup");
        message.nest(2, |data| {
            data.string(1, "vips");
            data.u32_be(2, 8);
            data.u32_be(5, 1);
        });
    };
    let jump = |message: &mut MessageWriter<'_>| {
        message.string(1, "immediate");
        message.nest(2, |data| {
            data.u32_be(1, 0);
            data.nest(2, |data| data.nest(2, |verdict| verdict.u32_be(1, -3i32 as u32)));
        });
    };
    let counter = |message: &mut MessageWriter<'_>| message.string(1, "counter");
    let mut batch = Batch::default();
    batch.push(message::NEW_RULE, 0, |message| {
        message.nest(1, inverted);
        message.nest(1, jump);
        message.nest(1, counter);
    });
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
    let header = |message: &mut MessageWriter<'_>| write_header(message, family_number(Family::Ipv4));
    script.batch.push(message::NEW_ELEMENTS, 0, |message| {
        header(message);
        set::write_set_name(message, TABLE, "addresses");
        message.nest(3, |list| {
            list.nest(1, |item| {
                value::write_value(item, 1, &[10, 0, 0, 1]);
                item.array(4, 1000u64.to_be_bytes());
            });
        });
    });
    script.batch.push(message::NEW_CHAIN, 0, |message| {
        header(message);
        message.string(1, TABLE);
        message.string(3, "regular");
    });
    let found = assemble(&script.batch);
    let table = wanted.get_mut(&Family::Ipv4).unwrap();
    assert_eq!(found[&Family::Ipv4].sets["addresses"].key, []);
    assert_eq!(found[&Family::Ipv4].chains.len(), table.chains.len() + 1);
    table.sets.remove("addresses");
    assert_eq!(found[&Family::Ipv4].sets["marks"], table.sets["marks"]);

    let mut dormant = Batch::default();
    dormant.push(message::NEW_TABLE, 0, |message| {
        header(message);
        message.string(1, TABLE);
        message.u32_be(2, 1);
    });
    assert_eq!(assemble(&dormant)[&Family::Ipv4].chains.len(), 1);
}

proptest! {
    #[test]
    fn reading_any_bytes_never_panics(
        family in prop::sample::select(vec![2u8, 3, 10]),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 0..25u16,
    ) {
        let table: Ruleset = [(Family::Ipv4, everything())].into();
        let mut assembly = Assembly { ruleset: table };
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
