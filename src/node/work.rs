//! What is asked of a node, and what became of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use crate::catalog::{NamespacedName, Scope};
use crate::host::HostFailure;
use crate::ipvs::{Change, Failure, ServiceKey};
use crate::phases::drain::Drained;
use crate::plan::Plan;

use super::globals::GlobalFailure;
use super::steps::Steps;

/// Something to bring about.
#[derive(Debug)]
pub struct Work {
    /// The virtual services that are planned.
    pub scope: Scope,
    /// Their plan.
    pub plan: Plan,
    /// How much of the table is looked at.
    pub table: TableWork,
    /// How closely the node around it is looked at.
    pub around: AroundWork,
    /// What becomes of destinations that are not wanted any more.
    pub leavers: Leavers,
    /// Whether what nobody wants may be deleted: not while something that is wanted may be unknown.
    pub may_delete: bool,
}

/// How much of the table is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableWork {
    /// Nothing: only what is around it may be another.
    Nothing,
    /// The entries of the virtual services that are planned, and those that they had.
    Planned,
    /// Which services there are that no virtual service wants: those of others are counted, those of ours deleted.
    Unwanted,
    /// All of it.
    Everything,
}

/// How closely the node around the table is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AroundWork {
    /// Only if something else is needed of it than before.
    IfNeeded,
    /// What is needed of it.
    Bring,
    /// Also what may stand in the way.
    Inspect {
        /// VIPs that kube-proxy has on its link as well.
        vips_of_kube_proxy: BTreeSet<IpAddr>,
    },
}

/// What becomes of destinations that are not wanted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leavers {
    /// They are drained, and later passes remove them. It is this time.
    Drain(Instant),
    /// Those that still serve stay without new connections, the others go: nobody comes back for them.
    KeepServing,
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// The steps it took: all changes of the table that it asked for, and of the others those that were taken.
    pub steps: Steps,
    /// Changes of the table that the kernel did not make.
    pub refused: Vec<Failure>,
    /// Steps around the table that failed.
    pub around_failures: Vec<HostFailure>,
    /// What is refused of what the node has once.
    pub global_failures: Vec<GlobalFailure>,
    /// Services that were there without being ours, and are ours now because a virtual service wants them.
    pub adopted: Vec<ServiceKey>,
    /// Deletions that were left out, because not all that is wanted is known.
    pub withheld: Vec<Change>,
    /// How the draining of destinations ended that it removed for that.
    pub drained: Vec<Drained>,
    /// What it repaired, though it was asked for nothing else than before.
    pub undone: Undone,
}

/// What somebody else had undone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undone {
    /// Services of the table that had been deleted.
    pub deleted: BTreeSet<ServiceKey>,
    /// Services of which something else had been changed.
    pub changed: BTreeSet<ServiceKey>,
    /// Whether the steps around the table are repairs.
    pub around: bool,
}

/// What is refused now, and is to be tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failed {
    /// The virtual services with entries that are refused.
    pub services: BTreeSet<NamespacedName>,
    /// Whether steps around the table are.
    pub around: bool,
    /// Whether something is that the node has once.
    pub globals: bool,
}

impl Undone {
    /// Whether anything of the table had been.
    pub fn touches_table(&self) -> bool {
        !self.deleted.is_empty() || !self.changed.is_empty()
    }
}

impl Failed {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Pass {
    /// The changes of the table that repaired what others had changed; in an audit, for which nothing was asked, all of them.
    /// Among them may be destinations that ended to drain just then.
    pub fn repairs(&self, audit: bool) -> impl Iterator<Item = &Change> {
        let Undone { deleted, changed, .. } = &self.undone;
        let is_repair = move |change: &&Change| {
            let service = change.service();
            audit || deleted.contains(service) || changed.contains(service)
        };
        let is_made = |change: &&Change| !self.refused.iter().any(|failure| failure.change == **change);
        self.steps.table.iter().filter(is_repair).filter(is_made)
    }

    /// How many steps were taken, and taken well.
    pub fn done(&self) -> usize {
        self.steps.len() - self.refused.len()
    }

    /// How many were refused.
    pub fn refusals(&self) -> usize {
        self.refused.len() + self.around_failures.len() + self.global_failures.len()
    }
}
