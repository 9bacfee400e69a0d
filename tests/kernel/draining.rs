//! Destinations that leave: their connections go on until they end or their time is over, and nobody new comes.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::lab::client::{Asking, Held, Probe, Protocol, Survey};
use crate::lab::fleet::{self, Fleet, group};
use crate::lab::server::Server;
use crate::lab::topology::{Node, Topology, VIP4, VIP6};
use crate::poll::eventually;
use rustix::process::Signal;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const TIMEOUT: Duration = Duration::from_secs(10);
/// In which something happens that has no reason to wait.
const SOON: Duration = Duration::from_secs(20);

/// A virtual service of ports 80; `more` are further lines of its spec.
fn web(method: &str, more: &[&str]) -> String {
    let forwarding = format!("forwarding: {{method: {method}}}");
    let more: Vec<&str> = ["scheduler: {algorithm: rr}", &forwarding]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    let listeners = ["protocol: TCP, port: 80", "protocol: UDP, port: 80"];
    fleet::service("web", &[VIP4, VIP6], None, &listeners, &more)
}

/// A RealServer of a node for each family; `more` are further fields of its spec.
fn real_server(node: &Node, more: &str) -> String {
    let of = |family: &str, address: IpAddr| {
        format!(
            "---\napiVersion: weir.dev/v1alpha1\nkind: RealServer\n\
             metadata: {{name: {}-{family}, namespace: shop, labels: {{app: web}}}}\n\
             spec: {{address: \"{address}\"{more}}}\n",
            node.name()
        )
    };
    of("four", node.front4()) + &of("six", node.front6())
}

struct Case<'a> {
    topology: &'a Topology,
    fleet: Fleet<'a>,
    _servers: Vec<Server>,
}

impl<'a> Case<'a> {
    /// All three real servers serve; agents run on every node.
    fn new(topology: &'a Topology, method: &str, more: &[&str]) -> Self {
        let manifests = web(method, more);
        let rs: Vec<_> = topology
            .real_servers()
            .iter()
            .map(|node| (format!("{}.yaml", node.name()), real_server(node, "")))
            .collect();
        let group = group("d1", "");
        let mut files = vec![("group.yaml", &*group), ("web.yaml", &*manifests)];
        files.extend(rs.iter().map(|(name, text)| (&**name, &**text)));
        let servers = topology.real_servers().map(|node| Server::start(node, 80));
        let all = topology.directors().into_iter().chain(topology.real_servers());
        Self {
            topology,
            fleet: Fleet::settled(WEIR, all, &files),
            _servers: servers.into(),
        }
    }

    /// Nine connections, three to each real server.
    fn held(&self, vip: IpAddr) -> Held {
        let held = Held::open(&self.topology.client.netns, (vip, 80).into(), 9, TIMEOUT).unwrap();
        assert_eq!(held.by_name(), [("rs1", 3), ("rs2", 3), ("rs3", 3)].into());
        held
    }

    /// Who answers new connections.
    fn asked(&self, vip: IpAddr) -> BTreeMap<String, usize> {
        let asking = Asking::new(Protocol::Tcp, (vip, 80), TIMEOUT);
        let answers = asking.ask(&self.topology.client.netns, 6);
        assert!(answers.failures.is_empty(), "{answers}");
        answers.answers
    }

    /// The weight of the third real server in d1's table, if it is there.
    fn weight_of_rs3(&self, vip: IpAddr) -> Option<u32> {
        let rs3 = &self.topology.rs3;
        let rip = if vip.is_ipv4() { rs3.front4() } else { rs3.front6() };
        let destination = std::net::SocketAddr::new(rip, 80).to_string();
        let service = std::net::SocketAddr::new(vip, 80).to_string();
        let table = self.topology.d1.netns.sh(&format!("ipvsadm -Ln -t {service}"));
        let line = table.lines().find(|line| line.contains(&destination))?;
        // "  -> 10.0.0.13:80   Masq    1      0          0"
        line.split_whitespace()
            .nth(3)
            .map(|weight| weight.parse().unwrap())
    }

    #[track_caller]
    fn until_weight_of_rs3(&self, weight: Option<u32>) {
        for vip in [VIP4, VIP6] {
            eventually(SOON, &format!("rs3 has weight {weight:?} for {vip}"), || {
                (self.weight_of_rs3(vip) == weight).then_some(())
            });
        }
    }

