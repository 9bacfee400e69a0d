//! Courses: what happens around an agent, and when, and what it does, and when. `data/courses/CASE/course.yaml` is replayed
//! with a kernel in memory and a clock that the runtime moves, and must come to `expected.txt`. A new case is a folder;
//! `UPDATE_EXPECTED=1 cargo test --test pure courses` writes what comes out, to be read before it is committed.
//!
//! A course is a list of what happens, each after the one before:
//!
//! | field | |
//! | --- | --- |
//! | `at` | seconds since the agent's start |
//! | `objects` | what a source reports: documents as in a manifest |
//! | `gone` | objects that are gone: `VirtualService shop/web` |
//! | `complete` | true: everything has been reported once |
//! | `flush` | true: somebody deletes the whole table |
//! | `delete` | somebody deletes a service of the table |
//! | `connections` | how many connections each destination has from now on, by its address |
//! | `lose` | somebody takes an address off its link |
//! | `refuse` | steps around the table that the kernel refuses from now on, by their words |
//!
//! The node is `golden`'s `d1`, alone, with a link in 10.0.0.0/24. What it does is written with the time at which the kernel
//! is asked for it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use weir::agent::Agent;
use weir::agent::report::Report;
use weir::catalog::{Kind, MarkMask, NamespacedName, ObjectRef, Update};
use weir::host::preflight::Inspection;
use weir::host::{self, HostChange, HostError, HostFailure, HostStore, MemoryHost};
use weir::ipvs::{
    Change, Connections, IpvsError, ListedService, MemoryTable, Outcome, ServiceKey, SyncDaemon,
    SyncDaemonRole, Table, TableStore, Timeouts,
};
use weir::ledger::Ledger;
use weir::node::Programmer;
use weir::plan::{Directing, Node, World};
use weir::source::SourceEvent;

use super::cases::{Expectations, cases};
use super::golden::report;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Happening {
    at: f64,
    #[serde(default)]
    objects: Vec<Value>,
    #[serde(default)]
    gone: Vec<String>,
    #[serde(default)]
    complete: bool,
    #[serde(default)]
    flush: bool,
    delete: Option<String>,
    #[serde(default)]
    connections: BTreeMap<String, u32>,
    lose: Option<String>,
    #[serde(default)]
    refuse: Option<Vec<String>>,
}

/// A kernel in memory that writes down what it is asked for.
struct Kernel {
    table: MemoryTable,
    host: MemoryHost,
    start: Instant,
    diary: Vec<String>,
}

impl Kernel {
    fn write(&mut self, what: impl std::fmt::Display) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.diary.push(format!("{seconds:8.3} {what}"));
    }
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Kernel>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap()
    }
}

impl TableStore for Shared {
    fn list(&mut self) -> Result<Table, IpvsError> {
        self.lock().table.list()
    }

    fn look(&mut self, keys: &mut dyn Iterator<Item = ServiceKey>) -> Result<Vec<ListedService>, IpvsError> {
        self.lock().table.look(keys)
    }

    fn timeouts(&mut self) -> Result<Timeouts, IpvsError> {
        self.lock().table.timeouts()
    }

    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), IpvsError> {
        let mut kernel = self.lock();
        kernel.write(format_args!("set connection timeouts to {timeouts}"));
        kernel.table.set_timeouts(timeouts)
    }

    fn daemons(&mut self) -> Result<Vec<SyncDaemon>, IpvsError> {
        self.lock().table.daemons()
    }

    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), IpvsError> {
        let mut kernel = self.lock();
        kernel.write(format_args!("start sync daemon {daemon}"));
        kernel.table.start_daemon(daemon)
    }

    fn stop_daemon(&mut self, role: SyncDaemonRole) -> Result<(), IpvsError> {
        let mut kernel = self.lock();
        kernel.write(format_args!("stop sync daemon {role}"));
        kernel.table.stop_daemon(role)
    }

    fn apply(&mut self, changes: &[Change]) -> Outcome {
        let mut kernel = self.lock();
        for change in changes {
            match change {
                Change::EditDestination { destination, .. } => {
                    kernel.write(format_args!("{change}: weight {}", destination.weight.get()));
                }
                change => kernel.write(change),
            }
        }
        kernel.table.apply(changes)
    }
}

impl HostStore for Shared {
    fn read(&mut self, sysctls: &mut dyn Iterator<Item = &str>) -> Result<host::Current, HostError> {
        self.lock().host.read(sysctls)
    }

    fn inspect(&mut self, sysctls: &[String]) -> Result<Inspection, HostError> {
        self.lock().host.inspect(sysctls)
    }

