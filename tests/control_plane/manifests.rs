//! What a cluster is given: `deploy/`, the chart and the examples, judged by kustomize, Helm and a real API server.
//!
//! Run by `make test-control-plane`; docs/control-plane-tests.md says what it needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use crate::control_plane::{BoundTo, ControlPlane, ServiceAccountAccess, limit, program, succeeded, until};
use crate::rendered::{
    Key, NAMESPACE, assert_expected, documents, key, kustomize, names, objects, path, read, template,
};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec},
    batch::v1::Job,
    core::v1::{Namespace, Pod, PodTemplateSpec, Secret},
};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use weir::api::{NodeState, VirtualService};

const AGENT: &str = "weir-agent";
const CONTROLLER: &str = "weir-controller";
/// Where the plain manifests are.
const PLAIN: [&str; 5] = [
    "deploy/base",
    "deploy/components/network-policy",
    "deploy/components/openshift",
    "deploy/components/pod-monitor",
    "deploy/release",
];

/// Takes out of the chart's objects what only Helm adds: two labels on what is not a definition, and the annotations
/// that let definitions outlive the release and make the hook one.
fn without_helms_own(mut objects: BTreeMap<Key, Value>) -> BTreeMap<Key, Value> {
    for ((kind, _, name), object) in &mut objects {
        let metadata = object["metadata"]
            .as_object_mut()
            .expect("every object has metadata");
        let annotations = metadata.remove("annotations").unwrap_or_default();
        for annotation in annotations.as_object().into_iter().flat_map(|all| all.keys()) {
            assert!(annotation.starts_with("helm.sh/"), "{kind} {name}: {annotation}");
        }
        if kind == "CustomResourceDefinition" {
            continue;
        }
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
    objects
}

/// `deploy/` and what takes it out again, with these components.
fn plain(components: &[&str]) -> BTreeMap<Key, Value> {
    let folder = tempfile::tempdir().expect("the folder for temporary files can be written");
    let folder = folder.path().canonicalize().expect("it is there");
    // A kustomization refers to others by relative paths only.
    let root = "../".repeat(folder.components().count() - 1) + path("deploy").trim_start_matches('/');
    let components: Vec<_> = components
        .iter()
        .map(|name| format!("{root}/components/{name}"))
        .collect();
    let resources = [root.clone(), format!("{root}/release")];
    let kustomization = json!({ "resources": resources, "components": components });
    fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).expect("it can be written");
    objects(&kustomize(&folder))
}

#[test]
#[ignore = "needs Helm and kubectl: make test-control-plane"]
fn the_chart_gives_the_same_objects_as_the_plain_manifests() {
    for (component, value) in [
        (None, "agent.logFormat=text"),
        (Some("network-policy"), "networkPolicy.enabled=true"),
        (Some("openshift"), "openshift.enabled=true"),
        (Some("pod-monitor"), "podMonitor.enabled=true"),
    ] {
        let mut plain = plain(component.as_slice());
        let chart = without_helms_own(objects(&succeeded(&template("helm", &["--set", value]))));

        // The release's namespace is not the chart's to make: `helm install --create-namespace` does.
        let namespace = ("Namespace".to_owned(), String::new(), NAMESPACE.to_owned());
        assert!(plain.remove(&namespace).is_some());
        assert_eq!(
            plain.keys().collect::<Vec<_>>(),
            chart.keys().collect::<Vec<_>>(),
            "{component:?}"
        );
        for (key, object) in &plain {
            assert_eq!(
                object, &chart[key],
                "{component:?}, {key:?}: deploy/ is left, the chart right"
            );
        }
    }
}

/// For those who have neither kustomize nor Helm, and to see what a change of `deploy/` does.
#[test]
#[ignore = "needs kubectl: make test-control-plane"]
fn the_one_file_is_what_kustomize_renders() {
    let header = "# Everything that a cluster needs for Weir: kubectl apply -f deploy/dist/install.yaml\n\
                  #\n# Rendered from deploy/ by UPDATE_EXPECTED=1 make test-control-plane.\n";
    assert_expected(
        "deploy/dist/install.yaml",
        &(header.to_owned() + &kustomize(path("deploy"))),
    );
}

