//! What an API server checks of an object by its schema and its rules, done to the definitions as they are printed.

use std::collections::BTreeSet;

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use crate::api;

/// A kind's definition, ready to judge objects.
pub(super) struct Definition {
    schema: Value,
    rules: CompiledSchema,
    validator: Validator,
}

/// What is wrong with an object: a field, and the message where a rule has one.
pub(super) type Complaint = (String, String);

impl Definition {
    pub(super) fn of(kind: &str) -> Self {
        let crd = api::crds()
            .into_iter()
            .find(|crd| crd.spec.names.kind == kind)
            .unwrap();
        let schema = crd.spec.versions[0].schema.as_ref().unwrap();
        let schema = serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap();
        Self {
            rules: compile_schema(&schema),
            validator: Validator::new(),
            schema,
        }
    }

    /// The fields that break the structure: types, bounds, sets and keys.
    pub(super) fn structural(&self, object: &Value) -> BTreeSet<String> {
        let mut fields = BTreeSet::new();
        check(
            "spec",
            &self.schema["properties"]["spec"],
            &object["spec"],
            &mut fields,
        );
        fields
    }

    /// The rules that do not hold.
    pub(super) fn broken_rules(&self, object: &Value) -> BTreeSet<Complaint> {
        match self.validator.validate_compiled(&self.rules, object, None) {
            Ok(()) => BTreeSet::new(),
            Err(errors) => errors
                .iter()
                .map(|error| (error.field_path.clone(), error.message.clone()))
                .collect(),
        }
    }
}

fn check(path: &str, schema: &Value, value: &Value, fields: &mut BTreeSet<String>) {
    let fits = match schema["type"].as_str() {
        Some("object") => check_object(path, schema, value, fields),
        Some("array") => check_list(path, schema, value, fields),
        Some("string") => value.as_str().is_some_and(|text| text_fits(schema, text)),
        Some("integer") => value.as_i64().is_some_and(|number| number_fits(schema, number)),
        Some("boolean") => value.is_boolean(),
        other => panic!("{path}: a type this check does not know: {other:?}"),
    };
    let among = schema["enum"]
        .as_array()
        .is_none_or(|values| values.contains(value));
    if !fits || !among {
        fields.insert(path.to_owned());
    }
}

fn check_object(path: &str, schema: &Value, value: &Value, fields: &mut BTreeSet<String>) -> bool {
    let Some(members) = value.as_object() else {
        return false;
    };
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !members.contains_key(name) {
            fields.insert(format!("{path}.{name}"));
        }
    }
    for (name, member) in members {
        let schema = match &schema["properties"][name] {
            Value::Null => &schema["additionalProperties"],
            property => property,
        };
        // A field that the schema does not know is dropped by the API server.
        if schema.is_object() {
            check(&format!("{path}.{name}"), schema, member, fields);
        }
    }
    within(schema, "minProperties", "maxProperties", members.len())
}

fn check_list(path: &str, schema: &Value, value: &Value, fields: &mut BTreeSet<String>) -> bool {
    let Some(items) = value.as_array() else {
        return false;
    };
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.clone()),
        Some("map") => Some(keys.iter().map(|key| item[key].clone()).collect()),
        _ => None,
    };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        check(&path, &schema["items"], item, fields);
        let own = identity(item);
        if own.is_some() && items[..index].iter().any(|earlier| identity(earlier) == own) {
            fields.insert(path);
        }
    }
    within(schema, "minItems", "maxItems", items.len())
}

/// Lengths are counted in characters, patterns match as Go's do.
fn text_fits(schema: &Value, text: &str) -> bool {
    let matches = schema["pattern"]
        .as_str()
        .is_none_or(|pattern| go_regex(pattern).is_match(text.as_bytes()));
    matches && within(schema, "minLength", "maxLength", text.chars().count())
}

/// Go's `\s` is ASCII and leaves the vertical tab out.
fn go_regex(pattern: &str) -> Regex {
    RegexBuilder::new(&pattern.replace(r"\s", r"\t\n\f\r "))
        .unicode(false)
        .build()
        .unwrap()
}

fn number_fits(schema: &Value, number: i64) -> bool {
    let in_format = schema["format"] != "int32" || i32::try_from(number).is_ok();
    let number = number as f64;
    in_format
        && schema["minimum"].as_f64().is_none_or(|minimum| number >= minimum)
        && schema["maximum"].as_f64().is_none_or(|maximum| number <= maximum)
}

fn within(schema: &Value, least: &str, most: &str, length: usize) -> bool {
    let length = length as u64;
    schema[least].as_u64().is_none_or(|least| length >= least)
        && schema[most].as_u64().is_none_or(|most| length <= most)
}
