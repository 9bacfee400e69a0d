//! The controller beside a real API server: what it writes, how often, who writes, what holds a deleted RealServer.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::control_plane::{limit, succeeded, until};
use crate::rendered::{assert_expected, helm, read};
use crate::rig::{Fixture, NODE, OBJECTS, web};
use regex::Regex;
use rustix::process::Signal;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_virtual_service_from_nobody_to_ready_and_what_goes_wrong_with_it() {
    let fixture = Fixture::new().await;
    fixture.apply(&web("web", "10.0.0.200", "")).await;
    fixture.assert_recorded("ivs", "web", "virtualservice_new").await;
    let _controller = fixture.controller("one", &[]);

    // Nobody could balance: terminal, so that whoever waits for Ready hears of it.
    let message = fixture
        .condition("ivs", "web", "Stalled", "True NoDirector")
        .await;
    assert!(
        message.contains("the active node of DirectorGroup edge is d1, and there is no such node"),
        "{message}"
    );
    fixture
        .assert_recorded("ivs", "web", "virtualservice_without_director")
        .await;
    fixture
        .condition("dirgrp", "edge", "Stalled", "True NoDirector")
        .await;
    fixture
        .assert_recorded("dirgrp", "edge", "directorgroup_without_director")
        .await;
    fixture.apply(NODE).await;
    let message = fixture
        .condition("ivs", "web", "Programmed", "False Pending")
        .await;
    assert!(message.contains("no agent of d1 has reported yet"), "{message}");
    fixture
        .condition("ivs", "web", "Reconciling", "True Progressing")
        .await;
    fixture
        .assert_recorded("ivs", "web", "virtualservice_pending")
        .await;
    fixture.report(&[], json!({})).await;
    until("it is known what the agent lacks", limit(20), async || {
        let message = fixture
            .condition("ivs", "web", "Programmed", "False Pending")
            .await;
        message
            .contains("d1 has not programmed generation 1")
            .then_some(())
            .ok_or(message)
    })
    .await;
    fixture.report(&["web"], json!({})).await;
    fixture
        .kubectl(&[
            "wait",
            "ivs/web",
            "-n",
            "shop",
            "--for=condition=Ready",
            "--timeout=20s",
        ])
        .await;
    let status = fixture.get("ivs", "web").await["status"].clone();
    assert_eq!(status["observedGeneration"], 1);
    let types: Vec<&str> = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["type"].as_str())
        .collect();
    assert!(
        !types.contains(&"Stalled") && !types.contains(&"Reconciling"),
        "{types:?}"
    );
    let listed = fixture.kubectl(&["get", "ivs", "-n", "shop"]).await;
    let columns: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        columns[..7],
        ["web", "10.0.0.200", "80/TCP", "d1", "1/2", "True", columns[6]],
        "{listed}"
    );
    fixture
        .condition("ivs", "web", "BackendsHealthy", "False SomeUnhealthy")
        .await;
    fixture.condition("dirgrp", "edge", "Ready", "True Ready").await;
    fixture.condition("irs", "rs1", "Ready", "True Ready").await;
    assert_eq!(fixture.get("irs", "rs1").await["status"]["virtualServices"], 1);
    for (kind, name, file) in [
        ("ivs", "web", "virtualservice_ready"),
        ("dirgrp", "edge", "directorgroup_ready"),
        ("irs", "rs1", "realserver_ready"),
    ] {
        fixture.assert_recorded(kind, name, file).await;
    }

    // The kernel refuses something.
    let failure = json!({ "failureCount": 1, "failures": [{
        "virtualService": "shop/web", "message": "cannot add service TCP 10.0.0.200:80: no such scheduler" }] });
    fixture
        .apply(&web("web", "10.0.0.200", ", scheduler: {algorithm: lblcr}"))
        .await;
    fixture.report(&[], failure).await;
    let message = fixture
        .condition("ivs", "web", "Stalled", "True NetlinkError")
        .await;
    assert!(message.starts_with("d1: cannot add service"), "{message}");
    fixture
        .assert_recorded("ivs", "web", "virtualservice_that_the_kernel_refuses")
        .await;
    fixture.report(&["web"], json!({})).await;
    fixture.condition("ivs", "web", "Ready", "True Ready").await;

    // Another wants the same: the older has it, the other says who.
    fixture.apply(&web("web-2", "10.0.0.200", "")).await;
    let message = fixture
        .condition("ivs", "web-2", "Accepted", "False PortConflict")
        .await;
    assert!(message.contains("shop/web"), "{message}");
    fixture
        .condition("ivs", "web-2", "Stalled", "True PortConflict")
        .await;
    fixture
        .assert_recorded("ivs", "web-2", "virtualservice_in_conflict")
        .await;
    fixture.kubectl(&["delete", "ivs", "web-2", "-n", "shop"]).await;

    // A reference to what comes later heals.
    let refers = web("pods", "10.0.0.201", "").replace(
        "realServers: {selector: {matchLabels: {app: web}}}",
        "serviceRef: {name: pods, port: http}",
    );
    fixture.apply(&refers).await;
    let message = fixture
        .condition("ivs", "pods", "ResolvedRefs", "False BackendNotFound")
        .await;
    assert!(message.contains("there is no Service shop/pods"), "{message}");
    fixture
        .assert_recorded("ivs", "pods", "virtualservice_of_a_missing_service")
        .await;
    let service = |more: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: pods, namespace: shop}}, spec: {{{more}ports: [{{name: http, port: 80}}]}}}}"
        )
    };
    fixture
        .apply(&service("type: ExternalName, externalName: example.com, "))
        .await;
    let message = fixture
        .condition("ivs", "pods", "ResolvedRefs", "False UnsupportedKind")
        .await;
    assert!(message.contains("ExternalName"), "{message}");
    fixture
        .kubectl(&["delete", "service", "pods", "-n", "shop"])
        .await;
    fixture.apply(&service("clusterIP: None, ")).await;
    fixture
        .condition("ivs", "pods", "ResolvedRefs", "True ResolvedRefs")
        .await;
    let message = fixture
        .condition("ivs", "pods", "BackendsHealthy", "False NoBackends")
        .await;
    assert!(message.contains("has no endpoints"), "{message}");

    // Told once each.
    let events = fixture.events().await;
    for expected in [
        "web Warning NoDirector",
        "web Normal Programmed",
        "web Warning NetlinkError",
        "web-2 Warning PortConflict",
        "pods Warning BackendNotFound",
        "pods Warning UnsupportedKind",
    ] {
        assert_eq!(events.get(expected), Some(&1), "{expected} in {events:?}");
    }
    let described = fixture.kubectl(&["describe", "ivs", "web", "-n", "shop"]).await;
    assert!(described.contains("everything is in force on d1"), "{described}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_deleted_real_server_is_held_until_it_has_left_and_not_for_ever() {
    let fixture = Fixture::new().await;
    let mut controller = fixture.controller("one", &[]);
    fixture.apply(NODE).await;
    fixture
        .apply(&web("web", "10.0.0.200", ", draining: {timeout: 15s}"))
        .await;
    fixture.apply("{apiVersion: weir.dev/v1alpha1, kind: RealServer, metadata: {name: nobodys, namespace: shop}, spec: {address: 10.0.0.99}}").await;
    let held = async |name: &str| {
        until(&format!("{name} is held"), limit(30), async || {
            let metadata = fixture.get("irs", name).await["metadata"].clone();
            if metadata["finalizers"] == json!(["weir.dev/drain"]) {
                Ok(())
            } else {
                Err(metadata.to_string())
            }
        })
        .await;
    };
    held("rs1").await;
    held("rs2").await;
    fixture.condition("irs", "nobodys", "Ready", "True Ready").await;
    assert_eq!(
        fixture.get("irs", "nobodys").await["metadata"]["finalizers"],
        Value::Null
    );
    let delete = async |name: &str| {
        fixture
            .kubectl(&["delete", "irs", name, "-n", "shop", "--wait=false"])
            .await
    };
    delete("nobodys").await;
    fixture.is_gone("irs", "nobodys", limit(5)).await;

    // The director says what is left of it.
    let leaving = |destinations: u32| json!({ "leavingRealServers": [{ "namespace": "shop", "name": "rs1", "destinations": destinations }] });
    fixture.report(&["web"], json!({})).await;
    delete("rs1").await;
    fixture.report(&["web"], leaving(1)).await;
    fixture.condition("irs", "rs1", "Ready", "True Ready").await;
    until("it is said to drain", limit(10), async || {
        match fixture.get("irs", "rs1").await["status"]["state"].as_str() {
            Some("Draining") => Ok(()),
            state => Err(format!("{state:?}")),
        }
    })
    .await;
    fixture.assert_recorded("irs", "rs1", "realserver_draining").await;
    fixture.report(&["web"], leaving(0)).await;
    let gone = fixture.is_gone("irs", "rs1", limit(20)).await;
    assert!(gone < limit(5), "long before the deadline: {gone:?}");

    // Nobody says anything: it is held as long as connections may take, and no longer.
    delete("rs2").await;
    let gone = fixture.is_gone("irs", "rs2", limit(40)).await;
    assert!(gone >= Duration::from_secs(14), "{gone:?}");
    assert!(gone < Duration::from_secs(15) + limit(4), "{gone:?}");

    // Deleted while no controller runs, and none will: the finalizers can be taken off.
    fixture.apply(OBJECTS).await;
    held("rs1").await;
    controller.signal(Signal::KILL);
    while controller.ended().is_none() {}
    delete("rs1").await;
    assert!(fixture.get("irs", "rs1").await["metadata"]["deletionTimestamp"].is_string());
    let mut release = fixture.controller("release", &["--release"]);
    until("the finalizers are off", limit(10), async || {
        release.ended().map(drop).ok_or_else(String::new)
    })
    .await;
    fixture.is_gone("irs", "rs1", limit(5)).await;
    assert_eq!(
        fixture.get("irs", "rs2").await["metadata"]["finalizers"],
        Value::Null
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn one_of_several_writes_and_writes_little() {
    let mut fixture = Fixture::new().await;
    fixture.apply(NODE).await;
    fixture.apply(&web("web", "10.0.0.200", "")).await;
    fixture.report(&["web"], json!({})).await;
    let mut one = fixture.controller("one", &[]);
    fixture.condition("ivs", "web", "Ready", "True Ready").await;
    let two = fixture.controller("two", &[]);
    assert_eq!(fixture.holder().await, "one");

    until("all is written once", limit(20), async || {
        let server = fixture.get("irs", "rs1").await;
        let group = fixture.get("dirgrp", "edge").await;
        let all = server["metadata"]["finalizers"].is_array()
            && server["status"]["virtualServices"] == 1
            && group["status"]["virtualServices"] == 1;
        all.then_some(()).ok_or_else(|| format!("{server} {group}"))
    })
    .await;
    // The version of an object that nobody has changed stays, whoever starts or ends.
    let version =
        async |kind: &str, name: &str| fixture.get(kind, name).await["metadata"]["resourceVersion"].clone();
    let versions_of_all = async || {
        (
            version("ivs", "web").await,
            version("dirgrp", "edge").await,
            version("irs", "rs1").await,
        )
    };
    let before = versions_of_all().await;

    // The holder hangs: another takes over, and nothing is written that is so already.
    one.signal(Signal::STOP);
    until("the other takes over", limit(40), async || {
        match fixture.holder().await.as_str() {
            "two" => Ok(()),
            holder => Err(holder.to_owned()),
        }
    })
    .await;
    assert_eq!(before, versions_of_all().await);
    fixture.apply(&web("second", "10.0.0.201", "")).await;
    fixture
        .condition("ivs", "second", "Accepted", "True Accepted")
        .await;
    one.signal(Signal::CONT);
    one.wait_for_log(Duration::from_secs(20), "two writes from now on");
    let before = versions_of_all().await;
    // One that is asked to end gives the Lease back, so that nobody has to wait until it is over, after 13 s at the least.
    let begin = Instant::now();
    two.signal(Signal::TERM);
    until("the first has it again", limit(20), async || {
        match fixture.holder().await.as_str() {
            "one" => Ok(()),
            holder => Err(holder.to_owned()),
        }
    })
    .await;
    let in_time = limit(8).min(Duration::from_secs(12));
    assert!(begin.elapsed() < in_time, "{:?}", begin.elapsed());
    assert_eq!(before, versions_of_all().await);

    // A real server that flaps: each object at most once a second.
    let versions = async || -> (u64, u64) {
        let of = async |kind: &str, name: &str| {
            version(kind, name)
                .await
                .as_str()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        (of("ivs", "web").await, of("irs", "rs1").await)
    };
    let mut written = std::collections::BTreeSet::new();
    let begin = Instant::now();
    for weight in (0..40).map(|number| number % 2) {
        let patch = format!("{{\"spec\":{{\"weight\":{weight}}}}}");
        fixture
            .kubectl(&["patch", "irs", "rs1", "-n", "shop", "--type=merge", "-p", &patch])
            .await;
        written.insert(versions().await.0);
    }
    let seconds = begin.elapsed().as_secs() as usize + 1;
    assert!(
        written.len() <= seconds + 1,
        "{} versions of the virtual service in {seconds} s",
        written.len()
    );

    // An API server that hangs and comes back, and one that is away.
    fixture.control_plane.freeze_api_server();
    tokio::time::sleep(Duration::from_secs(3)).await;
    fixture.control_plane.thaw_api_server();
    fixture.control_plane.kill_api_server();
    fixture.control_plane.start_api_server().await;
    fixture.apply(&web("third", "10.0.0.202", "")).await;
    fixture
        .condition("ivs", "third", "Accepted", "True Accepted")
        .await;
}

/// Installs the chart of somebody who uses Weir, and says what Helm said and how long it took.
async fn install(fixture: &Fixture, which: &'static str, name: &str, address: &str) -> (Output, Duration) {
    let arguments = format!(
        "install {name} tests/data/installed_chart --namespace shop --set address={address} --wait --timeout 300s"
    );
    let home = fixture.control_plane.folder().to_owned();
    let begin = Instant::now();
    let installing = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        helm(which, &home, &arguments)
    });
    (installing.await.unwrap(), begin.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Helm, etcd and kube-apiserver: make test-control-plane"]
async fn helm_waits_for_what_comes_and_not_for_what_does_not() {
    let fixture = Fixture::new().await;
    let _controller = fixture.controller("one", &[]);
    let why = "the active node of DirectorGroup edge is d1, and there is no such node: name another in \
               spec.failover.static.activeNode";
    let (output, took) = install(&fixture, "helm", "refused", "10.0.0.200").await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{said}");
    assert!(took < limit(60), "it gives up as soon as it knows: {took:?}");

    // Helm 3 knows Kubernetes' own kinds alone: to it everything else is well as soon as it is there.
    let (output, _) = install(&fixture, "helm3", "believed", "10.0.0.201").await;
    succeeded(&output);
    fixture
        .condition("ivs", "believed", "Stalled", "True NoDirector")
        .await;

    fixture.apply(NODE).await;
    let agent = async {
        fixture
            .condition("ivs", "good", "Programmed", "False Pending")
            .await;
        let reported = Instant::now();
        fixture.report(&["good"], json!({})).await;
        reported
    };
    let begin = Instant::now();
    let ((output, took), reported) = tokio::join!(install(&fixture, "helm", "good", "10.0.0.202"), agent);
    succeeded(&output);
    assert!(begin + took > reported, "not before it is in force");
    fixture.condition("ivs", "good", "Ready", "True Ready").await;
}

/// What users read, in the words of the page that tells how to read it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_documents_show_what_kubectl_prints() {
    let fixture = Fixture::new().await;
    fixture.apply(NODE).await;
    let _controller = fixture.controller("one", &[]);
    fixture.apply(&web("web", "10.0.0.200", "")).await;
    fixture.report(&["web"], json!({})).await;
    fixture.condition("ivs", "web", "Ready", "True Ready").await;
    fixture.apply(&web("api", "10.0.0.200", "")).await;
    fixture
        .condition("ivs", "api", "Stalled", "True PortConflict")
        .await;
    until("it is told", limit(10), async || {
        let told = fixture.events().await;
        told.contains_key("api Warning PortConflict")
            .then_some(())
            .ok_or_else(|| format!("{told:?}"))
    })
    .await;
    let mut shown = String::new();
    for command in [
        "get ivs -n shop",
        "get ivs -n shop -o wide",
        "describe ivs api -n shop",
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let printed = lasting(&fixture.kubectl(&arguments).await);
        shown.push_str(&format!("$ kubectl {command}\n{printed}\n"));
    }
    assert_shown("docs/kubernetes.md", shown.trim_end());
}

/// What kubectl prints, without what differs from run to run.
fn lasting(printed: &str) -> String {
    let replaced =
        |pattern: &str, text: &str, by: &str| Regex::new(pattern).unwrap().replace_all(text, by).into_owned();
    let text = replaced(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
        printed,
        "2026-01-02T03:04:05Z",
    );
    let text = replaced(
        r"(?m)^(  UID: +).*$",
        &text,
        "${1}7d8a0c5e-0b5c-4c5e-9d55-0d1f3a1c2b4e",
    );
    let text = replaced(r"(?m)^(  Resource Version: +).*$", &text, "${1}4711");
    // Ages; a column is as wide as its widest word.
    let text = replaced(r"(?m)( )\d+s( *)$", &text, "${1}8s$2");
    let text = replaced(r"(?m)^(  (?:Normal|Warning) +\w+ +)\d+s +", &text, "${1}8s    ");
    // kubectl's annotation says everything again.
    let text = replaced(r"(?m)^Annotations: .*$", &text, "Annotations:  <none>");
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// Compares a text with what a page shows after the remark that says so, and `UPDATE_EXPECTED=1` writes anew.
fn assert_shown(page: &str, text: &str) {
    let begin = "<!-- Written by tests/control_plane/controller.rs. -->\n```\n";
    let whole = read(page);
    let (before, rest) = whole.split_once(begin).unwrap();
    let (_, after) = rest.split_once("\n```\n").unwrap();
    assert_expected(page, &format!("{before}{begin}{text}\n```\n{after}"));
}

/// People do not wait for a controller.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn what_was_done_while_no_controller_ran_is_caught_up_with() {
    /// How long real servers are held at most.
    const BRIEF: &str = ", draining: {timeout: 5s}";
    let fixture = Fixture::new().await;
    fixture.apply(NODE).await;
    for (name, vip) in [
        ("same", "10.0.0.200"),
        ("edited", "10.0.0.201"),
        ("deleted", "10.0.0.202"),
    ] {
        fixture.apply(&web(name, vip, BRIEF)).await;
    }
    fixture.report(&["same", "edited", "deleted"], json!({})).await;
    let mut controller = fixture.controller("one", &[]);
    for name in ["same", "edited", "deleted"] {
        fixture.condition("ivs", name, "Ready", "True Ready").await;
    }
    until("real servers are held", limit(20), async || {
        let held = fixture.kubectl(&[
            "get",
            "irs",
            "-n",
            "shop",
            "-o",
            "jsonpath={.items[*].metadata.finalizers}",
        ]);
        let held = held.await;
        (held.matches("weir.dev/drain").count() == 2)
            .then_some(())
            .ok_or(held)
    })
    .await;
    controller.signal(Signal::KILL);
    while controller.ended().is_none() {}
    let (events, version) = (fixture.events().await, fixture.get("ivs", "same").await);

    fixture.kubectl(&["delete", "ivs", "deleted", "-n", "shop"]).await;
    let nowhere = web("edited", "10.0.0.201", BRIEF).replace("name: edge", "name: elsewhere");
    fixture.apply(&nowhere).await;
    fixture
        .assert_recorded("ivs", "edited", "virtualservice_that_is_edited")
        .await;
    fixture.apply(&web("new", "10.0.0.200", BRIEF)).await;
    fixture
        .kubectl(&["delete", "irs", "rs2", "-n", "shop", "--wait=false"])
        .await;
    let _controller = fixture.controller("two", &[]);
    let message = fixture
        .condition("ivs", "edited", "Stalled", "True NoDirector")
        .await;
    assert!(message.contains("no valid DirectorGroup elsewhere"), "{message}");
    fixture
        .condition("ivs", "new", "Accepted", "False PortConflict")
        .await;
    fixture.is_gone("irs", "rs2", limit(20)).await;
    fixture
        .condition("ivs", "same", "BackendsHealthy", "True AllHealthy")
        .await;
    for name in ["same", "edited", "new"] {
        fixture.is_observed("ivs", name, limit(10)).await;
    }
    let ready = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().unwrap().clone();
        conditions
            .into_iter()
            .find(|condition| condition["type"] == "Ready")
    };
    assert_eq!(
        ready(&version),
        ready(&fixture.get("ivs", "same").await),
        "not even its time"
    );
    // What was told is not told again.
    let mut now = fixture.events().await;
    now.retain(|what, count| events.get(what) != Some(count));
    let news = [
        "edited Warning NoDirector",
        "new Warning PortConflict",
        "same Normal AllHealthy",
    ];
    assert!(now.keys().all(|what| news.contains(&what.as_str())), "{now:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_node_that_is_gone_is_forgotten_after_a_time() {
    let fixture = Fixture::new().await;
    fixture.apply(NODE).await;
    fixture.apply(&web("web", "10.0.0.200", "")).await;
    fixture.report(&["web"], json!({})).await;
    let mut controller = fixture.controller("one", &["--forget-after", "3s"]);
    fixture.condition("ivs", "web", "Ready", "True Ready").await;
    fixture.kubectl(&["delete", "node", "d1"]).await;
    fixture
        .condition("ivs", "web", "Stalled", "True NoDirector")
        .await;
    assert_ne!(
        fixture.get("nodestate", "d1").await,
        Value::Null,
        "it may come back"
    );
    let gone = fixture.is_gone("nodestate", "d1", limit(20)).await;
    assert!(gone < limit(6), "{gone:?}");
    controller.wait_for_log(Duration::from_secs(5), "node d1 has been gone for 3s");
}
