//! The whole line: a real API server and etcd on the host, agents on five nodes in the lab's VM, traffic through them.
//!
//! Each agent has what its pod would have: a token of the ServiceAccount that is bound to its node, the RBAC rules of
//! `deploy/`, and the two capabilities. Whatever is missing there shows here.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::control_plane::{ControlPlane, limit, succeeded, until};
use crate::lab::agent;
use crate::lab::remote::{Boot, Program, Vm};
use crate::poll::{eventually, within};
use crate::process::Process;
use serde_json::Value;

const NODES: [&str; 5] = ["d1", "d2", "rs1", "rs2", "rs3"];
const WEB_VIP: &str = "10.0.0.200";
const API_VIP: &str = "10.0.0.201";
const PODS_VIP: &str = "10.0.0.202";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Objects of the cluster that are there before Weir is.
const CLUSTER: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- {apiVersion: v1, kind: Node, metadata: {name: d1, labels: {weir.dev/role: director}}}
- {apiVersion: v1, kind: Node, metadata: {name: d2, labels: {weir.dev/role: director}}}
- {apiVersion: v1, kind: Node, metadata: {name: rs1}}
- {apiVersion: v1, kind: Node, metadata: {name: rs2}}
- {apiVersion: v1, kind: Node, metadata: {name: rs3}}
";

