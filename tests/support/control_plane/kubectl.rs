//! kubectl as a user of the test's own API server.

use std::{
    path::Path,
    process::{Output, Stdio},
};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{programs, wait::limit};

/// Runs kubectl with `<folder>/admin.kubeconfig` and with this text on its standard input.
pub(crate) async fn run(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(programs::path("kubectl"));
    command
        .args(arguments)
        .env("KUBECONFIG", folder.join("admin.kubeconfig"))
        // Its caches and preferences: not the developer's, and gone with the folder.
        .env("HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run kubectl: {error}"));
    let mut stdin = child.stdin.take().expect("it was piped");

    let feed = async {
        // kubectl closes it early when it refuses its arguments, and says why in its output.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let (_, output) = timeout(limit(60), async { tokio::join!(feed, child.wait_with_output()) })
        .await
        .unwrap_or_else(|_| panic!("kubectl {arguments:?} did not end in time"));
    output.expect("kubectl is our child")
}

/// What kubectl wrote to its standard output, when it succeeded.
///
/// # Panics
/// With kubectl's own message when it did not.
#[track_caller]
pub(crate) fn succeeded(output: &Output) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    assert!(
        status.success(),
        "kubectl failed with {status}: {}",
        String::from_utf8_lossy(stderr)
    );
    String::from_utf8_lossy(stdout).into_owned()
}
