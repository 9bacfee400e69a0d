//! Where the programs are: named in the environment, or built by tests/tools/build.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
};

/// The path of a program such as `kube-apiserver`: that of the environment (`KUBE_APISERVER`) if it is set, else
/// the one in the cache. Nothing is built here: that takes minutes, and a test's time is limited.
pub(crate) fn path(program: &str) -> PathBuf {
    // Each is looked up once, since the keys of the cache are checksums of many lines.
    static FOUND: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    // A panic here leaves it whole: a program that is missing is not entered.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found
        .entry(program.to_owned())
        .or_insert_with(|| look_up(program))
        .clone()
}

fn look_up(program: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/build");
    let output = Command::new(script)
        .args(["--check", program])
        .output()
        .expect("tests/tools/build runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim_end().into()
}
