//! The difference between two tables, as changes in the order in which they must happen.

use std::collections::BTreeMap;
use std::fmt;

use super::table::{Destination, DestinationKey, Entry, Service, ServiceKey, Table, Weight};

/// One step from one table to another. Every step carries whole entries, since the kernel replaces whole entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Add a virtual service without destinations (`ipvsadm -A`).
    AddService {
        /// The new service's key.
        key: ServiceKey,
        /// Its configuration.
        service: Service,
    },
    /// Replace a virtual service's configuration (`ipvsadm -E`).
    EditService {
        /// The service.
        key: ServiceKey,
        /// Its configuration from now on.
        service: Service,
    },
    /// Delete a virtual service and its destinations (`ipvsadm -D`).
    DeleteService {
        /// The service.
        key: ServiceKey,
    },
    /// Add a destination (`ipvsadm -a`).
    AddDestination {
        /// The service it belongs to.
        service: ServiceKey,
        /// The new destination's key.
        key: DestinationKey,
        /// Its configuration.
        destination: Destination,
    },
    /// Replace a destination's configuration (`ipvsadm -e`).
    EditDestination {
        /// The service it belongs to.
        service: ServiceKey,
        /// The destination.
        key: DestinationKey,
        /// Its configuration from now on.
        destination: Destination,
    },
    /// Delete a destination (`ipvsadm -d`).
    DeleteDestination {
        /// The service it belongs to.
        service: ServiceKey,
        /// The destination.
        key: DestinationKey,
    },
}

impl Change {
    /// Whether something is taken away.
    pub fn is_deletion(&self) -> bool {
        matches!(self, Self::DeleteService { .. } | Self::DeleteDestination { .. })
    }

    /// The virtual service that the change concerns.
    pub fn service(&self) -> &ServiceKey {
        match self {
            Self::AddService { key, .. } | Self::EditService { key, .. } | Self::DeleteService { key } => key,
            Self::AddDestination { service, .. }
            | Self::EditDestination { service, .. }
            | Self::DeleteDestination { service, .. } => service,
        }
    }
}

/// Names the act and its object, for messages.
impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService { key, .. } => write!(formatter, "add service {key}"),
            Self::EditService { key, .. } => write!(formatter, "edit service {key}"),
            Self::DeleteService { key } => write!(formatter, "delete service {key}"),
            Self::AddDestination { service, key, .. } => {
                write!(formatter, "add destination {key} to {service}")
            }
            Self::EditDestination { service, key, .. } => {
                write!(formatter, "edit destination {key} of {service}")
            }
            Self::DeleteDestination { service, key } => {
                write!(formatter, "delete destination {key} of {service}")
            }
        }
    }
}

/// The changes that turn `current` into `desired`, in the order in which they must happen:
///
/// 1. additions, and edits that do not quiesce: a service before its destinations;
/// 2. edits to weight 0, so that what takes over is there before anything steps back;
/// 3. removals.
///
/// A service that `desired` does not have is deleted only if `owned` says that it is ours; all else stays. A
/// service that both have is brought to `desired` whoever made it, all its destinations included.
pub fn diff(current: &Table, desired: &Table, owned: impl Fn(&ServiceKey) -> bool) -> Vec<Change> {
    let mut steps = Steps::default();
    for (key, current, desired) in merge(&current.services, &desired.services) {
        match (current, desired) {
            (None, Some(desired)) => steps.add_entry(key, desired),
            (Some(current), Some(desired)) => steps.edit_entry(key, current, desired),
            (Some(_), None) if owned(key) => steps.removals.push(Change::DeleteService { key: *key }),
            _ => {}
        }
    }
    steps.in_order()
}

#[derive(Default)]
struct Steps {
    additions: Vec<Change>,
    quiescings: Vec<Change>,
    removals: Vec<Change>,
}

impl Steps {
    fn add_entry(&mut self, key: &ServiceKey, entry: &Entry) {
        let Entry {
            service,
            destinations,
        } = entry;
        self.additions.push(Change::AddService {
            key: *key,
            service: service.clone(),
        });
        self.additions
            .extend(
                destinations
                    .iter()
                    .map(|(destination_key, destination)| Change::AddDestination {
                        service: *key,
                        key: *destination_key,
                        destination: *destination,
                    }),
            );
    }

    fn edit_entry(&mut self, key: &ServiceKey, current: &Entry, desired: &Entry) {
        let Entry {
            service,
            destinations,
        } = desired;
        if current.service != *service {
            self.additions.push(Change::EditService {
                key: *key,
                service: service.clone(),
            });
        }
        for (destination_key, current, desired) in merge(&current.destinations, destinations) {
            let (service, destination_key) = (*key, *destination_key);
            match (current, desired) {
                (None, Some(destination)) => self.additions.push(Change::AddDestination {
                    service,
                    key: destination_key,
                    destination: *destination,
                }),
                (Some(current), Some(destination)) if current != destination => {
                    let edit = Change::EditDestination {
                        service,
                        key: destination_key,
                        destination: *destination,
                    };
                    let quiesces = destination.weight == Weight::QUIESCED;
                    if quiesces {
                        self.quiescings.push(edit)
                    } else {
                        self.additions.push(edit)
                    }
                }
                (Some(_), None) => {
                    self.removals.push(Change::DeleteDestination {
                        service,
                        key: destination_key,
                    });
                }
                _ => {}
            }
        }
    }

    fn in_order(self) -> Vec<Change> {
        let Self {
            mut additions,
            quiescings,
            removals,
        } = self;
        additions.extend(quiescings);
        additions.extend(removals);
        additions
    }
}

/// Walks two sorted maps together: every key of either, with what each has for it.
fn merge<'a, K: Ord, V>(
    left: &'a BTreeMap<K, V>,
    right: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        let from_left = if order.is_le() { left.next() } else { None };
        let from_right = if order.is_ge() { right.next() } else { None };
        let key = from_left.or(from_right).map(|(key, _)| key)?;
        Some((
            key,
            from_left.map(|(_, value)| value),
            from_right.map(|(_, value)| value),
        ))
    })
}

#[cfg(test)]
mod tests;
