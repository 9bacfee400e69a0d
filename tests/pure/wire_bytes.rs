//! The codec of IPVS's netlink family: what is written is read back, no bytes make reading panic, and whole
//! messages are, byte for byte, what `include/uapi/linux/ip_vs.h` says.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::everything::everything;
use crate::strategies;
use neli::consts::nl::NlmF;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use weir::ipvs::wire::{self, Command, CommandAttribute};
use weir::ipvs::{
    Connections, Destination, DestinationKey, Family, Granularity, ListedDestination, ListedService,
    Persistence, Protocol, Scheduler, SchedulerFlags, Service, ServiceKey, Statistics, SyncDaemon,
    SyncDaemonRole, Timeouts, Weight,
};
use weir::netlink::{Attributes, Batch, Body, MessageWriter, Messages};

type Writer<'a> = MessageWriter<'a, CommandAttribute>;
type Reader<'a> = Attributes<'a, CommandAttribute>;

/// The number the kernel may have given the family, and the bytes of its header.
const FAMILY: u16 = 0x1d;
const GENERIC_HEADER: usize = 4;

/// One message of the family with these attributes.
fn message(command: Command, write: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
    let family = weir::netlink::Family {
        number: FAMILY,
        version: wire::FAMILY_VERSION,
    };
    let mut batch = Batch::default();
    batch.push(FAMILY, NlmF::empty(), &family.command(command, write));
    batch.as_bytes().to_vec()
}

/// Writes attributes and reads them back from the message.
fn through<T>(write: impl Fn(&mut Writer<'_>), read: impl FnOnce(Reader<'_>) -> T) -> T {
    let bytes = message(Command::NewService, write);
    let mut messages = Messages::new(&bytes);
    let Some(Body::Reply {
        kind: FAMILY,
        payload,
    }) = messages.next().map(|message| message.body)
    else {
        panic!("the message is one of the family");
    };
    assert_eq!(messages.next(), None);
    read(Attributes::after_header(payload, GENERIC_HEADER))
}

fn service_key() -> impl Strategy<Value = ServiceKey> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    prop_oneof![
        (protocol, any::<IpAddr>(), any::<u16>()).prop_map(|(protocol, address, port)| ServiceKey::Address {
            protocol,
            address,
            port
        }),
        (select(vec![Family::V4, Family::V6]), any::<NonZeroU32>())
            .prop_map(|(family, mark)| ServiceKey::Mark { family, mark }),
    ]
}

fn service(family: Family) -> impl Strategy<Value = Service> {
    // The kernel's word for no scheduler is not the name of one.
    let unknown = "[a-z][a-z0-9_-]{0,14}".prop_filter("a word with a meaning", |name| name != "none");
    let scheduler = prop_oneof![
        select(Scheduler::KNOWN).prop_map(Some),
        unknown.prop_map(|name| name.parse().ok()),
        Just(None),
    ];
    let granularity = match family {
        Family::V4 => any::<Ipv4Addr>().prop_map(Granularity::V4).boxed(),
        Family::V6 => any::<u8>().prop_map(Granularity::V6).boxed(),
    };
    let persistence =
        (any::<u32>(), granularity, option::of("[a-z]{1,15}")).prop_map(|(seconds, granularity, engine)| {
            Persistence {
                timeout: Duration::from_secs(seconds.into()),
                granularity,
                engine: engine.map(Into::into),
            }
        });
    (
        scheduler,
        any::<[bool; 3]>(),
        any::<bool>(),
        option::of(persistence),
    )
        .prop_map(
            |(scheduler, [flag1, flag2, flag3], one_packet, persistence)| Service {
                scheduler,
                flags: SchedulerFlags { flag1, flag2, flag3 },
                one_packet,
                persistence,
            },
        )
}

fn keyed_service() -> impl Strategy<Value = (ServiceKey, Service)> {
    service_key().prop_flat_map(|key| (Just(key), service(key.family())))
}

