//! The programmer: reads, settles, applies, remembers. It owns both halves of the kernel, and the ledger.
//!
//! ```text
//! Work ─► read ─► Read ─► settle ─► Settled ─► apply ─► Applied ─► remember ─► Pass
//! ```
//!
//! Each step takes what the step before made of it, so that none can be left out or made twice.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::catalog::NamespacedName;
use crate::host::preflight::{self};
use crate::host::{BoundAddress, HostChange, HostError, HostFailure, HostStore, Network};
use crate::ipvs::{self, IpvsError, ServiceKey, Table, TableStore};
use crate::ledger::{Entries, Ledger, LedgerError};
use crate::phases::drain::Drains;

use super::memory::{Memory, Summary};
use super::read::Read;
use super::settle::{Current, Desired, Leaving, SettledTable, settle_around, settle_table};
use super::steps::{Rights, Steps, diff};
use super::work::{Failed, Leavers, Pass, TableWork, Work};

/// Why a pass was not made, or not to its end.
#[derive(Debug, Error)]
pub enum PassError {
    /// It was not begun. What is in the kernel stays.
    #[error("nothing has been changed")]
    NotBegun(#[source] Cause),
    /// It broke off half way.
    #[error("broken off after {} steps", done.steps.len())]
    Unfinished {
        /// What had been done until then.
        done: Box<Pass>,
        /// Why it broke off.
        #[source]
        cause: Cause,
    },
}

impl PassError {
    /// Why.
    pub fn cause(&self) -> &Cause {
        let (Self::NotBegun(cause) | Self::Unfinished { cause, .. }) = self;
        cause
    }
}

/// What kept a pass from being made.
#[derive(Debug, Error)]
pub enum Cause {
    /// The kernel's table could not be read.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
    /// The node around the table could not be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Possession could not be recorded.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Who knows which services of the kernel are ours.
pub trait Possession {
    /// What is known.
    fn entries(&self) -> &Entries;
}

/// It can be written, and what is wanted be taken possession of.
impl Possession for Ledger {
    fn entries(&self) -> &Entries {
        self.entries()
    }
}

/// It was read, for whoever only looks.
impl Possession for Entries {
    fn entries(&self) -> &Entries {
        self
    }
}

/// Programs one node. Without a [`Ledger`] it can say what it would do, and not do it.
#[derive(Debug)]
pub struct Programmer<S, H, L = Ledger> {
    pub(super) store: S,
    pub(super) host: H,
    pub(super) ledger: L,
    /// Whether every service of the kernel is ours.
    pub(super) exclusive: bool,
    pub(super) memory: Memory,
    pub(super) drains: Drains,
    /// The service that was looked at last to see whether it is still there.
    pub(super) seen_last: Option<ServiceKey>,
}

/// What a pass would do.
#[derive(Debug)]
pub struct Preview {
    /// What there is.
    pub current: Current,
    /// What there would be.
    pub desired: Desired,
    /// The steps that it would take.
    pub steps: Steps,
    /// Deletions that it would leave out, because not all that is wanted is known.
    pub withheld: Vec<ipvs::Change>,
}

/// What there is, what there should be, and the steps between them.
pub(super) struct Settled {
    pub(super) work: Work,
    pub(super) keys: BTreeSet<ServiceKey>,
    pub(super) current: Current,
    pub(super) desired: Desired,
    pub(super) pass: Pass,
    /// Services that somebody else has changed.
    pub(super) disturbed: BTreeSet<ServiceKey>,
}

impl<S: TableStore, H: HostStore, L: Possession> Programmer<S, H, L> {
    /// A node of which nothing is known yet. With `exclusive` every service of the kernel is ours.
    pub fn new(store: S, host: H, ledger: L, exclusive: bool) -> Self {
        Self {
            store,
            host,
            ledger,
            exclusive,
            memory: Memory::default(),
            drains: Drains::default(),
            seen_last: None,
        }
    }

    /// Looks at the node's network, as planning needs it.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    pub fn look(&mut self) -> Result<Network, HostError> {
        let current = self.host.read(&mut std::iter::empty())?;
        let network = current.network.without_own();
        self.memory.around.network = network.clone();
        Ok(network)
    }

    /// What there is and the steps that [`Self::run`] would take, none of which is taken.
    ///
    /// # Errors
    ///
    /// The kernel could not be read.
    pub fn preview(&mut self, work: Work) -> Result<Preview, Cause> {
        self.memory.replan(&work.scope, &work.plan, work.leavers);
        let read = self.read(work)?;
        let Settled {
            current,
            desired,
            pass,
            ..
        } = self.settle(read);
        Ok(Preview {
            current,
            desired,
            steps: pass.steps,
            withheld: pass.withheld,
        })
    }

    pub(super) fn is_ours(&self, key: &ServiceKey) -> bool {
        self.exclusive || self.ledger.entries().owns(key)
    }

