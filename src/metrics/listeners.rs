//! What the kernel counts for the services that are Weir's, read when somebody asks.
//!
//! The ledger on disk says whose each service is, so that neither the table nor the agent has to be waited for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use clap::ValueEnum;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tracing::debug;

use crate::ipvs::{ListedDestination, ListedService, ServiceKey, TableStore, Weight};
use crate::ledger::Entries;

use super::{Label, counters, gauges};

/// Which real servers have series of their own. Where these are pods, each that ever was one adds to what Prometheus
/// has to remember.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PerRealServer {
    /// None
    Off,
    /// Those of weight 0, that take no new connections
    #[default]
    Top,
    /// All
    On,
}

impl PerRealServer {
    fn shows(self, destination: &ListedDestination) -> bool {
        match self {
            Self::Off => false,
            Self::Top => !takes_connections(destination),
            Self::On => true,
        }
    }
}

/// What the kernel counts.
#[derive(Debug)]
pub struct Listeners {
    table: Mutex<Box<dyn Table>>,
    state_dir: PathBuf,
    per_real_server: PerRealServer,
}

/// A table that a collector can hold.
trait Table: TableStore + fmt::Debug + Send {}
impl<T: TableStore + fmt::Debug + Send> Table for T {}

impl Listeners {
    /// What a table counts for the services in the ledger of a state directory.
    pub fn new(
        table: impl TableStore + fmt::Debug + Send + 'static,
        state_dir: &Path,
        per_real_server: PerRealServer,
    ) -> Self {
        Self {
            table: Mutex::new(Box::new(table)),
            state_dir: state_dir.to_owned(),
            per_real_server,
        }
    }

    /// Each service that is there, with the labels of its series.
    fn look(&self) -> anyhow::Result<Vec<(Vec<Label>, ListedService)>> {
        let (entries, _) = Entries::read(&self.state_dir)?;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let listing = table
            .look(&mut entries.keys())
            .context("cannot read the kernel's counters")?;
        let labelled = listing.into_iter().filter_map(|service| {
            let owner = entries.owner(&service.key)?;
            let mut labels = vec![
                ("namespace", owner.namespace.to_string().into()),
                ("name", owner.name.to_string().into()),
            ];
            labels.extend(key_labels(&service.key));
            Some((labels, service))
        });
        Ok(labelled.collect())
    }
}

impl Collector for Listeners {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let looked = self.look();
        gauges(
            &mut encoder,
            "kernel_counters_readable",
            "Whether the kernel's counters could be read for this scrape",
            [(vec![], u64::from(looked.is_ok()))],
        )?;
        match looked {
            Ok(services) => {
                encode_services(&mut encoder, &services)?;
                encode_real_servers(&mut encoder, &services, self.per_real_server)
            }
            Err(error) => {
                debug!("a scrape goes without the kernel's counters: {error:#}");
                Ok(())
            }
        }
    }
}

type Labelled = [(Vec<Label>, ListedService)];

fn encode_services(encoder: &mut DescriptorEncoder, services: &Labelled) -> Result<(), fmt::Error> {
    counters(
        encoder,
        "listener_connections",
        "Connections that were scheduled",
        services
            .iter()
            .map(|(labels, service)| (labels.clone(), service.statistics.connections)),
    )?;
    let both = |pick: fn(&ListedService) -> [u64; 2]| {
        services.iter().flat_map(move |(labels, service)| {
            let directions = ["in", "out"].map(|direction| ("direction", direction.into()));
            let with = |direction| [&labels[..], &[direction]].concat();
            directions.map(with).into_iter().zip(pick(service))
        })
    };
    counters(
        encoder,
        "listener_packets",
        "Packets from clients (in) and, where masquerading sees them, to clients (out)",
        both(|service| [service.statistics.packets_in, service.statistics.packets_out]),
    )?;
    counters(
        encoder,
        "listener_bytes",
        "Bytes from clients (in) and, where masquerading sees them, to clients (out)",
        both(|service| [service.statistics.bytes_in, service.statistics.bytes_out]),
    )?;
    let sums = |pick: fn(&ListedDestination) -> u64| {
        services
            .iter()
            .map(move |(labels, service)| (labels.clone(), service.destinations.iter().map(pick).sum()))
    };
    gauges(
        encoder,
        "listener_active_connections",
        "Connections in their handshake or established",
        sums(|destination| destination.connections.active.into()),
    )?;
    gauges(
        encoder,
        "listener_inactive_connections",
        "Connections in any other state",
        sums(|destination| destination.connections.inactive.into()),
    )?;
    gauges(
        encoder,
        "listener_destinations",
        "Destinations that take new connections (up) and those of weight 0 (quiesced)",
        services.iter().flat_map(|(labels, service)| {
            let all = service.destinations.len();
            let up = service
                .destinations
                .iter()
                .filter(|destination| takes_connections(destination))
                .count();
            let with = |(state, count): (&'static str, usize)| {
                ([&labels[..], &[("state", state.into())]].concat(), count as u64)
            };
            [("up", up), ("quiesced", all - up)].map(with)
        }),
    )
}

fn encode_real_servers(
    encoder: &mut DescriptorEncoder,
    services: &Labelled,
    per_real_server: PerRealServer,
) -> Result<(), fmt::Error> {
    let each = |pick: fn(&ListedDestination) -> u64| {
        services.iter().flat_map(move |(labels, service)| {
            let shown = service
                .destinations
                .iter()
                .filter(move |destination| per_real_server.shows(destination));
            shown.map(move |destination| {
                let key = ("destination", destination.key.to_string().into());
                ([&labels[..], &[key]].concat(), pick(destination))
            })
        })
    };
    gauges(
        encoder,
        "destination_weight",
        "Share of new connections; 0 is none",
        each(|destination| destination.destination.weight.get().into()),
    )?;
    gauges(
        encoder,
        "destination_active_connections",
        "Connections to a destination in their handshake or established",
        each(|destination| destination.connections.active.into()),
    )?;
    gauges(
        encoder,
        "destination_inactive_connections",
        "Connections to a destination in any other state",
        each(|destination| destination.connections.inactive.into()),
    )
}

fn takes_connections(destination: &ListedDestination) -> bool {
    destination.destination.weight != Weight::QUIESCED
}

/// What clients connect to; for listeners that share a mark, the mark.
fn key_labels(key: &ServiceKey) -> Vec<Label> {
    match key {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => vec![
            ("protocol", protocol.to_string().into()),
            ("address", address.to_string().into()),
            ("port", port.to_string().into()),
        ],
        ServiceKey::Mark { family, mark } => vec![
            ("family", family.to_string().into()),
            ("mark", mark.to_string().into()),
        ],
    }
}
