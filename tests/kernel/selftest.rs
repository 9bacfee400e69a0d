//! The lab itself: that its cluster stands, and that its instruments see faults that are there.

use std::net::SocketAddr;
use std::time::Duration;

use crate::lab::client::{Held, Histogram, Probe, Protocol};
use crate::lab::server::Server;
use crate::lab::sniff::who_answers;
use crate::lab::topology::{FRONT, Node, Topology, VIP4, VIP6};
use crate::poll::eventually;

// Long enough for a first packet to be lost: SCTP sends it again after three seconds.
const TIMEOUT: Duration = Duration::from_secs(10);

fn serve_all(topology: &Topology) -> Vec<Server> {
    topology.real_servers().map(|node| Server::start(node, 80)).into()
}

fn ask(topology: &Topology, protocol: Protocol, to: SocketAddr, questions: usize) -> Histogram {
    Histogram::ask(&topology.client.netns, protocol, to, questions, TIMEOUT)
}

/// A director with one service of each family and protocol, as an administrator would set it up.
fn direct_by_ipvsadm(director: &Node) {
    for vip in [VIP4, VIP6] {
        director.hold_vip(vip);
    }
    let mut rules = String::new();
    for (flag, vip, real_server) in [
        ("-t", VIP4, "10.0.0.1%:80"),
        ("-u", VIP4, "10.0.0.1%:80"),
        ("-t", VIP6, "[fd00::1%]:80"),
    ] {
        let service = SocketAddr::new(vip, 80);
        rules += &format!("-A {flag} {service} -s rr\n");
        for number in ["1", "2", "3"] {
            rules += &format!("-a {flag} {service} -r {} -g\n", real_server.replace('%', number));
        }
    }
    director.netns.sh(&format!("ipvsadm -R <<end\n{rules}end"));
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn the_client_reaches_every_real_server_by_every_protocol() {
    let topology = Topology::new();
    let _servers = serve_all(&topology);
    for node in topology.real_servers() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for address in [node.front4(), node.front6()] {
                let seen = ask(&topology, protocol, (address, 80).into(), 2);
                assert_eq!(
                    seen.answers,
                    [(node.name().to_owned(), 2)].into(),
                    "{protocol:?} {address}: {seen}"
                );
            }
        }
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn two_topologies_do_not_see_each_other() {
    let (one, other) = (Topology::new(), Topology::new());
    let _server = Server::start(&one.rs1, 80);
    assert_eq!(
        ask(&one, Protocol::Tcp, (one.rs1.front4(), 80).into(), 1).names(),
        ["rs1"]
    );
    let refused = ask(&other, Protocol::Tcp, (other.rs1.front4(), 80).into(), 1);
    assert_eq!(refused.failures.len(), 1, "{refused}");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_vip_on_real_servers_is_seen_to_be_answered_by_them() {
    let topology = Topology::new();
    topology.d1.hold_vip(VIP4);
    for node in topology.real_servers() {
        node.bind_vips(&[VIP4]);
    }
    let answers = who_answers(&topology.client.netns, VIP4, 4);
    let wrong: Vec<_> = answers
        .keys()
        .map(|mac| topology.owner(*mac))
        .filter(|name| *name != "d1")
        .collect();
    assert!(!wrong.is_empty(), "only the director answered: {answers:?}");

    for node in topology.real_servers() {
        node.suppress_arp_by_sysctl();
    }
    let answers = who_answers(&topology.client.netns, VIP4, 4);
    assert_eq!(answers, [(topology.d1.mac(), 4)].into());
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn real_servers_do_not_answer_for_an_ipv6_vip_on_a_dummy_link() {
    let topology = Topology::new();
    topology.d1.hold_vip(VIP6);
    for node in topology.real_servers() {
        node.bind_vips(&[VIP6]);
    }
    assert_eq!(
        who_answers(&topology.client.netns, VIP6, 3),
        [(topology.d1.mac(), 3)].into()
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn direct_routing_set_up_by_ipvsadm_spreads_the_questions() {
    let topology = Topology::new();
    let _servers = serve_all(&topology);
    for node in topology.real_servers() {
        node.suppress_arp_by_sysctl();
        node.bind_vips(&[VIP4, VIP6]);
    }
    direct_by_ipvsadm(&topology.d1);
    for (protocol, vip) in [
        (Protocol::Tcp, VIP4),
        (Protocol::Udp, VIP4),
        (Protocol::Tcp, VIP6),
    ] {
        let seen = ask(&topology, protocol, (vip, 80).into(), 9);
        assert_eq!(seen.counts(), [3, 3, 3], "{protocol:?} {vip}: {seen}");
        assert_eq!(seen.names(), ["rs1", "rs2", "rs3"]);
    }
    let listing = topology.d1.netns.sh("ipvsadm -Ln");
    assert!(listing.contains("10.0.0.200:80 rr"), "{listing}");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn an_outage_is_seen_by_the_probe_and_by_held_connections() {
    let topology = Topology::new();
    let server = Server::start(&topology.rs1, 80);
    let to = (topology.rs1.front4(), 80).into();
    let client = &topology.client.netns;
    let mut held = Held::open(client, to, 5, TIMEOUT).unwrap();
    assert_eq!(held.by_name(), [("rs1", 5)].into());
    assert_eq!(held.survey().alive, 5);

    let probe = Probe::start(
        client,
        Protocol::Tcp,
        to,
        Duration::from_millis(10),
        Duration::from_millis(100),
    );
    eventually(TIMEOUT, "the probe is answered", || {
        (probe.seen().answered > 0).then_some(())
    });
    topology.rs1.set_link(FRONT, false);
    eventually(TIMEOUT, "the probe misses the pulled cable", || {
        probe.seen().down_at_end.then_some(())
    });
    drop(server);
    topology.rs1.set_link(FRONT, true);
    let _server = Server::start(&topology.rs1, 80);
    eventually(TIMEOUT, "the probe is answered again", || {
        (!probe.seen().down_at_end).then_some(())
    });
    let outages = probe.stop();
    assert_eq!(outages.gaps.len(), 1, "{outages:?}");
    assert!(outages.longest() >= Duration::from_millis(100), "{outages:?}");
    assert_eq!(held.survey().alive, 0);
}
