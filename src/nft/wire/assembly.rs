//! Tables out of messages.

use crate::netlink::read_u8;
use crate::nft::foreign::{ForeignChain, ForeignRule};
use crate::nft::ruleset::{Family, Ruleset, TABLE, Table};

use super::value::{family_from_number, number, text};
use super::{HEADER, MessageType, TableAttribute, chain, set};

/// Splits a payload into the family and the attributes.
fn split(payload: &[u8]) -> Option<(Family, &[u8])> {
    let family = family_from_number(read_u8(payload)?)?;
    Some((family, payload.get(HEADER..)?))
}

/// Puts Weir's tables together from messages: a table before what it holds, a set before its elements, a chain before
/// its rules. What is in other tables is passed over.
#[derive(Debug, Default)]
pub struct Assembly {
    ruleset: Ruleset,
}

impl Assembly {
    /// Takes one message; what is not understood of it is passed over, or makes what it is about unlike anything that
    /// Weir would write.
    pub fn take(&mut self, kind: u16, payload: &[u8]) {
        let Some((family, attributes)) = split(payload) else {
            return;
        };
        // Says `None` only for what is of no table here.
        let _ = match MessageType::from(kind) {
            MessageType::NewTable => self.take_table(family, attributes),
            MessageType::NewSet => self.take_set(family, attributes),
            MessageType::NewElements => self.take_elements(family, attributes),
            MessageType::NewChain => self.take_chain(family, attributes),
            MessageType::NewRule => self.take_rule(family, attributes),
            _ => None,
        };
    }

    /// The tables as far as they have been taken.
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// The tables.
    pub fn into_ruleset(self) -> Ruleset {
        self.ruleset
    }

    fn table(&mut self, family: Family, name: &str) -> Option<&mut Table> {
        self.ruleset.get_mut(&family).filter(|_| name == TABLE)
    }

    fn take_table(&mut self, family: Family, attributes: &[u8]) -> Option<()> {
        if text(attributes, TableAttribute::Name)? != TABLE {
            return None;
        }
        let mut table = Table::default();
        // Dormant, or owned by another program: no table of Weir's is, and no chain of Weir's lacks a name.
        if number(attributes, TableAttribute::Flags).is_some_and(|flags| flags != 0) {
            table.chains.insert("".into(), chain::chain_of(None));
        }
        self.ruleset.insert(family, table);
        Some(())
    }

    fn take_set(&mut self, family: Family, attributes: &[u8]) -> Option<()> {
        let (table, name, set) = set::read_set(attributes)?;
        self.table(family, table)?.sets.insert(name.into(), set);
        Some(())
    }

    fn take_elements(&mut self, family: Family, attributes: &[u8]) -> Option<()> {
        let (table, name) = set::read_set_name(attributes)?;
        let set = self.table(family, table)?.sets.get_mut(name)?;
        set::read_elements(attributes, set);
        Some(())
    }

    fn take_chain(&mut self, family: Family, attributes: &[u8]) -> Option<()> {
        let (table, name, base) = chain::read_chain(family, attributes)?;
        self.table(family, table)?
            .chains
            .insert(name.into(), chain::chain_of(base));
        Some(())
    }

    fn take_rule(&mut self, family: Family, attributes: &[u8]) -> Option<()> {
        let (table, chain, _, expressions) = chain::read_rule(attributes)?;
        self.table(family, table)?
            .chains
            .get_mut(chain)?
            .rules
            .push(expressions);
        Some(())
    }
}

/// Reads a chain at a hook in a table that is not Weir's, without its rules.
pub fn read_foreign_chain(payload: &[u8]) -> Option<ForeignChain> {
    let (family, attributes) = split(payload)?;
    let (table, name, base) = chain::read_chain(family, attributes)?;
    let base = base.filter(|_| table != TABLE)?;
    Some(ForeignChain {
        table: table.into(),
        chain: name.into(),
        hook: base.hook,
        priority: base.priority,
        policy: base.policy,
        rules: Vec::new(),
    })
}

/// Puts a rule into the one of the chains that it is of.
pub fn read_foreign_rule(payload: &[u8], chains: &mut [ForeignChain]) {
    let Some((table, name, handle, expressions)) =
        split(payload).and_then(|(_, attributes)| chain::read_rule(attributes))
    else {
        return;
    };
    let of_rule = |chain: &&mut ForeignChain| *chain.table == *table && *chain.chain == *name;
    if let Some(chain) = chains.iter_mut().find(of_rule) {
        chain.rules.push(ForeignRule { handle, expressions });
    }
}

#[cfg(test)]
pub(super) fn of(ruleset: Ruleset) -> Assembly {
    Assembly { ruleset }
}
