use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::{DirectorGroup, NodeState, RealServer, VirtualService};
use crate::catalog::validate;

fn web() -> Value {
    json!({
        "metadata": { "name": "web", "labels": { "app": "web" }, "creationTimestamp": "2026-05-01T10:00:00Z" },
        "spec": {
            "addresses": ["10.0.0.200"],
            "listeners": [{ "name": "http", "protocol": "TCP", "port": 80 }],
            "forwarding": { "method": "DirectRoute" },
            "backends": [{ "name": "web", "realServers": { "selector": { "matchLabels": { "app": "web" } } } }],
        },
    })
}

fn decode(value: Value) -> Decoded<VirtualService> {
    Decoded::new(Shape::of_kind("VirtualService"), value, |_| None)
}

/// What is wrong with the object, once this is put at a pointer into it.
fn faults(pointer: &str, value: Value) -> Vec<String> {
    let mut object = web();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        members => members[name] = value,
    }
    let faults = decode(object).faults.into_iter();
    faults
        .map(|fault| fault.to_remark())
        .map(|remark| format!("{}: {}", remark.field, remark.message))
        .collect()
}

#[test]
fn what_fits_has_no_faults() {
    let decoded = decode(web());
    assert_eq!(decoded.faults, []);
    assert!(decoded.validate(validate::virtual_service).value.is_some());
}

#[test]
fn each_fault_says_what_is_expected_and_the_way_out() {
    for (pointer, value, expected) in [
        (
            "/spec/listeners/0/protocol",
            json!("tcp"),
            "spec.listeners[0].protocol: unsupported value \"tcp\"; did you mean TCP? supported values: TCP, UDP, SCTP",
        ),
        (
            "/spec/listeners/0/port",
            json!("80"),
            "spec.listeners[0].port: expected an integer, found the string \"80\"; remove the quotes",
        ),
        (
            "/spec/listeners/0/port",
            json!(80.5),
            "spec.listeners[0].port: expected an integer, found `80.5`",
        ),
        (
            "/spec/listeners/0/port",
            json!(70000),
            "spec.listeners[0].port: 70000 is out of range: 0 to 65535",
        ),
        (
            "/spec/listeners/0/port",
            json!(-1e300),
            "spec.listeners[0].port: -1e+300 is out of range: 0 to 65535",
        ),
        (
            "/spec/listeners/0/port",
            json!(null),
            "spec.listeners[0].port: expected an integer, found nothing",
        ),
        (
            "/spec/listeners/0/prot",
            json!(1),
            "spec.listeners[0].prot: unknown field; did you mean `port`?",
        ),
        (
            "/spec/listeners/0/colour",
            json!(1),
            "spec.listeners[0].colour: unknown field; known fields: endPort, name, port, protocol",
        ),
        (
            "/spec/listeners",
            json!({}),
            "spec.listeners: expected a list, found a map",
        ),
        (
            "/spec/forwarding",
            json!([]),
            "spec.forwarding: expected a map, found a list",
        ),
        (
            "/spec/forwarding/method",
            json!(true),
            "spec.forwarding.method: expected one of DirectRoute, Tunnel, Masquerade, found `true`",
        ),
        (
            "/spec/groupListeners",
            json!("true"),
            "spec.groupListeners: expected true or false, found the string \"true\"; remove the quotes",
        ),
        (
            "/spec/addresses/0",
            json!(10),
            "spec.addresses[0]: expected a string, found `10`; put it in quotes: \"10\"",
        ),
        (
            "/spec/backends/0",
            json!({}),
            "spec.backends[0].name: required field is missing",
        ),
        (
            "/metadata/labels/app",
            json!(1.5),
            "metadata.labels.app: expected a string, found `1.5`; put it in quotes: \"1.5\"",
        ),
        (
            "/metadata/creationTimestamp",
            json!("yesterday"),
            "metadata.creationTimestamp: expected a time such as 2026-05-01T10:00:00Z, found \"yesterday\"",
        ),
        (
            "/metadata/lables",
            json!({}),
            "metadata.lables: unknown field; did you mean `labels`?",
        ),
        ("/sepc", json!({}), "sepc: unknown field; did you mean `spec`?"),
    ] {
        assert_eq!(faults(pointer, value), [expected]);
    }
    assert_eq!(
        faults("/spec/scheduler", json!(null)),
        [""; 0],
        "nothing is a field that is not there"
    );
}

#[test]
fn a_scalar_is_shown_as_it_was_written() {
    let mut object = web();
    object["spec"]["addresses"][0] = json!(true);
    let written = |field: &str| (field == "spec.addresses[0]").then_some("yes");
    let decoded = Decoded::<VirtualService>::new(Shape::of_kind("VirtualService"), object, written);
    assert_eq!(
        decoded.faults[0].to_remark().message,
        "expected a string, found `yes`, which means true; put it in quotes: \"yes\""
    );
}

