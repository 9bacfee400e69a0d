//! The chart on real Kubernetes nodes: containerd and a kubelet in two nodes of the lab's VM, scheduler and controllers on
//! the host. What is shown is what pods make of it: that the agent's pod may do what it must, as it is shipped.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes nothing but #[test] functions for tests"
)]

mod control_plane;
#[path = "lab/mod.rs"]
mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::thread;

use control_plane::{ControlPlane, limit, program, succeeded, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::ListParams;
use lab::nodes::{self, KubernetesNode, Membership};
use lab::remote::{Program, Vm};
use rustix::process::Signal;
use tokio::time::Instant;
use weir::api::NodeState;

const NAMESPACE: &str = "weir-system";
/// As the chart names it.
const IMAGE: &str = concat!("localhost/weir:", env!("CARGO_PKG_VERSION"));
const NEXT_IMAGE: &str = "localhost/weir:next";
/// In the order of their names.
const NODES: [Membership<'static>; 2] = [
    Membership {
        name: "d1",
        address: "10.0.0.1",
        pods: "10.244.1.0/24",
    },
    Membership {
        name: "rs1",
        address: "10.0.0.11",
        pods: "10.244.2.0/24",
    },
];
const PODS_VIP: &str = "10.0.0.202";
const WEB_VIP: &str = "10.0.0.200";
/// What Weir changes about a node. Links and rules of pods, and the kubelet's rules, come and go by themselves.
const TRACES: &str = "ip -oneline address show | grep -v 'cni0\\|veth'; ip -oneline link show | grep weir
    nft list tables | grep weir; ip rule show; ipvsadm -Sn; ip fou show; cat /proc/sys/net/ipv4/vs/conntrack";
const CONTROLLERS: [&str; 10] = [
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "garbage-collector-controller",
    "deployment-controller",
    "replicaset-controller",
    "daemonset-controller",
    // Uninstalling ends with a Job.
    "job-controller",
    "endpointslice-controller",
    "node-lifecycle-controller",
];

/// Pods on both nodes behind a Service, and two hosts: a node whose pod has the host's network, and one outside the cluster.
const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: weir.dev/v1alpha1
kind: DirectorGroup
metadata: {name: edge}
spec:
  nodeSelector: {matchLabels: {weir.dev/role: director}}
  interface: front
  failover: {type: Static, static: {activeNode: d1}}
---
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: pods, namespace: shop}
spec:
  addresses: [10.0.0.202]
  listeners: [{name: http, protocol: TCP, port: 80}]
  scheduler: {algorithm: rr}
  directorGroupRef: {name: edge}
  backends: [{name: pods, serviceRef: {name: pods, port: http}}]
---
apiVersion: v1
kind: Service
metadata: {name: pods, namespace: shop}
spec:
  selector: {app: pods}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: pods, namespace: shop}
spec:
  replicas: 4
  selector: {matchLabels: {app: pods}}
  template:
    metadata: {labels: {app: pods}}
    spec:
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: pods}}
        matchLabelKeys: [pod-template-hash]
      containers:
      - name: server
        image: localhost/lab:1
        command: [/lab, serve, $(NAME), "8080"]
        env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        # An emulated processor may take a while.
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 20}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  nodeSelector: {kubernetes.io/hostname: rs1}
  hostNetwork: true
  containers:
  - {name: server, image: "localhost/lab:1", command: [/lab, serve, rs1, "80"]}
"#;

/// Also what the host outside the cluster is given.
const WEB: &str = "
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  addresses: [10.0.0.200]
  listeners: [{name: http, protocol: TCP, port: 80}]
  scheduler: {algorithm: rr}
  forwarding: {method: DirectRoute}
  directorGroupRef: {name: edge}
  backends: [{name: web, realServers: {selector: {matchLabels: {app: web}}}}]
---
apiVersion: weir.dev/v1alpha1
kind: RealServer
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {address: 10.0.0.11, port: 80}
---
apiVersion: weir.dev/v1alpha1
kind: RealServer
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {address: 10.0.0.12, port: 80}
";

/// A cluster whose nodes run pods, and a VM that they share with a client and with a host outside.
struct Cluster<'a> {
    control_plane: &'a ControlPlane,
    vm: &'a Vm,
    nodes: [KubernetesNode<'a>; 2],
}

