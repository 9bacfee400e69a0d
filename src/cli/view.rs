//! Entries and changes as text, JSON and YAML.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use crate::catalog::Finding;
use crate::host::preflight::Check;
use crate::host::{self, HostChange};
use crate::ipvs::{
    Change, Destination, Family, Granularity, Info, ListedService, Persistence, Scheduler, Service,
    ServiceKey, Table,
};

use crate::node::{GlobalChange, Steps};

use super::OutputFormat;

/// Prints to standard output. A reader that went away (`weir table | head`) is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints a value for programs.
pub(super) fn print_value(value: &impl Serialize, format: OutputFormat) -> anyhow::Result<()> {
    let text = match format {
        OutputFormat::Yaml => serde_saphyr::to_string(value)?,
        OutputFormat::Json | OutputFormat::Text => serde_json::to_string_pretty(value)? + "\n",
    };
    Ok(print(&text)?)
}

/// The kind of a line in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Act {
    /// `+`
    Add,
    /// `~`
    Change,
    /// `-`
    Delete,
}

impl Act {
    fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Change => '~',
            Self::Delete => '-',
        }
    }

    /// The terminal's code for green, yellow or red.
    fn colour(self) -> &'static str {
        match self {
            Self::Add => "\x1b[32m",
            Self::Change => "\x1b[33m",
            Self::Delete => "\x1b[31m",
        }
    }
}

/// One line of a plan: what happens to a service or to one of its destinations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PlannedChange {
    /// What happens.
    pub(super) act: Act,
    /// The service.
    pub(super) service: String,
    /// The destination, unless it happens to the service itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination: Option<String>,
    /// How it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<String>,
    /// How it will be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
}

/// What would happen on a node, or has happened.
#[derive(Debug, Serialize)]
pub(super) struct PlanView {
    changes: Vec<PlannedChange>,
    /// What happens to what the node has once.
    globals: Vec<PlannedStep>,
    /// What happens around the table.
    around: Vec<PlannedStep>,
    findings: Vec<String>,
}

impl PlanView {
    /// Shows steps from a table as it is.
    pub(super) fn new(current: &Table, steps: &Steps, findings: &[Finding]) -> Self {
        Self {
            changes: planned(current, &steps.table),
            globals: steps.globals.iter().map(planned_global).collect(),
            around: planned_around(&steps.around),
            findings: findings.iter().map(ToString::to_string).collect(),
        }
    }

    /// Whether nothing happens.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.globals.is_empty() && self.around.is_empty()
    }

    /// The lines as text, with a summary of them if asked for.
    pub(super) fn text(&self, colours: bool, summary: bool) -> String {
        let mut text = plan_text(&self.changes, colours);
        text += &steps_text(&self.globals, colours);
        text += &steps_text(&self.around, colours);
        if summary {
            text += &self.summary();
        }
        text
    }

    /// "Plan: 1 service to add, 0 to change, 2 to delete; 3 destinations to add, 1 to change, 0 to delete."
    fn summary(&self) -> String {
        let count = |act: Act, destinations: bool| {
            let same =
                |change: &&PlannedChange| change.act == act && change.destination.is_some() == destinations;
            self.changes.iter().filter(same).count()
        };
        let part = |what: &str, destinations: bool| {
            format!(
                "{} to add, {} to change, {} to delete",
                counted(count(Act::Add, destinations), what),
                count(Act::Change, destinations),
                count(Act::Delete, destinations)
            )
        };
        let around = match self.globals.len() + self.around.len() {
            0 => String::new(),
            steps => format!("; {} around the table", counted(steps, "step")),
        };
        format!(
            "Plan: {}; {}{around}.\n",
            part("service", false),
            part("destination", true)
        )
    }
}

fn planned_global(change: &GlobalChange) -> PlannedStep {
    let (act, what) = match change {
        GlobalChange::SetTimeouts(timeouts) => (Act::Change, format!("connection timeouts: {timeouts}")),
        GlobalChange::StopSyncDaemon(role) => (Act::Delete, format!("sync daemon {role}")),
        GlobalChange::StartSyncDaemon(daemon) => (Act::Add, format!("sync daemon {daemon}")),
    };
    PlannedStep { act, what }
}

