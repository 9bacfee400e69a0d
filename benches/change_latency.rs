//! From a change of an EndpointSlice to the node's kernel: Weir's agent, and kube-proxy in IPVS mode, with the same objects.
//!
//! The API server is on this host, the node in the lab's VM. One program in the node both changes the object and asks the
//! kernel, so that one clock measures all of it: from before the request to the API server until the new destination is in
//! the kernel's table. Each change comes to a node that is idle, but for the first, which finds kube-proxy still at work on
//! all Services and does not count. Printed as rows of a table in Markdown.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot run fails, and it reads the clock"
)]

#[path = "../tests/support/control_plane/mod.rs"]
mod control_plane;
#[path = "../tests/support/lab/mod.rs"]
mod lab;
#[path = "../tests/support/poll.rs"]
mod poll;
#[path = "../tests/support/process.rs"]
mod process;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use control_plane::{ControlPlane, program, succeeded};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use lab::kube_proxy;
use lab::remote::{Program, Vm};
use poll::eventually;
use serde_json::{Value, json};
use weir::api::{DirectorGroup, VirtualService};
use weir::ipvs::{KernelTable, Protocol, ServiceKey};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const NODE: &str = "d1";
const NAMESPACE: &str = "default";
const KUBECONFIG: &str = "/run/bench.kubeconfig";
/// How many addresses a Service's endpoints have, before it is changed.
const ENDPOINTS: u8 = 3;
/// How many objects are created at a time.
const AT_ONCE: usize = 32;
/// How long the first look at all objects may take.
const FIRST: Duration = Duration::from_secs(400);
/// How long one change may take.
const ONE: Duration = Duration::from_secs(60);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["observe", who, services, changes] => {
            let who = if who == "weir" { Who::Weir } else { Who::KubeProxy };
            runtime.block_on(observe(who, services.parse().unwrap(), changes.parse().unwrap()));
        }
        _ => runtime.block_on(compare()),
    }
}

/// Who balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Weir,
    KubeProxy,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::KubeProxy => "kube-proxy",
        }
    }

    /// Where clients find a Service: Weir has an address of its own for it.
    fn address(self, number: u16) -> Ipv4Addr {
        let [high, low] = number.to_be_bytes();
        match self {
            Self::Weir => Ipv4Addr::new(10, 60, high, low),
            Self::KubeProxy => cluster_ip(number),
        }
    }

    /// How long it goes on with a change that the kernel has: kube-proxy runs some dozen programs afterwards.
    fn rest(self) -> Duration {
        match self {
            Self::Weir => Duration::from_millis(100),
            Self::KubeProxy => Duration::from_secs(5),
        }
    }
}

/// Numbers begin with 0; the API server gives 10.96.0.1 to itself.
fn cluster_ip(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 96, 64 + high, low)
}

fn name(number: u16) -> String {
    format!("web-{number}")
}

fn endpoints(count: u8) -> Value {
    (1..=count)
        .map(|number| json!({ "addresses": [Ipv4Addr::new(10, 1, 0, 10 + number)] }))
        .collect()
}

async fn compare() {
    println!("| | Services | changes | p50 | p99 | the API server's answer, p50 |");
    println!("| --- | --: | --: | --: | --: | --: |");
    for (who, services, changes) in [
        (Who::KubeProxy, 100, 20),
        (Who::Weir, 100, 100),
        (Who::Weir, 5000, 100),
    ] {
        measure(who, services, changes).await;
    }
}

async fn measure(who: Who, services: u16, changes: u16) {
    let control_plane = ControlPlane::start().await;
    let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let apply = ["apply", "-f", definitions.to_str().unwrap()];
    succeeded(&control_plane.kubectl(&apply).await);
    let established = ["wait", "--for=condition=Established", "crd", "--all"];
    succeeded(&control_plane.kubectl(&established).await);
    create_node(&control_plane).await;
    create(&control_plane.client(), services).await;

    let own = std::env::current_exe().unwrap();
    let mut boot = kube_proxy::boot(program("kube-proxy"));
    for (host, guest) in [(Path::new(WEIR), "weir"), (&own, "change_latency")] {
        let pair = format!("{}:/lab/bench/{guest}", host.display());
        boot.options.extend(["--program".to_owned(), pair]);
    }
    let vm = Vm::boot(&boot);
    let admin =
        control_plane.kubeconfig_for_user("bench", Some("system:masters"), &control_plane.guest_url());
    vm.put(KUBECONFIG, &admin);
    let balancer = start(who, &vm, &admin);
    let wanted = usize::from(services) * usize::from(ENDPOINTS);
    eventually(FIRST, "every Service's endpoints are in the kernel", || {
        assert_eq!(balancer.ended(), None, "{}", balancer.log());
        let seen = vm.sh(NODE, "ipvsadm -Ln | grep -c -- '-> 10\\.1\\.' || true");
        (seen.trim().parse() == Ok(wanted)).then_some(())
    });
    let observe = [
        "/lab/bench/change_latency",
        "observe",
        who.name(),
        &services.to_string(),
        &changes.to_string(),
    ];
    let observed = vm.run(Some(NODE), &observe);
    assert_eq!(observed.status, 0, "{}{}", observed.stderr, balancer.log());
    print_row(who, services, &observed.stdout);
}

