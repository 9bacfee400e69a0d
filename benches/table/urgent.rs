//! What news, and a shutdown, wait for while audits go on.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir::agent::Agent;
use weir::agent::report::Report;
use weir::catalog::{MarkMask, Update};
use weir::host::KernelHost;
use weir::ipvs::{
    Change, IpvsError, KernelTable, ListedService, Outcome, ServiceKey, SyncDaemon, SyncDaemonRole, Table,
    TableStore, Timeouts,
};
use weir::ledger::Ledger;
use weir::node::Programmer;
use weir::plan::World;
use weir::source::SourceEvent;

use super::{CHANGES, DESTINATIONS, Fleet, alone, fresh};

/// One audit after the other, so that whatever comes, comes in the middle of one.
const AUDIT_INTERVAL: Duration = Duration::from_millis(1);
/// Time between two changes at least, and what is added to it, in turn, so that they come anywhere in an audit.
const PAUSE: Duration = Duration::from_millis(150);
const SPREAD: u32 = 17;

/// How long things waited.
pub struct Waits {
    /// From a change to the kernel entry: the median and the longest.
    pub median: Duration,
    pub longest: Duration,
    /// From the signal to the end of the agent.
    pub shutdown: Duration,
}

/// The kernel's table, which says when it has been asked for changes.
struct Timed {
    table: KernelTable,
    changed: mpsc::UnboundedSender<Instant>,
}

impl TableStore for Timed {
    fn list(&mut self) -> Result<Table, IpvsError> {
        self.table.list()
    }

    fn look(&mut self, keys: &mut dyn Iterator<Item = ServiceKey>) -> Result<Vec<ListedService>, IpvsError> {
        self.table.look(keys)
    }

    fn keys(&mut self) -> Result<std::collections::BTreeSet<ServiceKey>, IpvsError> {
        self.table.keys()
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

    fn apply(&mut self, changes: &[Change]) -> Outcome {
        let outcome = self.table.apply(changes);
        if !changes.is_empty() {
            // Nobody may listen any more.
            let _ = self.changed.send(Instant::now());
        }
        outcome
    }
}

/// Changes weights among many services while audits go on.
pub fn during_audits(fleet: &Fleet) -> Waits {
    let netns = fresh();
    let state = tempfile::tempdir().unwrap();
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(measure(fleet, state.path()))
    })
}

async fn measure(fleet: &Fleet, state: &Path) -> Waits {
    let (ledger, _) = Ledger::open(state).unwrap();
    let host = KernelHost::open(Path::new("/proc/sys/net"), state).unwrap();
    let (changed, mut changes) = mpsc::unbounded_channel();
    let table = Timed {
        table: KernelTable::open().unwrap(),
        changed,
    };
    let programmer = Programmer::new(table, host, ledger, false);
    let (reports, mut reported) = watch::channel(Report::default());
    let world = World::new(alone(), MarkMask::default());
    let agent = Agent::new(world, programmer, AUDIT_INTERVAL, reports);
    let (events, received) = mpsc::channel(16);
    let shutdown = CancellationToken::new();
    let agent = tokio::spawn(agent.run(received, shutdown.clone()));
    for service in 0..fleet.services {
        let servers = (0..DESTINATIONS).map(|number| Fleet::server_update(service, number, 1));
        let updates: Vec<Update> = servers.chain([Fleet::service_update(service)]).collect();
        events.send(SourceEvent::Updates(updates)).await.unwrap();
    }
    events
        .send(SourceEvent::Complete { unread: false })
        .await
        .unwrap();
    let is_there = |report: &Report| report.complete && report.node.programmed.services == fleet.services;
    reported.wait_for(is_there).await.unwrap();
    while changes.try_recv().is_ok() {}

    let mut waits = Vec::new();
    for change in 0..CHANGES {
        tokio::time::sleep(PAUSE + Duration::from_millis(1) * (change as u32 * SPREAD % 100)).await;
        let update = Fleet::server_update(change * fleet.services / CHANGES, change % DESTINATIONS, 7);
        let came = Instant::now();
        events.send(SourceEvent::Updates(vec![update])).await.unwrap();
        waits.push(changes.recv().await.unwrap() - came);
    }
    waits.sort();
    tokio::time::sleep(PAUSE).await;
    let came = Instant::now();
    shutdown.cancel();
    agent.await.unwrap();
    Waits {
        median: waits[waits.len() / 2],
        longest: waits[waits.len() - 1],
        shutdown: came.elapsed(),
    }
}
