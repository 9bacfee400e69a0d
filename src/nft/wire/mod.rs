//! nf_tables messages as bytes, both ways.
//!
//! What the kernel lists has the form of what it is told, so one codec reads and writes. A transaction is a batch:
//!
//! ```text
//! BATCH_BEGIN   the generation of the rules it is meant for
//! DELTABLE      of each table that is replaced or deleted
//! NEWTABLE, NEWSET.., NEWSETELEM.., NEWCHAIN.., NEWRULE..
//! BATCH_END     without it the kernel only says whether it would take the batch
//! ```
//!
//! All integers of nf_tables are in network order.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h` and `nfnetlink.h`, and `net/netfilter/nf_tables_api.c` for what
//! is required of a message.
//!
//! | file | what |
//! | --- | --- |
//! | `set`, `chain`, `expression` | what tables hold |
//! | `value` | what several of them have |

mod chain;
mod expression;
mod set;
mod value;

use std::fmt;

use thiserror::Error;

use crate::netlink::{Batch, MessageWriter, flags, read_u8};

use super::diff::{Step, Transaction};
use super::foreign::{ForeignChain, ForeignRule};
use super::ruleset::{Chain, ChainKind, Expression, Family, Hook, Ruleset, Set, TABLE, Table};

use value::{family_from_number, family_number, number, text};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// Bytes of `struct nfgenmsg`: family, version, resource.
const HEADER: usize = 4;
/// `NFPROTO_UNSPEC`: all families.
const ALL_FAMILIES: u8 = 0;

/// Message types: `NFNL_MSG_BATCH_*` and, below `NFNL_SUBSYS_NFTABLES`, `NFT_MSG_*`.
pub mod message {
    use super::SUBSYSTEM;

    const fn of_subsystem(number: u16) -> u16 {
        SUBSYSTEM << 8 | number
    }

    /// Begins a batch.
    pub const BATCH_BEGIN: u16 = 0x10;
    /// Ends it, and has it taken.
    pub const BATCH_END: u16 = 0x11;
    /// Adds a table, or lists one.
    pub const NEW_TABLE: u16 = of_subsystem(0);
    /// Asks for tables.
    pub const GET_TABLE: u16 = of_subsystem(1);
    /// Deletes a table.
    pub const DELETE_TABLE: u16 = of_subsystem(2);
    /// Adds a chain, or lists one.
    pub const NEW_CHAIN: u16 = of_subsystem(3);
    /// Asks for chains.
    pub const GET_CHAIN: u16 = of_subsystem(4);
    /// Adds a rule, or lists one.
    pub const NEW_RULE: u16 = of_subsystem(6);
    /// Asks for rules.
    pub const GET_RULE: u16 = of_subsystem(7);
    /// Adds a set, or lists one.
    pub const NEW_SET: u16 = of_subsystem(9);
    /// Asks for sets.
    pub const GET_SET: u16 = of_subsystem(10);
    /// Adds elements, or lists some.
    pub const NEW_ELEMENTS: u16 = of_subsystem(12);
    /// Asks for elements.
    pub const GET_ELEMENTS: u16 = of_subsystem(13);
    /// Deletes elements.
    pub const DELETE_ELEMENTS: u16 = of_subsystem(14);
    /// Says the generation.
    pub const NEW_GENERATION: u16 = of_subsystem(15);
    /// Asks for the generation.
    pub const GET_GENERATION: u16 = of_subsystem(16);
}

/// `NFNL_BATCH_GENID`.
const BATCH_GENERATION: u16 = 1;
/// `NFTA_GEN_ID`.
const GENERATION: u16 = 1;

/// `NFTA_SET_TABLE` and `NFTA_RULE_TABLE`: whose sets or rules are asked for.
const TABLE_OF_REQUEST: u16 = 1;

/// `NFTA_TABLE_*`.
mod table_attribute {
    pub(super) const NAME: u16 = 1;
    pub(super) const FLAGS: u16 = 2;
}

/// A ruleset that has no form in messages.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unwritable {
    /// Ranges in a set whose keys have a single field.
    #[error("set {0}: elements can be ranges only where keys have two fields or more")]
    RangesOfOneField(Box<str>),
    /// A chain at a hook that its family does not have.
    #[error("chain {chain}: there is no hook {hook:?} in family {family}")]
    NoSuchHook {
        /// The chain.
        chain: Box<str>,
        /// The family of its table.
        family: Family,
        /// The hook it was to be at.
        hook: Hook,
    },
    /// An expression that was read but not understood.
    #[error("chain {chain}: an expression {name:?} can be read and not written")]
    UnknownExpression {
        /// The chain.
        chain: Box<str>,
        /// The kernel's name of it.
        name: Box<str>,
    },
}

/// What one message of a transaction does, for errors: "add rule 2 of chain input of arp".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// The family of the table.
    pub family: Family,
    /// What is done.
    pub what: Deed,
}