fn destination() -> impl Strategy<Value = Destination> {
    (
        strategies::forwarding(),
        0..=Weight::MAX.get(),
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(
            |(forwarding, weight, upper_threshold, lower_threshold)| Destination {
                forwarding,
                weight: Weight::saturating(weight.into()),
                upper_threshold,
                lower_threshold,
            },
        )
}

fn daemon() -> impl Strategy<Value = SyncDaemon> {
    (
        select(vec![SyncDaemonRole::Master, SyncDaemonRole::Backup]),
        "[a-z0-9.-]{1,15}",
        any::<u8>(),
        option::of(any::<u16>()),
        option::of(any::<IpAddr>()),
        option::of(any::<u16>()),
        option::of(any::<u8>()),
    )
        .prop_map(
            |(role, interface, sync_id, max_length, group, port, ttl)| SyncDaemon {
                role,
                interface: interface.into(),
                sync_id,
                max_length,
                group,
                port,
                ttl,
            },
        )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    any::<[u32; 3]>().prop_map(|seconds| {
        let [tcp, tcp_fin, udp] = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        Timeouts { tcp, tcp_fin, udp }
    })
}

proptest! {
    #[test]
    fn a_service_is_read_as_it_was_written((key, service) in keyed_service()) {
        let read = through(|message| wire::write_service(message, &key, &service), wire::read_service);
        let statistics = Statistics::default();
        prop_assert_eq!(read, Some(ListedService { key, service, statistics, destinations: Vec::new() }));
    }

    #[test]
    fn a_destination_is_read_as_it_was_written(
        address: IpAddr,
        port: u16,
        destination in destination(),
        service_family in select(vec![Family::V4, Family::V6]),
    ) {
        let key = DestinationKey { address, port };
        let read = through(
            |message| wire::write_destination(message, &key, &destination),
            |attributes| wire::read_destination(attributes, service_family),
        );
        let (connections, statistics) = (Connections::default(), Statistics::default());
        prop_assert_eq!(read, Some(ListedDestination { key, destination, connections, statistics }));
    }

    #[test]
    fn a_sync_daemon_is_read_as_it_was_written(daemon in daemon()) {
        let read = through(|message| wire::write_daemon(message, &daemon), wire::read_daemon);
        prop_assert_eq!(read, Some(daemon));
    }

    #[test]
    fn timeouts_are_read_as_they_were_written(timeouts in timeouts()) {
        let read = through(|message| wire::write_timeouts(message, &timeouts), wire::read_timeouts);
        prop_assert_eq!(read, timeouts);
    }

    #[test]
    fn the_whole_message_is_aligned_and_says_its_length((key, service) in keyed_service()) {
        let bytes = message(Command::NewService, |message| wire::write_service(message, &key, &service));
        prop_assert_eq!(bytes.len() % 4, 0);
        prop_assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
    }

    /// Any bytes, and bytes that begin like an answer, whose nested attribute then holds anything.
    #[test]
    fn reading_any_bytes_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 0..5u16,
    ) {
        read_everything(Attributes::new(&bytes));
        let nested = message(Command::NewService, |message| message.bytes(CommandAttribute::from(kind), &bytes));
        read_everything(Attributes::new(&nested[16 + GENERIC_HEADER..]));
    }

    /// A valid message with one byte changed or its end cut off comes closer to the code than noise does.
    #[test]
    fn reading_a_damaged_answer_never_panics(
        (key, service) in keyed_service(),
        destination in destination(),
        place: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
    ) {
        let mut bytes = message(Command::NewService, |message| {
            wire::write_service(message, &key, &service);
            let key = DestinationKey { address: Ipv4Addr::LOCALHOST.into(), port: 1 };
            wire::write_destination(message, &key, &destination);
        });
        let length = bytes.len();
        bytes[place.index(length)] = byte;
        bytes.truncate(cut.index(length) + 1);
        for message in Messages::new(&bytes) {
            if let Body::Reply { payload, .. } = message.body {
                read_everything(Attributes::after_header(payload, GENERIC_HEADER));
            }
        }
    }
}

fn read_everything(attributes: Reader<'_>) {
    let _ = wire::read_service(attributes.clone());
    let _ = wire::read_destination(attributes.clone(), Family::V4);
    let _ = wire::read_destination(attributes.clone(), Family::V6);
    let _ = wire::read_daemon(attributes.clone());
    let _ = wire::read_timeouts(attributes);
}

#[test]
fn a_service_of_a_protocol_without_a_name_here_is_left_out() {
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: Ipv4Addr::LOCALHOST.into(),
        port: 80,
    };
    let mut bytes = message(Command::NewService, |message| {
        wire::write_service_key(message, &key)
    });
    // The protocol's number, in the second attribute of the service: 33 is DCCP.
    assert_eq!(bytes[36], 6);
    bytes[36] = 33;
    assert_eq!(wire::read_service(Attributes::new(&bytes[20..])), None);
}

