//! Tunnels by agents on both ends, judged by packets: every encapsulation, either family in either.

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::client::{Asking, Protocol};
use crate::lab::fleet::{Fleet, group, real_servers, service};
use crate::lab::server::Server;
use crate::lab::topology::{Node, Topology, VIP4, VIP6};
use crate::lab::traces;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const TIMEOUT: Duration = Duration::from_secs(10);
/// Far more than one packet holds.
const UPLOAD: usize = 200_000;

const IPIP: &str = "{type: IPIP}";
const GUE: &str = "{type: GUE, port: 6080}";
const GUE_CHECKSUM: &str = "{type: GUE, port: 6081, checksum: Full}";
const GUE_REMOTE: &str = "{type: GUE, port: 6082, checksum: Remote}";
const GRE: &str = "{type: GRE}";
const GRE_CHECKSUM: &str = "{type: GRE, checksum: Full}";

/// A VIP through a tunnel to the real servers' addresses behind the director, which no neighbour of the client is asked
/// for: TCP, UDP, and a long upload. What goes to the real servers arrives with strict filters on.
fn reaches(vip: IpAddr, tunnel: &str, family: &str, address: fn(&Node) -> IpAddr) {
    let topology = Topology::new();
    let servers = topology.real_servers();
    let _servers = servers.map(|node| Server::start(node, 80));
    for node in servers {
        node.netns.sysctl("ipv4/conf/all/rp_filter", "1");
    }
    let mut fleet = Fleet::new(WEIR);
    fleet.start_all(topology.directors());
    fleet.start_all(servers);
    fleet.settle();
    let before = servers.map(traces::of);

    let forwarding = format!("forwarding: {{method: Tunnel, tunnel: {tunnel}}}");
    let listeners = ["TCP", "UDP", "SCTP"].map(|protocol| format!("protocol: {protocol}, port: 80"));
    let listeners = listeners.each_ref().map(String::as_str);
    let manifests = service(
        "web",
        &[vip],
        None,
        &listeners,
        &["scheduler: {algorithm: rr}", &forwarding],
    ) + &real_servers(&servers, family, address);
    fleet.write("group.yaml", &group("d1", ""));
    fleet.write("web.yaml", &manifests);
    fleet.settle();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let seen = Asking::new(protocol, (vip, 80), TIMEOUT).ask(&topology.client.netns, 9);
        assert_eq!(
            seen.counts(),
            [3, 3, 3],
            "{protocol:?}: {seen}{}",
            counters(&topology)
        );
    }
    let asking = Asking::new(Protocol::Tcp, (vip, 80), TIMEOUT);
    // No message tells a client that a packet was too long: it knows from the start what fits.
    topology.client.netns.sh("nft 'add table inet quiet; add chain inet quiet in { type filter hook input priority 0; }; \
        add rule inet quiet in icmp type destination-unreachable drop; add rule inet quiet in icmpv6 type packet-too-big drop'");
    for _ in 0..3 {
        let answered = asking.upload(&topology.client.netns, UPLOAD);
        assert!(
            answered.as_ref().is_ok_and(|name| name.starts_with("rs")),
            "{answered:?}{}",
            counters(&topology)
        );
    }

    fleet.clear();
    fleet.settle();
    for (node, before) in servers.iter().zip(before) {
        assert_eq!(
            traces::difference(&before, &traces::of(node)),
            "",
            "{}",
            node.name()
        );
    }
}

/// For the message of a failure: where packets went.
fn counters(topology: &Topology) -> String {
    let of = |node: &Node| {
        let line = "ip -s link show | grep -A5 weir; grep -H . /proc/sys/net/ipv4/conf/*/rp_filter; cat /proc/net/netstat; cat /proc/net/snmp | grep ^Ip; nft list ruleset; ip route show table all";
        format!(
            "\n{}: {}",
            node.name(),
            node.netns.sh(&format!("({line}) 2>&1 || true"))
        )
    };
    of(&topology.d1) + &of(&topology.rs1)
}

macro_rules! tunnels {
    ($($name:ident: $vip:ident over $address:ident by $tunnel:ident;)*) => {
        $(
            #[test]
            #[ignore = "needs the lab VM: make test-kernel"]
            fn $name() {
                reaches($vip, $tunnel, "real", Node::$address);
            }
        )*
    };
}

tunnels! {
    ipip_ipv4_in_ipv4: VIP4 over back4 by IPIP;
    ipip_ipv6_in_ipv4: VIP6 over back4 by IPIP;
    ipip_ipv4_in_ipv6: VIP4 over back6 by IPIP;
    ipip_ipv6_in_ipv6: VIP6 over back6 by IPIP;
    gue_ipv4_in_ipv4: VIP4 over back4 by GUE;
    gue_ipv6_in_ipv4: VIP6 over back4 by GUE;
    gue_ipv4_in_ipv6: VIP4 over back6 by GUE;
    gue_ipv6_in_ipv6: VIP6 over back6 by GUE;
    gue_with_checksum: VIP4 over back4 by GUE_CHECKSUM;
    gue_with_remote_checksum: VIP4 over back4 by GUE_REMOTE;
    gre_ipv4_in_ipv4: VIP4 over back4 by GRE;
    gre_ipv6_in_ipv4: VIP6 over back4 by GRE;
    gre_ipv4_in_ipv6: VIP4 over back6 by GRE;
    gre_ipv6_in_ipv6: VIP6 over back6 by GRE;
    gre_with_checksum: VIP4 over back4 by GRE_CHECKSUM;
}
