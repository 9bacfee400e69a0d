//! Weir: a Kubernetes-native load balancer on the Linux kernel's own IPVS.
//!
//! ```text
//!  Kubernetes API ─┐                            roles, timeouts, addresses …
//!                  ├─► source ─► Catalog ─► World ─► plan ─► Plan ─┐
//!  manifest folder ┘   (I/O)     (value)             (pure)        ├─► settle ─► Desired ─┐
//!                                       phases: who leaves, until ─┘    (pure)             │
//!                                                                                         ├─► diff ─► Steps
//!      kernel: the table, and the node around it (netlink, files) ─► Current ─────────────┘  (pure)     │
//!                                                                                                       ▼
//!  again: on any change, on a timer, after a failure ◄── Report ◄── Memory ◄── Pass ◄── apply ◄── ledger (before, after)
//!                                                          └─► log, NodeState, metrics
//! ```
//!
//! The table is one half of a node's part. What has to be true around it, so that packets come to it and answers find
//! their way, is the other: [`host`] makes one state of what all virtual services need, and takes the steps to it partly
//! before and partly after the table changes, so that no node announces a VIP before it is ready.
//!
//! Each arrow is a function, each noun a type. A pass never trusts what the last one did: it reads what it is about
//! to change, one virtual service's entries for one changed object, everything in the course of an audit. The agent,
//! `weir plan`, `weir apply`, `weir check` and the controller plan by the same function, and the first three come to their
//! steps by the same ones, so that what `plan` prints is what `apply` does.
//!
//! | module | what | |
//! | --- | --- | --- |
//! | [`api`] | the resources: serde, schema, rules | pure |
//! | [`source`] | where objects come from: a manifest folder, the Kubernetes API | I/O |
//! | [`catalog`] | all objects as indexed values | pure |
//! | [`plan`] | all objects, the node and its network → what it should have, and findings | pure |
//! | [`phases`] | what takes time: draining, announcing again, retries | pure |
//! | [`node`] | what it should have and what it has → steps, taken and remembered | pure but for `programmer`, `worker`, `inspect` |
//! | [`ipvs`] | the table as a value, its difference, its bytes, the kernel's and one in memory | pure but for `netlink` |
//! | [`host`] | the node around the table: VIPs, ARP suppression, tunnels, settings | pure but for `kernel` and what it is made of |
//! | [`nft`] | nftables: rulesets as values, their difference, their bytes, the kernel's | pure but for `netlink` |
//! | [`netlink`] | messages, attributes, one connection, a monitor, one packet socket | pure but for `connection`, `monitor`, `socket`, `packet` |
//! | [`ledger`] | which entries of the kernel are ours | I/O |
//! | [`agent`] | what to reconcile, and when; what is told of it | driver |
//! | [`controller`] | all nodes' reports → the status of each object | driver; pure but for `source`, `write` |
//! | [`metrics`], [`serve`] | what a process tells Prometheus; the HTTP server for that | I/O |
//! | [`cli`], [`telemetry`] | the command line; logs | |
//! | [`digest`], [`causes`] | a digest that is the same everywhere; an error with its causes | pure |
//! | [`durable`] | files that outlast a crash | I/O |
//!
//! Start with [`agent`], then [`plan`], then [`node`], then [`ipvs::diff`] and [`host::diff`].

pub mod agent;
pub mod api;
pub mod catalog;
pub mod causes;
pub mod cli;
pub mod controller;
pub mod digest;
pub mod durable;
pub mod host;
pub mod ipvs;
pub mod ledger;
pub mod metrics;
pub mod netlink;
pub mod nft;
pub mod node;
pub mod phases;
pub mod plan;
pub mod serve;
pub mod source;
pub mod telemetry;
