//! nftables: Weir's tables as a value, the difference of two rulesets as one transaction, and the kernel's.
//!
//! | file | what |
//! | --- | --- |
//! | `ruleset` | tables, sets, chains, rules and what they are made of; pure |
//! | `foreign` | other programs' chains; pure |
//! | `diff` | two rulesets → one transaction; pure |
//! | `wire` | messages ↔ values; pure |
//! | `netlink` | the kernel's rules |

mod arp;
mod diff;
mod foreign;
mod netlink;
mod ruleset;
pub mod wire;

pub use arp::ArpPacket;
pub use diff::{Step, Transaction, transaction, widened};
pub use foreign::{ForeignChain, ForeignRule};
pub use netlink::{KernelRuleset, NftError};
pub use ruleset::{
    Base, Chain, ChainKind, Element, Expression, Family, Field, Hook, MetaKey, Register, Rule, Ruleset, Set,
    TABLE, Table, Verdict,
};
pub use wire::Unwritable;
