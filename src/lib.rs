//! Weir: a Kubernetes-native load balancer on the Linux kernel's own IPVS.
//!
//! ```text
//!  Kubernetes API ─┐
//!                  ├─► source ─► Catalog ─► plan ─► Table ───┐
//!  manifest folder ┘   (I/O)     (value)     (pure)  │        ├─► diff ─► Vec<Change> ─► ledger ─► apply ─► Outcome
//!                              kernel: netlink dump ─► Table ─┘  (pure)                     ▲      (I/O)       │
//!                                                    │                                      │ before, after    │
//!                                                    └─► Needs ─► HostState ─┐              │                  │
//!                              kernel: links, rules, settings ─► Current ────┴─► diff ─► Steps                 │
//!                                                                                                              │
//!                           again: on any change, on a tick, after a failure ◄─── Report ─► log, NodeState ◄───┘
//! ```
//!
//! The table is one half of a node's part. What has to be true around it, so that packets come to it and answers find
//! their way, is the other: [`host`] makes one state of what all virtual services need, and takes the steps to it partly
//! before and partly after the table changes, so that nobody is heard of a VIP too early.
//!
//! Each arrow is a function, each noun a type. A pass never trusts what the last one did: it reads what it is about
//! to change, one virtual service's entries for one changed object, the whole table for the audit.
//!
//! | module | what | |
//! | --- | --- | --- |
//! | [`api`] | the resources: serde, schema, rules | pure |
//! | [`source`] | where objects come from: a manifest folder, the Kubernetes API | I/O |
//! | [`catalog`] | all objects as indexed values | pure |
//! | [`plan`] | objects and the node → what its kernel should hold, and findings | pure |
//! | [`ipvs`] | the table as a value, its difference, its bytes, the kernel's and one in memory | pure but for `netlink` |
//! | [`host`] | the node around the table: VIPs, ARP suppression, tunnels, settings | pure but for `kernel` and what it is made of |
//! | [`nft`] | nftables: rulesets as values, their difference, their bytes, the kernel's | pure but for `netlink` |
//! | [`netlink`] | messages, attributes, one connection, one packet socket | pure but for `connection`, `packet` |
//! | [`ledger`] | which entries of the kernel are ours | I/O |
//! | [`reconcile`] | one pass, and what a node knows between passes | |
//! | [`agent`] | when to pass over what | driver |
//! | [`report`] | what an agent has done, and what kept it from doing more | pure |
//! | [`status`], [`publish`] | the agent's report → NodeState | pure; I/O |
//! | [`controller`] | all nodes' reports → the status of each object | driver; pure but for `source`, `write` |
//! | [`metrics`], [`serve`] | what a process tells Prometheus; the HTTP server for that | I/O |
//! | [`cli`], [`telemetry`] | the command line; logs | |
//! | [`digest`] | a digest that is the same everywhere | pure |
//!
//! Start with [`agent`], then [`reconcile`], then [`ipvs::diff`] and [`host::diff`].

pub mod agent;
pub mod api;
pub mod catalog;
pub mod cli;
pub mod controller;
pub mod digest;
pub mod host;
pub mod ipvs;
pub mod ledger;
pub mod metrics;
pub mod netlink;
pub mod nft;
pub mod plan;
pub mod publish;
pub mod reconcile;
pub mod report;
pub mod serve;
pub mod source;
pub mod status;
pub mod telemetry;