#[test]
#[ignore = "needs kubectl: make test-control-plane"]
fn an_overlay_is_the_base_with_its_component() {
    let overlay = objects(&kustomize(path("deploy/overlays/openshift")));
    let mut plain = plain(&["openshift"]);
    plain.retain(|(_, _, name), _| name != "weir-release");
    assert_eq!(overlay, plain);
}

/// A manifest has to mean the same in a folder, where Weir reads it itself. Weir is held to this table by a test of its own.
#[test]
#[ignore = "needs kubectl: make test-control-plane"]
fn scalars_mean_to_kubectl_what_they_mean_in_a_folder() {
    let table = read("tests/data/manifest_scalars.tsv");
    let examples = table
        .lines()
        .map(|line| line.split_once('\t').expect("a scalar and its JSON"));
    let (scalars, expected): (Vec<_>, Vec<_>) = examples.unzip();
    let list: String = scalars.iter().map(|scalar| format!("- {scalar}\n")).collect();
    let object = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: scalars}}\nlist:\n{list}");
    let file = tempfile::NamedTempFile::new().expect("the folder for temporary files can be written");
    fs::write(&file, object).expect("it can be written");

    // The least that kubectl does with an object without asking an API server.
    let output = Command::new(program("kubectl"))
        .args(["label", "--local", "--output=json", "read=here", "--filename"])
        .arg(file.path())
        .output()
        .expect("kubectl runs");
    let object: Value = serde_json::from_str(&succeeded(&output)).expect("kubectl prints JSON");
    let read = object["list"].as_array().expect("it is a list");
    assert_eq!(read.len(), scalars.len());
    for ((scalar, expected), read) in scalars.iter().zip(expected).zip(read) {
        assert_eq!(
            serde_json::from_str::<Value>(expected).expect("it is JSON"),
            *read,
            "{scalar}"
        );
    }
}

