//! kube-proxy in IPVS mode and Weir on one node: two programs with one table, in the lab's VM, with a real API server on the
//! host. What kube-proxy does to what it does not know is seen here; docs/operations.md says what to set.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::control_plane::{ControlPlane, limit, program, succeeded, until};
use crate::lab::agent;
use crate::lab::kube_proxy::{self, Settings};
use crate::lab::remote::{Program, Vm};
use crate::poll::{eventually, within};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(120);
/// The director, on which both run.
const DIRECTOR: &str = "d1";
const NODES: [&str; 4] = [DIRECTOR, "rs1", "rs2", "rs3"];
const VIP: &str = "10.0.0.200";
const CLUSTER_IP: &str = "10.96.0.10";
/// How often everything changes that changes.
const ROUNDS: usize = 6;
/// As an operator is told to set it.
const BESIDE_WEIR: Settings<'_> = Settings {
    mode: "ipvs",
    exclude_cidrs: &["10.0.0.192/27"],
    strict_arp: true,
};
/// How the agent begins when something of Weir's in the table was deleted or changed.
const SOMEBODY_ELSE: &str = "kube-proxy in IPVS mode runs here, and";
/// What both set.
const SETTINGS: &str = "cd /proc/sys/net/ipv4; grep . ip_forward conf/all/arp_ignore conf/all/arp_announce vs/conntrack \
                        vs/expire_nodest_conn vs/expire_quiescent_template";

const CLUSTER: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- {apiVersion: v1, kind: Node, metadata: {name: d1, labels: {weir.dev/role: director}}}
- {apiVersion: v1, kind: Node, metadata: {name: rs1}}
- {apiVersion: v1, kind: Node, metadata: {name: rs2}}
- {apiVersion: v1, kind: Node, metadata: {name: rs3}}
";

/// What has traffic and does not change: a virtual service of Weir's, and a Service.
const SHOP: &str = "
apiVersion: v1
kind: List
items:
- apiVersion: weir.dev/v1alpha1
  kind: DirectorGroup
  metadata: {name: edge}
  spec:
    nodeSelector: {matchLabels: {weir.dev/role: director}}
    interface: front
    failover: {type: Static, static: {activeNode: d1}}
- apiVersion: weir.dev/v1alpha1
  kind: VirtualService
  metadata: {name: web, namespace: shop}
  spec:
    addresses: [10.0.0.200]
    listeners: [{name: http, protocol: TCP, port: 80}]
    scheduler: {algorithm: wrr}
    forwarding: {method: DirectRoute}
    directorGroupRef: {name: edge}
    backends: [{name: web, realServers: {selector: {matchLabels: {app: web}}}}]
- {apiVersion: weir.dev/v1alpha1, kind: RealServer, metadata: {name: web-1, namespace: shop, labels: {app: web}}, spec: {address: 10.0.0.11}}
- {apiVersion: weir.dev/v1alpha1, kind: RealServer, metadata: {name: web-2, namespace: shop, labels: {app: web}}, spec: {address: 10.0.0.12}}
- {apiVersion: weir.dev/v1alpha1, kind: RealServer, metadata: {name: web-3, namespace: shop, labels: {app: web}}, spec: {address: 10.0.0.13}}
- apiVersion: v1
  kind: Service
  metadata: {name: pods, namespace: shop}
  spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: pods, namespace: shop, labels: {kubernetes.io/service-name: pods}}
  addressType: IPv4
  ports: [{name: http, port: 80}]
  endpoints: [{addresses: [10.1.0.11]}, {addresses: [10.1.0.12]}, {addresses: [10.1.0.13]}]
";

/// Lines of `ipvsadm -Sn`.
type Lines = BTreeSet<String>;

fn service(address: &str, scheduler: &str, destinations: impl IntoIterator<Item = String>) -> Lines {
    let head = format!("-A -t {address} -s {scheduler}");
    let destinations = destinations
        .into_iter()
        .map(|destination| format!("-a -t {address} -r {destination}"));
    destinations.chain([head]).collect()
}

/// Two of the three real servers, others in each round.
fn two_of_three(round: usize) -> impl Iterator<Item = usize> {
    (1..=3).filter(move |number| !(round + number).is_multiple_of(3))
}

fn weight(round: usize, number: usize) -> usize {
    1 + (round + number) % 4
}

