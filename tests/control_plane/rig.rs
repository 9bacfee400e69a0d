//! A cluster of Weir's objects for the controller: its rights are those of `deploy/`, and the agents are the test.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir::catalog::{Generation, Generations, NamespacedName};

use crate::control_plane::{ControlPlane, Gateway, limit, succeeded, until};
use crate::process::Process;
use crate::rendered::assert_expected;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// What is there from the beginning.
pub(crate) const OBJECTS: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- apiVersion: weir.dev/v1alpha1
  kind: DirectorGroup
  metadata: {name: edge}
  spec: {nodeSelector: {matchLabels: {weir.dev/role: director}}, failover: {type: Static, static: {activeNode: d1}}}
- apiVersion: weir.dev/v1alpha1
  kind: RealServer
  metadata: {name: rs1, namespace: shop, labels: {app: web}}
  spec: {address: 10.0.0.11}
- apiVersion: weir.dev/v1alpha1
  kind: RealServer
  metadata: {name: rs2, namespace: shop, labels: {app: web}}
  spec: {address: 10.0.0.12, weight: 0}
";

/// The node that the director group names.
pub(crate) const NODE: &str =
    "{apiVersion: v1, kind: Node, metadata: {name: d1, labels: {weir.dev/role: director}}}";

/// A virtual service of all real servers there are, with more fields of its spec.
pub(crate) fn web(name: &str, vip: &str, more: &str) -> String {
    format!(
        "{{apiVersion: weir.dev/v1alpha1, kind: VirtualService, metadata: {{name: {name}, namespace: shop}}, spec: {{\
         addresses: [{vip}], listeners: [{{name: http, protocol: TCP, port: 80}}], directorGroupRef: {{name: edge}}, \
         backends: [{{name: web, realServers: {{selector: {{matchLabels: {{app: web}}}}}}}}]{more}}}}}\n"
    )
}

