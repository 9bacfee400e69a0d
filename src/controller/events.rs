//! What changed about an object → what is told of it as an event, and not too often. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::api::{Condition, ConditionStatus};
use crate::catalog::ObjectRef;

use super::cluster::Status;
use super::conditions::{Aspect, Why};

/// The same is told of an object once in this time.
const WINDOW: Duration = Duration::from_secs(300);
/// As many are told at once, and as many more each second.
const BURST: u32 = 100;
const PER_SECOND: u32 = 10;
/// More than this are not remembered: what is older than the window is forgotten first.
const REMEMBERED: usize = 10_000;

/// Something to tell of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Whether somebody should look at it.
    pub warning: bool,
    /// Why, in one word.
    pub reason: String,
    /// What it is about.
    pub action: &'static str,
    /// Why, in one sentence, and the next step.
    pub note: String,
}

/// What a change of status has to tell.
pub fn of_change(before: &Status, after: &Status) -> Vec<Told> {
    let aspects = [
        Aspect::Accepted,
        Aspect::ResolvedRefs,
        Aspect::AddressAssigned,
        Aspect::Programmed,
        Aspect::BackendsHealthy,
        Aspect::Degraded,
    ];
    let mut told: Vec<Told> = aspects
        .into_iter()
        .filter_map(|aspect| of_aspect(aspect, conditions(before), conditions(after)))
        .collect();
    if let (Some(from), Some(to)) = (active_node(before), active_node(after))
        && from != to
    {
        told.push(Told {
            warning: false,
            reason: "ActiveNodeChanged".to_owned(),
            action: Aspect::Programmed.word(),
            note: format!("{to} is active director now, in place of {from}"),
        });
    }
    told
}

fn of_aspect(aspect: Aspect, before: &[Condition], after: &[Condition]) -> Option<Told> {
    let of = |conditions: &[Condition]| -> Option<Condition> {
        conditions
            .iter()
            .find(|condition| condition.r#type == aspect.word())
            .cloned()
    };
    let (before, after) = (of(before), of(after)?);
    let is_well = |condition: &Condition| {
        let good = if aspect == Aspect::Degraded {
            ConditionStatus::False
        } else {
            ConditionStatus::True
        };
        condition.status == good
    };
    let essence = |condition: &Condition| (condition.status, condition.reason.clone());
    if before.as_ref().map(essence) == Some(essence(&after)) || after.reason == Why::Pending.word() {
        return None;
    }
    let warning = !is_well(&after);
    // That all is well from the start is told by what is programmed alone.
    let was_ill = before.as_ref().is_some_and(|before| !is_well(before));
    if !warning && !was_ill && aspect != Aspect::Programmed {
        return None;
    }
    Some(Told {
        warning,
        reason: after.reason,
        action: aspect.word(),
        note: after.message,
    })
}

fn conditions(status: &Status) -> &[Condition] {
    match status {
        Status::VirtualService(status) => &status.conditions,
        Status::RealServer(status) => &status.conditions,
        Status::DirectorGroup(status) => &status.conditions,
    }
}

fn active_node(status: &Status) -> Option<&str> {
    match status {
        Status::VirtualService(status) => status.active_node.as_deref(),
        Status::RealServer(_) | Status::DirectorGroup(_) => None,
    }
}

/// Keeps a storm from filling the API server: the same thing once in a while, and only so much at once.
#[derive(Debug)]
pub struct Limiter {
    told: HashMap<(ObjectRef, String), Instant>,
    tokens: u32,
    filled: Instant,
}

impl Limiter {
    /// Nothing has been told yet.
    pub fn new(now: Instant) -> Self {
        Self {
            told: HashMap::new(),
            tokens: BURST,
            filled: now,
        }
    }

    /// Whether this may be told now; it counts as told then.
    pub fn may_tell(&mut self, object: &ObjectRef, reason: &str, now: Instant) -> bool {
        self.refill(now);
        let key = (object.clone(), reason.to_owned());
        let is_recent = |told: &Instant| now.saturating_duration_since(*told) < WINDOW;
        if self.tokens == 0 || self.told.get(&key).is_some_and(is_recent) {
            return false;
        }
        if self.told.len() >= REMEMBERED {
            self.told.retain(|_, told| is_recent(told));
        }
        self.tokens -= 1;
        self.told.insert(key, now);
        true
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds)
                .unwrap_or(u32::MAX)
                .saturating_mul(PER_SECOND);
            self.tokens = self.tokens.saturating_add(more).min(BURST);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::VirtualServiceStatus;
    use crate::controller::conditions::{Verdict, conditions};

    fn status(active: &str, verdicts: &[Verdict]) -> Status {
        Status::VirtualService(VirtualServiceStatus {
            active_node: Some(active.to_owned()),
            conditions: conditions(verdicts, 1, &[], ""),
            ..VirtualServiceStatus::default()
        })
    }

    fn words(before: &Status, after: &Status) -> Vec<String> {
        let told = of_change(before, after).into_iter();
        told.map(|told| {
            format!(
                "{} {}",
                if told.warning { "Warning" } else { "Normal" },
                told.reason
            )
        })
        .collect()
    }

    #[test]
    fn a_life_of_a_virtual_service() {
        let none = Status::VirtualService(VirtualServiceStatus::default());
        let accepted = || Verdict::holds(Aspect::Accepted, Why::Accepted, "");
        let pending = status(
            "d1",
            &[accepted(), Verdict::fails(Aspect::Programmed, Why::Pending, "")],
        );
        let well = [
            accepted(),
            Verdict::holds(Aspect::Programmed, Why::Programmed, ""),
            Verdict::holds(Aspect::BackendsHealthy, Why::AllHealthy, ""),
        ];
        let mut ill = well.clone();
        ill[2] = Verdict::fails(Aspect::BackendsHealthy, Why::SomeUnhealthy, "2 of 3");
        let (well, ill) = (status("d1", &well), status("d1", &ill));
        assert_eq!(words(&none, &pending), [] as [&str; 0]);
        assert_eq!(words(&pending, &well), ["Normal Programmed"]);
        assert_eq!(words(&well, &ill), ["Warning SomeUnhealthy"]);
        assert_eq!(words(&ill, &well), ["Normal AllHealthy"]);
        let Status::VirtualService(mut moved) = well.clone() else {
            unreachable!()
        };
        moved.active_node = Some("d2".to_owned());
        assert_eq!(
            words(&well, &Status::VirtualService(moved)),
            ["Normal ActiveNodeChanged"]
        );
    }

    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_same_once_in_a_while_and_a_storm_in_parts() {
        let begin = start();
        let mut limiter = Limiter::new(begin);
        let object = |number: u32| ObjectRef::director_group(format!("group-{number}").into());
        assert!(limiter.may_tell(&object(0), "NoDirector", begin));
        assert!(!limiter.may_tell(&object(0), "NoDirector", begin + Duration::from_secs(299)));
        assert!(limiter.may_tell(&object(0), "Programmed", begin + Duration::from_secs(299)));
        assert!(limiter.may_tell(&object(0), "NoDirector", begin + Duration::from_secs(300)));
        let later = begin + Duration::from_secs(1000);
        let told = (0..1000)
            .filter(|number| limiter.may_tell(&object(*number), "Pending", later))
            .count();
        assert_eq!(told, 100);
        let told = (1000..2000)
            .filter(|number| limiter.may_tell(&object(*number), "Pending", later + Duration::from_secs(3)))
            .count();
        assert_eq!(told, 30);
    }
}
