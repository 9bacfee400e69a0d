//! What others undo is repaired at once: the kernel tells, and the agent listens. Audits are an hour apart here, so that
//! nothing else can be what repairs it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::client::{Asking, Protocol};
use crate::lab::fleet::{self, group, real_servers};
use crate::lab::netns::Netns;
use crate::lab::server::Server;
use crate::lab::topology::{Node, Topology, VIP4, VIP6};
use crate::poll::{eventually, within};
use crate::process::Process;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
/// How long the agent may take on a machine that does other things as well: docs/benchmarks.md says how long it takes.
const SOON: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(30);

/// An agent of a node with a folder of its own.
struct Agent<'a> {
    node: &'a Node,
    process: Process,
    folder: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl<'a> Agent<'a> {
    fn start(node: &'a Node, manifests: &str) -> Self {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("web.yaml"), manifests).unwrap();
        let mut command = Command::new(WEIR);
        command.args(["agent", "--audit-interval", "1h", "--node-name", node.name()]);
        command.args(["--node-labels", "weir.dev/role=director", "--manifests"]);
        command.arg(folder.path()).arg("--state-dir").arg(state.path());
        let process = node.netns.spawn(&mut command);
        let agent = Self {
            node,
            process,
            folder,
            state,
        };
        agent.comes_to_rest("it starts");
        agent
    }

    /// Waits until nothing is left to do, and says how long that took.
    #[track_caller]
    fn comes_to_rest(&self, after: &str) -> Duration {
        let began = Instant::now();
        let (folder, node) = (self.folder.path().display(), self.node.name());
        let line = format!(
            "{WEIR} plan --detailed-exitcode --node-name {node} --node-labels weir.dev/role=director -f {folder} \
             --state-dir {}",
            self.state.path().display()
        );
        let mut last = String::new();
        let rests = within(LONG, || {
            let output = self.node.netns.output(&["sh", "-c", &line]);
            last = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.code() == Some(0)).then_some(())
        });
        assert!(
            rests.is_some(),
            "after {after} is to do:\n{last}\n{}",
            self.process.log()
        );
        began.elapsed()
    }

    /// Somebody does something, after which `look` finds nothing any more, and soon finds it again.
    #[track_caller]
    fn repairs(&self, act: &str, look: &str) {
        let there = || self.node.netns.output(&["sh", "-c", look]).status.success();
        assert!(there(), "before {act}, `{look}` finds nothing");
        let began = Instant::now();
        self.node.netns.sh(act);
        let repaired = within(SOON, || there().then_some(began.elapsed()));
        match repaired {
            Some(took) => println!("repaired after {took:?}: {act}"),
            None => panic!("not repaired: {act}\n{}", self.process.log()),
        }
    }
}

fn web(topology: &Topology) -> String {
    let more = ["scheduler: {algorithm: rr}", "forwarding: {method: DirectRoute}"];
    fleet::service("web", &[VIP4, VIP6], None, &["protocol: TCP, port: 80"], &more)
        + "---\n"
        + &group("d1", "  interface: front\n")
        + &real_servers(&topology.real_servers(), "four", Node::front4)
}

/// What a client believes where it has heard something else before.
fn mislead(client: &Netns) {
    client.sh(&format!(
        "ip neigh replace {VIP4} lladdr 02:00:00:00:00:99 dev front nud stale"
    ));
}

fn believes(client: &Netns, director: &Node) -> Option<()> {
    let mac: Vec<String> = director
        .mac()
        .0
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let neighbour = client.sh(&format!("ip neigh show {VIP4}"));
    neighbour.contains(&mac.join(":")).then_some(())
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn what_others_do_to_a_directors_vips_is_undone_and_told() {
    let topology = Topology::new();
    let _servers = topology.real_servers().map(|node| Server::start(node, 80));
    for node in topology.real_servers() {
        node.suppress_arp_by_sysctl();
        node.bind_vips(&[VIP4]);
    }
    let agent = Agent::start(&topology.d1, &web(&topology));
    let vip = format!("ip addr show dev front | grep -q {VIP4}/32");
    let six = format!("ip addr show dev front | grep -q '{VIP6}/128'");
    for (act, look) in [
        (format!("ip addr del {VIP4}/32 dev front"), &vip),
        (format!("ip addr flush dev front to {VIP4}/32"), &vip),
        (format!("ip addr del {VIP6}/128 dev front"), &six),
        // The kernel takes IPv6 addresses away from a link that goes down.
        ("ip link set front down; ip link set front up".to_owned(), &six),
    ] {
        mislead(&topology.client.netns);
        agent.repairs(&act, look);
        eventually(SOON, "the client hears where the VIP is", || {
            believes(&topology.client.netns, &topology.d1)
        });
        agent.comes_to_rest(&act);
    }
    let seen = Asking::new(Protocol::Tcp, (VIP4, 80), SOON).ask(&topology.client.netns, 9);
    assert_eq!(seen.counts(), [3, 3, 3], "{seen}\n{}", agent.process.log());
}

/// As with a bond or a VLAN that somebody configures anew.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_link_that_is_made_anew_has_its_vip_again() {
    let topology = Topology::new();
    topology.d1.netns.sh(VLAN);
    let manifests = web(&topology).replace("interface: front", "interface: vlan7");
    let agent = Agent::start(&topology.d1, &manifests);
    agent.repairs(
        &format!("ip link del vlan7; {VLAN}"),
        &format!("ip addr show dev vlan7 | grep -q {VIP4}/32"),
    );
}

const VLAN: &str = "ip link add link front name vlan7 type vlan id 7; ip addr add 10.7.0.1/24 dev vlan7; ip link set vlan7 up";

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn rules_and_links_of_a_real_server_are_there_again() {
    let topology = Topology::new();
    let manifests = web(&topology) + &real_servers(&[&topology.d2], "own", Node::front4);
    let manifests = manifests.replace("weir.dev/role: director", "weir.dev/role: other");
    let agent = Agent::start(&topology.d2, &manifests);
    agent.repairs(
        "nft flush ruleset",
        "nft list table arp weir | grep -q 10.0.0.200",
    );
    agent.repairs(
        "nft delete table arp weir",
        "nft list table arp weir | grep -q 10.0.0.200",
    );
    let vip = format!("ip addr show dev weir0 | grep -q {VIP4}/32");
    agent.repairs("ip link del weir0", &vip);
    agent.repairs("ip addr flush dev weir0", &vip);
    agent.comes_to_rest("all of that");
}

/// Two programs that undo each other's work would otherwise do nothing else.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn who_undoes_the_same_again_and_again_is_named_and_not_raced() {
    let topology = Topology::new();
    let manifests = web(&topology) + &real_servers(&[&topology.d2], "own", Node::front4);
    let manifests = manifests.replace("weir.dev/role: director", "weir.dev/role: other");
    let mut agent = Agent::start(&topology.d2, &manifests);
    let mut rival = topology
        .d2
        .netns
        .spawn(Command::new("sh").args(["-c", "while :; do nft delete table arp weir 2>/dev/null; done"]));
    agent.process.wait_for_log(LONG, "nft (process ");
    rival.stop();
    eventually(LONG, "it is repaired when the other has stopped", || {
        let rules = topology.d2.netns.output(&["nft", "list", "table", "arp", "weir"]);
        rules.status.success().then_some(())
    });
    agent
        .process
        .wait_for_log(LONG * 3, "no longer: nftables, table weir");
}
