//! Everything that takes time, and when it is due. Pure.

use std::time::{Duration, Instant};

use crate::catalog::NamespacedName;
use crate::host::{BoundAddress, HostChange};
use crate::node::{Failed, Pass};
use crate::phases::Agenda;
use crate::phases::announce::Announcements;
use crate::phases::retry::Retry;

use super::undone::UndoneByOthers;

/// Everything that takes time, and when it is due.
#[derive(Debug)]
pub(super) struct Timing {
    pub(super) agenda: Agenda<Timer>,
    pub(super) announcements: Announcements,
    pub(super) retry: Retry,
    /// What is to be tried again.
    pub(super) failed: Failed,
    pub(super) undone: UndoneByOthers,
}

/// Something that is due at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    /// A sign of life is due, though there is nothing to do.
    Beat,
    Audit,
    /// What failed is tried again.
    Retry,
    /// An entry is looked at.
    FlushCheck,
    /// A contest may be over.
    Contest,
    /// A VIP is announced again.
    Announce(BoundAddress),
    /// What has been heard of the kernel is looked at.
    Heard,
    /// What leaves of a virtual service is looked at.
    Leaving(NamespacedName),
}

impl Timing {
    /// Nothing has happened yet. No wait before another try is longer than `longest_wait`.
    pub(super) fn new(longest_wait: Duration) -> Self {
        Self {
            agenda: Agenda::default(),
            announcements: Announcements::default(),
            retry: Retry::new(longest_wait),
            failed: Failed::default(),
            undone: UndoneByOthers::default(),
        }
    }

    /// Takes in what a pass did: what it brought here is announced again, and what it repaired may be contested.
    pub(super) fn took_steps(&mut self, pass: &Pass, now: Instant) {
        for change in pass.steps.around.all() {
            match change {
                HostChange::Announce(bound) => {
                    let again = self.announcements.begin(bound, now);
                    self.agenda.set(Timer::Announce(bound.clone()), Some(again));
                }
                HostChange::DeleteAddress(bound) => {
                    self.announcements.end(bound);
                    self.agenda.set(Timer::Announce(bound.clone()), None);
                }
                _ => {}
            }
        }
        self.undone.repaired(pass, now);
    }

    /// Takes in that VIPs have been announced for another reason than their coming here.
    pub(super) fn announced(&mut self, vips: &[BoundAddress], now: Instant) {
        for bound in vips {
            let again = self.announcements.begin(bound, now);
            self.agenda.set(Timer::Announce(bound.clone()), Some(again));
        }
    }

    /// Whether a VIP is to be announced, now that its time has come.
    pub(super) fn announces(&mut self, bound: &BoundAddress, now: Instant) -> bool {
        let next = self.announcements.due(bound, now);
        if let Some(next) = next {
            self.agenda.set(Timer::Announce(bound.clone()), next.again);
        }
        next.is_some()
    }

    /// Plans another try if anything failed.
    pub(super) fn plan_retry(&mut self, anything_failed: bool, now: Instant) {
        let retry = self.retry.after(anything_failed, now);
        self.agenda.set(Timer::Retry, retry);
    }
}