fn print_row(who: Who, services: u16, observed: &str) {
    let (mut answered, mut seen): (Vec<f64>, Vec<f64>) = observed
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(answered, seen)| (answered.parse::<f64>().unwrap(), seen.parse::<f64>().unwrap()))
        .unzip();
    for times in [&mut answered, &mut seen] {
        times.sort_by(f64::total_cmp);
    }
    let name = match who {
        Who::Weir => "Weir",
        Who::KubeProxy => "kube-proxy, IPVS mode",
    };
    println!(
        "| {name} | {services} | {} | {:.1} ms | {:.1} ms | {:.1} ms |",
        seen.len(),
        percentile(&seen, 50),
        percentile(&seen, 99),
        percentile(&answered, 50)
    );
}

/// The nearest rank of sorted times.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

async fn create_node(control_plane: &ControlPlane) {
    let node = format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: {NODE}, labels: {{weir.dev/role: director}}}}}}"
    );
    succeeded(&control_plane.kubectl_reading(&["create", "-f", "-"], &node).await);
    let address = r#"{"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}}"#;
    let patch = ["patch", "node", NODE, "--subresource=status", "-p", address];
    succeeded(&control_plane.kubectl(&patch).await);
}

fn start<'vm>(who: Who, vm: &'vm Vm, kubeconfig: &str) -> Program<'vm> {
    match who {
        Who::Weir => {
            let line = format!(
                "KUBECONFIG={KUBECONFIG} WEIR_NODE_NAME={NODE} exec /lab/bench/weir agent --state-dir /run/weir"
            );
            vm.start(Some(NODE), &["sh", "-c", &line])
        }
        Who::KubeProxy => {
            let settings = kube_proxy::Settings {
                mode: "ipvs",
                exclude_cidrs: &[],
                strict_arp: false,
            };
            kube_proxy::start(vm, NODE, kubeconfig, settings)
        }
    }
}

/// The same objects whoever balances: a Service with its endpoints, and a virtual service in front of it.
async fn create(client: &Client, services: u16) {
    let group = json!({
        "metadata": { "name": "edge" },
        "spec": {
            "nodeSelector": { "matchLabels": { "weir.dev/role": "director" } },
            "interface": "front",
            "failover": { "type": "Static", "static": { "activeNode": NODE } },
        },
    });
    let groups: Api<DirectorGroup> = Api::all(client.clone());
    groups.create(&PostParams::default(), &read(group)).await.unwrap();
    let create_one = async |number: u16| -> kube::Result<()> {
        let parameters = PostParams::default();
        let name = name(number);
        let service = json!({
            "metadata": { "name": name },
            "spec": { "clusterIP": cluster_ip(number), "ports": [{ "name": "http", "port": 80 }] },
        });
        let slice = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 80 }],
            "endpoints": endpoints(ENDPOINTS),
        });
        let virtual_service = json!({
            "metadata": { "name": name },
            "spec": {
                "addresses": [Who::Weir.address(number)],
                "listeners": [{ "name": "http", "protocol": "TCP", "port": 80 }],
                "scheduler": { "algorithm": "rr" },
                "directorGroupRef": { "name": "edge" },
                "backends": [{ "name": "web", "serviceRef": { "name": name, "port": "http" } }],
            },
        });
        let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
        services.create(&parameters, &read(service)).await?;
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
        slices.create(&parameters, &read(slice)).await?;
        let virtual_services: Api<VirtualService> = Api::namespaced(client.clone(), NAMESPACE);
        virtual_services
            .create(&parameters, &read(virtual_service))
            .await?;
        Ok(())
    };
    let created = stream::iter(0..services)
        .map(create_one)
        .buffer_unordered(AT_ONCE);
    created.try_collect::<()>().await.unwrap();
}

fn read<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// In the node: one more endpoint for one Service after the other. Prints when the API server had answered and when the
/// kernel had the destination, in milliseconds since before the request.
async fn observe(who: Who, services: u16, changes: u16) {
    let kubeconfig = Kubeconfig::read_from(KUBECONFIG).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let client = Client::try_from(config).unwrap();
    let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    // Also what opens the connection, which is not to be measured.
    slices.get(&name(0)).await.unwrap();
    for change in 0..=changes {
        tokio::time::sleep(who.rest()).await;
        let number = if change == changes {
            services - 1
        } else {
            change * (services / changes)
        };
        let address: IpAddr = who.address(number).into();
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address,
            port: 80,
        };
        let waiting = thread::spawn(move || wait_for_destination(key));
        let patch = Patch::Merge(json!({ "endpoints": endpoints(ENDPOINTS + 1) }));
        let began = Instant::now();
        slices
            .patch(&name(number), &PatchParams::default(), &patch)
            .await
            .unwrap();
        let answered = began.elapsed();
        let seen = waiting.join().unwrap() - began;
        if change > 0 {
            println!("{} {}", milliseconds(answered), milliseconds(seen));
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// When the kernel had one more destination for a service.
fn wait_for_destination(key: ServiceKey) -> Instant {
    let mut table = KernelTable::open().unwrap();
    let deadline = Instant::now() + ONE;
    loop {
        let service = table.service(&key).unwrap();
        let now = Instant::now();
        if service.is_some_and(|service| service.destinations.len() > usize::from(ENDPOINTS)) {
            return now;
        }
        assert!(now < deadline, "{key} has no destination more");
        // Leaves the processor to whom it waits for.
        thread::sleep(Duration::from_micros(200));
    }
}