impl<'a> Cluster<'a> {
    /// Makes nodes of the topology nodes of the cluster, and leads the way to each other's pods.
    fn form(control_plane: &'a ControlPlane, vm: &'a Vm) -> Self {
        let server = control_plane.guest_url();
        let start = |node: Membership<'static>| {
            let user = format!("system:node:{}", node.name);
            let kubeconfig = control_plane.kubeconfig_for_user(&user, Some("system:nodes"), &server);
            let api_server = server.trim_start_matches("https://").to_owned();
            move || {
                let started = KubernetesNode::start(vm, node, &kubeconfig, &api_server);
                started.import(IMAGE, "/lab/weir");
                started
            }
        };
        let nodes = thread::scope(|scope| {
            let starting = NODES.map(|node| scope.spawn(start(node)));
            starting.map(|node| node.join().expect("the node starts"))
        });
        for (from, to) in [(NODES[0], NODES[1]), (NODES[1], NODES[0])] {
            vm.sh(from.name, &format!("ip route add {} via {}", to.pods, to.address));
        }
        Self {
            control_plane,
            vm,
            nodes,
        }
    }

    async fn kubectl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        succeeded(&self.control_plane.kubectl(&words).await)
    }

    async fn apply(&self, text: &str) {
        succeeded(
            &self
                .control_plane
                .kubectl_reading(&["apply", "-f", "-"], text)
                .await,
        );
    }

    async fn set_weight(&self, real_server: &str, weight: u32) {
        let patch = format!(r#"{{"spec":{{"weight":{weight}}}}}"#);
        self.kubectl(&format!(
            "patch irs {real_server} -n shop --type=merge -p {patch}"
        ))
        .await;
    }

    fn helm(&self, line: &str) {
        let home = self.control_plane.folder();
        let output = Command::new(program("helm"))
            .args(line.split(' '))
            .args(["--namespace", NAMESPACE])
            .env("HOME", home)
            .env("KUBECONFIG", home.join("admin.kubeconfig"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("helm runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "helm {line}: {said}");
    }

    /// The pods of a namespace, once that many are there and all of them are as wanted.
    async fn pods(&self, namespace: &str, wanted: usize, is_so: impl Fn(&Pod) -> bool) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.control_plane.client(), namespace);
        let look = async || {
            let pods = pods
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?
                .items;
            if pods.len() == wanted && pods.iter().all(&is_so) {
                Ok(pods)
            } else {
                Err(pods.iter().map(summary).collect())
            }
        };
        until(
            &format!("{wanted} pods of {namespace} to be as wanted"),
            limit(180),
            look,
        )
        .await
    }

    /// The agents' pods by node, once every pod of the release is ready and of this image.
    async fn release(&self, image: &str) -> BTreeMap<String, Pod> {
        let is_new = |pod: &Pod| {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            is_ready(pod)
                && containers
                    .map(|container| &container.image)
                    .all(|its| its.as_deref() == Some(image))
        };
        let deployments: Api<Deployment> = Api::namespaced(self.control_plane.client(), NAMESPACE);
        let deployments = deployments.list(&ListParams::default()).await;
        let replicas = deployments
            .expect("the API server lists Deployments")
            .items
            .into_iter();
        let replicas = replicas.filter_map(|deployment| deployment.spec?.replicas);
        let beside_the_agents: usize = replicas.map(|count| count as usize).sum();
        let pods = self
            .pods(NAMESPACE, NODES.len() + beside_the_agents, is_new)
            .await;
        let is_agent = |pod: &Pod| {
            let mut owners = pod.metadata.owner_references.iter().flatten();
            owners.any(|owner| owner.kind == "DaemonSet")
        };
        let agents: BTreeMap<_, _> = pods
            .into_iter()
            .filter(is_agent)
            .filter_map(|pod| Some((pod.spec.as_ref()?.node_name.clone()?, pod)))
            .collect();
        assert!(
            agents.keys().eq(NODES.iter().map(|node| node.name)),
            "{:?}",
            agents.keys()
        );
        agents
    }

    /// Asks until as many as wanted answer, each as often as the others, and says who they are.
    async fn answers(&self, vip: &str, wanted: usize) -> Vec<String> {
        let (questions, address) = ((3 * wanted).to_string(), format!("{vip}:80"));
        let look = async || {
            let asked = self
                .vm
                .run(Some("client"), &["lab", "client", &address, "-n", &questions]);
            let lines = asked.stdout.lines();
            let names: Vec<String> = lines
                .filter_map(|line| line.trim().strip_prefix("3  "))
                .map(str::to_owned)
                .collect();
            if asked.status == 0 && names.len() == wanted {
                Ok(names)
            } else {
                Err(asked.stdout)
            }
        };
        until(&format!("{wanted} to answer on {vip}"), limit(180), look).await
    }

    /// When the kubelet of a node last said that it lives.
    async fn sign_of_life(&self, node: &str) -> Option<MicroTime> {
        let leases: Api<Lease> = Api::namespaced(self.control_plane.client(), "kube-node-lease");
        leases
            .get(node)
            .await
            .expect("a node has a lease")
            .spec?
            .renew_time
    }
}

/// Clients of both VIPs: one asks every 50 ms on a new connection, one holds 20.
struct Clients<'vm> {
    asking: Vec<Program<'vm>>,
    holding: Vec<Program<'vm>>,
}

