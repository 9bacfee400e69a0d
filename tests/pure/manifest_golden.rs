//! Manifests from files: what is read of each, and what is said about it. A case is a folder with an input and
//! the expected text; `UPDATE_EXPECTED=1` writes the latter anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use weir::source::manifest::{Manifest, read};

#[test]
fn every_manifest_is_read_as_expected() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let text = describe(&read_case(&case));
        let expected = case.join("expected.txt");
        if update {
            std::fs::write(&expected, text).expect("the case's folder can be written to");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n\n{}", wrong.join("\n"));
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/manifest_cases");
    let entries = std::fs::read_dir(folder).expect("the cases are beside the tests");
    let mut cases: Vec<_> = entries
        .map(|entry| entry.expect("an entry can be read").path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn read_case(case: &Path) -> Manifest {
    let input = ["input.yaml", "input.json"]
        .into_iter()
        .find(|name| case.join(name).exists())
        .expect("a case has an input");
    let content = std::fs::read(case.join(input)).expect("the input can be read");
    read(&input.into(), &content)
}

fn describe(manifest: &Manifest) -> String {
    let mut text = String::new();
    for object in &manifest.objects {
        let state = if object.form.is_some() { "" } else { ", invalid" };
        writeln!(text, "line {}: {}{state}", object.line, object.object).expect("a string takes any text");
    }
    if manifest.skipped > 0 {
        writeln!(text, "skipped: {}", manifest.skipped).expect("a string takes any text");
    }
    if manifest.has_unreadable {
        text += "something could not be read\n";
    }
    for diagnostic in &manifest.diagnostics {
        write!(text, "\n{}\n", diagnostic.draw(false)).expect("a string takes any text");
    }
    text
}
