//! The lab's library: a cluster of network namespaces on a real kernel, and ways to look at it from outside.
//!
//! Everything here runs inside the lab's VM (`docs/lab.md`), except [`remote`], with which a test on the host drives a VM.
//!
//! | file | what |
//! | --- | --- |
//! | `netns` | a network namespace: act in it on a thread of its own, start programs in it |
//! | `route` | links, addresses, routes, neighbours by netlink, each function the equal of an `ip` command |
//! | `topology` | a switch, a client, two directors, three real servers, cabled and addressed |
//! | `server` | answers with its node's name: TCP, UDP, SCTP |
//! | `fleet` | agents on nodes, with one folder of manifests |
//! | `traces` | everything a node's network holds, as text |
//! | `client` | who answered how often; connections held open; the length of an outage |
//! | `sniff` | frames as they pass an interface; who answers ARP or neighbour solicitations for an address |
//! | `execd`, `remote` | run commands in the VM from a test on the host: the daemon and its client |
//! | `agent` | an agent on a node of the VM, for Kubernetes |
//! | `nodes` | Kubernetes nodes in the VM, which run pods |
//! | `kube_proxy` | kube-proxy on a node of the VM |
//!
//! In `tests/lab`:
//!
//! | file | what |
//! | --- | --- |
//! | `helper.rs` | the program `lab`: all of this from a shell |
//! | `setup`, `run`, `runner`, `cargo`, `init` | the VM itself |
//!
//! # Adding a case
//!
//! Write a test in `tests/kernel`. Each test builds its own [`topology::Topology`], so that tests run side by side and none sees another's table. Mark it
//! `#[ignore = "needs the lab VM: make test-kernel"]`: on a host it then shows as ignored, never as passed, and the
//! runner includes it in the VM. Assert orders and counts, not milliseconds: the VM may be emulated.

#![allow(dead_code, reason = "each program uses another part of it")]

pub mod agent;
pub mod client;
pub mod execd;
pub mod fleet;
pub mod kube_proxy;
pub mod netns;
pub mod nodes;
pub mod remote;
pub mod route;
pub mod server;
pub mod sniff;
pub mod topology;
pub mod traces;
