//! The loop with a table in memory and a clock that the runtime moves.

use super::*;
use crate::catalog::{MarkMask, ObjectRef, Update};
use crate::host::MemoryHost;
use crate::ipvs::{
    Change, IpvsError, ListedService, MemoryTable, Outcome, Scheduler, ServiceKey, SyncDaemon,
    SyncDaemonRole, Table, TableStore, Timeouts,
};
use crate::ledger::Ledger;
use crate::metrics::{Listeners, PerRealServer};
use crate::plan::{Directing, Node};

struct Running {
    events: mpsc::Sender<SourceEvent>,
    reports: watch::Receiver<Report>,
    metrics: Metrics,
    vitals: Vitals,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        Self::with(MemoryTable::default())
    }

    fn with(store: impl TableStore + Send + 'static) -> Self {
        Self::asking(store, None)
    }

    fn asking(store: impl TableStore + Send + 'static, endpoints: Option<watch::Sender<bool>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let node = Node {
            name: "d1".to_owned(),
            directing: Directing::AlsoAlone,
            ..Node::default()
        };
        let world = World::new(node, MarkMask::default());
        let programmer = Programmer::new(store, MemoryHost::default(), ledger, false);
        let (events, received) = mpsc::channel(16);
        let (sender, reports) = watch::channel(Report::default());
        let shutdown = CancellationToken::new();
        let (metrics, vitals) = (Metrics::default(), Vitals::new());
        let mut agent = Agent::new(world, programmer, Duration::from_secs(60), sender)
            .watched_by(metrics.clone(), vitals.clone());
        if let Some(endpoints) = endpoints {
            agent = agent.asking_for_endpoints(endpoints);
        }
        let task = tokio::spawn(agent.run(received, shutdown.clone()));
        Self {
            events,
            reports,
            metrics,
            vitals,
            shutdown,
            task,
            _directory: directory,
        }
    }

    async fn send(&self, event: SourceEvent) {
        self.events.send(event).await.unwrap();
    }

    /// The value of a metric without labels but for the node.
    fn metric(&self, name: &str) -> f64 {
        let nothing = Listeners::new(MemoryTable::default(), self._directory.path(), PerRealServer::Off);
        let registry = crate::metrics::agent_registry("d1", &self.metrics, self.reports.clone(), nothing);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let start = format!("{name}{{node=\"d1\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap().parse().unwrap()
    }

    async fn until(&mut self, is_so: impl FnMut(&Report) -> bool) -> Report {
        self.reports.wait_for(is_so).await.unwrap().clone()
    }
}

fn invalid_group() -> SourceEvent {
    let remark = crate::catalog::validate::Remark {
        field: "spec".to_owned(),
        reason: crate::catalog::Reason::Invalid,
        message: "wrong".to_owned(),
    };
    let object = ObjectRef::director_group("edge".into());
    SourceEvent::Updates(vec![Update::Put {
        object,
        form: None,
        remarks: vec![remark],
    }])
}

/// With a timer that stays due the runtime's clock would never move, and this test not end.
#[tokio::test(start_paused = true)]
async fn before_the_source_is_complete_audits_pass_by_without_a_pass() {
    let agent = Running::start();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!agent.reports.borrow().complete);
    assert!(agent.vitals.is_alive() && !agent.vitals.is_ready());
    agent.shutdown.cancel();
    agent.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deletions_are_withheld_until_every_object_was_valid_once() {
    let mut agent = Running::start();
    agent.send(invalid_group()).await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    let report = agent.until(|report| report.complete).await;
    assert_eq!(
        report.problems,
        ["nothing is deleted until every object has been read once"]
    );
    assert_eq!(report.findings.len(), 1);
    agent
        .send(SourceEvent::Updates(vec![Update::Delete(
            ObjectRef::director_group("edge".into()),
        )]))
        .await;
    agent
        .until(|report| report.complete && report.problems.is_empty())
        .await;
    // From then on an invalid object withholds nothing.
    agent.send(invalid_group()).await;
    let report = agent.until(|report| report.findings.len() == 1).await;
    assert!(report.problems.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_of_the_source_withholds_deletions_until_it_says_that_this_is_over() {
    let mut agent = Running::start();
    agent.send(SourceEvent::Complete { unread: true }).await;
    agent
        .until(|report| report.complete && report.problems.len() == 1)
        .await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    agent
        .until(|report| report.complete && report.problems.is_empty())
        .await;
}

/// As after a reboot without an API server.
#[tokio::test(start_paused = true)]
async fn what_was_saved_is_programmed_and_nothing_is_deleted_until_the_source_has_been_read() {
    let mut agent = Running::start();
    let update = SourceEvent::Updates(vec![service("saved", 80, "rr")]);
    agent.send(update).await;
    let saved = std::time::UNIX_EPOCH;
    agent.send(SourceEvent::Remembered { saved }).await;
    let report = agent.until(|report| report.node.programmed.services == 1).await;
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(agent.metric("weir_cache_age_seconds") > 0.0);

    let gone = ObjectRef::virtual_service(&crate::catalog::NamespacedName {
        namespace: "shop".into(),
        name: "saved".into(),
    });
    agent.send(SourceEvent::Updates(vec![Update::Delete(gone)])).await;
    let report = agent.until(|report| report.node.desired.services == 0).await;
    assert_eq!(report.node.programmed.services, 1);
    agent.send(SourceEvent::Complete { unread: false }).await;
    let report = agent.until(|report| report.node.programmed.services == 0).await;
    assert_eq!(report.problems, [] as [&str; 0]);
    assert_eq!(agent.metric("weir_cache_age_seconds"), 0.0);
}

/// An agent starts beside a table that an earlier one programmed: without this, what refers to Services would lose its
/// destinations until they have been read.
#[tokio::test(start_paused = true)]
async fn nothing_is_planned_while_endpoints_are_wanted_and_not_known() {
    let (wants, mut wanted) = watch::channel(false);
    let mut agent = Running::asking(MemoryTable::default(), Some(wants));
    agent
        .send(SourceEvent::Updates(vec![service("plain", 80, "rr")]))
        .await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    agent.until(|report| report.node.programmed.services == 1).await;
    assert!(!*wanted.borrow(), "nothing refers to a Service");

    let backends = r#"[{name: pods, serviceRef: {name: web, port: "80"}}]"#;
    let referring = service_with("referring", 81, "rr", backends);
    agent.send(SourceEvent::Updates(vec![referring])).await;
    wanted.wait_for(|wanted| *wanted).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let report = agent.reports.borrow().clone();
    assert_eq!((report.complete, report.node.programmed.services), (false, 1));

    agent.send(SourceEvent::Endpoints { known: true }).await;
    let report = agent.until(|report| report.node.programmed.services == 2).await;
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.message.contains("there is no Service shop/web"))
    );
    // When nothing refers to any more, they are no longer wanted.
    let gone = ObjectRef::virtual_service(&crate::catalog::NamespacedName {
        namespace: "shop".into(),
        name: "referring".into(),
    });
    agent.send(SourceEvent::Updates(vec![Update::Delete(gone)])).await;
    wanted.wait_for(|wanted| !*wanted).await.unwrap();
    agent.until(|report| report.node.programmed.services == 1).await;
}

