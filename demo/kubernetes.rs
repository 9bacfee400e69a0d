//! `make demo-kubernetes`: the walk of docs/kubernetes.md, told to a person, and who answers while pods come and go.
//!
//! API server, controllers and scheduler run on this host. Nodes d1 and rs1, with containerd and a kubelet each, the hosts and
//! the client are in the lab's VM. Every line that is printed is of this run. If something does not come as told, the demo
//! fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "the demo says how long things took, and fails where they do not come"
)]

#[path = "../tests/support/control_plane/mod.rs"]
mod control_plane;
#[path = "../tests/support/lab/mod.rs"]
mod lab;
#[path = "../tests/support/poll.rs"]
mod poll;
#[path = "../tests/support/process.rs"]
mod process;
#[path = "../tests/support/real_cluster/mod.rs"]
mod real_cluster;
mod story;
#[path = "../tests/support/walk.rs"]
mod walk;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use real_cluster::{Clients, Cluster, PODS_VIP, hosts};
use story::{indent, pause, say, show_command};

const QUESTIONS: usize = 12;

#[tokio::main]
async fn main() {
    say(
        "The cluster",
        "An API server and its controllers on this host; in a VM two nodes, each with containerd and a kubelet, two hosts\n\
         that are no nodes, and a client. They start now.",
    );
    let control_plane = real_cluster::control_plane().await;
    let vm = real_cluster::vm();
    let mut cluster = Cluster::form(&control_plane, &vm);
    let _hosts = hosts(&vm);
    cluster.types("kubectl wait node --all --for=condition=Ready --timeout=180s");
    cluster.shows("kubectl get nodes");

    cluster
        .tells(
            "Install",
            "One chart: an agent on each node, and a controller that tells how things are.",
        )
        .await;
    cluster.shows("kubectl get pods --namespace weir-system");
    cluster
        .tells(
            "Say who balances",
            "The nodes with this label may; of them, d1 does.",
        )
        .await;
    cluster
        .tells(
            "Balance pods",
            "A Deployment, a Service, and a VirtualService that gives them an address.",
        )
        .await;
    cluster.answer();
    cluster
        .tells(
            "Balance hosts",
            "Direct routing: each real server has the VIP too, and keeps quiet about it.",
        )
        .await;
    cluster
        .tells(
            "Take a real server out of service",
            "With weight 0 it gets no new connections.",
        )
        .await;
    cluster.tells("And back", "The other way round.").await;
    cluster
        .tells_while_clients_ask(
            "Drain a node",
            "Its pods go to the other node, and the agent stays.",
        )
        .await;
    cluster
        .tells_while_clients_ask(
            "Update the pods",
            "Each pod is replaced by a new one, while clients ask.",
        )
        .await;
    cluster
        .tells_while_clients_ask(
            "Upgrade Weir",
            "The agents are replaced. What they made stays, and goes on.",
        )
        .await;
    cluster
        .tells(
            "Take it out",
            "First what was balanced, while agents are there to take it back; then the rest.",
        )
        .await;
    show_command("d1", "ipvsadm -Sn");
    let left = cluster.nodes[0].sh("ipvsadm -Sn");
    assert_eq!(left, "", "the kernel's table is empty");
    cluster.assert_at_the_end_of_the_walk();
    say(
        "That was it",
        "The kernel's table is empty again. docs/kubernetes.md has these commands, for a cluster of your own.",
    );
}

/// The walk, aloud.
impl Cluster<'_> {
    async fn tells(&mut self, heading: &str, text: &str) {
        say(heading, text);
        for command in self.next_step(heading).commands {
            show_typed(&command.line);
            print!("{}", indent(&self.sees(&command).await));
        }
        pause();
    }

    /// As [`Self::tells`], while clients ask all the time, of whom one says each second who has answered it.
    async fn tells_while_clients_ask(&mut self, heading: &str, text: &str) {
        say(heading, text);
        let commands = self.next_step(heading).commands;
        let clients = Clients::start(self.vm, &[]).await;
        let lost = thread::scope(|scope| {
            let typing = scope.spawn(|| commands.iter().for_each(|command| self.shows(&command.line)));
            let (began, mut lost) = (Instant::now(), 0);
            while !typing.is_finished() {
                let next = Instant::now() + Duration::from_secs(1);
                let (spread, unanswered) = self.asks();
                lost += unanswered;
                println!("    {:>3} s  {spread}   lost: {lost}", began.elapsed().as_secs());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            typing.join().expect("the commands succeed");
            lost
        });
        assert_eq!(lost, 0, "every question is answered");
        self.answer();
        let asked = clients.assert_none_lost(heading).await;
        println!("    {asked} requests to both VIPs meanwhile, one every 50 ms to each. Lost: 0");
        pause();
    }

    /// Types a command and shows what it prints.
    fn shows(&self, line: &str) {
        show_typed(line);
        let printed = self.types(line);
        print!("{}", indent(&printed));
    }

    fn answer(&self) {
        let loop_of_curl = format!("for i in $(seq {QUESTIONS}); do curl http://{PODS_VIP}/; done");
        show_command("client", &loop_of_curl);
        let (spread, lost) = self.asks();
        println!("    {spread}");
        assert_eq!(lost, 0, "every question is answered");
    }

    /// Asks, and says who answered how often, by the suffixes of ReplicaSets and pods, and how many questions nobody answered.
    fn asks(&self) -> (String, usize) {
        let line = format!("lab client {PODS_VIP}:80 -n {QUESTIONS} --timeout 5000");
        let asked = self.vm.run(Some("client"), &line.split(' ').collect::<Vec<_>>());
        let mut answered = 0;
        let mut generations: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for line in asked.stdout.lines() {
            let (count, who) = line.trim().split_once("  ").expect("how often, and who");
            // Otherwise it is an error.
            if let Some(pod) = who.strip_prefix("catalog-") {
                let (generation, pod) = pod.split_once('-').expect("a pod of a Deployment");
                answered += count.parse::<usize>().expect("a number");
                generations
                    .entry(generation)
                    .or_default()
                    .push(format!("{pod} {count}"));
            }
        }
        let spread = generations
            .iter()
            .map(|(generation, pods)| format!("{generation}: {}", pods.join(", ")));
        (spread.collect::<Vec<_>>().join("   "), QUESTIONS - answered)
    }
}

/// Prints a command as a person would have typed it, where that would have been.
fn show_typed(line: &str) {
    show_command(
        if line.starts_with("curl ") {
            "client"
        } else {
            "admin"
        },
        line,
    );
}
