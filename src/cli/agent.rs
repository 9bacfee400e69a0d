//! `weir agent`: keeps this node's table as the objects say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::agent::report::Report;
use crate::agent::{self, Agent, publish};
use crate::catalog::MarkMask;
use crate::host::{HostError, KernelHost};
use crate::ipvs::KernelTable;
use crate::ledger::{Ledger, LedgerState};
use crate::metrics::{Exposition, Listeners, Metrics, PerRealServer, agent_registry};
use crate::node::Programmer;
use crate::plan::{Directing, Node, World};
use crate::serve::{self, Vitals};
use crate::source::cache::Copies;
use crate::source::cluster::Memory;
use crate::source::{cache, cluster, folder};
use crate::telemetry::{self, LogFormat};

use super::OK;
use super::process::{Access, cancel_on_signal, duration, host_name, runtime};

/// Events of a source that may wait for the agent.
const EVENTS: usize = 256;

/// Keep this node's IPVS table as the objects say
///
/// Reads VirtualServices, RealServers and DirectorGroups from a folder of manifests or from the Kubernetes API,
/// programs what this node should have, and repairs what others change. Entries that Weir did not make are left
/// alone. When the agent stops, the table stays as it is.
#[derive(Debug, Args)]
pub(super) struct AgentArguments {
    /// Read objects from this folder instead of the Kubernetes API
    ///
    /// Files ending in .yaml, .yml or .json directly in it; changes are noticed.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArguments,
    #[command(flatten)]
    state: StateArguments,
    /// How often to compare the whole table with what it should be
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    audit_interval: Duration,
    /// Own the whole table: delete every entry that no object asks for, whoever made it
    #[arg(long)]
    exclusive: bool,
    /// Serve /metrics, /healthz and /readyz on this address, such as [::]:9440
    #[arg(long, value_name = "ADDRESS:PORT", env = "WEIR_LISTEN")]
    listen: Option<SocketAddr>,
    /// Which real servers have metrics of their own
    #[arg(long, value_enum, default_value_t, env = "WEIR_METRICS_PER_REAL_SERVER")]
    metrics_per_real_server: PerRealServer,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "WEIR_LOG_FORMAT")]
    log_format: LogFormat,
}

/// Which node this is.
#[derive(Debug, Clone, Args)]
pub(super) struct NodeArguments {
    /// This node's name; the host name if not given
    #[arg(long, value_name = "NAME", env = "WEIR_NODE_NAME")]
    node_name: Option<String>,
    /// This node's labels where no Kubernetes API says them, such as weir.dev/role=director
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label, env = "WEIR_NODE_LABELS")]
    node_labels: Vec<(String, String)>,
    /// What this node may be
    #[arg(long, value_enum, default_value_t, env = "WEIR_ROLE")]
    role: RoleArgument,
    /// The bits of packet marks that Weir may set, the same on all directors
    ///
    /// For groups of listeners and ranges of ports. A mark of Weir's has no other bits.
    #[arg(long, value_name = "BITS", default_value_t, env = "WEIR_MARK_MASK")]
    pub(super) mark_mask: MarkMask,
}

/// What a node may be.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum RoleArgument {
    /// Director where a DirectorGroup says so, or where there is none; real server where a RealServer says so
    #[default]
    Auto,
    /// Real server only
    #[value(name = "realserver")]
    RealServer,
}

impl RoleArgument {
    fn directing(self) -> Directing {
        match self {
            Self::Auto => Directing::AlsoAlone,
            Self::RealServer => Directing::Never,
        }
    }
}

/// Where Weir keeps what must survive a restart.
#[derive(Debug, Clone, Args)]
pub(super) struct StateArguments {
    /// The folder for what must survive a restart: which entries are Weir's, and the last good objects
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/weir",
        env = "WEIR_STATE_DIR"
    )]
    pub(super) state_dir: PathBuf,
    /// Where the settings of /proc/sys/net can be written, if not there
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/proc/sys/net",
        env = "WEIR_SYSCTL_ROOT"
    )]
    sysctl_root: PathBuf,
}

impl NodeArguments {
    /// The node, for planning without a Kubernetes API.
    pub(super) fn node(&self) -> anyhow::Result<Node> {
        Ok(Node {
            name: self.name()?,
            labels: self.node_labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            directing: self.role.directing(),
        })
    }

