//! The chart: what each value changes, which values it refuses, and its life in a cluster, with Helm 4 and Helm 3.
//!
//! Run by `make test-control-plane`; docs/control-plane-tests.md says what it needs.

use std::{fs, path::Path, process::Command};

use crate::control_plane::{ControlPlane, ServiceAccountAccess, limit, succeeded, until};
use crate::rendered::{
    HELMS, NAMESPACE, assert_expected, documents, helm, names, objects, path, read, template,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::{api::batch::v1::Job, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use weir::api::RealServer;

/// The text that `diff` prints of two texts: where they differ, with three lines around.
fn difference(before: &str, after: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let output = Command::new("diff")
        .args(["--unified", "--label", "defaults", "--label", "with these values"])
        .args([file("before", before), file("after", after)])
        .output()
        .expect("diff runs");
    assert_eq!(output.status.code(), Some(1), "the values change something");
    String::from_utf8(output.stdout).unwrap()
}

/// What the chart renders but for the definitions, which are in `crds/`, and for empty lines at the end of a document,
/// of which the Helms have different numbers.
fn without_definitions(rendered: &str) -> String {
    let documents = rendered.split("---\n").map(str::trim_end);
    documents
        .filter(|document| {
            !document.is_empty() && !document.starts_with("# Source: weir/templates/crds.yaml")
        })
        .map(|document| format!("---\n{document}\n"))
        .collect()
}

/// Each folder of `tests/data/chart` has values, and what they change in what the defaults give.
#[test]
#[ignore = "needs Helm: make test-control-plane"]
fn each_value_changes_what_it_says() {
    for which in HELMS {
        let defaults = without_definitions(&succeeded(&template(which, &[])));
        assert_expected("tests/data/chart/defaults.yaml", &defaults);
        for case in names("tests/data/chart") {
            let values = path(&format!("tests/data/chart/{case}/values.yaml"));
            if case == "defaults.yaml" {
                continue;
            }
            let rendered = succeeded(&template(which, &["--values", &values]));
            let changed = difference(&defaults, &without_definitions(&rendered));
            assert_expected(&format!("tests/data/chart/{case}/rendered.diff"), &changed);
        }
    }
}

#[test]
#[ignore = "needs Helm: make test-control-plane"]
fn definitions_outlive_the_release_unless_told_otherwise() {
    let definitions = |arguments: &[&str]| -> Vec<Value> {
        let rendered = objects(&succeeded(&template("helm", arguments)));
        let definitions = rendered
            .into_iter()
            .filter(|((kind, ..), _)| kind == "CustomResourceDefinition");
        definitions
            .map(|(_, mut object)| object["metadata"]["annotations"].take())
            .collect()
    };
    let keep = json!({ "helm.sh/resource-policy": "keep" });
    assert_eq!(definitions(&[]), vec![keep; 4]);
    assert_eq!(definitions(&["--set", "crds.keep=false"]), vec![Value::Null; 4]);
    assert_eq!(definitions(&["--set", "crds.install=false"]), [Value::Null; 0]);
}

#[test]
#[ignore = "needs Helm: make test-control-plane"]
fn every_object_is_named_after_the_release_and_in_its_namespace() {
    let home = tempfile::tempdir().unwrap();
    let arguments = ["template", "edge", "charts/weir", "--namespace", "lb"];
    let all = [
        "--set",
        "podMonitor.enabled=true,networkPolicy.enabled=true,openshift.enabled=true,prometheusRule.enabled=true,\
         dashboards.enabled=true",
    ];
    let rendered = succeeded(&helm("helm", home.path(), &[&arguments[..], &all].concat()));
    assert!(!rendered.contains(NAMESPACE));
    for (kind, namespace, name) in objects(&rendered).into_keys() {
        if kind == "CustomResourceDefinition" {
            continue;
        }
        assert!(name.starts_with("edge-weir"), "{kind} {name}");
        assert!(
            ["", "lb"].contains(&&*namespace),
            "{kind} {name} is in {namespace}"
        );
    }
    let agent = "system:serviceaccount:lb:edge-weir-agent";
    assert_eq!(
        rendered.matches(agent).count(),
        2,
        "the policy and the constraints"
    );
}

#[test]
#[ignore = "needs Helm: make test-control-plane"]
fn wrong_values_are_refused_with_their_place() {
    let refused = [
        ("agent.logFromat=json", "agent", "'logFromat' not allowed"),
        ("agent.logFormat=xml", "agent/logFormat", "one of 'text', 'json'"),
        ("agent.listen.port=0", "agent/listen/port", "minimum"),
        ("agent.listen.address=10.0.0.1", "agent/listen/address", "one of"),
        (
            "agent.updateStrategy.rollingUpdate.maxSurge=1",
            "maxSurge",
            "must be 0",
        ),
        (
            "agent.tolerations[0].operator=Maybe",
            "agent/tolerations/0/operator",
            "one of",
        ),
        ("controller.replicas=-1", "controller/replicas", "minimum"),
        (
            "controller.podDisruptionBudget.minAvailable=1",
            "podDisruptionBudget",
            "'minAvailable' not allowed",
        ),
        (
            "image.digest=sha256:abc",
            "image/digest",
            "does not match pattern",
        ),
        (
            "image.pullSecrets[0].secret=x",
            "image/pullSecrets/0",
            "missing property 'name'",
        ),
        (
            "networkPolicy.apiServerPorts={0}",
            "networkPolicy/apiServerPorts/0",
            "want 1",
        ),
        (
            "podMonitor.interval=soon",
            "podMonitor/interval",
            "does not match pattern",
        ),
        ("openshift.enabled=maybe", "openshift/enabled", "want boolean"),
        ("crd.install=false", "weir", "'crd' not allowed"),
    ];
    for which in HELMS {
        for (value, place, why) in refused {
            let output = template(which, &["--set", value]);
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(
                !output.status.success() && message.contains(place) && message.contains(why),
                "{which}, {value}: {message}"
            );
        }
    }
}

/// So that an editor can say what a value is, and a misspelt one is refused at every depth.
#[test]
fn every_value_is_described_and_no_other_is_allowed() {
    fn walk(place: &str, schema: &Value) {
        for (name, value) in schema["properties"].as_object().into_iter().flatten() {
            let place = format!("{place}.{name}");
            let description = value["description"].as_str().unwrap_or_default();
            assert!(!description.is_empty(), "{place} has no description");
            walk(&place, value);
        }
        if schema.get("properties").is_some() {
            assert_eq!(schema["additionalProperties"], false, "{place}");
        }
        if schema["items"].is_object() {
            walk(&format!("{place}[]"), &schema["items"]);
        }
    }
    /// Every value of values.yaml must be one that the schema has a property for.
    fn known(place: &str, value: &Value, schema: &Value) {
        let (Some(values), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else {
            return;
        };
        for (name, value) in values {
            let place = format!("{place}.{name}");
            known(&place, value, properties.get(name).expect(&place));
        }
    }
    let schema: Value = serde_json::from_str(&read("charts/weir/values.schema.json")).unwrap();
    walk("", &schema);
    known("", &documents(&read("charts/weir/values.yaml"))[0], &schema);
}

#[test]
#[ignore = "needs Helm: make test-control-plane"]
fn lint_finds_nothing() {
    let home = tempfile::tempdir().unwrap();
    for which in HELMS {
        let printed = succeeded(&helm(which, home.path(), &["lint", "--strict", "charts/weir"]));
        assert!(
            printed.contains("1 chart(s) linted, 0 chart(s) failed"),
            "{printed}"
        );
    }
}

/// A release in a control plane, by one of the Helms.
struct Release<'a> {
    control_plane: &'a ControlPlane,
    which: &'static str,
}

impl Release<'_> {
    fn helm(&self, arguments: &[&str]) -> String {
        let namespace = ["--namespace", NAMESPACE];
        let home = self.control_plane.folder();
        succeeded(&helm(self.which, home, &[arguments, &namespace].concat()))
    }

    /// What is in the cluster of the kinds that the chart has, but for what is about to go.
    async fn objects(&self) -> Vec<String> {
        let kinds = "crds,daemonsets,deployments,jobs,poddisruptionbudgets,serviceaccounts,roles,rolebindings,\
                     clusterroles,clusterrolebindings,validatingadmissionpolicies,\
                     validatingadmissionpolicybindings";
        let found = self
            .control_plane
            .kubectl(&["get", kinds, "-A", "-o", "json"])
            .await;
        let found: Value = serde_json::from_str(&succeeded(&found)).unwrap();
        let mut names = Vec::new();
        for object in found["items"].as_array().unwrap() {
            let name = object["metadata"]["name"].as_str().unwrap();
            if name.contains("weir") && object["metadata"].get("deletionTimestamp").is_none() {
                names.push(format!("{}/{name}", object["kind"].as_str().unwrap()));
            }
        }
        names.sort();
        names
    }

    /// Whether no definition is left.
    ///
    /// While a definition's storage is made anew, as it is when it is deleted, the API server cannot say whether objects are
    /// left, and notes that in the definition. It asks again a few milliseconds later; if what it has cached is by then from
    /// before that note, it takes the conflict for somebody else's change, and asks no more before its next look at all
    /// definitions, up to five minutes later. A change of the definition makes it ask at once.
    async fn definitions_gone(&self) -> Result<(), String> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.control_plane.client());
        let left = definitions.list(&ListParams::default()).await.unwrap().items;
        for definition in left.iter().filter(|definition| deletion_failed(definition)) {
            let seen = json!({ "metadata": { "annotations": { "seen-at": definition.resource_version() } } });
            let (name, parameters) = (definition.name_any(), PatchParams::default());
            // It may be gone by now.
            let _ = definitions.patch(&name, &parameters, &Patch::Merge(seen)).await;
        }
        let left: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
        left.is_empty().then_some(()).ok_or(left.join(", "))
    }

    async fn replicas(&self) -> String {
        let jsonpath = "jsonpath={.spec.replicas}";
        let get = [
            "get",
            "deployment",
            "weir-controller",
            "-n",
            NAMESPACE,
            "-o",
            jsonpath,
        ];
        succeeded(&self.control_plane.kubectl(&get).await)
    }

    /// Uninstalls, and is meanwhile the kubelet of the hook's Job.
    async fn uninstall(&self) {
        let home = self.control_plane.folder().to_owned();
        let which = self.which;
        let uninstall = ["uninstall", "weir", "--namespace", NAMESPACE, "--timeout", "60s"];
        let uninstalling = tokio::task::spawn_blocking(move || helm(which, &home, &uninstall));

        let jobs: Api<Job> = Api::namespaced(self.control_plane.client(), NAMESPACE);
        let job = until("the hook's Job", limit(30), async || {
            jobs.get("weir-release").await.map_err(|error| error.to_string())
        })
        .await;
        let pod = job.spec.unwrap().template.spec.unwrap();
        let access = ServiceAccountAccess {
            namespace: NAMESPACE,
            name: pod.service_account_name.as_deref().unwrap(),
            ..ServiceAccountAccess::default()
        };
        let kubeconfig = self.control_plane.kubeconfig_for_service_account(&access).await;
        release(self.control_plane.folder(), &kubeconfig).await;

        let now = Time(Timestamp::now());
        let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": now });
        let done = json!({ "status": {
            "startTime": now, "completionTime": now, "succeeded": 1,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        }});
        let patched = jobs
            .patch_status("weir-release", &PatchParams::default(), &Patch::Merge(done))
            .await;
        patched.expect("the Job has succeeded");
        succeeded(&uninstalling.await.unwrap());
    }
}