#[test]
fn the_charts_definitions_are_copies_of_the_projects() {
    let mut definitions = names("crds");
    assert!(definitions.remove("Kustomization"));
    assert_eq!(names("charts/weir/crd-files"), definitions);
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
    for folder in PLAIN {
        for name in names(folder).into_iter().filter(|name| name.ends_with(".yaml")) {
            let file = format!("{folder}/{name}");
            for object in documents(&read(&file)) {
                let labelled = &object["metadata"]["labels"]["app.kubernetes.io/version"];
                let unversioned = ["Kustomization", "Component", "Namespace"];
                let expected = match object["kind"].as_str() {
                    Some(kind) if unversioned.contains(&kind) => Value::Null,
                    _ => version.into(),
                };
                assert_eq!(*labelled, expected, "{file}");
                let containers = &object["spec"]["template"]["spec"]["containers"];
                for container in containers.as_array().into_iter().flatten() {
                    assert_eq!(container["image"], format!("localhost/weir:{version}"), "{file}");
                }
            }
        }
    }
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
    for node in ["d1", "d2"] {
        let node = format!("{{apiVersion: v1, kind: Node, metadata: {{name: {node}}}}}");
        succeeded(&control_plane.kubectl_reading(&["create", "-f", "-"], &node).await);
    }
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
        let names = names(folder).into_iter().filter(|name| name.ends_with(".yaml"));
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

/// What the API server lets one do with resources of a namespace and of the cluster, beyond what it lets everybody do:
/// ask who one is and what one may do.
async fn permissions(client: Client, namespace: &str) -> BTreeSet<(String, String, String)> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.into()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let answer = Api::all(client).create(&PostParams::default(), &review).await;
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

/// Groups and resources with their verbs, as [`permissions`] has them.
fn expected(rules: &[(&str, &str, &[&str])]) -> BTreeSet<(String, String, String)> {
    let each = |(group, resource, verbs): &(&str, &str, &[&str])| -> Vec<_> {
        let one = |verb: &&str| (group.to_string(), resource.to_string(), verb.to_string());
        verbs.iter().map(one).collect()
    };
    rules.iter().flat_map(each).collect()
}

const READ: &[&str] = &["get", "list", "watch"];

/// A client of one of the ServiceAccounts of `deploy/`.
async fn account(control_plane: &ControlPlane, name: &str, bound_to: BoundTo<'_>) -> Client {
    let access = ServiceAccountAccess {
        namespace: NAMESPACE,
        name,
        bound_to,
        ..Default::default()
    };
    let kubeconfig = control_plane.kubeconfig_for_service_account(&access).await;
    control_plane.client_for(&kubeconfig).await
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_controller_may_do_what_it_needs_and_nothing_else() {
    let control_plane = deployed().await;
    let controller = account(&control_plane, CONTROLLER, BoundTo::ServiceAccount).await;

    let everywhere = expected(&[
        ("weir.dev", "virtualservices", READ),
        ("weir.dev", "realservers", READ),
        ("weir.dev", "directorgroups", READ),
        ("weir.dev", "nodestates", READ),
        ("", "nodes", READ),
        ("", "services", READ),
        ("discovery.k8s.io", "endpointslices", READ),
        ("gateway.networking.k8s.io", "referencegrants", READ),
        ("weir.dev", "virtualservices/status", &["patch"]),
        ("weir.dev", "realservers/status", &["patch"]),
        ("weir.dev", "directorgroups/status", &["patch"]),
        ("weir.dev", "realservers", &["patch"]),
        ("weir.dev", "nodestates", &["delete"]),
        ("events.k8s.io", "events", &["create", "patch"]),
    ]);
    assert_eq!(permissions(controller.clone(), "default").await, everywhere);
    let leases = expected(&[("coordination.k8s.io", "leases", &["get", "create", "update"])]);
    let in_its_namespace = permissions(controller, NAMESPACE).await;
    assert_eq!(in_its_namespace, &everywhere | &leases);
}

/// Reports for a node as an agent does, by server-side apply.
async fn report(agent: Client, node: &str) -> kube::Result<NodeState> {
    let node_states: Api<NodeState> = Api::all(agent);
    let params = PatchParams::apply(AGENT);
    let object = |part: &str, value: Value| json!({ "apiVersion": weir::api::API_VERSION, "kind": "NodeState", "metadata": { "name": node }, part: value });
    node_states
        .patch(node, &params, &Patch::Apply(object("spec", json!({}))))
        .await?;
    let none = json!({ "digest": "", "services": 0, "destinations": 0 });
    let status = json!({
        "agentVersion": "0.1.0", "desired": none, "programmed": none,
        "foreignServices": 0, "failureCount": 0, "findingCount": 0,
    });
    node_states
        .patch_status(node, &params, &Patch::Apply(object("status", status)))
        .await
}

/// A pod of a template of `deploy/`.
fn pod(template: PodTemplateSpec) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some("a-pod".into()),
            ..template.metadata.unwrap_or_default()
        },
        spec: template.spec,
        status: None,
    }
}

async fn agents_pod(client: Client) -> Pod {
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client, NAMESPACE);
    let agent = daemon_sets.get(AGENT).await.expect("it is deployed");
    pod(agent.spec.expect("it has one").template)
}

