//! `make demo`: Weir's main job on a real IPVS kernel, told to a person. Runs inside the lab's VM.
//!
//! The cluster is made of network namespaces; agents, real servers and client are ordinary processes in them. Every
//! figure that is printed was measured in this run. If something does not come as told, the demo fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "the demo says how long things took, and fails where they do not come"
)]

#[path = "../tests/support/lab/mod.rs"]
mod lab;
#[path = "../tests/support/poll.rs"]
mod poll;
#[path = "../tests/support/process.rs"]
mod process;
mod story;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::client::{Histogram, Protocol};
use lab::server::Server;
use lab::sniff::who_answers;
use lab::topology::{FRONT, Node, Topology, VIP4};
use poll::eventually;
use process::Process;
use story::{indent, pause, say, show_command};

/// The VIP that is masqueraded; [`VIP4`] is direct routing's.
const API_VIP: &str = "10.0.0.201";
const TIMEOUT: Duration = Duration::from_secs(20);
const AUDIT: &str = "2s";

fn main() {
    let mut cluster = Cluster::cabled();
    cluster.shows_what_goes_wrong_by_hand();
    cluster.starts_agents();
    cluster.shows_who_answers();
    cluster.shows_the_table();
    cluster.answers_requests("Thirty requests to each VIP");
    cluster.takes_an_edited_manifest();
    cluster.repairs_what_others_delete();
    cluster.survives_a_typing_error();
    cluster.moves_the_role();
    say(
        "That was it",
        "The same manifests work in Kubernetes with kubectl apply. Read README.md next.",
    );
}

struct Cluster {
    topology: Topology,
    manifests: PathBuf,
    /// Of d1, d2, rs1, rs2 and rs3, once they are started.
    agents: Vec<Process>,
    _servers: Vec<Server>,
}

impl Cluster {
    fn cabled() -> Self {
        say(
            "The cluster",
            "client 10.0.0.100 -- switch -- directors d1, d2 -- real servers rs1, rs2, rs3\n\
             \x20 10.0.0.200:80  direct routing: replies go straight to the client\n\
             \x20 10.0.0.201:80  masquerading: replies come back through d1",
        );
        let topology = Topology::new();
        topology.publish();
        let mut servers = Vec::new();
        for node in topology.real_servers() {
            node.answers_through(topology.d1.back4());
            servers.push(Server::start(node, 80));
        }
        servers.push(Server::start_named(
            &topology.rs3.netns,
            "rs3 on port 8080",
            8080,
            &[],
        ));
        let manifests = PathBuf::from("/run/manifests");
        copy_examples(&manifests);
        Self {
            topology,
            manifests,
            agents: Vec::new(),
            _servers: servers,
        }
    }

    /// The fault that direct routing is known for.
    fn shows_what_goes_wrong_by_hand(&self) {
        say(
            "Direct routing by hand, the first try",
            "Every real server needs the VIP as well. So it is added there, and on d1, and nothing else is done.",
        );
        show_command("d1", "ip address add 10.0.0.200/32 dev front");
        show_command(
            "rs1",
            "ip link add vip0 up type dummy && ip address add 10.0.0.200/32 dev vip0   # and on rs2, rs3",
        );
        self.topology.d1.hold_vip(VIP4);
        for node in self.topology.real_servers() {
            node.bind_vips(&[VIP4]);
        }
        let wrong = self.who_answers();
        assert!(wrong > 0, "without ARP suppression a real server answers");
        println!(
            "    {wrong} answers came from real servers. Whoever is believed gets all of this client's requests."
        );
        self.topology.d1.release_vip(VIP4);
        for node in self.topology.real_servers() {
            node.netns.sh("ip link delete vip0");
        }
        pause();
    }

    /// Asks who has the VIP, prints who answered, and says how often that was not d1.
    fn who_answers(&self) -> usize {
        show_command("client", "arping -c 20 10.0.0.200");
        let answers = who_answers(&self.topology.client.netns, VIP4, 20);
        let mut wrong = 0;
        for (mac, count) in &answers {
            let owner = self.topology.owner(*mac);
            println!("    {count:>3} answers from {mac} ({owner})");
            if owner != "d1" {
                wrong += count;
            }
        }
        assert!(!answers.is_empty(), "somebody answers");
        wrong
    }

