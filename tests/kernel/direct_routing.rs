//! Direct routing by agents on every node, judged by packets: who answers for a VIP, who answers a request, what is
//! left behind.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::client::{Asking, Probe, Protocol};
use crate::lab::fleet::{self, Fleet, group, real_servers};
use crate::lab::server::Server;
use crate::lab::sniff::{EtherType, Frame, Mac, Sniffer, who_answers};
use crate::lab::topology::{FRONT, Node, Topology, VIP4, VIP6};
use crate::lab::traces;
use crate::poll::{eventually, within};
use crate::process::Process;
use regex::Regex;
use rustix::process::Signal;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const TIMEOUT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(30);
/// How often the client asks who has a VIP.
const ASKS: usize = 50;

/// A virtual service on both VIPs for TCP, UDP and SCTP, with the three real servers by both of their addresses.
fn web(topology: &Topology, forwarding: &str) -> String {
    service("web", &[VIP4, VIP6], forwarding) + &of_both_families(&topology.real_servers())
}

fn service(name: &str, vips: &[IpAddr], forwarding: &str) -> String {
    let listeners = ["TCP", "UDP", "SCTP"].map(|protocol| format!("protocol: {protocol}, port: 80"));
    let listeners = listeners.each_ref().map(String::as_str);
    let forwarding = format!("forwarding: {{method: DirectRoute{forwarding}}}");
    fleet::service(
        name,
        vips,
        None,
        &listeners,
        &["scheduler: {algorithm: rr}", &forwarding],
    )
}

/// Real servers by both of their addresses.
fn of_both_families(nodes: &[&Node]) -> String {
    real_servers(nodes, "four", Node::front4) + &real_servers(nodes, "six", Node::front6)
}

fn servers(nodes: &[&Node]) -> Vec<Server> {
    nodes.iter().map(|node| Server::start(node, 80)).collect()
}

/// Agents on both directors and all real servers, settled.
fn settled<'a>(topology: &'a Topology, group: &str, web: &str) -> Fleet<'a> {
    let nodes = topology.directors().into_iter().chain(topology.real_servers());
    Fleet::settled(WEIR, nodes, &[("group.yaml", group), ("web.yaml", web)])
}

fn asked(topology: &Topology, protocol: Protocol, vip: IpAddr) -> BTreeMap<String, usize> {
    let asking = Asking::new(protocol, (vip, 80), TIMEOUT);
    let seen = asking.ask(&topology.client.netns, 9);
    assert!(seen.failures.is_empty(), "{protocol:?} to {vip}: {seen}");
    seen.answers
}

fn answers_only(topology: &Topology, vip: IpAddr, director: &Node) {
    let answers = who_answers(&topology.client.netns, vip, ASKS);
    assert_eq!(answers, [(director.mac(), ASKS)].into(), "{vip}");
}

fn all_serve_and_only_the_director_answers(topology: &Topology) {
    for vip in [VIP4, VIP6] {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(asked(topology, protocol, vip), spread(), "{protocol:?} to {vip}");
        }
        answers_only(topology, vip, &topology.d1);
    }
}

