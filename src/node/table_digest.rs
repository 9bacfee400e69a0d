//! What a node's table holds, in as little room as tells whether two tables are equal.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::digest;
use crate::ipvs::{Entry, ServiceKey, Table};

/// Which entries there are, as digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDigest {
    services: BTreeMap<ServiceKey, ServiceDigest>,
    destinations: usize,
    digest: u64,
}

/// One service with its destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServiceDigest {
    digest: u64,
    destinations: u32,
}

impl ServiceDigest {
    fn of(table: &Table, key: &ServiceKey) -> Option<Self> {
        Some(Self::of_entry(key, table.services.get(key)?))
    }

    pub(super) fn of_entry(key: &ServiceKey, entry: &Entry) -> Self {
        Self {
            digest: digest::of(&(key, entry)),
            destinations: u32::try_from(entry.destinations.len()).unwrap_or(u32::MAX),
        }
    }
}

impl TableDigest {
    /// How many services there are.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// How many destinations they have together.
    pub fn destinations(&self) -> usize {
        self.destinations
    }

    /// Equal digests mean equal entries.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Which services there are.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// The service after another in the order of their keys; after the last comes the first.
    pub(super) fn after(&self, key: Option<&ServiceKey>) -> Option<ServiceKey> {
        let later = key.and_then(|key| {
            let later = (Bound::Excluded(key), Bound::Unbounded);
            self.services.range::<ServiceKey, _>(later).next()
        });
        later
            .or_else(|| self.services.first_key_value())
            .map(|(key, _)| *key)
    }

    /// Whether another says the same of a service.
    pub(super) fn agrees_about(&self, other: &Self, key: &ServiceKey) -> bool {
        self.services.get(key) == other.services.get(key)
    }

    /// The service as it is here, if another says the same of it.
    pub(super) fn agreed(&self, other: &Self, key: &ServiceKey) -> Option<ServiceDigest> {
        let own = self.services.get(key)?;
        (other.services.get(key) == Some(own)).then_some(*own)
    }

    pub(super) fn contains(&self, key: &ServiceKey) -> bool {
        self.services.contains_key(key)
    }

    /// Puts what a table says of a service, or that it is not there.
    pub(super) fn set(&mut self, key: ServiceKey, table: &Table) {
        self.exchange(key, ServiceDigest::of(table, &key));
    }

    /// Puts what another says of a service, or that it is not there.
    pub(super) fn copy(&mut self, key: ServiceKey, other: &Self) {
        self.exchange(key, other.services.get(&key).copied());
    }

    /// A sum does not depend on order, so one service's part can be exchanged.
    fn exchange(&mut self, key: ServiceKey, new: Option<ServiceDigest>) {
        let old = match new {
            Some(new) => self.services.insert(key, new),
            None => self.services.remove(&key),
        };
        if let Some(part) = old {
            self.digest = self.digest.wrapping_sub(part.digest);
            self.destinations -= part.destinations as usize;
        }
        if let Some(part) = new {
            self.digest = self.digest.wrapping_add(part.digest);
            self.destinations += part.destinations as usize;
        }
    }
}
