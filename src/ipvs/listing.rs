//! The table as a person reads it: configuration with what the kernel counts.

use super::table::{Destination, DestinationKey, Entry, Service, ServiceKey, Table};

/// Traffic of a service or destination since it was made or zeroed (`ipvsadm --stats`), and rates over the last
/// seconds (`ipvsadm --rate`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients; only masquerading sees them.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections per second.
    pub connections_per_second: u64,
    /// Packets per second from clients.
    pub packets_in_per_second: u64,
    /// Packets per second to clients.
    pub packets_out_per_second: u64,
    /// Bytes per second from clients.
    pub bytes_in_per_second: u64,
    /// Bytes per second to clients.
    pub bytes_out_per_second: u64,
}

/// Connections of a destination that exist now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// In their handshake or established.
    pub active: u32,
    /// In any other state.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
}

/// A destination as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDestination {
    /// What it is found by.
    pub key: DestinationKey,
    /// Its configuration.
    pub destination: Destination,
    /// Its connections.
    pub connections: Connections,
    /// Its traffic.
    pub statistics: Statistics,
}

/// A virtual service as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedService {
    /// What it is found by.
    pub key: ServiceKey,
    /// Its configuration.
    pub service: Service,
    /// Its traffic.
    pub statistics: Statistics,
    /// Its destinations in the order of their keys.
    pub destinations: Vec<ListedDestination>,
}

/// The configuration in a listing.
impl FromIterator<ListedService> for Table {
    fn from_iter<I: IntoIterator<Item = ListedService>>(listing: I) -> Self {
        let services = listing
            .into_iter()
            .map(|listed| {
                let destinations = listed
                    .destinations
                    .iter()
                    .map(|listed| (listed.key, listed.destination))
                    .collect();
                (
                    listed.key,
                    Entry {
                        service: listed.service,
                        destinations,
                    },
                )
            })
            .collect();
        Table { services }
    }
}
