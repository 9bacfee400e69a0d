//! Metrics: what a process tells Prometheus of itself. `docs/metrics.md` lists them, and a test compares.
//!
//! ```text
//! agent's loop ─► Metrics ──────────┐
//! latest Report ──► report ─────────┼─► Registry ─► Exposition ─► GET /metrics
//! kernel's counters ─► listeners ───┘
//! ```
//!
//! The loop hands values to one [`Metrics`]. All else is read when somebody asks: the latest report, and what the
//! kernel counts, over a connection of its own, so that no pass waits for a scrape.
//!
//! How many series there are follows from how many listeners a node has, and not from how many real servers, unless
//! [`PerRealServer`] says so. Every series names the node, so that it means the same however it was scraped.

mod controller;
mod exposition;
mod listeners;
mod pass;
mod report;

use std::borrow::Cow;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::agent::report::Report;

pub use controller::ControllerMetrics;
pub use exposition::{Exposition, Format};
pub use listeners::{Listeners, PerRealServer};
pub use pass::Metrics;

/// A label of a series.
type Label = (&'static str, Cow<'static, str>);

/// Everything an agent tells: of its loop, of its latest report, and what the kernel counts for its listeners.
pub fn agent_registry(
    node: &str,
    metrics: &Metrics,
    reports: watch::Receiver<Report>,
    listeners: Listeners,
) -> Registry {
    let mut registry = registry(node);
    metrics.register(&mut registry);
    registry.register_collector(Box::new(report::LatestReport(reports)));
    registry.register_collector(Box::new(listeners));
    registry
}

/// Everything a controller tells.
pub fn controller_registry(metrics: &ControllerMetrics) -> Registry {
    let mut registry = Registry::with_prefix("weir");
    registry.register_collector(Box::new(Build));
    metrics.register(&mut registry);
    registry
}

/// A registry with what every process tells. Each of its series carries the node's name.
fn registry(node: &str) -> Registry {
    let node = [("node".into(), node.to_owned().into())];
    let mut registry = Registry::with_prefix_and_labels("weir", node.into_iter());
    registry.register_collector(Box::new(Build));
    registry
}

/// Which program runs on which kernel.
#[derive(Debug)]
struct Build;

impl Collector for Build {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let labels = vec![
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("kernel", kernel.into()),
        ];
        let help = "Version of Weir and of the kernel it runs on; always 1";
        gauges(&mut encoder, "build_info", help, [(labels, 1)])
    }
}

/// Writes a family of gauges: each series by its labels.
fn gauges(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Vec<Label>, u64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, &sentence(help), None, MetricType::Gauge)?;
    for (labels, value) in series {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

/// Writes a family of counters that somebody else counts.
fn counters(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Vec<Label>, u64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, &sentence(help), None, MetricType::Counter)?;
    for (labels, value) in series {
        let mut counter = family.encode_family(&labels)?;
        counter.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}

/// As the registry writes it for metrics that it holds itself.
fn sentence(help: &str) -> String {
    format!("{help}.")
}

#[cfg(test)]
mod tests;
