//! The controller as a process beside the API server: what it costs, what it writes, and when others see it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::stream::{StreamExt, select_all};
use kube::Client;
use kube::api::{GetParams, Request};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use weir::catalog::Kind;
use weir::source::kinds::Collection;
use weir::source::watch::{Event, everything, objects};

use super::control_plane::ControlPlane;
use super::figures::Times;
use super::fleet::{
    Director, Fleet, GROUPS, NODES, REAL_SERVERS, VIRTUAL_SERVICES, all, namespaced, node, of_group,
    real_server, web,
};
use super::process::Process;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(300);
/// When nothing has been written for so long, nothing is to be written: longer than the controller waits between two
/// writes to one object.
const QUIET: Duration = Duration::from_secs(3);
/// How many changes are timed of each kind.
const CHANGES: usize = 200;
/// Real servers of each group that flap: five percent of all.
const FLAPPING: usize = VIRTUAL_SERVICES * REAL_SERVERS / 20 / GROUPS;
const FLAPPING_FOR: Duration = Duration::from_secs(30);
/// How often they change: a little faster than an agent reports, and not in step with the controller's second.
const FLAP: Duration = Duration::from_millis(700);

/// A controller that runs.
pub struct Controller {
    process: Process,
    started: Instant,
}

impl Controller {
    /// With the rights that its pod has.
    pub async fn start(control_plane: &ControlPlane) -> Self {
        let kubeconfig = control_plane.folder().join("controller.kubeconfig");
        fs::write(&kubeconfig, control_plane.controller_kubeconfig().await).unwrap();
        let mut command = Command::new(WEIR);
        command
            .args(["controller", "--identity", "bench"])
            .env("KUBECONFIG", kubeconfig);
        Self {
            started: Instant::now(),
            process: Process::start(&mut command),
        }
    }

    /// Processor time since its start.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // The program's name may have spaces, and ends with a parenthesis.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        // To programs a tick is 10 ms, however often the kernel ticks.
        Duration::from_millis(10 * ticks)
    }

    /// Resident memory and the most it was, in MB.
    fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

/// An object, by its kind and its name.
type Key = (Kind, String);

/// A look at an object: its generation, its status, and when.
struct Look {
    key: Key,
    generation: i64,
    status: Value,
    at: Instant,
}

/// Watches what the controller writes.
struct Observer {
    looks: mpsc::UnboundedReceiver<Look>,
    _watching: JoinSet<()>,
    known: HashMap<Key, (i64, Value)>,
    /// Those of which no status says that all is well in their latest generation.
    unready: HashSet<Key>,
    /// How often the status of each object has been written since somebody asked.
    writes: HashMap<Key, usize>,
    last: Instant,
}

impl Observer {
    async fn start(fleet: &Fleet) -> Self {
        let (sender, looks) = mpsc::unbounded_channel();
        let streams = [
            objects(
                Collection::VirtualServices,
                fleet.virtual_services.clone(),
                everything(),
                |object| (object.metadata.generation, json!(object.status)),
            ),
            objects(
                Collection::RealServers,
                fleet.real_servers.clone(),
                everything(),
                |object| (object.metadata.generation, json!(object.status)),
            ),
            objects(
                Collection::DirectorGroups,
                fleet.groups.clone(),
                everything(),
                |object| (object.metadata.generation, json!(object.status)),
            ),
        ];
        let mut watching = JoinSet::new();
        watching.spawn(async move {
            let mut events = select_all(streams);
            while let Some((collection, event)) = events.next().await {
                // After an error everything is listed again.
                let Event::Received(
                    watcher::Event::Apply((name, (generation, status)))
                    | watcher::Event::InitApply((name, (generation, status))),
                ) = event
                else {
                    continue;
                };
                let Some(kind) = collection.kind() else {
                    continue;
                };
                let look = Look {
                    key: (kind, name.name.to_string()),
                    generation: generation.unwrap(),
                    status,
                    at: Instant::now(),
                };
                // Nobody looks when the bench ends.
                if sender.send(look).is_err() {
                    return;
                }
            }
        });
        let mut observer = Self {
            looks,
            _watching: watching,
            known: HashMap::new(),
            unready: HashSet::new(),
            writes: HashMap::new(),
            last: Instant::now(),
        };
        let everything = VIRTUAL_SERVICES * (1 + REAL_SERVERS) + GROUPS;
        while observer.known.len() < everything {
            let look = timeout(LIMIT, observer.looks.recv()).await;
            observer.take(look.expect("everything is listed").unwrap());
        }
        observer
    }