impl<'vm> Clients<'vm> {
    async fn start(vm: &'vm Vm) -> Self {
        let start = |words: &str| {
            let start = |vip: &str| {
                vm.start(
                    Some("client"),
                    &["sh", "-c", &format!("exec lab {words} {vip}:80")],
                )
            };
            [PODS_VIP, WEB_VIP].map(start).into()
        };
        let clients = Self {
            asking: start("probe --every 50 --timeout 5000 --seconds 3600"),
            holding: start("hold -n 20 --timeout 5000 --seconds 3600"),
        };
        for program in &clients.holding {
            until("connections to be open", limit(180), async || {
                let log = program.log();
                if log.contains("open: ") { Ok(()) } else { Err(log) }
            })
            .await;
        }
        clients
    }

    /// Ends them. None may have asked in vain, and all connections must still be answered by whom they were.
    async fn assert_none_lost(self, meanwhile: &str) {
        for program in &self.asking {
            let said = ended(program).await;
            let count = |what: &str| said.split(what).nth(1)?.split(',').next()?.parse::<u32>().ok();
            let (asked, answered) = (count("asked: "), count("answered: "));
            assert!(asked.is_some() && asked == answered, "{meanwhile}: {said}");
        }
        for program in &self.holding {
            let said = ended(program).await;
            assert!(said.contains("alive: 20, broken: {}"), "{meanwhile}: {said}");
        }
    }
}

/// Asks a program to end, and hands back what it has printed.
async fn ended(program: &Program<'_>) -> String {
    program.signal(Signal::TERM);
    until("a client to end", limit(180), async || {
        let status = program.ended().ok_or("it still runs")?;
        Ok(format!("{} (status {status})", program.log()))
    })
    .await
}

/// A real server that is no node of the cluster: a server, and an agent that reads a folder.
fn host_outside(vm: &Vm) -> [Program<'_>; 2] {
    vm.put("/etc/weir/web.yaml", WEB);
    let agent =
        "weir agent --manifests /etc/weir --role realserver --node-name rs2 --state-dir /var/lib/weir-rs2";
    ["lab serve rs2 80", agent].map(|line| vm.start(Some("rs2"), &line.split(' ').collect::<Vec<_>>()))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    pod.metadata.deletion_timestamp.is_none() && ready.next().is_some()
}

/// Which pods these are, and how often their containers have been started again.
fn lives(pods: &[Pod]) -> BTreeSet<String> {
    let life = |pod: &Pod| {
        let containers = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        let restarts: i32 = containers.map(|container| container.restart_count).sum();
        format!("{:?} {restarts}", pod.metadata.uid)
    };
    pods.iter().map(life).collect()
}

/// A line about a pod, for when it is waited for in vain.
fn summary(pod: &Pod) -> String {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let lacking = conditions.filter(|condition| condition.status != "True");
    let why: Vec<_> = lacking
        .map(|condition| (&condition.type_, &condition.message))
        .collect();
    let deleted = pod.metadata.deletion_timestamp.is_some();
    format!("\n{:?} lacks {why:?}, deleted: {deleted}", pod.metadata.name)
}