/// Changes as lines, grouped by service in the order of their keys.
fn planned(current: &Table, changes: &[Change]) -> Vec<PlannedChange> {
    let mut sorted: Vec<&Change> = changes.iter().collect();
    // A stable sort: within a service the order in which things happen stays.
    sorted.sort_by_key(|change| *change.service());
    let entry = |service: &ServiceKey| current.services.get(service);
    let line = |change: &Change| {
        let key = change.service();
        let (act, destination, before, after) = match change {
            Change::AddService { key, service } => {
                (Act::Add, None, None, Some(service_words(key.family(), service)))
            }
            Change::EditService { key, service } => (
                Act::Change,
                None,
                entry(key).map(|entry| service_words(key.family(), &entry.service)),
                Some(service_words(key.family(), service)),
            ),
            Change::DeleteService { key } => {
                let before = entry(key).map(|entry| {
                    let words = service_words(key.family(), &entry.service);
                    format!("{words}, {}", counted(entry.destinations.len(), "destination"))
                });
                (Act::Delete, None, before, None)
            }
            Change::AddDestination { key, destination, .. } => {
                (Act::Add, Some(key), None, Some(destination_words(destination)))
            }
            Change::EditDestination {
                service,
                key,
                destination,
            } => (
                Act::Change,
                Some(key),
                entry(service)
                    .and_then(|entry| entry.destinations.get(key))
                    .map(destination_words),
                Some(destination_words(destination)),
            ),
            Change::DeleteDestination { service, key } => (
                Act::Delete,
                Some(key),
                entry(service)
                    .and_then(|entry| entry.destinations.get(key))
                    .map(destination_words),
                None,
            ),
        };
        PlannedChange {
            act,
            service: key.to_string(),
            destination: destination.map(ToString::to_string),
            before,
            after,
        }
    };
    sorted.into_iter().map(line).collect()
}

/// Lines of a plan as text: `+` is added, `~` changed, `-` deleted; a service that only gives its destinations a
/// place has no sign.
fn plan_text(changes: &[PlannedChange], colours: bool) -> String {
    let mut text = String::new();
    let mut heading = "";
    for change in changes {
        let words = match (&change.before, &change.after) {
            (Some(before), Some(after)) => transition(before, after),
            (Some(words), None) | (None, Some(words)) => words.clone(),
            (None, None) => String::new(),
        };
        if change.destination.is_some() && heading != change.service {
            let _ = writeln!(text, "  {}", change.service);
        }
        heading = &change.service;
        let (on, off) = if colours {
            (change.act.colour(), "\x1b[0m")
        } else {
            ("", "")
        };
        let sign = change.act.sign();
        let line = match &change.destination {
            None => format!("{sign} {} {words}", change.service),
            Some(destination) => format!("{sign}   -> {destination:<26} {words}"),
        };
        let _ = writeln!(text, "{on}{}{off}", line.trim_end());
    }
    text
}

/// "Masquerade weight 1 → 0": the words that both begin with are said once.
fn transition(before: &str, after: &str) -> String {
    let same = before
        .split(' ')
        .zip(after.split(' '))
        .take_while(|(before, after)| before == after)
        .count();
    let rest = |words: &str| words.split(' ').skip(same).collect::<Vec<_>>().join(" ");
    let common: String = before
        .split(' ')
        .take(same)
        .map(|word| format!("{word} "))
        .collect();
    format!("{common}{} → {}", rest(before), rest(after))
}

/// What was looked at on a node, a line each, problems last.
pub(super) fn checks_text(checks: &[Check], colours: bool) -> String {
    let mut text = String::new();
    let (good, bad): (Vec<_>, Vec<_>) = checks.iter().partition(|check| check.result.is_ok());
    for (word, colour, checks) in [("good", "\x1b[32m", good), ("problem", "\x1b[31m", bad)] {
        let (on, off) = if colours { (colour, "\x1b[0m") } else { ("", "") };
        for check in checks {
            let _ = writeln!(text, "{on}{word:<8}{off} {check}");
        }
    }
    text
}

/// One line of what happens around the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PlannedStep {
    /// What happens.
    pub(super) act: Act,
    /// To what.
    pub(super) what: String,
}