    fn name(&self) -> anyhow::Result<String> {
        match &self.node_name {
            Some(name) => Ok(name.clone()),
            None => host_name("--node-name"),
        }
    }
}

impl AgentArguments {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        telemetry::init(self.log_format);
        runtime()?.block_on(self.serve())?;
        Ok(OK)
    }

    async fn serve(self) -> anyhow::Result<()> {
        let mut node = self.node.node()?;
        if self.manifests.is_none() && node.directing == Directing::AlsoAlone {
            node.directing = Directing::InGroups;
        }
        let node_name = node.name.clone();
        let store = KernelTable::open()?;
        let (ledger, found) = Ledger::open(&self.state.state_dir)?;
        let host = self.state.host()?;
        if let Some(warning) = self.state.damage(found) {
            warn!("{warning}");
        }
        info!(
            node = node_name,
            version = env!("CARGO_PKG_VERSION"),
            "weir agent"
        );

        let shutdown = CancellationToken::new();
        cancel_on_signal(&shutdown)?;
        let (events, received) = mpsc::channel(EVENTS);
        let (reports, published) = watch::channel(Report::default());
        let (metrics, vitals) = (Metrics::default(), Vitals::new());
        if let Some(address) = self.listen {
            let registry = self.registry(&node_name, &metrics, published.clone())?;
            let (listener, exposition) = (serve::bind(address).await?, Exposition::new(registry));
            tokio::spawn(serve::serve(
                listener,
                vitals.clone(),
                exposition,
                shutdown.clone(),
            ));
        }
        let world = World::new(node, self.node.mark_mask);
        let programmer = Programmer::new(store, host, ledger, self.exclusive);
        let heard = agent::listen(shutdown.clone());
        let agent = Agent::new(world, programmer, self.audit_interval, reports)
            .watched_by(metrics, vitals)
            .hearing(heard);

        match self.manifests {
            Some(folder) => {
                let agent = agent.run(received, shutdown.clone());
                let copies = Copies::new(&self.state.state_dir, &folder);
                let source = folder::watch(folder, Some(copies), events, shutdown.clone());
                let ((), ()) = tokio::join!(agent, source);
            }
            None => {
                let way_out = "run in a pod, set KUBECONFIG, or name a folder with --manifests";
                let access = Access::infer(way_out).await?;
                let (reading, writing) = (access.reading()?, access.writing()?);
                let (wants, wanted) = watch::channel(false);
                let agent = agent.asking_for_endpoints(wants).run(received, shutdown.clone());
                let (found, recorder, writer) = cache::open(&self.state.state_dir, &node_name);
                let memory = Memory { found, recorder };
                let source = cluster::watch(reading, &node_name, memory, wanted, events, shutdown.clone());
                let writer = writer.run(shutdown.clone());
                let publisher = publish::publish(writing, &node_name, published, shutdown.clone());
                let ((), (), (), ()) = tokio::join!(agent, source, writer, publisher);
            }
        }
        info!("stopped; the table stays as it is");
        Ok(())
    }

    /// What is told of this agent. Scrapes have a connection of their own to the kernel.
    fn registry(
        &self,
        node: &str,
        metrics: &Metrics,
        reports: watch::Receiver<Report>,
    ) -> anyhow::Result<Registry> {
        let (table, state_dir) = (KernelTable::open()?, &self.state.state_dir);
        let listeners = Listeners::new(table, state_dir, self.metrics_per_real_server);
        Ok(agent_registry(node, metrics, reports, listeners))
    }
}

impl StateArguments {
    /// The node around the table.
    pub(super) fn host(&self) -> Result<KernelHost, HostError> {
        KernelHost::open(&self.sysctl_root, &self.state_dir)
    }

    /// What has to be known about the state in which a ledger was found.
    pub(super) fn damage(&self, found: LedgerState) -> Option<String> {
        match found {
            LedgerState::Whole | LedgerState::New => None,
            LedgerState::Torn { lines } => Some(format!(
                "the ledger in {} had {lines} damaged line(s): what they recorded is not known to be Weir's and will \
                 not be deleted, unless it is wanted again",
                self.state_dir.display()
            )),
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write a label as KEY=VALUE")?;
    if key.is_empty() {
        Err("a label needs a key".to_owned())
    } else {
        Ok((key.to_owned(), value.to_owned()))
    }
}
