//! What a cluster is given: `deploy/`, the chart and the examples, judged by kustomize, Helm and a real API server.
//!
//! Run by `make test-control-plane`; docs/control-plane-tests.md says what it needs.

mod control_plane;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Output},
};

use control_plane::{ControlPlane, ServiceAccountAccess, limit, program, succeeded, until};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec},
    core::v1::{Namespace, Pod, Secret},
};
use kube::{
    Api,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use weir::api::{NodeState, VirtualService};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const NAMESPACE: &str = "weir-system";
const AGENT: &str = "weir-agent";

/// Kind, namespace and name of an object.
type Key = (String, String, String);

/// A path in the repository.
fn path(relative: &str) -> String {
    format!("{ROOT}/{relative}")
}

fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).expect(relative)
}

/// The names of the files in a folder of the repository.
fn files(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(path(folder)).expect(folder);
    let names = entries.map(|entry| entry.expect(folder).file_name().into_string());
    names.map(|name| name.expect("names are ASCII")).collect()
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).expect("it is YAML")
}

/// The objects of a rendered text.
fn objects(yaml: &str) -> BTreeMap<Key, Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut objects = BTreeMap::new();
    for object in documents(yaml) {
        let metadata = &object["metadata"];
        let key = (
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"]),
        );
        let twice = objects.insert(key, object);
        assert_eq!(twice, None, "an object is there twice");
    }
    objects
}

/// Runs Helm with this HOME, where its caches and the `admin.kubeconfig` of a control plane are.
fn helm(home: &Path, arguments: &[&str]) -> Output {
    Command::new(program("helm"))
        .args(arguments)
        .env("HOME", home)
        .env("KUBECONFIG", home.join("admin.kubeconfig"))
        .current_dir(ROOT)
        .output()
        .expect("helm runs")
}

/// `helm template` of the chart with these values.
fn template(values: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("the folder for temporary files can be written");
    let mut arguments = vec!["template", "weir", "charts/weir", "--namespace", NAMESPACE];
    arguments.extend(values.iter().flat_map(|value| ["--set", value]));
    helm(home.path(), &arguments)
}

fn kustomize(folder: &str) -> String {
    let output = Command::new(program("kubectl"))
        .args(["kustomize", &path(folder)])
        .output()
        .expect("kubectl runs");
    succeeded(&output)
}

/// Takes out of the chart's objects what only Helm adds: two labels on what is not a definition, and on definitions
/// the annotation that lets them outlive the release.
fn without_helms_own(mut objects: BTreeMap<Key, Value>) -> BTreeMap<Key, Value> {
    for ((kind, _, name), object) in &mut objects {
        let metadata = &mut object["metadata"];
        if kind == "CustomResourceDefinition" {
            let annotations = metadata
                .as_object_mut()
                .and_then(|metadata| metadata.remove("annotations"));
            assert_eq!(
                annotations,
                Some(json!({ "helm.sh/resource-policy": "keep" })),
                "{name}"
            );
        } else {
            let labels = metadata["labels"]
                .as_object_mut()
                .expect("every object has labels");
            assert_eq!(
                labels.remove("app.kubernetes.io/managed-by"),
                Some("Helm".into()),
                "{name}"
            );
            assert!(labels.remove("helm.sh/chart").is_some(), "{name}");
        }
    }
    objects
}

#[test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
fn the_chart_gives_the_same_objects_as_the_plain_manifests() {
    let mut plain = objects(&kustomize("deploy"));
    let chart = without_helms_own(objects(&succeeded(&template(&[]))));

    // The release's namespace is not the chart's to make: `helm install --create-namespace` does.
    let namespace = ("Namespace".to_owned(), String::new(), NAMESPACE.to_owned());
    assert!(plain.remove(&namespace).is_some());
    assert_eq!(plain.keys().collect::<Vec<_>>(), chart.keys().collect::<Vec<_>>());
    for (key, object) in &plain {
        assert_eq!(object, &chart[key], "{key:?}: deploy/ is left, the chart right");
    }
}

#[test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
fn values_that_the_chart_does_not_know_are_refused() {
    for value in [
        "agent.logFromat=json",
        "agent.logFormat=xml",
        "image.digest=sha256:abc",
        "controller.replicas=2",
    ] {
        let output = template(&[value]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            message.contains("don't meet the specifications of the schema"),
            "{value}: {message}"
        );
    }
}

#[test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
fn values_reach_the_agents_pod() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let image = format!("image.digest={digest}");
    let values = [
        image.as_str(),
        "agent.extraArgs={--audit-interval,30s}",
        "agent.tolerations=null",
    ];
    let rendered = objects(&succeeded(&template(&values)));

    let pod = &rendered[&("DaemonSet".into(), NAMESPACE.into(), AGENT.into())]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"], format!("localhost/weir@{digest}"));
    assert_eq!(container["args"], json!(["agent", "--audit-interval", "30s"]));
    assert_eq!(pod.get("tolerations"), None);
}

