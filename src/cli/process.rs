//! What a process that runs for long needs: a runtime, signals, a client of the Kubernetes API, a name, times.

use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::source::watch;

/// How long a connection for writes is kept that nobody needs, and how long it may take to answer.
const IDLE: Duration = Duration::from_secs(10);
const UNUSABLE: &str = "cannot use this Kubernetes configuration";

pub(super) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// How the API is reached. Each client has connections of its own.
pub(super) struct Access(kube::Config);

impl Access {
    /// The API that the environment names. `way_out` says what to do where there is none.
    pub(super) async fn infer(way_out: &str) -> anyhow::Result<Self> {
        let config = kube::Config::infer().await;
        config
            .map(Self)
            .with_context(|| format!("no Kubernetes API to read from: {way_out}"))
    }

    /// A client for watches.
    pub(super) fn reading(&self) -> anyhow::Result<Client> {
        watch::client(self.0.clone()).context(UNUSABLE)
    }

    /// A client for writes, each of which has a limit of its own. It waits as a server asks that has too much to do.
    pub(super) fn writing(&self) -> anyhow::Result<Client> {
        let mut config = self.0.clone();
        // What has been idle for so long is not tried any more: it may have died meanwhile.
        config.read_timeout = Some(IDLE);
        // What has been idle for less has the whole time for its next answer.
        config.reset_reader_on_write = true;
        Client::try_from(config).context(UNUSABLE)
    }
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
