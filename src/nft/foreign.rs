//! Other programs' chains, as far as Weir can tell what they do.

use super::ruleset::{Hook, Rule, Verdict};

/// A chain at a hook in a table that is not Weir's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChain {
    /// The name of its table.
    pub table: Box<str>,
    /// Its name.
    pub chain: Box<str>,
    /// Where packets meet it; `None` at a hook that Weir has no word for.
    pub hook: Option<Hook>,
    /// Its place among the chains of a hook: lower ones come first.
    pub priority: i32,
    /// What becomes of packets that no rule decides upon.
    pub policy: Verdict,
    /// Its rules, in order.
    pub rules: Vec<ForeignRule>,
}

/// A rule of a chain that is not Weir's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRule {
    /// Its number, by which `nft -a list` and `nft delete rule` call it.
    pub handle: u64,
    /// What it is made of; where Weir has no word for an expression, [`super::Expression::Unknown`].
    pub expressions: Rule,
}
