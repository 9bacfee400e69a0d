//! Masquerading and groups of ports by agents on every node, judged by who answers and by what the answering node sees.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::lab::client::{Asking, Protocol};
use crate::lab::fleet::{self, Fleet, group, real_servers};
use crate::lab::server::Server;
use crate::lab::topology::{FRONT, Node, Topology, VIP4, VIP6};
use crate::lab::traces;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const TIMEOUT: Duration = Duration::from_secs(10);
/// For what nobody answers.
const SHORT: Duration = Duration::from_secs(2);
/// Of the FTP servers.
const PASSIVE: (u16, u16) = (30_000, 30_100);

fn servers(topology: &Topology, ports: &[u16]) -> Vec<Server> {
    let nodes = topology.real_servers().into_iter();
    nodes
        .flat_map(|node| ports.iter().map(|port| Server::start(node, *port)))
        .collect()
}

/// Agents on the directors alone: masquerading asks nothing of a real server.
fn directing<'a>(topology: &'a Topology, manifests: &str) -> Fleet<'a> {
    Fleet::settled(
        WEIR,
        topology.directors(),
        &[("group.yaml", &group("d1", "")), ("web.yaml", manifests)],
    )
}

/// A virtual service whose requests are translated to port 8080 of the real servers.
fn masqueraded(vips: &[IpAddr], snat: &str) -> String {
    let forwarding = format!("forwarding: {{method: Masquerade, snat: {snat}}}");
    let listeners = ["TCP", "UDP", "SCTP"].map(|protocol| format!("protocol: {protocol}, port: 80"));
    let listeners = listeners.each_ref().map(String::as_str);
    fleet::service(
        "web",
        vips,
        None,
        &listeners,
        &["scheduler: {algorithm: rr}", &forwarding],
    )
    .replace(
        "{name: web, realServers",
        "{name: web, targetPort: 8080, realServers",
    )
}

/// Whom the real servers see, asked over every protocol.
fn seen_by_real_servers(topology: &Topology, vip: IpAddr) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let asking = Asking::new(protocol, (vip, 80), TIMEOUT);
        let answers = asking.ask(&topology.client.netns, 9);
        assert_eq!(answers.counts(), [3, 3, 3], "{protocol:?} to {vip}: {answers}");
        let peer = asking.ask_peer(&topology.client.netns);
        assert!(peer.failures.is_empty(), "{protocol:?} to {vip}: {peer}");
        seen.extend(peer.answers.into_keys());
    }
    seen
}

