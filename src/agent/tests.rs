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

// --- Faults found by review: each of these fails. ---

use crate::host::{self, BoundAddress, HostChange, HostError, HostFailure};
use std::sync::{Arc, Mutex, MutexGuard};

type Hook = Box<dyn FnMut(&[ServiceKey]) -> Result<(), IpvsError> + Send>;

#[derive(Clone, Default)]
struct SharedTable {
    table: Arc<Mutex<MemoryTable>>,
    before_read: Arc<Mutex<Option<Hook>>>,
    /// Whether whatever is changed turns out to be otherwise than it was read.
    stale: Arc<Mutex<bool>>,
    /// How often stopping a sync daemon is refused.
    refused_stops: Arc<Mutex<usize>>,
}

impl SharedTable {
    fn lock(&self) -> MutexGuard<'_, MemoryTable> {
        self.table.lock().unwrap()
    }

    fn before_read(&self, hook: impl FnMut(&[ServiceKey]) -> Result<(), IpvsError> + Send + 'static) {
        *self.before_read.lock().unwrap() = Some(Box::new(hook));
    }

    /// Somebody gives every service another scheduler.
    fn edit_all(&self) {
        for entry in self.lock().table.services.values_mut() {
            entry.service.scheduler = Some(Scheduler::SourceHash);
        }
    }

    fn edited(&self) -> usize {
        let table = self.lock();
        let all = table.table.services.values();
        all.filter(|entry| entry.service.scheduler == Some(Scheduler::SourceHash))
            .count()
    }
}

impl TableStore for SharedTable {
    fn list(&mut self) -> Result<Table, IpvsError> {
        self.lock().list()
    }

    fn look(&mut self, keys: &mut dyn Iterator<Item = ServiceKey>) -> Result<Vec<ListedService>, IpvsError> {
        self.lock().look(keys)
    }

    fn read(&mut self, keys: &mut dyn Iterator<Item = ServiceKey>) -> Result<Table, IpvsError> {
        let keys: Vec<ServiceKey> = keys.collect();
        if let Some(hook) = &mut *self.before_read.lock().unwrap() {
            hook(&keys)?;
        }
        self.lock().read(&mut keys.into_iter())
    }

    fn timeouts(&mut self) -> Result<Timeouts, IpvsError> {
        self.lock().timeouts()
    }

    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), IpvsError> {
        self.lock().set_timeouts(timeouts)
    }

    fn daemons(&mut self) -> Result<Vec<SyncDaemon>, IpvsError> {
        self.lock().daemons()
    }

    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), IpvsError> {
        self.lock().start_daemon(daemon)
    }

    fn stop_daemon(&mut self, role: SyncDaemonRole) -> Result<(), IpvsError> {
        let mut refused = self.refused_stops.lock().unwrap();
        if *refused > 0 {
            *refused -= 1;
            return Err(IpvsError::NotPermitted);
        }
        self.lock().stop_daemon(role)
    }

    fn apply(&mut self, changes: &[Change]) -> Outcome {
        if *self.stale.lock().unwrap() {
            let failures = changes.iter().map(|change| crate::ipvs::Failure {
                change: change.clone(),
                error: crate::ipvs::ChangeError::AlreadyThere,
            });
            return Outcome {
                failures: failures.collect(),
                ..Outcome::default()
            };
        }
        self.lock().apply(changes)
    }
}

#[derive(Clone)]
struct SharedHost(Arc<Mutex<MemoryHost>>);

impl host::HostStore for SharedHost {
    fn read(&mut self, names: &mut dyn Iterator<Item = &str>) -> Result<host::Current, HostError> {
        self.0.lock().unwrap().read(names)
    }

    fn inspect(&mut self, settings: &[String]) -> Result<host::preflight::Inspection, HostError> {
        self.0.lock().unwrap().inspect(settings)
    }

    fn apply(&mut self, changes: &[HostChange], failures: &mut Vec<HostFailure>) {
        self.0.lock().unwrap().apply(changes, failures);
    }
}

fn a_hundred() -> SourceEvent {
    let all = (0..100).map(|number| service(&format!("s{number:03}"), 1000 + number, "rr"));
    SourceEvent::Updates(all.collect())
}

