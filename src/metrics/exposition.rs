//! A registry as text: made by one thread at a time, and kept for as long as nobody could tell the difference.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a text is handed out again: several servers that scrape at once cost the kernel one listing.
const FRESH: Duration = Duration::from_secs(1);

/// The text formats that scrapers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// Prometheus' older format 0.0.4, which everything reads.
    Prometheus,
}

impl Format {
    /// The format for a client that accepts these media types.
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a process tells of itself.
#[derive(Debug)]
pub struct Exposition {
    registry: Arc<Registry>,
    latest: Arc<Mutex<Option<(Instant, Bytes)>>>,
}

impl Exposition {
    /// The metrics of a registry.
    pub fn new(registry: Registry) -> Self {
        Self {
            registry: Arc::new(registry),
            latest: Arc::default(),
        }
    }

    /// The metrics as they were within the last second. `None` while the runtime is being shut down.
    pub async fn text(&self, format: Format) -> Option<Bytes> {
        let text = self.open_metrics().await?;
        Some(match format {
            Format::OpenMetrics => text,
            Format::Prometheus => without_open_metrics(&String::from_utf8_lossy(&text)).into(),
        })
    }

    async fn open_metrics(&self) -> Option<Bytes> {
        let mut latest = self.latest.clone().lock_owned().await;
        if let Some((made, text)) = &*latest
            && made.elapsed() < FRESH
        {
            return Some(text.clone());
        }
        let registry = self.registry.clone();
        // Collectors ask the kernel. The thread keeps the lock, so that clients who do not wait for it start no second one.
        let encoded = tokio::task::spawn_blocking(move || {
            let text = Bytes::from(encode(&registry).ok()?);
            *latest = Some((Instant::now(), text.clone()));
            Some(text)
        });
        encoded.await.ok()?
    }
}

fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode(&mut text, registry)?;
    Ok(text)
}

/// The older format names counters in full where they are described, and knows neither units nor an end.
fn without_open_metrics(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                plain += &format!("# HELP {name}{suffix} {help}\n");
            }
            plain += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::Unit;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_formats_name_the_same_series() {
        let (mut registry, counter, gauge) = (
            Registry::default(),
            Counter::<u64>::default(),
            Gauge::<i64>::default(),
        );
        registry.register("changes", "Changes", counter.clone());
        registry.register_with_unit("age", "Age", Unit::Seconds, gauge);
        counter.inc();
        let exposition = Exposition::new(registry);
        let text = async |format| String::from_utf8(exposition.text(format).await.unwrap().to_vec()).unwrap();
        assert_eq!(
            text(Format::OpenMetrics).await,
            "# HELP changes Changes.\n# TYPE changes counter\nchanges_total 1\n\
             # HELP age_seconds Age.\n# TYPE age_seconds gauge\n# UNIT age_seconds seconds\nage_seconds 0\n# EOF\n"
        );
        assert_eq!(
            text(Format::Prometheus).await,
            "# HELP changes_total Changes.\n# TYPE changes_total counter\nchanges_total 1\n\
             # HELP age_seconds Age.\n# TYPE age_seconds gauge\nage_seconds 0\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_text_is_handed_out_again_for_a_second() {
        let (mut registry, counter) = (Registry::default(), Counter::<u64>::default());
        registry.register("changes", "Changes", counter.clone());
        let exposition = Exposition::new(registry);
        let first = exposition.text(Format::OpenMetrics).await;
        counter.inc();
        assert_eq!(exposition.text(Format::OpenMetrics).await, first);
        tokio::time::advance(FRESH).await;
        assert_ne!(exposition.text(Format::OpenMetrics).await, first);
    }

    #[test]
    fn prometheus_gets_what_it_asks_for_and_others_what_everything_reads() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Prometheus);
        assert_eq!(Format::accepted(""), Format::Prometheus);
    }
}