/// Steps around the table as lines. Who hears of an address follows from where it is.
fn planned_around(steps: &host::Steps) -> Vec<PlannedStep> {
    let line = |change: &HostChange| {
        let (act, what) = match change {
            HostChange::SetSysctl { name, value } => (Act::Change, format!("{name} = {value}")),
            HostChange::RestoreSysctl { name } => (Act::Change, format!("{name} as it was")),
            HostChange::AddLink { name, kind } => (Act::Add, format!("link {name} ({kind})")),
            HostChange::DeleteLink { name } => (Act::Delete, format!("link {name}")),
            HostChange::AddAddress(bound) => (Act::Add, format!("address {bound}")),
            HostChange::DeleteAddress(bound) => (Act::Delete, format!("address {bound}")),
            HostChange::OpenGuePort(port) => (Act::Add, port.to_string()),
            HostChange::CloseGuePort(port) => (Act::Delete, port.to_string()),
            HostChange::ChangeRules(transaction) => (Act::Change, format!("nftables: {transaction}")),
            HostChange::Announce(_) => return None,
        };
        Some(PlannedStep { act, what })
    };
    steps.all().filter_map(line).collect()
}

/// Steps as text.
fn steps_text(steps: &[PlannedStep], colours: bool) -> String {
    let mut text = String::new();
    for PlannedStep { act, what } in steps {
        let (on, off) = if colours {
            (act.colour(), "\x1b[0m")
        } else {
            ("", "")
        };
        let _ = writeln!(text, "{on}{} {what}{off}", act.sign());
    }
    text
}

/// "1 service", "2 services".
pub(super) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A service's configuration in ipvsadm's words: `wlc persistent 300 mask 255.255.255.0`.
pub(super) fn service_words(family: Family, service: &Service) -> String {
    let Service {
        scheduler,
        flags,
        one_packet,
        persistence,
    } = service;
    let mut words = scheduler.as_ref().map_or("none", Scheduler::name).to_owned();
    let prefix = match scheduler {
        Some(Scheduler::SourceHash) => "sh",
        Some(Scheduler::Maglev) => "mh",
        _ => "",
    };
    let named = |word: &str, number: u8| {
        if prefix.is_empty() {
            format!("flag-{number}")
        } else {
            format!("{prefix}-{word}")
        }
    };
    let mut set = Vec::new();
    set.extend(flags.flag1.then(|| named("fallback", 1)));
    set.extend(flags.flag2.then(|| named("port", 2)));
    set.extend(flags.flag3.then(|| "flag-3".to_owned()));
    if !set.is_empty() {
        let _ = write!(words, " ({})", set.join(","));
    }
    if let Some(Persistence {
        timeout,
        granularity,
        engine,
    }) = persistence
    {
        let _ = write!(words, " persistent {}", timeout.as_secs());
        match granularity {
            granularity if *granularity == Granularity::single(family) => {}
            Granularity::V4(mask) => {
                let _ = write!(words, " mask {mask}");
            }
            Granularity::V6(prefix) => {
                let _ = write!(words, " mask {prefix}");
            }
        }
        if let Some(engine) = engine {
            let _ = write!(words, " pe {engine}");
        }
    }
    if *one_packet {
        words.push_str(" ops");
    }
    words
}

/// A destination's configuration: `DirectRoute weight 1`.
fn destination_words(destination: &Destination) -> String {
    let Destination {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    } = destination;
    let mut words = format!("{forwarding} weight {weight}");
    if *upper_threshold > 0 {
        let _ = write!(words, " thresholds {upper_threshold}/{lower_threshold}");
    }
    words
}

/// The table in the columns of `ipvsadm -Ln`.
pub(super) fn table_text(info: &Info, listing: &[ListedService]) -> String {
    let mut text = format!(
        "IP Virtual Server version {} (size={})\n\
         Prot LocalAddress:Port Scheduler Flags\n\
         \x20 -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
        info.version_words(),
        info.connection_table_size
    );
    for service in listing {
        let words = service_words(service.key.family(), &service.service);
        let _ = match service.key {
            ServiceKey::Address {
                protocol,
                address,
                port,
            } => {
                let address = std::net::SocketAddr::new(address, port);
                writeln!(text, "{:<4} {address} {words}", protocol.to_string())
            }
            ServiceKey::Mark {
                family: Family::V4,
                mark,
            } => writeln!(text, "FWM  {mark} {words}"),
            ServiceKey::Mark {
                family: Family::V6,
                mark,
            } => writeln!(text, "FWM  {mark} IPv6 {words}"),
        };
        for destination in &service.destinations {
            let _ = writeln!(
                text,
                "  -> {:<28} {:<7} {:<6} {:<10} {:<10}",
                destination.key.to_string(),
                destination.destination.forwarding.listing_word(),
                destination.destination.weight.get(),
                destination.connections.active,
                destination.connections.inactive
            );
        }
    }
    text
}
