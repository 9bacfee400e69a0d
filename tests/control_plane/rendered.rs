//! The chart and the plain manifests as Helm and kustomize render them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::control_plane::{program, succeeded};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The namespace of `deploy/`, and that of the releases here.
pub(crate) const NAMESPACE: &str = "weir-system";
/// Both majors that people have.
pub(crate) const HELMS: [&str; 2] = ["helm", "helm3"];

/// Kind, namespace and name of an object.
pub(crate) type Key = (String, String, String);

/// A path in the repository.
pub(crate) fn path(relative: &str) -> String {
    format!("{ROOT}/{relative}")
}

pub(crate) fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).expect(relative)
}

/// The names of what is in a folder of the repository.
pub(crate) fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(path(folder)).expect(folder);
    let names = entries.map(|entry| entry.expect(folder).file_name().into_string());
    names.map(|name| name.expect("names are ASCII")).collect()
}

/// Compares a text with a file of the repository, which `UPDATE_EXPECTED=1` writes anew.
#[track_caller]
pub(crate) fn assert_expected(relative: &str, text: &str) {
    if env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path(relative), text).expect(relative);
    }
    let expected = fs::read_to_string(path(relative)).unwrap_or_default();
    assert!(
        expected == text,
        "{relative} is not what is rendered: set UPDATE_EXPECTED=1, and read what it writes"
    );
}

pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).expect("it is YAML")
}

pub(crate) fn key(object: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"]),
    )
}

/// The objects of a rendered text.
pub(crate) fn objects(yaml: &str) -> BTreeMap<Key, Value> {
    let mut objects = BTreeMap::new();
    for object in documents(yaml) {
        let twice = objects.insert(key(&object), object);
        assert_eq!(twice, None, "an object is there twice");
    }
    objects
}

/// Runs a Helm with this HOME, where its caches and the `admin.kubeconfig` of a control plane are.
pub(crate) fn helm(which: &str, home: &Path, arguments: &[&str]) -> Output {
    Command::new(program(which))
        .args(arguments)
        .env("HOME", home)
        .env("KUBECONFIG", home.join("admin.kubeconfig"))
        .current_dir(ROOT)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {which}: {error}"))
}

/// `helm template` of the chart for the oldest Kubernetes that it is for, with further arguments.
pub(crate) fn template(which: &str, arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("the folder for temporary files can be written");
    let template = ["template", "weir", "charts/weir", "--namespace", NAMESPACE];
    let oldest = ["--kube-version", "1.31.0"];
    helm(which, home.path(), &[&template[..], &oldest, arguments].concat())
}

pub(crate) fn kustomize(folder: impl AsRef<Path>) -> String {
    let output = Command::new(program("kubectl"))
        .arg("kustomize")
        .arg(folder.as_ref())
        .output()
        .expect("kubectl runs");
    succeeded(&output)
}
