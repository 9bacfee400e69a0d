//! The difference between two rulesets, as one transaction.

use std::collections::BTreeMap;
use std::fmt;

use super::ruleset::{Element, Family, Ruleset, Set, Table};

/// Steps that a text of a transaction names; of further ones it says how many they are.
const STEPS_NAMED: usize = 6;

/// Ranges of a set that are deleted one by one. The kernel walks the whole set for each (`pipapo_drop` of
/// `net/netfilter/nft_set_pipapo.c`), while others wait to change rules. Of 2000 in the emulated VM, a thousand take 13
/// seconds and sixteen half a second; making the table anew takes 0.1 (kernel 6.12) to 0.6 (6.1).
const RANGES_DELETED: usize = 16;

/// Steps from one ruleset to another that the kernel takes all together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    steps: Vec<Step>,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a table with all that it holds.
    AddTable {
        /// Where.
        family: Family,
        /// What it holds.
        table: Table,
    },
    /// Make a table anew. Its rules are in force without a gap.
    ReplaceTable {
        /// Where.
        family: Family,
        /// What it holds from now on.
        table: Table,
    },
    /// Delete a table with all that it holds.
    DeleteTable {
        /// Where.
        family: Family,
    },
    /// Add elements to a set.
    AddElements {
        /// Where its table is.
        family: Family,
        /// The set's name.
        set: Box<str>,
        /// The set's form and the elements to add.
        part: Set,
    },
    /// Delete elements of a set.
    DeleteElements {
        /// Where its table is.
        family: Family,
        /// The set's name.
        set: Box<str>,
        /// The set's form and the elements to delete.
        part: Set,
    },
}

impl Step {
    /// Whether the kernel would rather make the whole table anew.
    fn takes_long(&self) -> bool {
        matches!(self, Self::DeleteElements { part, .. } if part.ranges && part.elements.len() > RANGES_DELETED)
    }
}

impl Transaction {
    /// The steps, in the order in which they are taken.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What the steps make of a ruleset. Elements of sets that it does not have are passed over.
    pub fn apply_to(&self, ruleset: &Ruleset) -> Ruleset {
        let mut ruleset = ruleset.clone();
        for step in &self.steps {
            match step {
                Step::AddTable { family, table } | Step::ReplaceTable { family, table } => {
                    ruleset.insert(*family, table.clone());
                }
                Step::DeleteTable { family } => {
                    ruleset.remove(family);
                }
                Step::AddElements { family, set, part } => {
                    if let Some(elements) = elements_of(&mut ruleset, *family, set) {
                        elements.extend(part.elements.clone());
                    }
                }
                Step::DeleteElements { family, set, part } => {
                    if let Some(elements) = elements_of(&mut ruleset, *family, set) {
                        elements.retain(|element, _| !part.elements.contains_key(element));
                    }
                }
            }
        }
        ruleset
    }
}

/// The steps to other elements, for a set whose form stays.
fn change_elements(family: Family, name: &str, current: &Set, desired: &Set) -> impl Iterator<Item = Step> {
    let lacking = |from: &Set, other: &Set| {
        let elements = from.elements.iter();
        let lacking = elements.filter(|(element, data)| other.elements.get(*element) != Some(*data));
        from.with(
            lacking
                .map(|(element, data)| (element.clone(), data.clone()))
                .collect(),
        )
    };
    let (superfluous, missing) = (lacking(current, desired), lacking(desired, current));
    // What leads elsewhere from now on is deleted first and then added, and so is what makes room for an overlapping
    // range.
    let delete = (!superfluous.elements.is_empty()).then(|| Step::DeleteElements {
        family,
        set: name.into(),
        part: superfluous,
    });
    let add = (!missing.elements.is_empty()).then(|| Step::AddElements {
        family,
        set: name.into(),
        part: missing,
    });
    delete.into_iter().chain(add)
}

fn elements_of<'a>(
    ruleset: &'a mut Ruleset,
    family: Family,
    set: &str,
) -> Option<&'a mut BTreeMap<Element, Option<Vec<u8>>>> {
    let set = ruleset.get_mut(&family)?.sets.get_mut(set)?;
    Some(&mut set.elements)
}

