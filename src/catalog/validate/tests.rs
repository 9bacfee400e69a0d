//! The law of validation: Rust and an API server come to the same verdict on every object, name the same fields,
//! and say the same of a broken rule.
//!
//! The API server is played by a check of the printed definitions' structure and by kube's evaluation of their
//! rules. That a real one agrees is shown, case by case, by `tests/control_plane/rules.rs`.

mod mishaps;
mod objects;
mod schema;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::api;
use schema::{Complaint, Definition};

const KINDS: [&str; 3] = ["VirtualService", "RealServer", "DirectorGroup"];

thread_local! {
    static DEFINITIONS: OnceCell<BTreeMap<&'static str, Definition>> = const { OnceCell::new() };
}

fn with_definition<T>(kind: &str, judge: impl FnOnce(&Definition) -> T) -> T {
    DEFINITIONS.with(|definitions| {
        let definitions = definitions.get_or_init(|| KINDS.map(|kind| (kind, Definition::of(kind))).into());
        judge(&definitions[kind])
    })
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": api::API_VERSION,
        "kind": kind,
        "metadata": {"name": "one", "labels": {"app": "web"}},
        "spec": spec,
    })
}

/// What validation finds invalid, or `None` where the object cannot even be read.
fn invalid(kind: &str, object: &Value) -> Option<BTreeSet<Complaint>> {
    fn judge<T: DeserializeOwned, V>(
        object: &Value,
        validate: fn(&T) -> Validation<V>,
    ) -> Option<BTreeSet<Complaint>> {
        let Validation { value, remarks } = validate(&serde_json::from_value(object.clone()).ok()?);
        let invalid: BTreeSet<_> = remarks
            .into_iter()
            .filter(|remark| remark.reason == Reason::Invalid)
            .map(|remark| (remark.field, remark.message))
            .collect();
        assert_eq!(
            value.is_none(),
            !invalid.is_empty(),
            "an object has a form unless something is invalid"
        );
        Some(invalid)
    }
    match kind {
        "VirtualService" => judge(object, virtual_service),
        "RealServer" => judge(object, real_server),
        _ => judge(object, director_group),
    }
}

/// The law for one object.
fn both_agree(kind: &str, spec: &Value) -> Result<(), TestCaseError> {
    let object = object(kind, spec);
    let (structural, rules) = with_definition(kind, |definition| {
        (definition.structural(&object), definition.broken_rules(&object))
    });
    let Some(invalid) = invalid(kind, &object) else {
        prop_assert!(!structural.is_empty(), "the schema takes what cannot be read");
        return Ok(());
    };
    if structural.is_empty() {
        // The API server gets to the rules only now. Where a rule is one of the whole list, Rust names the item.
        let of_lists = invalid.into_iter().map(|(field, message)| match message {
            message if message == api::rules::ADDRESSES_ARE_IPS.message => {
                ("spec.addresses".to_owned(), message)
            }
            message => (field, message),
        });
        prop_assert_eq!(of_lists.collect::<BTreeSet<_>>(), rules);
        return Ok(());
    }
    let is_rule = |message: &str| api::rules::ALL.iter().any(|(_, rule)| rule.message == message);
    let of_structure: BTreeSet<_> = invalid
        .into_iter()
        .filter(|(_, message)| !is_rule(message))
        .map(|(field, _)| field)
        .collect();
    prop_assert_eq!(of_structure, structural);
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: Config::default().cases * 4, ..Config::default() })]

    #[test]
    fn a_virtual_service_is_judged_as_by_its_definition(spec in mishaps::mutated_spec("VirtualService")) {
        both_agree("VirtualService", &spec)?;
    }

    #[test]
    fn a_real_server_is_judged_as_by_its_definition(spec in mishaps::mutated_spec("RealServer")) {
        both_agree("RealServer", &spec)?;
    }

    #[test]
    fn a_director_group_is_judged_as_by_its_definition(spec in mishaps::mutated_spec("DirectorGroup")) {
        both_agree("DirectorGroup", &spec)?;
    }
}

/// As many specs as asked for, the same in every run.
fn samples(strategy: BoxedStrategy<Value>, count: usize) -> impl Iterator<Item = Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(move |_| {
        strategy
            .new_tree(&mut runner)
            .expect("a strategy without filters")
            .current()
    })
}

/// Every single mishap at every field, in some object that has it: what random objects reach only by luck.
#[test]
fn every_bound_of_every_field_is_judged_as_by_the_definition() {
    for kind in KINDS {
        let mut seen = BTreeSet::new();
        for spec in samples(objects::spec(kind), 2000) {
            for mutated in mishaps::after_each_mishap(&spec, &mut seen) {
                both_agree(kind, &mutated).unwrap_or_else(|error| panic!("{kind} {mutated:#}: {error}"));
            }
        }
    }
}

#[test]
fn what_the_strategies_call_valid_is_valid() {
    for kind in KINDS {
        for spec in samples(objects::spec(kind), 300) {
            let object = object(kind, &spec);
            assert_eq!(invalid(kind, &object), Some(BTreeSet::new()), "{object:#}");
        }
    }
}

/// Without this the law above could hold for want of objects that challenge it.
#[test]
fn the_strategies_break_every_rule_and_leave_many_objects_good() {
    let mut broken = BTreeSet::new();
    for kind in KINDS {
        let count = 3000;
        let mut good = 0;
        for spec in samples(mishaps::mutated_spec(kind), count) {
            let complaints =
                invalid(kind, &object(kind, &spec)).unwrap_or_else(|| [Default::default()].into());
            good += usize::from(complaints.is_empty());
            broken.extend(complaints.into_iter().map(|(_, message)| message));
        }
        assert!(
            (count / 5..count * 4 / 5).contains(&good),
            "{kind}: {good} of {count} are good"
        );
    }
    let missing: Vec<_> = api::rules::ALL
        .iter()
        .filter(|(_, rule)| !broken.contains(rule.message))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(missing, [""; 0].iter().collect::<Vec<_>>());
}
