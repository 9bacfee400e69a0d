//! Marks of Weir's own: for groups of listeners and ranges of ports, which the kernel knows as one service only by a
//! mark that a rule sets on their packets.
//!
//! Every director of a group must come to the same mark, since connections that one passes to the other carry it. So
//! a mark is a function of the objects alone: it begins at a digest of its owner's name, and where two owners meet,
//! the one that was there first has it and the other takes the next that is free.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use thiserror::Error;

use crate::digest;

use super::names::NamespacedName;
use super::validated::Ports;

/// The bits of a packet's mark that Weir may set. Outside them all bits are 0 in a mark of Weir's: IPVS compares marks
/// as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkMask(u32);

/// The bits that neither kube-proxy (0x4000, 0x8000) nor the usual network plug-ins' high halves use.
impl Default for MarkMask {
    fn default() -> Self {
        Self(0x1fff)
    }
}

/// `0x1fff`.
impl fmt::Display for MarkMask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

/// A text that is no mask of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("write the bits as a number that is not 0, such as 0x1fff")]
pub struct MarkMaskError;

impl FromStr for MarkMask {
    type Err = MarkMaskError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mask = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        match mask {
            Ok(0) | Err(_) => Err(MarkMaskError),
            Ok(mask) => Ok(Self(mask)),
        }
    }
}

impl MarkMask {
    /// How many marks there are.
    fn count(self) -> u64 {
        (1 << self.0.count_ones()) - 1
    }

    /// The mark of a number below [`Self::count`]: one more than it, with its bits laid on those of the mask.
    fn mark(self, number: u64) -> Option<NonZeroU32> {
        let mut left = number + 1;
        let mut mark = 0;
        for bit in (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| self.0 & bit != 0) {
            if left & 1 == 1 {
                mark |= bit;
            }
            left >>= 1;
        }
        NonZeroU32::new(mark)
    }
}

/// What has a mark: all listeners of a virtual service, or a range of its ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MarkOwner {
    /// When the virtual service was created: the older comes first.
    pub(super) created: Option<i64>,
    pub(super) service: NamespacedName,
    /// The range; without one, the whole group.
    pub(super) ports: Option<Ports>,
}

/// Who has which mark.
#[derive(Debug, Default)]
pub(super) struct Marks {
    mask: MarkMask,
    owners: BTreeSet<MarkOwner>,
    /// Marks that virtual services say other people's rules set, with how many say so.
    foreign: BTreeMap<NonZeroU32, usize>,
    allotted: BTreeMap<MarkOwner, NonZeroU32>,
    taken: BTreeSet<NonZeroU32>,
    /// Whether some owner has another mark than the one its name leads to.
    crowded: bool,
}

