//! What needs a real API server, or Kubernetes' programs: run by `make test-control-plane`. docs/control-plane-tests.md says how
//! to run one test.
//!
//! | module | what |
//! | --- | --- |
//! | `selftest` | the control plane itself |
//! | `rules` | every rule of the resources, as manifests |
//! | `manifests`, `chart` | what a cluster is given: the plain manifests, the chart |
//! | `controller`, `api_trouble` | Weir beside an API server, and beside one in trouble |
//! | `versions` | definitions of another version than the program |
//! | `gitops` | what kstatus and Argo CD make of the resources |
//! | `rendered` | chart and plain manifests as Helm and kustomize render them |
//! | `rig` | controller and agents in this process, and what they write |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "clippy takes nothing but #[test] functions for tests, which also look at the clock"
)]

#[path = "../support/control_plane/mod.rs"]
mod control_plane;
#[path = "../support/poll.rs"]
mod poll;
#[path = "../support/process.rs"]
mod process;

mod api_trouble;
mod chart;
mod controller;
mod gitops;
mod manifests;
mod rendered;
mod rig;
mod rules;
mod selftest;
mod versions;
