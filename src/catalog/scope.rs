//! What a pass looks at.

use std::collections::BTreeSet;

use super::names::NamespacedName;

/// The virtual services that a pass looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every one, and everything of ours in the kernel.
    All,
    /// These.
    Some(BTreeSet<NamespacedName>),
}

impl Default for Scope {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Scope {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Some(names) if names.is_empty())
    }

    /// Adds a virtual service.
    pub fn insert(&mut self, name: NamespacedName) {
        if let Self::Some(names) = self {
            names.insert(name);
        }
    }

    /// Adds another scope.
    pub fn extend(&mut self, other: Self) {
        match (self, other) {
            (Self::Some(names), Self::Some(others)) => names.extend(others),
            (scope, Self::All) => *scope = Self::All,
            (Self::All, _) => {}
        }
    }
}
