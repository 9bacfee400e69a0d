//! What needs a real API server and nodes in the lab's VM. docs/lab.md and docs/control-plane-tests.md say how to run one test.
//!
//! | module | what |
//! | --- | --- |
//! | `remote` | a VM driven from the host |
//! | `whole_line` | API server, agents on five nodes, traffic |
//! | `coexistence` | Weir and kube-proxy in IPVS mode on one node |
//! | `real_nodes` | the chart's pods on Kubernetes nodes |
//! | `observability` | Prometheus, alerts and dashboards |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "clippy takes nothing but #[test] functions for tests, which also look at the clock"
)]

#[path = "../support/control_plane/mod.rs"]
mod control_plane;
#[path = "../support/lab/mod.rs"]
mod lab;
#[path = "../support/poll.rs"]
mod poll;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/real_cluster/mod.rs"]
mod real_cluster;
#[path = "../support/walk.rs"]
mod walk;

mod coexistence;
mod observability;
mod real_nodes;
mod remote;
mod whole_line;