/// "add 3 elements to vips of arp, replace table ip", or "nothing".
impl fmt::Display for Transaction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return formatter.write_str("nothing");
        }
        for (index, step) in self.steps.iter().take(STEPS_NAMED).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(formatter, "{separator}{step}")?;
        }
        match self.steps.len().saturating_sub(STEPS_NAMED) {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

/// "replace table ip".
impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elements = |part: &Set| match part.elements.len() {
            1 => "1 element".to_owned(),
            count => format!("{count} elements"),
        };
        match self {
            Self::AddTable { family, .. } => write!(formatter, "add table {family}"),
            Self::ReplaceTable { family, .. } => write!(formatter, "replace table {family}"),
            Self::DeleteTable { family } => write!(formatter, "delete table {family}"),
            Self::AddElements { family, set, part } => {
                write!(formatter, "add {} to {set} of {family}", elements(part))
            }
            Self::DeleteElements { family, set, part } => {
                write!(formatter, "delete {} of {set} of {family}", elements(part))
            }
        }
    }
}

/// The steps from `current` to `desired`. Where nothing but elements differs, nothing but elements is touched, unless
/// many ranges are to go; otherwise the family's whole table is made anew.
pub fn transaction(current: &Ruleset, desired: &Ruleset) -> Transaction {
    let mut steps = Vec::new();
    for (&family, desired) in desired {
        match current.get(&family) {
            None => steps.push(Step::AddTable {
                family,
                table: desired.clone(),
            }),
            Some(current) => steps.extend(change_table(family, current, desired)),
        }
    }
    let gone = current.keys().filter(|family| !desired.contains_key(family));
    steps.extend(gone.map(|family| Step::DeleteTable { family: *family }));
    Transaction { steps }
}

fn change_table(family: Family, current: &Table, desired: &Table) -> Vec<Step> {
    if differ_in_elements_alone(current, desired) {
        let sets = current.sets.iter().zip(desired.sets.values());
        let steps: Vec<_> = sets
            .flat_map(|((name, current), desired)| change_elements(family, name, current, desired))
            .collect();
        if !steps.iter().any(Step::takes_long) {
            return steps;
        }
    }
    vec![Step::ReplaceTable {
        family,
        table: desired.clone(),
    }]
}

fn differ_in_elements_alone(current: &Table, desired: &Table) -> bool {
    current.chains == desired.chains
        && current.sets.len() == desired.sets.len()
        && current
            .sets
            .iter()
            .zip(&desired.sets)
            .all(|((name, set), (other_name, other))| name == other_name && set.has_definition_of(other))
}

/// A ruleset that does what `current` and `desired` both do, for the time between: whoever goes from `current` to it
/// only adds, and whoever goes on to `desired` only removes.
///
/// A table that both have gets the chains and sets of `desired`, and the elements of both; where both have a key, it
/// leads to where it does in `desired`, and a range of `current` that overlaps another of `desired` is left out,
/// because no set takes both. A table that only `current` has is kept as it is.
pub fn widened(current: &Ruleset, desired: &Ruleset) -> Ruleset {
    let mut widened = current.clone();
    for (&family, desired) in desired {
        let mut table = desired.clone();
        if let Some(current) = current.get(&family) {
            for (name, set) in &mut table.sets {
                if let Some(current) = current
                    .sets
                    .get(name)
                    .filter(|current| current.has_definition_of(set))
                {
                    widen(set, current);
                }
            }
        }
        widened.insert(family, table);
    }
    widened
}

/// Adds what the set lacks of `current`'s elements and can hold.
fn widen(set: &mut Set, current: &Set) {
    let lacking: Vec<_> = current
        .elements
        .iter()
        .filter(|(element, _)| !set.elements.contains_key(element))
        .filter(|(element, _)| {
            !set.ranges || !set.elements.keys().any(|other| element.overlaps(other, &set.key))
        })
        .map(|(element, data)| (element.clone(), data.clone()))
        .collect();
    set.elements.extend(lacking);
}

#[cfg(test)]
mod tests;
