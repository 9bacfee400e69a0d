//! What comes between Weir and the API server: refusals of every kind, watches of which nothing comes any more, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::control_plane::{Answer, Asked, ControlPlane, Gateway, limit, until};
use crate::process::Process;
use crate::rig::{Fixture, NODE, web};
use hyper::Method;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir::agent::publish::publish;
use weir::agent::report::Report;
use weir::catalog::{Kind, Update};
use weir::source::{SourceEvent, cache, cluster};

/// How often each thing has been asked for since a moment.
fn asked_since(gateway: &Gateway, begin: Instant) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for asked in gateway.asked().iter().filter(|asked| asked.at >= begin) {
        let path = asked.path.split('?').next().unwrap_or_default();
        let what = if asked.is_watch() {
            "WATCH"
        } else {
            asked.method.as_str()
        };
        *counts.entry(format!("{what} {path}")).or_default() += 1;
    }
    counts
}

/// Refuses what a rule says, before something happens and until something has been asked for several times, and looks that
/// nothing was asked for more than about once a second.
async fn refuse(
    gateway: &Gateway,
    answer: Answer,
    which: fn(&Asked) -> bool,
    what: &str,
    happens: impl AsyncFnOnce(),
) {
    let begin = Instant::now();
    gateway.answer(move |asked| which(asked).then_some(answer));
    gateway.cut();
    happens().await;
    until(&format!("{what} is refused: {answer:?}"), limit(30), async || {
        let counts = asked_since(gateway, begin);
        (counts.get(what) >= Some(&3))
            .then_some(())
            .ok_or_else(|| format!("{counts:?}"))
    })
    .await;
    let (counts, seconds) = (asked_since(gateway, begin), begin.elapsed().as_secs());
    for (what, count) in counts {
        assert!(
            count <= 2 + seconds * 5 / 4,
            "{answer:?}: {what} {count} times in {seconds} s"
        );
    }
    gateway.answer(|_| None);
}

fn is_write(asked: &Asked) -> bool {
    asked.method == Method::PATCH
}

/// A virtual service that is ready, of which a controller has heard through a gateway.
async fn served() -> (Fixture, Process, Gateway) {
    let fixture = Fixture::new().await;
    fixture.apply(NODE).await;
    fixture.apply(&web("web", "10.0.0.200", "")).await;
    fixture.report(&["web"], json!({})).await;
    let (controller, gateway) = fixture.controller_behind_gateway("one").await;
    fixture.condition("ivs", "web", "Ready", "True Ready").await;
    (fixture, controller, gateway)
}