/// The agent has what its pod on d1 has: a token that is bound to the pod, through which the API server knows the node.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn an_agent_writes_the_node_state_of_its_own_node_only() {
    let control_plane = deployed().await;
    let admin = control_plane.client();
    let mut on_d1 = agents_pod(admin.clone()).await;
    if let Some(spec) = &mut on_d1.spec {
        spec.node_name = Some("d1".into());
    }
    let pods: Api<Pod> = Api::namespaced(admin.clone(), NAMESPACE);
    pods.create(&PostParams::default(), &on_d1)
        .await
        .expect("the pod is admitted");
    let agent = account(&control_plane, AGENT, BoundTo::Pod("a-pod")).await;
    report(admin.clone(), "d2")
        .await
        .expect("the policy is about agents only");

    let refusal = |answer: kube::Result<NodeState>| match answer {
        Err(kube::Error::Api(status))
            if status.code == 403 && status.message.contains("its own node only") =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    };
    // A policy is in force when the API server has heard of it by a watch.
    until("another node's NodeState to be refused", limit(20), async || {
        refusal(report(agent.clone(), "d2").await)
    })
    .await;

    report(agent.clone(), "d1")
        .await
        .expect("its own is accepted, new");
    report(agent.clone(), "d1").await.expect("and changed");
    let node_states: Api<NodeState> = Api::all(agent);
    let status = Patch::Merge(json!({ "status": { "failureCount": 7 } }));
    let another = node_states
        .patch_status("d2", &PatchParams::default(), &status)
        .await;
    refusal(another).expect("the status is the same");
    let unbound = account(&control_plane, AGENT, BoundTo::ServiceAccount).await;
    refusal(report(unbound, "d1").await).expect("a token that no node vouches for is nobody's");
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_agent_may_do_what_it_needs_and_nothing_else() {
    let control_plane = deployed().await;
    let agent = account(&control_plane, AGENT, BoundTo::Node("d1")).await;

    let allowed = expected(&[
        ("weir.dev", "virtualservices", READ),
        ("weir.dev", "realservers", READ),
        ("weir.dev", "directorgroups", READ),
        ("", "nodes", READ),
        ("", "services", READ),
        ("discovery.k8s.io", "endpointslices", READ),
        ("gateway.networking.k8s.io", "referencegrants", READ),
        ("weir.dev", "nodestates", &["get", "create", "patch"]),
        ("weir.dev", "nodestates/status", &["patch"]),
    ]);
    assert_eq!(permissions(agent.clone(), "default").await, allowed);

    // That this is enough to report, and that what is not listed is refused.
    report(agent.clone(), "d1").await.expect("the agent reports");
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
    let pod = agents_pod(client.clone()).await;
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
async fn all_but_the_agent_would_be_admitted_in_a_restricted_namespace() {
    let control_plane = deployed().await;
    let release = kustomize(path("deploy/release"));
    succeeded(
        &control_plane
            .kubectl_reading(&["apply", "-f", "-"], &release)
            .await,
    );
    let client = control_plane.client();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let controller = deployments.get(CONTROLLER).await.unwrap().spec.unwrap().template;
    let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
    let job = jobs.get("weir-release").await.unwrap().spec.unwrap().template;

    let restricted =
        json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let changed = namespaces
        .patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(restricted))
        .await;
    changed.expect("the label is changed");
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let dry_run = PostParams {
        dry_run: true,
        field_manager: None,
    };
    let agent = agents_pod(client).await;
    until("the agent's pod to be refused", limit(10), async || {
        let refused = pods.create(&dry_run, &agent).await.is_err();
        refused.then_some(()).ok_or("it is admitted".to_owned())
    })
    .await;
    for template in [controller, job] {
        let created = pods.create(&dry_run, &pod(template)).await;
        created.expect("the pod is admitted");
    }
}

/// Whether all that is written in `applied` is in `stored`, whatever else is there.
fn is_within(applied: &Value, stored: &Value) -> bool {
    match (applied, stored) {
        (Value::Object(applied), Value::Object(stored)) => applied
            .iter()
            .all(|(name, value)| stored.get(name).is_some_and(|stored| is_within(value, stored))),
        (Value::Array(applied), Value::Array(stored)) => {
            applied.len() == stored.len()
                && applied
                    .iter()
                    .zip(stored)
                    .all(|(applied, stored)| is_within(applied, stored))
        }
        _ => applied == stored,
    }
}