    fn apply(&mut self, changes: &[HostChange], failures: &mut Vec<HostFailure>) {
        let mut kernel = self.lock();
        let before = failures.len();
        kernel.host.apply(changes, failures);
        for change in changes {
            let failure = failures[before..]
                .iter()
                .find(|failure| failure.change == *change);
            match failure {
                Some(failure) => kernel.write(failure),
                None => kernel.write(change),
            }
        }
    }
}

/// A node with a link in the VIPs' network, as a director leaves its settings.
fn node() -> MemoryHost {
    let mut host = MemoryHost::default();
    host.current.network = host::Network::new(
        vec![host::Link {
            index: 2,
            name: "eth0".into(),
            up: true,
            resolves: true,
            mtu: 1500,
            addresses: vec![host::Address {
                address: [10, 0, 0, 1].into(),
                prefix: 24,
                ours: false,
            }],
            ..host::Link::default()
        }],
        Vec::new(),
    );
    host.current.rules = Some(weir::nft::Ruleset::new());
    host.current.arp_rules = true;
    host.inspection.sysctls_writable = true;
    for value in host.current.sysctls.values_mut() {
        *value = "1".into();
    }
    host
}

#[tokio::test(start_paused = true)]
async fn every_course_comes_to_what_is_expected() {
    let mut expectations = Expectations::new();
    for case in cases("courses") {
        expectations.compare(
            &case,
            &replay(&fs::read_to_string(case.join("course.yaml")).unwrap()).await,
        );
    }
    expectations.hold();
}

async fn replay(course: &str) -> String {
    let course: Vec<Happening> = serde_saphyr::from_str(course).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(directory.path()).unwrap();
    let kernel = Shared(Arc::new(Mutex::new(Kernel {
        table: MemoryTable::default(),
        host: node(),
        start: Instant::now(),
        diary: Vec::new(),
    })));
    let start = kernel.lock().start;
    let node = Node {
        name: "d1".to_owned(),
        directing: Directing::AlsoAlone,
        ..Node::default()
    };
    let programmer = Programmer::new(kernel.clone(), kernel.clone(), ledger, false);
    let (sender, _reports) = watch::channel(Report::default());
    let agent = Agent::new(
        World::new(node, MarkMask::default()),
        programmer,
        Duration::from_secs(60),
        sender,
    );
    let (events, received) = mpsc::channel(16);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(agent.run(received, shutdown.clone()));
    for happening in course {
        sleep_until(start + Duration::from_secs_f64(happening.at)).await;
        happen(happening, &kernel, &events).await;
    }
    shutdown.cancel();
    task.await.unwrap();
    let kernel = kernel.lock();
    kernel.diary.join("\n") + "\n"
}

async fn happen(happening: Happening, kernel: &Shared, events: &mpsc::Sender<SourceEvent>) {
    let mut updates: Vec<Update> = happening.objects.iter().map(report).collect();
    updates.extend(happening.gone.iter().map(|name| Update::Delete(object(name))));
    {
        let mut kernel = kernel.lock();
        for update in &updates {
            match update {
                Update::Put { object, .. } => kernel.write(format_args!("          {object} is reported")),
                Update::Delete(object) => kernel.write(format_args!("          {object} is gone")),
            }
        }
        if happening.flush {
            kernel.write("          somebody flushes the table");
            kernel.table.table = Table::default();
        }
        if let Some(service) = &happening.delete {
            kernel.write(format_args!("          somebody deletes {service}"));
            let key: ServiceKey = service.parse().unwrap();
            kernel.table.table.services.remove(&key).unwrap();
        }
        if let Some(address) = &happening.lose {
            kernel.write(format_args!("          somebody takes {address} away"));
            let address: IpAddr = address.parse().unwrap();
            for link in &mut kernel.host.current.network.links {
                link.addresses.retain(|own| own.address != address);
            }
        }
        if let Some(refused) = happening.refuse {
            kernel.host.refused = refused;
        }
        for (address, active) in &happening.connections {
            let Kernel { table, .. } = &mut *kernel;
            let connections = Connections {
                active: *active,
                ..Connections::default()
            };
            let destination = weir::ipvs::DestinationKey {
                address: address.parse().unwrap(),
                port: 80,
            };
            table.connections.insert(destination, connections);
        }
    }
    if !updates.is_empty() {
        events.send(SourceEvent::Updates(updates)).await.unwrap();
    }
    if happening.complete {
        events
            .send(SourceEvent::Complete { unread: false })
            .await
            .unwrap();
    }
}

/// Reads `VirtualService shop/web`.
fn object(text: &str) -> ObjectRef {
    let (kind, name) = text.split_once(' ').unwrap();
    let kind = Kind::OWN.into_iter().find(|known| known.name() == kind).unwrap();
    match name.split_once('/') {
        Some((namespace, name)) => ObjectRef::namespaced(
            kind,
            &NamespacedName {
                namespace: namespace.into(),
                name: name.into(),
            },
        ),
        None => ObjectRef::director_group(name.into()),
    }
}
