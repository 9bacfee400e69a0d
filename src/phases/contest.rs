//! Two programs that undo each other's work: what Weir repairs is undone again, and so on, as fast as both can. Weir waits
//! longer each time, up to a minute, and says what is undone and how often.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// Repairs that are this close to each other belong together: then somebody undoes them on purpose.
const TOGETHER: Duration = Duration::from_secs(10);
/// The first wait that somebody notices; it doubles.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// How often something may be undone before it is worth a word: a person who does it by hand stops sooner.
const NOTICED: u32 = 3;

/// What somebody may undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Entries of the IPVS table.
    Table,
    /// VIPs, and links of Weir's own.
    Addresses,
    /// The nftables tables named `weir`.
    Rules,
    /// Settings.
    Sysctls,
}

impl fmt::Display for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Table => "IPVS table",
            Self::Addresses => "addresses",
            Self::Rules => "nftables, table weir",
            Self::Sysctls => "settings",
        })
    }
}

/// What is undone again and again.
#[derive(Debug, Default)]
pub struct Contests {
    contests: BTreeMap<Work, Contest>,
}

#[derive(Debug)]
struct Contest {
    /// How often it has been undone since that began.
    times: u32,
    last: Instant,
    wait: Duration,
    /// What was undone last.
    what: String,
    /// Who did it, where somebody says so.
    by: Option<String>,
}

impl Contest {
    /// When it is over, if nothing more happens.
    fn ends(&self) -> Instant {
        self.last + self.wait + TOGETHER
    }
}

/// A contest as it is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Undone {
    /// Of which work.
    pub work: Work,
    /// What was undone last.
    pub what: String,
    /// How often.
    pub times: u32,
    /// The program that does it, where it is known.
    pub by: Option<String>,
    /// How long Weir waits before it repairs it again.
    pub wait: Duration,
}

impl Contests {
    /// Takes in that something had to be repaired that nobody who may had changed.
    pub fn repaired(&mut self, work: Work, what: String, now: Instant) {
        let earlier = self.contests.remove(&work).filter(|contest| now < contest.ends());
        let contest = match earlier {
            None => Contest {
                times: 1,
                last: now,
                wait: Duration::ZERO,
                what,
                by: None,
            },
            Some(contest) => Contest {
                times: contest.times + 1,
                last: now,
                wait: (contest.wait * 2).clamp(FIRST, LONGEST),
                what,
                by: contest.by,
            },
        };
        self.contests.insert(work, contest);
    }

    /// Takes in which program changed something of a kind, if that is contested.
    pub fn seen(&mut self, work: Work, program: &str) {
        if let Some(contest) = self.contests.get_mut(&work) {
            contest.by = Some(program.to_owned());
        }
    }

    /// When something of a kind may be repaired again.
    pub fn may_repair(&self, work: Work) -> Option<Instant> {
        self.contests
            .get(&work)
            .map(|contest| contest.last + contest.wait)
    }

    /// Ends what has not been undone for long, and says when to ask again.
    pub fn forget_ended(&mut self, now: Instant) -> Option<Instant> {
        self.contests.retain(|_, contest| contest.ends() > now);
        self.contests.values().map(Contest::ends).min()
    }

    /// What is undone again and again.
    pub fn undone(&self) -> impl Iterator<Item = Undone> {
        let noticed = self
            .contests
            .iter()
            .filter(|(_, contest)| contest.times >= NOTICED);
        noticed.map(|(work, contest)| Undone {
            work: *work,
            what: contest.what.clone(),
            times: contest.times,
            by: contest.by.clone(),
            wait: contest.wait,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
    fn waits_double_up_to_a_minute_and_are_forgotten_when_it_is_over() {
        let (mut contests, mut now) = (Contests::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..10 {
            contests.repaired(Work::Rules, "add table".to_owned(), now);
            let next = contests.may_repair(Work::Rules).unwrap();
            waits.push((next - now).as_secs_f32());
            now = next;
        }
        assert_eq!(waits, [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        contests.seen(Work::Rules, "nft");
        let undone: Vec<Undone> = contests.undone().collect();
        assert_eq!((undone[0].times, undone[0].by.as_deref()), (10, Some("nft")));
        let over = contests.forget_ended(now).unwrap();
        assert_eq!(contests.forget_ended(over), None);
        assert_eq!(contests.undone().count(), 0);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
    fn what_a_person_undoes_now_and_then_is_repaired_at_once() {
        let (mut contests, start) = (Contests::default(), Instant::now());
        for minute in 0..5 {
            let now = start + Duration::from_secs(60 * minute);
            contests.repaired(Work::Table, "add service".to_owned(), now);
            assert_eq!(contests.may_repair(Work::Table), Some(now));
        }
        assert_eq!(contests.undone().count(), 0);
    }
}