    fn starts_agents(&mut self) {
        say(
            "The agents",
            "All of that is taken back. Every node runs `weir agent` on the same manifests, with CAP_NET_ADMIN and\n\
             CAP_NET_RAW and nothing else. The DirectorGroup says that d1 is active; RealServers name their addresses.",
        );
        show_command(
            "d1",
            &format!(
                "weir agent --manifests {}   # and the same on d2, rs1, rs2, rs3",
                self.manifests.display()
            ),
        );
        let begin = Instant::now();
        let (directors, servers) = (self.topology.directors(), self.topology.real_servers());
        self.agents = directors
            .into_iter()
            .chain(servers)
            .map(|node| agent(node, &self.manifests))
            .collect();
        self.wait_for("d1 has programmed both services", |table| {
            table.matches("  -> 10.").count() == 6
        });
        for node in self.topology.real_servers() {
            eventually(TIMEOUT, "the real servers have the VIP", || {
                let addresses = node
                    .netns
                    .sh("ip -brief address show dev weir0 2>/dev/null || true");
                addresses.contains("10.0.0.200").then_some(())
            });
        }
        println!(
            "    {} ms after they were started, director and real servers are as they should be.",
            begin.elapsed().as_millis()
        );
    }

    fn shows_who_answers(&self) {
        say(
            "Who has the VIP?",
            "The director has it on its interface, the real servers on a link that nobody hears of:",
        );
        for node in [&self.topology.d1, &self.topology.rs1] {
            let line = "ip -brief address show to 10.0.0.200";
            show_command(node.name(), line);
            print!("{}", indent(&node.netns.sh(line)));
        }
        show_command("rs1", "nft list table arp weir");
        print!(
            "{}",
            indent(&self.topology.rs1.netns.sh("nft list table arp weir"))
        );
        assert_eq!(self.who_answers(), 0, "only the director answers");
        pause();
    }

    /// The group names another node, and every request goes on being answered.
    fn moves_the_role(&self) {
        say(
            "The other director",
            "The DirectorGroup names d2 instead of d1. d1 gives the VIP up, d2 takes it and tells everybody.",
        );
        let file = self.manifests.join("director-group.yaml");
        let text = fs::read_to_string(&file).expect("the example is there");
        let temporary = Path::new("/run/group.yaml");
        fs::write(temporary, text.replace("activeNode: d1", "activeNode: d2"))
            .expect("the folder can be written");
        show_command(
            "d1",
            "sed -i 's/activeNode: d1/activeNode: d2/' manifests/director-group.yaml",
        );
        fs::rename(temporary, &file).expect("one file system");
        eventually(TIMEOUT, "the client has been told", || {
            let mac = self.topology.client.route().neighbour(FRONT, VIP4)?;
            (self.topology.owner(mac) == "d2").then_some(())
        });
        println!("    The client knows that 10.0.0.200 is d2 now: it was told, it did not ask.");
        let seen = self.ask(VIP4);
        assert!(seen.failures.is_empty() && seen.answers.len() == 3, "{seen}");
        println!("    Thirty requests: {}", spread(&seen));
    }

    fn d1(&self) -> &Node {
        &self.topology.d1
    }

    fn table(&self, node: &Node) -> String {
        node.netns.sh("weir table")
    }

