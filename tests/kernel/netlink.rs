//! The kernel's own sentences: whatever it says of a request that it refuses is what people are told.

use std::fs;
use std::net::Ipv6Addr;

use crate::lab::netns::Netns;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Af, Ifa, Ifla, IflaInfo, Rtm};
use neli::consts::socket::NlFamily;
use weir::netlink::{Batch, Connection, Errno, MessageWriter, NetlinkError, Refused, written};
use weir::nft::{KernelRuleset, NftError};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const CREATE: NlmF = NlmF::CREATE.union(NlmF::EXCL);
const LOOPBACK: u32 = 1;

/// `ip link add x type KIND`, with an MTU of so many bytes.
fn new_link(message: &mut MessageWriter<'_, Ifla>, kind: &str, mtu: &[u8]) {
    message.header(&[0; 16]);
    message.string(Ifla::Ifname, "x");
    message.bytes(Ifla::Mtu, mtu);
    message.nest(Ifla::Linkinfo, |info| info.string(IflaInfo::Kind, kind));
}

/// `ip address add ADDRESS/128 dev lo`
fn new_address(message: &mut MessageWriter<'_, Ifa>, address: Ipv6Addr) {
    let [a, b, c, d] = LOOPBACK.to_ne_bytes();
    message.header(&[Af::Inet6.into(), 128, 0, 0, a, b, c, d]);
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
