//! Definitions of another version than the program, as they are while a cluster is upgraded or a version taken back:
//! objects may ask for what the program does not know, and have no place for what it reports.
//!
//! The definitions are this version's, changed; the API server is a real one, the agent's table is in memory.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use crate::control_plane::{ControlPlane, limit, succeeded, until};
use crate::process::Process;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir::agent::report::Report;
use weir::agent::{Agent, publish};
use weir::api::crds;
use weir::catalog::MarkMask;
use weir::host::MemoryHost;
use weir::ipvs::MemoryTable;
use weir::ledger::Ledger;
use weir::node::Programmer;
use weir::plan::{Directing, Node, World};
use weir::source::cluster;

const NAMES: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- {apiVersion: v1, kind: Node, metadata: {name: d1, labels: {weir.dev/role: director}}}
- apiVersion: weir.dev/v1alpha1
  kind: DirectorGroup
  metadata: {name: edge}
  spec: {nodeSelector: {matchLabels: {weir.dev/role: director}}, failover: {type: Static, static: {activeNode: d1}}}
- apiVersion: weir.dev/v1alpha1
  kind: RealServer
  metadata: {name: rs1, namespace: shop, labels: {app: web}}
  spec: {address: 10.0.0.11}
";

/// A virtual service; `more` is the rest of its spec.
fn web(name: &str, vip: &str, more: &str) -> String {
    format!(
        "{{apiVersion: weir.dev/v1alpha1, kind: VirtualService, metadata: {{name: {name}, namespace: shop}}, spec: {{\
         addresses: [{vip}], listeners: [{{name: http, protocol: TCP, port: 80}}], directorGroupRef: {{name: edge}}, \
         backends: [{{name: web, realServers: {{selector: {{matchLabels: {{app: web}}}}}}}}]{more}}}}}\n"
    )
}