/// Others than that of [`served`].
fn vips() -> impl Iterator<Item = String> {
    (1..).map(|number| format!("10.0.1.{number}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_write_that_is_refused_is_tried_again_at_leisure_and_no_status_is_lost() {
    let (fixture, controller, gateway) = served().await;
    let mut vips = vips();
    let mut change = async || fixture.apply(&web("web", &vips.next().unwrap(), "")).await;
    const STATUS: &str = "PATCH /apis/weir.dev/v1alpha1/namespaces/shop/virtualservices/web/status";
    for answer in [Answer::Refusal(429, Some(1)), Answer::Refusal(500, None)] {
        refuse(&gateway, answer, is_write, STATUS, &mut change).await;
        fixture.is_observed("ivs", "web", limit(20)).await;
    }
    assert!(
        !controller.log().contains("no longer writes"),
        "{}",
        controller.log()
    );

    // Longer than the Lease can go without being renewed.
    let begin = Instant::now();
    gateway.answer(|_| Some(Answer::Refusal(500, None)));
    change().await;
    until("it leads no longer", limit(30), async || {
        let log = controller.log();
        log.contains("its Lease could not be renewed")
            .then_some(())
            .ok_or(log)
    })
    .await;
    let (counts, seconds) = (asked_since(&gateway, begin), begin.elapsed().as_secs());
    assert!(
        counts.values().all(|count| *count <= 2 + seconds),
        "{seconds} s: {counts:?}"
    );
    gateway.answer(|_| None);
    fixture.is_observed("ivs", "web", limit(60)).await;
    fixture.report(&["web"], json!({})).await;
    // The watch of what agents say was cut each time, and nothing has come by it since: its waits have become longer.
    let ready = fixture.condition_within(limit(60), "ivs", "web", "Ready", "True Ready");
    ready.await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_watch_that_is_refused_is_asked_for_again_at_leisure_and_no_change_is_missed() {
    let (fixture, controller, gateway) = served().await;
    let mut vips = vips();
    let mut change = async || fixture.apply(&web("web", &vips.next().unwrap(), "")).await;
    const WATCH: &str = "WATCH /apis/weir.dev/v1alpha1/virtualservices";
    for answer in [
        Answer::Refusal(429, Some(3600)),
        Answer::Refusal(500, None),
        Answer::Refusal(410, None),
        Answer::TooOld,
    ] {
        refuse(&gateway, answer, Asked::is_watch, WATCH, &mut change).await;
        fixture.is_observed("ivs", "web", limit(60)).await;
        // That may have come in a list. What comes by the watch says that it is well, and its waits are short again.
        change().await;
        fixture.is_observed("ivs", "web", limit(60)).await;
    }
    assert!(
        !controller.log().contains("no longer writes"),
        "{}",
        controller.log()
    );
}

/// What an agent has to say waits until it is let through, too.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_report_that_is_refused_is_written_later() {
    let fixture = Fixture::new().await;
    let admin = std::fs::read_to_string(fixture.control_plane.folder().join("admin.kubeconfig")).unwrap();
    let gateway = Gateway::start(&admin).await;
    let client = fixture.control_plane.client_for(&gateway.kubeconfig()).await;
    let (reports, published) = watch::channel(Report {
        complete: true,
        ..Report::default()
    });
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    tokio::spawn(async move { publish(client, "d1", published, shutdown).await });
    let says = async |foreign: usize| {
        until("NodeState d1 says it", limit(40), async || {
            let state = fixture.get("nodestate", "d1").await;
            let said = state["status"]["foreignServices"] == foreign;
            said.then_some(()).ok_or_else(|| state["status"].to_string())
        })
        .await;
    };
    says(0).await;
    const REPORT: &str = "PATCH /apis/weir.dev/v1alpha1/nodestates/d1";
    for (answer, foreign) in [
        (Answer::Refusal(429, Some(1)), 1),
        (Answer::Refusal(500, None), 2),
    ] {
        let change = async || reports.send_modify(|report| report.node.foreign = foreign);
        refuse(&gateway, answer, is_write, REPORT, change).await;
        says(foreign).await;
    }
}

/// What an agent's source has told, by what is known after it.
#[derive(Debug, Default)]
struct Known {
    objects: BTreeSet<String>,
    remembered: bool,
    complete: bool,
    problems: Vec<String>,
}

impl Known {
    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Updates(updates) => {
                for update in updates {
                    match update {
                        Update::Put { object, .. } => self.objects.insert(object.to_string()),
                        Update::Delete(object) => self.objects.remove(&object.to_string()),
                    };
                }
            }
            SourceEvent::Remembered { .. } => self.remembered = true,
            SourceEvent::Complete { .. } => self.complete = true,
            SourceEvent::Problems(problems) => self.problems = problems,
            SourceEvent::Endpoints { .. } | SourceEvent::NodeLabels(_) => {}
        }
    }
}

/// An agent's source through a gateway, with its state in a directory.
struct AgentSource {
    events: mpsc::Receiver<SourceEvent>,
    known: Known,
    shutdown: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
    _wants: watch::Sender<bool>,
}

impl AgentSource {
    async fn start(gateway: &Gateway, state: &Path) -> Self {
        let kubeconfig = Kubeconfig::from_yaml(&gateway.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = weir::source::watch::client(config.unwrap()).unwrap();
        let (sender, events) = mpsc::channel(16);
        let (wants, wanted) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let (found, recorder, writer) = cache::open(state, "d1");
        let memory = cluster::Memory { found, recorder };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(writer.run(shutdown.clone()));
        let token = shutdown.clone();
        tasks.spawn(async move { cluster::watch(client, "d1", memory, wanted, sender, token).await });
        Self {
            events,
            known: Known::default(),
            shutdown,
            tasks,
            _wants: wants,
        }
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Known) -> bool) {
        let begin = Instant::now();
        while !is_so(&self.known) {
            let event = tokio::time::timeout_at(begin + limit(40), self.events.recv()).await;
            assert!(event.is_ok(), "{what}: {:?}", self.known);
            self.known.take(event.unwrap().unwrap());
        }
    }

