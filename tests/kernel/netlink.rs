//! What the kernel says: its own sentence of a request that it refuses, and what others change.

use std::fs;
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::lab::netns::Netns;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Af, Ifa, Ifla, IflaInfo, Rtm};
use neli::consts::socket::NlFamily;
use weir::netlink::{
    Batch, Connection, Errno, Event, Heard, MessageWriter, Monitor, NetlinkError, Refused, Source, written,
};
use weir::nft::{KernelRuleset, NftError};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const CREATE: NlmF = NlmF::CREATE.union(NlmF::EXCL);
const LOOPBACK: u32 = 1;
const LONG: Duration = Duration::from_secs(30);

/// `ip link add x type KIND`, with an MTU of so many bytes.
fn new_link(message: &mut MessageWriter<'_, Ifla>, kind: &str, mtu: &[u8]) {
    message.header([0; 16]);
    message.string(Ifla::Ifname, "x");
    message.bytes(Ifla::Mtu, mtu);
    message.nest(Ifla::Linkinfo, |info| info.string(IflaInfo::Kind, kind));
}

/// `ip address add ADDRESS/128 dev lo`
fn new_address(message: &mut MessageWriter<'_, Ifa>, address: Ipv6Addr) {
    let [a, b, c, d] = LOOPBACK.to_ne_bytes();
    message.header([Af::Inet6.into(), 128, 0, 0, a, b, c, d]);
    message.bytes(Ifa::Local, &address.octets());
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_refusal_says_the_kernels_sentence_and_where_the_fault_is() {
    let refused = Netns::new("refusing").run(|| {
        let mut route = Connection::open(NlFamily::Route).unwrap();
        let mut batch = Batch::default();
        let link =
            |kind: &'static str, mtu: &'static [u8]| written(move |message| new_link(message, kind, mtu));
        batch.push(Rtm::Newlink, CREATE, &link("nonesuch", &[0xdc, 5, 0, 0]));
        batch.push(Rtm::Newlink, CREATE, &link("veth", &[0xdc]));
        batch.push(Rtm::Newlink, CREATE, &link("veth", &[0xdc, 5, 0, 0]));
        batch.push(Rtm::Newlink, CREATE, &link("veth", &[0xdc, 5, 0, 0]));
        route.batch(&mut batch).unwrap()
    });
    let unknown = Refused {
        errno: Errno::OPNOTSUPP,
        why: Some("Unknown device type".into()),
        offset: None,
    };
    // The MTU comes behind two headers of 16 bytes and a name of 8.
    let too_short = Refused {
        errno: Errno::RANGE,
        why: Some("Attribute failed policy validation".into()),
        offset: Some(40),
    };
    assert_eq!(refused, [(0, unknown), (1, too_short), (3, Errno::EXIST.into())]);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_single_question_is_refused_with_the_sentence_too() {
    let error = Netns::new("refusing").run(|| {
        let mut route = Connection::open(NlFamily::Route).unwrap();
        let link = written(|message| new_link(message, "nonesuch", &[0xdc, 5, 0, 0]));
        route.request(Rtm::Newlink, CREATE, &link, |_, _| {}).unwrap_err()
    });
    assert_eq!(error.refusal(), Some(Errno::OPNOTSUPP));
    assert_eq!(error.to_string(), "the kernel refused: Unknown device type");
}

/// Sockets are opened by whoever needs them: on a thread of a runtime, in a task of one, outside of any.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_connection_opens_wherever_it_is_wanted() {
    let open = || Connection::open(NlFamily::Route).map(|connection| connection.port());
    Netns::new("opening").run(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ports = [
            open().unwrap(),
            runtime.block_on(async { open().unwrap() }),
            runtime.block_on(async { tokio::task::spawn_blocking(open).await.unwrap().unwrap() }),
        ];
        assert!(ports.iter().all(|port| *port != 0), "{ports:?}");
    });
}

/// nf_tables has no sentence; it points at what it does not find.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn nftables_is_told_by_what_it_points_at() {
    use weir::nft::{Element, Family, Field, Set, Table, transaction};
    let set = |elements: &[u8]| Set {
        key: vec![Field::Ipv4Address],
        data: None,
        ranges: false,
        elements: elements
            .iter()
            .map(|last| {
                let first = vec![10, 0, 0, *last];
                (Element { first, last: None }, None)
            })
            .collect(),
    };
    let with = |elements: &[u8]| {
        let table = Table {
            sets: [("vips".into(), set(elements))].into(),
            ..Table::default()
        };
        [(Family::Ipv4, table)].into()
    };
    let error = Netns::new("nftables").run(|| {
        let mut kernel = KernelRuleset::open().unwrap();
        // Of a table that is not there.
        kernel
            .commit(&transaction(&with(&[1]), &with(&[1, 2])))
            .unwrap_err()
    });
    let NftError::Refused { act, refused } = error else {
        panic!("refused: {error}");
    };
    assert_eq!(&*act, "add elements to vips of ip");
    assert_eq!(
        (refused.errno, &*refused.to_string()),
        (Errno::NOENT, "no such table: weir")
    );
}

/// Does something while a monitor listens, and waits until it has heard what is expected.
fn hears(
    netns: &Netns,
    source: Source,
    act: impl FnOnce() + Send,
    expected: impl Fn(&Event) -> bool + Send + Sync,
) {
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut monitor = Monitor::open(source).unwrap();
            act();
            let mut heard = Vec::new();
            let hear = async {
                while !heard.iter().any(&expected) {
                    heard.extend(monitor.hear().await.unwrap());
                }
            };
            let in_time = tokio::time::timeout(LONG, hear).await;
            assert!(in_time.is_ok(), "{heard:?}");
        });
    });
}