/// The definitions, each changed at places of its schema.
fn definitions(change: impl Fn(&str, &mut Value)) -> String {
    let mut items = Vec::new();
    for crd in crds() {
        let mut crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        change(
            &kind,
            &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"],
        );
        items.push(crd);
    }
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

struct Fixture {
    control_plane: ControlPlane,
    shutdown: CancellationToken,
    _directory: tempfile::TempDir,
    reports: watch::Receiver<Report>,
}

impl Fixture {
    /// An API server with these definitions, and the agent of d1.
    async fn new(definitions: &str, objects: &str) -> Self {
        let control_plane = ControlPlane::start().await;
        for text in [definitions, NAMES, objects] {
            // A definition takes a moment to be served.
            until("the objects are taken", limit(30), async || {
                let output = control_plane.kubectl_reading(&["apply", "-f", "-"], text).await;
                output
                    .status
                    .success()
                    .then_some(())
                    .ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
            })
            .await;
        }
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let node = Node {
            name: "d1".to_owned(),
            directing: Directing::InGroups,
            ..Node::default()
        };
        let (table, host) = (MemoryTable::default(), MemoryHost::default());
        let world = World::new(node, MarkMask::default());
        let programmer = Programmer::new(table, host, ledger, false);
        let (events, received) = mpsc::channel(16);
        let (sender, reports) = watch::channel(Report::default());
        let (_, wanted) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let agent = Agent::new(world, programmer, Duration::from_secs(60), sender);
        tokio::spawn(agent.run(received, shutdown.clone()));
        let (client, token) = (control_plane.client(), shutdown.clone());
        let published = reports.clone();
        tokio::spawn(async move {
            let source = cluster::watch(
                client.clone(),
                "d1",
                cluster::Memory::default(),
                wanted,
                events,
                token.clone(),
            );
            let publisher = publish::publish(client, "d1", published, token.clone());
            tokio::join!(source, publisher)
        });
        Self {
            control_plane,
            shutdown,
            _directory: directory,
            reports,
        }
    }

    fn controller(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .args(["controller", "--identity", "one", "--lease-namespace", "default"])
            .env("KUBECONFIG", self.control_plane.folder().join("admin.kubeconfig"));
        Process::start(&mut command)
    }

    async fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        succeeded(&self.control_plane.kubectl_reading(arguments, input).await)
    }

    async fn status(&self, kind: &str, name: &str) -> Value {
        let arguments = ["get", kind, name, "-n", "shop", "-o", "json"];
        let output = self.control_plane.kubectl(&arguments).await;
        let object: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        object["status"].clone()
    }

    /// Waits until a status has conditions of these types with these statuses, and says their messages.
    async fn conditions(&self, kind: &str, name: &str, wanted: &[(&str, &str)]) -> BTreeMap<String, String> {
        until(&format!("{kind} {name}: {wanted:?}"), limit(30), async || {
            let status = self.status(kind, name).await;
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let text =
                |condition: &Value, member: &str| condition[member].as_str().unwrap_or_default().to_owned();
            let are_so = wanted.iter().all(|(aspect, value)| {
                let mut of_type = conditions.iter().filter(|one| text(one, "type") == *aspect);
                of_type.any(|one| text(one, "status") == *value)
            });
            let messages = conditions
                .iter()
                .map(|one| (text(one, "type"), text(one, "message")));
            are_so
                .then(|| messages.collect())
                .ok_or_else(|| format!("{status:#}"))
        })
        .await
    }

    /// Waits for a report of the agent.
    async fn report(&mut self, what: &str, is_so: impl FnMut(&Report) -> bool) -> Report {
        let waiting = tokio::time::timeout(limit(30), self.reports.wait_for(is_so)).await;
        let report = waiting.map(|report| report.unwrap().clone());
        report.unwrap_or_else(|_| panic!("waited for {what}: {:#?}", self.reports.borrow()))
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What an upgrade looks like for whoever has not been upgraded yet.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn one_object_of_a_newer_version_keeps_nobody_from_reading_the_others() {
    let newer = definitions(|kind, properties| match kind {
        "VirtualService" => {
            let spec = &mut properties["spec"]["properties"];
            let methods = &mut spec["forwarding"]["properties"]["method"]["enum"];
            methods.as_array_mut().unwrap().push(json!("Teleport"));
            spec["listeners"]["items"]["properties"]["rateLimit"] = json!({ "type": "integer" });
        }
        "RealServer" => {
            let states = &mut properties["spec"]["properties"]["adminState"]["enum"];
            states.as_array_mut().unwrap().push(json!("Cordoned"));
        }
        "NodeState" => {
            let methods = &mut properties["status"]["properties"]["arpSuppression"]["items"]["enum"];
            methods.as_array_mut().unwrap().push(json!("Ebpf"));
        }
        _ => {}
    });
    let limited = web("limited", "10.0.0.202", "").replace("port: 80", "port: 80, rateLimit: 5");
    let objects = [
        web("plain", "10.0.0.200", ""),
        web("strange", "10.0.0.201", ", forwarding: {method: Teleport}"),
        limited,
        "{apiVersion: weir.dev/v1alpha1, kind: RealServer, metadata: {name: rs2, namespace: shop, labels: {app: web}}, \
         spec: {address: 10.0.0.12, adminState: Cordoned}}"
            .to_owned(),
    ];
    let mut fixture = Fixture::new(&newer, &objects.join("\n---\n")).await;
    let _controller = fixture.controller();

    let report = fixture
        .report("the others are programmed", |report| {
            report.complete
                && report.node.programmed.services == 2
                && report.node.programmed.destinations == 2
        })
        .await;
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    let starts = [
        "RealServer shop/rs2: spec.adminState: unsupported value \"Cordoned\"; supported values: ",
        "VirtualService shop/limited: spec.listeners[0].rateLimit: Weir 0.1.0 does not know this field",
        "VirtualService shop/strange: spec.forwarding.method: unsupported value \"Teleport\"; supported values: ",
    ];
    for start in starts {
        assert!(
            findings.iter().any(|finding| finding.starts_with(start)),
            "{start}: {findings:#?}"
        );
    }
    // What an agent cannot read was perhaps programmed by a newer one, before it was taken back.
    assert!(
        report.problems[0].starts_with("nothing is deleted"),
        "{:?}",
        report.problems
    );

    let messages = fixture
        .conditions("ivs", "strange", &[("Accepted", "False"), ("Stalled", "True")])
        .await;
    assert!(
        messages["Accepted"].starts_with("spec.forwarding.method: unsupported value \"Teleport\"")
            && messages["Accepted"].ends_with("written for another version of Weir than 0.1.0? Then upgrade"),
        "{messages:#?}"
    );
    let messages = fixture
        .conditions("ivs", "limited", &[("Accepted", "True"), ("Ready", "True")])
        .await;
    assert!(
        messages["Accepted"].contains("rateLimit: Weir 0.1.0 does not know this field"),
        "{messages:#?}"
    );
    fixture.conditions("ivs", "plain", &[("Ready", "True")]).await;
    fixture.conditions("irs", "rs2", &[("Accepted", "False")]).await;

    // Its last good form stays.
    fixture
        .kubectl(
            &["apply", "-f", "-"],
            &web("plain", "10.0.0.200", ", forwarding: {method: Teleport}"),
        )
        .await;
    let messages = fixture.conditions("ivs", "plain", &[("Accepted", "False")]).await;
    assert!(messages["Accepted"].contains("Teleport"), "{messages:#?}");
    let report = fixture
        .report("a pass", |report| report.findings.len() >= 4)
        .await;
    assert_eq!(report.node.programmed.services, 2, "{report:#?}");

    // A real server that cannot be read is deleted like any other.
    fixture
        .kubectl(
            &["delete", "irs", "rs1", "rs2", "-n", "shop", "--timeout=30s"],
            "",
        )
        .await;

    // An agent that is newer than the controller: that node alone is uncertain.
    let state = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NodeState", "metadata": { "name": "d2" }, "spec": {},
        "status": { "agentVersion": "9", "arpSuppression": ["Ebpf"], "failureCount": 0, "findingCount": 0, "foreignServices": 0,
            "desired": { "digest": "0", "services": 0, "destinations": 0 },
            "programmed": { "digest": "0", "services": 0, "destinations": 0 } },
    });
    for more in [&[][..], &["--subresource=status"]] {
        let arguments = [&["apply", "--server-side", "-f", "-"], more].concat();
        fixture.kubectl(&arguments, &state.to_string()).await;
    }
    // When nothing is left that cannot be read, what is not wanted any more goes.
    fixture
        .kubectl(
            &["delete", "ivs", "strange", "plain", "-n", "shop", "--timeout=30s"],
            "",
        )
        .await;
    fixture
        .kubectl(&["apply", "-f", "-"], &web("limited", "10.0.0.203", ""))
        .await;
    let report = fixture
        .report("one virtual service", |report| {
            report.complete && report.node.programmed.services == 1
        })
        .await;
    assert_eq!(report.problems, [] as [String; 0]);
    until("its new form is accepted and programmed", limit(30), async || {
        let messages = fixture.conditions("ivs", "limited", &[("Ready", "True")]).await;
        let accepted = &messages["Accepted"];
        (!accepted.contains("rateLimit"))
            .then_some(())
            .ok_or_else(|| accepted.clone())
    })
    .await;
}

