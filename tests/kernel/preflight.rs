//! What stands in a node's way: each fault is made for real, seen in packets where it can be, and found by `weir check
//! --node` and by the agent.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use crate::lab::client::{Asking, Protocol};
use crate::lab::fleet::{self, Fleet, group, real_servers};
use crate::lab::server::Server;
use crate::lab::sniff::who_answers;
use crate::lab::topology::{Node, Topology, VIP4, VIP6};
use crate::poll::eventually;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const TIMEOUT: Duration = Duration::from_secs(10);
/// For what nobody answers.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(30);

fn web(topology: &Topology, forwarding: &str) -> String {
    let forwarding = format!("forwarding: {{{forwarding}}}");
    let nodes = topology.real_servers();
    fleet::service(
        "web",
        &[VIP4, VIP6],
        None,
        &["protocol: TCP, port: 80"],
        &["scheduler: {algorithm: rr}", &forwarding],
    ) + &real_servers(&nodes, "four", Node::front4)
        + &real_servers(&nodes, "six", Node::front6)
}

fn settled<'a>(topology: &'a Topology, group: &str, forwarding: &str) -> Fleet<'a> {
    let manifests = [("group.yaml", group), ("web.yaml", &*web(topology, forwarding))];
    let nodes = topology.directors().into_iter().chain(topology.real_servers());
    Fleet::settled(WEIR, nodes, &manifests)
}

/// What `weir check --node` says is wrong, by what it looked at; its status says whether anything is.
#[track_caller]
fn wrong(fleet: &Fleet<'_>, node: &Node) -> BTreeMap<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = fleet.check(node);
    let text = String::from_utf8(stdout).unwrap();
    let wrong: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("problem "))
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(subject, words)| (subject.to_owned(), words.to_owned()))
        .collect();
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.success(), wrong.is_empty(), "{text}{stderr}");
    wrong
}