/// A Service without a selector, so that the test says what its endpoints are.
const PODS: &str = "
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
spec: {clusterIP: None, ports: [{name: http, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pods-1, namespace: shop, labels: {kubernetes.io/service-name: pods}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [ENDPOINTS]
";

fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(path)
        .display()
        .to_string()
}

/// A control plane with the objects of `deploy/`.
async fn deployed() -> ControlPlane {
    let control_plane = ControlPlane::start().await;
    succeeded(
        &control_plane
            .kubectl_reading(&["apply", "-f", "-"], CLUSTER)
            .await,
    );
    control_plane.deploy().await;
    control_plane
}

async fn kubectl(control_plane: &ControlPlane, arguments: &[&str]) -> String {
    let output = control_plane.kubectl(arguments).await;
    succeeded(&output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Masqueraded replies go back through the director: the client is a neighbour, and routes are not Weir's business.
fn set_up_way_back(vm: &Vm) {
    for node in ["rs1", "rs2", "rs3"] {
        vm.sh(
            node,
            "ip rule add from 10.1.0.0/24 lookup 100; ip route add default via 10.1.0.1 table 100",
        );
    }
}

async fn start_agent<'vm>(control_plane: &ControlPlane, vm: &'vm Vm, node: &str) -> Program<'vm> {
    agent::start(vm, node, &control_plane.agent_kubeconfig(node).await)
}

/// The controller on this host, with the rights that its pod would have.
async fn start_controller(control_plane: &ControlPlane) -> Process {
    let kubeconfig = control_plane.folder().join("controller.kubeconfig");
    let text = control_plane.controller_kubeconfig().await;
    std::fs::write(&kubeconfig, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command
        .args(["controller", "--identity", "host"])
        .env("KUBECONFIG", kubeconfig);
    Process::start(&mut command)
}

/// Waits for something in a node's table, as `weir table` prints it.
#[track_caller]
fn wait_for_table(vm: &Vm, node: &str, what: &str, agents: &[Program<'_>], is_so: impl Fn(&str) -> bool) {
    let mut last = String::new();
    let seen = within(TIMEOUT, || {
        last = vm.sh(node, "weir table");
        is_so(&last).then_some(())
    });
    let logs: String = agents.iter().map(|agent| agent.log() + "\n").collect();
    assert!(
        seen.is_some(),
        "{node}: {what}; its table is\n{last}\nthe agents' logs are\n{logs}"
    );
}

fn answers(vm: &Vm, vip: &str) -> Vec<String> {
    let printed = vm.sh("client", &format!("lab client {vip}:80 -n 9"));
    printed.lines().map(|line| line.trim().to_owned()).collect()
}

async fn node_state(control_plane: &ControlPlane, node: &str) -> Value {
    let output = control_plane
        .kubectl(&["get", "nodestate", node, "-o", "json"])
        .await;
    serde_json::from_slice::<Value>(&output.stdout).map_or(Value::Null, |object| object["status"].clone())
}

async fn wait_for_state(
    control_plane: &ControlPlane,
    node: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) {
    let look = async || {
        let state = node_state(control_plane, node).await;
        if is_so(&state) {
            Ok(())
        } else {
            Err(state.to_string())
        }
    };
    until(what, limit(60), look).await;
}

/// Those who watch EndpointSlices whatever the agents do: the API server itself, and the controller.
const ALWAYS_WATCHING: usize = 2;

/// How many watch EndpointSlices, as the API server counts them.
async fn slice_watchers(control_plane: &ControlPlane) -> usize {
    let metrics = control_plane.kubectl(&["get", "--raw", "/metrics"]).await;
    let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
    let parts = [
        "apiserver_longrunning_requests{",
        "resource=\"endpointslices\"",
        "verb=\"WATCH\"",
    ];
    let of_slices = metrics
        .lines()
        .filter(|line| parts.iter().all(|part| line.contains(part)));
    let counts = of_slices.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
    counts.sum()
}

async fn wait_for_slice_watchers(control_plane: &ControlPlane, wanted: usize) {
    let look = async || match slice_watchers(control_plane).await {
        watchers if watchers == wanted => Ok(()),
        watchers => Err(format!("{watchers} watch")),
    };
    let what = format!("{wanted} watch EndpointSlices");
    until(&what, limit(60), look).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab VM, etcd and kube-apiserver: make test-cluster"]
async fn manifests_that_are_applied_become_traffic_and_leave_nothing_when_deleted() {
    let mut control_plane = deployed().await;
    let vm = Vm::boot(&Boot::default());
    set_up_way_back(&vm);
    let _servers = ["rs1", "rs2", "rs3"].map(|node| vm.start(Some(node), &["lab", "serve", node, "80"]));
    let mut agents = Vec::new();
    for node in NODES {
        agents.push(start_agent(&control_plane, &vm, node).await);
    }
    let controller = start_controller(&control_plane).await;
    let foreign = "ipvsadm -A -t 10.9.9.9:9 -s rr";
    vm.sh("d1", foreign);

    // Applied: programmed on the active director, and nowhere else.
    let examples = repository("deploy/examples");
    kubectl(&control_plane, &["apply", "-f", &examples]).await;
    wait_for_table(&vm, "d1", "both services are programmed", &agents, |table| {
        table.matches("  -> 10.").count() == 6
    });
    for node in ["rs1", "rs2", "rs3"] {
        eventually(TIMEOUT, "the real servers have the VIP", || {
            vm.sh(node, "ip address show dev weir0 2>/dev/null || true")
                .contains(WEB_VIP)
                .then_some(())
        });
    }
    for vip in [WEB_VIP, API_VIP] {
        let names = answers(&vm, vip);
        assert_eq!(names, ["3  rs1", "3  rs2", "3  rs3"], "{vip}");
    }
    for node in ["d2", "rs1"] {
        assert!(
            !vm.sh(node, "weir table").contains("10.0.0.20"),
            "{node} is not the active director"
        );
    }

    // Reported.
    wait_for_state(
        &control_plane,
        "d1",
        "NodeState d1 says what is programmed",
        |state| {
            state["programmed"] == state["desired"]
                && state["programmed"]["services"] == 2
                && state["programmed"]["destinations"] == 6
                && state["foreignServices"] == 1
                && state["roles"][0]["role"] == "Active"
        },
    )
    .await;
    wait_for_state(
        &control_plane,
        "d2",
        "NodeState d2 says that it stands by",
        |state| state["roles"][0]["role"] == "Standby" && state["programmed"]["services"] == 0,
    )
    .await;
    wait_for_state(
        &control_plane,
        "rs1",
        "NodeState rs1 says how it is quiet",
        |state| state["arpSuppression"][0] == "Nftables",
    )
    .await;
    let ready = [
        "wait",
        "ivs",
        "--all",
        "-n",
        "shop",
        "--for=condition=Ready",
        "--timeout=60s",
    ];
    kubectl(&control_plane, &ready).await;
    let listed = kubectl(&control_plane, &["get", "ivs", "-n", "shop", "-o", "wide"]).await;
    for words in [
        [
            "web",
            "10.0.0.200",
            "80/TCP",
            "DirectRoute",
            "d1",
            "3/3",
            "True",
            "wlc",
        ],
        [
            "api",
            "10.0.0.201",
            "80/TCP",
            "Masquerade",
            "d1",
            "3/3",
            "True",
            "rr",
        ],
    ] {
        let line = listed
            .lines()
            .find(|line| line.starts_with(words[0]))
            .unwrap_or_default();
        assert!(words.iter().all(|word| line.contains(word)), "{listed}");
    }

    // A real server that is deleted stays until the directors have nothing of it any more.
    let web_3 = kubectl(
        &control_plane,
        &["get", "irs", "web-3", "-n", "shop", "-o", "json"],
    )
    .await;
    assert!(web_3.contains("weir.dev/drain"), "{web_3}");
    kubectl(
        &control_plane,
        &["delete", "irs", "web-3", "-n", "shop", "--timeout=30s"],
    )
    .await;
    assert!(
        !vm.sh("d1", "weir table").contains("10.0.0.13:80"),
        "it has left before its object"
    );
    kubectl(&control_plane, &["apply", "-f", &examples]).await;
    wait_for_table(&vm, "d1", "web-3 is back", &agents, |table| {
        table.contains("10.0.0.13:80")
    });

    // Without the API server the agents go on: what somebody deletes comes back.
    control_plane.stop_api_server().await;
    vm.sh("d1", "ipvsadm -D -t 10.0.0.201:80");
    wait_for_table(&vm, "d1", "the deleted service is back", &agents, |table| {
        table.matches("  -> 10.1.").count() == 3
    });
    assert_eq!(answers(&vm, WEB_VIP).len(), 3);
    control_plane.start_api_server().await;

    // Back again, they take in what changes.
    let drain = r#"{"spec":{"weight":0}}"#;
    kubectl(
        &control_plane,
        &["patch", "irs", "web-1", "-n", "shop", "--type=merge", "-p", drain],
    )
    .await;
    wait_for_table(&vm, "d1", "web-1 has weight 0", &agents, |table| {
        table
            .lines()
            .any(|line| line.contains("10.0.0.11:80") && line.contains("Route   0 "))
    });
    assert!(answers(&vm, WEB_VIP).iter().all(|line| !line.ends_with("rs1")));

    // The controller has come back, too.
    wait_for_slice_watchers(&control_plane, ALWAYS_WATCHING).await;
    // Endpoints of a Service: what is ready takes requests, what ends does not.
    let pods = |endpoints: &str| PODS.replace("ENDPOINTS", endpoints);
    let apply =
        async |text: String| succeeded(&control_plane.kubectl_reading(&["apply", "-f", "-"], &text).await);
    apply(pods("{addresses: [10.1.0.11]}, {addresses: [10.1.0.12]}")).await;
    wait_for_table(&vm, "d1", "two endpoints", &agents, |table| {
        table.matches("-> 10.1.0.1").count() == 3 + 2
    });
    assert_eq!(answers(&vm, PODS_VIP).len(), 2);
    let ends = "{addresses: [10.1.0.12], conditions: {ready: false, serving: true, terminating: true}}";
    apply(pods(&format!(
        "{{addresses: [10.1.0.11]}}, {ends}, {{addresses: [10.1.0.13]}}"
    )))
    .await;
    wait_for_table(
        &vm,
        "d1",
        "a third endpoint, and the second has left",
        &agents,
        |table| table.matches("-> 10.1.0.1").count() == 3 + 2,
    );
    let names: Vec<String> = answers(&vm, PODS_VIP);
    assert!(
        names.len() == 2 && names.iter().all(|line| !line.ends_with("rs2")),
        "{names:?}"
    );
    // There are many slices, so that only those who balance watch them, and only while something refers to a Service.
    wait_for_slice_watchers(&control_plane, ALWAYS_WATCHING + 2).await;
    kubectl(&control_plane, &["delete", "ivs", "pods", "-n", "shop"]).await;
    wait_for_table(&vm, "d1", "no endpoints any more", &agents, |table| {
        !table.contains(PODS_VIP)
    });
    wait_for_slice_watchers(&control_plane, ALWAYS_WATCHING).await;

    // Nothing of all this depends on the controller.
    drop(controller);
    // An agent that is killed leaves the table; the next one takes it over.
    agents[0].signal(rustix::process::Signal::KILL);
    eventually(TIMEOUT, "the agent has ended", || agents[0].ended());
    assert_eq!(vm.sh("d1", "weir table").matches("  -> 10.").count(), 6);
    agents[0] = start_agent(&control_plane, &vm, "d1").await;

    // Moved by editing a name.
    let role = r#"{"spec":{"failover":{"static":{"activeNode":"d2"}}}}"#;
    kubectl(
        &control_plane,
        &["patch", "dirgrp", "edge", "--type=merge", "-p", role],
    )
    .await;
    wait_for_table(&vm, "d2", "d2 balances", &agents, |table| {
        table.matches("  -> 10.").count() == 6
    });
    wait_for_table(&vm, "d1", "d1 stands by", &agents, |table| {
        !table.contains("10.0.0.20")
    });

    let answered = vm.sh("client", &format!("lab arp-who {WEB_VIP} -n 10"));
    assert_eq!(answered.trim(), "10  02:00:00:00:00:02", "nobody but d2");
    assert_eq!(answers(&vm, WEB_VIP).len(), 2, "web-2 and web-3, through d2");

    // What stands in a node's way is said of it.
    let rule = "nft 'add table arp site; add chain arp site in { type filter hook input priority 0; }; add rule arp site \
                in arp daddr ip 10.0.0.200 drop'";
    vm.sh("d2", rule);
    wait_for_state(
        &control_plane,
        "d2",
        "NodeState d2 says that it is deaf",
        |state| state["preflight"][0]["subject"] == "nftables arp site",
    )
    .await;
    vm.sh("d2", "nft delete table arp site");
    wait_for_state(&control_plane, "d2", "NodeState d2 says that it hears", |state| {
        state["preflight"].as_array().is_none_or(Vec::is_empty)
    })
    .await;

    let _controller = start_controller(&control_plane).await;
    // Deleted: nothing of ours is left, and what is not ours is.
    kubectl(&control_plane, &["delete", "-f", &examples]).await;
    wait_for_table(&vm, "d2", "nothing is left", &agents, |table| {
        !table.contains("10.0.0.20")
    });
    assert_eq!(
        vm.sh("d1", "ipvsadm -Sn").trim_end(),
        foreign.trim_start_matches("ipvsadm ")
    );
    for node in NODES {
        eventually(TIMEOUT, "nothing of Weir's is left", || {
            let line = "ip address show to 10.0.0.200/31; ip link show | grep weir; nft list ruleset | grep weir; true";
            vm.sh(node, line).is_empty().then_some(())
        });
    }
    wait_for_state(&control_plane, "d2", "NodeState d2 says so", |state| {
        state["programmed"]["services"] == 0
    })
    .await;
}

/// What a reboot takes from a node's kernel.
fn forget_kernel(vm: &Vm, node: &str) {
    vm.sh(
        node,
        "ipvsadm -C; nft flush ruleset; ip link delete weir0 2>/dev/null; \
         for vip in 10.0.0.200 10.0.0.201; do ip address delete $vip/32 dev front 2>/dev/null; done; true",
    );
}

/// Nodes of which all is gone but their disks; the API server is reached again only later.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab VM, etcd and kube-apiserver: make test-cluster"]
async fn nodes_that_boot_without_an_api_server_do_what_they_did_and_follow_it_when_it_is_back() {
    const BALANCING: [&str; 4] = ["d1", "rs1", "rs2", "rs3"];
    let mut control_plane = deployed().await;
    let vm = Vm::boot(&Boot::default());
    set_up_way_back(&vm);
    let _servers = ["rs1", "rs2", "rs3"].map(|node| vm.start(Some(node), &["lab", "serve", node, "80"]));
    let mut agents = Vec::new();
    for node in BALANCING {
        agents.push(start_agent(&control_plane, &vm, node).await);
    }
    kubectl(&control_plane, &["apply", "-f", &repository("deploy/examples")]).await;
    let has = |count: usize| move |table: &str| table.matches("  -> 10.").count() == count;
    wait_for_table(&vm, "d1", "both services are programmed", &agents, has(6));
    for node in BALANCING {
        eventually(TIMEOUT, "the objects are on disk", || {
            let saved = format!("grep -c '^[VRD][a-zA-Z]* {{' /run/weir-{node}/cache || true");
            // Two virtual services, six real servers, a director group.
            (vm.sh(node, &saved).trim() == "9").then_some(())
        });
    }

    for agent in &agents {
        agent.signal(rustix::process::Signal::KILL);
        eventually(TIMEOUT, "the agent has ended", || agent.ended());
    }
    // Something changes that no node hears of.
    kubectl(&control_plane, &["delete", "irs", "web-3", "-n", "shop"]).await;
    control_plane.stop_api_server().await;
    let kubeconfigs = BALANCING.map(|node| vm.sh(node, &format!("cat /run/{node}.kubeconfig")));
    agents.clear();
    for (node, kubeconfig) in BALANCING.into_iter().zip(&kubeconfigs) {
        forget_kernel(&vm, node);
        agents.push(crate::lab::agent::start(&vm, node, kubeconfig));
    }
    wait_for_table(&vm, "d1", "what was saved is programmed", &agents, has(6));
    for node in ["rs1", "rs2", "rs3"] {
        eventually(TIMEOUT, "the real servers have the VIP again", || {
            vm.sh(node, "ip address show dev weir0 2>/dev/null || true")
                .contains(WEB_VIP)
                .then_some(())
        });
    }
    for vip in [WEB_VIP, API_VIP] {
        let names = answers(&vm, vip);
        assert_eq!(names, ["3  rs1", "3  rs2", "3  rs3"], "{vip}");
    }
    let log = agents[0].log();
    assert!(log.contains("in force is what was saved at"), "{log}");
    assert!(log.contains("nothing is deleted until"), "{log}");
    // Nor do audits, of which there are two in this time.
    std::thread::sleep(Duration::from_secs(8));
    assert!(has(6)(&vm.sh("d1", "weir table")), "{}", agents[0].log());

    control_plane.start_api_server().await;
    wait_for_table(&vm, "d1", "web-3 is gone", &agents, |table| {
        has(5)(table) && !table.contains("10.0.0.13:80")
    });
    assert_eq!(answers(&vm, WEB_VIP).len(), 2);
    wait_for_state(
        &control_plane,
        "d1",
        "NodeState d1 has nothing to complain of",
        |state| {
            state["programmed"]["destinations"] == 5
                && state["failureCount"].as_u64().unwrap_or_default() == 0
        },
    )
    .await;
}

/// What the examples are in the kernel of d1, as `ipvsadm -Sn` prints it. Nobody makes endpoints of `more/pods.yaml` here:
/// that is in `tests/cluster/real_nodes.rs`.
const EXAMPLES_IN_THE_KERNEL: &str = "
-A -t 10.0.0.200:80 -s wlc
-a -t 10.0.0.200:80 -r 10.0.0.11:80 -g -w 1
-a -t 10.0.0.200:80 -r 10.0.0.12:80 -g -w 1
-a -t 10.0.0.200:80 -r 10.0.0.13:80 -g -w 1
-A -t 10.0.0.201:80 -s rr
-a -t 10.0.0.201:80 -r 10.1.0.11:80 -m -w 1
-a -t 10.0.0.201:80 -r 10.1.0.12:80 -m -w 1
-a -t 10.0.0.201:80 -r 10.1.0.13:80 -m -w 1
-A -t 10.0.0.203:0 -s wlc -p 600 -M 255.255.255.0
-a -t 10.0.0.203:0 -r 10.0.0.11:0 -g -w 1
-a -t 10.0.0.203:0 -r 10.0.0.12:0 -g -w 1
-A -t 10.0.0.205:443 -s wlc
-a -t 10.0.0.205:443 -r 10.1.0.11:443 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum
-a -t 10.0.0.205:443 -r 10.1.0.12:443 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum
-A -t 10.0.0.206:443 -s mh -b mh-fallback,mh-port
-a -t 10.0.0.206:443 -r 10.0.0.11:443 -g -w 1
-a -t 10.0.0.206:443 -r 10.0.0.12:443 -g -w 1
-a -t 10.0.0.206:443 -r 10.0.0.13:443 -g -w 1
-A -t 10.0.0.207:80 -s wlc
-a -t 10.0.0.207:80 -r 10.1.0.11:80 -m -w 1
-a -t 10.0.0.207:80 -r 10.1.0.12:80 -m -w 1
-A -t 10.0.0.208:80 -s rr
-A -u 10.0.0.202:53 -s rr -o
-a -u 10.0.0.202:53 -r 10.0.0.11:53 -g -w 1
-a -u 10.0.0.202:53 -r 10.0.0.12:53 -g -w 1
-A -u [fd00::202]:53 -s rr -o
-a -u [fd00::202]:53 -r [fd00::11]:53 -g -w 1
-a -u [fd00::202]:53 -r [fd00::12]:53 -g -w 1
-A -f 100 -s wrr -p 300
-a -f 100 -r 10.1.0.11:0 -m -w 2
-a -f 100 -r 10.1.0.12:0 -m -w 1
";

/// What is said of them: whether they are ready, how many destinations take connections, and whether they are as meant.
const EXAMPLES_IN_WORDS: &str = "
api: True, 3/3, the object is valid, and nobody else has what it claims
catalog: True, 0/0, the object is valid, and nobody else has what it claims
checkout: True, 2/2, spec.healthCheck: not yet supported: it has no effect (and 1 more)
dns: True, 4/4, spec.healthCheck: not yet supported: it has no effect
far: True, 2/2, the object is valid, and nobody else has what it claims
files: True, 2/2, spec.healthCheck: not yet supported: it has no effect
hashed: True, 3/3, the object is valid, and nobody else has what it claims
marked: True, 2/2, spec.healthCheck: not yet supported: it has no effect
web: True, 3/3, the object is valid, and nobody else has what it claims
";
const IN_WORDS: &str = r#"jsonpath={range .items[*]}{.metadata.name}: {.status.conditions[?(@.type=="Ready")].status}, {.status.backendSummary}, {.status.conditions[?(@.type=="Accepted")].message}{"\n"}{end}"#;

/// Waits until a text has these lines, in whatever order.
async fn wait_for_lines(what: &str, expected: &str, read: impl AsyncFn() -> String) {
    let sorted = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> = text.trim().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let look = async || {
        let text = read().await;
        if sorted(&text) == sorted(expected) {
            Ok(())
        } else {
            Err(text)
        }
    };
    until(what, limit(60), look).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab VM, etcd and kube-apiserver: make test-cluster"]
async fn every_example_is_in_the_kernel_and_told_of() {
    let control_plane = deployed().await;
    let vm = Vm::boot(&Boot::default());
    let mut agents = Vec::new();
    for node in ["d1", "rs1", "rs2", "rs3"] {
        agents.push(start_agent(&control_plane, &vm, node).await);
    }
    let _controller = start_controller(&control_plane).await;
    let examples = repository("deploy/examples");
    kubectl(&control_plane, &["apply", "--recursive", "-f", &examples]).await;

    wait_for_lines("the table of d1", EXAMPLES_IN_THE_KERNEL, async || {
        vm.sh("d1", "ipvsadm -Sn")
    })
    .await;
    let held = |node, link| {
        let line = format!(
            "ip -oneline address show | grep {link} | grep -o '10.0.0.2[0-9]*\\|fd00::2[0-9]*' || true"
        );
        vm.sh(node, &line)
    };
    // All but that of which only the mark is known.
    let all = "10.0.0.200\n10.0.0.201\n10.0.0.202\nfd00::202\n10.0.0.203\n10.0.0.205\n10.0.0.206\n10.0.0.207\n10.0.0.208";
    wait_for_lines("the VIPs of d1", all, async || held("d1", "front")).await;
    let direct = "10.0.0.200\n10.0.0.202\nfd00::202\n10.0.0.203\n10.0.0.205\n10.0.0.206";
    wait_for_lines("the VIPs of rs1", direct, async || held("rs1", "weir0")).await;
    let of_rs3 = "10.0.0.200\n10.0.0.206";
    wait_for_lines("the VIPs of rs3", of_rs3, async || held("rs3", "weir0")).await;
    assert_eq!(vm.sh("rs1", "ip fou show").trim(), "port 6080 gue");
    wait_for_lines("what is said", EXAMPLES_IN_WORDS, async || {
        kubectl(&control_plane, &["get", "ivs", "-n", "shop", "-o", IN_WORDS]).await
    })
    .await;
}