#[test]
fn the_charts_definitions_are_copies_of_the_projects() {
    let mut definitions = files("crds");
    assert!(definitions.remove("Kustomization"));
    assert_eq!(files("charts/weir/crd-files"), definitions);
    for name in &definitions {
        let original = format!("crds/{name}");
        let copy = format!("charts/weir/crd-files/{name}");
        assert!(read(&copy) == read(&original), "cp {original} {copy}");
    }

    let listed = &documents(&read("crds/Kustomization"))[0]["resources"];
    assert_eq!(listed, &json!(definitions), "crds/Kustomization");
}

#[test]
fn every_version_is_the_packages() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = &documents(&read("charts/weir/Chart.yaml"))[0];
    assert_eq!(
        (&chart["version"], &chart["appVersion"]),
        (&json!(version), &json!(version))
    );
    for file in ["deploy/agent.yaml", "deploy/agent-access.yaml"] {
        for object in documents(&read(file)) {
            assert_eq!(
                object["metadata"]["labels"]["app.kubernetes.io/version"], version,
                "{file}"
            );
        }
    }
    let agent = &documents(&read("deploy/agent.yaml"))[0];
    let image = &agent["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &format!("localhost/weir:{version}"));
}

#[test]
fn the_image_is_built_with_the_projects_toolchain() {
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))
        .map(|channel| channel.trim_matches('"'))
        .expect("the toolchain is pinned");
    let recipe = read("deploy/image/Containerfile");
    assert!(
        recipe.contains(&format!("/rust:{version}-")),
        "FROM of deploy/image/Containerfile: {version}"
    );
    assert!(
        recipe.contains(&format!("RUSTUP_TOOLCHAIN={version}\n")),
        "RUSTUP_TOOLCHAIN: {version}"
    );
}

