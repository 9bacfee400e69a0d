//! `weir table`: the kernel's IPVS table.

use clap::Args;
use serde::Serialize;

use crate::ipvs::{KernelTable, ListedDestination, ListedService, Statistics};

use super::{OK, OutputFormat, view};

/// Show the kernel's IPVS table
///
/// In the columns of `ipvsadm -Ln`, sorted. Shows every entry of the network namespace, whoever made it.
#[derive(Debug, Args)]
pub(super) struct TableArguments {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

impl TableArguments {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut table = KernelTable::open()?;
        let info = table.info()?;
        let listing = table.listing()?;
        match self.output {
            OutputFormat::Text => {
                view::print(&view::table_text(&info, &listing))?;
            }
            format => {
                let services: Vec<ServiceView> = listing.iter().map(ServiceView::of).collect();
                view::print_value(&services, format)?;
            }
        }
        Ok(OK)
    }
}

/// A service for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceView {
    service: String,
    scheduler: Option<String>,
    /// The configuration in one text, as in the listing for people.
    configuration: String,
    #[serde(flatten)]
    traffic: TrafficView,
    destinations: Vec<DestinationView>,
}

/// What the kernel counts, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TrafficView {
    connections: u64,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl From<&Statistics> for TrafficView {
    fn from(counted: &Statistics) -> Self {
        Self {
            connections: counted.connections,
            packets_in: counted.packets_in,
            packets_out: counted.packets_out,
            bytes_in: counted.bytes_in,
            bytes_out: counted.bytes_out,
        }
    }
}

/// A destination for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DestinationView {
    destination: String,
    forwarding: String,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
    active_connections: u32,
    inactive_connections: u32,
    persistent_connections: u32,
    #[serde(flatten)]
    traffic: TrafficView,
}

impl ServiceView {
    fn of(listed: &ListedService) -> Self {
        Self {
            service: listed.key.to_string(),
            scheduler: listed.service.scheduler.as_ref().map(ToString::to_string),
            configuration: view::service_words(listed.key.family(), &listed.service),
            traffic: (&listed.statistics).into(),
            destinations: listed.destinations.iter().map(DestinationView::of).collect(),
        }
    }
}

impl DestinationView {
    fn of(listed: &ListedDestination) -> Self {
        Self {
            destination: listed.key.to_string(),
            forwarding: listed.destination.forwarding.to_string(),
            weight: listed.destination.weight.get(),
            upper_threshold: listed.destination.upper_threshold,
            lower_threshold: listed.destination.lower_threshold,
            active_connections: listed.connections.active,
            inactive_connections: listed.connections.inactive,
            persistent_connections: listed.connections.persistent,
            traffic: (&listed.statistics).into(),
        }
    }
}