    fn remove_rs3(&self) {
        self.fleet.remove("rs3.yaml");
    }

    fn change_rs3(&self, more: &str) {
        self.fleet
            .write("rs3.yaml", &real_server(&self.topology.rs3, more));
    }
}

fn others() -> BTreeMap<String, usize> {
    [("rs1".to_owned(), 3), ("rs2".to_owned(), 3)].into()
}

#[track_caller]
fn all_alive(held: &mut [Held]) {
    for held in held {
        assert_eq!(held.survey().broken, BTreeMap::new());
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn connections_to_a_removed_real_server_go_on_until_they_end() {
    let topology = Topology::new();
    let mut case = Case::new(&topology, "Masquerade", &[]);
    let mut held = [case.held(VIP4), case.held(VIP6)];
    case.remove_rs3();
    case.until_weight_of_rs3(Some(0));
    all_alive(&mut held);
    assert_eq!((case.asked(VIP4), case.asked(VIP6)), (others(), others()));

    // An agent that comes up in the middle does not know how it began, and cuts nobody off.
    let d1 = &topology.d1;
    case.fleet.agent(d1).signal(Signal::KILL);
    case.fleet.start(d1, &[]);
    case.fleet
        .agent(d1)
        .wait_for_log(TIMEOUT, "without new connections");
    all_alive(&mut held);
    assert_eq!((case.asked(VIP4), case.asked(VIP6)), (others(), others()));

    drop(held);
    case.until_weight_of_rs3(None);
    case.fleet.settle();
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_real_server_that_drains_serves_those_it_has_by_direct_routing() {
    let topology = Topology::new();
    let case = Case::new(&topology, "DirectRoute", &[]);
    let mut held = [case.held(VIP4), case.held(VIP6)];
    case.change_rs3(", adminState: Draining");
    case.until_weight_of_rs3(Some(0));
    all_alive(&mut held);
    assert_eq!((case.asked(VIP4), case.asked(VIP6)), (others(), others()));
    case.change_rs3("");
    case.until_weight_of_rs3(Some(1));
    all_alive(&mut held);
    assert_eq!(case.asked(VIP4).len(), 3, "it is back");
    case.change_rs3(", adminState: Disabled");
    case.until_weight_of_rs3(Some(0));
    all_alive(&mut held);
    drop(held);
    case.until_weight_of_rs3(None);
    case.fleet.settle();
}

/// Whose agent reads the same manifests, and hears as soon as the director that it is no real server any more.
#[track_caller]
fn connections_past_the_director_go_on(method: &str, leave: fn(&Case<'_>)) {
    let topology = Topology::new();
    let case = Case::new(&topology, method, &["draining: {timeout: 15s}"]);
    let has_vips = || {
        let addresses = topology.rs3.netns.sh("ip -o address show");
        [VIP4, VIP6].map(|vip| addresses.contains(&format!(" {vip}/")))
    };
    let mut held = [case.held(VIP4), case.held(VIP6)];
    assert_eq!(has_vips(), [true; 2]);
    let begin = Instant::now();
    leave(&case);
    case.until_weight_of_rs3(Some(0));
    // An agent looks at everything each second.
    while begin.elapsed() < Duration::from_secs(6) {
        all_alive(&mut held);
    }
    assert_eq!((case.asked(VIP4), case.asked(VIP6)), (others(), others()));
    all_alive(&mut held);
    drop(held);
    case.until_weight_of_rs3(None);
    let gone = eventually(SOON, "the VIPs are gone", || {
        (has_vips() == [false; 2]).then(|| begin.elapsed())
    });
    assert!(gone >= Duration::from_secs(15), "gone after {gone:?}");
    case.fleet.settle();
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_real_server_that_is_no_longer_selected_serves_those_it_has_by_direct_routing() {
    connections_past_the_director_go_on("DirectRoute", |case| {
        let text = real_server(&case.topology.rs3, "").replace("app: web", "app: other");
        case.fleet.write("rs3.yaml", &text);
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_real_server_whose_manifest_is_removed_serves_those_it_has_through_a_tunnel() {
    connections_past_the_director_go_on("Tunnel", |case| case.remove_rs3());
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn at_the_deadline_connections_are_dropped_and_not_before() {
    let topology = Topology::new();
    let case = Case::new(&topology, "Masquerade", &["draining: {timeout: 6s}"]);
    let mut held = case.held(VIP4);
    let begin = Instant::now();
    case.remove_rs3();
    let mut last_alive = Duration::ZERO;
    let cut = eventually(SOON, "the time is over", || {
        let Survey { alive, .. } = held.survey();
        if alive == 9 {
            last_alive = begin.elapsed();
        }
        (alive < 9).then(|| begin.elapsed())
    });
    assert!(cut >= Duration::from_secs(6), "cut after {cut:?}");
    assert!(last_alive > Duration::from_secs(3), "it was looked at in between");
    case.until_weight_of_rs3(None);
    let Survey { alive, broken } = held.survey();
    assert_eq!((alive, broken.values().sum()), (6, 3), "{broken:?}");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn who_says_keep_is_not_cut_off_at_all() {
    let topology = Topology::new();
    let case = Case::new(
        &topology,
        "Masquerade",
        &["draining: {timeout: 1s, onTimeout: Keep}"],
    );
    let mut held = [case.held(VIP4), case.held(VIP6)];
    case.remove_rs3();
    case.until_weight_of_rs3(Some(0));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        all_alive(&mut held);
    }
    assert_eq!(case.weight_of_rs3(VIP4), Some(0));
    drop(held);
    case.until_weight_of_rs3(None);
}

/// A flow of datagrams has no end that anybody could wait for: it goes on with another real server, and so does a client
/// that persistence has bound to one that leaves.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn what_is_bound_to_a_real_server_that_left_goes_on_with_another() {
    let topology = Topology::new();
    let case = Case::new(&topology, "Masquerade", &["persistence: {timeout: 300s}"]);
    let client = &topology.client.netns;
    let asking = Asking::new(Protocol::Tcp, (VIP4, 80), TIMEOUT);
    let bound = asking.ask(client, 3);
    assert_eq!(bound.counts(), [3], "persistence binds");
    let (name, _) = bound.answers.first_key_value().unwrap();
    let node = topology
        .real_servers()
        .into_iter()
        .find(|node| node.name() == name);
    let file = format!("{name}.yaml");
    case.fleet
        .write(&file, &real_server(node.unwrap(), ", adminState: Draining"));
    case.fleet.settle();
    let again = asking.ask(client, 3);
    assert!(!again.answers.contains_key(name), "{again}");
    assert_eq!(again.counts(), [3], "and is bound anew");

    let flow = client.run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.connect((VIP4, 80)).unwrap();
        socket
    });
    let ask_flow = || {
        let mut answer = [0; 64];
        flow.send(b"who\n").unwrap();
        let length = flow.recv(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).trim().to_owned()
    };
    let first = ask_flow();
    assert_eq!(ask_flow(), first, "a flow stays where it is");

    case.fleet.remove(&format!("{first}.yaml"));
    case.fleet.settle();
    assert_ne!(ask_flow(), first);
}

/// Every real server is replaced by another, one after the other, as a rolling update does it.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_rolling_replacement_loses_no_request() {
    let topology = Topology::new();
    let case = Case::new(&topology, "Masquerade", &[]);
    let _second = topology.real_servers().map(|node| Server::start(node, 8080));
    let every = Duration::from_millis(20);
    let client = &topology.client.netns;
    let probes =
        [VIP4, VIP6].map(|vip| Probe::start(client, Protocol::Tcp, (vip, 80).into(), every, TIMEOUT));
    for node in topology.real_servers() {
        let replacement =
            real_server(node, ", port: 8080").replace("metadata: {name: rs", "metadata: {name: new-rs");
        case.fleet
            .write(&format!("new-{}.yaml", node.name()), &replacement);
        case.fleet.remove(&format!("{}.yaml", node.name()));
        case.fleet.settle();
    }
    for probe in probes {
        let seen = probe.stop();
        assert!(seen.asked > 50, "{seen:?}");
        assert_eq!(seen.answered, seen.asked, "{seen:?}");
    }
    let table = topology.d1.netns.sh("ipvsadm -Ln");
    assert!(
        !table.contains(".11:80 "),
        "the first generation has left: {table}"
    );
}
