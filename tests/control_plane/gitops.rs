//! What Argo CD, Flux and Helm say of an object's health: Argo CD's own Lua, Flux' CEL, and kstatus, by which Flux and Helm 4
//! wait.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use crate::control_plane::{program, succeeded};
use crate::rendered::{documents, kustomize, names, objects, path, read};
use cel::{Context, Program};
use serde_json::Value;
use weir::api::{DirectorGroup, RealServer, VirtualService};

/// An object and what is to be said of it.
struct Case {
    file: String,
    object: Value,
    status: String,
    message: String,
}

/// The cases of `deploy/argocd/health_test.yaml`.
fn cases() -> Vec<Case> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let listed = documents(&read("deploy/argocd/health_test.yaml")).remove(0);
    let case = |case: &Value| {
        let file = text(&case["inputPath"]);
        Case {
            object: documents(&read(&format!("deploy/argocd/{file}"))).remove(0),
            file,
            status: text(&case["healthStatus"]["status"]),
            message: text(&case["healthStatus"]["message"]),
        }
    };
    listed["tests"].as_array().unwrap().iter().map(case).collect()
}

#[test]
fn every_case_is_an_object_of_weirs_and_no_file_is_left_out() {
    let cases = cases();
    for Case { file, object, .. } in &cases {
        let object = object.clone();
        let read = match object["kind"].as_str().unwrap() {
            "VirtualService" => serde_json::from_value::<VirtualService>(object).map(drop),
            "RealServer" => serde_json::from_value::<RealServer>(object).map(drop),
            "DirectorGroup" => serde_json::from_value::<DirectorGroup>(object).map(drop),
            kind => panic!("{file}: {kind}"),
        };
        read.unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let files = names("deploy/argocd/testdata")
        .into_iter()
        .map(|name| format!("testdata/{name}"));
    let mut listed: Vec<_> = cases.into_iter().map(|case| case.file).collect();
    listed.sort();
    assert_eq!(listed, files.collect::<Vec<_>>());
}

/// A value as Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(lua).collect();
            format!("{{{}}}", items.join(", "))
        }
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| format!("[{name:?}] = {}", lua(value));
            let members: Vec<_> = members.iter().map(member).collect();
            format!("{{{}}}", members.join(", "))
        }
        // Numbers, truth values and ASCII strings are written as in JSON.
        plain => plain.to_string(),
    }
}

/// Runs health.lua on an object and returns its status and its message.
fn health(object: &Value) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("run.lua");
    let health = path("deploy/argocd/health.lua");
    // Argo CD gives scripts no library but these and its own os.
    let run = format!(
        "obj = {}\nlocal print, dofile = print, dofile\n\
         string, math, io, debug, coroutine, channel, os = nil, nil, nil, nil, nil, nil, nil\n\
         local health = dofile({health:?})\nprint(health.status)\nprint(health.message)\n",
        lua(object)
    );
    fs::write(&script, run).unwrap();
    let output = Command::new(program("glua")).arg(&script).output().unwrap();
    let printed = succeeded(&output);
    let (status, message) = printed
        .split_once('\n')
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (status.to_owned(), message.trim_end().to_owned())
}

#[test]
#[ignore = "needs Argo CD's Lua: make test-control-plane"]
fn argo_cd_sees_the_health_of_each_case() {
    for case in cases() {
        assert_eq!(health(&case.object), (case.status, case.message), "{}", case.file);
    }
}

#[test]
#[ignore = "needs kubectl: make test-control-plane"]
fn argo_cds_configuration_gets_the_health_check_for_each_kind() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let root = "../".repeat(folder.components().count() - 1) + path("deploy/argocd").trim_start_matches('/');
    // As Argo CD's own manifests are: its installation gives them their namespace.
    let configuration = "{apiVersion: v1, kind: ConfigMap, metadata: {name: argocd-cm}, \
                         data: {url: https://argocd.example}}";
    fs::write(folder.join("argocd-cm.yaml"), configuration).unwrap();
    let kustomization = format!("{{namespace: argocd, resources: [argocd-cm.yaml], components: [{root}]}}");
    fs::write(folder.join("kustomization.yaml"), kustomization).unwrap();

    let rendered = objects(&kustomize(&folder));
    let key = (
        "ConfigMap".to_owned(),
        "argocd".to_owned(),
        "argocd-cm".to_owned(),
    );
    let data = rendered[&key]["data"].as_object().unwrap();
    assert_eq!(data["url"], "https://argocd.example");
    let script = read("deploy/argocd/health.lua");
    for kind in ["DirectorGroup", "RealServer", "VirtualService"] {
        assert_eq!(
            data[&format!("resource.customizations.health.weir.dev_{kind}")],
            script
        );
    }
}