fn address(address: &str, removed: bool) -> Heard {
    Heard::Address {
        link: LOOPBACK,
        address: address.parse().unwrap(),
        protocol: None,
        removed,
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn what_other_programs_change_is_heard() {
    let netns = Netns::new("heard");
    let does = |source, line: &str, expected: &(dyn Fn(&Heard) -> bool + Sync)| {
        hears(
            &netns,
            source,
            || drop(netns.sh(line)),
            |event| expected(&event.heard),
        );
    };
    let removed = |heard: &Heard| matches!(heard, Heard::Link { name: Some(name), removed: true, .. } if &**name == "front");
    let of_weir = |heard: &Heard| matches!(heard, Heard::Ruleset { table } if &**table == "weir");
    let by_nft = |heard: &Heard| matches!(heard, Heard::Generation { by: Some(by) } if &*by.name == "nft");
    netns.sh("ip link set lo up; ip link add front type veth peer name back; nft add table ip weir");
    for added in ["192.0.2.1", "fd00::9"] {
        does(
            Source::Route,
            &format!("ip address add {added} dev lo"),
            &|heard| *heard == address(added, false),
        );
        does(
            Source::Route,
            &format!("ip address delete {added} dev lo"),
            &|heard| *heard == address(added, true),
        );
    }
    let route = "ip route add 198.51.100.0/24 dev lo table 1000";
    does(Source::Route, route, &|heard| {
        *heard
            == Heard::Route {
                table: 1000,
                removed: false,
            }
    });
    does(Source::Route, "ip link delete front", &removed);
    does(Source::Rules, "nft flush ruleset", &of_weir);
    does(Source::Rules, "nft add table ip weir", &by_nft);
}

/// By which a pass's own changes are told from others'.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn an_event_says_whose_request_caused_it() {
    let netns = Netns::new("own");
    let mut route = netns.run(|| Connection::open(NlFamily::Route).unwrap());
    let port = route.port();
    let own = || {
        let address = written(|message: &mut MessageWriter<'_, Ifa>| {
            message.header([Af::Inet.into(), 32, 0, 0, 1, 0, 0, 0]);
            message.bytes(Ifa::Local, &[192, 0, 2, 1]);
        });
        route.request(Rtm::Newaddr, CREATE, &address, |_, _| {}).unwrap();
    };
    hears(&netns, Source::Route, own, |event| {
        event.heard == address("192.0.2.1", false) && event.port == port
    });
    let others = || drop(netns.sh("ip address delete 192.0.2.1/32 dev lo"));
    hears(&netns, Source::Route, others, |event| {
        event.heard == address("192.0.2.1", true) && event.port != port
    });
}

/// Whoever cannot keep up is told so, and hears what comes afterwards.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn events_that_were_lost_are_known_to_be() {
    let netns = Netns::new("lost");
    let flood = || {
        netns.run(|| {
            let mut route = Connection::open(NlFamily::Route).unwrap();
            let mut batch = Batch::default();
            for number in 0..20_000u32 {
                let address = written(move |message: &mut MessageWriter<'_, Ifa>| {
                    message.header([Af::Inet.into(), 32, 0, 0, 1, 0, 0, 0]);
                    message.bytes(Ifa::Local, &(0xc612_0000 + number % 16).to_be_bytes());
                });
                let kind = if number / 16 % 2 == 0 {
                    Rtm::Newaddr
                } else {
                    Rtm::Deladdr
                };
                batch.push(kind, NlmF::CREATE, &address);
            }
            assert_eq!(route.batch(&mut batch).unwrap(), []);
        });
    };
    hears(&netns, Source::Route, flood, |event| event.heard == Heard::Lost);
}

/// What the kernel says to `ip address add` it says to `weir apply`: once, and behind what could not be done.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn weir_apply_tells_the_kernels_sentence() {
    let netns = Netns::new("without-ipv6");
    netns.sh(
        "ip link add front up type dummy; sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
    );
    let sentence = netns.run(|| {
        let mut route = Connection::open(NlFamily::Route).unwrap();
        let address = written(|message| new_address(message, Ipv6Addr::LOCALHOST));
        match route.request(Rtm::Newaddr, CREATE, &address, |_, _| {}) {
            Err(NetlinkError::Refused(refused)) => refused.to_string(),
            other => panic!("refused: {other:?}"),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("web.yaml"),
        "apiVersion: weir.dev/v1alpha1\nkind: DirectorGroup\nmetadata: {name: default}\nspec: {nodeSelector: {}, interface: front, failover: {type: Static, static: {activeNode: d1}}}\n---\n\
         apiVersion: weir.dev/v1alpha1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec:\n  \
         addresses: ['fd00::200']\n  listeners: [{name: http, protocol: TCP, port: 80}]\n  scheduler: {algorithm: wlc}\n  \
         forwarding: {method: Masquerade}\n  backends: [{name: web, realServers: {selector: {matchLabels: {app: web}}}}]\n",
    )
    .unwrap();
    let state = tempfile::tempdir().unwrap();
    let [folder, state] = [folder.path(), state.path()].map(|path| path.to_str().unwrap());
    let output = netns.output(&[
        WEIR,
        "apply",
        "--node-name",
        "d1",
        "-f",
        folder,
        "--state-dir",
        state,
    ]);
    let told = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    let expected = format!("cannot add address fd00::200 on front: {sentence}\n");
    assert!(told.contains(&expected), "{sentence:?} is to be in:\n{told}");
    assert!(!output.status.success(), "{told}");
}