    fn take(&mut self, look: Look) {
        let Look {
            key,
            generation,
            status,
            at,
        } = look;
        let is_ready = condition(&status, "Ready")["status"] == "True";
        if is_ready && status["observedGeneration"] == generation {
            self.unready.remove(&key);
        } else {
            self.unready.insert(key.clone());
        }
        let before = self.known.insert(key.clone(), (generation, status));
        if before.is_some_and(|(_, before)| before != self.known[&key].1) {
            *self.writes.entry(key).or_default() += 1;
            self.last = at;
        }
    }

    fn status(&self, key: &Key) -> &Value {
        self.known.get(key).map_or(&Value::Null, |(_, status)| status)
    }

    /// Waits until the status of an object is as it should be, and says when that was seen.
    async fn until(&mut self, key: &Key, is_so: impl Fn(&Value) -> bool) -> Instant {
        loop {
            let look = timeout(LIMIT, self.looks.recv()).await;
            let look = look
                .unwrap_or_else(|_| panic!("{key:?} stays {:#}", self.status(key)))
                .unwrap();
            let (at, is_it) = (look.at, look.key == *key);
            self.take(look);
            if is_it && is_so(self.status(key)) {
                return at;
            }
        }
    }

    /// Waits until nothing is written any more, and forgets what was.
    async fn quiet(&mut self) -> Written {
        while let Ok(look) = timeout(QUIET, self.looks.recv()).await {
            self.take(look.unwrap());
        }
        let writes = std::mem::take(&mut self.writes);
        Written {
            most: writes.values().copied().max().unwrap_or_default(),
            last: self.last,
        }
    }

    /// Waits until all is as it should be and nothing is written any more.
    async fn settled(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Written {
        while !is_so(self) {
            let look = timeout(LIMIT, self.looks.recv()).await;
            let unready = self.unready.iter().next();
            let look =
                look.unwrap_or_else(|_| panic!("not in time: {what}; one that is not ready: {unready:?}"));
            self.take(look.unwrap());
        }
        self.quiet().await
    }
}

/// What was written.
struct Written {
    /// To one object.
    most: usize,
    last: Instant,
}

fn condition<'a>(status: &'a Value, aspect: &str) -> &'a Value {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == aspect)
        .unwrap_or(&Value::Null)
}

/// What has been used of the controller and of the API server.
struct Used {
    cpu: Duration,
    /// Writes that the controller asked for, by what was written.
    writes: BTreeMap<&'static str, u64>,
}

impl Used {
    async fn look(client: &Client, controller: &Controller) -> Self {
        let request = Request::new("").get("metrics", &GetParams::default()).unwrap();
        let text = client.request_text(request).await.unwrap();
        let mut writes = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| line.starts_with("apiserver_request_total{"))
        {
            let is = |label: &str, value: &str| line.contains(&format!("{label}=\"{value}\""));
            let of_weir = is("group", "weir.dev") && !is("resource", "nodestates");
            let what = match () {
                () if of_weir && is("subresource", "status") && is("verb", "PATCH") => "status",
                // What is patched in other ways is this bench's own.
                () if of_weir && is("verb", "APPLY") => "finalizer",
                () if is("group", "events.k8s.io") && is("verb", "POST") => "event",
                () => continue,
            };
            let (_, count) = line.rsplit_once(' ').unwrap();
            *writes.entry(what).or_default() += count.parse::<f64>().unwrap() as u64;
        }
        Self {
            cpu: controller.cpu(),
            writes,
        }
    }

    fn since(&self, before: &Self) -> Self {
        let writes = self.writes.iter().map(|(what, count)| {
            let before = before.writes.get(what).copied().unwrap_or_default();
            (*what, count - before)
        });
        Self {
            cpu: self.cpu - before.cpu,
            writes: writes.collect(),
        }
    }

    fn of(&self, what: &str) -> u64 {
        self.writes.get(what).copied().unwrap_or_default()
    }

    fn all(&self) -> u64 {
        self.writes.values().sum()
    }
}

