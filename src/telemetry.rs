//! Logs: to standard error, for people or as JSON.
//!
//! A line about an object carries the object's kind, namespace and name as fields of their own, so that programs find it.
//! For people the sentence names it already.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Fields that repeat for programs what a line's sentence says.
const FOR_PROGRAMS: [&str; 5] = ["kind", "namespace", "name", "reason", "service"];

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

/// Starts logging. `RUST_LOG` says what is logged; without it, Weir's own messages from INFO up, and others' from
/// WARN up.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,weir=info"));
    subscriber(format, filter, io::stderr, colours(&io::stderr())).init();
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    writer: W,
    coloured: bool,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false);
    match format {
        LogFormat::Text => {
            let fields = debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{value:?}"),
                // What the log crate's own lines bring along.
                name if name.starts_with("log.") || FOR_PROGRAMS.contains(&name) => Ok(()),
                name => write!(writer, " {name}={value:?}"),
            });
            Box::new(builder.with_ansi(coloured).fmt_fields(fields).finish())
        }
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

/// Whether to colour what goes to a stream: only for a person who did not ask for none (<https://no-color.org>).
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info, warn};

    use super::*;

    /// What two lines look like.
    fn logged(format: LogFormat) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let pipe = written.clone();
        let writer = move || Pipe(pipe.clone());
        let subscriber = subscriber(format, EnvFilter::new("info"), writer, false);
        tracing::subscriber::with_default(subscriber, || {
            warn!(
                kind = "VirtualService",
                namespace = "shop",
                name = "web",
                "VirtualService shop/web: wrong"
            );
            info!(changes = 2, "the kernel's table has been changed");
        });
        let written = written.lock().unwrap().clone();
        String::from_utf8(written).unwrap()
    }

    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn people_read_of_an_object_once() {
        let text = logged(LogFormat::Text);
        assert!(text.contains(" WARN VirtualService shop/web: wrong\n"), "{text}");
        assert!(
            text.contains(" INFO the kernel's table has been changed changes=2\n"),
            "{text}"
        );
    }

    #[test]
    fn programs_find_an_object_by_its_fields() {
        let text = logged(LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let fields = ["level", "message", "kind", "namespace", "name"].map(|key| line[key].as_str().unwrap());
        let message = "VirtualService shop/web: wrong";
        assert_eq!(fields, ["WARN", message, "VirtualService", "shop", "web"]);
    }
}
