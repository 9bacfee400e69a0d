//! What is true of an object, as conditions. Pure: facts in, conditions out.
//!
//! kstatus reads them, and with it `kubectl wait`, Helm, Flux and Argo CD: a cause that does not go away by itself is
//! `Stalled`, since whoever waits for `Ready` alone waits for ever; what is under way is `Reconciling`. Both are there
//! only while they are true. Whether real servers are well is no part of `Ready`: an outage must not break a deployment.

use crate::api::{Condition, ConditionStatus};

/// The aspects that conditions are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// The object means something, and nobody else has what it claims.
    Accepted,
    /// What it refers to is there, and may be referred to.
    ResolvedRefs,
    /// It has its VIPs.
    AddressAssigned,
    /// The active directors have everything that it needs.
    Programmed,
    /// Its destinations take connections.
    BackendsHealthy,
    /// Something works worse than it should.
    Degraded,
    /// Clients can connect, as far as Weir is concerned.
    Ready,
    /// Something is under way.
    Reconciling,
    /// Something has to be done by somebody.
    Stalled,
}

impl Aspect {
    /// The condition's type.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::AddressAssigned => "AddressAssigned",
            Self::Programmed => "Programmed",
            Self::BackendsHealthy => "BackendsHealthy",
            Self::Degraded => "Degraded",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

/// Why a condition is as it is: a closed list, so that programs can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(
    missing_docs,
    reason = "each is its own word; docs/kubernetes.md explains them"
)]
pub enum Why {
    Accepted,
    InvalidSpec,
    PortConflict,
    Unfit,
    ResolvedRefs,
    BackendNotFound,
    RefNotPermitted,
    UnsupportedKind,
    Assigned,
    PoolNotFound,
    Programmed,
    Pending,
    NoDirector,
    NetlinkError,
    AllHealthy,
    SomeUnhealthy,
    NoneHealthy,
    NoBackends,
    AsExpected,
    DirectorNotReady,
    PreflightFailed,
    BackupMissing,
    Ready,
    Progressing,
}

impl Why {
    /// The condition's reason.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::InvalidSpec => "InvalidSpec",
            Self::PortConflict => "PortConflict",
            Self::Unfit => "Unfit",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::BackendNotFound => "BackendNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::UnsupportedKind => "UnsupportedKind",
            Self::Assigned => "Assigned",
            Self::PoolNotFound => "PoolNotFound",
            Self::Programmed => "Programmed",
            Self::Pending => "Pending",
            Self::NoDirector => "NoDirector",
            Self::NetlinkError => "NetlinkError",
            Self::AllHealthy => "AllHealthy",
            Self::SomeUnhealthy => "SomeUnhealthy",
            Self::NoneHealthy => "NoneHealthy",
            Self::NoBackends => "NoBackends",
            Self::AsExpected => "AsExpected",
            Self::DirectorNotReady => "DirectorNotReady",
            Self::PreflightFailed => "PreflightFailed",
            Self::BackupMissing => "BackupMissing",
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
        }
    }

    /// Whether it goes away by itself.
    fn passes(self) -> bool {
        self == Self::Pending
    }
}

/// What is to be said of one aspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The aspect.
    pub aspect: Aspect,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub why: Why,
    /// Why, in one sentence, and the next step.
    pub message: String,
}

impl Verdict {
    /// It holds.
    pub fn holds(aspect: Aspect, why: Why, message: impl Into<String>) -> Self {
        Self {
            aspect,
            holds: true,
            why,
            message: message.into(),
        }
    }

    /// It does not.
    pub fn fails(aspect: Aspect, why: Why, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            ..Self::holds(aspect, why, message)
        }
    }
}

