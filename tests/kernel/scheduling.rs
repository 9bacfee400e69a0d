//! Which real server a client comes to: schedulers with their flags, persistence, one-packet scheduling, thresholds, by
//! direct routing on agents' word.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use crate::lab::client::{Asking, Held, Protocol};
use crate::lab::fleet::{self, Fleet, group, real_servers};
use crate::lab::server::Server;
use crate::lab::topology::{Node, Topology, VIP4, VIP6};
use crate::poll::eventually;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const TIMEOUT: Duration = Duration::from_secs(10);
/// For what takes its time.
const LONG: Duration = Duration::from_secs(30);
/// For what nobody answers.
const SHORT: Duration = Duration::from_secs(2);
/// Of the clients, in each family.
const ADDRESSES: usize = 12;

/// A virtual service by direct routing on all nodes, with servers behind it and many clients before it.
struct Balanced<'a> {
    topology: &'a Topology,
    fleet: Fleet<'a>,
    _servers: Vec<Server>,
}

impl<'a> Balanced<'a> {
    fn new(topology: &'a Topology, more: &[&str]) -> Self {
        let nodes = topology.real_servers();
        let clients: Vec<String> = [VIP4, VIP6]
            .into_iter()
            .flat_map(|vip| clients_of(vip).into_iter().map(move |client| (client, vip)))
            .map(|(client, vip)| {
                format!(
                    "ip address add {client}/{} dev front",
                    if vip.is_ipv4() { 24 } else { 64 }
                )
            })
            .collect();
        topology.client.netns.sh(&clients.join(" && "));
        let manifests = service(more)
            + &real_servers(&nodes, "four", Node::front4)
            + &real_servers(&nodes, "six", Node::front6);
        let all = topology.directors().into_iter().chain(nodes);
        Self {
            topology,
            fleet: Fleet::settled(
                WEIR,
                all,
                &[("group.yaml", &group("d1", "")), ("web.yaml", &manifests)],
            ),
            _servers: nodes.map(|node| Server::start(node, 80)).into(),
        }
    }

    /// Changes the specs of real servers, by their nodes' names.
    fn change(&self, more: &[&str], of_node: impl Fn(&str) -> &'static str) {
        let mut manifests = service(more);
        for node in self.topology.real_servers() {
            for (suffix, address) in [
                ("four", Node::front4 as fn(&Node) -> IpAddr),
                ("six", Node::front6),
            ] {
                manifests += &real_servers(&[node], suffix, address);
                manifests.truncate(manifests.trim_end().len() - 1);
                manifests += of_node(node.name());
                manifests += "}\n";
            }
        }
        self.fleet.write("web.yaml", &manifests);
        self.fleet.settle();
    }

    /// Everybody who answers a client that asks several times.
    fn who(&self, from: IpAddr) -> Vec<String> {
        let asking = Asking::new(Protocol::Tcp, (vip_for(from), 80), SHORT).from(from);
        let answers = asking.ask(&self.topology.client.netns, 4);
        answers.answers.into_keys().collect()
    }

    /// Who answers each of the clients of a family.
    fn who_answers_each(&self, vip: IpAddr) -> Vec<Vec<String>> {
        clients_of(vip)
            .into_iter()
            .map(|client| self.who(client))
            .collect()
    }
}

fn service(more: &[&str]) -> String {
    let more = [&["forwarding: {method: DirectRoute}"], more].concat();
    fleet::service("web", &[VIP4, VIP6], None, &["protocol: TCP, port: 80"], &more)
}

/// Addresses of the client's beside its own, in the network of a VIP, eight apart.
fn clients_of(vip: IpAddr) -> Vec<IpAddr> {
    let number = 0..ADDRESSES;
    match vip {
        IpAddr::V4(_) => number
            .map(|n| Ipv4Addr::new(10, 0, 0, 104 + 8 * n as u8).into())
            .collect(),
        IpAddr::V6(_) => number
            .map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1 + n as u16, 1).into())
            .collect(),
    }
}

fn vip_for(client: IpAddr) -> IpAddr {
    if client.is_ipv4() { VIP4 } else { VIP6 }
}

