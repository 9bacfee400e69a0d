//! What others undo: how soon it is repaired, and what is told of it. Pure.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::host::preflight::{self, Check};
use crate::host::{HostChange, KUBE_PROXY_LINK, Network};
use crate::ipvs::ServiceKey;
use crate::node::Pass;
use crate::phases::contest::{Contests, Undone, Work};

/// What others undo.
#[derive(Debug, Default)]
pub(super) struct UndoneByOthers {
    contests: Contests,
    /// Entries of the table since the audit before, and since then.
    until_audit: Entries,
    since_audit: Entries,
}

/// Services of the table that others have deleted, or of which they have changed something else.
#[derive(Debug, Default)]
struct Entries {
    deleted: BTreeSet<ServiceKey>,
    changed: BTreeSet<ServiceKey>,
}

impl Entries {
    fn contains(&self, key: &ServiceKey) -> bool {
        self.deleted.contains(key) || self.changed.contains(key)
    }
}

impl UndoneByOthers {
    /// Takes in what a pass has repaired.
    pub(super) fn repaired(&mut self, pass: &Pass, now: Instant) {
        // One act may be over ten thousand services, which slices of an audit repair one after the other: it is a contest
        // when the same one has been repaired before.
        let mut touched = pass.undone.deleted.iter().chain(&pass.undone.changed);
        if let Some(again) =
            touched.find(|key| self.until_audit.contains(key) || self.since_audit.contains(key))
        {
            self.contests.repaired(Work::Table, again.to_string(), now);
        }
        self.since_audit.deleted.extend(&pass.undone.deleted);
        self.since_audit.changed.extend(&pass.undone.changed);
        for (work, what) in repairs_around(pass) {
            self.contests.repaired(work, what, now);
        }
    }

    /// Takes in that an audit has ended.
    pub(super) fn audited(&mut self) {
        self.until_audit = std::mem::take(&mut self.since_audit);
    }

    /// Takes in which program changed something of a kind.
    pub(super) fn seen(&mut self, work: Work, program: &str) {
        self.contests.seen(work, program);
    }

    /// When something of a kind may be repaired again, if not at once.
    pub(super) fn may_repair(&self, work: Work) -> Option<Instant> {
        self.contests.may_repair(work)
    }

    /// What is to be told of it now, and when that may be something else.
    pub(super) fn checks(
        &mut self,
        network: Option<&Network>,
        now: Instant,
    ) -> (Vec<Check>, Option<Instant>) {
        let next = self.contests.forget_ended(now);
        let mut checks: Vec<Check> = self.contests.undone().map(|undone| contested(&undone)).collect();
        if network.is_some_and(|network| network.link(KUBE_PROXY_LINK).is_some()) {
            let union = |of: fn(&Entries) -> &BTreeSet<ServiceKey>| -> Vec<ServiceKey> {
                of(&self.until_audit)
                    .union(of(&self.since_audit))
                    .copied()
                    .collect()
            };
            let (deleted, mut changed) = (
                union(|entries| &entries.deleted),
                union(|entries| &entries.changed),
            );
            changed.retain(|key| !deleted.contains(key));
            checks.extend(preflight::changed_beside_kube_proxy(&deleted, &changed));
        }
        (checks, next)
    }
}

fn contested(undone: &Undone) -> Check {
    let Undone {
        work,
        what,
        times,
        by,
        wait,
    } = undone;
    let who = match by {
        Some(program) => format!("{program} undoes"),
        None => "another program undoes".to_owned(),
    };
    Check {
        subject: work.to_string().into(),
        result: Err(format!(
            "{who} what Weir does here: {times} times by now, last \"{what}\". Weir waits {} s before it repairs that \
             again: stop one of the two, or let the other leave Weir's alone",
            wait.as_secs_f32()
        )
        .into()),
    }
}

/// What a pass repaired around the table that somebody else had undone, by the kind of work.
fn repairs_around(pass: &Pass) -> Vec<(Work, String)> {
    let mut repairs = Vec::new();
    if pass.undone.around {
        for work in [Work::Addresses, Work::Rules, Work::Sysctls] {
            let mut steps = pass.steps.around.all();
            let first = steps.find(|change| work_of(change) == Some(work));
            repairs.extend(first.map(|change| (work, change.to_string())));
        }
    }
    repairs
}

fn work_of(change: &HostChange) -> Option<Work> {
    match change {
        HostChange::AddLink { .. }
        | HostChange::DeleteLink { .. }
        | HostChange::AddAddress(_)
        | HostChange::DeleteAddress(_) => Some(Work::Addresses),
        HostChange::ChangeRules(_) => Some(Work::Rules),
        HostChange::SetSysctl { .. } | HostChange::RestoreSysctl { .. } => Some(Work::Sysctls),
        HostChange::OpenGuePort(_) | HostChange::CloseGuePort(_) | HostChange::Announce(_) => None,
    }
}