/// What a message does in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Adds the table.
    AddTable,
    /// Deletes the table.
    DeleteTable,
    /// Adds a set.
    AddSet(Box<str>),
    /// Adds elements to a set.
    AddElements(Box<str>),
    /// Deletes elements of a set.
    DeleteElements(Box<str>),
    /// Adds a chain.
    AddChain {
        /// Its name.
        chain: Box<str>,
        /// Whether it is one of NAT's.
        nat: bool,
    },
    /// Adds a rule.
    AddRule {
        /// The name of its chain.
        chain: Box<str>,
        /// Its place in the chain, from 1.
        place: usize,
        /// Whether it translates addresses.
        nat: bool,
    },
}

impl fmt::Display for Act {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.family;
        match &self.what {
            Deed::AddTable => write!(formatter, "add table {family}"),
            Deed::DeleteTable => write!(formatter, "delete table {family}"),
            Deed::AddSet(set) => write!(formatter, "add set {set} of {family}"),
            Deed::AddElements(set) => write!(formatter, "add elements to {set} of {family}"),
            Deed::DeleteElements(set) => write!(formatter, "delete elements of {set} of {family}"),
            Deed::AddChain { chain, .. } => write!(formatter, "add chain {chain} of {family}"),
            Deed::AddRule { chain, place, .. } => {
                write!(formatter, "add rule {place} of chain {chain} of {family}")
            }
        }
    }
}

/// A transaction as messages, with what each but the first and the last does.
#[derive(Debug)]
pub struct Script {
    /// The messages, from the one that begins the batch on.
    pub batch: Batch,
    acts: Vec<Act>,
    sets: u32,
}

impl Script {
    fn begin(generation: Option<u32>) -> Self {
        let mut batch = Batch::default();
        batch.push(message::BATCH_BEGIN, 0, |message| {
            write_subsystem(message);
            if let Some(generation) = generation {
                message.u32_be(BATCH_GENERATION, generation);
            }
        });
        Self {
            batch,
            acts: Vec::new(),
            sets: 0,
        }
    }

    fn end(&mut self) {
        self.batch.push(message::BATCH_END, 0, write_subsystem);
    }

    /// The index of the last message that does something; its answer is the last.
    pub fn last(&self) -> usize {
        self.acts.len()
    }

    /// What the message of an index does; `None` for the one that begins the batch and the one that ends it.
    pub fn act(&self, index: usize) -> Option<&Act> {
        self.acts.get(index.checked_sub(1)?)
    }

    fn push(&mut self, kind: u16, message_flags: u16, act: Act, write: impl FnOnce(&mut MessageWriter<'_>)) {
        self.batch.push(kind, message_flags, |message| {
            write_header(message, family_number(act.family));
            write(message);
        });
        self.acts.push(act);
    }

    fn add_table(&mut self, family: Family, name: &str) {
        let act = Act {
            family,
            what: Deed::AddTable,
        };
        self.push(message::NEW_TABLE, flags::CREATE, act, |message| {
            message.string(table_attribute::NAME, name)
        });
    }

    fn delete_table(&mut self, family: Family) {
        let act = Act {
            family,
            what: Deed::DeleteTable,
        };
        self.push(message::DELETE_TABLE, 0, act, |message| {
            message.string(table_attribute::NAME, TABLE)
        });
    }

    fn add_table_with_contents(&mut self, family: Family, table: &Table) -> Result<(), Unwritable> {
        self.add_table(family, TABLE);
        for (name, set) in &table.sets {
            self.add_set(family, name, set)?;
        }
        for (name, chain) in &table.chains {
            self.add_chain(family, TABLE, name, chain)?;
        }
        Ok(())
    }

    fn add_set(&mut self, family: Family, name: &str, set: &Set) -> Result<(), Unwritable> {
        if set.ranges && set.key.len() < 2 {
            return Err(Unwritable::RangesOfOneField(name.into()));
        }
        self.sets += 1;
        let id = self.sets;
        let act = Act {
            family,
            what: Deed::AddSet(name.into()),
        };
        self.push(
            message::NEW_SET,
            flags::CREATE | flags::EXCLUSIVE,
            act,
            |message| set::write_set(message, TABLE, name, set, id),
        );
        self.change_elements(family, name, set, true);
        Ok(())
    }

    fn change_elements(&mut self, family: Family, name: &str, part: &Set, add: bool) {
        let (kind, message_flags) = match add {
            true => (message::NEW_ELEMENTS, flags::CREATE | flags::EXCLUSIVE),
            false => (message::DELETE_ELEMENTS, 0),
        };
        let mut elements = part.elements.iter().peekable();
        while elements.peek().is_some() {
            let what = match add {
                true => Deed::AddElements(name.into()),
                false => Deed::DeleteElements(name.into()),
            };
            let some = elements.by_ref().take(set::ELEMENTS_PER_MESSAGE);
            self.push(kind, message_flags, Act { family, what }, |message| {
                set::write_elements(message, TABLE, name, part, some, add)
            });
        }
    }

    fn add_chain(
        &mut self,
        family: Family,
        table: &str,
        name: &str,
        chain: &Chain,
    ) -> Result<(), Unwritable> {
        let hook_number = chain::hook_number(family, chain.hook).ok_or_else(|| Unwritable::NoSuchHook {
            chain: name.into(),
            family,
            hook: chain.hook,
        })?;
        let what = Deed::AddChain {
            chain: name.into(),
            nat: chain.kind == ChainKind::Nat,
        };
        let write = |message: &mut MessageWriter<'_>| {
            chain::write_chain(message, table, name, chain.kind, hook_number, chain.priority)
        };
        self.push(
            message::NEW_CHAIN,
            flags::CREATE | flags::EXCLUSIVE,
            Act { family, what },
            write,
        );
        for (index, rule) in chain.rules.iter().enumerate() {
            for expression in rule {
                if let Expression::Unknown(unknown) = expression {
                    return Err(Unwritable::UnknownExpression {
                        chain: name.into(),
                        name: unknown.clone(),
                    });
                }
            }
            let what = Deed::AddRule {
                chain: name.into(),
                place: index + 1,
                nat: rule.iter().any(expression::is_nat),
            };
            let write = |message: &mut MessageWriter<'_>| chain::write_rule(message, table, name, rule);
            self.push(
                message::NEW_RULE,
                flags::CREATE | flags::APPEND,
                Act { family, what },
                write,
            );
        }
        Ok(())
    }
}