    /// What there should be, and the steps to it.
    fn settle(&mut self, read: Read) -> Settled {
        let Read {
            mut work,
            keys,
            current,
            inspection,
            unread_globals,
        } = read;
        let (desired, disturbed) = self.desired(&mut work, &keys, &current);
        if work.table == TableWork::Everything {
            self.memory.foreign = self.count_foreign(&current.table, &desired);
        }
        for key in &keys {
            self.memory.desired.set(*key, &desired.table);
        }
        if let (Some(inspection), Some(around), Some(wanted)) =
            (&inspection, &current.around, &desired.around)
        {
            let checks = preflight::preflight(inspection, around, wanted).into_iter();
            self.memory.around.checks = checks.filter(|check| check.result.is_err()).collect();
        }
        let rights = Rights {
            owns: &|key| self.is_ours(key),
            sync_role: self.memory.globals.sync_role,
            may_delete: work.may_delete,
        };
        let mut steps = diff(&current, &desired, rights);
        let mut pass = Pass::default();
        if !work.may_delete {
            pass.withheld = steps.withhold_deletions();
        }
        pass.steps = steps;
        pass.global_failures.extend(unread_globals);
        Settled {
            work,
            keys,
            current,
            desired,
            pass,
            disturbed,
        }
    }

    /// What there should be, and which services somebody else has changed.
    fn desired(
        &mut self,
        work: &mut Work,
        keys: &BTreeSet<ServiceKey>,
        current: &Current,
    ) -> (Desired, BTreeSet<ServiceKey>) {
        let mut leaving = match work.leavers {
            // A destination that nobody wants may be wanted after all, and keeps its weight.
            _ if !work.may_delete && work.leavers != Leavers::KeepServing => Leaving::Ignore,
            Leavers::Drain(now) => Leaving::Drains(&mut self.drains, now),
            Leavers::KeepServing => Leaving::KeepServing,
        };
        if work.table == TableWork::Nothing {
            work.plan
                .services
                .values_mut()
                .for_each(|service| service.entries.clear());
        }
        let memory = &self.memory;
        let left = |key: &ServiceKey| memory.desired.agreed(&memory.programmed, key);
        let SettledTable {
            table,
            owners,
            disturbed,
        } = settle_table(&mut work.plan, keys, &current.table, left, &mut leaving);
        let around = current.around.as_ref();
        let desired = Desired {
            table,
            owners,
            around: around.map(|around| settle_around(self.memory.around.all(), &work.plan.globals, around)),
            globals: work.plan.globals.clone(),
        };
        (desired, disturbed)
    }

    fn count_foreign(&self, current: &Table, desired: &Desired) -> usize {
        let foreign = |key: &&ServiceKey| !self.is_ours(key) && !desired.owners.contains_key(key);
        current.services.keys().filter(foreign).count()
    }
}

impl<S: TableStore, H: HostStore> Programmer<S, H> {
    /// Brings the kernel to what is planned.
    ///
    /// # Errors
    ///
    /// The kernel could not be read or the ledger not written. What the kernel refuses is no error but part of the
    /// [`Pass`].
    pub fn run(&mut self, work: Work) -> Result<Pass, PassError> {
        self.memory.replan(&work.scope, &work.plan, work.leavers);
        let read = self.read(work).map_err(PassError::NotBegun)?;
        let settled = self.settle(read);
        let settled = self.take_possession(settled).map_err(PassError::NotBegun)?;
        let applied = self.apply(settled)?;
        self.remember(applied)
    }

    /// Tells the neighbours again that VIPs are here.
    pub fn announce(&mut self, vips: &[BoundAddress]) -> Vec<HostFailure> {
        let changes: Vec<HostChange> = vips.iter().cloned().map(HostChange::Announce).collect();
        let mut failures = Vec::new();
        self.host.apply(&changes, &mut failures);
        failures
    }

    /// Whether a service that was programmed is gone: somebody has deleted it, and maybe all. Each call looks at the next
    /// one, so that it costs the same however many there are.
    pub fn misses_an_entry(&mut self) -> bool {
        self.seen_last = self.memory.programmed.after(self.seen_last.as_ref());
        let Some(key) = self.seen_last else {
            return false;
        };
        // What cannot be read is no news: the next pass says so.
        let found = self.store.read(&mut std::iter::once(key));
        found.is_ok_and(|found| found.services.is_empty())
    }

    /// What is to be told of the node.
    pub fn summary(&mut self) -> Summary {
        Summary {
            leaving: self.drains.len(),
            leaving_real_servers: self.drains.real_servers().clone(),
            ..self.memory.summary(self.ledger.entries())
        }
    }

    /// What is refused now, and is to be tried again.
    pub fn failed(&self) -> Failed {
        self.memory.failed(self.ledger.entries())
    }

    /// What planning should know of the network, if that is another than it was told last.
    pub fn take_network_news(&mut self) -> Option<Network> {
        let around = &mut self.memory.around;
        std::mem::take(&mut around.network_is_news).then(|| around.network.clone())
    }

    /// Whether anything is programmed.
    pub fn holds_entries(&self) -> bool {
        self.memory.programmed.services() > 0
    }

    /// When something that leaves should be looked at again, for each virtual service of a scope: its destinations, or what
    /// lingers of it on this node.
    pub fn leaving<'a>(
        &'a self,
        names: impl Iterator<Item = &'a NamespacedName>,
    ) -> impl Iterator<Item = (&'a NamespacedName, Option<std::time::Instant>)> {
        names.map(|name| {
            let keys = self.ledger.entries().keys_of(name);
            let looks = keys.filter_map(|key| self.drains.next_look(&key));
            (name, looks.chain(self.memory.around.lingering.ends(name)).min())
        })
    }
}
