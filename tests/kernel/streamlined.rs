//! Directors that are real servers of what they balance, by agents on every node: who passes what to whom, and in which
//! order a node takes the role and gives it up.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::lab::client::{Asking, Held, Histogram, Protocol};
use crate::lab::fleet::{self, Fleet, group, real_servers};
use crate::lab::server::Server;
use crate::lab::sniff::{EtherType, Frame, Sniffer, who_answers};
use crate::lab::topology::{Node, Topology, VIP4, VIP6};
use crate::poll::eventually;
use rustix::process::Signal;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const TIMEOUT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(30);

/// The standby has a table, which its kernel does not use.
const BACKUP_ONLY: &str =
    "  connectionSync: {interface: back}\n  sysctls: {net.ipv4.vs.backup_only: \"1\"}\n";

/// Two web servers that balance each other, and a third.
fn three(topology: &Topology) -> [&Node; 3] {
    [&topology.d1, &topology.d2, &topology.rs1]
}

fn web(nodes: &[&Node], forwarding: &str) -> String {
    let listeners = ["TCP", "UDP", "SCTP"].map(|protocol| format!("protocol: {protocol}, port: 80"));
    let listeners = listeners.each_ref().map(String::as_str);
    let forwarding = format!("forwarding: {{{forwarding}}}");
    // Nobody has connections when a method takes another's place.
    let more = [
        "scheduler: {algorithm: rr}",
        &forwarding,
        "draining: {timeout: 0s}",
    ];
    fleet::service("web", &[VIP4, VIP6], None, &listeners, &more)
        + &real_servers(nodes, "four", Node::front4)
        + &real_servers(nodes, "six", Node::front6)
}

fn settled<'a>(topology: &'a Topology, group: &str, web: &str) -> Fleet<'a> {
    let manifests = [("group.yaml", group), ("web.yaml", web)];
    Fleet::settled(WEIR, three(topology), &manifests)
}

