//! What the controller and an agent make of a large cluster: a real etcd and a real API server on this host, with as
//! many objects and reports of agents as [`fleet`] says.
//!
//! `make bench-scale` runs this and writes docs/scale.md. The times are this machine's, which the API server shares with
//! whatever is measured. Printed as tables in Markdown.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot run fails, and it reads the clock"
)]

#[path = "../../tests/support/control_plane/mod.rs"]
mod control_plane;
mod controller;
mod figures;
mod fleet;
mod latency;
#[path = "../../tests/support/poll.rs"]
mod poll;
#[path = "../../tests/support/process.rs"]
mod process;

use control_plane::{ControlPlane, succeeded};
use fleet::{Fleet, GROUPS, NAMESPACE, VIRTUAL_SERVICES};

/// A small cluster, to compare with.
const FEW: usize = 100;

#[tokio::main]
async fn main() {
    let control_plane = ControlPlane::start().await;
    control_plane.deploy().await;
    succeeded(&control_plane.kubectl(&["create", "namespace", NAMESPACE]).await);
    let client = control_plane.client();
    let fleet = Fleet::new(&client);
    fleet.create_groups().await;

    println!(
        "| a change of | among | whole, p50 ms | p99 | write answered, p50 | p99 | heard of, p50 | p99 | the agent's own, p50 | p99 |"
    );
    println!("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |");
    fleet.create_node(latency::NODE, 0..GROUPS).await.unwrap();
    fleet.create_virtual_services(0..FEW).await;
    latency::measure(&client, &fleet, FEW).await;
    fleet.create_virtual_services(FEW..VIRTUAL_SERVICES).await;
    latency::measure(&client, &fleet, VIRTUAL_SERVICES).await;
    fleet.delete_node(latency::NODE).await;

    controller::measure(&control_plane, &fleet).await;
}
