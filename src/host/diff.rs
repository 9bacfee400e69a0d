//! The difference between what a node has and what it should have, as steps in the order in which they must happen.
//!
//! ```text
//! before the table   links · settings · ports · rules, widened · VIPs on weir0 · VIPs leave other links
//! the table
//! after it           VIPs leave weir0 · rules, narrowed · VIPs on other links · announced · ports, links, settings
//! ```
//!
//! So nobody is heard of a VIP before it is quiet, nobody answers for a VIP before its table is there, and whoever gives
//! a VIP up is quiet before its table goes: taking is lift, then announce, and giving is suppress, then release. Rules
//! are widened first, which only adds to what is suppressed, marked and translated, and narrowed last. A packet with a
//! mark that no service is known by is looked up by its address, so a mark may come early and leave late.

use std::collections::BTreeSet;

use crate::nft::{self, Ruleset};

use super::change::HostChange;
use super::desired::SYSCTLS;
use super::network::KUBE_PROXY_LINK;
use super::setting;
use super::state::{BoundAddress, Current, HostState, LinkKind};

/// Steps before and after those of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// What must be true before the table changes.
    pub before: Vec<HostChange>,
    /// What must wait until the table has changed.
    pub after: Vec<HostChange>,
}

impl Steps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// All steps in their order.
    pub fn all(&self) -> impl Iterator<Item = &HostChange> {
        self.before.iter().chain(&self.after)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }
}

/// The steps from what is to what should be. While not all that is wanted is known, `keep` leaves everything that is
/// there in place.
pub fn diff(current: &Current, desired: &HostState, keep: bool) -> Steps {
    let mut steps = Steps::default();
    steps.settings(current, desired);
    steps.links(current, desired);
    steps.rules(current, desired, keep);
    steps.addresses(current, desired);
    if keep {
        steps.before.retain(|change| !change.is_removal());
        steps.after.retain(|change| !change.is_removal());
    }
    steps.in_order()
}

impl Steps {
    fn settings(&mut self, current: &Current, desired: &HostState) {
        let replaced = replaced(current, desired);
        // A link that is made anew begins with the settings of any.
        let of_replaced = |name: &str| replaced.iter().any(|link| setting::is_of_link(name, link));
        for (name, value) in &desired.sysctls {
            let is = current.sysctls.get(name).filter(|_| !of_replaced(name));
            if is.is_none_or(|is| !is.split_whitespace().eq(value.split_whitespace())) {
                self.before.push(HostChange::SetSysctl {
                    name: name.clone(),
                    value: value.clone(),
                });
            }
        }
        // kube-proxy wants the same values, and looks at them only when it starts.
        let beside_kube_proxy = current.network.link(KUBE_PROXY_LINK).is_some();
        let kept = |name: &str| beside_kube_proxy && SYSCTLS.contains(&name);
        let unwanted = current
            .changed_sysctls
            .keys()
            .filter(|name| !desired.sysctls.contains_key(*name) && !kept(name));
        self.after
            .extend(unwanted.map(|name| HostChange::RestoreSysctl { name: name.clone() }));
    }

    fn links(&mut self, current: &Current, desired: &HostState) {
        for (name, kind) in &desired.links {
            if current.links.get(name) == Some(kind) {
                continue;
            }
            if current.links.contains_key(name) {
                self.before.push(HostChange::DeleteLink { name: name.clone() });
            }
            self.before.push(HostChange::AddLink {
                name: name.clone(),
                kind: *kind,
            });
        }
        let unwanted = current
            .links
            .keys()
            .filter(|name| !desired.links.contains_key(*name));
        self.after
            .extend(unwanted.map(|name| HostChange::DeleteLink { name: name.clone() }));
        let to_open = desired.gue_ports.difference(&current.gue_ports);
        self.before
            .extend(to_open.map(|port| HostChange::OpenGuePort(*port)));
        let to_close = current.own_gue_ports.difference(&desired.gue_ports);
        self.after
            .extend(to_close.map(|port| HostChange::CloseGuePort(*port)));
    }

    fn rules(&mut self, current: &Current, desired: &HostState, keep: bool) {
        let none = Ruleset::new();
        let current = current.rules.as_ref().unwrap_or(&none);
        let widened = nft::widened(current, &desired.rules);
        let widen = nft::transaction(current, &widened);
        if !widen.is_empty() {
            self.before.push(HostChange::ChangeRules(widen));
        }
        let narrow = nft::transaction(&widened, &desired.rules);
        if !narrow.is_empty() && !keep {
            self.after.push(HostChange::ChangeRules(narrow));
        }
    }

    fn addresses(&mut self, current: &Current, desired: &HostState) {
        let own = current.own_addresses();
        let replaced = replaced(current, desired);
        // An address on a link of Weir's own reaches nobody.
        let is_quiet = |bound: &BoundAddress| {
            desired.links.contains_key(&bound.link) || current.links.contains_key(&bound.link)
        };
        for bound in &desired.addresses {
            if own.contains(bound) && !replaced.contains(&*bound.link) {
                continue;
            }
            if is_quiet(bound) {
                self.before.push(HostChange::AddAddress(bound.clone()));
            } else {
                self.after.push(HostChange::AddAddress(bound.clone()));
                self.after.push(HostChange::Announce(bound.clone()));
            }
        }
        for bound in own.difference(&desired.addresses) {
            let side = if is_quiet(bound) {
                &mut self.after
            } else {
                &mut self.before
            };
            side.push(HostChange::DeleteAddress(bound.clone()));
        }
    }

    fn in_order(mut self) -> Self {
        self.before.sort_by_key(place_before);
        self.after.sort_by_key(place_after);
        self
    }
}

/// The place of a step before the table; of equal places the first found stays first.
fn place_before(change: &HostChange) -> u8 {
    match change {
        HostChange::DeleteLink { .. } | HostChange::AddLink { .. } => 0,
        HostChange::SetSysctl { .. } | HostChange::RestoreSysctl { .. } => 1,
        HostChange::OpenGuePort(_) | HostChange::CloseGuePort(_) => 2,
        HostChange::ChangeRules(_) => 3,
        HostChange::AddAddress(_) => 4,
        HostChange::DeleteAddress(_) => 5,
        HostChange::Announce(_) => 6,
    }
}

/// The place of a step after the table.
fn place_after(change: &HostChange) -> u8 {
    match change {
        HostChange::DeleteAddress(_) => 0,
        HostChange::ChangeRules(_) => 1,
        HostChange::AddAddress(_) => 2,
        HostChange::Announce(_) => 3,
        HostChange::CloseGuePort(_) | HostChange::OpenGuePort(_) => 4,
        HostChange::DeleteLink { .. } | HostChange::AddLink { .. } => 5,
        HostChange::RestoreSysctl { .. } | HostChange::SetSysctl { .. } => 6,
    }
}

impl HostChange {
    /// Whether something is taken away.
    pub fn is_removal(&self) -> bool {
        matches!(
            self,
            Self::RestoreSysctl { .. }
                | Self::DeleteLink { .. }
                | Self::DeleteAddress(_)
                | Self::CloseGuePort(_)
        )
    }
}

/// Links that are made anew because they should be something else. Addresses and settings go with them.
fn replaced<'a>(current: &Current, desired: &'a HostState) -> BTreeSet<&'a str> {
    let is_other = |name: &str, kind: &LinkKind| current.links.get(name).is_some_and(|is| is != kind);
    let links = desired.links.iter();
    links
        .filter(|(name, kind)| is_other(name, kind))
        .map(|(name, _)| &**name)
        .collect()
}

#[cfg(test)]
mod tests;