fn each_serves(topology: &Topology, protocol: Protocol) {
    for vip in [VIP4, VIP6] {
        let seen = Asking::new(protocol, (vip, 80), TIMEOUT).ask(&topology.client.netns, 9);
        assert_eq!(seen.counts(), [3, 3, 3], "{protocol:?} to {vip}: {seen}");
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_director_serves_what_it_balances_by_every_method() {
    let topology = Topology::new();
    let nodes = three(&topology);
    let _servers = nodes.map(|node| Server::start(node, 80));
    let fleet = settled(&topology, &group("d1", ""), &web(&nodes, "method: DirectRoute"));
    for forwarding in [
        "method: DirectRoute",
        "method: DirectRoute, realServerBinding: Redirect",
        "method: Tunnel",
        "method: Masquerade",
    ] {
        fleet.write("web.yaml", &web(&nodes, forwarding));
        fleet.settle();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            each_serves(&topology, protocol);
        }
    }
}

/// Which node passed the opening of a connection to which.
type Passed = BTreeSet<(String, String, u16)>;

/// Openings of connections as they arrive at every node while nine questions are asked, with the answers.
fn openings(topology: &Topology, vip: IpAddr) -> (Passed, Histogram) {
    const TCP: u8 = 6;
    const SYN_AND_ACK: u8 = 0x12;
    const SYN: u8 = 0x02;
    let (kind, protocol, header) = match vip {
        IpAddr::V4(_) => (EtherType::Ipv4, 23, 34),
        IpAddr::V6(_) => (EtherType::Ipv6, 20, 54),
    };
    let sniffers = topology.nodes().map(|node| Sniffer::open(&node.netns, kind));
    let seen = Asking::new(Protocol::Tcp, (vip, 80), TIMEOUT).ask(&topology.client.netns, 9);
    let opens = |frame: &Frame| {
        frame.field(protocol) == [TCP]
            && frame.field::<1>(header + 13)[0] & SYN_AND_ACK == SYN
            && frame.field(header + 2) == 80u16.to_be_bytes()
    };
    let way = |frame: &Frame| {
        let owner = |mac| topology.owner(mac).to_owned();
        let port = u16::from_be_bytes(frame.field(header));
        (owner(frame.source()), owner(frame.destination()), port)
    };
    let frames = sniffers.iter().flat_map(Sniffer::waiting);
    (frames.filter(opens).map(|frame| way(&frame)).collect(), seen)
}

/// Each connection comes to the active director and from there goes to at most one other node.
fn balanced_once((passed, seen): &(Passed, Histogram), active: &str, others: [&str; 2]) {
    assert!(seen.failures.is_empty(), "{seen}");
    let count = |from: &str, to: &str| {
        passed
            .iter()
            .filter(|way| (&*way.0, &*way.1) == (from, to))
            .count()
    };
    assert_eq!(count("client", active), 9, "{passed:?}");
    assert_eq!(others.map(|other| count(active, other)), [3, 3], "{passed:?}");
    assert_eq!(passed.len(), 9 + 3 + 3, "{passed:?}");
}

/// The role goes to and fro; each time every node serves, and nothing is balanced twice.
fn the_role_goes_to_and_fro(form: &str) {
    let topology = Topology::new();
    let nodes = three(&topology);
    let _servers = nodes.map(|node| Server::start(node, 80));
    let mut fleet = settled(&topology, &group("d1", form), &web(&nodes, "method: DirectRoute"));
    let roles = [
        ("d1", &topology.d1, "d2", &topology.d2),
        ("d2", &topology.d2, "d1", &topology.d1),
        ("d1", &topology.d1, "d2", &topology.d2),
    ];
    for (active, node, other, other_node) in roles {
        fleet.write("group.yaml", &group(active, form));
        fleet.settle();
        let table = other_node.netns.sh("ipvsadm -Sn");
        assert_eq!(table.is_empty(), form.is_empty(), "{other}: {table}");
        for vip in [VIP4, VIP6] {
            assert_eq!(
                who_answers(&topology.client.netns, vip, 10),
                [(node.mac(), 10)].into(),
                "{vip}"
            );
            balanced_once(&openings(&topology, vip), active, [other, "rs1"]);
        }
        for protocol in [Protocol::Udp, Protocol::Sctp] {
            each_serves(&topology, protocol);
        }
    }
    in_order(&fleet.agent(&topology.d2).log());
}

/// Taking is lift, then announce; giving is suppress, then release.
fn in_order(log: &str) {
    let place = |step: &str| {
        log.find(step)
            .unwrap_or_else(|| panic!("no \"{step}\" in\n{log}"))
    };
    let taken = log.find("add address 10.0.0.200 on front").unwrap();
    let lifted = log[..taken].rfind("change nftables");
    assert!(
        lifted.is_some_and(|lifted| lifted > place("add address 10.0.0.200 on weir0")),
        "{log}"
    );
    assert!(taken < place("announce 10.0.0.200 on front"), "{log}");
    let released = place("delete address 10.0.0.200 on front");
    let suppressed = log[..released].rfind("change nftables");
    assert!(suppressed.is_some_and(|suppressed| suppressed > taken), "{log}");
    assert!(
        !log.contains("delete address 10.0.0.200 on weir0"),
        "what it serves it goes on serving:\n{log}"
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_standby_without_a_table_only_serves() {
    the_role_goes_to_and_fro("");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_standby_with_backup_only_only_serves() {
    the_role_goes_to_and_fro(BACKUP_ONLY);
}

/// The proof that the tests above can fail, and what backup_only is for.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_standby_that_uses_its_table_balances_again() {
    let topology = Topology::new();
    let nodes = three(&topology);
    let _servers = nodes.map(|node| Server::start(node, 80));
    let mut fleet = settled(
        &topology,
        &group("d1", BACKUP_ONLY),
        &web(&nodes, "method: DirectRoute"),
    );
    fleet.agent(&topology.d2).signal(Signal::STOP);
    topology.d2.netns.sysctl("ipv4/vs/backup_only", "0");
    let (passed, _) = openings(&topology, VIP4);
    let from_standby = passed.iter().filter(|(from, ..)| from == "d2").count();
    assert!(from_standby > 0, "{passed:?}");
    // The agent sees to it.
    fleet.agent(&topology.d2).signal(Signal::CONT);
    fleet.settle();
    balanced_once(&openings(&topology, VIP4), "d1", ["d2", "rs1"]);
}

/// What a node serves it serves whichever role it has: the VIP stays its own.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn connections_of_the_new_director_outlive_the_change() {
    let topology = Topology::new();
    let nodes = three(&topology);
    let _servers = nodes.map(|node| Server::start(node, 80));
    let fleet = settled(&topology, &group("d1", ""), &web(&nodes, "method: DirectRoute"));
    let mut held = Held::open(&topology.client.netns, (VIP4, 80).into(), 9, TIMEOUT).unwrap();
    fleet.write("group.yaml", &group("d2", ""));
    fleet.settle();
    assert_eq!(
        who_answers(&topology.client.netns, VIP4, 3),
        [(topology.d2.mac(), 3)].into()
    );
    assert_eq!(held.survey().alive, 3, "those of d2");
}

/// With connections passed on, all of them do.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn connections_that_are_passed_on_outlive_the_change() {
    let topology = Topology::new();
    let nodes = three(&topology);
    let _servers = nodes.map(|node| Server::start(node, 80));
    let fleet = settled(
        &topology,
        &group("d1", BACKUP_ONLY),
        &web(&nodes, "method: DirectRoute"),
    );
    let to: SocketAddr = (VIP4, 80).into();
    let mut held = Held::open(&topology.client.netns, to, 9, TIMEOUT).unwrap();
    for (active, other) in [("d2", &topology.d2), ("d1", &topology.d1)] {
        eventually(LONG, "the standby knows every connection", || {
            let known = other.netns.sh("ipvsadm -Lnc");
            (known.matches("ESTABLISHED").count() == 9).then_some(())
        });
        fleet.write("group.yaml", &group(active, BACKUP_ONLY));
        fleet.settle();
        assert_eq!(
            who_answers(&topology.client.netns, VIP4, 3),
            [(other.mac(), 3)].into()
        );
        assert_eq!(held.survey().alive, 9, "after {active} has become director");
    }
}