#[test]
fn times_longer_than_the_kernel_counts_are_cut_off() {
    let timeouts = Timeouts {
        tcp: Duration::from_secs(1 << 33),
        ..Timeouts::default()
    };
    let read = through(
        |message| wire::write_timeouts(message, &timeouts),
        wire::read_timeouts,
    );
    assert_eq!(read.tcp, Duration::from_secs(u32::MAX.into()));
}

/// Whole messages, written out by hand for a little-endian machine.
#[cfg(target_endian = "little")]
#[rustfmt::skip]
mod by_hand {
    use super::*;

    /// Length of the message, its type and flags (NLM_F_REQUEST), no sequence number and port yet; then command,
    /// version 1 and two reserved bytes.
    fn header(length: u8, command: u8) -> Vec<u8> {
        vec![
            length, 0, 0, 0, 0x1d, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            command, 1, 0, 0,
        ]
    }

    fn hex_assert(written: Vec<u8>, header: Vec<u8>, attributes: &[u8]) {
        let expected = [&header[..], attributes].concat();
        assert_eq!(written, expected, "\nwritten  {written:02x?}\nexpected {expected:02x?}");
    }

    fn web() -> ServiceKey {
        ServiceKey::Address { protocol: Protocol::Tcp, address: Ipv4Addr::new(10, 0, 0, 200).into(), port: 80 }
    }

    /// `ipvsadm -A -t 10.0.0.200:80 -s wlc`
    #[test]
    fn a_service_is_added() {
        let service = Service::new(Scheduler::WeightedLeastConnections);
        let written = message(Command::NewService, |message| wire::write_service(message, &web(), &service));
        hex_assert(written, header(104, 1), &[
            84, 0, 1, 0x80,                                     // IPVS_CMD_ATTR_SERVICE, nested
            6, 0, 1, 0, 2, 0, 0, 0,                             // AF: AF_INET, host order
            6, 0, 2, 0, 6, 0, 0, 0,                             // PROTOCOL: IPPROTO_TCP, host order
            20, 0, 3, 0, 10, 0, 0, 200,                         // ADDR: union nf_inet_addr, of 16 bytes
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            6, 0, 4, 0, 0, 80, 0, 0,                            // PORT: network order
            8, 0, 6, 0, b'w', b'l', b'c', 0,                    // SCHED_NAME
            12, 0, 7, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,    // FLAGS: struct ip_vs_flags { flags, mask }
            8, 0, 8, 0, 0, 0, 0, 0,                             // TIMEOUT in seconds
            8, 0, 9, 0, 0xff, 0xff, 0xff, 0xff,                 // NETMASK: network order
        ]);
    }

    /// `ipvsadm -E -f 7 -6 -s sh -b sh-fallback,sh-port -o -p 300 -M 64 --pe sip`
    #[test]
    fn a_service_is_replaced_by_one_with_all_options() {
        let key = ServiceKey::Mark { family: Family::V6, mark: NonZeroU32::new(7).unwrap() };
        let service = Service {
            scheduler: Some(Scheduler::SourceHash),
            flags: SchedulerFlags { flag1: true, flag2: true, flag3: false },
            one_packet: true,
            persistence: Some(Persistence {
                timeout: Duration::from_secs(300),
                granularity: Granularity::V6(64),
                engine: Some("sip".into()),
            }),
        };
        let written = message(Command::SetService, |message| wire::write_service(message, &key, &service));
        hex_assert(written, header(84, 2), &[
            64, 0, 1, 0x80,                                     // IPVS_CMD_ATTR_SERVICE, nested
            6, 0, 1, 0, 10, 0, 0, 0,                            // AF: AF_INET6
            8, 0, 5, 0, 7, 0, 0, 0,                             // FWMARK, and neither protocol, address nor port
            7, 0, 6, 0, b's', b'h', 0, 0,                       // SCHED_NAME with its NUL, then padding
            12, 0, 7, 0, 0x1d, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, // FLAGS: PERSISTENT | ONEPACKET | SCHED1 | SCHED2
            8, 0, 8, 0, 0x2c, 1, 0, 0,                          // TIMEOUT: 300
            8, 0, 9, 0, 64, 0, 0, 0,                            // NETMASK: for IPv6 a length, in host order
            8, 0, 11, 0, b's', b'i', b'p', 0,                   // PE_NAME
        ]);
    }

