//! The agent's reports → its NodeState in the cluster: the latest report wins, at most one write a second, and
//! nothing is written that is already so.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::report::Report;
use super::status;
use crate::api::{API_VERSION, NodeState, NodeStateStatus};
use crate::source::watch::words;

/// Who the API server says wrote a field.
const FIELD_MANAGER: &str = "weir-agent";
/// Time between two writes.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time a write may take. The client itself would wait for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait after a failed write; waits double from [`INTERVAL`].
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Publishes reports until the token is cancelled or the agent ends.
pub async fn publish(
    client: Client,
    node_name: &str,
    mut reports: watch::Receiver<Report>,
    shutdown: CancellationToken,
) {
    let api: Api<NodeState> = Api::all(client);
    let mut written: Option<NodeStateStatus> = None;
    let mut wait = INTERVAL;
    loop {
        let status = {
            let report = reports.borrow_and_update();
            report.complete.then(|| status::node_state(&report))
        };
        let news = status.filter(|status| written.as_ref() != Some(status));
        let failed = match news {
            None => false,
            Some(status) => match write(&api, node_name, &status, written.is_none()).await {
                Ok(()) => {
                    if wait > INTERVAL {
                        info!("NodeState {node_name} can be written again");
                    }
                    (written, wait) = (Some(status), INTERVAL);
                    false
                }
                Err(error) => {
                    warn!("cannot write NodeState {node_name}: {error:#}");
                    // Somebody may have deleted it: next time the object itself is written again.
                    written = None;
                    wait = (wait * 2).min(LONGEST_WAIT);
                    true
                }
            },
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        if failed {
            continue;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = reports.changed() => if changed.is_err() { return },
        }
    }
}

/// Writes the status; the object itself first, if it may not be there.
async fn write(
    api: &Api<NodeState>,
    node_name: &str,
    status: &NodeStateStatus,
    first: bool,
) -> anyhow::Result<()> {
    let parameters = PatchParams::apply(FIELD_MANAGER);
    let object = json!({ "apiVersion": API_VERSION, "kind": "NodeState", "metadata": { "name": node_name }, "spec": {} });
    // Server-side apply would refuse all of it where the definition, of an older version, has no place for one field.
    let status = serde_json::from_value(json!([{ "op": "add", "path": "/status", "value": status }]))?;
    let write = async {
        if first {
            api.patch(node_name, &parameters.clone().force(), &Patch::Apply(object))
                .await?;
        }
        api.patch_status(node_name, &parameters, &Patch::<()>::Json(status))
            .await?;
        Ok::<(), kube::Error>(())
    };
    let answer = tokio::time::timeout(WRITE_TIMEOUT, write).await;
    answer
        .context("no answer in time")?
        .map_err(|error| anyhow!(words(&error)))
}
