//! `weir agent`, `plan` and `apply` with a folder of manifests on a real kernel: what works goes on working whatever
//! is wrong beside it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::lab::netns::Netns;
use crate::poll::within;
use crate::process::Process;
use rustix::process::Signal;
use tempfile::TempDir;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const TIMEOUT: Duration = Duration::from_secs(30);

const WEB: &str = "
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  addresses: [10.0.0.200]
  listeners: [{name: http, protocol: TCP, port: 80}]
  forwarding: {method: DirectRoute}
  backends: [{name: web, realServers: {selector: {matchLabels: {app: web}}}}]
---
apiVersion: weir.dev/v1alpha1
kind: RealServer
metadata: {name: rs1, namespace: shop, labels: {app: web}}
spec: {address: 10.0.0.11}
";

/// The entries of [`WEB`] as `weir table` lists them.
const WEB_ENTRIES: [&str; 2] = [
    "TCP  10.0.0.200:80 wlc",
    "  -> 10.0.0.11:80                 Route   1",
];

fn another_service(name: &str, port: u16, rest: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         addresses: [10.0.0.200]\n  listeners: [{{name: one, protocol: TCP, port: {port}}}]\n  {rest}\n"
    )
}

/// A host with a folder of manifests and a state directory.
struct Host {
    netns: Netns,
    folder: TempDir,
    state: TempDir,
}

impl Host {
    fn new() -> Self {
        let netns = Netns::new("host");
        netns.sh("ip link set lo up");
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Self { netns, folder, state }
    }

    /// Puts a file into the folder as editors and GitOps tools do: written beside it, then renamed.
    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let temporary = path.with_extension("new");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn agent(&self) -> Process {
        self.agent_auditing("1s")
    }

    fn agent_auditing(&self, interval: &str) -> Process {
        let mut command = Command::new(WEIR);
        command.args([
            "agent",
            "--node-name",
            "host",
            "--audit-interval",
            interval,
            "--manifests",
        ]);
        self.netns.spawn(
            command
                .arg(self.folder.path())
                .arg("--state-dir")
                .arg(self.state.path()),
        )
    }

