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
//! | `script` | a transaction as messages |
//! | `assembly` | tables out of messages |
//! | `set`, `chain`, `expression` | what tables hold |
//! | `fault` | what the kernel points at when it refuses |
//! | `value` | what several of them have |

mod assembly;
mod chain;
mod expression;
mod fault;
mod script;
mod set;
mod value;

use neli::consts::genl::NlAttrType;
use neli::consts::nl::NlType;
use neli::{ToBytes, neli_enum};

use crate::netlink::{AttributeType, MessageWriter, written};

use super::ruleset::{Family, TABLE};

pub use assembly::{Assembly, read_foreign_chain, read_foreign_rule};
pub use script::{Act, Deed, Script, Unwritable, write_transaction, write_trial};

use chain::RuleAttribute;
use set::SetAttribute;
use value::{family_number, number};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// Bytes of `struct nfgenmsg`: family, version, resource.
const HEADER: usize = 4;
/// Bytes of a whole message before its attributes.
const MESSAGE_HEADER: usize = 16 + HEADER;
/// `NFPROTO_UNSPEC`: all families.
const ALL_FAMILIES: u8 = 0;

/// Message types: `NFNL_MSG_BATCH_*` and, below `NFNL_SUBSYS_NFTABLES`, `NFT_MSG_*`.
#[neli_enum(serialized_type = "u16")]
pub enum MessageType {
    /// Begins a batch.
    BatchBegin = 0x10,
    /// Ends it, and has it taken.
    BatchEnd = 0x11,
    /// Adds a table, or lists one.
    NewTable = SUBSYSTEM << 8,
    /// Asks for tables.
    GetTable = SUBSYSTEM << 8 | 1,
    /// Deletes a table.
    DeleteTable = SUBSYSTEM << 8 | 2,
    /// Adds a chain, or lists one.
    NewChain = SUBSYSTEM << 8 | 3,
    /// Asks for chains.
    GetChain = SUBSYSTEM << 8 | 4,
    /// Adds a rule, or lists one.
    NewRule = SUBSYSTEM << 8 | 6,
    /// Asks for rules.
    GetRule = SUBSYSTEM << 8 | 7,
    /// Adds a set, or lists one.
    NewSet = SUBSYSTEM << 8 | 9,
    /// Asks for sets.
    GetSet = SUBSYSTEM << 8 | 10,
    /// Adds elements, or lists some.
    NewElements = SUBSYSTEM << 8 | 12,
    /// Asks for elements.
    GetElements = SUBSYSTEM << 8 | 13,
    /// Deletes elements.
    DeleteElements = SUBSYSTEM << 8 | 14,
    /// Says the generation.
    NewGeneration = SUBSYSTEM << 8 | 15,
    /// Asks for the generation.
    GetGeneration = SUBSYSTEM << 8 | 16,
}

impl NlType for MessageType {}

/// `NFNL_BATCH_*`.
#[neli_enum(serialized_type = "u16")]
enum BatchAttribute {
    Generation = 1,
}

impl NlAttrType for BatchAttribute {}

/// `NFTA_GEN_*`.
#[neli_enum(serialized_type = "u16")]
enum GenerationAttribute {
    Id = 1,
}

impl NlAttrType for GenerationAttribute {}

/// `NFTA_TABLE_*`.
#[neli_enum(serialized_type = "u16")]
enum TableAttribute {
    Name = 1,
    Flags = 2,
}

impl NlAttrType for TableAttribute {}

/// A request for everything of a kind that all families have.
pub fn request() -> impl ToBytes {
    body(ALL_FAMILIES, no_attributes)
}

/// A request for all of a kind that a family has.
pub fn family_request(family: Family) -> impl ToBytes {
    body(family_number(family), no_attributes)
}

/// A request for the sets of a family's table of Weir's.
pub fn sets_request(family: Family) -> impl ToBytes {
    body(family_number(family), |message| {
        message.string(SetAttribute::Table, TABLE);
    })
}

/// A request for the rules of a family's table of Weir's.
pub fn rules_request(family: Family) -> impl ToBytes {
    body(family_number(family), |message| {
        message.string(RuleAttribute::Table, TABLE);
    })
}

/// A request for the elements of a set of Weir's.
pub fn elements_request(family: Family, set: &str) -> impl ToBytes {
    body(family_number(family), move |message| {
        set::write_set_name(message, TABLE, set);
    })
}

/// Reads the generation of `NFT_MSG_NEWGEN`: a number that changes whenever any rule of the network namespace does.
pub fn read_generation(payload: &[u8]) -> Option<u32> {
    number(payload.get(HEADER..)?, GenerationAttribute::Id)
}

fn body<T: AttributeType>(family: u8, write: impl Fn(&mut MessageWriter<'_, T>)) -> impl ToBytes {
    written(move |message| {
        message.header([family, 0, 0, 0]);
        write(message);
    })
}

fn no_attributes(_: &mut MessageWriter<'_, u16>) {}

#[cfg(test)]
mod tests;
