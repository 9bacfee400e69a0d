//! What an agent tells, from values, and whether the page on metrics says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prometheus_client::encoding::text;
use regex::Regex;
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::catalog::{Finding, NamespacedName, ObjectRef, Reason};
use crate::host::preflight::Check;
use crate::host::{self, HostChange, HostError};
use crate::ipvs::{
    Change, ChangeError, Connections, Destination, DestinationKey, Entry, Failure, ForwardingMethod,
    MemoryTable, Scheduler, Service, ServiceKey, Table,
};
use crate::ledger::Ledger;
use crate::node::{Cause, Numbers, Pass, PassError, RefusedChange, Steps, Summary};
use crate::phases::drain::Drained;
use crate::plan::Role;

fn web() -> NamespacedName {
    NamespacedName {
        namespace: "shop".into(),
        name: "web".into(),
    }
}

fn real_server(number: u8) -> DestinationKey {
    DestinationKey {
        address: [10, 0, 0, number].into(),
        port: 80,
    }
}

/// Two listeners of `shop/web`, by address and by mark, with a real server each of weight 1 and 0; and a service that is
/// somebody else's.
fn table() -> (MemoryTable, TempDir) {
    let keys: Vec<ServiceKey> = ["TCP 10.0.0.200:80", "FWM IPv6 7", "TCP 10.0.0.9:80"]
        .map(|key| key.parse().unwrap())
        .into();
    let destination = |weight| Destination::new(ForwardingMethod::DirectRoute, weight);
    let entry = Entry {
        service: Service::new(Scheduler::WeightedLeastConnections),
        destinations: [
            (real_server(11), destination(1)),
            (real_server(12), destination(0)),
        ]
        .into(),
    };
    let table = Table {
        services: keys.iter().map(|key| (*key, entry.clone())).collect(),
    };
    let connections = |active, inactive| Connections {
        active,
        inactive,
        persistent: 0,
    };
    let table = MemoryTable {
        connections: [
            (real_server(11), connections(5, 7)),
            (real_server(12), connections(2, 0)),
        ]
        .into(),
        ..MemoryTable::new(table)
    };
    let directory = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Ledger::open(directory.path()).unwrap();
    ledger.take(keys[..2].iter().map(|key| (*key, web()))).unwrap();
    (table, directory)
}

fn report() -> Report {
    let finding = Finding::new(
        ObjectRef::virtual_service(&web()),
        "spec",
        Reason::Empty,
        "nothing",
    );
    Report {
        roles: vec![("edge".to_owned(), Role::Standby)],
        node: Summary {
            desired: Numbers {
                services: 3,
                ..Numbers::default()
            },
            checks: [Check {
                subject: "net.ipv4.ip_forward".into(),
                result: Err("off".into()),
            }]
            .into(),
            refused: vec![RefusedChange {
                virtual_service: None,
                message: "refused".to_owned(),
            }],
            ..Summary::default()
        },
        findings: std::sync::Arc::new([finding].into()),
        ..Report::default()
    }
}

fn pass() -> Pass {
    let key: ServiceKey = "TCP 10.0.0.200:80".parse().unwrap();
    let service = Service::new(Scheduler::WeightedLeastConnections);
    let delete = |number| Change::DeleteDestination {
        service: key,
        key: real_server(number),
    };
    let refused = Change::AddService { key, service };
    Pass {
        refused: vec![Failure {
            change: refused.clone(),
            error: ChangeError::NoScheduler("wlc".into()),
        }],
        steps: Steps {
            around: host::Steps {
                before: vec![HostChange::RestoreSysctl {
                    name: "net.ipv4.ip_forward".into(),
                }],
                after: vec![],
            },
            table: vec![refused, delete(11), delete(12)],
            ..Steps::default()
        },
        ..Pass::default()
    }
}

const AUDIT: bool = true;
const CHANGE: bool = false;

/// What an agent with all of this tells, in lines.
fn told(metrics: &Metrics, per_real_server: PerRealServer) -> Vec<String> {
    let (table, directory) = table();
    let (_sender, reports) = watch::channel(report());
    let listeners = Listeners::new(table, directory.path(), per_real_server);
    let registry = agent_registry("d1", metrics, reports, listeners);
    encoded(&registry)
}

fn encoded(registry: &Registry) -> Vec<String> {
    let mut told = String::new();
    text::encode(&mut told, registry).unwrap();
    told.lines().map(str::to_owned).collect()
}