#[test]
fn every_fault_of_an_object_is_found_at_once() {
    let mut object = web();
    object["spec"]["listeners"][0] = json!({ "name": "http", "protocol": "tcp", "port": "80" });
    object["spec"]["forwarding"]["method"] = json!("DR");
    let decoded = decode(object);
    let mut fields: Vec<&str> = decoded.faults.iter().map(|fault| &*fault.field).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "spec.forwarding.method",
            "spec.listeners[0].port",
            "spec.listeners[0].protocol"
        ]
    );
    assert_eq!(
        decoded.validate(validate::virtual_service),
        Validation {
            value: None,
            remarks: vec![]
        }
    );
}

#[test]
fn rules_are_checked_where_everything_they_are_about_fits() {
    let mut object = web();
    object["spec"]["addresses"] = json!(["10.0.0.300"]);
    object["spec"]["listeners"][0]["protocol"] = json!("tcp");
    // Of the same protocol and port as the other one, once its protocol is left out.
    let another = json!({ "name": "https", "protocol": "TCP", "port": 80 });
    object["spec"]["listeners"].as_array_mut().unwrap().push(another);
    let validation = decode(object).validate(validate::virtual_service);
    let fields: Vec<&str> = validation.remarks.iter().map(|remark| &*remark.field).collect();
    assert_eq!((validation.value, fields), (None, vec!["spec.addresses[0]"]));
}

#[test]
fn paths_are_compared_by_their_parts() {
    for (path, field, within) in [
        ("spec.ports[1].name", "spec.ports[1]", true),
        ("spec.ports[1]", "spec.ports", true),
        ("spec.ports", "spec.ports", true),
        ("spec.ports", "", true),
        ("spec.ports[10]", "spec.ports[1]", false),
        ("spec.portsOfAll", "spec.ports", false),
        ("spec", "spec.ports", false),
    ] {
        assert_eq!(is_within(path, field), within, "{path}, {field}");
    }
}

/// Mostly values of a shape, with others in between.
fn value_of(shape: &'static Shape) -> BoxedStrategy<Value> {
    let fitting = match shape {
        Shape::Any => any::<bool>().prop_map(Value::from).boxed(),
        Shape::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Shape::Integer { min, max } => (*min..=*max).prop_map(Value::from).boxed(),
        Shape::Number => any::<f64>().prop_map(Value::from).boxed(),
        Shape::String => "[a-z0-9.]{0,12}".prop_map(Value::from).boxed(),
        Shape::Time => Just(json!("2026-05-01T10:00:00.5+02:00")).boxed(),
        Shape::Choice(choices) => prop::sample::select(choices.clone())
            .prop_map(Value::from)
            .boxed(),
        Shape::List(item) => prop::collection::vec(value_of(item), 0..3)
            .prop_map(Value::from)
            .boxed(),
        Shape::Map(values) => prop::collection::btree_map("[a-z]{1,3}", value_of(values), 0..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
            .boxed(),
        Shape::Object(fields) => {
            let members: Vec<_> = fields
                .iter()
                .map(|field| {
                    let chance = if field.is_required { 0.97 } else { 0.4 };
                    (
                        prop::bool::weighted(chance),
                        Just(&field.name),
                        value_of(&field.shape),
                    )
                })
                .collect();
            let members = members.prop_map(|members| {
                let there = members.into_iter().filter(|(is_there, ..)| *is_there);
                Value::Object(there.map(|(_, name, value)| (name.clone(), value)).collect())
            });
            members.boxed()
        }
    };
    let other = prop::sample::select(vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1_u64 << 63),
        json!(1e300),
        json!(0.5),
        json!("x"),
        json!(""),
        json!("2026-13-01T10:00:00Z"),
        json!([]),
        json!([null]),
        json!({}),
        json!({ "x": null }),
    ]);
    prop_oneof![30 => fitting, 1 => other].boxed()
}

/// Without members that are nothing, which are the same as none.
fn without_nothing(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members
                .values_mut()
                .for_each(|value| *value = without_nothing(value.take()));
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|value| *value = without_nothing(value.take())),
        _ => {}
    }
    value
}

/// Whatever is in a value: what fits can be read, and what cannot be read has been told.
fn check<K: DeserializeOwned>(kind: &str, value: Value) -> Result<(), TestCaseError> {
    let decoded = Decoded::<K>::new(Shape::of_kind(kind), value.clone(), |_| None);
    prop_assert!(
        decoded.resource.is_ok(),
        "{:?} of {}",
        decoded.resource.err(),
        value
    );
    let is_readable = K::deserialize(without_nothing(value.clone())).is_ok();
    prop_assert!(is_readable || !decoded.faults.is_empty(), "{}", value);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_has_the_shape_can_be_read(
        service in value_of(Shape::of_kind("VirtualService")),
        server in value_of(Shape::of_kind("RealServer")),
        group in value_of(Shape::of_kind("DirectorGroup")),
        state in value_of(Shape::of_kind("NodeState")),
    ) {
        check::<VirtualService>("VirtualService", service)?;
        check::<RealServer>("RealServer", server)?;
        check::<DirectorGroup>("DirectorGroup", group)?;
        check::<NodeState>("NodeState", state)?;
    }
}
