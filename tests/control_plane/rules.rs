//! Every rule of the resources, and what is worth a case of their structure, as manifests: `tests/data/rules/RULE/good*.yaml`
//! are accepted, `tests/data/rules/RULE/bad*.yaml` are refused at the field that their first line names. Folders in capitals
//! are named after a rule of `api::rules`, whose message the refusal carries; the others are about the structure.
//!
//! Weir's own validation and a real API server are held to the same verdict. A new case is a file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::control_plane::{ControlPlane, succeeded};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde::de::DeserializeOwned;
use serde_json::Value;
use weir::api::{DirectorGroup, RealServer, VirtualService, rules};
use weir::catalog::Reason;
use weir::catalog::validate::{self, Validation};

const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");

struct Case {
    file: PathBuf,
    manifest: String,
    /// The message of the rule that the folder is about, if it is about one.
    message: Option<&'static str>,
    /// Where a bad one is refused.
    refused_at: Option<String>,
}

/// What somebody has against an object: a field and a text. A text without a field says that it cannot be read.
type Objection = (String, String);

impl Case {
    /// What is wrong with a verdict, if anything.
    fn judge(&self, objections: &[Objection]) -> Option<String> {
        let complaint = match (&self.refused_at, objections) {
            (None, []) => return None,
            (None, _) => "should be accepted",
            (Some(_), []) => "should be refused",
            (Some(at), _) if !objections.iter().any(|(field, _)| is_at(at, field)) => {
                "is refused at another field"
            }
            (Some(_), _) if !self.says_the_message(objections) => "is refused with another message",
            (Some(_), _) => return None,
        };
        Some(format!("{} {complaint}: {objections:?}", self.file.display()))
    }

    fn says_the_message(&self, objections: &[Objection]) -> bool {
        self.message
            .is_none_or(|message| objections.iter().any(|(_, text)| text.contains(message)))
    }
}

/// Whether an objection's field is the expected one, or the list that holds it, which is all that an API server
/// says where a rule is about a whole list.
fn is_at(expected: &str, field: &str) -> bool {
    let list = expected
        .strip_suffix(']')
        .and_then(|rest| Some(rest.rsplit_once('[')?.0));
    field == expected || Some(field) == list || field == UNREADABLE
}

const UNREADABLE: &str = "";

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rules");
    let mut cases: Vec<Case> = folder(&root)
        .iter()
        .flat_map(|rule| folder(rule))
        .map(case)
        .collect();
    cases.sort_by(|a, b| a.file.cmp(&b.file));
    cases
}

fn folder(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn case(file: PathBuf) -> Case {
    let manifest = fs::read_to_string(&file).unwrap();
    let name = file.file_stem().unwrap().to_str().unwrap();
    let rule = file.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let refused_at = manifest
        .strip_prefix("# refused at ")
        .map(|rest| rest.lines().next().unwrap().to_owned());
    assert_eq!(
        name.starts_with("bad"),
        refused_at.is_some(),
        "{}: a bad manifest, and no other, begins with '# refused at FIELD'",
        file.display()
    );
    assert!(
        name.starts_with("good") || name.starts_with("bad"),
        "{} is neither good nor bad",
        file.display()
    );
    let message = rules::ALL
        .iter()
        .find(|(name, _)| *name == rule)
        .map(|(_, rule)| rule.message);
    let about_a_rule = rule.chars().all(|character| !character.is_ascii_lowercase());
    assert_eq!(about_a_rule, message.is_some(), "there is no rule {rule}");
    Case {
        file,
        manifest,
        message,
        refused_at,
    }
}

/// What Weir has against a manifest.
fn own_objections(manifest: &str) -> Vec<Objection> {
    fn judge<T: DeserializeOwned, V>(manifest: &str, validate: fn(&T) -> Validation<V>) -> Vec<Objection> {
        // By way of JSON, as it reaches an API server: "80" in quotes is no number.
        let json = serde_saphyr::from_str::<Value>(manifest).unwrap();
        let object = match serde_json::from_value(json) {
            Ok(object) => object,
            Err(error) => return vec![(UNREADABLE.to_owned(), error.to_string())],
        };
        let remarks = validate(&object).remarks.into_iter();
        let invalid = remarks.filter(|remark| remark.reason == Reason::Invalid);
        invalid.map(|remark| (remark.field, remark.message)).collect()
    }
    match kind(manifest).as_str() {
        "VirtualService" => judge::<VirtualService, _>(manifest, validate::virtual_service),
        "RealServer" => judge::<RealServer, _>(manifest, validate::real_server),
        "DirectorGroup" => judge::<DirectorGroup, _>(manifest, validate::director_group),
        kind => panic!("{kind} is no kind that users write"),
    }
}

fn kind(manifest: &str) -> String {
    let line = manifest.lines().find_map(|line| line.strip_prefix("kind: "));
    line.expect("a manifest says its kind").to_owned()
}

#[test]
fn every_rule_has_a_good_and_a_bad_manifest() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rules");
    for (rule, _) in rules::ALL {
        let folder = root.join(rule);
        for verdict in ["good", "bad"] {
            let there = fs::read_dir(&folder).is_ok_and(|mut files| {
                files.any(|file| file.unwrap().file_name().to_string_lossy().starts_with(verdict))
            });
            assert!(there, "{} lacks a {verdict} manifest", folder.display());
        }
    }
}

#[test]
fn validation_accepts_the_good_manifests_and_refuses_the_bad_ones() {
    let wrong: Vec<_> = cases()
        .iter()
        .filter_map(|case| case.judge(&own_objections(&case.manifest)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A case is about one thing: everything that is said of it is said of the field it names.
#[test]
fn nothing_else_is_wrong_with_a_bad_manifest() {
    for case in cases() {
        let Some(at) = &case.refused_at else { continue };
        let objections = own_objections(&case.manifest);
        assert!(
            objections.iter().all(|(field, _)| is_at(at, field)),
            "{}: {objections:?}",
            case.file.display()
        );
    }
}

/// Applying the definitions is a test as well: an API server refuses a rule that costs too much.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn an_api_server_accepts_and_refuses_the_same() {
    let control_plane = ControlPlane::start().await;
    succeeded(&control_plane.kubectl(&["apply", "-f", CRDS]).await);
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd",
        "--all",
    ];
    succeeded(&control_plane.kubectl(&wait).await);

    let mut wrong = Vec::new();
    for case in cases() {
        let objections = server_objections(&control_plane, &case.manifest).await;
        wrong.extend(case.judge(&objections));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the API server has against a manifest, without keeping it.
async fn server_objections(control_plane: &ControlPlane, manifest: &str) -> Vec<Objection> {
    let object: DynamicObject = serde_saphyr::from_str(manifest).unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("weir.dev", "v1alpha1", &kind(manifest)));
    let api: Api<DynamicObject> = match kind(manifest).as_str() {
        "DirectorGroup" => Api::all_with(control_plane.client(), &resource),
        _ => Api::namespaced_with(control_plane.client(), "default", &resource),
    };
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let refused = match api.create(&dry_run, &object).await {
        Ok(_) => return Vec::new(),
        Err(kube::Error::Api(status)) => status,
        Err(error) => panic!("the API server did not answer: {error}"),
    };
    let causes = refused.details.iter().flat_map(|details| &details.causes);
    causes
        .map(|cause| (cause.field.clone(), cause.message.clone()))
        .collect()
}
