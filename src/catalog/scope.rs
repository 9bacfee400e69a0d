//! A set of virtual services.

use std::collections::BTreeSet;

use super::names::NamespacedName;

/// A set of virtual services: which a change concerns, or which are planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    Every,
    /// These. They need not exist: one that is gone is as much of a change.
    These(BTreeSet<NamespacedName>),
}

impl Default for Scope {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Scope {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::These(names) if names.is_empty())
    }

    /// Whether a virtual service is in it.
    pub fn contains(&self, name: &NamespacedName) -> bool {
        match self {
            Self::Every => true,
            Self::These(names) => names.contains(name),
        }
    }

    /// Adds a virtual service.
    pub fn insert(&mut self, name: NamespacedName) {
        if let Self::These(names) = self {
            names.insert(name);
        }
    }

    /// Adds another scope.
    pub fn extend(&mut self, other: Self) {
        match (self, other) {
            (Self::These(names), Self::These(others)) => names.extend(others),
            (scope, Self::Every) => *scope = Self::Every,
            (Self::Every, _) => {}
        }
    }
}