/// The lines of these that begin with a name.
fn lines<'a>(told: &'a [String], name: &str) -> Vec<&'a str> {
    let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    told.iter().map(String::as_str).filter(of_name).collect()
}

#[test]
fn a_listener_is_counted_under_the_virtual_service_that_it_is_part_of() {
    let told = told(&Metrics::default(), PerRealServer::Off);
    let by_address = r#"node="d1",namespace="shop",name="web",protocol="TCP",address="10.0.0.200",port="80""#;
    let by_mark = r#"node="d1",namespace="shop",name="web",family="IPv6",mark="7""#;
    let expected = |labels: &str| {
        [
            format!("weir_listener_active_connections{{{labels}}} 7"),
            format!("weir_listener_inactive_connections{{{labels}}} 7"),
            format!("weir_listener_destinations{{{labels},state=\"up\"}} 1"),
            format!("weir_listener_destinations{{{labels},state=\"quiesced\"}} 1"),
        ]
    };
    for line in [expected(by_address), expected(by_mark)].concat() {
        assert!(told.contains(&line), "{line} is not in {told:#?}");
    }
    assert!(
        !told.iter().any(|line| line.contains("10.0.0.9")),
        "it is somebody else's"
    );
    assert_eq!(
        lines(&told, "weir_kernel_counters_readable"),
        [r#"weir_kernel_counters_readable{node="d1"} 1"#]
    );
}

#[test]
fn real_servers_have_series_as_far_as_that_is_wanted() {
    let shown = |per_real_server| {
        let told = told(&Metrics::default(), per_real_server);
        let address = Regex::new(r#"destination="([0-9.:]+)""#).unwrap();
        let weights = lines(&told, "weir_destination_weight");
        let shown: BTreeSet<String> = weights
            .iter()
            .map(|line| address.captures(line).unwrap()[1].to_owned())
            .collect();
        shown.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(shown(PerRealServer::Off), [""; 0]);
    assert_eq!(shown(PerRealServer::Top), ["10.0.0.12:80"]);
    assert_eq!(shown(PerRealServer::On), ["10.0.0.11:80", "10.0.0.12:80"]);
}

#[test]
fn without_a_ledger_to_read_there_are_no_counters_and_that_is_said() {
    let (table, directory) = table();
    let ledger = directory.path().join("ledger");
    std::fs::remove_file(&ledger).unwrap();
    std::fs::create_dir(&ledger).unwrap();
    let mut registry = registry("d1");
    registry.register_collector(Box::new(Listeners::new(
        table,
        directory.path(),
        PerRealServer::On,
    )));
    let mut told = String::new();
    text::encode(&mut told, &registry).unwrap();
    assert!(
        told.contains("\nweir_kernel_counters_readable{node=\"d1\"} 0\n"),
        "{told}"
    );
    assert!(!told.contains("listener"), "{told}");
}

#[test]
fn only_an_audit_finds_drift_and_only_what_was_changed_counts() {
    let metrics = Metrics::default();
    metrics.passed(CHANGE, &Ok(pass()));
    let removed = |metrics: &Metrics| {
        let told = told(metrics, PerRealServer::Off);
        lines(&told, "weir_kernel_drift_corrections_total").join("\n")
    };
    let line =
        |kind, count| format!("weir_kernel_drift_corrections_total{{node=\"d1\",kind=\"{kind}\"}} {count}");
    assert!(
        removed(&metrics).contains(&line("removed", 0)),
        "{}",
        removed(&metrics)
    );
    metrics.passed(AUDIT, &Ok(pass()));
    assert!(
        removed(&metrics).contains(&line("removed", 2)),
        "{}",
        removed(&metrics)
    );
    assert!(
        removed(&metrics).contains(&line("added", 0)),
        "the kernel refused it"
    );
    let told = told(&metrics, PerRealServer::Off);
    let refused = r#"weir_netlink_errors_total{node="d1",op="add_service",errno="ENOENT"} 2"#;
    assert_eq!(lines(&told, "weir_netlink_errors_total"), [refused]);
}

#[test]
fn what_ends_to_drain_during_an_audit_is_no_drift() {
    let metrics = Metrics::default();
    let drained = |seconds, forced| Drained {
        took: Duration::from_secs(seconds),
        forced,
    };
    let pass = Pass {
        drained: vec![drained(4, false), drained(60, true)],
        ..pass()
    };
    metrics.passed(AUDIT, &Ok(pass));
    let told = told(&metrics, PerRealServer::Off);
    for line in [
        "weir_kernel_drift_corrections_total{node=\"d1\",kind=\"removed\"} 0",
        "weir_drain_duration_seconds_sum{node=\"d1\"} 64.0",
        "weir_drain_duration_seconds_bucket{node=\"d1\",le=\"30.0\"} 1",
        "weir_drain_forced_total{node=\"d1\"} 1",
    ] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn news_waits_until_a_pass_has_programmed_it_and_the_oldest_counts() {
    let metrics = Metrics::default();
    let waits = |metrics: &Metrics| {
        let told = told(metrics, PerRealServer::Off);
        let names = [
            "weir_config_pending_seconds",
            "weir_programming_latency_seconds_sum",
        ];
        names.map(|name| {
            lines(&told, name)[0]
                .rsplit(' ')
                .next()
                .unwrap()
                .parse::<f64>()
                .unwrap()
        })
    };
    metrics.arrived(Instant::now());
    tokio::time::advance(Duration::from_secs(3)).await;
    metrics.arrived(Instant::now());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(waits(&metrics), [5.0, 0.0]);
    let source = Box::new(std::io::Error::from_raw_os_error(5));
    let act = "read".into();
    metrics.begins();
    let cause = Cause::Host(HostError { act, source });
    metrics.passed(CHANGE, &Err(PassError::NotBegun(cause)));
    assert_eq!(waits(&metrics), [5.0, 0.0], "nothing was programmed");
    metrics.passed(AUDIT, &Ok(Pass::default()));
    assert_eq!(waits(&metrics), [5.0, 0.0], "an audit brings no news");
    metrics.begins();
    metrics.passed(CHANGE, &Ok(Pass::default()));
    assert_eq!(waits(&metrics), [0.0, 5.0]);
    metrics.arrived(Instant::now());
    metrics.settled();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(waits(&metrics), [0.0, 5.0]);
}

#[test]
fn objects_that_were_saved_have_an_age_while_they_are_in_force() {
    let metrics = Metrics::default();
    let age = |metrics: &Metrics| {
        let told = told(metrics, PerRealServer::Off);
        let line = lines(&told, "weir_cache_age_seconds")[0];
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(age(&metrics), 0.0);
    metrics.remembers(Some(std::time::UNIX_EPOCH));
    assert!(age(&metrics) > 1.7e9);
    metrics.remembers(None);
    assert_eq!(age(&metrics), 0.0);
}

/// A metric's type and labels, by its name.
type Described = BTreeMap<String, (String, BTreeSet<String>)>;

fn as_told(told: &[String]) -> Described {
    let label = Regex::new(r#"([a-z_]+)=""#).unwrap();
    let mut described = Described::new();
    let mut family = String::new();
    for line in told {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            family = format!("{name}{suffix}");
            described.insert(family.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let labels = label.captures_iter(line).map(|found| found[1].to_owned());
            let (_, known) = described.get_mut(&family).unwrap();
            known.extend(labels.filter(|label| label != "node" && label != "le"));
        }
    }
    described
}

fn as_documented(page: &str) -> Described {
    let row = Regex::new(r"(?m)^\| `(weir_\w+)` \| (\w+) \| ([^|]*)\|").unwrap();
    let listener = [
        "namespace",
        "name",
        "protocol",
        "address",
        "port",
        "family",
        "mark",
    ];
    let labels = |cell: &str| {
        let words = cell
            .split(',')
            .map(|word| word.trim().trim_matches('`'))
            .filter(|word| !word.is_empty());
        let (short, written): (Vec<_>, Vec<_>) = words.partition(|word| *word == "listener");
        let spelled = short.iter().flat_map(|_| listener);
        written.into_iter().chain(spelled).map(str::to_owned).collect()
    };
    row.captures_iter(page)
        .map(|found| (found[1].to_owned(), (found[2].to_owned(), labels(&found[3]))))
        .collect()
}

#[test]
fn every_metric_is_documented_with_its_type_and_labels_and_the_other_way_round() {
    let metrics = Metrics::default();
    metrics.passed(CHANGE, &Ok(pass()));
    metrics.took("some", Duration::from_millis(3));
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut all = as_told(&told(&metrics, PerRealServer::On));
    all.extend(as_told(&encoded(&controller_registry(
        &ControllerMetrics::default(),
    ))));
    assert_eq!(all, as_documented(&page));
}