/// A control plane that has what `kubectl apply -k deploy/` gives it.
async fn deployed() -> ControlPlane {
    let control_plane = ControlPlane::start().await;
    let apply = ["apply", "--validate=strict", "-k", &path("deploy")];
    succeeded(&control_plane.kubectl(&apply).await);
    let established = [
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd",
        "--all",
    ];
    succeeded(&control_plane.kubectl(&established).await);
    control_plane
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_api_server_accepts_every_example() {
    let control_plane = deployed().await;
    succeeded(&control_plane.kubectl(&["create", "namespace", "shop"]).await);
    let apply = ["apply", "--validate=strict", "--recursive", "--filename"];

    let examples = path("deploy/examples");
    let accepted = succeeded(&control_plane.kubectl(&[&apply[..], &[&examples]].concat()).await);
    let in_folder = |folder: &str| -> usize {
        let names = files(folder).into_iter().filter(|name| name.ends_with(".yaml"));
        names
            .map(|name| documents(&read(&format!("{folder}/{name}"))).len())
            .sum()
    };
    let written = in_folder("deploy/examples") + in_folder("deploy/examples/more");
    // Each is new, so no two examples get into each other's way.
    let created = accepted.lines().filter(|line| line.ends_with(" created"));
    assert_eq!(created.count(), written, "{accepted}");

    let misspelt = read("deploy/examples/masquerade.yaml").replace("scheduler:", "schedular:");
    let refused = control_plane
        .kubectl_reading(&[&apply[..], &["-"]].concat(), &misspelt)
        .await;
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains(r#"unknown field "spec.schedular""#), "{message}");
}

/// What the API server lets the agent do with resources, beyond what it lets everybody do: ask who one is and what
/// one may do.
async fn permissions(agent: kube::Client) -> BTreeSet<(String, String, String)> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some("default".into()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let answer = Api::all(agent).create(&PostParams::default(), &review).await;
    let status = answer
        .expect("everybody may ask")
        .status
        .expect("the answer has a status");
    assert!(!status.incomplete, "{:?}", status.evaluation_error);

    let mut permissions = BTreeSet::new();
    for rule in status.resource_rules {
        assert_eq!(rule.resource_names, None, "{rule:?}");
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    permissions.insert((group.clone(), resource.clone(), verb.clone()));
                }
            }
        }
    }
    // What everybody may: to ask what one may.
    permissions
        .retain(|(group, _, _)| !["authentication.k8s.io", "authorization.k8s.io"].contains(&&**group));
    permissions
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_agent_may_do_what_it_needs_and_nothing_else() {
    let control_plane = deployed().await;
    let account = ServiceAccountAccess {
        namespace: NAMESPACE,
        name: AGENT,
        ..Default::default()
    };
    let kubeconfig = control_plane.kubeconfig_for_service_account(&account).await;
    let agent = control_plane.client_for(&kubeconfig).await;

    let expected: BTreeSet<_> = [
        ("weir.dev", "virtualservices", &["get", "list", "watch"][..]),
        ("weir.dev", "realservers", &["get", "list", "watch"]),
        ("weir.dev", "directorgroups", &["get", "list", "watch"]),
        ("", "nodes", &["get", "list", "watch"]),
        ("", "services", &["get", "list", "watch"]),
        ("discovery.k8s.io", "endpointslices", &["get", "list", "watch"]),
        (
            "gateway.networking.k8s.io",
            "referencegrants",
            &["get", "list", "watch"],
        ),
        ("weir.dev", "nodestates", &["get", "create", "patch"]),
        ("weir.dev", "nodestates/status", &["patch"]),
    ]
    .into_iter()
    .flat_map(|(group, resource, verbs)| {
        verbs
            .iter()
            .map(move |verb| (group.into(), resource.into(), verb.to_string()))
    })
    .collect();
    assert_eq!(permissions(agent.clone()).await, expected);

    // That this is enough to report by server-side apply, and that what is not listed is refused.
    let node_states: Api<NodeState> = Api::all(agent.clone());
    let params = PatchParams::apply("weir-agent");
    let object = |part: &str, value: Value| json!({ "apiVersion": weir::api::API_VERSION, "kind": "NodeState", "metadata": { "name": "d1" }, part: value });
    let created = node_states
        .patch("d1", &params, &Patch::Apply(object("spec", json!({}))))
        .await;
    created.expect("the agent makes its NodeState");
    let none = json!({ "digest": "", "services": 0, "destinations": 0 });
    let status = json!({
        "agentVersion": "0.1.0", "desired": none, "programmed": none,
        "foreignServices": 0, "failureCount": 0, "findingCount": 0,
    });
    let reported = node_states
        .patch_status("d1", &params, &Patch::Apply(object("status", status)))
        .await;
    reported.expect("the agent reports");

    let secrets: Api<Secret> = Api::all(agent.clone());
    let refused = secrets.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
    let virtual_services: Api<VirtualService> = Api::namespaced(agent, "default");
    let status = Patch::Merge(json!({ "status": {} }));
    let refused = virtual_services
        .patch_status("web", &PatchParams::default(), &status)
        .await
        .unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_agents_pod_is_admitted_because_its_namespace_says_privileged() {
    let control_plane = deployed().await;
    let client = control_plane.client();
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let template = daemon_sets.get(AGENT).await.unwrap().spec.unwrap().template;
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some("agent-on-d1".into()),
            ..template.metadata.unwrap_or_default()
        },
        spec: template.spec,
        status: None,
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let dry_run = PostParams {
        dry_run: true,
        field_manager: None,
    };

    pods.create(&dry_run, &pod).await.expect("the pod is admitted");

    let baseline = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "baseline" } } });
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces
        .patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(baseline))
        .await
        .expect("the label is changed");
    // The API server hears of its own namespaces by a watch.
    until("the pod to be refused", limit(10), async || {
        match pods.create(&dry_run, &pod).await {
            Err(kube::Error::Api(status)) if status.message.contains("violates PodSecurity") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_chart_can_be_installed_and_leaves_the_definitions_when_it_goes() {
    let control_plane = ControlPlane::start().await;
    let in_namespace = |arguments: &[&str]| {
        let namespace = ["--namespace", NAMESPACE];
        succeeded(&helm(control_plane.folder(), &[arguments, &namespace].concat()))
    };
    let install = ["install", "weir", "charts/weir", "--create-namespace"];

    let notes = in_namespace(&install);
    assert!(notes.contains("rollout status daemonset/weir-agent"), "{notes}");
    assert!(
        !notes.contains("pod security level"),
        "a namespace without a level allows everything: {notes}"
    );
    in_namespace(&["uninstall", "weir"]);

    let kinds = "crds,daemonsets,serviceaccounts,clusterroles,clusterrolebindings";
    let left = control_plane.kubectl(&["get", kinds, "-A", "-o", "json"]).await;
    let left: Value = serde_json::from_str(&succeeded(&left)).unwrap();
    // A definition is not gone at once: first the API server removes the objects of its kind.
    let staying = |object: &&Value| object["metadata"].get("deletionTimestamp").is_none();
    let names = left["items"].as_array().unwrap().iter().filter(staying);
    let names = names.map(|object| object["metadata"]["name"].as_str().unwrap());
    let names: Vec<_> = names.filter(|name| name.contains("weir")).collect();
    let definitions = ["directorgroups", "nodestates", "realservers", "virtualservices"];
    assert_eq!(names, definitions.map(|plural| format!("{plural}.weir.dev")));

    let level = [
        "label",
        "namespace",
        NAMESPACE,
        "pod-security.kubernetes.io/enforce=baseline",
    ];
    succeeded(&control_plane.kubectl(&level).await);
    let notes = in_namespace(&install);
    assert!(
        notes.contains("enforces the pod security level baseline"),
        "{notes}"
    );
}
