//! Laws of transactions, on rulesets so small that two of them have much in common.

use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::ruleset::{Chain, ChainKind, Expression, Field, Hook, Verdict};
use super::*;

/// One of two chains that differ in a rule.
fn chain() -> impl Strategy<Value = Chain> {
    select(vec![Verdict::Accept, Verdict::Drop]).prop_map(|verdict| Chain {
        kind: ChainKind::Filter,
        hook: Hook::Input,
        priority: 0,
        rules: vec![vec![Expression::Verdict(verdict)]],
    })
}

/// A set of addresses, or a map from ports of a protocol to marks whose ranges do not overlap.
fn set() -> impl Strategy<Value = Set> {
    let addresses = btree_set(0..4u8, 0..4).prop_map(|hosts| Set {
        key: vec![Field::Ipv4Address],
        data: None,
        ranges: false,
        elements: hosts
            .into_iter()
            .map(|host| (key(&[10, 0, 0, host], None), None))
            .collect(),
    });
    let marks = btree_map(0..3u8, (0..5u8, 0..5u8, 0..2u8), 0..4).prop_map(|ranges| Set {
        key: vec![Field::Protocol, Field::Port],
        data: Some(Field::Mark),
        ranges: true,
        elements: ranges
            .into_iter()
            .map(|(slot, (first, span, mark))| {
                let port = slot * 10 + first;
                let last = port + span;
                let element = key(&[6, 0, 0, 0, 0, port, 0, 0], Some(&[6, 0, 0, 0, 0, last, 0, 0]));
                (element, Some(vec![mark, 0, 0, 0]))
            })
            .collect(),
    });
    prop_oneof![addresses, marks]
}

fn key(first: &[u8], last: Option<&[u8]>) -> Element {
    Element {
        first: first.to_vec(),
        last: last.map(<[u8]>::to_vec),
    }
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    let name = |name: &'static str| Just(Box::<str>::from(name));
    let table = (
        btree_map(prop_oneof![name("a"), name("b")], set(), 0..3),
        option::of(chain()),
    )
        .prop_map(|(sets, chain)| Table {
            sets,
            chains: chain.map(|chain| ("input".into(), chain)).into_iter().collect(),
        });
    btree_map(select(vec![Family::Arp, Family::Ipv4, Family::Ipv6]), table, 0..3)
}

proptest! {
    #[test]
    fn the_steps_lead_from_any_ruleset_to_any_other(current in ruleset(), desired in ruleset()) {
        prop_assert_eq!(transaction(&current, &desired).apply_to(&current), desired);
    }

    #[test]
    fn from_a_ruleset_to_itself_there_is_nothing_to_do(ruleset in ruleset()) {
        prop_assert!(transaction(&ruleset, &ruleset).is_empty());
    }

    #[test]
    fn a_widened_ruleset_has_what_both_have(current in ruleset(), desired in ruleset()) {
        let both = widened(&current, &desired);
        let families = current.keys().chain(desired.keys());
        prop_assert!(families.clone().all(|family| both.contains_key(family)));
        for (family, table) in &both {
            let Some(desired) = desired.get(family) else {
                prop_assert_eq!(table, &current[family]);
                continue;
            };
            prop_assert_eq!(&table.chains, &desired.chains);
            prop_assert!(table.sets.keys().eq(desired.sets.keys()));
            for (name, set) in &table.sets {
                let desired = &desired.sets[name];
                prop_assert!(set.has_definition_of(desired));
                for (element, data) in &desired.elements {
                    prop_assert_eq!(set.elements.get(element), Some(data));
                }
                let current = current.get(family).and_then(|table| table.sets.get(name));
                let Some(current) = current.filter(|current| current.has_definition_of(set)) else {
                    continue;
                };
                for element in current.elements.keys() {
                    let mut others = desired.elements.keys();
                    let displaced = set.ranges && others.any(|other| element.overlaps(other, &set.key));
                    prop_assert!(displaced || set.elements.contains_key(element));
                }
            }
        }
    }

    /// Where chains stay as they are, the way to the widened ruleset deletes no element but to put another in its
    /// place, and the way on from it adds none.
    #[test]
    fn first_is_only_added_and_then_only_removed(current in ruleset(), desired in ruleset()) {
        let both = widened(&current, &desired);
        for step in transaction(&current, &both).steps() {
            if let Step::DeleteElements { family, set, part } = step {
                let desired = &desired[family].sets[set];
                for element in part.elements.keys() {
                    prop_assert!(desired.elements.keys().any(|other| element.overlaps(other, &part.key)));
                }
            }
        }
        for step in transaction(&both, &desired).steps() {
            let removes = matches!(step, Step::DeleteElements { .. } | Step::DeleteTable { .. });
            prop_assert!(removes, "{}", step);
        }
    }

    #[test]
    fn no_two_elements_of_a_widened_set_overlap(current in ruleset(), desired in ruleset()) {
        for table in widened(&current, &desired).values() {
            for set in table.sets.values() {
                for (index, element) in set.elements.keys().enumerate() {
                    let mut others = set.elements.keys().skip(index + 1);
                    prop_assert!(!others.any(|other| element.overlaps(other, &set.key)));
                }
            }
        }
    }
}

#[test]
fn many_ranges_go_with_their_table() {
    let of = |ports: u8| -> Ruleset {
        let ranges = Set {
            key: vec![Field::Protocol, Field::Port],
            data: None,
            ranges: true,
            elements: (0..ports)
                .map(|port| (key(&[6, 0, 0, 0, port, 0, 0, 0], None), None))
                .collect(),
        };
        let table = Table {
            sets: [("ports".into(), ranges)].into(),
            chains: BTreeMap::new(),
        };
        [(Family::Ipv4, table)].into()
    };
    let told = |from: u8, to: u8| transaction(&of(from), &of(to)).to_string();
    assert_eq!(told(0, 100), "add 100 elements to ports of ip");
    assert_eq!(told(100, 84), "delete 16 elements of ports of ip");
    assert_eq!(told(100, 83), "replace table ip");
}

#[test]
fn a_transaction_is_told_in_few_words() {
    let addresses = |hosts: &[u8]| Set {
        key: vec![Field::Ipv4Address],
        data: None,
        ranges: false,
        elements: hosts
            .iter()
            .map(|host| (key(&[10, 0, 0, *host], None), None))
            .collect(),
    };
    let table = |hosts: &[u8]| Table {
        sets: [("vips".into(), addresses(hosts))].into(),
        chains: BTreeMap::new(),
    };
    let current: Ruleset = [(Family::Arp, table(&[1])), (Family::Ipv4, Table::default())].into();
    let desired: Ruleset = [(Family::Arp, table(&[2, 3, 4])), (Family::Ipv4, table(&[1]))].into();
    assert_eq!(
        transaction(&current, &desired).to_string(),
        "delete 1 element of vips of arp, add 3 elements to vips of arp, replace table ip"
    );
    assert_eq!(Transaction::default().to_string(), "nothing");
    let many = Transaction {
        steps: vec![Step::DeleteTable { family: Family::Ipv6 }; 8],
    };
    assert!(
        many.to_string().ends_with("delete table ip6 and 2 more"),
        "{many}"
    );
}