/// Whether the API server could not take the objects of a definition away.
fn deletion_failed(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "Terminating" && condition.reason.as_deref() == Some("InstanceDeletionFailed")
    })
}

/// Does what the Job's pods would, with the rights of its ServiceAccount. Like the Job, it tries again: the API server may
/// take a moment to heed a role that has just been bound.
async fn release(home: &Path, kubeconfig: &str) {
    let path = home.join("release.kubeconfig");
    fs::write(&path, kubeconfig).expect("the folder can be written");
    until("the finalizers to be off", limit(30), async || {
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["controller", "--release"])
            .env("KUBECONFIG", &path)
            .output()
            .expect("weir runs");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(log)
    })
    .await;
}

/// A RealServer as the controller keeps it.
const KEPT: &str = "
apiVersion: weir.dev/v1alpha1
kind: RealServer
metadata: {name: web-1, namespace: default, finalizers: [weir.dev/drain]}
spec: {address: 10.0.0.11}
";

const DEFINITIONS: [&str; 4] = ["directorgroups", "nodestates", "realservers", "virtualservices"];

async fn lives(which: &'static str) {
    let control_plane = ControlPlane::start().await;
    let release = Release {
        control_plane: &control_plane,
        which,
    };

    let notes = release.helm(&["install", "weir", "charts/weir", "--create-namespace"]);
    assert!(
        notes.contains("rollout status daemonset/weir-agent deployment/weir-controller"),
        "{notes}"
    );
    assert!(
        !notes.contains("pod security level"),
        "a namespace without a level allows everything: {notes}"
    );
    for command in notes.lines().filter(|line| line.contains("kubectl --namespace")) {
        let arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
        succeeded(
            &control_plane
                .kubectl(&[&arguments[..], &["--watch=false"]].concat())
                .await,
        );
    }
    let installed = release.objects().await;
    assert_eq!(release.replicas().await, "2");

    release.helm(&["upgrade", "weir", "charts/weir", "--set", "controller.replicas=3"]);
    assert_eq!(release.replicas().await, "3");
    release.helm(&[
        "upgrade",
        "weir",
        "charts/weir",
        "--set",
        "userRoles.aggregate=false",
    ]);
    assert_eq!(release.objects().await.len(), installed.len() - 3);
    release.helm(&["rollback", "weir", "1"]);
    assert_eq!(release.replicas().await, "2");
    assert_eq!(release.objects().await, installed);

    let kept = control_plane.kubectl_reading(&["apply", "-f", "-"], KEPT).await;
    succeeded(&kept);
    release.uninstall().await;
    let definitions = DEFINITIONS.map(|plural| format!("CustomResourceDefinition/{plural}.weir.dev"));
    until("nothing but the definitions to be left", limit(20), async || {
        let left = release.objects().await;
        (left == definitions).then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
    let real_servers: Api<RealServer> = Api::namespaced(control_plane.client(), "default");
    let left = real_servers
        .get("web-1")
        .await
        .expect("objects stay with their definitions");
    assert_eq!(left.finalizers(), [""; 0]);

    let level = "pod-security.kubernetes.io/enforce=baseline";
    succeeded(
        &control_plane
            .kubectl(&["label", "namespace", NAMESPACE, level])
            .await,
    );
    let notes = release.helm(&["install", "weir", "charts/weir"]);
    assert!(
        notes.contains("enforces the pod security level baseline"),
        "{notes}"
    );
}

#[tokio::test]
#[ignore = "needs Helm, etcd and kube-apiserver: make test-control-plane"]
async fn a_release_of_helm_4_is_installed_upgraded_rolled_back_and_taken_out() {
    lives("helm").await;
}

#[tokio::test]
#[ignore = "needs Helm, etcd and kube-apiserver: make test-control-plane"]
async fn a_release_of_helm_3_is_installed_upgraded_rolled_back_and_taken_out() {
    lives("helm3").await;
}

/// The definitions wait for their objects, and RealServers for the hook.
#[tokio::test]
#[ignore = "needs Helm, etcd and kube-apiserver: make test-control-plane"]
async fn without_crds_keep_nothing_is_left() {
    let control_plane = ControlPlane::start().await;
    let release = Release {
        control_plane: &control_plane,
        which: "helm",
    };
    release.helm(&[
        "install",
        "weir",
        "charts/weir",
        "--create-namespace",
        "--set",
        "crds.keep=false",
    ]);
    succeeded(&control_plane.kubectl_reading(&["apply", "-f", "-"], KEPT).await);

    release.uninstall().await;

    until("the definitions to go", limit(90), async || {
        release.definitions_gone().await
    })
    .await;
    assert_eq!(release.objects().await, [""; 0]);
}
