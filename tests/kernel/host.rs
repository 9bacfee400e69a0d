//! A node's links, addresses and settings: what is others' stays theirs, what is Weir's is repaired, and what Weir changed
//! it changes back.

use std::time::Duration;

use crate::lab::fleet::{self, Fleet, group, real_servers};
use crate::lab::topology::{Node, Topology, VIP4, VIP6};
use crate::lab::traces;
use crate::poll::eventually;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
/// The address protocol of what Weir adds.
const WEIRS: u8 = 0x77;
const LONG: Duration = Duration::from_secs(30);

fn web(nodes: &[&Node], forwarding: &str) -> String {
    let forwarding = format!("forwarding: {{{forwarding}}}");
    fleet::service(
        "web",
        &[VIP4, VIP6],
        None,
        &["protocol: TCP, port: 80"],
        &[&forwarding],
    ) + &real_servers(nodes, "four", Node::front4)
        + &real_servers(nodes, "six", Node::front6)
}

fn settled<'a>(topology: &'a Topology, group: &str, forwarding: &str) -> Fleet<'a> {
    let nodes = [&topology.rs1];
    let manifests = [("group.yaml", group), ("web.yaml", &*web(&nodes, forwarding))];
    Fleet::settled(WEIR, [&topology.d1, &topology.rs1], &manifests)
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn addresses_are_marked_and_those_of_others_stay() {
    let topology = Topology::new();
    let [d1, rs1] = [&topology.d1, &topology.rs1];
    // The VIPs, as somebody bound them before Weir came; and a neighbour of theirs.
    d1.netns
        .sh("ip address add 10.0.0.200/32 dev front; ip address add 10.0.0.250/32 dev front");
    let before = traces::of(d1);
    let fleet = settled(&topology, &group("d1", ""), "method: DirectRoute");
    assert_eq!(rs1.route().addresses_of(WEIRS), [VIP4, VIP6]);
    assert_eq!(
        d1.route().addresses_of(WEIRS),
        [VIP6],
        "the other VIP is somebody else's, and as good"
    );
    let lifetimes = rs1.netns.sh("ip -6 address show dev weir0 to fd00::200");
    assert!(
        lifetimes.contains("deprecated"),
        "no connection starts from a VIP: {lifetimes}"
    );

    fleet.clear();
    fleet.settle();
    assert_eq!(traces::difference(&before, &traces::of(d1)), "");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_link_of_somebody_elses_is_not_taken_over() {
    let topology = Topology::new();
    let rs1 = &topology.rs1;
    rs1.netns
        .sh("ip link add weir0 type dummy && ip address add 192.0.2.1/32 dev weir0");
    let mut fleet = Fleet::new(WEIR);
    fleet.write("group.yaml", &group("d1", ""));
    fleet.write("web.yaml", &web(&[rs1], "method: DirectRoute"));
    fleet.start(rs1, &[]);
    let agent = fleet.agent(rs1);
    agent.wait_for_log(LONG, "cannot add link weir0 (dummy): there is one of that name");
    agent.wait_for_log(LONG, "which Weir did not make: ip link delete it");
    let theirs = rs1.netns.sh("ip address show dev weir0");
    assert!(
        theirs.contains("192.0.2.1/32") && !theirs.contains("10.0.0.200"),
        "{theirs}"
    );
    // The way out that it names.
    rs1.netns.sh("ip link delete weir0");
    fleet.settle();
    assert!(
        rs1.netns
            .sh("ip address show dev weir0")
            .contains("10.0.0.200/32")
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn whatever_is_taken_away_comes_back() {
    let topology = Topology::new();
    topology.rs1.netns.sysctl("ipv4/conf/all/rp_filter", "1");
    let group = group("d1", "  arpSuppression: Sysctl\n");
    let nodes = [&topology.rs1];
    let service = |name: &str, vip: &str, forwarding: &str| {
        let forwarding = format!("forwarding: {{{forwarding}}}");
        fleet::service(
            name,
            &[vip.parse().unwrap()],
            None,
            &["protocol: TCP, port: 80"],
            &[&forwarding],
        )
    };
    let manifests = service(
        "gue",
        "10.0.0.200",
        "method: Tunnel, tunnel: {type: GUE, port: 6080}, arpSuppression: Nftables",
    ) + &service(
        "redirected",
        "10.0.0.201",
        "method: DirectRoute, realServerBinding: Redirect",
    ) + &service("gre", "fd00::200", "method: Tunnel, tunnel: {type: GRE}")
        + &service("quiet", "10.0.0.202", "method: DirectRoute")
        + &real_servers(&nodes, "four", Node::front4);
    let fleet = Fleet::settled(
        WEIR,
        [&topology.d1, &topology.rs1],
        &[("group.yaml", &group), ("web.yaml", &manifests)],
    );
    let whole = [&topology.d1, &topology.rs1].map(|node| without_numbers(&traces::of(node)));
    for (node, line) in [
        (&topology.d1, "ip address delete 10.0.0.200/32 dev front"),
        (&topology.d1, "ip -6 address delete fd00::200/128 dev front"),
        (&topology.rs1, "ip link delete weir0"),
        (&topology.rs1, "ip address delete 10.0.0.200/32 dev weir0"),
        (
            &topology.rs1,
            "ip link delete $(ls /proc/sys/net/ipv4/conf | grep weir-ipip)",
        ),
        (
            &topology.rs1,
            "ip -4 address flush dev $(ls /proc/sys/net/ipv4/conf | grep weir-ipip)",
        ),
        (
            &topology.rs1,
            "ip link delete $(ls /proc/sys/net/ipv4/conf | grep weir-gre)",
        ),
        // As udev and sysctl.d do to every new link.
        (
            &topology.rs1,
            "sysctl -w net.ipv4.conf.$(ls /proc/sys/net/ipv4/conf | grep weir-ipip).rp_filter=1",
        ),
        (&topology.rs1, "sysctl -w net.ipv4.conf.all.arp_ignore=0"),
        (&topology.rs1, "nft flush ruleset"),
        (&topology.rs1, "nft flush chain arp weir output"),
        (&topology.rs1, "nft delete element arp weir vips { 10.0.0.200 }"),
        (&topology.rs1, "nft add element arp weir vips { 10.0.0.77 }"),
        (&topology.rs1, "ip fou del port 6080"),
    ] {
        node.netns.sh(line);
        fleet.settle();
        let now = [&topology.d1, &topology.rs1].map(|node| without_numbers(&traces::of(node)));
        for (before, after) in whole.iter().zip(&now) {
            assert_eq!(traces::difference(before, after), "", "{line}");
        }
    }
}

/// A link that is made anew has another number, and a dummy another hardware address.
fn without_numbers(text: &str) -> String {
    let number = regex::Regex::new(r"(?m)^\d+: |link/ether \S+|fe80::\S+|id\S* ?\w*:? ?0x\w+").unwrap();
    number.replace_all(text, "").into_owned()
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn settings_get_back_what_they_were_unless_somebody_has_changed_them_since() {
    let topology = Topology::new();
    let rs1 = &topology.rs1;
    let value = |name: &str| {
        rs1.netns
            .sh(&format!("cat /proc/sys/net/ipv4/conf/all/{name}"))
            .trim()
            .to_owned()
    };
    rs1.netns.sysctl("ipv4/conf/all/arp_announce", "1");
    // 2 is stricter than what Weir would set.
    rs1.netns.sysctl("ipv4/conf/all/arp_ignore", "2");
    let by_settings = group("d1", "  arpSuppression: Sysctl\n");
    let mut fleet = settled(&topology, &by_settings, "method: DirectRoute");
    assert_eq!([value("arp_ignore"), value("arp_announce")], ["2", "2"]);
    // What they were outlives the agent.
    fleet.agent(rs1).signal(rustix::process::Signal::KILL);
    eventually(LONG, "the agent is gone", || fleet.agent(rs1).ended());
    fleet.start(rs1, &[]);
    fleet.settle();
    fleet.clear();
    fleet.settle();
    assert_eq!([value("arp_ignore"), value("arp_announce")], ["2", "1"]);

    // What somebody sets while Weir is not looking is theirs.
    fleet.write("group.yaml", &by_settings);
    fleet.write("web.yaml", &web(&[rs1], "method: DirectRoute"));
    fleet.settle();
    fleet.agent(rs1).signal(rustix::process::Signal::KILL);
    eventually(LONG, "the agent is gone", || fleet.agent(rs1).ended());
    rs1.netns.sysctl("ipv4/conf/all/arp_announce", "0");
    fleet.clear();
    fleet.start(rs1, &[]);
    fleet.settle();
    assert_eq!([value("arp_ignore"), value("arp_announce")], ["2", "0"]);
}

/// Killed at any of its messages to the kernel, what it left is finished, or taken back, by the next.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn what_was_killed_half_way_is_finished_by_the_next() {
    let topology = Topology::new();
    let rs1 = &topology.rs1;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let by_settings = group("d1", "  arpSuppression: Sysctl\n");
    let tunnel = "method: Tunnel, tunnel: {type: GUE, port: 6080}, arpSuppression: Nftables";
    let service = |name: &str, vip: &str, forwarding: &str| {
        let listeners = ["protocol: TCP, port: 80"];
        let forwarding = format!("forwarding: {{{forwarding}}}");
        fleet::service(name, &[vip.parse().unwrap()], None, &listeners, &[&forwarding])
    };
    let wanted = service("gue", "10.0.0.200", tunnel)
        + &service("quiet", "10.0.0.202", "method: DirectRoute")
        + &real_servers(&[rs1], "four", Node::front4);
    std::fs::write(path("nothing.yaml"), &by_settings).unwrap();
    std::fs::write(path("wanted.yaml"), by_settings + "\n" + &wanted).unwrap();
    let weir = |act: &str, file: &str| {
        format!(
            "{WEIR} {act} --node-name rs1 --state-dir {} -f {}",
            path("state"),
            path(file)
        )
    };
    let before = traces::of(rs1);
    let mut died = 0;
    for message in 1.. {
        let killed_before = died;
        for file in ["wanted.yaml", "nothing.yaml"] {
            let line = format!(
                "strace -f -qq -o /dev/null -e trace=sendto -e inject=sendto:signal=KILL:when={message} {}",
                weir("apply", file)
            );
            died += usize::from(!rs1.netns.output(&["sh", "-c", &line]).status.success());
            rs1.netns.sh(&weir("apply", file));
        }
        if died == killed_before {
            break;
        }
    }
    assert!(died > 20, "it was killed {died} times");
    assert_eq!(traces::difference(&before, &traces::of(rs1)), "");
    rs1.netns.sh(&weir("apply", "wanted.yaml"));
    rs1.netns.sh(&weir("plan --detailed-exitcode", "wanted.yaml"));
}