/// Or whoever compares the two, as Argo CD and Flux do, would apply them again and again.
#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_api_server_gives_back_what_was_applied() {
    let control_plane = deployed().await;
    let text = kustomize(path("deploy"));
    let get = ["get", "-o", "json", "-f", "-"];
    let stored: Value = serde_json::from_str(&succeeded(&control_plane.kubectl_reading(&get, &text).await))
        .expect("kubectl prints JSON");
    let stored: BTreeMap<Key, &Value> = stored["items"]
        .as_array()
        .expect("there are many")
        .iter()
        .map(|object| (key(object), object))
        .collect();
    for (key, applied) in objects(&text) {
        assert!(
            is_within(&applied, stored[&key]),
            "{key:?}: {applied:#} is stored as {:#}",
            stored[&key]
        );
    }
    let difference = control_plane.kubectl(&["diff", "-k", &path("deploy")]).await;
    assert_eq!(succeeded(&difference), "");
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_clusters_roles_reach_weirs_kinds() {
    let control_plane = deployed().await;
    let control_plane = control_plane
        .with_controller_manager(&["clusterrole-aggregation-controller"])
        .await;
    succeeded(&control_plane.kubectl(&["create", "namespace", "shop"]).await);
    for role in ["view", "edit", "admin"] {
        let bind = [
            "create",
            "rolebinding",
            role,
            "-n",
            "shop",
            "--clusterrole",
            role,
            "--user",
            role,
        ];
        succeeded(&control_plane.kubectl(&bind).await);
        let everywhere = format!("cluster-{role}");
        let bind = [
            "create",
            "clusterrolebinding",
            role,
            "--clusterrole",
            role,
            "--user",
            &everywhere,
        ];
        succeeded(&control_plane.kubectl(&bind).await);
    }
    let may = async |user: &str, verb: &str, kind: &str, namespace: &str| {
        let kind = format!("{kind}.weir.dev");
        let ask = ["auth", "can-i", verb, &kind, "-n", namespace, "--as", user];
        control_plane.kubectl(&ask).await.status.success()
    };
    // The last of what is aggregated: admin has it through view and edit.
    until("the roles to be aggregated", limit(30), async || {
        let aggregated = may("admin", "list", "realservers", "shop").await
            && may("admin", "create", "realservers", "shop").await
            && may("cluster-admin", "create", "directorgroups", "").await;
        aggregated.then_some(()).ok_or("not yet".to_owned())
    })
    .await;
    for (user, verb, kind, namespace, expected) in [
        ("view", "list", "virtualservices", "shop", true),
        ("view", "create", "virtualservices", "shop", false),
        ("view", "list", "virtualservices", "default", false),
        ("edit", "create", "virtualservices", "shop", true),
        ("edit", "delete", "realservers", "shop", true),
        ("edit", "list", "virtualservices", "shop", true),
        ("cluster-view", "list", "nodestates", "", true),
        ("cluster-edit", "create", "directorgroups", "", false),
        ("cluster-admin", "delete", "directorgroups", "", true),
        ("cluster-admin", "create", "nodestates", "", false),
    ] {
        assert_eq!(
            may(user, verb, kind, namespace).await,
            expected,
            "{user} {verb} {kind}"
        );
    }
}

/// The names of Istio's definition (istio.io/istio, `manifests/charts/base`): its plural and kind are ours.
const ISTIO: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: virtualservices.networking.istio.io, labels: {app: istio-pilot, istio: networking}}
spec:
  group: networking.istio.io
  names:
    categories: [istio-io, networking-istio-io]
    kind: VirtualService
    listKind: VirtualServiceList
    plural: virtualservices
    shortNames: [vs]
    singular: virtualservice
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

const ISTIOS_ROUTE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}
";

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn beside_istio_each_virtual_service_has_a_name_of_its_own() {
    let control_plane = deployed().await;
    let apply =
        async |text: &str| succeeded(&control_plane.kubectl_reading(&["apply", "-f", "-"], text).await);
    apply(ISTIO).await;
    let definition = "crd/virtualservices.networking.istio.io";
    let established = ["wait", "--for=condition=Established", definition, "--timeout=60s"];
    succeeded(&control_plane.kubectl(&established).await);
    succeeded(&control_plane.kubectl(&["create", "namespace", "shop"]).await);
    apply(ISTIOS_ROUTE).await;
    apply(&read("deploy/examples/direct-routing.yaml")).await;
    for (asked, found) in [
        ("ivs", "virtualservice.weir.dev/web"),
        ("virtualservices.weir.dev", "virtualservice.weir.dev/web"),
        ("virtualservices.v1alpha1.weir.dev", "virtualservice.weir.dev/web"),
        ("vs", "virtualservice.networking.istio.io/reviews"),
        (
            "virtualservices.networking.istio.io",
            "virtualservice.networking.istio.io/reviews",
        ),
    ] {
        let listed = control_plane
            .kubectl(&["get", asked, "-n", "shop", "-o", "name"])
            .await;
        assert_eq!(succeeded(&listed).trim(), found, "{asked}");
    }
}
