//! What a kernel said when somebody did something (Linux 6.18, recorded with `ip` and `nft`), and any bytes.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hexadecimal.as_bytes().chunks(2).map(byte).collect()
}

fn heard(source: Source, hexadecimal: &str) -> Vec<(u32, Heard)> {
    read_events(source, &bytes(hexadecimal))
        .map(|Event { port, heard }| (port, heard))
        .collect()
}

/// `ip address add 10.9.0.1/32 dev lo`, the route that follows from it, and `ip address delete`.
const ADDRESS_ADDED: &str = "4c00000014000000d00f086bef2d00000220800001000000080001000a090001080002000a090001070003006c6f0000080008008000000014000600ffffffffffffffff4374060043740600";
const ROUTE_ADDED: &str = "3c00000018000006000000000000000002200000ff02fe020000000008000f00ff000000080001000a090001080007000a0900010800040001000000";
const ADDRESS_DELETED: &str = "4c00000015000000d10f086bf32d00000220800001000000080001000a090001080002000a090001070003006c6f0000080008008000000014000600ffffffffffffffff4374060043740600";
/// `ip address add fd00::9/128 dev lo`.
const ADDRESS6_ADDED: &str = "480000001400000000000000000000000a8080000100000014000100fd00000000000000000000000000000914000600ffffffffffffffffaf740600af7406000800080080000000";
/// `nft flush ruleset`, with one table and one set.
const FLUSHED: &str = "340000000b0a000001000000c42a00000200000409000100776569720000000006000200730000000c001000000000000000000134000000020a000001000000c42a00000200000409000100776569720000000008000300000000000c0004000000000000000001";
const FLUSHED_GENERATION: &str =
    "2c0000000f0a000001000000c42a00000000000408000100000000040800020000002ac4080003006e667400";

#[test]
fn an_address_that_comes_and_goes_is_heard() {
    let address = |address: &str, removed: bool| Heard::Address {
        link: 1,
        address: address.parse::<IpAddr>().unwrap(),
        protocol: None,
        removed,
    };
    let port = 0x2def;
    assert_eq!(
        heard(Source::Route, ADDRESS_ADDED),
        [(port, address("10.9.0.1", false))]
    );
    assert_eq!(
        heard(Source::Route, ADDRESS_DELETED),
        [(port + 4, address("10.9.0.1", true))]
    );
    assert_eq!(
        heard(Source::Route, ADDRESS6_ADDED),
        [(0, address("fd00::9", false))],
        "of an IPv6 address the kernel does not say who asked"
    );
    let local = Heard::Route {
        table: 255,
        removed: false,
    };
    assert_eq!(heard(Source::Route, ROUTE_ADDED), [(0, local)]);
}

/// Messages as short as `ip link` causes them, without what else they say of the link.
#[test]
fn a_link_is_gone_when_it_is_not_only_gone_from_a_bridge() {
    let link = |kind: u8, family: u8, up: u8| {
        [
            &[40, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[
                family,
                0,
                1,
                0,
                3,
                0,
                0,
                0,
                2 | up,
                0x10,
                up,
                0,
                0xff,
                0xff,
                0xff,
                0xff,
            ],
            &[7, 0, 3, 0, b'v', b'1', 0, 0],
        ]
        .concat()
    };
    let told = |kind: u8, family: u8, up: u8| -> Vec<Heard> {
        read_events(Source::Route, &link(kind, family, up))
            .map(|event| event.heard)
            .collect()
    };
    let expected = |carrier: bool, removed: bool| Heard::Link {
        index: 3,
        name: Some("v1".into()),
        carrier,
        removed,
    };
    let (new, gone, bridge) = (16, 17, 7);
    assert_eq!(told(new, 0, 1), [expected(true, false)]);
    assert_eq!(told(gone, 0, 0), [expected(false, true)]);
    assert_eq!(told(gone, bridge, 1), [expected(true, false)]);
}

#[test]
fn who_changed_rules_is_heard() {
    let weir = Heard::Ruleset { table: "weir".into() };
    let port = 0x2ac4;
    assert_eq!(
        heard(Source::Rules, FLUSHED),
        [(port, weir.clone()), (port, weir)]
    );
    let by = Some(Program {
        process: port,
        name: "nft".into(),
    });
    assert_eq!(
        heard(Source::Rules, FLUSHED_GENERATION),
        [(port, Heard::Generation { by })]
    );
}

#[test]
fn a_family_that_comes_and_goes_is_heard() {
    let event = |command: u8| {
        [
            &[36, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[command, 2, 0, 0],
            &[9, 0, 2, 0, b'I', b'P', b'V', b'S', 0, 0, 0, 0],
            &[6, 0, 1, 0],
        ]
        .concat()
    };
    let told = |command: u8| -> Vec<Heard> {
        read_events(Source::GenericFamilies, &event(command))
            .map(|event| event.heard)
            .collect()
    };
    let family = |appeared: bool| Heard::GenericFamily {
        name: "IPVS".into(),
        appeared,
    };
    assert_eq!(told(1), [family(true)]);
    assert_eq!(told(2), [family(false)]);
    assert_eq!(told(7), [], "a multicast group of it");
}

#[test]
fn outside_of_a_runtime_nothing_can_be_heard() {
    let error = Monitor::open(Source::Route).unwrap_err();
    assert!(matches!(error, NetlinkError::Open(_)), "{error:?}");
}

proptest! {
    #[test]
    fn any_bytes_are_heard_or_left_out(
        source in prop::sample::select(vec![Source::Route, Source::Rules, Source::GenericFamilies]),
        kind in prop_oneof![10..40u16, 0xa00..0xa20u16],
        rest in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let _ = read_events(source, &rest).count();
        let length = (16 + rest.len()) as u32;
        let message = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &rest].concat();
        prop_assert!(read_events(source, &message).count() <= 1);
    }

    #[test]
    fn a_damaged_event_is_heard_or_left_out(place: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        for recorded in [ADDRESS_ADDED, ROUTE_ADDED, ADDRESS6_ADDED, FLUSHED, FLUSHED_GENERATION] {
            let mut datagram = bytes(recorded);
            let length = datagram.len();
            datagram[place.index(length)] = byte;
            datagram.truncate(cut.index(length) + 1);
            for source in [Source::Route, Source::Rules, Source::GenericFamilies] {
                let _ = read_events(source, &datagram).count();
            }
        }
    }
}