/// What is done to the cluster, and what must come of it.
impl Cluster<'_> {
    async fn installed_by_helm(&self) {
        self.helm("install weir charts/weir --create-namespace");
        self.release(IMAGE).await;
        self.kubectl("label node d1 weir.dev/role=director").await;
    }

    async fn pods_and_hosts_answer(&self) {
        self.apply(SHOP).await;
        self.apply(WEB).await;
        self.pods("shop", 5, is_ready).await;
        assert_eq!(self.answers(WEB_VIP, 2).await, ["rs1", "rs2"]);
        self.answers(PODS_VIP, 4).await;
    }

    async fn nothing_is_lost_when_an_agent_is_deleted(&self) {
        let clients = Clients::start(self.vm).await;
        let agents = self.release(IMAGE).await;
        let name = agents["d1"].metadata.name.as_deref().expect("a pod has a name");
        self.kubectl(&format!("delete pod -n {NAMESPACE} {name} --wait=false"))
            .await;
        self.release(IMAGE).await;
        clients.assert_none_lost("the director's agent was deleted").await;
    }

    async fn nothing_is_lost_when_a_kubelet_is_killed(&mut self) {
        let clients = Clients::start(self.vm).await;
        let pods = lives(&self.pods("shop", 5, is_ready).await);
        self.nodes[0].kill_kubelet();
        // The agent goes on without it.
        self.set_weight("web-2", 0).await;
        self.answers(WEB_VIP, 1).await;
        self.set_weight("web-2", 1).await;
        self.answers(WEB_VIP, 2).await;
        let last = self.sign_of_life("d1").await;
        self.nodes[0].start_kubelet();
        until("the kubelet to live again", limit(180), async || {
            let now = self.sign_of_life("d1").await;
            if now == last {
                Err(format!("{now:?}"))
            } else {
                Ok(())
            }
        })
        .await;
        assert_eq!(lives(&self.pods("shop", 5, is_ready).await), pods);
        clients
            .assert_none_lost("the director's kubelet was killed")
            .await;
    }

    async fn nothing_is_lost_when_the_chart_is_upgraded(&self) {
        let clients = Clients::start(self.vm).await;
        for node in &self.nodes {
            node.sh(&format!("ctr --namespace k8s.io images tag {IMAGE} {NEXT_IMAGE}"));
        }
        self.helm("upgrade weir charts/weir --set image.tag=next");
        self.release(NEXT_IMAGE).await;
        clients.assert_none_lost("the DaemonSet was rolled").await;
    }

    /// As docs/kubernetes.md says that it is done, and what it says is left.
    async fn nothing_is_left_when_the_chart_is_uninstalled(&self, before: &[String]) {
        self.kubectl("delete virtualservices.weir.dev --all --all-namespaces")
            .await;
        let states: Api<NodeState> = Api::all(self.control_plane.client());
        let is_empty = |state: &NodeState| {
            let status = state.status.as_ref();
            status.is_some_and(|status| status.programmed.services == 0)
        };
        until("every node to let go", limit(180), async || {
            let states = states.list(&ListParams::default()).await;
            let states = states.map_err(|error| error.to_string())?.items;
            if states.iter().all(is_empty) {
                Ok(())
            } else {
                Err(format!("{states:?}"))
            }
        })
        .await;
        self.helm("uninstall weir");
        self.pods(NAMESPACE, 0, is_ready).await;
        for (node, before) in self.nodes.iter().zip(before) {
            assert_eq!(node.sh(TRACES), *before, "{}", node.name());
            node.sh("test -e /var/lib/weir/ledger");
        }
        assert_eq!(self.kubectl("get crds -o name").await.lines().count(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab VM and Kubernetes' programs: make test-real-nodes"]
async fn the_chart_balances_on_real_nodes_whatever_happens_to_pods_and_kubelets() {
    let began = Instant::now();
    let passed = |what: &str| eprintln!("{what} after {:.0?}", began.elapsed());
    let control_plane = ControlPlane::start()
        .await
        .with_controller_manager(&CONTROLLERS)
        .await
        .with_scheduler()
        .await;
    let vm = Vm::boot(&nodes::boot(&nodes::PROGRAMS.map(program)));
    passed("the VM answered");
    let mut cluster = Cluster::form(&control_plane, &vm);
    let before = cluster.nodes.each_ref().map(|node| node.sh(TRACES));
    let _outside = host_outside(&vm);
    passed("the nodes were started");

    cluster.installed_by_helm().await;
    passed("the chart was installed");
    cluster.pods_and_hosts_answer().await;
    passed("all real servers answered");
    cluster.nothing_is_lost_when_an_agent_is_deleted().await;
    passed("the deleted agent was back");
    cluster.nothing_is_lost_when_a_kubelet_is_killed().await;
    passed("the killed kubelet was back");
    cluster.nothing_is_lost_when_the_chart_is_upgraded().await;
    passed("the chart was upgraded");
    cluster
        .nothing_is_left_when_the_chart_is_uninstalled(&before)
        .await;
    passed("the chart was uninstalled");
}
