//! A table in memory that refuses what the kernel refuses.

use std::collections::{BTreeMap, btree_map};

use super::diff::Change;
use super::listing::{Connections, ListedDestination, ListedService, Statistics};
use super::netlink::IpvsError;
use super::outcome::{ChangeError, Failure, Outcome};
use super::table::{
    Destination, DestinationKey, Entry, Family, Service, ServiceKey, SyncDaemon, SyncDaemonRole, Table,
    Timeouts,
};
use super::{ForwardingMethod, Scheduler, TableStore};

/// A table that behaves as the kernel's does, for tests and for planning against a table that is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryTable {
    /// What it holds.
    pub table: Table,
    /// Schedulers it lacks, as a kernel lacks those whose module is missing.
    pub missing_schedulers: Vec<Scheduler>,
    /// Connections of destinations, whatever service they are in.
    pub connections: BTreeMap<DestinationKey, Connections>,
    /// The connection timeouts.
    pub timeouts: Timeouts,
    /// The sync daemons.
    pub daemons: Vec<SyncDaemon>,
}

impl MemoryTable {
    /// A table with this content that knows every scheduler.
    pub fn new(table: Table) -> Self {
        Self {
            table,
            ..Self::default()
        }
    }

    /// Makes one change, or refuses it as the kernel would.
    ///
    /// # Errors
    ///
    /// As the kernel's.
    pub fn change(&mut self, change: &Change) -> Result<(), ChangeError> {
        let services = &mut self.table.services;
        match change {
            Change::AddService { key, service } => match services.entry(*key) {
                btree_map::Entry::Occupied(_) => Err(ChangeError::AlreadyThere),
                btree_map::Entry::Vacant(place) => {
                    check_service(key, service, &self.missing_schedulers)?;
                    place.insert(Entry {
                        service: service.clone(),
                        destinations: Default::default(),
                    });
                    Ok(())
                }
            },
            Change::EditService { key, service } => {
                let entry = services.get_mut(key).ok_or(ChangeError::NotThere)?;
                check_service(key, service, &self.missing_schedulers)?;
                entry.service = service.clone();
                Ok(())
            }
            Change::DeleteService { key } => services.remove(key).map(drop).ok_or(ChangeError::NotThere),
            Change::AddDestination {
                service,
                key,
                destination,
            } => {
                let entry = services.get_mut(service).ok_or(ChangeError::NotThere)?;
                check_destination(service, key, destination)?;
                match entry.destinations.entry(*key) {
                    btree_map::Entry::Occupied(_) => Err(ChangeError::AlreadyThere),
                    btree_map::Entry::Vacant(place) => {
                        place.insert(*destination);
                        Ok(())
                    }
                }
            }
            Change::EditDestination {
                service,
                key,
                destination,
            } => {
                let entry = services.get_mut(service).ok_or(ChangeError::NotThere)?;
                check_destination(service, key, destination)?;
                *entry.destinations.get_mut(key).ok_or(ChangeError::NotThere)? = *destination;
                Ok(())
            }
            Change::DeleteDestination { service, key } => {
                let entry = services.get_mut(service).ok_or(ChangeError::NotThere)?;
                entry
                    .destinations
                    .remove(key)
                    .map(drop)
                    .ok_or(ChangeError::NotThere)
            }
        }
    }
}

fn check_service(key: &ServiceKey, service: &Service, missing: &[Scheduler]) -> Result<(), ChangeError> {
    if let Some(scheduler) = service
        .scheduler
        .as_ref()
        .filter(|scheduler| missing.contains(scheduler))
    {
        return Err(ChangeError::NoScheduler(scheduler.name().into()));
    }
    let all_ports = matches!(key, ServiceKey::Address { port: 0, .. });
    // The kernel takes an all-ports service only where persistence ties the ports of a client together.
    if all_ports && service.persistence.is_none() {
        Err(ChangeError::Invalid)
    } else {
        Ok(())
    }
}

fn check_destination(
    service: &ServiceKey,
    key: &DestinationKey,
    destination: &Destination,
) -> Result<(), ChangeError> {
    let other_family = Family::of(key.address) != service.family();
    let tunnel = matches!(destination.forwarding, ForwardingMethod::Tunnel(_));
    if (other_family && !tunnel) || key.address.is_unspecified() || key.address.is_multicast() {
        return Err(ChangeError::Invalid);
    }
    if destination.lower_threshold > destination.upper_threshold {
        return Err(ChangeError::Thresholds);
    }
    Ok(())
}

impl TableStore for MemoryTable {
    fn list(&mut self) -> Result<Table, IpvsError> {
        Ok(self.table.clone())
    }

    fn look(&mut self, keys: &mut dyn Iterator<Item = ServiceKey>) -> Result<Vec<ListedService>, IpvsError> {
        let listed = |key| {
            let entry = self.table.services.get(&key)?;
            let destinations = entry.destinations.iter();
            Some(ListedService {
                key,
                service: entry.service.clone(),
                statistics: Statistics::default(),
                destinations: destinations
                    .map(|(key, destination)| ListedDestination {
                        key: *key,
                        destination: *destination,
                        connections: self.connections.get(key).copied().unwrap_or_default(),
                        statistics: Statistics::default(),
                    })
                    .collect(),
            })
        };
        Ok(keys.filter_map(listed).collect())
    }

    fn timeouts(&mut self) -> Result<Timeouts, IpvsError> {
        Ok(self.timeouts)
    }

    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), IpvsError> {
        self.timeouts = timeouts.over(&self.timeouts);
        Ok(())
    }

    fn daemons(&mut self) -> Result<Vec<SyncDaemon>, IpvsError> {
        Ok(self.daemons.clone())
    }

    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), IpvsError> {
        self.daemons.push(daemon.clone());
        Ok(())
    }

    fn stop_daemon(&mut self, role: SyncDaemonRole) -> Result<(), IpvsError> {
        self.daemons.retain(|daemon| daemon.role != role);
        Ok(())
    }

    fn apply(&mut self, changes: &[Change]) -> Outcome {
        let mut outcome = Outcome::default();
        for change in changes {
            match self.change(change) {
                Ok(()) => outcome.applied += 1,
                Err(error) => outcome.failures.push(Failure {
                    change: change.clone(),
                    error,
                }),
            }
        }
        outcome
    }
}
