//! From a change at the API server to the agent's table: the real source and the real loop, with a table in memory.

use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir::agent::Agent;
use weir::agent::report::Report;
use weir::catalog::MarkMask;
use weir::host::MemoryHost;
use weir::ipvs::{
    Change, IpvsError, ListedService, MemoryTable, Outcome, ServiceKey, SyncDaemon, SyncDaemonRole, Table,
    TableStore, Timeouts,
};
use weir::ledger::Ledger;
use weir::node::Programmer;
use weir::plan::{Directing, Node, World};
use weir::source::{SourceEvent, cluster};

use super::figures::Times;
use super::fleet::{ENDPOINTS, Fleet, REAL_SERVERS};

/// The node whose agent this is.
pub const NODE: &str = "bench";
/// How many changes are timed of each kind.
const CHANGES: usize = 200;
/// As many events as may wait for the agent of `weir agent`.
const EVENTS: usize = 256;
/// Longer than any change takes.
const LIMIT: Duration = Duration::from_secs(60);

/// An agent that is director of all groups.
pub struct Running {
    /// When the source said something, and when the table was changed.
    arrivals: mpsc::UnboundedReceiver<Instant>,
    applied: mpsc::UnboundedReceiver<Instant>,
    reports: watch::Receiver<Report>,
    shutdown: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Running {
    /// Starts one, and waits until its table has everything.
    pub async fn start(client: Client, services: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let node = Node {
            name: NODE.to_owned(),
            directing: Directing::InGroups,
            ..Node::default()
        };
        let (changed, applied) = mpsc::unbounded_channel();
        let table = TimedTable {
            table: MemoryTable::default(),
            changed,
        };
        let host = MemoryHost::default();
        let world = World::new(node, MarkMask::default());
        let programmer = Programmer::new(table, host, ledger, false);
        let (reports, published) = watch::channel(Report::default());
        let (wants, wanted) = watch::channel(false);
        let agent =
            Agent::new(world, programmer, Duration::from_secs(60), reports).asking_for_endpoints(wants);
        let shutdown = CancellationToken::new();
        let (sender, said) = mpsc::channel(EVENTS);
        let (events, received) = mpsc::channel(EVENTS);
        let (came, arrivals) = mpsc::unbounded_channel();
        tokio::spawn(hand_on(said, events, came));
        tokio::spawn(agent.run(received, shutdown.clone()));
        let source = shutdown.clone();
        tokio::spawn(async move {
            cluster::watch(client, NODE, cluster::Memory::default(), wanted, sender, source).await
        });
        let mut running = Self {
            arrivals,
            applied,
            reports: published,
            shutdown,
            _directory: directory,
        };
        let destinations = services * (REAL_SERVERS + ENDPOINTS);
        let has_everything =
            |report: &Report| report.complete && report.node.programmed.destinations == destinations;
        let waiting = running.reports.wait_for(has_everything);
        drop(
            tokio::time::timeout(LIMIT, waiting)
                .await
                .expect("the agent ends its first pass")
                .unwrap(),
        );
        running
    }

    pub async fn stop(mut self) {
        self.shutdown.cancel();
        // It ends when the agent does.
        while self.applied.recv().await.is_some() {}
    }

    /// Makes changes one after the other, each as soon as the one before is in the table.
    async fn time(&mut self, mut change: impl AsyncFnMut(usize)) -> Parts {
        let mut parts = Parts::default();
        for number in 0..CHANGES {
            while self.arrivals.try_recv().is_ok() || self.applied.try_recv().is_ok() {}
            let began = Instant::now();
            change(number).await;
            let answered = Instant::now();
            let applied = tokio::time::timeout(LIMIT, self.applied.recv());
            let applied = applied.await.expect("the table is changed").unwrap();
            let arrived = self.arrivals.recv().await.unwrap();
            parts.write.push(answered - began);
            parts.arrival.push(arrived - began);
            parts.pass.push(applied - arrived);
            parts.whole.push(applied - began);
        }
        parts
    }
}

/// Where the time goes.
#[derive(Debug, Default)]
struct Parts {
    write: Times,
    arrival: Times,
    pass: Times,
    whole: Times,
}

/// Hands on what the source says, and when it did.
async fn hand_on(
    mut said: mpsc::Receiver<SourceEvent>,
    events: mpsc::Sender<SourceEvent>,
    came: mpsc::UnboundedSender<Instant>,
) {
    while let Some(event) = said.recv().await {
        // Nobody listens when the agent ends.
        let _ = came.send(Instant::now());
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Prints what changes take among so many virtual services.
pub async fn measure(client: &Client, fleet: &Fleet, services: usize) {
    let mut agent = Running::start(client.clone(), services).await;
    // There and back, all over the table.
    let place = |number: usize| number / 2 * services * 2 / CHANGES;
    let weights = agent
        .time(async |number| fleet.set_weight(place(number), 0, [7, 1][number % 2]).await)
        .await;
    let endpoints = agent
        .time(async |number| fleet.set_ready(place(number), number % 2 == 1).await)
        .await;
    for (what, parts) in [
        ("RealServer's weight", weights),
        ("EndpointSlice's endpoint", endpoints),
    ] {
        println!(
            "| {what} | {services} | {} | {} | {} | {} |",
            parts.whole.columns(),
            parts.write.columns(),
            parts.arrival.columns(),
            parts.pass.columns()
        );
    }
    agent.stop().await;
}

/// Says when it is changed.
#[derive(Debug)]
struct TimedTable {
    table: MemoryTable,
    changed: mpsc::UnboundedSender<Instant>,
}

impl TableStore for TimedTable {
    fn apply(&mut self, changes: &[Change]) -> Outcome {
        let outcome = self.table.apply(changes);
        if !changes.is_empty() {
            // Nobody listens when the bench ends.
            let _ = self.changed.send(Instant::now());
        }
        outcome
    }

    fn list(&mut self) -> Result<Table, IpvsError> {
        self.table.list()
    }

    fn look(&mut self, keys: &mut dyn Iterator<Item = ServiceKey>) -> Result<Vec<ListedService>, IpvsError> {
        self.table.look(keys)
    }

    fn timeouts(&mut self) -> Result<Timeouts, IpvsError> {
        self.table.timeouts()
    }

    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), IpvsError> {
        self.table.set_timeouts(timeouts)
    }

    fn daemons(&mut self) -> Result<Vec<SyncDaemon>, IpvsError> {
        self.table.daemons()
    }

    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), IpvsError> {
        self.table.start_daemon(daemon)
    }

    fn stop_daemon(&mut self, role: SyncDaemonRole) -> Result<(), IpvsError> {
        self.table.stop_daemon(role)
    }
}
