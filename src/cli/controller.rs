//! `weir controller`: writes the status of all objects.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::controller::{self, Clients, Settings};
use crate::metrics::{ControllerMetrics, Exposition, controller_registry};
use crate::serve::{self, Vitals};
use crate::telemetry::{self, LogFormat};

use super::OK;
use super::process::{Access, cancel_on_signal, duration, host_name, runtime};

/// Write the status of all objects from what the agents report
///
/// Runs in the cluster, one for all nodes: conditions, events, and the finalizer that holds a deleted RealServer until its
/// connections have ended. Of several replicas the one that holds the Lease `weir-controller` writes; another takes
/// over when it is silent. No traffic depends on it.
#[derive(Debug, Args)]
pub(super) struct ControllerArguments {
    /// The namespace of the Lease
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "WEIR_LEASE_NAMESPACE",
        default_value = "weir-system"
    )]
    lease_namespace: String,
    /// A name that no other replica has; the host name if not given, which is the pod's
    #[arg(long, value_name = "NAME", env = "WEIR_IDENTITY")]
    identity: Option<String>,
    /// How long what a node's agent said is kept when the node is gone
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    forget_after: Duration,
    /// Serve metrics and health on this address, such as [::]:9440
    #[arg(long, value_name = "ADDRESS:PORT", env = "WEIR_LISTEN")]
    listen: Option<SocketAddr>,
    /// Take the finalizer off every RealServer, and end
    ///
    /// Before or after uninstalling: without a controller nobody else would, and a deleted RealServer would stay for ever.
    #[arg(long)]
    release: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "WEIR_LOG_FORMAT")]
    log_format: LogFormat,
}

impl ControllerArguments {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        telemetry::init(self.log_format);
        runtime()?.block_on(self.serve())?;
        Ok(OK)
    }

    async fn serve(self) -> anyhow::Result<()> {
        let access = Access::infer("run in a pod, or set KUBECONFIG").await?;
        if self.release {
            let released = controller::release(access.writing()?).await?;
            info!("the finalizer is off {released} RealServers");
            return Ok(());
        }
        let identity = match self.identity {
            Some(identity) => identity,
            None => host_name("--identity")?,
        };
        info!(identity, version = env!("CARGO_PKG_VERSION"), "weir controller");
        let shutdown = CancellationToken::new();
        cancel_on_signal(&shutdown)?;
        let clients = Clients {
            reading: access.reading()?,
            writing: access.writing()?,
            electing: access.writing()?,
        };
        let settings = Settings {
            identity,
            lease_namespace: self.lease_namespace,
            forget_after: self.forget_after,
        };
        let (metrics, vitals) = (ControllerMetrics::default(), Vitals::new());
        if let Some(address) = self.listen {
            let exposition = Exposition::new(controller_registry(&metrics));
            let listener = serve::bind(address).await?;
            tokio::spawn(serve::serve(
                listener,
                vitals.clone(),
                exposition,
                shutdown.clone(),
            ));
        }
        controller::run(clients, settings, (metrics, vitals), shutdown).await;
        info!("stopped");
        Ok(())
    }
}
