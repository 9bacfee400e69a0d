//! A kernel without nf_tables. A file of its own: the module goes away for the whole machine.

use std::time::Duration;

use crate::lab::client::{Asking, Protocol};
use crate::lab::fleet::{self, Fleet, group, real_servers};
use crate::lab::server::Server;
use crate::lab::sniff::who_answers;
use crate::lab::topology::{Node, Topology, VIP4};
use crate::lab::traces;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const TIMEOUT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(30);

fn web(topology: &Topology, suppression: &str) -> String {
    let forwarding = format!("forwarding: {{method: DirectRoute, arpSuppression: {suppression}}}");
    let more = ["scheduler: {algorithm: rr}", &forwarding];
    fleet::service("web", &[VIP4], None, &["protocol: TCP, port: 80"], &more)
        + &real_servers(&topology.real_servers(), "four", Node::front4)
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn real_servers_are_kept_quiet_by_settings_or_have_no_vip() {
    let topology = Topology::new();
    topology
        .d1
        .netns
        .sh("rmmod nf_tables && rm $(find /lib/modules -name 'nf_tables.ko*')");
    let _servers = topology.real_servers().map(|node| Server::start(node, 80));
    let nodes = topology.directors().into_iter().chain(topology.real_servers());
    let before: Vec<String> = nodes.clone().map(bare).collect();
    let mut fleet = Fleet::settled(
        WEIR,
        nodes.clone(),
        &[
            ("group.yaml", &group("d1", "")),
            ("web.yaml", &web(&topology, "Auto")),
        ],
    );
    let serves = || {
        let answers = who_answers(&topology.client.netns, VIP4, 50);
        assert_eq!(answers, [(topology.d1.mac(), 50)].into());
        let seen = Asking::new(Protocol::Tcp, (VIP4, 80), TIMEOUT).ask(&topology.client.netns, 9);
        assert_eq!(seen.counts(), [3, 3, 3], "{seen}");
    };
    serves();
    fleet
        .agent(&topology.rs1)
        .wait_for_log(LONG, "ARP is suppressed by settings");

    // Rules that cannot be had take nothing away that kept the node quiet until now.
    fleet.write("web.yaml", &web(&topology, "Nftables"));
    for node in topology.real_servers() {
        fleet
            .agent(node)
            .wait_for_log(LONG, "this kernel has no nf_tables");
    }
    serves();
    fleet.write("web.yaml", &web(&topology, "Auto"));
    fleet.settle();
    serves();

    // A node without them that should have them has no VIP, rather than one that is heard of.
    fleet.clear();
    fleet.settle();
    fleet.write("web.yaml", &web(&topology, "Nftables"));
    fleet.write("group.yaml", &group("d1", ""));
    for node in topology.real_servers() {
        let why = "cannot add address 10.0.0.200 on weir0: not tried, because this node could not be kept quiet about it";
        fleet.agent(node).wait_for_log(LONG, why);
        assert_eq!(node.netns.sh("ip address show to 10.0.0.200"), "");
    }
    fleet.clear();
    fleet.settle();
    for (node, before) in nodes.zip(before) {
        assert_eq!(traces::difference(&before, &bare(node)), "", "{}", node.name());
    }
}

/// Everything of a node but what nft would tell.
fn bare(node: &Node) -> String {
    node.netns.sh(
        "ip -details link show; ip address show; ip route show table all; ipvsadm -Sn; \
         grep -rH . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward",
    )
}
