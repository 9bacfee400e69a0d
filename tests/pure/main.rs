//! What needs nothing but the programs: golden files, documents, properties, the wire's bytes, the command line.
//!
//! | module | what |
//! | --- | --- |
//! | `cases` | cases as folders, for the next three |
//! | `golden` | objects and a table in: the plan, the steps and the report out, as files |
//! | `courses` | what happens around an agent, and when: what it does, and when, as files |
//! | `manifest_golden`, `manifest_folder` | what is said of a wrong manifest, as files; folders that change |
//! | `diff_properties` | the laws of a table's difference |
//! | `wire_bytes` | IPVS's netlink messages, byte for byte |
//! | `crds` | the definitions, and what each field of them says |
//! | `cli` | what `weir` prints where no kernel is needed |
//! | `documents` | that documents and code agree |
//! | `layering` | who may import whom |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes nothing but #[test] functions for tests"
)]

#[path = "../support/everything.rs"]
mod everything;
#[path = "../support/strategies.rs"]
mod strategies;
#[path = "../support/walk.rs"]
mod walk;

mod cases;
mod cli;
mod courses;
mod crds;
mod diff_properties;
mod documents;
mod golden;
mod layering;
mod manifest_folder;
mod manifest_golden;
mod wire_bytes;
