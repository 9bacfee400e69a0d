//! The command line where no kernel is needed: what it prints, and how it ends.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(path)
        .display()
        .to_string()
}

#[test]
fn good_manifests_end_with_0_and_a_count() {
    let output = weir(&["check", "-f", &repository("deploy/examples")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).starts_with("9 objects in 3 files: good"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_wrong_manifest_ends_with_1_and_shows_the_place_without_colours() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    let wrong = "apiVersion: weir.dev/v1alpha1\nkind: RealServer\nmetadata: {name: rs1}\nspec: {address: 10.0.0.300}\n";
    fs::write(&file, wrong).unwrap();
    let output = weir(&["check", "-f", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("web.yaml:4:17") && errors.contains("not an IP address"),
        "{errors}"
    );
    assert!(!errors.contains('\u{1b}'), "colours are for terminals");
}

#[test]
fn manifests_come_from_standard_input_as_well() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["check", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let manifest = fs::read(repository("deploy/examples/director-group.yaml")).unwrap();
    child.stdin.take().unwrap().write_all(&manifest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        text(&output.stdout).starts_with("1 object in 1 file: good"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let output = weir(&["check", "-f", "/nosuch/web.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("/nosuch/web.yaml"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    for arguments in [
        ["plan", "--nosuch", "x", "y"].as_slice(),
        &["check"],
        &["agent", "--audit-interval", "5"],
        &["agent", "--node-labels", "role"],
    ] {
        let output = weir(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    assert!(text(&weir(&["agent", "--audit-interval", "5"]).stderr).contains("such as 500ms, 2s"));
}

#[test]
fn the_definitions_are_printed_as_they_are_checked_in() {
    let output = weir(&["crds"]);
    for kind in ["virtualservices", "realservers", "directorgroups", "nodestates"] {
        let file = fs::read_to_string(repository(&format!("crds/{kind}.yaml"))).unwrap();
        assert!(text(&output.stdout).contains(&file), "{kind}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("crds")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn every_command_and_option_has_help() {
    let commands = ["agent", "plan", "apply", "check", "table", "crds", "completions"];
    let overview = weir(&["--help"]);
    for command in commands {
        assert!(
            text(&overview.stdout).contains(&format!("\n  {command} ")),
            "{command}"
        );
        let help = weir(&[command, "--help"]);
        let help = text(&help.stdout);
        assert!(help.lines().next().is_some_and(|line| line.len() > 20), "{help}");
        // An option with nothing below it would be followed at once by the next.
        let lines: Vec<&str> = help.lines().collect();
        for pair in lines.windows(2) {
            let is_option = pair[0].trim_start().starts_with('-');
            assert!(
                !is_option || pair[1].starts_with("          ") || pair[0].contains("  Print"),
                "{}",
                pair[0]
            );
        }
    }
}

#[test]
fn completions_are_printed_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = weir(&["completions", shell]);
        assert!(text(&output.stdout).contains("node-labels"), "{shell}");
    }
}