/// What kube-proxy should have in the table: the Service `pods`, the API server's, `turn`, and every other round `guest`.
fn theirs(round: usize) -> Lines {
    let pods = |number: usize| format!("10.1.0.1{number}:80 -m -w 1");
    let mut lines = service("10.96.0.1:443", "rr", []);
    lines.extend(service(&format!("{CLUSTER_IP}:80"), "rr", (1..=3).map(pods)));
    lines.extend(service("10.96.0.11:80", "rr", two_of_three(round).map(pods)));
    if round % 2 == 1 {
        lines.extend(service("10.96.0.12:80", "rr", []));
    }
    lines
}

/// What Weir should have in it, by the same pattern.
fn ours(round: usize) -> Lines {
    let web = |number: usize| format!("10.0.0.1{number}:80 -g -w 1");
    let turn = |number: usize| format!("10.0.0.1{number}:8000 -g -w {}", weight(round, number));
    let mut lines = service(&format!("{VIP}:80"), "wrr", (1..=3).map(web));
    lines.extend(service("10.0.0.201:8000", "wrr", two_of_three(round).map(turn)));
    if round % 2 == 1 {
        lines.extend(service("10.0.0.202:80", "wrr", (1..=3).map(web)));
    }
    lines
}

/// The objects of a round that are kube-proxy's business.
fn services(round: usize) -> String {
    let endpoints: String = two_of_three(round)
        .map(|number| format!("{{addresses: [10.1.0.1{number}]}}, "))
        .collect();
    let service = |name: &str, address: &str| {
        format!(
            "- {{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, \
             spec: {{clusterIP: {address}, ports: [{{name: http, port: 80}}]}}}}\n"
        )
    };
    let mut items = service("turn", "10.96.0.11");
    items += &format!(
        "- {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [{endpoints}], \
         metadata: {{name: turn, namespace: shop, labels: {{kubernetes.io/service-name: turn}}}}, \
         ports: [{{name: http, port: 80}}]}}\n"
    );
    if round % 2 == 1 {
        items += &service("guest", "10.96.0.12");
    }
    format!("apiVersion: v1\nkind: List\nitems:\n{items}")
}

/// The objects of a round that are Weir's.
fn virtual_services(round: usize) -> String {
    let service = |name: &str, vip: &str, port: u16, app: &str| {
        format!(
            "- {{apiVersion: weir.dev/v1alpha1, kind: VirtualService, metadata: {{name: {name}, namespace: shop}}, spec: \
             {{addresses: [{vip}], listeners: [{{name: one, protocol: TCP, port: {port}}}], scheduler: {{algorithm: wrr}}, \
             forwarding: {{method: DirectRoute}}, directorGroupRef: {{name: edge}}, backends: [{{name: one, \
             realServers: {{selector: {{matchLabels: {{app: {app}}}}}}}}}]}}}}\n"
        )
    };
    let mut items = service("turn", "10.0.0.201", 8000, "turn");
    for number in 1..=3 {
        let chosen = two_of_three(round).any(|chosen| chosen == number);
        let (app, weight) = (if chosen { "turn" } else { "rest" }, weight(round, number));
        items += &format!(
            "- {{apiVersion: weir.dev/v1alpha1, kind: RealServer, metadata: {{name: turn-{number}, namespace: shop, \
             labels: {{app: {app}}}}}, spec: {{address: 10.0.0.1{number}, weight: {weight}}}}}\n"
        );
    }
    if round % 2 == 1 {
        items += &service("guest", "10.0.0.202", 80, "web");
    }
    format!("apiVersion: v1\nkind: List\nitems:\n{items}")
}

async fn kubectl(control_plane: &ControlPlane, arguments: &[&str]) -> String {
    succeeded(&control_plane.kubectl(arguments).await)
}

async fn apply(control_plane: &ControlPlane, text: &str) {
    succeeded(&control_plane.kubectl_reading(&["apply", "-f", "-"], text).await);
}

async fn start_agent<'vm>(control_plane: &ControlPlane, vm: &'vm Vm, node: &str) -> Program<'vm> {
    agent::start(vm, node, &control_plane.agent_kubeconfig(node).await)
}

fn start_kube_proxy<'vm>(control_plane: &ControlPlane, vm: &'vm Vm, settings: Settings<'_>) -> Program<'vm> {
    let kubeconfig = control_plane.kubeconfig_for_user("system:kube-proxy", None, &control_plane.guest_url());
    kube_proxy::start(vm, DIRECTOR, &kubeconfig, settings)
}

/// The director with both of its programs.
struct Director<'vm> {
    vm: &'vm Vm,
    agent: Program<'vm>,
    kube_proxy: Program<'vm>,
}