    /// `ipvsadm -D -t 10.0.0.200:80`
    #[test]
    fn a_service_is_deleted() {
        let written = message(Command::DelService, |message| wire::write_service_key(message, &web()));
        hex_assert(written, header(68, 3), &[
            48, 0, 1, 0x80,                                     // IPVS_CMD_ATTR_SERVICE, nested
            6, 0, 1, 0, 2, 0, 0, 0,                             // AF
            6, 0, 2, 0, 6, 0, 0, 0,                             // PROTOCOL
            20, 0, 3, 0, 10, 0, 0, 200,                         // ADDR
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            6, 0, 4, 0, 0, 80, 0, 0,                            // PORT
        ]);
    }

    /// `ipvsadm -a -t … -r [fd00::11]:8080 -i --tun-type gue --tun-port 6080 --tun-csum -w 100 -x 2000 -y 1000`,
    /// the destination alone.
    #[test]
    fn a_tunnelled_destination_is_added() {
        let key = DestinationKey { address: "fd00::11".parse().unwrap(), port: 8080 };
        let tunnel = weir::ipvs::Tunnel::Gue {
            port: 6080.try_into().unwrap(),
            checksum: weir::ipvs::TunnelChecksum::Full,
        };
        let destination = Destination {
            forwarding: weir::ipvs::ForwardingMethod::Tunnel(tunnel),
            weight: Weight::saturating(100),
            upper_threshold: 2000,
            lower_threshold: 1000,
        };
        let written =
            message(Command::NewDest, |message| wire::write_destination(message, &key, &destination));
        hex_assert(written, header(116, 5), &[
            96, 0, 2, 0x80,                                     // IPVS_CMD_ATTR_DEST, nested
            20, 0, 1, 0, 0xfd, 0, 0, 0,                         // ADDR
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11,
            6, 0, 2, 0, 0x1f, 0x90, 0, 0,                       // PORT: network order
            6, 0, 11, 0, 10, 0, 0, 0,                           // ADDR_FAMILY: AF_INET6
            8, 0, 3, 0, 2, 0, 0, 0,                             // FWD_METHOD: IP_VS_CONN_F_TUNNEL
            8, 0, 4, 0, 100, 0, 0, 0,                           // WEIGHT
            8, 0, 5, 0, 0xd0, 7, 0, 0,                          // U_THRESH
            8, 0, 6, 0, 0xe8, 3, 0, 0,                          // L_THRESH
            5, 0, 13, 0, 1, 0, 0, 0,                            // TUN_TYPE: one byte, GUE
            6, 0, 14, 0, 0x17, 0xc0, 0, 0,                      // TUN_PORT: network order
            6, 0, 15, 0, 1, 0, 0, 0,                            // TUN_FLAGS: IP_VS_TUNNEL_ENCAP_FLAG_CSUM
        ]);
    }

    /// `ipvsadm -d … -r 10.0.0.11:80`, the destination alone.
    #[test]
    fn a_destination_is_deleted() {
        let key = DestinationKey { address: Ipv4Addr::new(10, 0, 0, 11).into(), port: 80 };
        let written = message(Command::DelDest, |message| wire::write_destination_key(message, &key));
        hex_assert(written, header(60, 7), &[
            40, 0, 2, 0x80,                                     // IPVS_CMD_ATTR_DEST, nested
            20, 0, 1, 0, 10, 0, 0, 11,                          // ADDR
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            6, 0, 2, 0, 0, 80, 0, 0,                            // PORT
            6, 0, 11, 0, 2, 0, 0, 0,                            // ADDR_FAMILY
        ]);
    }

    /// `ipvsadm --start-daemon master --mcast-interface eth0 --syncid 7 --sync-maxlen 1400 --mcast-group
    /// 224.0.0.82 --mcast-port 8849 --mcast-ttl 2`
    #[test]
    fn a_sync_daemon_is_started() {
        let daemon = SyncDaemon {
            role: SyncDaemonRole::Master,
            interface: "eth0".into(),
            sync_id: 7,
            max_length: Some(1400),
            group: Some(Ipv4Addr::new(224, 0, 0, 82).into()),
            port: Some(8849),
            ttl: Some(2),
        };
        let written = message(Command::NewDaemon, |message| wire::write_daemon(message, &daemon));
        hex_assert(written, header(84, 9), &[
            64, 0, 3, 0x80,                                     // IPVS_CMD_ATTR_DAEMON, nested
            8, 0, 1, 0, 1, 0, 0, 0,                             // STATE: IP_VS_STATE_MASTER
            9, 0, 2, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0,     // MCAST_IFN
            8, 0, 3, 0, 7, 0, 0, 0,                             // SYNC_ID
            6, 0, 4, 0, 0x78, 5, 0, 0,                          // SYNC_MAXLEN: 16 bits
            8, 0, 5, 0, 224, 0, 0, 82,                          // MCAST_GROUP: network order
            6, 0, 7, 0, 0x91, 0x22, 0, 0,                       // MCAST_PORT: host order
            5, 0, 8, 0, 2, 0, 0, 0,                             // MCAST_TTL
        ]);
    }

