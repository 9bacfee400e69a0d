//! Manifests from files: what is read of each, and what is said about it. A case is a folder with an input and
//! the expected text; `UPDATE_EXPECTED=1` writes the latter anew.

use std::fmt::Write;
use std::path::Path;

use weir::source::manifest::{Manifest, read};

use super::cases::{Expectations, cases};

#[test]
fn every_manifest_is_read_as_expected() {
    let mut expectations = Expectations::new();
    for case in cases("manifest_cases") {
        expectations.compare(&case, &describe(&read_case(&case)));
    }
    expectations.hold();
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
