//! The node around the IPVS table: VIPs on links, ARP suppression, tunnels, rules, settings.
//!
//! | file | what |
//! | --- | --- |
//! | `network` | links, addresses and routes, and what planning asks of them; pure |
//! | `around` | what one virtual service needs around the table; pure |
//! | `state` | what Weir keeps true, desired and current; pure |
//! | `desired`, `rules` | what all virtual services need → the state; pure |
//! | `diff` | current and desired → steps in order; pure |
//! | `preflight` | what about the node stands in the way; pure |
//! | `change` | steps and their outcome; what a node's store can do |
//! | `announcement` | frames that tell neighbours of an address; pure |
//! | `rtnetlink` | links, addresses, routes ↔ messages; pure |
//! | `setting` | what the name of a setting says; pure |
//! | `sysctl`, `fou`, `journal` | settings; GUE ports; what they were before |
//! | `kernel` | the node itself |
//! | `memory` | a node in memory |

mod announcement;
mod around;
mod change;
mod desired;
mod diff;
mod fou;
mod journal;
mod kernel;
mod memory;
mod network;
pub mod preflight;
pub mod rtnetlink;
mod rules;
mod setting;
mod state;
mod sysctl;

pub use around::{Around, ArpSuppression, Decapsulated, Listened};
pub use change::{HostChange, HostError, HostFailure, HostStore};
pub use desired::{SYSCTLS, desired};
pub use diff::{Steps, diff};
pub use kernel::KernelHost;
pub use memory::MemoryHost;
pub use network::{Address, KUBE_PROXY_LINK, Link, Network, Route};
pub use state::{
    ArpMethod, BoundAddress, ChangedSysctl, Current, GuePort, HostState, LinkKind, TUNNEL_ADDRESS,
    TunnelKind, VIP_LINK,
};
