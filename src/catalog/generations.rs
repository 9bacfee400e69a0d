//! Which virtual services, in which generations: a digest that two who hold the same of them have in common.
//!
//! An agent says which it has programmed, the controller knows which there are; where the two digests are equal, there is
//! nothing to say about any of them. A digest of all would be unequal while any of thousands is on its way, so there are
//! 64 of them, each of the virtual services whose names fall to it.

use std::fmt;
use std::str::FromStr;

use crate::digest::{self, Encode, Encoding};

use super::names::NamespacedName;

/// How many parts there are.
const PARTS: usize = 64;

/// The digest, in parts.
#[derive(Clone, PartialEq, Eq)]
pub struct Generations([u64; PARTS]);

/// One virtual service in one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    part: u8,
    digest: u64,
}

impl Generation {
    /// A virtual service in a generation; manifests in a folder have none.
    pub fn new(name: &NamespacedName, generation: Option<i64>) -> Self {
        Self {
            part: part(name),
            digest: digest::of(&(name, generation)),
        }
    }
}

/// The part that a virtual service falls to.
fn part(name: &NamespacedName) -> u8 {
    (digest::of(name) % PARTS as u64) as u8
}

impl Encode for NamespacedName {
    fn encode(&self, encoding: &mut Encoding) {
        let Self { namespace, name } = self;
        encoding.text(namespace);
        encoding.text(name);
    }
}

impl Encode for (&NamespacedName, Option<i64>) {
    fn encode(&self, encoding: &mut Encoding) {
        let (name, generation) = self;
        name.encode(encoding);
        encoding.optional(*generation, |encoding, generation| {
            encoding.number(generation.cast_unsigned());
        });
    }
}

impl Default for Generations {
    fn default() -> Self {
        Self([0; PARTS])
    }
}

impl Generations {
    /// Puts one in place of another. A sum does not depend on order, so one can be exchanged.
    pub fn exchange(&mut self, old: Option<Generation>, new: Option<Generation>) {
        if let Some(Generation { part, digest }) = old {
            let place = &mut self.0[usize::from(part)];
            *place = place.wrapping_sub(digest);
        }
        if let Some(Generation { part, digest }) = new {
            let place = &mut self.0[usize::from(part)];
            *place = place.wrapping_add(digest);
        }
    }

    /// Those of both.
    pub fn add(&mut self, other: &Self) {
        for (place, other) in self.0.iter_mut().zip(other.0) {
            *place = place.wrapping_add(other);
        }
    }

    /// Whether the parts to which a virtual service falls are equal.
    pub fn agree_about(&self, other: &Self, name: &NamespacedName) -> bool {
        let part = usize::from(part(name));
        self.0[part] == other.0[part]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Sixteen hexadecimal digits for each part.
impl fmt::Display for Generations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|part| write!(formatter, "{part:016x}"))
    }
}

impl fmt::Debug for Generations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Generations({:016x})", digest::text(&self.to_string()))
    }
}

/// A text that is no digest of generations: one of another version of Weir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotGenerations;

impl FromStr for Generations {
    type Err = NotGenerations;

    fn from_str(text: &str) -> Result<Self, NotGenerations> {
        let mut parts = [0; PARTS];
        if text.is_empty() {
            return Ok(Self(parts));
        }
        if text.len() != PARTS * 16 || !text.is_ascii() {
            return Err(NotGenerations);
        }
        for (part, at) in parts.iter_mut().zip((0..).step_by(16)) {
            *part = u64::from_str_radix(&text[at..at + 16], 16).map_err(|_| NotGenerations)?;
        }
        Ok(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NamespacedName {
        NamespacedName {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn of(all: &[(&str, i64)]) -> Generations {
        let mut generations = Generations::default();
        for (text, generation) in all {
            generations.exchange(None, Some(Generation::new(&name(text), Some(*generation))));
        }
        generations
    }

    #[test]
    fn who_holds_the_same_agrees_in_whatever_order_it_came() {
        let mut one = of(&[("a", 1), ("b", 1), ("c", 7)]);
        assert_eq!(one, of(&[("c", 7), ("a", 1), ("b", 1)]));
        let b = name("b");
        let [old, new] = [1, 2].map(|generation| Some(Generation::new(&b, Some(generation))));
        one.exchange(old, new);
        assert!(!one.agree_about(&of(&[("a", 1), ("b", 1), ("c", 7)]), &b));
        assert!(one.agree_about(&of(&[("a", 1), ("b", 2), ("c", 7)]), &b));
        one.exchange(new, None);
        assert_eq!(one, of(&[("a", 1), ("c", 7)]));
        assert!(of(&[]).is_empty());
    }

    #[test]
    fn one_that_is_on_its_way_leaves_most_others_alone() {
        let names: Vec<String> = (0..1000).map(|number| format!("web-{number}")).collect();
        let all: Vec<_> = names.iter().map(|name| (&**name, 1)).collect();
        let (there, without) = (of(&all), of(&all[1..]));
        let disturbed = names
            .iter()
            .filter(|text| !there.agree_about(&without, &name(text)));
        let disturbed = disturbed.count();
        assert!((1..50).contains(&disturbed), "{disturbed}");
    }

    /// As `helm upgrade` changes many at once: each of the parts of an agent that has none of it yet must differ.
    #[test]
    fn an_agent_that_is_one_generation_behind_with_all_agrees_about_none() {
        let names: Vec<String> = (0..1000).map(|number| format!("web-{number}")).collect();
        let at = |generation| of(&names.iter().map(|name| (&**name, generation)).collect::<Vec<_>>());
        let (before, after) = (at(1), at(2));
        let agreed = names
            .iter()
            .filter(|text| before.agree_about(&after, &name(text)));
        let agreed: Vec<_> = agreed.collect();
        assert!(agreed.is_empty(), "{agreed:?}");
    }

    /// Agents and controllers of different builds compare them.
    #[test]
    fn a_virtual_service_in_a_generation_has_a_known_digest() {
        let digest = |generation| Generation::new(&name("web"), generation);
        let known = |digest| Generation { part: 21, digest };
        assert_eq!(digest(Some(1)), known(0xe9ea_63d0_b6f0_b091));
        assert_eq!(digest(None), known(0x7a8c_7105_54a7_9ebc));
    }

    #[test]
    fn as_text_and_back() {
        let generations = of(&[("a", 1), ("b", 2)]);
        assert_eq!(generations.to_string().parse(), Ok(generations));
        assert_eq!("".parse(), Ok(Generations::default()));
        for text in ["0", &"x".repeat(1024), &"é".repeat(512)] {
            assert_eq!(text.parse::<Generations>(), Err(NotGenerations));
        }
    }
}