/// Prints what the controller costs from its start to real servers that flap.
pub async fn measure(control_plane: &ControlPlane, fleet: &Fleet) {
    let mut cluster = Cluster::new(control_plane, fleet).await;
    let controller = cluster.starts().await;
    cluster.changes(&controller).await;
    cluster.generations(&controller).await;
    cluster.flapping(&controller).await;
}

/// A cluster with agents.
struct Cluster<'a> {
    control_plane: &'a ControlPlane,
    client: Client,
    fleet: &'a Fleet,
    directors: Vec<Director>,
    observer: Observer,
    /// Writes a second that the API server takes from somebody who does nothing else.
    floor: f64,
}

impl<'a> Cluster<'a> {
    async fn new(control_plane: &'a ControlPlane, fleet: &'a Fleet) -> Self {
        let directors: Vec<Director> = (0..NODES).map(Director::new).collect();
        all((0..NODES).map(async |number| {
            let group = number % GROUPS;
            fleet.create_node(&node(number), group..group + 1).await
        }))
        .await;
        all(directors
            .iter()
            .map(|director| fleet.create_state(&director.name)))
        .await;
        let began = Instant::now();
        all(directors.iter().map(|director| fleet.report(director))).await;
        Self {
            control_plane,
            client: control_plane.client(),
            floor: NODES as f64 / began.elapsed().as_secs_f64(),
            fleet,
            directors,
            observer: Observer::start(fleet).await,
        }
    }

    /// Starts it twice: with everything to write, and with nothing.
    async fn starts(&mut self) -> Controller {
        let (mut controller, first) = self.start().await;
        // It gives the Lease back, so that the next one need not wait for it.
        controller.process.stop();
        let (controller, second) = self.start().await;
        assert_eq!(second.used.all(), 0, "what is so already is not written");
        println!(
            "\n| the controller's start | nothing is written yet | everything is |\n| --- | --: | --: |"
        );
        let row = |what: &str, of: &dyn Fn(&Start) -> String| {
            println!("| {what} | {} | {} |", of(&first), of(&second))
        };
        row("everything is read, s", &|start| {
            format!("{:.1}", start.read.as_secs_f64())
        });
        row("the last status is written, s", &|start| match start.used.all() {
            0 => "".to_owned(),
            _ => format!("{:.1}", start.written.as_secs_f64()),
        });
        row("writes of finalizers", &|start| {
            start.used.of("finalizer").to_string()
        });
        row("writes of statuses", &|start| start.used.of("status").to_string());
        row("events", &|start| start.used.of("event").to_string());
        let rate = first.used.all() as f64 / (first.written - first.read).as_secs_f64();
        println!("| writes a second | {rate:.0} | |");
        println!("| writes a second of one who only writes | {:.0} | |", self.floor);
        row("processor time, s", &|start| {
            format!("{:.1}", start.used.cpu.as_secs_f64())
        });
        row("resident memory at rest, MB", &|start| start.memory.0.to_string());
        row("highest until then, MB", &|start| start.memory.1.to_string());
        controller
    }

    async fn start(&mut self) -> (Controller, Start) {
        let mut controller = Controller::start(self.control_plane).await;
        let before = Used::look(&self.client, &controller).await;
        controller
            .process
            .wait_for_log(LIMIT, "everything has been read once");
        let read = controller.started.elapsed();
        let all_ready = |observer: &Observer| observer.unready.is_empty();
        let written = self.observer.settled("everything is ready", all_ready).await.last;
        let used = Used::look(&self.client, &controller).await;
        let start = Start {
            read,
            written: written.saturating_duration_since(controller.started),
            used: Used {
                cpu: used.cpu,
                ..used.since(&before)
            },
            memory: controller.memory(),
        };
        (controller, start)
    }