pub(crate) struct Fixture {
    pub(crate) control_plane: ControlPlane,
    kubeconfig: tempfile::TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::on(ControlPlane::start().await).await
    }

    /// On a control plane that has more than an API server.
    pub(crate) async fn on(control_plane: ControlPlane) -> Self {
        control_plane.deploy().await;
        let kubeconfig = tempfile::tempdir().unwrap();
        let text = control_plane.controller_kubeconfig().await;
        std::fs::write(kubeconfig.path().join("config"), text).unwrap();
        let fixture = Self {
            control_plane,
            kubeconfig,
        };
        fixture.apply(OBJECTS).await;
        fixture
    }

    pub(crate) fn controller(&self, identity: &str, more: &[&str]) -> Process {
        let mut command = Command::new(WEIR);
        command
            .args(["controller", "--identity", identity])
            .args(more)
            .env("KUBECONFIG", self.kubeconfig.path().join("config"));
        Process::start(&mut command)
    }

    /// A controller that reaches the API server through a gateway, and the gateway.
    pub(crate) async fn controller_behind_gateway(&self, identity: &str) -> (Process, Gateway) {
        let direct = std::fs::read_to_string(self.kubeconfig.path().join("config")).unwrap();
        let gateway = Gateway::start(&direct).await;
        let kubeconfig = self.kubeconfig.path().join(identity);
        std::fs::write(&kubeconfig, gateway.kubeconfig()).unwrap();
        let mut command = Command::new(WEIR);
        command
            .args(["controller", "--identity", identity])
            .env("KUBECONFIG", kubeconfig);
        (Process::start(&mut command), gateway)
    }

    pub(crate) async fn apply(&self, text: &str) {
        succeeded(
            &self
                .control_plane
                .kubectl_reading(&["apply", "-f", "-"], text)
                .await,
        );
    }

    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(&self.control_plane.kubectl(arguments).await)
    }

    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        let arguments = ["get", kind, name, "-n", "shop", "-o", "json"];
        let output = self.control_plane.kubectl(&arguments).await;
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// What the agent of d1 reports: that it has everything for these virtual services.
    pub(crate) async fn report(&self, served: &[&str], more: Value) {
        let mut generations = Generations::default();
        for name in served {
            let generation = self.get("ivs", name).await["metadata"]["generation"].as_i64();
            let name = NamespacedName {
                namespace: "shop".into(),
                name: (*name).into(),
            };
            generations.exchange(None, Some(Generation::new(&name, generation)));
        }
        let programmed = json!({ "digest": "0", "services": served.len(), "destinations": 0 });
        let mut status = json!({
            "agentVersion": "test", "desired": programmed, "programmed": programmed, "foreignServices": 0,
            "failureCount": 0, "findingCount": 0, "roles": [{ "directorGroup": "edge", "role": "Active" }],
            "programmedVirtualServices": generations.to_string(),
        });
        for (member, value) in more.as_object().unwrap() {
            status[member] = value.clone();
        }
        let state = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "NodeState", "metadata": { "name": "d1" }, "spec": {}, "status": status,
        });
        let state = state.to_string();
        for more in [&[][..], &["--subresource=status"]] {
            let arguments = [&["apply", "--server-side", "--force-conflicts", "-f", "-"], more].concat();
            succeeded(&self.control_plane.kubectl_reading(&arguments, &state).await);
        }
    }

    /// Compares an object as it is now, but for what differs from run to run, with a file of `tests/data/recorded`.
    pub(crate) async fn assert_recorded(&self, kind: &str, name: &str, file: &str) {
        let mut object = self.get(kind, name).await;
        let metadata = object["metadata"].as_object_mut().unwrap();
        for member in [
            "annotations",
            "creationTimestamp",
            "managedFields",
            "resourceVersion",
            "uid",
        ] {
            metadata.remove(member);
        }
        let then = json!("2026-01-02T03:04:05Z");
        if let Some(time) = metadata.get_mut("deletionTimestamp") {
            *time = then.clone();
        }
        let conditions = object
            .pointer_mut("/status/conditions")
            .and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten() {
            condition["lastTransitionTime"] = then.clone();
        }
        assert_expected(
            &format!("tests/data/recorded/{file}.json"),
            &format!("{object:#}\n"),
        );
    }

    /// Who holds the Lease.
    pub(crate) async fn holder(&self) -> String {
        let lease = ["get", "lease", "weir-controller", "-n", "weir-system"];
        let jsonpath = ["-o", "jsonpath={.spec.holderIdentity}"];
        self.kubectl(&[&lease[..], &jsonpath].concat()).await
    }

    /// How often each thing has been told of each object of the namespace.
    pub(crate) async fn events(&self) -> BTreeMap<String, usize> {
        let jsonpath = "jsonpath={range .items[*]}{.regarding.name} {.type} {.reason}{\"\\n\"}{end}";
        let get = ["get", "events.events.k8s.io", "-n", "shop", "-o", jsonpath];
        let mut told = BTreeMap::new();
        for line in self.kubectl(&get).await.lines() {
            *told.entry(line.to_owned()).or_default() += 1;
        }
        told
    }

    /// Waits for a condition to be of a status and a reason, and says its message.
    pub(crate) async fn condition(&self, kind: &str, name: &str, aspect: &str, wanted: &str) -> String {
        self.condition_within(limit(30), kind, name, aspect, wanted).await
    }

    /// Waits this long for a condition to be of a status and a reason, and says its message.
    pub(crate) async fn condition_within(
        &self,
        within: Duration,
        kind: &str,
        name: &str,
        aspect: &str,
        wanted: &str,
    ) -> String {
        let what = format!("{kind} {name}: {aspect} is {wanted}");
        until(&what, within, async || {
            let object = self.get(kind, name).await;
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let condition = conditions.iter().find(|condition| condition["type"] == aspect);
            let text = |member: &str| {
                condition
                    .map_or("", |condition| condition[member].as_str().unwrap_or(""))
                    .to_owned()
            };
            if format!("{} {}", text("status"), text("reason")) == wanted {
                Ok(text("message"))
            } else {
                Err(format!("{:#}", object["status"]))
            }
        })
        .await
    }

    /// Waits until the status speaks of the generation that there is now.
    pub(crate) async fn is_observed(&self, kind: &str, name: &str, within: Duration) {
        until(
            &format!("the status of {kind} {name} is of now"),
            within,
            async || {
                let object = self.get(kind, name).await;
                let (now, seen) = (
                    &object["metadata"]["generation"],
                    &object["status"]["observedGeneration"],
                );
                (now == seen)
                    .then_some(())
                    .ok_or_else(|| format!("{seen} of {now}"))
            },
        )
        .await;
    }

    pub(crate) async fn is_gone(&self, kind: &str, name: &str, within: Duration) -> Duration {
        let begin = Instant::now();
        until(&format!("{kind} {name} is gone"), within, async || {
            match self.get(kind, name).await {
                Value::Null => Ok(()),
                object => Err(object["metadata"].to_string()),
            }
        })
        .await;
        begin.elapsed()
    }
}
