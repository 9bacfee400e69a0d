//! A table with every attribute that there is, and the kernel's own words for it.
//!
//! `tests/data/everything/KERNEL.txt` is what that kernel answers when it holds the table: the payload of each reply to
//! GET_SERVICE and GET_DEST in hexadecimal, sorted. `tests/kernel/ipvs.rs` compares it with the running kernel, `tests/pure/wire_bytes.rs`
//! reads it anywhere. To record a kernel's words:
//!
//! ```text
//! WEIR_LAB_KERNEL=6.12 WEIR_TEST_RECORD=1 WEIR_LAB_OUT=tests/data/everything \
//!     tests/lab/cargo test --test kernel the_kernel_says_what_was_recorded
//! ```

use std::net::Ipv4Addr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use weir::ipvs::{
    Destination, DestinationKey, Entry, Family, ForwardingMethod, Granularity, Persistence, Protocol,
    Scheduler, SchedulerFlags, Service, ServiceKey, Table, Tunnel, TunnelChecksum,
};

/// The key of a service by address.
pub fn service(address: &str, protocol: Protocol, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol,
        address: address.parse().unwrap(),
        port,
    }
}

/// The key of a destination.
pub fn destination(address: &str, port: u16) -> DestinationKey {
    DestinationKey {
        address: address.parse().unwrap(),
        port,
    }
}

/// A service for every attribute that there is.
pub fn everything() -> Table {
    let gue = Tunnel::Gue {
        port: NonZeroU16::new(6080).unwrap(),
        checksum: TunnelChecksum::Remote,
    };
    let gre = Tunnel::Gre {
        checksum: TunnelChecksum::Full,
    };
    let limited = Destination {
        upper_threshold: 100,
        lower_threshold: 50,
        ..Destination::new(ForwardingMethod::Masquerade, 2_147_483_647)
    };
    let web = Entry {
        service: Service::new(Scheduler::WeightedRoundRobin),
        destinations: [
            (destination("10.0.0.11", 8080), limited),
            (
                destination("10.0.0.12", 80),
                Destination::new(ForwardingMethod::DirectRoute, 0),
            ),
            (
                destination("10.0.0.13", 80),
                Destination::new(ForwardingMethod::Tunnel(Tunnel::Ipip), 1),
            ),
            (
                destination("10.0.0.14", 80),
                Destination::new(ForwardingMethod::Tunnel(gue), 1),
            ),
            (
                destination("10.0.0.15", 80),
                Destination::new(ForwardingMethod::Tunnel(gre), 1),
            ),
            (
                destination("127.0.0.1", 80),
                Destination::new(ForwardingMethod::Local, 1),
            ),
            // The other family, which only a tunnel may be.
            (
                destination("fd00::16", 80),
                Destination::new(ForwardingMethod::Tunnel(Tunnel::Ipip), 1),
            ),
        ]
        .into(),
    };
    let persistent = Entry {
        service: Service {
            persistence: Some(Persistence {
                timeout: Duration::from_secs(360),
                granularity: Granularity::V4(Ipv4Addr::new(255, 255, 255, 0)),
                engine: None,
            }),
            flags: SchedulerFlags {
                flag1: true,
                flag2: true,
                flag3: false,
            },
            ..Service::new(Scheduler::SourceHash)
        },
        destinations: [(
            destination("10.0.0.11", 0),
            Destination::new(ForwardingMethod::DirectRoute, 1),
        )]
        .into(),
    };
    let sip = Entry {
        service: Service {
            persistence: Some(Persistence {
                timeout: Duration::from_secs(60),
                granularity: Granularity::V6(64),
                engine: Some("sip".into()),
            }),
            one_packet: true,
            ..Service::new(Scheduler::RoundRobin)
        },
        destinations: [(
            destination("fd00::11", 5060),
            Destination::new(ForwardingMethod::Masquerade, 7),
        )]
        .into(),
    };
    let marked = Entry {
        service: Service {
            flags: SchedulerFlags {
                flag1: false,
                flag2: true,
                flag3: true,
            },
            ..Service::new(Scheduler::Maglev)
        },
        destinations: [(
            destination("fd00::11", 0),
            Destination::new(ForwardingMethod::DirectRoute, 3),
        )]
        .into(),
    };
    let idle = Entry {
        service: Service {
            scheduler: None,
            ..Service::new(Scheduler::RoundRobin)
        },
        destinations: [].into(),
    };
    let mark = |family, mark| ServiceKey::Mark {
        family,
        mark: NonZeroU32::new(mark).unwrap(),
    };
    let services = [
        (service("10.0.0.200", Protocol::Tcp, 80), web),
        (service("10.0.0.200", Protocol::Tcp, 0), persistent),
        (service("fd00::200", Protocol::Udp, 5060), sip),
        (mark(Family::V6, u32::MAX), marked),
        (mark(Family::V4, 1), idle.clone()),
        (service("10.0.0.200", Protocol::Sctp, 36412), idle),
    ];
    Table {
        services: services.into(),
    }
}
