//! The CustomResourceDefinitions: what is checked in is what the types say, and every schema is one that an API
//! server can bound the cost of.
//!
//! Whether the rules stay within Kubernetes' cost limits only an API server can say: the test in `rules.rs` that
//! needs one applies `crds/` first.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir::api::{crd_yaml, crds, rules};

fn crd_files() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    crds()
        .iter()
        .map(|crd| {
            let file = folder.join(format!("{}.yaml", crd.spec.names.plural));
            (file, crd_yaml(crd).expect("a definition has a text"))
        })
        .collect()
}

/// The schema of each definition with its kind.
fn schemas() -> Vec<(String, Value)> {
    crds()
        .iter()
        .map(|crd| {
            let schema = crd.spec.versions[0].schema.as_ref().unwrap();
            let schema = serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap();
            (crd.spec.names.kind.clone(), schema)
        })
        .collect()
}

/// Calls `visit` with the path and each schema below this one.
fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for (name, step) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[name].is_object() {
            walk(&format!("{path}{step}"), &schema[name], visit);
        }
    }
}

/// What `complaint` says of any schema of any definition.
fn complaints(complaint: impl Fn(&Value) -> Option<&'static str>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, schema| {
            complaints.extend(complaint(schema).map(|text| format!("{path} {text}")));
        });
    }
    complaints
}

#[test]
fn the_checked_in_definitions_are_those_of_the_types() {
    let files = crd_files();
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        for (file, text) in &files {
            fs::write(file, text).unwrap();
        }
    }
    for (file, text) in &files {
        let found = fs::read_to_string(file).unwrap_or_default();
        assert!(
            found == *text,
            "{} is not what the types say: run `UPDATE_EXPECTED=1 cargo test --test crds`",
            file.display()
        );
    }
    let expected: BTreeSet<_> = files.into_iter().map(|(file, _)| file).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let found = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    assert_eq!(expected, found, "a file that no type stands for");
}

#[test]
fn every_list_map_and_string_is_bounded() {
    let unbounded = complaints(|schema| match schema["type"].as_str() {
        Some("array") if schema["maxItems"].is_null() => Some("is a list without maxItems"),
        Some("string") if schema["maxLength"].is_null() && schema["enum"].is_null() => {
            Some("is a string with neither maxLength nor enum")
        }
        Some("object") if schema["additionalProperties"].is_object() && schema["maxProperties"].is_null() => {
            Some("is a map without maxProperties")
        }
        _ => None,
    });
    // The definition's own words, which the API server bounds by itself.
    let own = |complaint: &String| {
        ["apiVersion", "kind"].iter().any(|name| {
            complaint.split_once(' ').is_some_and(|(path, _)| {
                path.ends_with(&format!(".{name}")) && path.matches('.').count() == 1
            })
        })
    };
    assert_eq!(
        unbounded
            .into_iter()
            .filter(|complaint| !own(complaint))
            .collect::<Vec<_>>(),
        [""; 0]
    );
}

#[test]
fn every_number_of_a_spec_is_a_signed_integer_within_bounds() {
    let wrong = complaints(|schema| {
        let format = schema["format"].as_str();
        match schema["type"].as_str() {
            Some("number") => Some("is a floating-point number"),
            // Kubernetes knows int32 and int64; it ignores others, and clients generated from them differ.
            Some("integer") if !matches!(format, Some("int32" | "int64")) => {
                Some("is an integer of a format that Kubernetes does not know")
            }
            _ => None,
        }
    });
    assert_eq!(wrong, [""; 0]);

    let mut unbounded = Vec::new();
    for (kind, schema) in schemas() {
        walk(&kind, &schema["properties"]["spec"], &mut |path, schema| {
            if schema["type"] == "integer" && (schema["minimum"].is_null() || schema["maximum"].is_null()) {
                unbounded.push(path.to_owned());
            }
        });
    }
    assert_eq!(unbounded, [""; 0]);
}

#[test]
fn nothing_may_be_null() {
    let nullable = complaints(|schema| {
        let may_be_null = schema["nullable"] == true
            || schema["enum"]
                .as_array()
                .is_some_and(|values| values.contains(&Value::Null));
        may_be_null.then_some("may be null")
    });
    assert_eq!(nullable, [""; 0]);
}

#[test]
fn every_list_of_a_spec_says_how_it_merges() {
    let mut silent = Vec::new();
    for (kind, schema) in schemas() {
        walk(&kind, &schema["properties"]["spec"], &mut |path, schema| {
            if schema["type"] == "array" && schema["x-kubernetes-list-type"].is_null() {
                silent.push(path.to_owned());
            }
        });
    }
    assert_eq!(silent, [""; 0]);
}

#[test]
fn every_rule_stands_in_a_definition_with_its_message() {
    let mut found = BTreeSet::new();
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, schema| {
            for rule in schema["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let known = rules::ALL.iter().find(|(_, known)| rule["rule"] == known.cel);
                let (name, known) = known.unwrap_or_else(|| panic!("{path}: {rule} is not in api::rules"));
                assert_eq!(rule["message"], known.message, "{path}");
                found.insert(*name);
            }
        });
    }
    let all: BTreeSet<_> = rules::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, all);
}

#[test]
fn no_two_rules_have_the_same_message() {
    let messages: BTreeSet<_> = rules::ALL.iter().map(|(_, rule)| rule.message).collect();
    assert_eq!(messages.len(), rules::ALL.len());
}
