//! A cluster whose nodes run pods, and the walk of docs/kubernetes.md through it: for `tests/cluster/real_nodes.rs`, and for the
//! demo in Kubernetes.
//!
//! API server, scheduler and controllers are on the host; containerd and a kubelet are in two nodes of the lab's VM, which
//! also has the client and the hosts outside the cluster.

#![allow(dead_code, reason = "each program uses another part of it")]

mod clients;

use std::collections::{BTreeMap, VecDeque};
use std::process::{Command, Stdio};
use std::{fs, thread};

pub(crate) use clients::Clients;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use crate::control_plane::{ControlPlane, limit, program, until};
use crate::lab::nodes::{self, KubernetesNode, LAB_IMAGE, Membership};
use crate::lab::remote::{Program, Vm};
use crate::walk::{self, Step};

pub(crate) const NAMESPACE: &str = "weir-system";
/// In the order of their names.
pub(crate) const NODES: [Membership<'static>; 2] = [
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
/// Of `deploy/examples/more/pods.yaml`.
pub(crate) const PODS_VIP: &str = "10.0.0.208";
/// Of `deploy/examples/direct-routing.yaml`.
pub(crate) const WEB_VIP: &str = "10.0.0.200";
pub(crate) const VIPS: [&str; 2] = [PODS_VIP, WEB_VIP];
/// Images that the walk and the examples pull.
pub(crate) const IMAGE: &str = concat!("registry.example/weir:", env!("CARGO_PKG_VERSION"));
pub(crate) const NEXT_IMAGE: &str = "registry.example/weir:next";
const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
const CONTROLLERS: [&str; 11] = [
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
    // Says how many pods a drain may take.
    "disruption-controller",
];

/// Starts the control plane.
pub(crate) async fn control_plane() -> ControlPlane {
    ControlPlane::start()
        .await
        .with_controller_manager(&CONTROLLERS)
        .await
        .with_scheduler()
        .await
}

/// Boots the VM.
pub(crate) fn vm() -> Vm {
    Vm::boot(&nodes::boot(&nodes::PROGRAMS.map(program)))
}

/// A running cluster.
pub(crate) struct Cluster<'a> {
    pub(crate) control_plane: &'a ControlPlane,
    pub(crate) vm: &'a Vm,
    pub(crate) nodes: [KubernetesNode<'a>; 2],
    /// What is left of the walk.
    walk: VecDeque<Step>,
}

impl<'a> Cluster<'a> {
    /// Makes nodes of the topology nodes of the cluster, and leads the way to each other's pods.
    pub(crate) fn form(control_plane: &'a ControlPlane, vm: &'a Vm) -> Self {
        let server = control_plane.guest_url();
        let start = |node: Membership<'static>| {
            let user = format!("system:node:{}", node.name);
            let kubeconfig = control_plane.kubeconfig_for_user(&user, Some("system:nodes"), &server);
            let api_server = server.trim_start_matches("https://").to_owned();
            move || {
                let started = KubernetesNode::start(vm, node, &kubeconfig, &api_server);
                started.import(IMAGE, "/lab/weir");
                // There is but one weir: what matters is that it is started anew.
                started.tag(IMAGE, NEXT_IMAGE);
                // The helper program understands the same words.
                started.tag(LAB_IMAGE, AGNHOST);
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
            walk: walk::steps().into(),
        }
    }

    /// The walk's next step, which has this heading.
    pub(crate) fn next_step(&mut self, heading: &str) -> Step {
        let next = self.walk.pop_front();
        assert_eq!(next.as_ref().map(|step| &*step.heading), Some(heading));
        next.expect("it was just compared")
    }

    /// Takes the walk's next step, which has this heading.
    pub(crate) async fn takes_step(&mut self, heading: &str) {
        for command in self.next_step(heading).commands {
            self.sees(&command).await;
        }
    }

    /// Asserts that every step of the walk was taken.
    pub(crate) fn assert_at_the_end_of_the_walk(&self) {
        assert!(self.walk.is_empty(), "left: {:?}", self.walk);
    }

    /// Types a command of the walk, again and again until it prints what the page shows.
    pub(crate) async fn sees(&self, command: &walk::Command) -> String {
        let look = async || {
            let printed = self.types(&command.line);
            if command.shows(&printed) {
                Ok(printed)
            } else {
                Err(printed)
            }
        };
        until(&format!("{command:?}"), limit(120), look).await
    }

    /// Types a command into a shell in the repository, as an administrator of the cluster, and hands back what it printed.
    /// `curl` is the client's, which has wget.
    pub(crate) fn types(&self, line: &str) -> String {
        if let Some(url) = line.strip_prefix("curl ") {
            return self.vm.sh("client", &format!("wget -qO- {url}"));
        }
        let home = self.control_plane.folder();
        let functions = r#"kubectl() { "$KUBECTL" "$@"; }; helm() { "$HELM" "$@"; };"#;
        let output = Command::new("timeout")
            .arg(limit(300).as_secs().to_string())
            .args(["sh", "-euc", &format!("{functions} {line}")])
            .env("KUBECTL", program("kubectl"))
            .env("HELM", program("helm"))
            .env("HOME", home)
            .env("KUBECONFIG", home.join("admin.kubeconfig"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .output()
            .expect("a shell runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {}: {said}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The pods of a namespace, once that many are there and all of them are as wanted.
    pub(crate) async fn pods(
        &self,
        namespace: &str,
        wanted: usize,
        is_so: impl Fn(&Pod) -> bool,
    ) -> Vec<Pod> {
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
    pub(crate) async fn release(&self, image: &str) -> BTreeMap<String, Pod> {
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
        let agents: BTreeMap<_, _> = pods
            .into_iter()
            .filter(|pod| {
                let mut owners = pod.metadata.owner_references.iter().flatten();
                owners.any(|owner| owner.kind == "DaemonSet")
            })
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
    pub(crate) async fn answers(&self, vip: &str, wanted: usize) -> Vec<String> {
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
}

/// Starts the web servers of `deploy/examples/direct-routing.yaml`. Two of the hosts are no nodes of the cluster: their agents
/// read a folder.
pub(crate) fn hosts(vm: &Vm) -> Vec<Program<'_>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/direct-routing.yaml");
    let manifest = fs::read_to_string(manifest).expect("the example is there");
    vm.put("/etc/weir/web.yaml", &manifest);
    let server = |host| (host, format!("lab serve {host} 80"));
    let agent = |host| {
        let line = format!(
            "weir agent --manifests /etc/weir --role realserver --node-name {host} --state-dir /var/lib/weir-{host}"
        );
        (host, line)
    };
    let programs = [
        server("rs1"),
        server("rs2"),
        agent("rs2"),
        server("rs3"),
        agent("rs3"),
    ];
    let start = |(host, line): (_, String)| vm.start(Some(host), &line.split(' ').collect::<Vec<_>>());
    programs.map(start).into()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    pod.metadata.deletion_timestamp.is_none() && ready.next().is_some()
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
