//! Cases of the order contract; the general laws are in `tests/pure/diff_properties.rs`.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::ipvs::{ForwardingMethod, Protocol, Scheduler};

const WEB: ServiceKey = ServiceKey::Address {
    protocol: Protocol::Tcp,
    address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 200)),
    port: 80,
};

fn destination_key(last: u8) -> DestinationKey {
    DestinationKey {
        address: Ipv4Addr::new(10, 0, 0, last).into(),
        port: 80,
    }
}

fn table(destinations: &[(u8, u32)]) -> Table {
    let destinations = destinations
        .iter()
        .map(|(last, weight)| {
            (
                destination_key(*last),
                Destination::new(ForwardingMethod::DirectRoute, *weight),
            )
        })
        .collect();
    let entry = Entry {
        service: Service::new(Scheduler::WeightedLeastConnections),
        destinations,
    };
    Table {
        services: [(WEB, entry)].into(),
    }
}

fn words(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_comes_before_its_destinations() {
    let changes = diff(&Table::default(), &table(&[(11, 1), (12, 1)]), |_| true);
    assert_eq!(
        words(&changes),
        [
            "add service TCP 10.0.0.200:80",
            "add destination 10.0.0.11:80 to TCP 10.0.0.200:80",
            "add destination 10.0.0.12:80 to TCP 10.0.0.200:80",
        ]
    );
}

#[test]
fn what_takes_over_is_there_before_anything_is_quiesced_or_leaves() {
    let changes = diff(&table(&[(11, 1), (12, 1)]), &table(&[(12, 0), (13, 1)]), |_| true);
    assert_eq!(
        words(&changes),
        [
            "add destination 10.0.0.13:80 to TCP 10.0.0.200:80",
            "edit destination 10.0.0.12:80 of TCP 10.0.0.200:80",
            "delete destination 10.0.0.11:80 of TCP 10.0.0.200:80",
        ]
    );
}

#[test]
fn a_foreign_service_stays() {
    let current = table(&[(11, 1)]);
    assert_eq!(diff(&current, &Table::default(), |_| false), []);
    assert_eq!(
        words(&diff(&current, &Table::default(), |key| *key == WEB)),
        ["delete service TCP 10.0.0.200:80"]
    );
}

#[test]
fn a_wanted_service_is_brought_into_line_whoever_made_it() {
    let mut desired = table(&[(11, 1)]);
    desired.services.get_mut(&WEB).unwrap().service.one_packet = true;
    assert_eq!(
        words(&diff(&table(&[(11, 1)]), &desired, |_| false)),
        ["edit service TCP 10.0.0.200:80"]
    );
}