/// Objects as the controller has left them, which tests/control_plane/controller.rs records, and what kstatus and Argo CD say of them.
const RECORDED: [(&str, &str, &str); 12] = [
    ("directorgroup_ready", "Current", "Healthy"),
    ("directorgroup_without_director", "Failed", "Degraded"),
    ("realserver_draining", "Terminating", "Progressing"),
    ("realserver_ready", "Current", "Healthy"),
    ("virtualservice_in_conflict", "Failed", "Degraded"),
    ("virtualservice_new", "InProgress", "Progressing"),
    // A Service may come any moment. Argo CD and Flux' expressions know better.
    ("virtualservice_of_a_missing_service", "InProgress", "Degraded"),
    ("virtualservice_pending", "InProgress", "Progressing"),
    ("virtualservice_ready", "Current", "Healthy"),
    ("virtualservice_that_is_edited", "InProgress", "Progressing"),
    ("virtualservice_that_the_kernel_refuses", "Failed", "Degraded"),
    ("virtualservice_without_director", "Failed", "Degraded"),
];

fn recorded() -> Vec<Value> {
    let files: Vec<_> = names("tests/data/recorded").into_iter().collect();
    assert_eq!(files, RECORDED.map(|(file, ..)| format!("{file}.json")));
    let object = |(file, ..): (&str, &str, &str)| {
        serde_json::from_str(&read(&format!("tests/data/recorded/{file}.json"))).unwrap()
    };
    RECORDED.map(object).into()
}

#[test]
#[ignore = "needs kstatus: make test-control-plane"]
fn kstatus_sees_the_health_of_what_the_controller_writes_and_says_why_it_failed() {
    let objects = recorded();
    let mut kstatus = Command::new(program("kstatus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = Value::from(objects.clone()).to_string();
    kstatus.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let printed = succeeded(&kstatus.wait_with_output().unwrap());
    let said = printed
        .lines()
        .map(|line| serde_json::from_str::<[String; 2]>(line).unwrap());
    let mut seen = 0;
    for ((object, (file, expected, _)), [status, message]) in objects.iter().zip(RECORDED).zip(said) {
        assert_eq!(status, expected, "{file}: {message}");
        if status == "Failed" {
            let conditions = object["status"]["conditions"].as_array().unwrap();
            let stalled = conditions.iter().find(|condition| condition["type"] == "Stalled");
            assert_eq!(message, stalled.unwrap()["message"], "{file}");
        }
        seen += 1;
    }
    assert_eq!(seen, RECORDED.len());
}

#[test]
#[ignore = "needs Argo CD's Lua: make test-control-plane"]
fn argo_cd_sees_the_health_of_what_the_controller_writes() {
    for (object, (file, _, expected)) in recorded().iter().zip(RECORDED) {
        assert_eq!(health(object).0, expected, "{file}");
    }
}

/// Whether an expression holds of an object, whose members are its variables; if one of them is not there, Flux waits.
fn holds(expression: &Value, object: &Value) -> bool {
    let expression = expression.as_str().unwrap();
    let program = Program::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut context = Context::default();
    for (name, value) in object.as_object().unwrap() {
        context.add_variable(name.as_str(), value).unwrap();
    }
    matches!(program.execute(&context), Ok(cel::Value::Bool(true)))
}

/// What Flux says of an object, in the words of Argo CD.
fn flux(expressions: &[Value], object: &Value) -> &'static str {
    let kind = &object["kind"];
    let of_kind = expressions
        .iter()
        .find(|expressions| expressions["kind"] == *kind);
    let of_kind = of_kind.unwrap_or_else(|| panic!("{kind}"));
    assert_eq!(of_kind["apiVersion"], object["apiVersion"]);
    // The order in which Flux asks.
    if holds(&of_kind["inProgress"], object) {
        "Progressing"
    } else if holds(&of_kind["failed"], object) {
        "Degraded"
    } else if holds(&of_kind["current"], object) {
        "Healthy"
    } else {
        "Progressing"
    }
}

#[test]
fn flux_sees_the_same_health_in_each_case() {
    let documents = documents(&read("deploy/flux/services.yaml"));
    let expressions = documents[1]["spec"]["healthCheckExprs"].as_array().unwrap();
    for case in cases() {
        assert_eq!(flux(expressions, &case.object), case.status, "{}", case.file);
    }
    for (object, (file, _, expected)) in recorded().iter().zip(RECORDED) {
        assert_eq!(flux(expressions, object), expected, "{file}");
    }
}