    /// One change after the other: how long until others see what follows from it.
    async fn changes(&mut self, controller: &Controller) {
        println!("\n| one change | status seen, p50 ms | p99 | writes | processor time, ms |");
        println!("| --- | --: | --: | --: | --: |");
        let place = |number: usize| number * VIRTUAL_SERVICES / CHANGES;
        let fleet = self.fleet;
        let before = Used::look(&self.client, controller).await;
        let mut times = Times::default();
        for service in (0..CHANGES).map(place) {
            let began = Instant::now();
            fleet.set_weight(service, 0, 0).await;
            let key = (Kind::VirtualService, web(service));
            let seen = self
                .observer
                .until(&key, |status| status["backendSummary"] == "3/4")
                .await;
            times.push(seen - began);
        }
        self.row("a RealServer's weight", &times, &before, controller)
            .await;

        let before = Used::look(&self.client, controller).await;
        let mut times = Times::default();
        for number in 0..CHANGES {
            // Each of another node and of another virtual service.
            let director = &mut self.directors[number * NODES / CHANGES];
            let service = director.group + number / 2 * GROUPS;
            director.lacks = Some(service);
            let began = Instant::now();
            fleet.report(director).await.unwrap();
            let key = (Kind::VirtualService, web(service));
            let is_so = |status: &Value| condition(status, "Programmed")["reason"] == "NetlinkError";
            let seen = self.observer.until(&key, is_so).await;
            times.push(seen - began);
        }
        self.row(
            "a NodeState: a virtual service lacks something",
            &times,
            &before,
            controller,
        )
        .await;
        self.directors
            .iter_mut()
            .for_each(|director| director.lacks = None);
        self.report().await;
        let all_ready = |observer: &Observer| observer.unready.is_empty();
        self.observer
            .settled("everything is ready again", all_ready)
            .await;
    }

    /// Lets all agents report, in no order: 619 and their number have no common divisor.
    async fn report(&self) {
        let director = |number| &self.directors[number * 619 % NODES];
        all((0..NODES).map(|number| self.fleet.report(director(number)))).await;
    }

    async fn row(&mut self, what: &str, times: &Times, before: &Used, controller: &Controller) {
        self.observer.quiet().await;
        let used = Used::look(&self.client, controller).await.since(before);
        let each = |number: f64| number / CHANGES as f64;
        println!(
            "| {what} | {} | {:.2} | {:.2} |",
            times.columns(),
            each(used.all() as f64),
            each(used.cpu.as_secs_f64() * 1000.0)
        );
    }

    /// One virtual service of each group gets a new generation, which every node's agent then reports.
    async fn generations(&mut self, controller: &Controller) {
        println!("\n| {GROUPS} new generations, reported by {NODES} agents | |\n| --- | --: |");
        let fleet = self.fleet;
        let before = Used::look(&self.client, controller).await;
        all((0..GROUPS).map(async |group| {
            fleet.set_scheduler(group, "rr").await;
            Ok(())
        }))
        .await;
        let seen = |observer: &Observer| (0..GROUPS).all(|group| observes(observer, group, 2));
        self.observer.settled("the edits are seen", seen).await;
        let edited = Used::look(&self.client, controller).await;
        println!(
            "| writes when they are edited | {} |",
            edited.since(&before).all()
        );
        for director in &mut self.directors {
            director.generation_of_first = 2;
        }
        let began = Instant::now();
        self.report().await;
        let reported = began.elapsed();
        let programmed = |observer: &Observer| (0..GROUPS).all(|group| is_programmed(observer, group, 2));
        let written = self
            .observer
            .settled("the new generations are programmed", programmed)
            .await;
        let used = Used::look(&self.client, controller).await.since(&edited);
        println!(
            "| the agents' own writes | {NODES}, in {:.1} s |",
            reported.as_secs_f64()
        );
        println!("| writes that follow | {} |", used.all());
        println!(
            "| the last of them after the last report, ms | {} |",
            (written.last - began).saturating_sub(reported).as_millis()
        );
        println!("| processor time for it, ms | {} |", used.cpu.as_millis());
    }

