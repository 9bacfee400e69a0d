//! What there is and what there should be → steps, in the order in which they must happen:
//!
//! ```text
//! around, before · what the node has once · the table · around, after
//! ```
//!
//! Why so, says [`crate::host::diff`], and for the table [`crate::ipvs::diff`].

use std::fmt;

use crate::host;
use crate::ipvs::{self, Change, ServiceKey, SyncDaemonRole};

use super::globals::{self, GlobalChange};
use super::settle::{Current, Desired};

/// Steps to what there should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// Around the table, before it and after it.
    pub around: host::Steps,
    /// Of what the node has once.
    pub globals: Vec<GlobalChange>,
    /// Of the table.
    pub table: Vec<Change>,
}

impl Steps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.around.is_empty() && self.globals.is_empty() && self.table.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.around.len() + self.globals.len() + self.table.len()
    }

    /// Takes those out that delete entries of the table.
    pub fn withhold_deletions(&mut self) -> Vec<Change> {
        self.table.extract_if(.., |change| change.is_deletion()).collect()
    }

    /// All of them, as words, in their order.
    pub fn words(&self) -> impl Iterator<Item = String> {
        fn words<'a, T: fmt::Display + 'a>(all: &'a [T]) -> impl Iterator<Item = String> + use<'a, T> {
            all.iter().map(ToString::to_string)
        }
        words(&self.around.before)
            .chain(words(&self.globals))
            .chain(words(&self.table))
            .chain(words(&self.around.after))
    }
}

/// What Weir may do to what there is.
#[derive(Clone, Copy)]
pub struct Rights<'a> {
    /// Whether a service of the table is ours.
    pub owns: &'a dyn Fn(&ServiceKey) -> bool,
    /// The role of the sync daemon that Weir started.
    pub sync_role: Option<SyncDaemonRole>,
    /// Whether what nobody wants may be taken away.
    pub may_delete: bool,
}

/// The steps from what there is to what there should be; of what was not read there are none. Deletions from the table
/// are among them whatever the rights: who may not make them withholds them, and knows what they were.
pub fn diff(current: &Current, desired: &Desired, rights: Rights<'_>) -> Steps {
    let around = match (&current.around, &desired.around) {
        (Some(current), Some(desired)) => host::diff(current, desired, !rights.may_delete),
        _ => host::Steps::default(),
    };
    let globals = match &current.globals {
        Some(current) => globals::diff(current, &desired.globals, rights.sync_role),
        None => Vec::new(),
    };
    Steps {
        around,
        globals,
        table: ipvs::diff(&current.table, &desired.table, rights.owns),
    }
}