/// What taking back the definitions looks like, or a chart that was told to leave them alone.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn what_an_older_definition_has_no_place_for_is_left_out_and_the_rest_is_reported() {
    let older = definitions(|kind, properties| {
        let mut lacks = |part: &str, field: &str| {
            let members = properties[part]["properties"].as_object_mut().unwrap();
            assert!(members.remove(field).is_some(), "{kind} has no {part}.{field}");
        };
        match kind {
            "VirtualService" => {
                lacks("spec", "draining");
                lacks("status", "backendSummary");
            }
            "RealServer" => lacks("status", "virtualServices"),
            "DirectorGroup" => lacks("status", "nodes"),
            _ => lacks("status", "leavingDestinations"),
        }
    });
    let fixture = Fixture::new(&older, &web("plain", "10.0.0.200", "")).await;
    let _controller = fixture.controller();
    fixture.conditions("ivs", "plain", &[("Ready", "True")]).await;
    fixture.conditions("irs", "rs1", &[("Ready", "True")]).await;
    fixture.conditions("dirgrp", "edge", &[("Ready", "True")]).await;
    let status = fixture.status("ivs", "plain").await;
    assert_eq!(
        (&status["backendSummary"], &status["activeNode"]),
        (&Value::Null, &json!("d1"))
    );
    let state = fixture.status("nodestates.weir.dev", "d1").await;
    assert_eq!(
        (&state["leavingDestinations"], &state["programmed"]["services"]),
        (&Value::Null, &json!(1))
    );
}