    /// Waits until d1's table is as expected, and says how long that took.
    fn wait_for(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Duration {
        let begin = Instant::now();
        eventually(TIMEOUT, what, || is_so(&self.table(self.d1())).then_some(()));
        begin.elapsed()
    }

    fn shows_the_table(&self) {
        say(
            "The kernel's tables",
            "d1 balances. d2 stands by: its table is empty.",
        );
        for node in [&self.topology.d1, &self.topology.d2] {
            show_command(node.name(), "weir table");
            print!("{}", indent(&self.table(node)));
        }
        pause();
    }

    fn answers_requests(&self, heading: &str) {
        say(heading, "Who answered, and how often:");
        for address in [VIP4, vip(API_VIP)] {
            let seen = self.ask(address);
            assert!(seen.failures.is_empty(), "{seen}");
            println!("    {address}:80   {}", spread(&seen));
        }
        pause();
    }

    fn ask(&self, address: IpAddr) -> Histogram {
        let to = SocketAddr::new(address, 80);
        Histogram::ask(
            &self.topology.client.netns,
            Protocol::Tcp,
            to,
            30,
            Duration::from_secs(3),
        )
    }

    fn takes_an_edited_manifest(&self) {
        say(
            "A manifest is edited",
            "api-1 gets weight 0, so that it takes no new connections, and a fourth real server is added.\n\
             `weir plan` says what that means before it is done:",
        );
        let edited = PathBuf::from("/run/edited");
        copy_examples(&edited);
        let file = edited.join("masquerade.yaml");
        let text = fs::read_to_string(&file).expect("the example is there");
        let text = text.replace(
            "spec: {address: 10.1.0.11, port: 80, weight: 1}",
            "spec: {address: 10.1.0.11, port: 80, weight: 0}",
        ) + "---\napiVersion: weir.dev/v1alpha1\nkind: RealServer\n\
             metadata: {name: api-4, namespace: shop, labels: {app: api}}\n\
             spec: {address: 10.1.0.13, port: 8080, weight: 1}\n";
        fs::write(&file, text).expect("the folder can be written");
        show_command("d1", "weir plan -f edited/");
        let plan = self.d1().netns.sh(&format!(
            "weir plan -f {} --node-name d1 --node-labels weir.dev/role=director --state-dir {}",
            edited.display(),
            state(self.d1())
        ));
        print!("{}", indent(&plan));
        pause();

        show_command("d1", "mv edited/masquerade.yaml manifests/");
        let begin = Instant::now();
        fs::rename(&file, self.manifests.join("masquerade.yaml")).expect("one file system");
        self.wait_for("the edit is in the kernel", |table| {
            table.contains("10.1.0.13:8080")
        });
        println!(
            "    In the kernel {} ms later (a table is printed every time we look).",
            begin.elapsed().as_millis()
        );
        let api = vip(API_VIP);
        let seen = self.ask(api);
        assert!(
            seen.failures.is_empty() && !seen.answers.contains_key("rs1"),
            "{seen}"
        );
        assert!(seen.answers.contains_key("rs3 on port 8080"), "{seen}");
        self.answers_requests("Thirty requests to each VIP again");
    }

    fn repairs_what_others_delete(&self) {
        say(
            "Somebody deletes an entry by hand",
            &format!(
                "The agents compare the kernel with what should be there every {AUDIT} here (60s otherwise)."
            ),
        );
        let line = "ipvsadm -d -t 10.0.0.200:80 -r 10.0.0.12:80";
        show_command("d1", line);
        let begin = Instant::now();
        self.d1().netns.sh(line);
        assert!(
            !self.table(self.d1()).contains("10.0.0.12:80"),
            "ipvsadm deleted it"
        );
        self.wait_for("the entry is back", |table| table.contains("10.0.0.12:80"));
        println!(
            "    Back after {} ms. The agent's log:",
            begin.elapsed().as_millis()
        );
        print!("{}", indent(&self.last_line_with("repaired")));
        pause();
    }

    fn survives_a_typing_error(&self) {
        say(
            "A typing error in a manifest",
            "The agent says where it is, and what was programmed stays.",
        );
        let file = self.manifests.join("direct-routing.yaml");
        let text = fs::read_to_string(&file).expect("the example is there");
        let (temporary, wrong) = (
            Path::new("/run/wrong.yaml"),
            text.replace("scheduler:", "schedular:"),
        );
        fs::write(temporary, wrong).expect("the folder can be written");
        fs::rename(temporary, &file).expect("one file system");
        let log = eventually(TIMEOUT, "the agent names the field", || {
            let log = self.agents[0].log();
            let line = log
                .lines()
                .position(|line| line.contains("ERROR spec.schedular: unknown field"))?;
            Some(log.lines().skip(line).collect::<Vec<_>>().join("\n"))
        });
        print!("{}", indent(&log));
        assert_eq!(
            self.table(self.d1()).matches("10.0.0.1").count(),
            3,
            "the three real servers stay"
        );
        self.answers_requests("Meanwhile");
    }

    fn last_line_with(&self, word: &str) -> String {
        self.agents[0]
            .log()
            .lines()
            .rfind(|line| line.contains(word))
            .unwrap_or_default()
            .to_owned()
    }
}

/// "rs1: 10, rs2: 10".
fn spread(seen: &Histogram) -> String {
    let each = seen
        .answers
        .iter()
        .map(|(name, count)| format!("{name}: {count}"));
    each.collect::<Vec<_>>().join(", ")
}

fn vip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn state(node: &Node) -> String {
    format!("/run/weir-{}", node.name())
}

fn agent(node: &Node, manifests: &Path) -> Process {
    let mut command = Command::new("setpriv");
    command.args([
        "--no-new-privs",
        "--bounding-set=-all,+net_admin,+net_raw",
        "--inh-caps=-all",
    ]);
    command.args(["weir", "agent", "--node-name", node.name()]);
    if node.name().starts_with('d') {
        command.args(["--node-labels", "weir.dev/role=director"]);
    }
    command.args([
        "--audit-interval",
        AUDIT,
        "--state-dir",
        &state(node),
        "--manifests",
    ]);
    node.netns.spawn(command.arg(manifests))
}

/// Copies deploy/examples, which is in the VM where it is on the host.
fn copy_examples(to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    fs::create_dir_all(to).expect("the folder can be made");
    for entry in fs::read_dir(&from).expect("the examples are there").flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("the folder can be written");
        }
    }
}
