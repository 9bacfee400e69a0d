//! Where the programs are: named in the environment, or built by tests/tools/build.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The path of a program such as `kube-apiserver`: that of the environment (`KUBE_APISERVER`) if it is set, else
/// the one in the cache. Nothing is built here: that takes minutes, and a test's time is limited.
pub(crate) fn path(program: &str) -> PathBuf {
    let variable = program.to_uppercase().replace('-', "_");
    match env::var_os(variable) {
        Some(path) if !path.is_empty() => path.into(),
        _ => built().join(program),
    }
}

/// The folder of the built programs; looked up once, since the key of the cache is a checksum of many lines.
fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/build");
        let output = Command::new(script)
            .arg("--check")
            .output()
            .expect("tests/tools/build runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim_end().into()
    })
}