impl Director<'_> {
    /// kube-proxy with other settings.
    fn restart_kube_proxy(&mut self, control_plane: &ControlPlane, settings: Settings<'_>) {
        self.kube_proxy.signal(Signal::KILL);
        eventually(TIMEOUT, "kube-proxy has ended", || self.kube_proxy.ended());
        self.kube_proxy = start_kube_proxy(control_plane, self.vm, settings);
    }

    /// Waits until the table holds these entries and no others.
    #[track_caller]
    fn wait_for_table(&self, what: &str, wanted: &Lines) {
        let mut last = Lines::new();
        let seen = within(TIMEOUT, || {
            let table = self.vm.sh(DIRECTOR, "ipvsadm -Sn");
            last = table.lines().map(|line| line.trim().to_owned()).collect();
            (last == *wanted).then_some(())
        });
        assert!(
            seen.is_some(),
            "{what}; missing: {:#?}, too many: {:#?}\n{}",
            wanted.difference(&last),
            last.difference(wanted),
            self.logs()
        );
    }

    /// Waits until the agent has said something once more than before.
    #[track_caller]
    fn wait_for_words(&self, words: &str, before: usize) {
        let seen = within(TIMEOUT, || (self.said(words) > before).then_some(()));
        assert!(seen.is_some(), "the agent does not say: {words}\n{}", self.logs());
    }

    fn said(&self, words: &str) -> usize {
        self.agent.log().matches(words).count()
    }

    fn logs(&self) -> String {
        format!(
            "--- agent ---\n{}\n--- kube-proxy ---\n{}",
            self.agent.log(),
            self.kube_proxy.log()
        )
    }

    /// That clients reach all three real servers by an address.
    #[track_caller]
    fn answers(&self, address: &str) {
        let printed = self.vm.sh(
            "client",
            &format!("lab client {address}:80 -n 9 --timeout 20000 || true"),
        );
        let names: Vec<_> = printed.lines().map(str::trim).collect();
        assert_eq!(
            names,
            ["3  rs1", "3  rs2", "3  rs3"],
            "{address}\n{}",
            self.logs()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab VM, etcd, kube-apiserver and kube-proxy: make test-coexistence"]
async fn kube_proxy_and_weir_share_a_node_and_its_table() {
    let control_plane = ControlPlane::start().await;
    apply(&control_plane, CLUSTER).await;
    control_plane.deploy().await;
    let address = r#"{"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}}"#;
    kubectl(
        &control_plane,
        &["patch", "node", DIRECTOR, "--subresource=status", "-p", address],
    )
    .await;
    apply(&control_plane, SHOP).await;
    apply(&control_plane, &services(0)).await;
    apply(&control_plane, &virtual_services(0)).await;

    let vm = Vm::boot(&kube_proxy::boot(program("kube-proxy")));
    vm.sh("client", "ip route add 10.96.0.0/16 via 10.0.0.1");
    let _servers = ["rs1", "rs2", "rs3"].map(|node| vm.start(Some(node), &["lab", "serve", node, "80"]));
    let mut agents = Vec::new();
    for node in NODES {
        agents.push(start_agent(&control_plane, &vm, node).await);
    }
    let mut director = Director {
        vm: &vm,
        agent: agents.remove(0),
        kube_proxy: start_kube_proxy(&control_plane, &vm, BESIDE_WEIR),
    };
    both_change_the_table_at_once(&control_plane, &director).await;
    let left = ROUNDS - 1;

    // What kube-proxy does not know it deletes, unless it is told not to. Weir brings it back, and tells the way out.
    let advice = "Name the VIPs' networks in ipvs.excludeCIDRs";
    let excluding_nothing = Settings {
        exclude_cidrs: &[],
        ..BESIDE_WEIR
    };
    director.restart_kube_proxy(&control_plane, excluding_nothing);
    director.wait_for_words(advice, 0);
    director.wait_for_table("all is back", &both(left));
    director.answers(VIP);
    director.restart_kube_proxy(&control_plane, BESIDE_WEIR);
    director.wait_for_words("no longer: kube-proxy, ipvs.excludeCIDRs", 0);

    // An address and port of both: they rewrite each other's entries, which Weir tells.
    let external = |addresses: &str| format!(r#"{{"spec":{{"externalIPs":{addresses}}}}}"#);
    let patch = async |addresses: &str| {
        let patch = external(addresses);
        kubectl(
            &control_plane,
            &["patch", "service", "pods", "-n", "shop", "-p", &patch],
        )
        .await
    };
    // What kube-proxy masquerades goes on to a real server as the director's own, and nothing comes back by direct routing.
    let wait_until_masqueraded = |wanted| {
        let what = format!("kube-proxy masquerades what is for the VIP: {wanted}");
        eventually(TIMEOUT, &what, || {
            let set = vm.sh(DIRECTOR, "ipset list KUBE-EXTERNAL-IP");
            (set.contains(VIP) == wanted).then_some(())
        });
    };
    patch(&format!(r#"["{VIP}"]"#)).await;
    director.wait_for_words(
        "and TCP 10.0.0.200:80 has been changed since the last look: a Service seems",
        0,
    );
    wait_until_masqueraded(true);
    patch("null").await;
    wait_until_masqueraded(false);
    director.wait_for_table("each has its own again", &both(left));
    director.answers(VIP);
    director.answers(CLUSTER_IP);

    // In another mode kube-proxy flushes the whole table when it starts, whatever it was told to exclude.
    let nftables = Settings {
        mode: "nftables",
        ..BESIDE_WEIR
    };
    let repairs = director.said("has been repaired");
    director.restart_kube_proxy(&control_plane, nftables);
    director.wait_for_words("has been repaired", repairs);
    director.wait_for_table("kube-proxy has left, Weir is back", &ours(left));
    director.answers(VIP);
}

fn both(round: usize) -> Lines {
    &theirs(round) | &ours(round)
}

/// Everything that changes does so on both sides at the same time, and after each round the table is exactly what the
/// objects of both say. Clients of what does not change notice nothing.
async fn both_change_the_table_at_once(control_plane: &ControlPlane, director: &Director<'_>) {
    let vm = director.vm;
    director.wait_for_table("both have begun", &both(0));
    director.answers(VIP);
    director.answers(CLUSTER_IP);
    let settings = vm.sh(DIRECTOR, SETTINGS);
    let probe = |address: &str| {
        let to = format!("{address}:80");
        vm.start(
            Some("client"),
            &[
                "lab",
                "probe",
                &to,
                "--seconds",
                "3600",
                "--every",
                "100",
                "--timeout",
                "20000",
            ],
        )
    };
    let probes = [probe(VIP), probe(CLUSTER_IP)];
    for round in 1..ROUNDS {
        let (services, virtual_services) = (services(round), virtual_services(round));
        tokio::join!(
            apply(control_plane, &services),
            apply(control_plane, &virtual_services)
        );
        if round % 2 == 0 {
            let guests = |kind| ["delete", kind, "guest", "-n", "shop"];
            let (service, virtual_service) = (guests("service"), guests("virtualservices.weir.dev"));
            tokio::join!(
                kubectl(control_plane, &service),
                kubectl(control_plane, &virtual_service)
            );
        }
        director.wait_for_table(&format!("round {round}"), &both(round));
    }
    for probe in probes {
        probe.signal(Signal::TERM);
        assert_eq!(
            eventually(TIMEOUT, "the probe ends", || probe.ended()),
            0,
            "{}",
            probe.log()
        );
        let seen = probe.log();
        let words: Vec<_> = seen.trim().split(", ").collect();
        let count = |word: &str, name: &str| word.strip_prefix(name).unwrap().parse::<usize>().unwrap();
        let (asked, answered) = (count(words[0], "asked: "), count(words[1], "answered: "));
        assert!(asked == answered && asked > ROUNDS, "{seen}\n{}", director.logs());
    }
    // Each leaves the settings as the other wants them, and Weir's audits find nothing to set.
    assert_eq!(vm.sh(DIRECTOR, SETTINGS), settings);
    for line in director
        .agent
        .log()
        .lines()
        .filter(|line| line.contains(" net.ipv4."))
    {
        let step = line.split_once("INFO").map_or(line, |(_, step)| step);
        assert_eq!(director.said(step), 1, "{}", director.logs());
    }
    assert_eq!(director.said(SOMEBODY_ELSE), 0, "{}", director.logs());
    let counted = async || {
        let counted = [
            "get",
            "nodestate",
            DIRECTOR,
            "-o",
            "jsonpath={.status.foreignServices}",
        ];
        match &*kubectl(control_plane, &counted).await {
            "4" => Ok(()),
            other => Err(other.to_owned()),
        }
    };
    let what = "what is kube-proxy's is counted as foreign";
    until(what, limit(60), counted).await;
}