/// Adds what follows from the aspects that `Ready` depends on: `Ready` itself, and `Reconciling` or `Stalled`.
pub fn conclude(mut verdicts: Vec<Verdict>) -> Vec<Verdict> {
    let gates = [Aspect::Accepted, Aspect::AddressAssigned, Aspect::Programmed];
    let missing = verdicts
        .iter()
        .find(|verdict| gates.contains(&verdict.aspect) && !verdict.holds)
        .cloned();
    match missing {
        None => verdicts.push(Verdict::holds(
            Aspect::Ready,
            Why::Ready,
            "all that is asked for is in force",
        )),
        Some(Verdict { why, message, .. }) => {
            verdicts.push(Verdict::fails(Aspect::Ready, why, message.clone()));
            verdicts.push(if why.passes() {
                Verdict::holds(Aspect::Reconciling, Why::Progressing, message)
            } else {
                Verdict::holds(Aspect::Stalled, why, message)
            });
        }
    }
    verdicts
}

/// The conditions of an object in a generation, after those it had: a time moves only with the status.
pub fn conditions(verdicts: &[Verdict], generation: i64, before: &[Condition], now: &str) -> Vec<Condition> {
    let condition = |verdict: &Verdict| {
        let status = if verdict.holds {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        let word = verdict.aspect.word();
        let same = before
            .iter()
            .find(|condition| condition.r#type == word && condition.status == status);
        Condition {
            r#type: word.to_owned(),
            status,
            observed_generation: Some(generation),
            last_transition_time: same
                .map_or_else(|| now.to_owned(), |same| same.last_transition_time.clone()),
            reason: verdict.why.word().to_owned(),
            message: verdict.message.chars().take(1024).collect(),
        }
    };
    verdicts.iter().map(condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(verdicts: Vec<Verdict>) -> Vec<String> {
        let word = |verdict: Verdict| {
            format!(
                "{}={} {}",
                verdict.aspect.word(),
                verdict.holds,
                verdict.why.word()
            )
        };
        verdicts.into_iter().map(word).collect()
    }

    #[test]
    fn what_passes_is_reconciled_and_what_does_not_is_stalled() {
        let accepted = Verdict::holds(Aspect::Accepted, Why::Accepted, "");
        let pending = Verdict::fails(Aspect::Programmed, Why::Pending, "d1 has it not yet");
        assert_eq!(
            words(conclude(vec![accepted.clone(), pending])),
            [
                "Accepted=true Accepted",
                "Programmed=false Pending",
                "Ready=false Pending",
                "Reconciling=true Progressing"
            ]
        );
        let nobody = Verdict::fails(Aspect::Programmed, Why::NoDirector, "no node");
        assert_eq!(
            words(conclude(vec![accepted, nobody])),
            [
                "Accepted=true Accepted",
                "Programmed=false NoDirector",
                "Ready=false NoDirector",
                "Stalled=true NoDirector"
            ]
        );
    }

    #[test]
    fn that_no_real_server_is_well_does_not_make_it_unready() {
        let ill = Verdict::fails(Aspect::BackendsHealthy, Why::NoneHealthy, "0 of 3");
        assert_eq!(words(conclude(vec![ill]))[1], "Ready=true Ready");
    }

    #[test]
    fn a_time_moves_with_the_status_and_not_with_the_message() {
        let ill = |message: &str| {
            [Verdict::fails(
                Aspect::BackendsHealthy,
                Why::SomeUnhealthy,
                message,
            )]
        };
        let first = conditions(&ill("2 of 3"), 1, &[], "2026-01-01T00:00:00Z");
        let second = conditions(&ill("1 of 3"), 2, &first, "2026-01-02T00:00:00Z");
        assert_eq!(second[0].last_transition_time, "2026-01-01T00:00:00Z");
        assert_eq!(
            (second[0].observed_generation, &*second[0].message),
            (Some(2), "1 of 3")
        );
        let well = [Verdict::holds(Aspect::BackendsHealthy, Why::AllHealthy, "3 of 3")];
        let third = conditions(&well, 2, &second, "2026-01-03T00:00:00Z");
        assert_eq!(third[0].last_transition_time, "2026-01-03T00:00:00Z");
    }
}