/// Takes the real servers off the client's segment: the director is their way there.
fn behind(topology: &Topology, director: &Node) {
    for node in topology.real_servers() {
        node.set_link(FRONT, false);
        node.default_via(director.back4());
        node.default_via(director.back6());
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn real_servers_behind_the_director_see_the_client() {
    let topology = Topology::new();
    behind(&topology, &topology.d1);
    let _servers = servers(&topology, &[8080]);
    let nodes = topology.real_servers();
    let manifests = masqueraded(&[VIP4, VIP6], "Auto")
        + &real_servers(&nodes, "four", Node::back4)
        + &real_servers(&nodes, "six", Node::back6);
    let _fleet = directing(&topology, &manifests);
    let client = &topology.client;
    assert_eq!(
        seen_by_real_servers(&topology, VIP4),
        [client.front4().to_string()].into()
    );
    assert_eq!(
        seen_by_real_servers(&topology, VIP6),
        [client.front6().to_string()].into()
    );
    assert_eq!(
        topology.d1.netns.sh("nft list ruleset"),
        "",
        "nothing more is needed"
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn real_servers_beside_the_client_answer_through_the_director_and_see_it() {
    let topology = Topology::new();
    let _servers = servers(&topology, &[8080]);
    let before = traces::of(&topology.d1);
    let nodes = topology.real_servers();
    let manifests = masqueraded(&[VIP4, VIP6], "Auto")
        + &real_servers(&nodes, "four", Node::front4)
        + &real_servers(&nodes, "six", Node::front6);
    let mut fleet = directing(&topology, &manifests);
    let d1 = &topology.d1;
    assert_eq!(
        seen_by_real_servers(&topology, VIP4),
        [d1.front4().to_string()].into()
    );
    assert_eq!(
        seen_by_real_servers(&topology, VIP6),
        [d1.front6().to_string()].into()
    );
    let log = fleet.agent(d1).log();
    assert!(
        log.contains("they see the director's address in place of"),
        "{log}"
    );

    fleet.clear();
    fleet.settle();
    let left = traces::difference(&before, &traces::of(d1));
    assert_eq!(left, "");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn nobody_is_masqueraded_where_that_is_refused_and_everybody_where_it_is_asked_for() {
    let topology = Topology::new();
    let _servers = servers(&topology, &[8080]);
    let nodes = topology.real_servers();
    // The question below stays a handshake for a minute, and the kernel counts those as it counts connections.
    let masqueraded = |snat| masqueraded(&[VIP4], snat) + "  draining: {timeout: 1s}\n";
    let beside = masqueraded("Never") + &real_servers(&nodes, "four", Node::front4);
    let fleet = directing(&topology, &beside);
    let asking = Asking::new(Protocol::Tcp, (VIP4, 80), SHORT);
    let answers = asking.ask(&topology.client.netns, 1);
    assert_eq!(
        answers.names(),
        [""; 0],
        "who answers the client itself is not heard: {answers}"
    );

    behind(&topology, &topology.d1);
    let behind = masqueraded("Always") + &real_servers(&nodes, "four", Node::back4);
    fleet.write("web.yaml", &behind);
    fleet.settle();
    assert_eq!(
        seen_by_real_servers(&topology, VIP4),
        [topology.d1.back4().to_string()].into()
    );
}

/// What else leaves the director for the same real servers keeps its address.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn only_what_is_for_a_destination_is_masqueraded() {
    let topology = Topology::new();
    let _servers = servers(&topology, &[8080, 8081]);
    let manifests =
        masqueraded(&[VIP4], "Auto") + &real_servers(&topology.real_servers(), "four", Node::front4);
    let _fleet = directing(&topology, &manifests);
    let d1 = &topology.d1;
    assert_eq!(
        seen_by_real_servers(&topology, VIP4),
        [d1.front4().to_string()].into()
    );
    d1.netns.sh("ip address add 10.0.0.77/24 dev front");
    let own = Asking::new(Protocol::Tcp, (topology.rs1.front4(), 8081), TIMEOUT)
        .from(Ipv4Addr::new(10, 0, 0, 77).into());
    let peer = own.ask_peer(&d1.netns);
    assert_eq!(peer.answers, [("10.0.0.77".to_owned(), 1)].into(), "{peer}");
}

/// A service and the real servers' front addresses.
fn with_front(topology: &Topology, service: &str) -> String {
    let nodes = topology.real_servers();
    let (four, six) = (
        real_servers(&nodes, "four", Node::front4),
        real_servers(&nodes, "six", Node::front6),
    );
    service.to_owned() + &four + &six
}

/// Agents on all nodes, for direct routing to the real servers' front addresses.
fn direct<'a>(topology: &'a Topology, service: &str) -> Fleet<'a> {
    let manifests = with_front(topology, service);
    let all = topology.directors().into_iter().chain(topology.real_servers());
    Fleet::settled(
        WEIR,
        all,
        &[("group.yaml", &group("d1", "")), ("web.yaml", &manifests)],
    )
}

/// Addresses of the client beside its own, of each family.
fn client_addresses(topology: &Topology) -> Vec<IpAddr> {
    let four = (101..107).map(|host| Ipv4Addr::new(10, 0, 0, host).into());
    let six = (1..7).map(|host| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, host).into());
    let addresses: Vec<IpAddr> = four.chain(six).collect();
    for address in &addresses {
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        topology
            .client
            .netns
            .sh(&format!("ip address add {address}/{prefix} dev front"));
    }
    addresses
}

/// Who answers a client on a port.
fn who(topology: &Topology, from: IpAddr, to: (IpAddr, u16)) -> String {
    let answers = Asking::new(Protocol::Tcp, to, TIMEOUT)
        .from(from)
        .ask(&topology.client.netns, 1);
    let names = answers.names();
    assert_eq!(names.len(), 1, "{from} to {to:?}: {answers}");
    names[0].to_owned()
}

const DIRECT: &str = "forwarding: {method: DirectRoute}";
const ROUND_ROBIN: &str = "scheduler: {algorithm: rr}";
const PERSISTENT: &str = "persistence: {timeout: 5m}";

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn in_a_group_all_ports_of_a_client_are_one_real_servers() {
    let topology = Topology::new();
    let _servers = servers(&topology, &[80, 443]);
    let listeners = ["protocol: TCP, port: 80", "protocol: TCP, port: 443"];
    let web = |more: &[&str]| {
        let more = [&[DIRECT, ROUND_ROBIN], more].concat();
        fleet::service("web", &[VIP4, VIP6], None, &listeners, &more)
    };
    let fleet = direct(&topology, &web(&["groupListeners: true", PERSISTENT]));
    let mut of_real_servers: BTreeMap<String, usize> = BTreeMap::new();
    for from in client_addresses(&topology) {
        let vip = if from.is_ipv4() { VIP4 } else { VIP6 };
        let http = who(&topology, from, (vip, 80));
        assert_eq!(who(&topology, from, (vip, 443)), http, "{from}");
        assert_eq!(who(&topology, from, (vip, 80)), http, "{from}");
        *of_real_servers.entry(http).or_default() += 1;
    }
    assert_eq!(of_real_servers.into_values().collect::<Vec<_>>(), [4, 4, 4]);
    let marked = topology.d1.netns.sh("nft list tables; ipvsadm -Sn");
    assert!(
        marked.contains("table ip weir") && marked.contains("-A -f "),
        "{marked}"
    );

    // Persistence alone does not do it: then each port is a service of its own, and has its own turns.
    let alone = web(&["groupListeners: false", PERSISTENT]);
    fleet.write("web.yaml", &with_front(&topology, &alone));
    fleet.settle();
    let [first, second, ..] = client_addresses_of_ipv4();
    let http = [first, second].map(|from| who(&topology, from, (VIP4, 80)));
    let https = [second, first].map(|from| who(&topology, from, (VIP4, 443)));
    assert_ne!(http[0], https[1]);
    assert_eq!(topology.d1.netns.sh("nft list tables"), "");
}

fn client_addresses_of_ipv4() -> [IpAddr; 2] {
    [101, 102].map(|host| Ipv4Addr::new(10, 0, 0, host).into())
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_range_of_ports_is_one_service_and_its_neighbours_are_not_in_it() {
    let topology = Topology::new();
    let _servers = servers(&topology, &[8000, 8010, 8011]);
    let range = ["protocol: UDP, port: 8000, endPort: 8010"];
    let _fleet = direct(
        &topology,
        &fleet::service("web", &[VIP4, VIP6], None, &range, &[DIRECT, ROUND_ROBIN]),
    );
    let ask = |port, questions| {
        let asking = Asking::new(Protocol::Udp, (VIP4, port), SHORT);
        asking.ask(&topology.client.netns, questions)
    };
    // The turns go on from port to port.
    let mut answers = ask(8000, 4).answers;
    for (name, count) in ask(8010, 5).answers {
        *answers.entry(name).or_default() += count;
    }
    assert_eq!(answers.into_values().collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(ask(8011, 1).names(), [""; 0]);
    let six = Asking::new(Protocol::Udp, (VIP6, 8005), SHORT).ask(&topology.client.netns, 1);
    let refused = [("Connection refused (os error 111)".to_owned(), 1)];
    assert_eq!(
        six.failures,
        refused.into(),
        "the real servers are reached, and have no such port"
    );
    let table = topology.d1.netns.sh("ipvsadm -Ln");
    assert_eq!(table.matches("FWM ").count(), 2, "one for each family: {table}");
}

/// The classic case: the transfer comes by another connection than the command, to a port that only the real server
/// knows.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn ftp_transfers_reach_the_real_server_that_has_the_session() {
    let topology = Topology::new();
    for node in topology.real_servers() {
        ftp_server(node);
    }
    let listeners = [
        "protocol: TCP, port: 21".to_owned(),
        format!("protocol: TCP, port: {}, endPort: {}", PASSIVE.0, PASSIVE.1),
    ];
    let listeners = listeners.each_ref().map(String::as_str);
    let ftp = ["groupListeners: true", PERSISTENT, DIRECT, ROUND_ROBIN];
    let _fleet = direct(&topology, &fleet::service("ftp", &[VIP4], None, &listeners, &ftp));
    let mut transfers = BTreeSet::new();
    for from in client_addresses(&topology).into_iter().filter(IpAddr::is_ipv4) {
        topology
            .client
            .netns
            .sh(&format!("ip route replace {VIP4}/32 dev front src {from}"));
        transfers.insert(
            topology
                .client
                .netns
                .sh(&format!("ftpget {VIP4} /dev/stdout name")),
        );
    }
    let expected = topology.real_servers().map(|node| node.name().to_owned());
    assert_eq!(transfers, expected.into());
}

/// As much of RFC 959 as a passive transfer takes: every file holds the node's name.
fn ftp_server(node: &Node) {
    let (name, netns) = (node.name().to_owned(), node.netns.share());
    let control = node
        .netns
        .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 21)).unwrap());
    thread::spawn(move || {
        netns.enter();
        for (port, session) in (PASSIVE.0..=PASSIVE.1).zip(control.incoming()) {
            let _ = ftp_session(&session.unwrap(), port, &name);
        }
    });
}

