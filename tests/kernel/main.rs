//! What needs a real kernel: run in the lab's VM by `make test-kernel`. docs/lab.md says how to run one test.
//!
//! | module | what |
//! | --- | --- |
//! | `selftest` | the lab itself |
//! | `ipvs`, `nftables` | the kernel's tables through Weir's eyes, with ipvsadm and nft as second opinions |
//! | `netlink` | the kernel's own sentences, and what it tells of others' changes |
//! | `agent` | agent, `plan` and `apply` with a folder |
//! | `direct_routing`, `tunnels`, `forwarding`, `scheduling`, `streamlined`, `draining` | what clients see |
//! | `heard` | what others undo, and how soon it is back |
//! | `host` | links, addresses and settings of a node, and whose they are |
//! | `preflight` | what stands in a node's way |
//! | `unprivileged` | a user with two capabilities |
//! | `alone` | what changes the kernel for everybody: in a VM of its own |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "clippy takes nothing but #[test] functions for tests, which also look at the clock"
)]

#[path = "../support/everything.rs"]
mod everything;
#[path = "../support/lab/mod.rs"]
mod lab;
#[path = "../support/poll.rs"]
mod poll;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/strategies.rs"]
mod strategies;

mod agent;
mod alone;
mod direct_routing;
mod draining;
mod forwarding;
mod heard;
mod host;
mod ipvs;
mod netlink;
mod nftables;
mod preflight;
mod scheduling;
mod selftest;
mod streamlined;
mod tunnels;
mod unprivileged;