fn spread() -> BTreeMap<String, usize> {
    ["rs1", "rs2", "rs3"].map(|name| (name.to_owned(), 3)).into()
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn every_protocol_of_both_families_is_served_and_only_the_director_answers_for_the_vip() {
    let topology = Topology::new();
    let _servers = servers(&topology.real_servers());
    let _fleet = settled(&topology, &group("d1", ""), &web(&topology, ""));
    all_serve_and_only_the_director_answers(&topology);
}

/// The proof that the test above can fail.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn without_suppression_real_servers_answer_for_the_vip() {
    let topology = Topology::new();
    let manifests = web(&topology, ", arpSuppression: None");
    let _fleet = settled(&topology, &group("d1", ""), &manifests);
    let answers = who_answers(&topology.client.netns, VIP4, 6);
    for node in topology.real_servers() {
        assert!(
            answers.contains_key(&node.mac()),
            "{} answers: {answers:?}",
            node.name()
        );
    }
    // IPv6 needs no suppression.
    answers_only(&topology, VIP6, &topology.d1);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn by_settings_real_servers_are_as_quiet_as_by_rules() {
    let topology = Topology::new();
    let _servers = servers(&topology.real_servers());
    let by_settings = group("d1", "  arpSuppression: Sysctl\n");
    let _fleet = settled(&topology, &by_settings, &web(&topology, ""));
    answers_only(&topology, VIP4, &topology.d1);
    assert_eq!(asked(&topology, Protocol::Tcp, VIP4), spread());
    announcements_do_not_poison(&topology);
    for node in topology.real_servers() {
        assert_eq!(
            node.netns.sh("nft list tables arp"),
            "",
            "no rules where settings do it"
        );
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn what_a_real_server_asks_itself_does_not_poison_the_client() {
    let topology = Topology::new();
    let mut fleet = settled(&topology, &group("d1", ""), &web(&topology, ""));
    announcements_do_not_poison(&topology);
    // The test can fail: without the second rule, which the agent would repair, the question is asked on behalf of the VIP.
    fleet.agent(&topology.rs1).signal(Signal::STOP);
    topology.rs1.netns.sh("nft flush chain arp weir output");
    assert_eq!(
        neighbour_after_a_question_of(&topology, &topology.rs1),
        topology.rs1.mac()
    );
    fleet.agent(&topology.rs1).signal(Signal::CONT);
}

/// Each real server sends to the client from the VIP, for which it first has to ask who the client is.
fn announcements_do_not_poison(topology: &Topology) {
    for node in topology.real_servers() {
        assert_eq!(
            neighbour_after_a_question_of(topology, node),
            topology.d1.mac(),
            "{}",
            node.name()
        );
    }
}

/// Whom the client thinks the VIP to be, after a real server that holds it has asked for the client.
fn neighbour_after_a_question_of(topology: &Topology, node: &Node) -> Mac {
    let client = &topology.client;
    let known = who_answers(&client.netns, VIP4, 1);
    assert_eq!(known.len(), 1);
    let sniffer = Sniffer::open(&client.netns, EtherType::Arp);
    node.route().forget_neighbour(FRONT, client.front4());
    let send = || {
        std::net::UdpSocket::bind((VIP4, 0))
            .unwrap()
            .send_to(&[], (client.front4(), 9))
            .unwrap()
    };
    node.netns.run(send);
    let is_question = |frame: &Frame| frame.source() == node.mac() && frame.field(20) == [0u8, 1];
    let deadline = Instant::now() + TIMEOUT;
    while let Some(frame) = sniffer.next(deadline) {
        if is_question(&frame) {
            break;
        }
    }
    client.route().neighbour(FRONT, VIP4).unwrap()
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn packets_go_from_client_to_director_and_from_real_server_to_client() {
    let topology = Topology::new();
    let _servers = servers(&topology.real_servers());
    let _fleet = settled(&topology, &group("d1", ""), &web(&topology, ""));
    asked(&topology, Protocol::Tcp, VIP4);
    let sniffer = Sniffer::open(&topology.client.netns, EtherType::All);
    asked(&topology, Protocol::Tcp, VIP4);
    let of_http = |frame: &&Frame| frame.ether_type() == 0x0800 && frame.field(23) == [6u8];
    let frames = sniffer.waiting();
    let ends = |frame: &Frame| {
        (
            topology.owner(frame.source()),
            topology.owner(frame.destination()),
        )
    };
    let ways: std::collections::BTreeSet<_> = frames.iter().filter(of_http).map(ends).collect();
    let expected = [
        ("client", "d1"),
        ("rs1", "client"),
        ("rs2", "client"),
        ("rs3", "client"),
    ];
    assert_eq!(ways, expected.into());
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn everything_outlives_an_agent_that_is_killed_and_goes_when_it_is_no_longer_wanted() {
    let topology = Topology::new();
    let _servers = servers(&topology.real_servers());
    let nodes = [
        &topology.d1,
        &topology.d2,
        &topology.rs1,
        &topology.rs2,
        &topology.rs3,
    ];
    let mut fleet = Fleet::new(WEIR);
    fleet.start_all(nodes);
    fleet.settle();
    // An address of somebody else's, next to where ours will be.
    topology.d1.netns.sh("ip address add 10.0.0.250/32 dev front");
    topology
        .rs1
        .netns
        .sh("ip link add vip0 up type dummy && ip address add 10.0.0.251/32 dev vip0");
    let before: Vec<String> = nodes.iter().map(|node| traces::of(node)).collect();

    fleet.write("group.yaml", &group("d1", "  arpSuppression: Sysctl\n"));
    let mut manifests = web(&topology, ", arpSuppression: Nftables");
    manifests += &service(
        "translated",
        &["10.0.0.201".parse().unwrap()],
        ", realServerBinding: Redirect",
    );
    manifests += &service("by-settings", &["10.0.0.202".parse().unwrap()], "");
    fleet.write("web.yaml", &manifests);
    fleet.settle();
    assert_eq!(asked(&topology, Protocol::Tcp, VIP4), spread());

    for node in nodes {
        let agent = fleet.agent(node);
        agent.signal(Signal::KILL);
        eventually(LONG, "the agent is gone", || agent.ended());
    }
    answers_only(&topology, VIP4, &topology.d1);
    assert_eq!(asked(&topology, Protocol::Tcp, VIP4), spread());
    fleet.start_all(nodes);
    fleet.settle();
    answers_only(&topology, VIP4, &topology.d1);

    fleet.clear();
    fleet.settle();
    for (node, before) in nodes.iter().zip(before) {
        let left = traces::difference(&before, &traces::of(node));
        assert_eq!(left, "", "{}", node.name());
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_real_server_by_redirection_has_no_address_and_serves_every_protocol() {
    let topology = Topology::new();
    let _servers = servers(&topology.real_servers());
    let manifests = web(&topology, ", realServerBinding: Redirect");
    let _fleet = settled(&topology, &group("d1", ""), &manifests);
    for node in topology.real_servers() {
        assert_eq!(
            node.netns
                .sh("ip address show to 10.0.0.200; ip -6 address show to fd00::200"),
            ""
        );
        assert_eq!(
            node.netns.sh("nft list tables arp"),
            "",
            "there is nothing to be quiet about"
        );
    }
    all_serve_and_only_the_director_answers(&topology);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_host_outside_the_cluster_does_the_real_servers_half_alone() {
    let topology = Topology::new();
    let _servers = servers(&topology.real_servers());
    let mut fleet = Fleet::new(WEIR);
    // Without a group the lone host would be director, were it not told what it is.
    let alone = web(&topology, "").replace("  directorGroupRef: {name: edge}\n", "");
    fleet.write("web.yaml", &alone);
    for node in topology.real_servers() {
        fleet.start(node, &["--role", "realserver"]);
    }
    fleet.start(&topology.d1, &[]);
    fleet.settle();
    for node in topology.real_servers() {
        assert_eq!(node.netns.sh("ipvsadm -Sn"), "");
    }
    answers_only(&topology, VIP4, &topology.d1);
    assert_eq!(asked(&topology, Protocol::Tcp, VIP4), spread());
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn the_role_moves_with_a_name_and_neighbours_are_told() {
    let topology = Topology::new();
    let _servers = servers(&topology.real_servers());
    let fleet = settled(&topology, &group("d1", ""), &web(&topology, ""));
    let client = &topology.client;
    asked(&topology, Protocol::Tcp, VIP4);
    asked(&topology, Protocol::Tcp, VIP6);
    let to = SocketAddr::new(VIP4, 80);
    let probe = Probe::start(
        &client.netns,
        Protocol::Tcp,
        to,
        Duration::from_millis(20),
        TIMEOUT,
    );
    for (active, owner) in [("d2", &topology.d2), ("d1", &topology.d1)] {
        fleet.write("group.yaml", &group(active, ""));
        for vip in [VIP4, VIP6] {
            eventually(LONG, "the client is told who has the VIP", || {
                (client.route().neighbour(FRONT, vip)? == owner.mac()).then_some(())
            });
        }
        fleet.settle();
        for vip in [VIP4, VIP6] {
            answers_only(&topology, vip, owner);
            // Who answers is not counted: the probe's requests take turns as well.
            asked(&topology, Protocol::Tcp, vip);
        }
    }
    let seen = probe.stop();
    assert!(!seen.down_at_end && seen.longest() < TIMEOUT, "{seen:?}");
}

/// From the first agent to the last nobody but the director is heard, whichever agent comes first.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn while_agents_come_up_no_real_server_is_ever_heard() {
    let topology = Topology::new();
    let sniffer = Sniffer::open(&topology.client.netns, EtherType::Arp);
    let mut fleet = Fleet::new(WEIR);
    fleet.write("group.yaml", &group("d1", ""));
    fleet.write("web.yaml", &web(&topology, ""));
    fleet.start_all(topology.real_servers());
    for _ in 0..20 {
        who_is_asked(&topology);
    }
    fleet.start_all(topology.directors());
    for _ in 0..20 {
        who_is_asked(&topology);
    }
    fleet.settle();
    answers_only(&topology, VIP4, &topology.d1);
    let claims: std::collections::BTreeSet<&str> = sniffer
        .waiting()
        .iter()
        .filter_map(|frame| frame.claims(VIP4))
        .map(|mac| topology.owner(mac))
        .collect();
    assert_eq!(claims, ["d1"].into());
}

/// Asks who has the VIP without waiting for an answer.
fn who_is_asked(topology: &Topology) {
    topology.client.route().forget_neighbour(FRONT, VIP4);
    let send = || {
        std::net::UdpSocket::bind(("0.0.0.0", 0))
            .unwrap()
            .send_to(&[], (VIP4, 9))
    };
    let _ = topology.client.netns.run(send);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_pass_that_finds_nothing_to_do_writes_nothing() {
    let topology = Topology::new();
    let mut fleet = settled(&topology, &group("d1", ""), &web(&topology, ""));
    for node in [&topology.d1, &topology.rs1] {
        let trace = Trace::start(node, fleet.agent(node).id());
        eventually(LONG, "several audits have passed", || {
            (trace.audits() > 3).then_some(())
        });
        assert_eq!(trace.changes(), [""; 0], "{}", node.name());
    }
    // The test can fail: what somebody deletes is written again.
    for (node, line, message) in [
        (
            &topology.rs1,
            "ip address delete 10.0.0.200/32 dev weir0",
            "0x14 02",
        ),
        (&topology.rs1, "nft flush set arp weir vips", "0x10 00"),
        (&topology.d1, "ipvsadm -D -t 10.0.0.200:80", " 01"),
    ] {
        let trace = Trace::start(node, fleet.agent(node).id());
        eventually(LONG, "an audit has passed", || (trace.audits() > 0).then_some(()));
        node.netns.sh(line);
        let written = || {
            trace
                .changes()
                .iter()
                .any(|change| change.contains(message))
                .then_some(())
        };
        assert!(within(LONG, written).is_some(), "{line}: {:?}", trace.changes());
    }
}

/// The netlink messages and settings that an agent writes, by strace.
struct Trace {
    strace: Process,
}

impl Trace {
    fn start(node: &Node, agent: u32) -> Self {
        let mut command = Command::new("strace");
        let words = [
            "-f",
            "-qq",
            "-s",
            "64",
            "-e",
            "trace=sendto,sendmsg,openat",
            "-p",
            &agent.to_string(),
        ];
        Self {
            strace: node.netns.spawn(command.args(words)),
        }
    }

    /// Each looks at the links once: `RTM_GETLINK` as a dump.
    fn audits(&self) -> usize {
        self.strace.log().matches("nlmsg_type=0x12 ").count()
    }

    /// Messages that change something, by their type and first byte, and settings that are opened for writing.
    fn changes(&self) -> Vec<String> {
        self.strace.log().lines().filter_map(change).collect()
    }
}

/// What a line of a trace says that is written: everything that neither dumps nor asks.
fn change(line: &str) -> Option<String> {
    // Messages that ask and do not dump: NFT_MSG_GETGEN, and CTRL_CMD_GETFAMILY of generic netlink.
    const ASKING: [(&str, &str); 2] = [("0xa10", "00"), ("0x10", "03")];
    // GET_SERVICE, GET_CONFIG and GET_INFO of IPVS, whose family has a number above those that are given by name.
    const ASKING_IPVS: [&str; 3] = ["04", "0d", "0f"];
    if line.contains("openat(") {
        let opened = line.contains("O_WRONLY");
        return opened.then(|| line.to_owned());
    }
    let message = Regex::new(r#"nlmsg_type=(\w+).*?nlmsg_flags=(\S+),.*?\}, "\\x(\w\w)"#).unwrap();
    let found = message.captures(line)?;
    let (kind, flags, first) = (&found[1], &found[2], &found[3]);
    let number = u32::from_str_radix(kind.trim_start_matches("0x"), 16).unwrap();
    let of_ipvs = (0x18..0x100).contains(&number) && !(0x10..0x20).contains(&number);
    let asks = flags.contains("0x300")
        || ASKING.contains(&(kind, first))
        || (of_ipvs && ASKING_IPVS.contains(&first));
    (!asks).then(|| format!("{kind} {first}"))
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn two_thousand_vips_are_one_transaction_and_one_batch() {
    let topology = Topology::new();
    let mut fleet = Fleet::new(WEIR);
    let vip = |number: u32| IpAddr::from((0x0a00_0400 + number).to_be_bytes());
    let many: Vec<String> = (0..250)
        .map(|service_number| {
            let vips: Vec<IpAddr> = (0..8).map(|number| vip(service_number * 8 + number)).collect();
            service(&format!("web-{service_number}"), &vips, "")
        })
        .collect();
    fleet.write("group.yaml", &group("d1", "  interface: front\n"));
    fleet.write(
        "many.yaml",
        &(many.concat() + &of_both_families(&[&topology.rs1])),
    );
    for node in [&topology.d1, &topology.rs1] {
        fleet.start(node, &[]);
    }
    fleet.settle();
    let counted = |node: &Node, line: &str| node.netns.sh(line).trim().parse::<usize>().unwrap();
    assert_eq!(
        counted(&topology.rs1, "ip -4 -oneline address show dev weir0 | wc -l"),
        2000
    );
    assert_eq!(
        counted(
            &topology.d1,
            "ip -4 -oneline address show dev front to 10.0.0.0/20 | wc -l"
        ),
        2001
    );
    // All rules came in one transaction: the ruleset has had one generation.
    let log = fleet.agent(&topology.rs1).log();
    assert_eq!(log.matches("change nftables").count(), 1, "{log}");
    for number in [0, 999, 1999] {
        let answers = {
            let client = &topology.client;
            client.netns.sh("ip route replace 10.0.0.0/20 dev front");
            who_answers(&client.netns, vip(number), 3)
        };
        assert_eq!(answers, [(topology.d1.mac(), 3)].into());
    }
}