    async fn end(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn an_agent_that_is_refused_everything_from_the_start_has_what_was_saved() {
    let fixture = Fixture::new().await;
    fixture.apply(NODE).await;
    fixture.apply(&web("web", "10.0.0.200", "")).await;
    let admin = std::fs::read_to_string(fixture.control_plane.folder().join("admin.kubeconfig")).unwrap();
    let gateway = Gateway::start(&admin).await;
    let state = tempfile::tempdir().unwrap();
    let all = [
        "DirectorGroup edge",
        "RealServer shop/rs1",
        "RealServer shop/rs2",
        "VirtualService shop/web",
    ];
    let has = |known: &Known, names: &[&str]| known.objects.iter().eq(names);

    let mut first = AgentSource::start(&gateway, state.path()).await;
    first.until("everything is read", |known| known.complete).await;
    assert!(
        has(&first.known, &all) && !first.known.remembered,
        "{:?}",
        first.known
    );
    first.end().await;

    fixture.kubectl(&["delete", "irs", "rs2", "-n", "shop"]).await;
    for answer in [Answer::Refusal(403, None), Answer::Refusal(500, None)] {
        gateway.answer(move |_| Some(answer));
        let mut second = AgentSource::start(&gateway, state.path()).await;
        second.until("it remembers", |known| known.remembered).await;
        assert!(
            has(&second.known, &all) && !second.known.complete,
            "{:?}",
            second.known
        );
        let said = second.known.problems.join("; ");
        assert!(said.contains("in force is what was saved at"), "{said}");
        second.end().await;
    }
    // What is refused at first is read as soon as it may be, and what is not there any more goes.
    let mut third = AgentSource::start(&gateway, state.path()).await;
    third.until("it remembers", |known| known.remembered).await;
    gateway.answer(|_| None);
    third
        .until("everything is read", |known| {
            known.complete && known.problems.is_empty()
        })
        .await;
    assert!(has(&third.known, &[all[0], all[1], all[3]]), "{:?}", third.known);
    third.end().await;
    let (found, ..) = cache::open(state.path(), "d1");
    let names = found
        .unwrap()
        .objects
        .into_keys()
        .map(|object| object.to_string());
    assert!(names.eq([all[0], all[1], all[3]]));
}

/// Connections stand, nothing comes on them, nobody ends them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_watch_that_dies_silently_is_noticed_after_a_minute_at_most_or_so() {
    let (fixture, controller, gateway) = served().await;
    // An agent's part of it.
    let kubeconfig = Kubeconfig::from_yaml(&gateway.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let client = weir::source::watch::client(config.unwrap()).unwrap();
    let (sender, mut news) = mpsc::channel(16);
    let (_wants, wanted) = watch::channel(false);
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    tokio::spawn(async move {
        cluster::watch(client, "d1", cluster::Memory::default(), wanted, sender, shutdown).await
    });
    let is_web = |update: &Update| matches!(update, Update::Put { object, .. } if object.kind == Kind::VirtualService && &*object.name == "web");
    let mut hear_of_web = async |within: Duration| {
        let hears = async {
            loop {
                if let SourceEvent::Updates(updates) = news.recv().await.unwrap()
                    && updates.iter().any(is_web)
                {
                    return;
                }
            }
        };
        tokio::time::timeout(within, hears).await.unwrap()
    };
    hear_of_web(limit(20)).await;

    let begin = Instant::now();
    gateway.silence();
    fixture.apply(&web("web", "10.0.0.201", "")).await;
    hear_of_web(limit(80)).await;
    fixture.is_observed("ivs", "web", limit(60)).await;
    assert!(begin.elapsed() < limit(70), "{:?}", begin.elapsed());
    // They go on where they were: nobody reads everything anew.
    let counts = asked_since(&gateway, begin);
    assert!(
        !counts.contains_key("GET /apis/weir.dev/v1alpha1/virtualservices"),
        "{counts:?}"
    );
    assert!(
        counts["WATCH /apis/weir.dev/v1alpha1/virtualservices"] <= 4,
        "{counts:?}"
    );
    assert!(
        !controller.log().contains("no longer writes"),
        "{}",
        controller.log()
    );
}

/// One that is frozen believes that it holds the Lease until it looks.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_controller_that_thaws_after_its_time_writes_nothing() {
    let (fixture, mut one, gateway) = served().await;
    let two = fixture.controller("two", &[]);

    // It has something to write, and writes it again and again.
    gateway.answer(|asked| is_write(asked).then_some(Answer::Refusal(500, None)));
    fixture.apply(&web("web", "10.0.0.201", "")).await;
    until("it cannot write", limit(20), async || {
        let log = one.log();
        log.contains("cannot write VirtualService shop/web")
            .then_some(())
            .ok_or(log)
    })
    .await;
    one.signal(Signal::STOP);
    // Nothing waits in its sockets to tell it how things are.
    gateway.cut();
    gateway.answer(|_| None);
    until("the other takes over", limit(40), async || {
        match &*fixture.holder().await {
            "two" => Ok(()),
            holder => Err(holder.to_owned()),
        }
    })
    .await;
    fixture.is_observed("ivs", "web", limit(20)).await;
    fixture.apply(&web("web", "10.0.0.202", "")).await;
    fixture.is_observed("ivs", "web", limit(20)).await;
    let version = async || fixture.get("ivs", "web").await["metadata"]["resourceVersion"].clone();
    let before = version().await;

    let thaw = Instant::now();
    one.signal(Signal::CONT);
    one.wait_for_log(limit(20), "two writes from now on");
    // It has heard of everything meanwhile, and looks at what there is to do at least every ten seconds.
    until("it has renewed its watches", limit(60), async || {
        let counts = asked_since(&gateway, thaw);
        let watches = counts.get("WATCH /apis/weir.dev/v1alpha1/virtualservices");
        (watches >= Some(&1))
            .then_some(())
            .ok_or_else(|| format!("{counts:?}"))
    })
    .await;
    let counts = asked_since(&gateway, thaw);
    let is_write = |what: &str| {
        ["PATCH", "POST", "PUT", "DELETE"]
            .iter()
            .any(|method| what.starts_with(method))
    };
    assert!(!counts.keys().any(|what| is_write(what)), "{counts:?}");
    assert_eq!(before, version().await);
    assert!(!two.log().contains("one writes from now on"), "{}", two.log());
}

/// Events into a namespace that is going away are refused, and what holds real servers must not hold it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd, kube-apiserver and kube-controller-manager: make test-control-plane"]
async fn a_deleted_namespace_goes_with_all_that_is_in_it() {
    let control_plane = ControlPlane::start()
        .await
        .with_controller_manager(&["namespace-controller"]);
    let fixture = Fixture::on(control_plane.await).await;
    fixture.apply(NODE).await;
    for number in 1..=5 {
        let more = ", draining: {timeout: 10m}";
        fixture
            .apply(&web(&format!("web-{number}"), &format!("10.0.1.{number}"), more))
            .await;
    }
    let (controller, gateway) = fixture.controller_behind_gateway("one").await;
    until("both real servers are held", limit(20), async || {
        let [one, two] = [fixture.get("irs", "rs1").await, fixture.get("irs", "rs2").await];
        let held = [&one, &two].map(|server| server["metadata"]["finalizers"].is_array());
        (held == [true; 2])
            .then_some(())
            .ok_or_else(|| format!("{held:?}"))
    })
    .await;

    let begin = Instant::now();
    fixture
        .kubectl(&["delete", "namespace", "shop", "--wait=false"])
        .await;
    let gone = fixture.is_gone("namespace", "shop", limit(60)).await;
    assert!(gone < limit(30), "{gone:?}");
    let counts = asked_since(&gateway, begin);
    let told: u64 = counts
        .iter()
        .filter(|(what, _)| what.contains("/events"))
        .map(|(_, count)| count)
        .sum();
    assert!(told <= 20, "{counts:?}");
    assert!(counts.values().all(|count| *count <= 30), "{counts:?}");
    assert!(!controller.log().contains("panicked"), "{}", controller.log());
}