async fn with_a_hundred(store: &SharedTable) -> Running {
    let mut agent = Running::with(store.clone());
    agent.send(a_hundred()).await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    agent
        .until(|report| report.complete && report.node.programmed.services == 100)
        .await;
    agent
}

#[tokio::test(start_paused = true)]
async fn audits_go_on_after_a_pass_that_failed_while_one_was_under_way() {
    let store = SharedTable::default();
    let agent = with_a_hundred(&store).await;
    let (events, mut state) = (agent.events.clone(), 0);
    store.before_read(move |keys| {
        match state {
            // The first slice of an audit: news comes meanwhile.
            0 if keys.len() > 1 => {
                state = 1;
                let news = SourceEvent::Updates(vec![service("news", 9999, "rr")]);
                events.try_send(news).unwrap();
                while events.capacity() < events.max_capacity() {
                    std::thread::yield_now();
                }
            }
            // The pass over it cannot be made.
            1 if keys.len() == 1 && keys[0].to_string().ends_with(":9999") => {
                state = 2;
                return Err(IpvsError::NoIpvs);
            }
            _ => {}
        }
        Ok(())
    });
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(store.lock().table.services.len(), 101, "the pass was made again");
    store.edit_all();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(store.edited(), 0, "an audit repairs it");
}

#[tokio::test(start_paused = true)]
async fn what_was_undone_once_is_no_contest_though_an_audit_has_many_slices() {
    let store = SharedTable::default();
    let agent = with_a_hundred(&store).await;
    store.edit_all();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(store.edited(), 0, "an audit repairs it");
    let contests = agent.reports.borrow().contests.clone();
    assert_eq!(contests, [], "it was undone once");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_owns_the_whole_table_deletes_what_others_add() {
    let store = SharedTable::default();
    let directory = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(directory.path()).unwrap();
    let programmer = Programmer::new(store.clone(), MemoryHost::default(), ledger, true);
    let (events, received) = mpsc::channel(16);
    let (sender, mut reports) = watch::channel(Report::default());
    let world = World::new(
        Node {
            name: "d1".to_owned(),
            directing: Directing::AlsoAlone,
            ..Node::default()
        },
        MarkMask::default(),
    );
    let agent = Agent::new(world, programmer, Duration::from_secs(60), sender);
    tokio::spawn(agent.run(received, CancellationToken::new()));
    events
        .send(SourceEvent::Updates(vec![service("one", 80, "rr")]))
        .await
        .unwrap();
    events
        .send(SourceEvent::Complete { unread: false })
        .await
        .unwrap();
    let is_done = |report: &Report| report.complete && report.node.programmed.services == 1;
    reports.wait_for(is_done).await.unwrap();
    let entry = store.lock().table.services.values().next().unwrap().clone();
    store
        .lock()
        .table
        .services
        .insert("TCP 10.9.9.9:53".parse().unwrap(), entry);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(store.lock().table.services.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_vip_that_has_left_meanwhile_is_not_announced() {
    let store = SharedTable::default();
    let host = neighbour();
    let host = SharedHost(Arc::new(Mutex::new(host)));
    let directory = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(directory.path()).unwrap();
    let programmer = Programmer::new(store.clone(), host.clone(), ledger, false);
    let (events, received) = mpsc::channel(16);
    let (sender, mut reports) = watch::channel(Report::default());
    let world = World::new(
        Node {
            name: "d1".to_owned(),
            directing: Directing::AlsoAlone,
            ..Node::default()
        },
        MarkMask::default(),
    );
    let agent = Agent::new(world, programmer, Duration::from_secs(60), sender);
    tokio::spawn(agent.run(received, CancellationToken::new()));
    events
        .send(SourceEvent::Updates(vec![service("one", 80, "rr")]))
        .await
        .unwrap();
    events
        .send(SourceEvent::Complete { unread: false })
        .await
        .unwrap();
    let is_done = |report: &Report| report.complete && report.node.programmed.services == 1;
    reports.wait_for(is_done).await.unwrap();

    // The pass that gives the VIP up takes until after it is to be announced again.
    let (began, mut begun) = mpsc::unbounded_channel();
    let (let_go, may) = std::sync::mpsc::channel::<()>();
    store.before_read(move |_| {
        let _ = (began.send(()), may.recv());
        Ok(())
    });
    let gone = ObjectRef::virtual_service(&crate::catalog::NamespacedName {
        namespace: "shop".into(),
        name: "one".into(),
    });
    events
        .send(SourceEvent::Updates(vec![Update::Delete(gone)]))
        .await
        .unwrap();
    begun.recv().await;
    tokio::time::advance(Duration::from_millis(1500)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(let_go);
    reports
        .wait_for(|report| report.node.programmed.services == 0)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let vip = BoundAddress {
        link: "eth0".into(),
        address: [10, 0, 0, 200].into(),
    };
    let taken = host.0.lock().unwrap().taken.clone();
    let left = taken
        .iter()
        .position(|change| *change == HostChange::DeleteAddress(vip.clone()))
        .unwrap();
    assert!(
        !taken[left..].contains(&HostChange::Announce(vip)),
        "{:?}",
        taken[left..].iter().map(ToString::to_string).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn the_role_in_a_group_without_virtual_services_is_reported_at_once() {
    let mut agent = Running::start();
    let group = |name: &str| {
        let text = format!(
            "{{apiVersion: weir.dev/v1alpha1, kind: DirectorGroup, metadata: {{name: {name}}}, spec: {{nodeSelector: \
             {{}}, failover: {{type: Static, static: {{activeNode: d1}}}}}}}}"
        );
        let form = crate::catalog::validate::director_group(&serde_saphyr::from_str(&text).unwrap())
            .value
            .unwrap();
        SourceEvent::Updates(vec![Update::Put {
            object: ObjectRef::director_group(name.into()),
            form: Some(crate::catalog::Form::DirectorGroup(Box::new(form))),
            remarks: Vec::new(),
        }])
    };
    agent.send(group("first")).await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    agent
        .until(|report| report.complete && report.roles.len() == 1)
        .await;
    // Nothing is under way any more whose end would tell it by chance.
    tokio::time::sleep(Duration::from_secs(5)).await;
    agent.send(group("second")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(agent.reports.borrow().roles.len(), 2);
}

fn group_with(more: &str) -> SourceEvent {
    let text = format!(
        "{{apiVersion: weir.dev/v1alpha1, kind: DirectorGroup, metadata: {{name: edge}}, spec: {{nodeSelector: {{}}, \
         failover: {{type: Static, static: {{activeNode: d1}}}}{more}}}}}"
    );
    let form = crate::catalog::validate::director_group(&serde_saphyr::from_str(&text).unwrap())
        .value
        .unwrap();
    SourceEvent::Updates(vec![Update::Put {
        object: ObjectRef::director_group("edge".into()),
        form: Some(crate::catalog::Form::DirectorGroup(Box::new(form))),
        remarks: Vec::new(),
    }])
}

#[tokio::test(start_paused = true)]
async fn a_sync_daemon_that_could_not_be_stopped_is_stopped_later() {
    let store = SharedTable::default();
    let mut agent = Running::with(store.clone());
    agent
        .send(group_with(", connectionSync: {interface: eth0, syncId: 3}"))
        .await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    agent.until(|report| report.complete).await;
    assert_eq!(store.lock().daemons.len(), 1);
    *store.refused_stops.lock().unwrap() = 1;
    agent.send(group_with("")).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(store.lock().daemons, []);
}

#[tokio::test(start_paused = true)]
async fn another_network_does_not_cut_an_audit_short() {
    let store = SharedTable::default();
    let host = SharedHost(Arc::new(Mutex::new(MemoryHost::default())));
    let directory = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(directory.path()).unwrap();
    let programmer = Programmer::new(store.clone(), host.clone(), ledger, false);
    let (events, received) = mpsc::channel(16);
    let (sender, mut reports) = watch::channel(Report::default());
    let node = Node {
        name: "d1".to_owned(),
        directing: Directing::AlsoAlone,
        ..Node::default()
    };
    let world = World::new(node, MarkMask::default());
    let agent = Agent::new(world, programmer, Duration::from_secs(60), sender);
    tokio::spawn(agent.run(received, CancellationToken::new()));
    events.send(a_hundred()).await.unwrap();
    events
        .send(SourceEvent::Complete { unread: false })
        .await
        .unwrap();
    let is_done = |report: &Report| report.complete && report.node.programmed.services == 100;
    reports.wait_for(is_done).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;

    let (news, mut done) = (events.clone(), false);
    store.before_read(move |keys| {
        // The first slice: meanwhile a pod's link appears, and there is a virtual service whose pass looks at the node.
        if keys.len() > 1 && !std::mem::replace(&mut done, true) {
            let mut host = host.0.lock().unwrap();
            let link = host::Link {
                index: 7,
                name: "veth7".into(),
                ..host::Link::default()
            };
            host.current.network = host::Network::new(vec![link], Vec::new());
            let gone = ObjectRef::virtual_service(&crate::catalog::NamespacedName {
                namespace: "shop".into(),
                name: "s099".into(),
            });
            news.try_send(SourceEvent::Updates(vec![Update::Delete(gone)]))
                .unwrap();
            while news.capacity() < news.max_capacity() {
                std::thread::yield_now();
            }
        }
        Ok(())
    });
    store.edit_all();
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(store.lock().table.services.len(), 99);
    assert_eq!(store.edited(), 0, "the audit goes on");
}

fn neighbour() -> MemoryHost {
    let mut host = MemoryHost::default();
    let eth0 = host::Link {
        index: 2,
        name: "eth0".into(),
        up: true,
        mtu: 1500,
        addresses: vec![host::Address {
            address: [10, 0, 0, 1].into(),
            prefix: 24,
            ours: false,
        }],
        ..host::Link::default()
    };
    host.current.network = host::Network::new(vec![eth0], Vec::new());
    host.current.rules = Some(crate::nft::Ruleset::new());
    host.current.arp_rules = true;
    host
}

#[tokio::test(start_paused = true)]
async fn a_vip_that_a_pass_did_not_come_to_is_not_announced() {
    let store = SharedTable::default();
    let host = SharedHost(Arc::new(Mutex::new(neighbour())));
    let directory = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(directory.path()).unwrap();
    let programmer = Programmer::new(store.clone(), host.clone(), ledger, false);
    let (events, received) = mpsc::channel(16);
    let (sender, _reports) = watch::channel(Report::default());
    let node = Node {
        name: "d1".to_owned(),
        directing: Directing::AlsoAlone,
        ..Node::default()
    };
    let agent = Agent::new(
        World::new(node, MarkMask::default()),
        programmer,
        Duration::from_secs(60),
        sender,
    );
    tokio::spawn(agent.run(received, CancellationToken::new()));
    events
        .send(SourceEvent::Complete { unread: false })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    *store.stale.lock().unwrap() = true;
    let mut reads = 0;
    // The first read is the pass's picture, the second that of what turned out stale.
    store.before_read(move |keys| {
        reads += usize::from(!keys.is_empty());
        if reads % 2 == 0 && !keys.is_empty() {
            Err(IpvsError::NoIpvs)
        } else {
            Ok(())
        }
    });
    events
        .send(SourceEvent::Updates(vec![service("one", 80, "rr")]))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let taken = host.0.lock().unwrap().taken.clone();
    let words: Vec<String> = taken.iter().map(ToString::to_string).collect();
    let has_come = taken
        .iter()
        .any(|change| matches!(change, HostChange::AddAddress(_)));
    assert!(!has_come, "{words:?}");
    assert!(
        !taken
            .iter()
            .any(|change| matches!(change, HostChange::Announce(_))),
        "{words:?}"
    );
}

/// As docs/metrics.md says: a kernel or a disk that has not answered for five minutes does not answer any more.
#[tokio::test(start_paused = true)]
async fn an_agent_whose_pass_does_not_end_is_not_alive() {
    let store = SharedTable::default();
    let agent = with_a_hundred(&store).await;
    let (began, mut begun) = mpsc::unbounded_channel();
    let (let_go, may) = std::sync::mpsc::channel::<()>();
    store.before_read(move |_| {
        let _ = (began.send(()), may.recv());
        Ok(())
    });
    agent
        .send(SourceEvent::Updates(vec![service("news", 9999, "rr")]))
        .await;
    begun.recv().await;
    for _ in 0..60 {
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::task::yield_now().await;
    }
    let is_alive = agent.vitals.is_alive();
    drop(let_go);
    assert!(!is_alive);
}
