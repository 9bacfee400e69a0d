//! Chains and rules.

use neli::consts::genl::NlAttrType;
use neli::neli_enum;

use crate::netlink::{MessageWriter, read_u64_be};

use crate::nft::ruleset::{Chain, ChainKind, Expression, Family, Hook, Rule, Verdict};

use super::expression::{read_expressions, verdict_from_number, verdict_number, write_expressions};
use super::value::{attribute, number, text};

/// `NFTA_CHAIN_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum ChainAttribute {
    Table = 1,
    Name = 3,
    Hook = 4,
    Policy = 5,
    Type = 7,
}

impl NlAttrType for ChainAttribute {}

/// `NFTA_HOOK_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum HookAttribute {
    Number = 1,
    Priority = 2,
}

impl NlAttrType for HookAttribute {}

/// `NFTA_RULE_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum RuleAttribute {
    Table = 1,
    Chain = 2,
    Handle = 3,
    Expressions = 4,
}

impl NlAttrType for RuleAttribute {}

/// A chain at a hook, whoever made it.
pub(super) struct BaseChain {
    pub(super) kind: Option<ChainKind>,
    pub(super) hook: Option<Hook>,
    pub(super) priority: i32,
    pub(super) policy: Verdict,
}

/// Writes a chain without its rules, for `NFT_MSG_NEWCHAIN`. At a hook that the family does not have, `hook_number`
/// says so before.
pub(super) fn write_chain(
    message: &mut MessageWriter<'_, ChainAttribute>,
    table: &str,
    name: &str,
    kind: ChainKind,
    hook_number: u32,
    priority: i32,
) {
    message.string(ChainAttribute::Table, table);
    message.string(ChainAttribute::Name, name);
    message.nest(ChainAttribute::Hook, |hook| {
        hook.u32_be(HookAttribute::Number, hook_number);
        hook.array(HookAttribute::Priority, priority.to_be_bytes());
    });
    message.u32_be(ChainAttribute::Policy, verdict_number(Verdict::Accept));
    message.string(ChainAttribute::Type, kind_name(kind));
}

/// Table and name of a chain of `NFT_MSG_NEWCHAIN`, and what it is if it is at a hook.
pub(super) fn read_chain(family: Family, message: &[u8]) -> Option<(&str, &str, Option<BaseChain>)> {
    let table = text(message, ChainAttribute::Table)?;
    let name = text(message, ChainAttribute::Name)?;
    let base = attribute(message, ChainAttribute::Hook).and_then(|hook| {
        let hook_number = number(hook, HookAttribute::Number)?;
        Some(BaseChain {
            kind: text(message, ChainAttribute::Type).and_then(kind_from_name),
            hook: hook_from_number(family, hook_number),
            priority: number(hook, HookAttribute::Priority)? as i32,
            policy: number(message, ChainAttribute::Policy)
                .and_then(verdict_from_number)
                .unwrap_or(Verdict::Accept),
        })
    });
    Some((table, name, base))
}

/// A chain of Weir's table as a value. What no chain of Weir's has is put into it as an unknown expression.
pub(super) fn chain_of(base: Option<BaseChain>) -> Chain {
    let foreign = |what: &str| Chain {
        kind: ChainKind::Filter,
        hook: Hook::Input,
        priority: 0,
        rules: vec![vec![Expression::Unknown(what.into())]],
    };
    match base {
        None => foreign("chain without hook"),
        Some(BaseChain {
            policy: Verdict::Drop,
            ..
        }) => foreign("policy drop"),
        Some(BaseChain {
            kind: Some(kind),
            hook: Some(hook),
            priority,
            policy: Verdict::Accept,
        }) => Chain {
            kind,
            hook,
            priority,
            rules: Vec::new(),
        },
        Some(_) => foreign("chain at another hook"),
    }
}

/// Writes a rule, for `NFT_MSG_NEWRULE`.
pub(super) fn write_rule(
    message: &mut MessageWriter<'_, RuleAttribute>,
    table: &str,
    chain: &str,
    rule: &[Expression],
) {
    message.string(RuleAttribute::Table, table);
    message.string(RuleAttribute::Chain, chain);
    message.nest(RuleAttribute::Expressions, |list| write_expressions(list, rule));
}

/// Table, chain, handle and expressions of a rule of `NFT_MSG_NEWRULE`.
pub(super) fn read_rule(message: &[u8]) -> Option<(&str, &str, u64, Rule)> {
    let handle = attribute(message, RuleAttribute::Handle).and_then(read_u64_be);
    let expressions = attribute(message, RuleAttribute::Expressions).unwrap_or_default();
    Some((
        text(message, RuleAttribute::Table)?,
        text(message, RuleAttribute::Chain)?,
        handle.unwrap_or_default(),
        read_expressions(expressions),
    ))
}

/// `NF_INET_*` and `NF_ARP_*`; `None` for a hook that the family does not have.
pub(super) fn hook_number(family: Family, hook: Hook) -> Option<u32> {
    match (family, hook) {
        (Family::Arp, Hook::Input) => Some(0),
        (Family::Arp, Hook::Output) => Some(1),
        (Family::Arp, Hook::Prerouting | Hook::Postrouting) => None,
        (Family::Ipv4 | Family::Ipv6, Hook::Prerouting) => Some(0),
        (Family::Ipv4 | Family::Ipv6, Hook::Input) => Some(1),
        (Family::Ipv4 | Family::Ipv6, Hook::Output) => Some(3),
        (Family::Ipv4 | Family::Ipv6, Hook::Postrouting) => Some(4),
    }
}

fn hook_from_number(family: Family, number: u32) -> Option<Hook> {
    [Hook::Prerouting, Hook::Input, Hook::Output, Hook::Postrouting]
        .into_iter()
        .find(|hook| hook_number(family, *hook) == Some(number))
}

fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    }
}

fn kind_from_name(name: &str) -> Option<ChainKind> {
    [ChainKind::Filter, ChainKind::Nat]
        .into_iter()
        .find(|kind| kind_name(*kind) == name)
}