impl Marks {
    /// How much is kept, for tests of what is let go of.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.owners.len() + self.foreign.len() + self.allotted.len() + self.taken.len()
    }

    pub(super) fn new(mask: MarkMask) -> Self {
        Self {
            mask,
            ..Self::default()
        }
    }

    pub(super) fn mask(&self) -> MarkMask {
        self.mask
    }

    pub(super) fn get(&self, owner: &MarkOwner) -> Option<NonZeroU32> {
        self.allotted.get(owner).copied()
    }

    /// Gives marks to new owners and says whose virtual services' marks changed beside theirs.
    pub(super) fn insert(&mut self, owners: impl IntoIterator<Item = MarkOwner>) -> Vec<NamespacedName> {
        let mut settled = true;
        for owner in owners {
            let first = self.first_choice(&owner).filter(|mark| self.is_free(*mark));
            match first {
                // Whoever comes later has passed this mark by, or never came to it.
                Some(mark) => {
                    self.taken.insert(mark);
                    self.allotted.insert(owner.clone(), mark);
                }
                None => settled = false,
            }
            self.owners.insert(owner);
        }
        if settled { Vec::new() } else { self.allot() }
    }

    /// Takes owners' marks back and says whose virtual services' marks changed beside theirs.
    pub(super) fn remove(&mut self, owners: impl IntoIterator<Item = MarkOwner>) -> Vec<NamespacedName> {
        let mut any = false;
        for owner in owners {
            any |= self.owners.remove(&owner);
            if let Some(mark) = self.allotted.remove(&owner) {
                self.taken.remove(&mark);
            }
        }
        if any && self.crowded {
            self.allot()
        } else {
            Vec::new()
        }
    }

    /// Keeps a mark that somebody else's rules set from being given.
    pub(super) fn reserve(&mut self, mark: NonZeroU32) -> Vec<NamespacedName> {
        *self.foreign.entry(mark).or_default() += 1;
        if self.taken.contains(&mark) {
            self.allot()
        } else {
            Vec::new()
        }
    }

    /// Takes back one [`Self::reserve`].
    pub(super) fn release(&mut self, mark: NonZeroU32) -> Vec<NamespacedName> {
        if let Some(count) = self.foreign.get_mut(&mark) {
            *count -= 1;
            if *count == 0 {
                self.foreign.remove(&mark);
            }
        }
        if self.crowded { self.allot() } else { Vec::new() }
    }

    fn is_free(&self, mark: NonZeroU32) -> bool {
        !self.taken.contains(&mark) && !self.foreign.contains_key(&mark)
    }

    fn start(&self, owner: &MarkOwner) -> u64 {
        let MarkOwner { service, ports, .. } = owner;
        let name = match ports {
            None => service.to_string(),
            Some(Ports {
                protocol,
                first,
                last,
            }) => format!("{service} {protocol} {first}-{last}"),
        };
        digest::text(&name) % self.mask.count()
    }

    fn first_choice(&self, owner: &MarkOwner) -> Option<NonZeroU32> {
        self.mask.mark(self.start(owner))
    }

    /// Gives every owner its mark anew, in their order.
    fn allot(&mut self) -> Vec<NamespacedName> {
        let before = std::mem::take(&mut self.allotted);
        self.taken.clear();
        self.crowded = false;
        let count = self.mask.count();
        for owner in &self.owners {
            let start = self.start(owner);
            let mark = (0..count)
                .filter_map(|step| self.mask.mark((start + step) % count))
                .find(|mark| !self.taken.contains(mark) && !self.foreign.contains_key(mark));
            self.crowded |= mark != self.first_choice(owner);
            // With more owners than marks the last ones go without, which is said of each.
            if let Some(mark) = mark {
                self.taken.insert(mark);
                self.allotted.insert(owner.clone(), mark);
            }
        }
        let changed = |owner: &&MarkOwner| before.get(owner) != self.allotted.get(owner);
        self.owners
            .iter()
            .filter(changed)
            .map(|owner| owner.service.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner(name: u8) -> MarkOwner {
        MarkOwner {
            created: Some(i64::from(name % 3)),
            service: NamespacedName {
                namespace: "shop".into(),
                name: format!("web{name}").as_str().into(),
            },
            ports: None,
        }
    }

    #[test]
    fn a_mask_is_read_and_its_marks_lie_in_it() {
        let mask: MarkMask = "0x00f0".parse().unwrap();
        let marks: BTreeSet<u32> = (0..mask.count())
            .filter_map(|number| mask.mark(number))
            .map(u32::from)
            .collect();
        assert_eq!(marks.len(), 15);
        assert!(marks.iter().all(|mark| mark & !0xf0 == 0));
        assert_eq!("0".parse::<MarkMask>(), Err(MarkMaskError));
        assert_eq!(
            MarkMask(u32::MAX).mark(u64::from(u32::MAX) - 1),
            NonZeroU32::new(u32::MAX)
        );
    }

    proptest! {
        /// Whatever came and went in between, the same owners have the same marks, and no two the same.
        #[test]
        fn marks_follow_from_who_is_there(
            steps in proptest::collection::vec((any::<bool>(), 0u8..12), 0..60),
            foreign in proptest::collection::vec(1u32..8, 0..3),
        ) {
            let mask = MarkMask(0xf);
            let mut marks = Marks::new(mask);
            for (add, name) in steps {
                if add { marks.insert([owner(name)]); } else { marks.remove([owner(name)]); }
            }
            for mark in &foreign {
                marks.reserve(NonZeroU32::new(*mark).unwrap());
            }
            let mut fresh = Marks::new(mask);
            for mark in &foreign {
                fresh.reserve(NonZeroU32::new(*mark).unwrap());
            }
            fresh.insert(marks.owners.clone());
            prop_assert_eq!(&marks.allotted, &fresh.allotted);
            let distinct: BTreeSet<_> = marks.allotted.values().collect();
            prop_assert_eq!(distinct.len(), marks.allotted.len());
            prop_assert!(distinct.iter().all(|mark| !foreign.contains(&mark.get())));
        }
    }
}
