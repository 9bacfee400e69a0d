//! What a process that runs for long needs: a runtime, signals, a client of the Kubernetes API, a name, times.

use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::source::watch::WATCH_TIMEOUT;

/// The server ends a watch after [`WATCH_TIMEOUT`] seconds; a connection silent for longer is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_TIMEOUT as u64 + 20);

pub(super) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// A client of the API that the environment names. `way_out` says what to do where there is none.
pub(super) async fn connect(way_out: &str) -> anyhow::Result<kube::Client> {
    let mut config = kube::Config::infer()
        .await
        .with_context(|| format!("no Kubernetes API to read from: {way_out}"))?;
    config.read_timeout = Some(READ_TIMEOUT);
    kube::Client::try_from(config).context("cannot use this Kubernetes configuration")
}

/// Cancels a token when the process is asked to end.
pub(super) fn cancel_on_signal(shutdown: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}

/// This host's name; where it has none, `flag` gives one.
pub(super) fn host_name(flag: &str) -> anyhow::Result<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    anyhow::ensure!(!name.is_empty(), "this host has no name: give one with {flag}");
    Ok(name)
}

/// Reads a duration as the resources write it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = api::Duration(text.to_owned())
        .parse()
        .map_err(|error| error.to_string())?;
    if duration.is_zero() {
        Err("must be longer than 0".to_owned())
    } else {
        Ok(duration)
    }
}
