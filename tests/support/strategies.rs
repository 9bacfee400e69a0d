//! Tables that a kernel takes, so close to each other that two of them have much in common.

#![allow(dead_code, reason = "each program uses another part of it")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use weir::ipvs::{
    Destination, DestinationKey, Entry, Family, ForwardingMethod, Granularity, Persistence, Protocol,
    Scheduler, SchedulerFlags, Service, ServiceKey, Table, Tunnel, TunnelChecksum, Weight,
};

/// A table of up to six services with up to four destinations each.
pub fn table() -> impl Strategy<Value = Table> {
    vec(service_key(), 0..6).prop_flat_map(|keys| {
        let entries: Vec<_> = keys.into_iter().map(|key| (Just(key), entry(key))).collect();
        entries.prop_map(|entries| Table {
            services: entries.into_iter().collect(),
        })
    })
}

/// A table, and what becomes of it: some services stay as they are, some change, some go, some come.
pub fn table_and_successor() -> impl Strategy<Value = (Table, Table)> {
    table().prop_flat_map(|before| {
        let kept: Vec<_> = before
            .services
            .iter()
            .map(|(key, entry)| (Just(*key), successor(*key, entry)))
            .collect();
        let after = (kept, table()).prop_map(|(kept, new)| {
            let mut services = new.services;
            services.extend(kept.into_iter().filter_map(|(key, entry)| Some((key, entry?))));
            Table { services }
        });
        (Just(before), after)
    })
}

fn successor(key: ServiceKey, entry: &Entry) -> impl Strategy<Value = Option<Entry>> + use<> {
    let same = entry.clone();
    let before = entry.clone();
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(same)),
        4 => (self::entry(key), any::<[bool; 5]>()).prop_map(move |(new, keeps)| {
            // Part of the old, part of the new.
            let mut entry = new;
            if keeps[0] {
                entry.service = before.service.clone();
            }
            let kept = before.destinations.iter().zip(&keeps[1..]).filter(|(_, keep)| **keep);
            entry.destinations.extend(kept.map(|((key, destination), _)| (*key, *destination)));
            Some(entry)
        }),
    ]
}

/// One of a dozen keys.
pub fn service_key() -> impl Strategy<Value = ServiceKey> {
    let address = select(vec!["10.0.0.200", "10.0.0.201", "fd00::200"]);
    let by_address = (
        select(vec![Protocol::Tcp, Protocol::Udp]),
        address,
        select(vec![0, 80]),
    )
        .prop_map(|(protocol, address, port)| ServiceKey::Address {
            protocol,
            address: address.parse().unwrap(),
            port,
        });
    let by_mark = select(vec![Family::V4, Family::V6]).prop_map(|family| ServiceKey::Mark {
        family,
        mark: NonZeroU32::new(7).unwrap(),
    });
    prop_oneof![5 => by_address, 1 => by_mark]
}

/// A service with destinations, fit for a key.
pub fn entry(key: ServiceKey) -> impl Strategy<Value = Entry> {
    (service(key), destinations(key)).prop_map(|(service, destinations)| Entry {
        service,
        destinations,
    })
}

/// A service fit for a key: one for all ports is persistent.
pub fn service(key: ServiceKey) -> impl Strategy<Value = Service> {
    let all_ports = matches!(key, ServiceKey::Address { port: 0, .. });
    // The newest scheduler is missing in many kernels.
    let known: Vec<_> = Scheduler::KNOWN
        .iter()
        .filter(|known| **known != Scheduler::TwoRandomChoices)
        .cloned()
        .collect();
    let scheduler = prop_oneof![9 => select(known).prop_map(Some), 1 => Just(None)];
    let persistence = match all_ports {
        true => persistence(key.family()).prop_map(Some).boxed(),
        false => option::weighted(0.3, persistence(key.family())).boxed(),
    };
    (scheduler, any::<[bool; 3]>(), any::<bool>(), persistence).prop_map(
        |(scheduler, [flag1, flag2, flag3], one_packet, persistence)| Service {
            scheduler,
            flags: SchedulerFlags { flag1, flag2, flag3 },
            one_packet,
            persistence,
        },
    )
}

fn persistence(family: Family) -> impl Strategy<Value = Persistence> {
    let granularity = match family {
        Family::V4 => select(vec![0xffff_ffff, 0xffff_ff00, 0xff00_ff00])
            .prop_map(|mask: u32| Granularity::V4(Ipv4Addr::from(mask)))
            .boxed(),
        Family::V6 => (1..=128u8).prop_map(Granularity::V6).boxed(),
    };
    (select(vec![1, 300, 2_678_400]), granularity).prop_map(|(seconds, granularity)| Persistence {
        timeout: Duration::from_secs(seconds),
        granularity,
        engine: None,
    })
}

fn destinations(key: ServiceKey) -> impl Strategy<Value = BTreeMap<DestinationKey, Destination>> {
    let addresses: Vec<IpAddr> = ["10.0.0.11", "10.0.0.12", "fd00::11", "fd00::12"]
        .map(|text| text.parse().unwrap())
        .into();
    let destination_key = (select(addresses), select(vec![80, 8080]))
        .prop_map(|(address, port)| DestinationKey { address, port });
    btree_map(destination_key, destination(), 0..4).prop_map(move |mut destinations| {
        for (destination_key, destination) in &mut destinations {
            if Family::of(destination_key.address) != key.family() {
                destination.forwarding = ForwardingMethod::Tunnel(Tunnel::Ipip);
            }
        }
        destinations
    })
}

/// A destination, quiesced every third time.
pub fn destination() -> impl Strategy<Value = Destination> {
    let weight = prop_oneof![1 => Just(Weight::QUIESCED), 2 => (1..=Weight::MAX.get()).prop_map(|weight| Weight::saturating(weight.into()))];
    let thresholds = prop_oneof![3 => Just((0, 0)), 1 => (0..100u32, 0..100u32)];
    (forwarding(), weight, thresholds).prop_map(|(forwarding, weight, (lower, more))| Destination {
        forwarding,
        weight,
        upper_threshold: lower + more,
        lower_threshold: lower,
    })
}

/// Any way to forward.
pub fn forwarding() -> impl Strategy<Value = ForwardingMethod> {
    use TunnelChecksum::{Full, None, Remote};
    let tunnel = prop_oneof![
        Just(Tunnel::Ipip),
        (any::<NonZeroU16>(), select(vec![None, Full, Remote]))
            .prop_map(|(port, checksum)| Tunnel::Gue { port, checksum }),
        select(vec![None, Full]).prop_map(|checksum| Tunnel::Gre { checksum }),
    ];
    prop_oneof![
        2 => Just(ForwardingMethod::Masquerade),
        2 => Just(ForwardingMethod::DirectRoute),
        2 => tunnel.prop_map(ForwardingMethod::Tunnel),
        1 => select(vec![ForwardingMethod::Local, ForwardingMethod::Bypass]),
    ]
}