fn ftp_session(control: &TcpStream, port: u16, name: &str) -> std::io::Result<()> {
    let mut writer = control;
    writer.write_all(b"220 ready\r\n")?;
    let data = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    for line in BufReader::new(control).lines() {
        let line = line?;
        let answer = match line.get(..4).unwrap_or(&line) {
            "PASV" => {
                let own = control.local_addr()?.ip().to_string().replace('.', ",");
                format!(
                    "227 Entering Passive Mode ({own},{},{})\r\n",
                    port / 256,
                    port % 256
                )
            }
            "EPSV" => "500 unknown\r\n".to_owned(),
            "SIZE" => "550 unknown\r\n".to_owned(),
            "RETR" => {
                writer.write_all(b"150 here it comes\r\n")?;
                data.accept()?.0.write_all(name.as_bytes())?;
                "226 done\r\n".to_owned()
            }
            "QUIT" => return writer.write_all(b"221 bye\r\n"),
            _ => "230 fine\r\n".to_owned(),
        };
        writer.write_all(answer.as_bytes())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_mark_of_somebody_elses_rules_is_used_and_not_set() {
    let topology = Topology::new();
    let _servers = servers(&topology, &[80, 443]);
    topology.d1.netns.sh(
        "nft 'add table ip site; add chain ip site in { type filter hook prerouting priority mangle; }; \
         add rule ip site in ip daddr 10.0.0.200 tcp dport { 80, 443 } meta mark set 0x100007'",
    );
    let before = topology.d1.netns.sh("nft list ruleset");
    let service = fleet::service(
        "web",
        &[VIP4],
        None,
        &[],
        &["firewallMark: {mark: 1048583, family: IPv4}", DIRECT, ROUND_ROBIN],
    )
    .replace("  listeners:\n", "");
    let _fleet = direct(&topology, &service);
    let ask = |port, questions| {
        Asking::new(Protocol::Tcp, (VIP4, port), TIMEOUT)
            .ask(&topology.client.netns, questions)
            .answers
    };
    let mut answers = ask(80, 4);
    for (name, count) in ask(443, 5) {
        *answers.entry(name).or_default() += count;
    }
    assert_eq!(answers.into_values().collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(topology.d1.netns.sh("nft list ruleset"), before);
}
