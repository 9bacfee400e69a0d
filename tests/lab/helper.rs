//! `lab`: the lab's instruments from a shell, for the demo, for benches and for looking by hand. Made for the lab's VM.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "what cannot be set up has failed, and the clock is one of the instruments"
)]

#[path = "../support/lab/mod.rs"]
mod lab;
#[path = "../support/poll.rs"]
mod poll;
#[path = "../support/process.rs"]
mod process;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use rustix::system::uname;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use lab::client::{Held, Histogram, Probe, Protocol};
use lab::execd;
use lab::netns::Netns;
use lab::server::Server;
use lab::sniff::who_answers;
use lab::topology::Topology;

/// Instruments of the lab.
#[derive(Debug, Parser)]
struct Arguments {
    /// Act in this namespace, as published by `lab topology` or `ip netns add`
    #[arg(long, global = true)]
    netns: Option<String>,
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Answer every question with a name: TCP, UDP, SCTP, HTTP
    Serve {
        name: String,
        port: u16,
        /// Addresses to answer UDP on; they need not be there yet
        #[arg(long)]
        udp: Vec<IpAddr>,
    },
    /// The same under this host's name, as Kubernetes' test image agnhost does
    ServeHostname {
        #[arg(long)]
        port: u16,
    },
    /// Do nothing: what holds a pod's namespaces together
    Pause,
    /// Ask a number of times, and print who answered how often
    Client {
        to: SocketAddr,
        #[arg(short = 'n', default_value_t = 9)]
        questions: usize,
        #[command(flatten)]
        how: How,
    },
    /// Hold TCP connections open, and ask on them again after some seconds or SIGTERM
    Hold {
        to: SocketAddr,
        #[arg(short = 'n', default_value_t = 9)]
        connections: usize,
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        #[command(flatten)]
        how: How,
    },
    /// Ask at an interval for some seconds or until SIGTERM, and print the outages
    Probe {
        to: SocketAddr,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Milliseconds from one question to the next
        #[arg(long, default_value_t = 20)]
        every: u64,
        #[command(flatten)]
        how: How,
    },
    /// Ask who has an address on the front segment, and print who answered how often
    ArpWho {
        address: IpAddr,
        #[arg(short = 'n', default_value_t = 6)]
        asks: usize,
    },
    /// Build the cluster, publish its namespaces, then run a command, or wait
    Topology {
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Run commands for a test outside the VM
    Execd {
        port: u16,
        /// Build the cluster first
        #[arg(long)]
        topology: bool,
        /// Let its nodes reach the host as 10.0.2.2
        #[arg(long, requires = "topology")]
        host: bool,
    },
}

#[derive(Debug, clap::Args)]
struct How {
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Name,
    /// Milliseconds to wait for an answer
    #[arg(long, default_value_t = 1000)]
    timeout: u64,
}

impl How {
    fn protocol(&self) -> Protocol {
        match self.protocol {
            Name::Tcp => Protocol::Tcp,
            Name::Udp => Protocol::Udp,
            Name::Sctp => Protocol::Sctp,
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    Tcp,
    Udp,
    Sctp,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let netns = match arguments.netns.as_deref().map(Netns::named) {
        Some(Ok(netns)) => netns,
        Some(Err(error)) => {
            eprintln!("lab: namespace: {error}");
            return ExitCode::FAILURE;
        }
        None => Netns::current(),
    };
    match act(&netns, arguments.act) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act(netns: &Netns, act: Act) -> io::Result<ExitCode> {
    match act {
        Act::Serve { name, port, udp } => serve(netns, &name, port, &udp),
        Act::ServeHostname { port } => {
            let host = uname();
            serve(netns, &host.nodename().to_string_lossy(), port, &[])
        }
        Act::Pause => {
            wait_for_sigterm(Duration::MAX)?;
            Ok(ExitCode::SUCCESS)
        }
        Act::Client { to, questions, how } => {
            let seen = Histogram::ask(netns, how.protocol(), to, questions, how.timeout());
            print!("{seen}");
            Ok(if seen.failures.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Act::Hold {
            to,
            connections,
            seconds,
            how,
        } => {
            let mut held = Held::open(netns, to, connections, how.timeout())?;
            println!("open: {:?}", held.by_name());
            wait_for_sigterm(Duration::from_secs(seconds))?;
            let survey = held.survey();
            println!("alive: {}, broken: {:?}", survey.alive, survey.broken);
            Ok(if survey.broken.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Act::Probe {
            to,
            seconds,
            every,
            how,
        } => {
            let every = Duration::from_millis(every);
            let probe = Probe::start(netns, how.protocol(), to, every, how.timeout());
            wait_for_sigterm(Duration::from_secs(seconds))?;
            let seen = probe.stop();
            println!(
                "asked: {}, answered: {}, outages: {:?}",
                seen.asked, seen.answered, seen.gaps
            );
            Ok(if seen.down_at_end {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
        Act::ArpWho { address, asks } => {
            for (mac, count) in who_answers(netns, address, asks) {
                println!("{count:6}  {mac}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Act::Topology { command } => {
            let topology = build_topology();
            let Some((program, arguments)) = command.split_first() else {
                print_topology(&topology);
                wait_for_sigterm(Duration::MAX)?;
                return Ok(ExitCode::SUCCESS);
            };
            let status = Command::new(program).args(arguments).status()?;
            Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
        }
        Act::Execd { port, topology, host } => {
            let topology = topology.then(build_topology);
            if host && let Some(topology) = &topology {
                topology.connect_host();
            }
            execd::serve(port)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn serve(netns: &Netns, name: &str, port: u16, udp: &[IpAddr]) -> io::Result<ExitCode> {
    let _server = Server::start_named(netns, name, port, udp);
    wait_for_sigterm(Duration::MAX)?;
    Ok(ExitCode::SUCCESS)
}

fn build_topology() -> Topology {
    let begin = Instant::now();
    let topology = Topology::new();
    topology.publish();
    eprintln!("lab: topology built in {} ms", begin.elapsed().as_millis());
    topology
}

fn print_topology(topology: &Topology) {
    for node in topology.nodes() {
        let addresses: Vec<_> = node.own_addresses().iter().map(ToString::to_string).collect();
        println!("{:8} {}  {}", node.name(), node.mac(), addresses.join(" "));
    }
}

/// Waits for SIGTERM, and no longer than this. The first process of a container has to ask for it: no signal ends it by
/// itself.
fn wait_for_sigterm(limit: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // Whichever comes first.
        let _ = timeout(limit, terminate.recv()).await;
        Ok(())
    })
}
