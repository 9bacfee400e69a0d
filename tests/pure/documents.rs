//! What the documents show is true: their manifests are good, their commands and links are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::walk;
use regex::Regex;
use weir::source::manifest;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let top = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name));
    let files = docs
        .chain(top)
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    files
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn manifests_in_documents_are_good() {
    let block = Regex::new(r"(?s)```yaml\n(.*?)```").unwrap();
    let mut seen = 0;
    for (path, text) in documents() {
        for found in block
            .captures_iter(&text)
            .filter(|found| found[1].contains("weir.dev/"))
        {
            let name: Arc<str> = path.to_string_lossy().into();
            let read = manifest::read(&name, found[1].as_bytes());
            assert!(read.diagnostics.is_empty(), "{}", read.diagnostics[0]);
            seen += read.objects.len();
        }
    }
    assert!(seen >= 2, "the README's first manifest");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#]+)\)").unwrap();
    for (path, text) in documents() {
        for found in link
            .captures_iter(&text)
            .filter(|found| !found[1].contains("://"))
        {
            let target = path.parent().unwrap().join(&found[1]);
            assert!(target.exists(), "{}: {}", path.display(), &found[1]);
        }
    }
}

/// The page on direct routing says for each of its claims which test shows it: each of these is there and runs in the VM,
/// and none is left out.
#[test]
fn what_is_said_to_be_shown_is_shown_and_the_other_way_round() {
    let page = fs::read_to_string(root().join("docs/direct-routing.md")).unwrap();
    let cell = Regex::new(r"`kernel::([\w:]+)::(\w+)`").unwrap();
    let said: BTreeSet<(String, String)> = cell
        .captures_iter(&page)
        .map(|found| (found[1].to_owned(), found[2].to_owned()))
        .collect();
    let modules: BTreeSet<&str> = said.iter().map(|(module, _)| &**module).collect();
    assert!(modules.len() > 5);
    let written_out = Regex::new(r#"#\[ignore = "needs the lab VM: make test-kernel"\]\nfn (\w+)"#).unwrap();
    // The tunnels are lines of a table.
    let tabled = Regex::new(r"(?m)^ {4}(\w+): VIP").unwrap();
    let mut there = BTreeSet::new();
    for module in modules {
        let file = root().join(format!("tests/kernel/{}.rs", module.replace("::", "/")));
        let text = fs::read_to_string(file).unwrap();
        let names = written_out
            .captures_iter(&text)
            .chain(tabled.captures_iter(&text));
        there.extend(names.map(|found| (module.to_owned(), found[1].to_owned())));
    }
    assert_eq!(said, there);
}

/// What is typed in docs/kubernetes.md has been typed: the test with real nodes takes every step of the walk, in its order,
/// and so does the demo.
#[test]
fn every_step_of_the_walk_is_taken() {
    let steps = walk::steps();
    assert!(steps.iter().all(|step| !step.commands.is_empty()), "{steps:?}");
    let headings: Vec<&str> = steps.iter().map(|step| &*step.heading).collect();
    let taking = Regex::new(r#"\.(?:takes_step|tells|tells_while_clients_ask)\(\s*"([^"]+)""#).unwrap();
    for walker in ["tests/cluster/real_nodes.rs", "demo/kubernetes.rs"] {
        let source = fs::read_to_string(root().join(walker)).unwrap();
        let taken = taking.captures_iter(&source);
        let taken: Vec<&str> = taken.map(|found| found.get(1).unwrap().as_str()).collect();
        assert_eq!(taken, headings, "{walker}");
    }
}

/// Reasons are for programs to tell apart, so that the list of them is closed, and documented.
#[test]
fn every_reason_of_a_condition_is_documented_and_the_other_way_round() {
    let source = fs::read_to_string(root().join("src/controller/conditions.rs")).unwrap();
    let (_, of_reasons) = source.split_once("impl Why {").unwrap();
    let word = Regex::new(r#"Self::\w+ => "(\w+)""#).unwrap();
    let there: BTreeSet<&str> = word
        .captures_iter(of_reasons)
        .map(|found| found.get(1).unwrap().as_str())
        .collect();
    let page = fs::read_to_string(root().join("docs/kubernetes.md")).unwrap();
    let row = Regex::new(r"(?m)^\| `\w+` \| ([^|]*) \|").unwrap();
    let (_, page) = page.split_once("| condition | reasons | says |").unwrap();
    let (table, _) = page.split_once("\n\n").unwrap();
    let cell = Regex::new(r"`(\w+)`").unwrap();
    let mut said = BTreeSet::new();
    for found in row.captures_iter(table) {
        let words = found.get(1).unwrap().as_str();
        // Of `Ready` and `Stalled` the reasons are those of others.
        let words = words.split(" or that of").next().unwrap_or_default();
        let words = words.split("that of").next().unwrap_or_default();
        said.extend(
            cell.captures_iter(words)
                .map(|found| found.get(1).unwrap().as_str()),
        );
    }
    assert!(said.len() > 20, "{said:?}");
    assert_eq!(said, there);
}

#[test]
fn make_targets_that_documents_name_are_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let target = Regex::new(r"`?make ([a-z][a-z-]+)`?").unwrap();
    for (path, text) in documents() {
        let commands = text
            .lines()
            .filter(|line| line.contains("`make ") || line.starts_with("make "));
        for found in commands.flat_map(|line| target.captures_iter(line)) {
            assert!(
                makefile.contains(&format!("\n{}:", &found[1])),
                "{}: make {}",
                path.display(),
                &found[1]
            );
        }
    }
}

#[test]
fn commands_of_weir_that_documents_name_are_understood() {
    let command = Regex::new(r"(?m)^(?:sudo )?weir ([a-z]+[^#\n]*)").unwrap();
    let mut seen = 0;
    for (path, text) in documents() {
        for found in command.captures_iter(&text) {
            // With --help the options are not carried out, but they are still read.
            let words = found[1]
                .split_whitespace()
                .take_while(|word| !matches!(*word, "|" | ">"));
            let output = Command::new(env!("CARGO_BIN_EXE_weir"))
                .args(words)
                .arg("--help")
                .output()
                .unwrap();
            assert!(output.status.success(), "{}: weir {}", path.display(), &found[1]);
            seen += 1;
        }
    }
    assert!(seen >= 5, "the README's commands");
}