/// That exactly one thing is wrong with a node, in these words; and that the agent says so too.
#[track_caller]
fn one_thing(fleet: &mut Fleet<'_>, node: &Node, subject: &str, words: &str) {
    let found = wrong(fleet, node);
    assert_eq!(found.keys().collect::<Vec<_>>(), [subject]);
    assert!(found[subject].contains(words), "{}", found[subject]);
    let agent = fleet.agent(node);
    eventually(LONG, "the agent says so", || {
        agent.log().contains(words).then_some(())
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn nothing_stands_in_the_way_of_nodes_as_they_should_be() {
    let topology = Topology::new();
    let fleet = settled(&topology, &group("d1", ""), "method: DirectRoute");
    for node in topology.directors().into_iter().chain(topology.real_servers()) {
        assert_eq!(wrong(&fleet, node), BTreeMap::new(), "{}", node.name());
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn rules_of_others_that_make_a_director_deaf() {
    let topology = Topology::new();
    let mut fleet = settled(&topology, &group("d1", ""), "method: DirectRoute");
    // As scripts around real servers leave them when their host becomes director: by nft, and by arptables.
    for (make, undo) in [
        (
            "nft 'add table arp site; add chain arp site in { type filter hook input priority 0; }; \
             add rule arp site in arp daddr ip 10.0.0.200 drop'",
            "nft delete table arp site",
        ),
        (
            "arptables-nft -A INPUT -d 10.0.0.200 -j DROP",
            "arptables-nft -F INPUT",
        ),
    ] {
        topology.d1.netns.sh(make);
        assert_eq!(
            who_answers(&topology.client.netns, VIP4, 1),
            BTreeMap::new(),
            "{make}"
        );
        let table = if make.starts_with("nft") { "site" } else { "filter" };
        let subject = format!("nftables arp {table}");
        one_thing(
            &mut fleet,
            &topology.d1,
            &subject,
            "drops questions for 10.0.0.200 on front",
        );
        topology.d1.netns.sh(undo);
        assert_eq!(wrong(&fleet, &topology.d1), BTreeMap::new(), "{undo}");
    }
    assert_eq!(who_answers(&topology.client.netns, VIP4, 1).len(), 1);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn settings_that_make_a_director_deaf() {
    let topology = Topology::new();
    let mut fleet = settled(&topology, &group("d1", ""), "method: DirectRoute");
    topology.d1.netns.sysctl("ipv4/conf/all/arp_ignore", "8");
    assert_eq!(who_answers(&topology.client.netns, VIP4, 1), BTreeMap::new());
    let subject = "net.ipv4.conf.front.arp_ignore";
    one_thing(
        &mut fleet,
        &topology.d1,
        subject,
        "this director does not answer for the VIPs on front",
    );
    topology.d1.netns.sysctl("ipv4/conf/all/arp_ignore", "1");
    assert_eq!(wrong(&fleet, &topology.d1), BTreeMap::new());
    assert_eq!(who_answers(&topology.client.netns, VIP4, 1).len(), 1);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_filter_that_drops_what_clients_send() {
    let topology = Topology::new();
    let _servers = topology.real_servers().map(|node| Server::start(node, 80));
    // Real servers whose way out is another link than the one by which directors reach them.
    for node in topology.real_servers() {
        node.default_via(topology.d2.back4());
        node.netns.sysctl("ipv4/conf/all/rp_filter", "1");
        topology
            .client
            .netns
            .sh("ip address replace 172.16.0.1/32 dev lo");
    }
    topology.d1.netns.sh(&format!(
        "ip route add 172.16.0.1/32 via {}",
        topology.client.front4()
    ));
    topology.d2.netns.sh(&format!(
        "ip route add 172.16.0.1/32 via {}",
        topology.client.front4()
    ));
    let mut fleet = settled(&topology, &group("d1", ""), "method: DirectRoute");
    let from_afar = Asking::new(Protocol::Tcp, (VIP4, 80), SHORT).from([172, 16, 0, 1].into());
    assert_eq!(from_afar.ask(&topology.client.netns, 1).names(), [""; 0]);
    let subject = "net.ipv4.conf.front.rp_filter";
    one_thing(
        &mut fleet,
        &topology.rs1,
        subject,
        "sysctl -w net.ipv4.conf.front.rp_filter=2",
    );
    for node in topology.real_servers() {
        node.netns.sh("sysctl -w net.ipv4.conf.front.rp_filter=2");
    }
    assert_eq!(wrong(&fleet, &topology.rs1), BTreeMap::new());
    let answers = Asking {
        timeout: TIMEOUT,
        ..from_afar
    }
    .ask(&topology.client.netns, 3);
    assert_eq!(answers.counts(), [1, 1, 1], "{answers}");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_real_server_that_answers_for_others() {
    let topology = Topology::new();
    let mut fleet = settled(
        &topology,
        &group("d1", "  arpSuppression: Sysctl\n"),
        "method: DirectRoute",
    );
    topology.rs1.netns.sysctl("ipv4/conf/front/proxy_arp", "1");
    let subject = "net.ipv4.conf.front.proxy_arp";
    one_thing(
        &mut fleet,
        &topology.rs1,
        subject,
        "this real server answers for other hosts on front",
    );
}

/// The link as kube-proxy in IPVS mode makes it, with an address that a Service has as well.
fn kube_proxys_link(node: &Node) {
    node.netns
        .sh("ip link add kube-ipvs0 type dummy; ip address add 10.0.0.200/32 dev kube-ipvs0");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn kube_proxys_link_answers_for_a_vip_where_weir_does_not_see_to_it() {
    let topology = Topology::new();
    // A director, one that stands by, a real server.
    for node in [&topology.d1, &topology.d2, &topology.rs1] {
        kube_proxys_link(node);
    }
    let mut fleet = settled(&topology, &group("d1", ""), "method: DirectRoute");
    let who = || who_answers(&topology.client.netns, VIP4, 2);
    let answering = [(topology.d1.mac(), 2), (topology.d2.mac(), 2)];
    assert_eq!(who(), answering.into());
    one_thing(
        &mut fleet,
        &topology.d2,
        "net.ipv4.conf.front.arp_ignore",
        "this node answers for 10.0.0.200 on front besides the director",
    );
    for node in [&topology.d1, &topology.rs1] {
        assert_eq!(wrong(&fleet, node), BTreeMap::new(), "{}", node.name());
    }
    // What ipvs.strictARP has kube-proxy set. The director answers none the less, since it has the VIP on that link too.
    for node in [&topology.d1, &topology.d2] {
        node.suppress_arp_by_sysctl();
    }
    assert_eq!(who(), [(topology.d1.mac(), 2)].into());
    assert_eq!(wrong(&fleet, &topology.d2), BTreeMap::new());
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_director_that_is_no_router() {
    let topology = Topology::new();
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        topology.d1.netns.sysctl(setting, "0");
    }
    let mut fleet = settled(&topology, &group("d1", ""), "method: Masquerade");
    let subject = "net.ipv6.conf.all.forwarding";
    one_thing(
        &mut fleet,
        &topology.d1,
        subject,
        "answers of IPv6 real servers are not passed on",
    );
    let forwards = topology.d1.netns.sh("cat /proc/sys/net/ipv4/ip_forward");
    assert_eq!(forwards.trim(), "1", "Weir sees to IPv4");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn an_agent_that_may_not() {
    let topology = Topology::new();
    let fleet = settled(&topology, &group("d1", ""), "method: DirectRoute");
    let check = |capabilities: &str| {
        let line = format!(
            "setpriv --no-new-privs --bounding-set={capabilities} --inh-caps=-all {WEIR} check --node"
        );
        let output = topology.d1.netns.output(&["sh", "-c", &line]);
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (good, text) = check("-all,+net_admin");
    assert!(
        !good && text.contains("capabilities: CAP_NET_RAW is missing: run as root, or"),
        "{text}"
    );
    let (good, text) = check("-all,+net_admin,+net_raw");
    assert!(good, "{text}");
    drop(fleet);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn settings_that_nobody_may_write() {
    let topology = Topology::new();
    let line = format!(
        "unshare -m sh -c 'mount -o bind /proc/sys/net /proc/sys/net; mount -o remount,ro,bind /proc/sys/net; {WEIR} \
         check --node'"
    );
    let output = topology.d1.netns.output(&["sh", "-c", &line]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains("settings: /proc/sys/net is read-only here: mount the node's at another place"),
        "{text}"
    );
}