    /// `ipvsadm --set 900 120 300`
    #[test]
    fn timeouts_are_set() {
        let [tcp, tcp_fin, udp] = [900, 120, 300].map(Duration::from_secs);
        let timeouts = Timeouts { tcp, tcp_fin, udp };
        let written = message(Command::SetConfig, |message| wire::write_timeouts(message, &timeouts));
        hex_assert(written, header(44, 12), &[
            8, 0, 4, 0, 0x84, 3, 0, 0,                          // IPVS_CMD_ATTR_TIMEOUT_TCP
            8, 0, 5, 0, 120, 0, 0, 0,                           // IPVS_CMD_ATTR_TIMEOUT_TCP_FIN
            8, 0, 6, 0, 0x2c, 1, 0, 0,                          // IPVS_CMD_ATTR_TIMEOUT_UDP
        ]);
    }

    /// A destination as a kernel lists it: more attributes than are written, those that are unknown among them,
    /// and the old 32-bit counters beside the new ones.
    #[test]
    fn a_listed_destination_is_read() {
        let bytes = [
            132, 0, 2, 0x80,                                    // IPVS_CMD_ATTR_DEST, nested
            20, 0, 1, 0, 10, 0, 0, 11,                          // ADDR
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            6, 0, 2, 0, 0, 80, 0, 0,                            // PORT
            8, 0, 3, 0, 0x43, 1, 0, 0,                          // FWD_METHOD: DROUTE with connection flags above
            8, 0, 4, 0, 1, 0, 0, 0,                             // WEIGHT
            8, 0, 5, 0, 0, 0, 0, 0,                             // U_THRESH
            8, 0, 6, 0, 0, 0, 0, 0,                             // L_THRESH
            8, 0, 7, 0, 3, 0, 0, 0,                             // ACTIVE_CONNS
            8, 0, 8, 0, 4, 0, 0, 0,                             // INACT_CONNS
            8, 0, 9, 0, 5, 0, 0, 0,                             // PERSIST_CONNS
            6, 0, 11, 0, 2, 0, 0, 0,                            // ADDR_FAMILY
            12, 0, 10, 0x80, 8, 0, 1, 0, 0xff, 0xff, 0xff, 0xff,    // STATS: CONNS, 32 bits
            16, 0, 12, 0x80, 12, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0,   // STATS64: CONNS, 64 bits
            8, 0, 99, 0, 1, 2, 3, 4,                            // of a kernel yet to come
        ];
        let read = wire::read_destination(Attributes::new(&bytes), Family::V4).unwrap();
        assert_eq!(read, ListedDestination {
            key: DestinationKey { address: Ipv4Addr::new(10, 0, 0, 11).into(), port: 80 },
            destination: Destination::new(weir::ipvs::ForwardingMethod::DirectRoute, 1),
            connections: Connections { active: 3, inactive: 4, persistent: 5 },
            statistics: Statistics { connections: 1 << 32, ..Statistics::default() },
        });
    }
}

/// What real kernels said when they held the table of `tests/support/everything.rs`.
#[test]
fn the_words_of_real_kernels_are_understood() {
    for recorded in [
        include_str!("../data/everything/6.1.txt"),
        include_str!("../data/everything/6.12.txt"),
    ] {
        let payloads = recorded
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(label, digits)| {
                let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
                (label, digits.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>())
            });
        let (mut services, mut destinations) = (Vec::new(), Vec::new());
        for (label, payload) in payloads {
            let attributes: Reader<'_> = weir::netlink::Family::attributes(&payload);
            match label.parse::<ServiceKey>() {
                Err(_) => services.push(wire::read_service(attributes).unwrap()),
                Ok(key) => {
                    destinations.push((key, wire::read_destination(attributes, key.family()).unwrap()))
                }
            }
        }
        for (key, destination) in destinations {
            let service = services.iter_mut().find(|service| service.key == key).unwrap();
            service.destinations.push(destination);
        }
        assert_eq!(services.into_iter().collect::<weir::ipvs::Table>(), everything());
    }
}