/// Writes a transaction that the kernel is to take only if no rule has changed since `generation`.
///
/// # Errors
///
/// The transaction holds what has no form.
pub fn write_transaction(transaction: &Transaction, generation: u32) -> Result<Script, Unwritable> {
    let mut script = Script::begin(Some(generation));
    for step in transaction.steps() {
        match step {
            Step::AddTable { family, table } => script.add_table_with_contents(*family, table)?,
            Step::ReplaceTable { family, table } => {
                script.delete_table(*family);
                script.add_table_with_contents(*family, table)?;
            }
            Step::DeleteTable { family } => script.delete_table(*family),
            Step::AddElements { family, set, part } => script.change_elements(*family, set, part, true),
            Step::DeleteElements { family, set, part } => script.change_elements(*family, set, part, false),
        }
    }
    script.end();
    Ok(script)
}

/// Writes a batch that adds a chain to a table of its own, and does not end: the kernel says whether it would take it
/// and leaves everything as it was.
pub fn write_trial(family: Family, table: &str, chain: &Chain) -> Result<Script, Unwritable> {
    let mut script = Script::begin(None);
    script.add_table(family, table);
    script.add_chain(family, table, "trial", chain)?;
    Ok(script)
}

/// Writes what a request for everything of all families begins with.
pub fn write_request(message: &mut MessageWriter<'_>) {
    write_header(message, ALL_FAMILIES);
}

/// Writes a request for all of a kind that a family has.
pub fn write_family_request(message: &mut MessageWriter<'_>, family: Family) {
    write_header(message, family_number(family));
}

/// Writes a request for the sets or the rules of a family's table of Weir's.
pub fn write_table_request(message: &mut MessageWriter<'_>, family: Family) {
    write_header(message, family_number(family));
    message.string(TABLE_OF_REQUEST, TABLE);
}

/// Writes a request for the elements of a set of Weir's.
pub fn write_elements_request(message: &mut MessageWriter<'_>, family: Family, set: &str) {
    write_header(message, family_number(family));
    set::write_set_name(message, TABLE, set);
}

/// Reads the generation of `NFT_MSG_NEWGEN`: a number that changes whenever any rule of the network namespace does.
pub fn read_generation(payload: &[u8]) -> Option<u32> {
    number(payload.get(HEADER..)?, GENERATION)
}

fn write_header(message: &mut MessageWriter<'_>, family: u8) {
    message.header(&[family, 0, 0, 0]);
}

/// The header of what begins and ends a batch: the resource is the subsystem, in network order.
fn write_subsystem(message: &mut MessageWriter<'_>) {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    message.header(&[ALL_FAMILIES, 0, high, low]);
}

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
        let _ = match kind {
            message::NEW_TABLE => self.take_table(family, attributes),
            message::NEW_SET => self.take_set(family, attributes),
            message::NEW_ELEMENTS => self.take_elements(family, attributes),
            message::NEW_CHAIN => self.take_chain(family, attributes),
            message::NEW_RULE => self.take_rule(family, attributes),
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
        if text(attributes, table_attribute::NAME)? != TABLE {
            return None;
        }
        let mut table = Table::default();
        // Dormant, or owned by another program: no table of Weir's is, and no chain of Weir's lacks a name.
        if number(attributes, table_attribute::FLAGS).is_some_and(|flags| flags != 0) {
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
mod tests;
