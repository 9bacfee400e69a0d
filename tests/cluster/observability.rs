//! What Weir tells Prometheus: that it is documented, that Prometheus and its linter take it, that alerts fire when they
//! should, and that every query of the dashboards finds something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::lab::execd::Call;
use crate::lab::remote::{Boot, Vm};
use crate::poll::{eventually, within};
use regex::Regex;
use serde_json::Value;

/// Where agents serve their metrics in their nodes.
const PORT: u16 = 9440;
/// Nodes with agents, and their addresses on the host's side.
const NODES: [(&str, &str); 3] = [("d1", "10.0.2.101"), ("d2", "10.0.2.102"), ("rs1", "10.0.2.111")];
const TIMEOUT: Duration = Duration::from_secs(60);

/// Something of everything that metrics tell of: listeners by address and by mark, real servers that take connections and that do not, an object
/// that is wrong, and one that the kernel refuses.
const MANIFESTS: &str = "
apiVersion: weir.dev/v1alpha1
kind: DirectorGroup
metadata: {name: edge}
spec:
  nodeSelector: {matchLabels: {weir.dev/role: director}}
  failover: {type: Static, static: {activeNode: d1}}
---
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  addresses: [10.0.0.200]
  directorGroupRef: {name: edge}
  forwarding: {method: DirectRoute}
  listeners: [{name: http, protocol: TCP, port: 80}]
  backends: [{name: web, realServers: {selector: {matchLabels: {app: web}}}}]
---
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: pair, namespace: shop}
spec:
  addresses: [10.0.0.201]
  directorGroupRef: {name: edge}
  groupListeners: true
  forwarding: {method: DirectRoute}
  listeners: [{name: http, protocol: TCP, port: 80}, {name: https, protocol: TCP, port: 443}]
  backends: [{name: web, realServers: {selector: {matchLabels: {app: web}}}}]
---
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: refused, namespace: shop}
spec:
  addresses: [10.0.0.202]
  directorGroupRef: {name: edge}
  scheduler: {algorithm: twos}
  listeners: [{name: http, protocol: TCP, port: 80}]
  backends: [{name: web, realServers: {selector: {matchLabels: {app: nothing}}}}]
---
apiVersion: weir.dev/v1alpha1
kind: RealServer
metadata: {name: rs1, namespace: shop, labels: {app: web}}
spec: {address: 10.0.0.11}
---
apiVersion: weir.dev/v1alpha1
kind: RealServer
metadata: {name: rs2, namespace: shop, labels: {app: web}}
spec: {address: 10.0.0.12, weight: 0}
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every alert: its name and its rule.
fn alerts() -> BTreeMap<String, Value> {
    let rules: Value = serde_saphyr::from_str(&text("charts/weir/alerts/weir.yaml")).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule.clone()))
        .collect()
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let heading = Regex::new(r"(?m)^## (Weir\w+)$").unwrap();
    let page = text("docs/alerts.md");
    let explained: BTreeSet<String> = heading
        .captures_iter(&page)
        .map(|found| found[1].to_owned())
        .collect();
    let alerts = alerts();
    assert_eq!(explained, alerts.keys().cloned().collect());
    for (name, rule) in alerts {
        let annotations = &rule["annotations"];
        assert_eq!(
            annotations["runbook_url"],
            format!("docs/alerts.md#{}", name.to_lowercase())
        );
        assert!(annotations["summary"].is_string(), "{name}");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
    }
}

/// For each alert there is a test in which it fires and one in which it does not.
#[test]
fn every_alert_is_tested_both_ways() {
    let tests: Value = serde_saphyr::from_str(&text("tests/data/alerts.yaml")).unwrap();
    let cases = tests["tests"].as_array().unwrap().iter();
    let cases = cases.flat_map(|test| test["alert_rule_test"].as_array().unwrap());
    let tested: BTreeSet<(String, bool)> = cases
        .map(|case| {
            let fires = !case["exp_alerts"].as_array().unwrap().is_empty();
            (case["alertname"].as_str().unwrap().to_owned(), fires)
        })
        .collect();
    let wanted = alerts()
        .into_keys()
        .flat_map(|name| [(name.clone(), true), (name, false)]);
    assert_eq!(tested, wanted.collect());
}

