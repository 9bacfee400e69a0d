//! A transaction as messages, each with what it does.

use std::fmt;

use neli::ToBytes;
use neli::consts::nl::NlmF;
use thiserror::Error;

use crate::netlink::{AttributeType, Batch, MessageWriter, Refused, written};
use crate::nft::diff::{Step, Transaction};
use crate::nft::ruleset::{Chain, ChainKind, Expression, Family, Hook, Set, TABLE, Table};

use super::chain::{self, ChainAttribute, RuleAttribute};
use super::value::family_number;
use super::{
    ALL_FAMILIES, BatchAttribute, MessageType, SUBSYSTEM, TableAttribute, body, expression, fault, set,
};

/// Make it, and refuse if it is there.
const CREATE: NlmF = NlmF::CREATE.union(NlmF::EXCL);

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
        let begin = of_subsystem(|message| {
            if let Some(generation) = generation {
                message.u32_be(BatchAttribute::Generation, generation);
            }
        });
        batch.push(MessageType::BatchBegin, NlmF::empty(), &begin);
        Self {
            batch,
            acts: Vec::new(),
            sets: 0,
        }
    }

    fn end(&mut self) {
        let end = of_subsystem(|_| {});
        self.batch.push(MessageType::BatchEnd, NlmF::empty(), &end);
    }

    /// The index of the last message that does something; its answer is the last.
    pub fn last(&self) -> usize {
        self.acts.len()
    }

    /// What the message of an index does; `None` for the one that begins the batch and the one that ends it.
    pub fn act(&self, index: usize) -> Option<&Act> {
        self.acts.get(index.checked_sub(1)?)
    }

    /// Says in words what the kernel points at in the message of an index, which it refused.
    pub fn explain(&self, index: usize, refused: &mut Refused) {
        fault::explain(self.batch.message(index), refused);
    }

    fn push<T: AttributeType>(
        &mut self,
        kind: MessageType,
        flags: NlmF,
        act: Act,
        write: impl Fn(&mut MessageWriter<'_, T>),
    ) {
        self.batch
            .push(kind, flags, &body(family_number(act.family), write));
        self.acts.push(act);
    }

    fn add_table(&mut self, family: Family, name: &str) {
        let act = Act {
            family,
            what: Deed::AddTable,
        };
        self.push(MessageType::NewTable, NlmF::CREATE, act, |message| {
            message.string(TableAttribute::Name, name)
        });
    }

    fn delete_table(&mut self, family: Family) {
        let act = Act {
            family,
            what: Deed::DeleteTable,
        };
        self.push(MessageType::DeleteTable, NlmF::empty(), act, |message| {
            message.string(TableAttribute::Name, TABLE)
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
        self.push(MessageType::NewSet, CREATE, act, |message| {
            set::write_set(message, TABLE, name, set, id)
        });
        self.change_elements(family, name, set, true);
        Ok(())
    }

    fn change_elements(&mut self, family: Family, name: &str, part: &Set, add: bool) {
        let (kind, flags) = match add {
            true => (MessageType::NewElements, CREATE),
            false => (MessageType::DeleteElements, NlmF::empty()),
        };
        let mut elements = part.elements.iter();
        while elements.len() > 0 {
            let what = match add {
                true => Deed::AddElements(name.into()),
                false => Deed::DeleteElements(name.into()),
            };
            let some = elements.clone().take(set::ELEMENTS_PER_MESSAGE);
            self.push(kind, flags, Act { family, what }, |message| {
                set::write_elements(message, TABLE, name, part, some.clone(), add)
            });
            elements.nth(set::ELEMENTS_PER_MESSAGE - 1);
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
        let write = |message: &mut MessageWriter<'_, ChainAttribute>| {
            chain::write_chain(message, table, name, chain.kind, hook_number, chain.priority)
        };
        self.push(MessageType::NewChain, CREATE, Act { family, what }, write);
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
            let write = |message: &mut MessageWriter<'_, RuleAttribute>| {
                chain::write_rule(message, table, name, rule)
            };
            self.push(
                MessageType::NewRule,
                NlmF::CREATE.union(NlmF::APPEND),
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

/// The body of what begins or ends a batch: the resource in its header is the subsystem, in network order.
fn of_subsystem(write: impl Fn(&mut MessageWriter<'_, BatchAttribute>)) -> impl ToBytes {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    written(move |message| {
        message.header([ALL_FAMILIES, 0, high, low]);
        write(message);
    })
}