    /// Real servers that drain, of which one of their directors says now that they have connections, now that they have
    /// none: what their status says changes each time.
    async fn flapping(&mut self, controller: &Controller) {
        let fleet = self.fleet;
        let of = |group: usize| of_group(group).skip(1).take(FLAPPING);
        let servers: Vec<usize> = (0..GROUPS).flat_map(of).collect();
        all(servers.iter().map(async |service| {
            fleet
                .patch_real_server(*service, 0, json!({ "adminState": "Draining" }))
                .await;
            Ok(())
        }))
        .await;
        for director in &mut self.directors {
            let leaving = of(director.group).map(|service| (namespaced(real_server(service, 0)), 0));
            director.leaving = leaving.collect();
        }
        self.report().await;
        self.all_are(&servers, "Drained").await;

        let before = Used::look(&self.client, controller).await;
        let began = Instant::now();
        let mut flaps = 0;
        let mut ticks = tokio::time::interval(FLAP);
        while began.elapsed() < FLAPPING_FOR {
            ticks.tick().await;
            flaps += 1;
            for director in &mut self.directors[..GROUPS] {
                director.leaving.values_mut().for_each(|left| *left = flaps % 2);
            }
            all(self.directors[..GROUPS]
                .iter()
                .map(|director| fleet.report(director)))
            .await;
        }
        let flapped = began.elapsed();
        let written = self.all_are(&servers, ["Drained", "Draining"][flaps % 2]).await;
        let used = Used::look(&self.client, controller).await.since(&before);
        let (resident, peak) = controller.memory();
        println!(
            "\n| {} of {} real servers change {flaps} times in {:.0} s | |\n| --- | --: |",
            servers.len(),
            VIRTUAL_SERVICES * REAL_SERVERS,
            flapped.as_secs_f64()
        );
        println!("| writes of statuses | {} |", used.of("status"));
        println!("| other writes | {} |", used.all() - used.of("status"));
        println!("| most writes to one object | {} |", written.most);
        println!(
            "| the last write after the last change, ms | {} |",
            (written.last - began).saturating_sub(flapped).as_millis()
        );
        println!(
            "| processor time, of one core | {:.2} |",
            used.cpu.as_secs_f64() / flapped.as_secs_f64()
        );
        println!("| resident memory, MB | {resident} |\n| highest so far, MB | {peak} |");
        assert!(
            written.most as u64 <= flapped.as_secs() + 2,
            "one object has been written {} times",
            written.most
        );
    }

    async fn all_are(&mut self, servers: &[usize], state: &str) -> Written {
        let are = |observer: &Observer| {
            let is = |service: &usize| {
                observer.status(&(Kind::RealServer, real_server(*service, 0)))["state"] == state
            };
            servers.iter().all(is)
        };
        self.observer.settled(state, are).await
    }
}

/// Whether the status of what was edited in a group is about a generation.
fn observes(observer: &Observer, group: usize, generation: i64) -> bool {
    observer.status(&edited(group))["observedGeneration"] == generation
}

fn is_programmed(observer: &Observer, group: usize, generation: i64) -> bool {
    let programmed = condition(observer.status(&edited(group)), "Programmed");
    observes(observer, group, generation) && programmed["status"] == "True"
}

/// The first virtual service of a group.
fn edited(group: usize) -> Key {
    (Kind::VirtualService, web(group))
}

/// What a start took.
struct Start {
    read: Duration,
    written: Duration,
    used: Used,
    /// Resident, and the most it was, in MB.
    memory: (u64, u64),
}