/// Schedulers that hash: a client's address alone, or its port as well.
fn hashes(algorithm: &str) {
    let topology = Topology::new();
    let plain = format!("scheduler: {{algorithm: {algorithm}}}");
    let balanced = Balanced::new(&topology, &[&plain]);
    let mut of_clients = BTreeMap::new();
    for vip in [VIP4, VIP6] {
        let answers = balanced.who_answers_each(vip);
        assert!(
            answers.iter().all(|names| names.len() == 1),
            "a client has one real server: {answers:?}"
        );
        let used: BTreeSet<_> = answers.iter().flatten().collect();
        assert!(used.len() > 1, "clients have several: {answers:?}");
        of_clients.extend(clients_of(vip).into_iter().zip(answers));
    }

    let by_port = format!("scheduler: {{algorithm: {algorithm}, flags: [{algorithm}-port]}}");
    balanced.change(&[&by_port], |_| "");
    for vip in [VIP4, VIP6] {
        let used: BTreeSet<_> = balanced.who_answers_each(vip).into_iter().flatten().collect();
        assert_eq!(used.len(), 3);
        let asking = Asking::new(Protocol::Tcp, (vip, 80), TIMEOUT).from(clients_of(vip)[0]);
        let of_one = asking.ask(&topology.client.netns, 20);
        assert!(
            of_one.names().len() > 1,
            "each connection of a client has its own: {of_one}"
        );
    }

    // A real server that takes no new connections: its clients wait for it, or are taken by another.
    balanced.change(&[&plain], |node| if node == "rs1" { ", weight: 0" } else { "" });
    let waits = |client: &IpAddr| of_clients[client] == ["rs1"] && balanced.who(*client).is_empty();
    let others = |client: &IpAddr| of_clients[client] == ["rs1"] && !balanced.who(*client).is_empty();
    let clients: Vec<IpAddr> = [VIP4, VIP6].into_iter().flat_map(clients_of).collect();
    assert!(of_clients.values().any(|names| names == &["rs1"]));
    if algorithm == "sh" {
        assert!(
            clients.iter().any(waits),
            "without the flag nobody else takes them"
        );
    }
    let fallback = format!("scheduler: {{algorithm: {algorithm}, flags: [{algorithm}-fallback]}}");
    balanced.change(
        &[&fallback],
        |node| if node == "rs1" { ", weight: 0" } else { "" },
    );
    assert!(!clients.iter().any(waits), "with it somebody does");
    assert!(clients.iter().any(others));
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn source_hashing_with_its_flags() {
    hashes("sh");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn maglev_hashing_with_its_flags() {
    hashes("mh");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_persistent_client_stays_and_a_mask_makes_networks_clients() {
    let topology = Topology::new();
    let rr = "scheduler: {algorithm: rr}";
    let balanced = Balanced::new(&topology, &[rr, "persistence: {timeout: 5m}"]);
    for vip in [VIP4, VIP6] {
        let answers = balanced.who_answers_each(vip);
        assert!(
            answers.iter().all(|names| names.len() == 1),
            "each stays: {answers:?}"
        );
        let used: BTreeSet<_> = answers.iter().flatten().collect();
        assert_eq!(used.len(), 3, "and each has its turn");
    }
    // Networks of 32 addresses, four clients each; and of 64 bits, which hold all.
    let of_networks = "persistence: {timeout: 5m, netmaskV4: 255.255.255.224, prefixV6: 64}";
    balanced.change(&[rr, of_networks], |_| "");
    for vip in [VIP4, VIP6] {
        let answers: Vec<(IpAddr, Vec<String>)> = clients_of(vip)
            .into_iter()
            .zip(balanced.who_answers_each(vip))
            .collect();
        for (client, names) in &answers {
            for (other, its_names) in &answers {
                if network(*client) == network(*other) {
                    assert_eq!(names, its_names, "{client} and {other} are of one network");
                }
            }
        }
        let used: BTreeSet<_> = answers.iter().flat_map(|(_, names)| names).collect();
        let networks: BTreeSet<_> = answers.iter().map(|(client, _)| network(*client)).collect();
        assert_eq!(used.len(), networks.len().min(3), "{answers:?}");
    }
}

/// By the masks above.
fn network(client: IpAddr) -> u128 {
    match client {
        IpAddr::V4(address) => (u32::from(address) >> 5).into(),
        IpAddr::V6(address) => u128::from(address) >> 64,
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn datagrams_of_one_socket_are_a_connection_or_each_for_itself() {
    let topology = Topology::new();
    let balanced = Balanced::new(&topology, &[]);
    for (one_packet, expected) in [(false, vec![9]), (true, vec![3, 3, 3])] {
        let scheduler = format!("scheduler: {{algorithm: rr, onePacket: {one_packet}}}");
        let more = [&*scheduler, "forwarding: {method: DirectRoute}"];
        let udp = fleet::service("web", &[VIP4, VIP6], None, &["protocol: UDP, port: 80"], &more);
        let nodes = topology.real_servers();
        let servers = real_servers(&nodes, "four", Node::front4) + &real_servers(&nodes, "six", Node::front6);
        balanced.fleet.write("web.yaml", &(udp + &servers));
        balanced.fleet.settle();
        for vip in [VIP4, VIP6] {
            let mut answers: BTreeMap<String, usize> = BTreeMap::new();
            let socket = topology.client.netns.run(|| {
                let any: IpAddr = if vip.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                let socket = UdpSocket::bind((any, 0)).unwrap();
                socket.connect((vip, 80)).unwrap();
                socket
            });
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            for _ in 0..9 {
                socket.send(b"who\n").unwrap();
                let mut answer = [0; 16];
                let length = socket.recv(&mut answer).unwrap();
                let name = String::from_utf8_lossy(&answer[..length]).into_owned();
                *answers.entry(name).or_default() += 1;
            }
            let counts: Vec<usize> = answers.into_values().collect();
            assert_eq!(counts, expected, "one packet: {one_packet}, {vip}");
        }
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_full_real_server_takes_no_more_until_it_has_emptied() {
    let topology = Topology::new();
    let more = ["scheduler: {algorithm: rr}"];
    let balanced = Balanced::new(&topology, &more);
    // A connection counts until the kernel forgets it.
    let forgetful = group("d1", "  timeouts: {tcpFin: 1s}\n");
    balanced.fleet.write("group.yaml", &forgetful);
    balanced.change(&more, |_| ", upperThreshold: 2, lowerThreshold: 2");
    let client = &topology.client.netns;
    for vip in [VIP4, VIP6] {
        let to = (vip, 80).into();
        let held = Held::open(client, to, 6, TIMEOUT).unwrap();
        let of_each: Vec<usize> = held.by_name().into_values().collect();
        assert_eq!(of_each, [2, 2, 2], "{vip}");
        assert!(
            Held::open(client, to, 1, SHORT).is_err(),
            "{vip}: there is no place for a seventh"
        );
        drop(held);
        eventually(LONG, "there is room again", || {
            Held::open(client, to, 1, SHORT).ok()
        });
    }
}