/// The folder with Prometheus' programs.
fn prometheus_programs() -> PathBuf {
    let output = Command::new(root().join("tests/tools/prometheus"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Runs promtool with an input, and hands back what it printed.
///
/// # Panics
///
/// When it finds anything wrong.
#[track_caller]
fn promtool(words: &[&str], input: &str) -> String {
    let mut promtool = Command::new(prometheus_programs().join("promtool"));
    promtool.args(words).current_dir(root()).stdin(Stdio::piped());
    let mut promtool = promtool
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    assert!(output.status.success(), "promtool {words:?}: {printed}");
    printed
}

#[test]
#[ignore = "needs Prometheus: make test-observability"]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(&["check", "rules", "charts/weir/alerts/weir.yaml"], "");
    promtool(&["test", "rules", "tests/data/alerts.yaml"], "");
}

/// Agents on two directors and a real server, and a Prometheus on the host that scrapes them.
struct Observed {
    vm: Vm,
    prometheus: Child,
    port: u16,
    agents: BTreeMap<&'static str, u16>,
    _folder: tempfile::TempDir,
}

impl Drop for Observed {
    fn drop(&mut self) {
        let _ = self.prometheus.kill();
        let _ = self.prometheus.wait();
    }
}

impl Observed {
    fn start() -> Self {
        let agents: BTreeMap<&str, u16> = NODES.map(|(node, _)| (node, free_port())).into();
        let forwards = NODES.map(|(node, address)| (agents[node], format!("{address}:{PORT}")));
        let vm = Vm::boot(&Boot {
            forwards: forwards.into(),
            ..Boot::default()
        });
        // What an agent should complain of.
        vm.sh(
            "d1",
            "nft 'add table arp site; add chain arp site in { type filter hook input priority 0; }; \
             add rule arp site in arp daddr ip 10.0.0.200 drop'",
        );
        for (node, _) in NODES {
            vm.put(&format!("/etc/weir/{node}/all.yaml"), MANIFESTS);
            start_agent(&vm, node);
        }
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let prometheus = start_prometheus(folder.path(), port, agents.values().copied());
        let observed = Self {
            vm,
            prometheus,
            port,
            agents,
            _folder: folder,
        };
        eventually(TIMEOUT, "Prometheus has seen every agent twice", || {
            let seen = observed.query("count(count_over_time(weir_build_info[1m]) >= 2)")?;
            (seen.first()?["value"][1] == "3").then_some(())
        });
        observed
    }

    /// A query's result; nothing while Prometheus does not answer yet.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let answer = get(self.port, &format!("/api/v1/query?query={}", encoded(expression)))?;
        // While it starts it says so in plain words.
        let answer: Value = serde_json::from_str(&answer).ok()?;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        Some(answer["data"]["result"].as_array().unwrap().clone())
    }

    /// Waits until a query finds something.
    #[track_caller]
    fn finds(&self, what: &str, expression: &str) {
        let found = within(TIMEOUT, || {
            self.query(expression).filter(|found| !found.is_empty())
        });
        assert!(found.is_some(), "{what}: nothing is found by {expression}");
    }
}

fn start_agent(vm: &Vm, node: &str) {
    let role = if node.starts_with('d') {
        "director"
    } else {
        "server"
    };
    let (folder, state) = (format!("/etc/weir/{node}"), format!("/run/weir-{node}"));
    let labels = format!("weir.dev/role={role}");
    let listen = format!("0.0.0.0:{PORT}");
    let words = [
        "weir",
        "agent",
        "--manifests",
        &folder,
        "--state-dir",
        &state,
        "--node-name",
        node,
        "--node-labels",
        &labels,
        "--audit-interval",
        "1s",
        "--listen",
        &listen,
    ];
    vm.start_with(Call {
        netns: Some(node.to_owned()),
        argv: words.map(str::to_owned).into(),
        ..Call::default()
    });
}

/// Starts a Prometheus with the alerts. As a PodMonitor does, it has a namespace of its own for what it scrapes.
fn start_prometheus(folder: &Path, port: u16, agents: impl Iterator<Item = u16>) -> Child {
    let targets: Vec<String> = agents.map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let configuration = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n\
         - job_name: weir-system/weir-agent\n  honor_labels: true\n  static_configs:\n  \
         - {{targets: [{}], labels: {{namespace: weir-system}}}}\n",
        root().join("charts/weir/alerts/weir.yaml").display(),
        targets.join(", ")
    );
    let path = folder.join("prometheus.yml");
    fs::write(&path, configuration).unwrap();
    let log = fs::File::create(folder.join("log")).unwrap();
    Command::new(prometheus_programs().join("prometheus"))
        .arg(format!("--config.file={}", path.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The body of what a server on the host answers; HTTP/1.0, so that it comes in one piece.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// The queries of a dashboard, with the title of their panel, and those of its variables.
fn dashboard(file: &str) -> (Vec<(String, String)>, Vec<String>) {
    let board: Value = serde_json::from_str(&text(&format!("charts/weir/dashboards/{file}"))).unwrap();
    let panels = board["panels"].as_array().unwrap().iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(move |target| (title.to_owned(), target["expr"].as_str().unwrap().to_owned()))
    });
    let variables = board["templating"]["list"].as_array().unwrap().iter();
    let variables = variables.filter(|variable| variable["type"] == "query");
    let variables = variables.map(|variable| variable["query"].as_str().unwrap().to_owned());
    (panels.collect(), variables.collect())
}

/// What a person would choose in the dashboards.
fn chosen(query: &str) -> String {
    let values = [
        ("$namespace", "shop"),
        ("$name", "web"),
        ("$node", "d1"),
        ("$__rate_interval", "1m"),
    ];
    values.iter().fold(query.to_owned(), |query, (name, value)| {
        query.replace(name, value)
    })
}

#[test]
#[ignore = "needs QEMU and Prometheus: make test-observability"]
fn prometheus_finds_what_alerts_and_dashboards_ask_for() {
    let observed = Observed::start();
    // Somebody else deletes an entry, so that an audit has something to repair.
    let delete = || {
        observed
            .vm
            .run(Some("d1"), &["ipvsadm", "-D", "-t", "10.0.0.200:80"])
    };
    eventually(TIMEOUT, "web is programmed", || {
        (delete().status == 0).then_some(())
    });
    observed.finds(
        "drift",
        "weir_kernel_drift_corrections_total{kind=\"added\", node=\"d1\"} > 0",
    );

    let _server = observed.vm.start(Some("rs1"), &["lab", "serve", "rs1", "80"]);
    let ask = || {
        observed
            .vm
            .run(Some("client"), &["lab", "client", "10.0.0.201:80"])
    };
    eventually(TIMEOUT, "clients are answered", || {
        ask().stdout.contains("9  rs1").then_some(())
    });
    let counted = "weir_listener_connections_total{namespace=\"shop\", name=\"pair\", mark!=\"\"} >= 9";
    observed.finds("what the kernel counted", counted);

    for (node, port) in &observed.agents {
        eventually(TIMEOUT, node, || (get(*port, "/readyz")? == "ok\n").then_some(()));
    }
    let page = get(observed.agents["d1"], "/metrics").unwrap();
    let remarks = promtool(&["check", "metrics"], &page);
    assert_eq!(remarks, "", "the linter's remarks on\n{page}");

    let label_values = Regex::new(r"^label_values\((.*), (\w+)\)$").unwrap();
    for file in ["fleet.json", "virtual-service.json", "node.json"] {
        let (panels, variables) = dashboard(file);
        for (title, query) in panels {
            observed.finds(&format!("{file}: {title}"), &chosen(&query));
        }
        for variable in variables {
            let found = label_values.captures(&variable).unwrap();
            let values = format!("count by ({}) ({})", &found[2], chosen(&found[1]));
            observed.finds(&format!("{file}: variable"), &values);
        }
    }

    let selector = Regex::new(r"weir_\w+(\{[^}]*\})?").unwrap();
    for (name, rule) in alerts() {
        let expression = rule["expr"].as_str().unwrap();
        observed.query(expression).unwrap();
        for selected in selector.find_iter(expression) {
            observed.finds(&name, selected.as_str());
        }
    }
    for alert in ["WeirProgrammingFailing", "WeirInvalidConfig", "WeirNodeObstacle"] {
        observed.finds(alert, &format!("ALERTS{{alertname=\"{alert}\"}}"));
    }
}