    /// Runs `weir plan` or `weir apply` on the folder: status, output, errors.
    fn once(&self, act: &str, more: &[&str]) -> (i32, String, String) {
        let (folder, state) = (self.folder.path().display(), self.state.path().display());
        let words = [
            WEIR,
            act,
            "-f",
            &folder.to_string(),
            "--state-dir",
            &state.to_string(),
        ];
        let output = self.netns.output(&[&words, more].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn table(&self) -> String {
        self.netns.sh(&format!("{WEIR} table"))
    }

    #[track_caller]
    fn eventually(&self, agent: &Process, what: &str, is_so: impl Fn(&str) -> bool) {
        let seen = within(TIMEOUT, || is_so(&self.table()).then_some(()));
        assert!(
            seen.is_some(),
            "{what}; the table is\n{}\nthe log is\n{}",
            self.table(),
            agent.log()
        );
    }

    #[track_caller]
    fn eventually_serves_web(&self, agent: &Process) {
        self.eventually(agent, "web is programmed", |table| {
            WEB_ENTRIES.iter().all(|line| table.contains(line))
        });
    }
}

/// What a person does wrong in a second file, and what the agent says of it; web goes on, and so does a third file
/// that comes later.
fn goes_on(wrong: &str, said: &[&str]) {
    let host = Host::new();
    host.write("web.yaml", WEB);
    let mut agent = host.agent();
    host.eventually_serves_web(&agent);
    host.write("wrong.yaml", wrong);
    for words in said {
        agent.wait_for_log(TIMEOUT, words);
    }
    host.write(
        "later.yaml",
        &another_service("later", 8080, "scheduler: {algorithm: rr}"),
    );
    host.eventually(&agent, "what comes later is programmed", |table| {
        table.contains("TCP  10.0.0.200:8080 rr")
    });
    host.eventually_serves_web(&agent);
    assert!(agent.ended().is_none());
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_syntax_error_is_shown_with_its_place() {
    goes_on(
        "kind: VirtualService\nmetadata: {name: [\n",
        &["wrong.yaml:2:18", "unclosed bracket"],
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn an_unknown_field_is_named_with_a_suggestion() {
    let wrong = another_service("wrong", 81, "schedular: {algorithm: rr}");
    goes_on(
        &wrong,
        &[
            "spec.schedular: unknown field",
            "wrong.yaml:7:3",
            "did you mean `scheduler`?",
        ],
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn an_address_that_is_none_is_shown_with_its_place() {
    let wrong = another_service("wrong", 81, "fallback: {address: 10.0.0.300}");
    goes_on(
        &wrong,
        &["spec.fallback.address: not an IP address", "wrong.yaml:7:23"],
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn of_two_services_with_the_same_key_one_has_it_and_the_other_says_who() {
    let said = "VirtualService shop/zweb: TCP 10.0.0.200:80 belongs to VirtualService shop/web";
    goes_on(
        &another_service("zweb", 80, "scheduler: {algorithm: rr}"),
        &[said],
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_destination_of_the_wrong_family_is_named() {
    let wrong = "apiVersion: weir.dev/v1alpha1\nkind: RealServer\nmetadata: {name: rs6, namespace: shop, labels: {app: web}}\n\
                 spec: {address: fd00::11}\n";
    goes_on(
        wrong,
        &[
            "RealServer shop/rs6: spec.address: fd00::11 is IPv6, but VirtualService shop/web has no IPv6 address",
        ],
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_scheduler_that_the_kernel_lacks_is_named_with_its_module() {
    let has_twos = !Netns::current()
        .sh("find /lib/modules -name 'ip_vs_twos*'")
        .is_empty();
    let wrong = another_service("wrong", 81, "scheduler: {algorithm: twos}");
    if has_twos {
        goes_on(&wrong, &["the kernel's table has been changed"]);
    } else {
        goes_on(
            &wrong,
            &["cannot add service TCP 10.0.0.200:81", "modprobe ip_vs_twos"],
        );
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_folder_that_vanishes_takes_nothing_away_and_heals() {
    let host = Host::new();
    host.write("web.yaml", WEB);
    let mut agent = host.agent();
    host.eventually_serves_web(&agent);
    let away = host.state.path().join("away");
    fs::rename(host.folder.path(), &away).unwrap();
    agent.wait_for_log(TIMEOUT, "ERROR");
    // An audit in between finds nothing to delete either.
    host.netns.sh("ipvsadm -d -t 10.0.0.200:80 -r 10.0.0.11:80");
    host.eventually_serves_web(&agent);
    fs::write(away.join("web.yaml"), WEB.replace("10.0.0.11", "10.0.0.12")).unwrap();
    fs::rename(&away, host.folder.path()).unwrap();
    host.eventually(&agent, "the folder is read again", |table| {
        table.contains("10.0.0.12:80")
    });
    agent.wait_for_log(TIMEOUT, "no longer");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_manifest_that_breaks_while_the_agent_is_down_takes_nothing_away() {
    let host = Host::new();
    host.write("web.yaml", WEB);
    host.write(
        "other.yaml",
        &another_service("other", 81, "scheduler: {algorithm: rr}"),
    );
    let mut agent = host.agent();
    host.eventually(&agent, "both are programmed", |table| {
        table.matches("10.0.0.200:8").count() == 2
    });
    agent.stop();
    host.write("web.yaml", "apiVersion: [");
    fs::remove_file(host.path("other.yaml")).unwrap();
    let mut agent = host.agent();
    agent.wait_for_log(
        TIMEOUT,
        "nothing is deleted until every object has been read once",
    );
    host.write(
        "later.yaml",
        &another_service("later", 8080, "scheduler: {algorithm: rr}"),
    );
    host.eventually(
        &agent,
        "what comes later is programmed, and nothing gone",
        |table| table.contains("10.0.0.200:8080") && table.matches("10.0.0.200:8").count() == 3,
    );
    // Mended, and everything is as it should be: what went while the agent was down goes.
    host.write("web.yaml", WEB);
    host.eventually(&agent, "the other service is deleted", |table| {
        !table.contains("10.0.0.200:81")
    });
    host.eventually_serves_web(&agent);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn what_others_do_to_our_entries_is_repaired_and_to_theirs_is_not() {
    let host = Host::new();
    host.write("web.yaml", WEB);
    host.netns.sh("ipvsadm -A -t 10.9.9.9:9 -s rr");
    let mut agent = host.agent();
    host.eventually_serves_web(&agent);
    for vandalism in [
        "ipvsadm -D -t 10.0.0.200:80",
        "ipvsadm -d -t 10.0.0.200:80 -r 10.0.0.11:80",
        "ipvsadm -e -t 10.0.0.200:80 -r 10.0.0.11:80 -m -w 9",
        "ipvsadm -E -t 10.0.0.200:80 -s rr",
    ] {
        host.netns.sh(vandalism);
        host.eventually_serves_web(&agent);
    }
    host.netns.sh("ipvsadm -a -t 10.0.0.200:80 -r 10.0.0.99:80 -g");
    host.eventually(&agent, "a destination that nobody wants goes", |table| {
        !table.contains("10.0.0.99")
    });
    host.netns.sh("ipvsadm -E -t 10.9.9.9:9 -s wrr");
    fs::remove_file(host.path("web.yaml")).unwrap();
    host.eventually(&agent, "web is deleted", |table| !table.contains("10.0.0.200"));
    assert!(host.table().contains("TCP  10.9.9.9:9 wrr"), "{}", host.table());
    agent.wait_for_log(TIMEOUT, "has been repaired");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn an_agent_that_is_killed_leaves_the_table_and_the_next_one_owns_it() {
    let host = Host::new();
    host.write("web.yaml", WEB);
    let mut agent = host.agent();
    host.eventually_serves_web(&agent);
    agent.signal(Signal::KILL);
    within(TIMEOUT, || agent.ended()).unwrap();
    assert!(WEB_ENTRIES.iter().all(|line| host.table().contains(line)));
    fs::remove_file(host.path("web.yaml")).unwrap();
    let agent = host.agent();
    host.eventually(&agent, "what is no longer wanted goes", |table| {
        !table.contains("10.0.0.200")
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_plan_tells_what_apply_then_does_and_nothing_is_left_to_do() {
    let host = Host::new();
    host.write("web.yaml", WEB);
    let (status, plan, _) = host.once("plan", &["--detailed-exitcode"]);
    assert_eq!(status, 3);
    assert_eq!(
        plan,
        "+ TCP 10.0.0.200:80 wlc\n\
         +   -> 10.0.0.11:80               DirectRoute weight 1\n\
         ~ net.ipv4.vs.expire_nodest_conn = 1\n\
         ~ net.ipv4.vs.expire_quiescent_template = 1\n\
         Plan: 1 service to add, 0 to change, 0 to delete; 1 destination to add, 0 to change, 0 to delete; \
         2 steps around the table.\n"
    );
    assert!(!host.table().contains("10.0.0.200"), "a plan changes nothing");
    let (status, applied, _) = host.once("apply", &[]);
    assert_eq!(
        (status, applied.lines().last()),
        (0, Some("4 changes applied, 0 refused."))
    );
    let (status, plan, _) = host.once("plan", &["--detailed-exitcode"]);
    assert_eq!((status, plan.lines().count()), (0, 1));

    host.write(
        "web.yaml",
        &WEB.replace("{address: 10.0.0.11}", "{address: 10.0.0.11, weight: 0}"),
    );
    host.netns.sh("ipvsadm -a -t 10.0.0.200:80 -r 10.0.0.12:80 -g");
    let (_, plan, _) = host.once("plan", &[]);
    assert_eq!(
        plan.lines().take(3).collect::<Vec<_>>(),
        [
            "  TCP 10.0.0.200:80",
            "~   -> 10.0.0.11:80               DirectRoute weight 1 → 0",
            "-   -> 10.0.0.12:80               DirectRoute weight 1",
        ]
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn apply_with_a_broken_manifest_does_the_rest_and_deletes_nothing() {
    let host = Host::new();
    host.write("web.yaml", WEB);
    assert_eq!(host.once("apply", &[]).0, 0);
    host.write("web.yaml", "kind: [");
    host.write(
        "other.yaml",
        &another_service("other", 81, "scheduler: {algorithm: rr}"),
    );
    let (status, _, errors) = host.once("apply", &[]);
    assert_eq!(status, 1);
    assert!(
        errors.contains("web.yaml:1") && errors.contains("left out"),
        "{errors}"
    );
    let table = host.table();
    assert!(
        WEB_ENTRIES.iter().all(|line| table.contains(line)) && table.contains("10.0.0.200:81"),
        "{table}"
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_node_that_does_not_balance_is_told_why_nothing_is_planned() {
    let host = Host::new();
    host.write("web.yaml", WEB);
    let group = "apiVersion: weir.dev/v1alpha1\nkind: DirectorGroup\nmetadata: {name: default}\nspec: {nodeSelector: {}, \
                 failover: {type: Static, static: {activeNode: d1}}}\n";
    host.write("group.yaml", group);
    let (_, plan, errors) = host.once("plan", &["--node-name", "d2"]);
    assert!(plan.contains("0 services to add"), "{plan}");
    assert!(
        errors.contains("this node, d2, stands by in DirectorGroup default"),
        "{errors}"
    );
    let (_, plan, errors) = host.once("plan", &["--node-name", "d1"]);
    assert!(
        plan.contains("1 service to add") && !errors.contains("note:"),
        "{plan}{errors}"
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_flushed_table_comes_back_long_before_the_audit() {
    let host = Host::new();
    host.write("web.yaml", WEB);
    host.write(
        "other.yaml",
        &another_service("other", 81, "scheduler: {algorithm: rr}"),
    );
    let agent = host.agent_auditing("1h");
    let both =
        |table: &str| WEB_ENTRIES.iter().all(|line| table.contains(line)) && table.contains("10.0.0.200:81");
    host.eventually(&agent, "both are served", both);
    for flush in ["ipvsadm -C", "ipvsadm -D -t 10.0.0.200:80"] {
        host.netns.sh(flush);
        host.eventually(&agent, flush, both);
    }
    assert_eq!(
        agent.log().matches("has been repaired").count(),
        2,
        "{}",
        agent.log()
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn two_agents_do_not_share_a_state_directory() {
    let host = Host::new();
    host.write("web.yaml", WEB);
    let agent = host.agent();
    host.eventually_serves_web(&agent);
    let (status, _, errors) = host.once("apply", &[]);
    assert_eq!(status, 1);
    assert!(errors.contains("in use by another weir process"), "{errors}");
}
