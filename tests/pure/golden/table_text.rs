//! Tables as text, for cases that are written and read by people.
//!
//! ```text
//! TCP 10.0.0.200:80 wlc persistent 300 255.255.255.255
//!   -> 10.0.0.11:80 DirectRoute weight 1
//!   -> 10.0.0.12:80 Tunnel GUE port 6080 checksum weight 1 upper 200 lower 100
//! UDP [fd00::200]:53 none flag-1 flag-2 one-packet
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use weir::ipvs::{
    Destination, DestinationKey, Entry, ForwardingMethod, Granularity, Persistence, SchedulerFlags, Service,
    ServiceKey, Table, Tunnel, TunnelChecksum, Weight,
};

/// A table's text.
pub fn print(table: &Table) -> String {
    let mut text = String::new();
    for (key, entry) in &table.services {
        writeln!(text, "{key} {}", service(&entry.service)).unwrap();
        text.push_str(&destinations(entry));
    }
    text
}

/// An entry's destinations, a line each.
pub fn destinations(entry: &Entry) -> String {
    let destinations = entry.destinations.iter();
    destinations
        .map(|(key, value)| format!("  -> {key} {}\n", destination(value)))
        .collect()
}

/// What follows a service's key.
pub fn service(service: &Service) -> String {
    let Service {
        scheduler,
        flags,
        one_packet,
        persistence,
    } = service;
    let mut text = scheduler
        .as_ref()
        .map_or("none", |scheduler| scheduler.name())
        .to_owned();
    let options = [
        (flags.flag1, " flag-1"),
        (flags.flag2, " flag-2"),
        (flags.flag3, " flag-3"),
        (*one_packet, " one-packet"),
    ];
    text.extend(options.iter().filter(|(given, _)| *given).map(|(_, word)| *word));
    if let Some(Persistence {
        timeout,
        granularity,
        engine,
    }) = persistence
    {
        write!(text, " persistent {} ", timeout.as_secs()).unwrap();
        match granularity {
            Granularity::V4(mask) => write!(text, "{mask}").unwrap(),
            Granularity::V6(prefix) => write!(text, "/{prefix}").unwrap(),
        }
        text.extend(engine.iter().flat_map(|engine| [" engine ", engine]));
    }
    text
}

/// What follows a destination's key.
pub fn destination(destination: &Destination) -> String {
    let Destination {
        forwarding,
        weight,
        upper_threshold,
        lower_threshold,
    } = destination;
    let mut text = format!("{forwarding} weight {weight}");
    if *upper_threshold > 0 {
        write!(text, " upper {upper_threshold} lower {lower_threshold}").unwrap();
    }
    text
}

/// Reads a table and the keys of the services that are marked as ours: a line that ends in ` (ours)`.
pub fn parse(text: &str) -> (Table, Vec<ServiceKey>) {
    let (mut table, mut ours): (Table, Vec<ServiceKey>) = Default::default();
    let mut last = None;
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(rest) = line.strip_prefix("  -> ") {
            let entry: Option<&mut Entry> = last.and_then(|key| table.services.get_mut(&key));
            let (key, value) = parse_destination(rest);
            entry
                .expect("a service comes before its destinations")
                .destinations
                .insert(key, value);
            continue;
        }
        let (line, is_ours) = match line.strip_suffix(" (ours)") {
            Some(line) => (line, true),
            None => (line, false),
        };
        let (key, service) = parse_service(line);
        ours.extend(is_ours.then_some(key));
        table.services.insert(
            key,
            Entry {
                service,
                destinations: Default::default(),
            },
        );
        last = Some(key);
    }
    (table, ours)
}

fn parse_service(line: &str) -> (ServiceKey, Service) {
    let mut words = line.split(' ');
    // A mark's key has three words, an address's two.
    let key_words = if line.starts_with("FWM") { 3 } else { 2 };
    let key: Vec<&str> = words.by_ref().take(key_words).collect();
    let key = key
        .join(" ")
        .parse()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let mut service = Service {
        scheduler: words
            .next()
            .filter(|name| *name != "none")
            .map(|name| name.parse().unwrap()),
        flags: SchedulerFlags::default(),
        one_packet: false,
        persistence: None,
    };
    while let Some(word) = words.next() {
        match word {
            "flag-1" => service.flags.flag1 = true,
            "flag-2" => service.flags.flag2 = true,
            "flag-3" => service.flags.flag3 = true,
            "one-packet" => service.one_packet = true,
            "persistent" => {
                let seconds = words.next().unwrap().parse().unwrap();
                let granularity = words.next().unwrap();
                service.persistence = Some(Persistence {
                    timeout: Duration::from_secs(seconds),
                    granularity: match granularity.strip_prefix('/') {
                        Some(prefix) => Granularity::V6(prefix.parse().unwrap()),
                        None => Granularity::V4(granularity.parse().unwrap()),
                    },
                    engine: None,
                });
            }
            "engine" => service.persistence.as_mut().unwrap().engine = words.next().map(Into::into),
            word => panic!("{line}: what is {word}?"),
        }
    }
    (key, service)
}

fn parse_destination(line: &str) -> (DestinationKey, Destination) {
    let (key, rest) = line.split_once(' ').unwrap();
    let socket: std::net::SocketAddr = key.parse().unwrap();
    let (forwarding, rest) = rest.split_once(" weight ").unwrap();
    let numbers: Vec<u32> = rest.split(' ').filter_map(|word| word.parse().ok()).collect();
    let limit = |place: usize| numbers.get(place).copied().unwrap_or_default();
    let destination = Destination {
        forwarding: parse_forwarding(forwarding),
        weight: Weight::saturating(numbers[0].into()),
        upper_threshold: limit(1),
        lower_threshold: limit(2),
    };
    let key = DestinationKey {
        address: socket.ip(),
        port: socket.port(),
    };
    (key, destination)
}

fn parse_forwarding(text: &str) -> ForwardingMethod {
    let (text, checksum) = match (
        text.strip_suffix(" remote checksum"),
        text.strip_suffix(" checksum"),
    ) {
        (Some(text), _) => (text, TunnelChecksum::Remote),
        (None, Some(text)) => (text, TunnelChecksum::Full),
        (None, None) => (text, TunnelChecksum::None),
    };
    match text {
        "Masquerade" => ForwardingMethod::Masquerade,
        "Local" => ForwardingMethod::Local,
        "DirectRoute" => ForwardingMethod::DirectRoute,
        "Bypass" => ForwardingMethod::Bypass,
        "Tunnel IPIP" => ForwardingMethod::Tunnel(Tunnel::Ipip),
        "Tunnel GRE" => ForwardingMethod::Tunnel(Tunnel::Gre { checksum }),
        text => {
            let port = text
                .strip_prefix("Tunnel GUE port ")
                .unwrap_or_else(|| panic!("how to forward by {text}?"));
            ForwardingMethod::Tunnel(Tunnel::Gue {
                port: port.parse().unwrap(),
                checksum,
            })
        }
    }
}
