//! One node's side: from a plan to what the node's kernel holds.
//!
//! ```text
//! Plan ───────────────┐
//!                     ├─► settle ─► Desired ─┐
//! Phases (who leaves) ┘                      ├─► diff ─► Steps ─► ledger ─► kernel ─► Pass ─► Memory ─► Summary
//! kernel ─► Current ─────────────────────────┘
//! ```
//!
//! `weir plan` shows the [`Steps`] that [`Programmer::preview`] comes to, and `weir apply` and the agent take the same ones.
//! A pass never trusts the one before: it reads from the kernel what it is about to change. One over some virtual services
//! reads only theirs, so that its cost does not grow with the table.
//!
//! | file | what | |
//! | --- | --- | --- |
//! | `work` | what is asked of the node, and what became of it | pure |
//! | `settle` | a plan, and what is there → what there should be, those who leave included | pure |
//! | `steps` | what there should be, and what is there → steps in order | pure |
//! | `globals` | the same for what a node has once | pure but for its `apply` |
//! | `memory` | what a node knows between passes, and what is to be told of it | pure |
//! | `table_digest` | what a table holds, as digests | pure |
//! | `inspect` | what about a node stands in the way, without a table | I/O |
//! | `programmer` | one pass: reads, settles, applies, remembers | I/O |
//! | `read`, `apply`, `remember` | its steps, but for `settle` | I/O |
//! | `worker` | the programmer beside the agent's loop | I/O |

mod apply;
mod globals;
mod inspect;
mod memory;
mod programmer;
mod read;
mod remember;
mod settle;
mod steps;
mod table_digest;
#[cfg(test)]
mod tests;
mod work;
mod worker;

pub use globals::{CurrentGlobals, GlobalChange, GlobalFailure};
pub use inspect::inspect;
pub use memory::{Numbers, RefusedChange, Summary};
pub use programmer::{Cause, PassError, Possession, Preview, Programmer};
pub use settle::{Current, Desired};
pub use steps::{Rights, Steps, diff};
pub use table_digest::TableDigest;
pub use work::{AroundWork, Failed, Leavers, Pass, TableWork, Undone, Work};
pub use worker::{Looked, Passed, Reply, Request, Worker};