/// A kernel that gets its missing scheduler after some tries.
#[derive(Default)]
struct Mending {
    table: MemoryTable,
    tries: usize,
    /// Where it says that it has been asked for changes, and waits until it may make them.
    gate: Option<(mpsc::UnboundedSender<()>, std::sync::mpsc::Receiver<()>)>,
}

impl TableStore for Mending {
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

    fn apply(&mut self, changes: &[Change]) -> Outcome {
        if let Some((asked, may)) = &self.gate {
            // Nobody holds it up any more when the other ends are gone.
            let _ = (asked.send(()), may.recv());
        }
        let outcome = self.table.apply(changes);
        self.tries = self.tries.saturating_sub(outcome.failures.len());
        if self.tries == 0 {
            self.table.missing_schedulers.clear();
        }
        outcome
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_refuses_is_tried_again_though_there_is_other_news() {
    let table = MemoryTable {
        missing_schedulers: vec![Scheduler::RoundRobin],
        ..MemoryTable::default()
    };
    let mut agent = Running::with(Mending {
        table,
        tries: 3,
        gate: None,
    });
    agent
        .send(SourceEvent::Updates(vec![service("refused", 80, "rr")]))
        .await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    let start = Instant::now();
    agent.until(|report| report.failure_count() == 1).await;
    // News comes more often than a retry is due: 1 s, 2 s and 4 s after the failures before.
    for port in 1000..1040 {
        agent
            .send(SourceEvent::Updates(vec![service("taken", port, "wrr")]))
            .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let report = agent.until(|report| report.failure_count() == 0).await;
    assert_eq!(report.node.programmed.services, 2);
    assert!(
        start.elapsed() < Duration::from_secs(13),
        "before the first audit: {:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn news_that_comes_during_a_pass_is_heard_at_once() {
    let (asked, mut passes) = mpsc::unbounded_channel();
    let (let_go, may) = std::sync::mpsc::channel();
    let mut agent = Running::with(Mending {
        gate: Some((asked, may)),
        ..Mending::default()
    });
    agent
        .send(SourceEvent::Updates(vec![service("one", 80, "rr")]))
        .await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    passes.recv().await;
    agent
        .send(SourceEvent::Updates(vec![service("two", 81, "rr")]))
        .await;
    // The loop hears of it while the pass goes on.
    while agent.events.capacity() < agent.events.max_capacity() {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(Duration::from_secs(5)).await;
    drop(let_go);
    agent
        .until(|report| report.complete && report.node.programmed.services == 2)
        .await;
    assert!(agent.vitals.is_ready());
    assert_eq!(agent.metric("weir_programming_latency_seconds_count"), 2.0);
    assert_eq!(agent.metric("weir_programming_latency_seconds_sum"), 10.0);
    assert_eq!(agent.metric("weir_config_pending_seconds"), 0.0);
}

fn service(name: &str, port: u16, algorithm: &str) -> Update {
    service_with(name, port, algorithm, "[]")
}

fn service_with(name: &str, port: u16, algorithm: &str, backends: &str) -> Update {
    let text = format!(
        "{{apiVersion: weir.dev/v1alpha1, kind: VirtualService, metadata: {{name: {name}, namespace: shop}}, spec: {{\
         addresses: [10.0.0.200], listeners: [{{name: one, protocol: TCP, port: {port}}}], \
         scheduler: {{algorithm: {algorithm}}}, backends: {backends}}}}}"
    );
    let form = crate::catalog::validate::virtual_service(&serde_saphyr::from_str(&text).unwrap())
        .value
        .unwrap();
    let name = crate::catalog::NamespacedName {
        namespace: "shop".into(),
        name: name.into(),
    };
    Update::Put {
        object: ObjectRef::virtual_service(&name),
        form: Some(crate::catalog::Form::VirtualService(Box::new(form))),
        remarks: Vec::new(),
    }
}
