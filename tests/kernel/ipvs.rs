//! The kernel's IPVS table through Weir's eyes, with ipvsadm as the second opinion.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::everything::{destination, everything, service};
use crate::lab::netns::Netns;
use crate::poll::{eventually, within};
use crate::strategies;
use neli::consts::nl::NlmF;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use weir::ipvs::wire::{self, Command};
use weir::ipvs::{
    Change, ChangeError, Destination, DestinationKey, Entry, Family, ForwardingMethod, Granularity,
    IpvsError, KernelTable, MemoryTable, Persistence, Protocol, Scheduler, Service, ServiceKey, SyncDaemon,
    SyncDaemonRole, Table, TableStore, Timeouts, Tunnel, TunnelChecksum, Weight, diff,
};
use weir::netlink;

/// A network namespace with an IPVS table of its own. Without any address the kernel refuses every destination.
fn namespace() -> Netns {
    let netns = Netns::new("ipvs");
    netns.sh("ip link set lo up");
    netns
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn every_attribute_comes_back_as_it_was_sent() {
    namespace().run(|| {
        let mut kernel = KernelTable::open().unwrap();
        let wanted = everything();
        let outcome = kernel.apply(&diff(&Table::default(), &wanted, |_| false));
        assert_eq!(outcome.failures, [], "of {} changes", outcome.applied);
        assert_eq!(kernel.list().unwrap(), wanted);
        let keys: Vec<ServiceKey> = wanted.services.keys().copied().collect();
        assert_eq!(kernel.read(&mut keys.into_iter()).unwrap(), wanted);
    });
}

/// The same law and the same cases as for the table in memory (`tests/pure/diff_properties.rs`). Each case has a namespace
/// of its own: what was deleted before would come back with what it was.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn the_kernel_goes_from_any_table_to_any_other_and_memory_agrees() {
    let mut runner = TestRunner::new(Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    });
    let law = |(before, after): (Table, Table)| {
        let steps = [
            diff(&Table::default(), &before, |_| true),
            diff(&before, &after, |_| true),
        ];
        let (outcomes, tables) = namespace().run(|| {
            let mut kernel = KernelTable::open().unwrap();
            let outcomes = steps.each_ref().map(|changes| kernel.apply(changes));
            (
                outcomes,
                (
                    kernel.list().unwrap(),
                    kernel.read(&mut after.services.keys().copied()).unwrap(),
                ),
            )
        });
        let mut memory = MemoryTable::default();
        for (changes, outcome) in steps.iter().zip(outcomes) {
            prop_assert_eq!(&outcome, &memory.apply(changes));
        }
        prop_assert_eq!(&tables.0, &after);
        prop_assert_eq!(&tables.1, &after);
        prop_assert_eq!(&memory.table, &after);
        Ok(())
    };
    runner.run(&strategies::table_and_successor(), law).unwrap();
}

/// The payloads of the replies for a whole table, sorted: the kernel lists services in the order of a hash that has
/// an address of its own memory in it.
fn words_of_the_kernel(table: &Table) -> String {
    let (mut connection, family) = netlink::Family::connect(wire::FAMILY_NAME, wire::FAMILY_VERSION).unwrap();
    let mut lines = Vec::new();
    let mut ask = |label: &str, command: Command, key: Option<&ServiceKey>| {
        let question = family.command(command, |message| {
            if let Some(key) = key {
                wire::write_service_key(message, key);
            }
        });
        let keep = |_: u16, payload: &[u8]| {
            let hexadecimal: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            lines.push(format!("{label}\t{hexadecimal}\n"));
        };
        connection
            .request(family.number, NlmF::DUMP, &question, keep)
            .unwrap();
    };
    ask("service", Command::GetService, None);
    for key in table.services.keys() {
        ask(&key.to_string(), Command::GetDest, Some(key));
    }
    lines.sort();
    lines.concat()
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn the_kernel_says_what_was_recorded() {
    let wanted = everything();
    let words = namespace().run(|| {
        KernelTable::open()
            .unwrap()
            .apply(&diff(&Table::default(), &wanted, |_| false));
        words_of_the_kernel(&wanted)
    });
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let kernel: Vec<&str> = release.split('.').take(2).collect();
    let name = format!("{}.txt", kernel.join("."));
    if std::env::var_os("WEIR_TEST_RECORD").is_some() {
        fs::write(Path::new("/out").join(name), words).unwrap();
    } else {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/everything")
            .join(name);
        assert_eq!(words, fs::read_to_string(recorded).unwrap());
    }
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn ipvsadm_sees_what_weir_programmed() {
    let netns = namespace();
    netns.run(|| {
        let mut kernel = KernelTable::open().unwrap();
        kernel.apply(&diff(&Table::default(), &everything(), |_| false));
    });
    // ipvsadm saves no thresholds, but lists them.
    let thresholds = netns.sh("ipvsadm -Ln --thresholds");
    let limited = thresholds
        .lines()
        .find(|line| line.contains("10.0.0.11:8080"))
        .unwrap();
    assert_eq!(
        limited.split_whitespace().collect::<Vec<_>>()[2..4],
        ["100", "50"],
        "{thresholds}"
    );
    let saved = netns.sh("ipvsadm -Sn");
    for line in [
        "-A -t 10.0.0.200:80 -s wrr",
        "-a -t 10.0.0.200:80 -r 10.0.0.11:8080 -m -w 2147483647",
        "-a -t 10.0.0.200:80 -r 10.0.0.12:80 -g -w 0",
        "-a -t 10.0.0.200:80 -r 10.0.0.13:80 -i -w 1 --tun-type ipip",
        "-a -t 10.0.0.200:80 -r 10.0.0.14:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum",
        "-a -t 10.0.0.200:80 -r 10.0.0.15:80 -i -w 1 --tun-type gre --tun-csum",
        "-a -t 10.0.0.200:80 -r [fd00::16]:80 -i -w 1 --tun-type ipip",
        "-A -t 10.0.0.200:0 -s sh -p 360 -M 255.255.255.0 -b sh-fallback,sh-port",
        "-A -u [fd00::200]:5060 -s rr -p 60 -M 64 --pe sip -o",
        "-a -u [fd00::200]:5060 -r [fd00::11]:5060 -m -w 7",
        // ipvsadm prints a mark as a signed number, and knows no third flag of mh.
        "-A -f -1 -6 -s mh -b mh-port",
    ] {
        assert!(
            saved.lines().any(|saved| saved.trim_end() == line),
            "ipvsadm does not say {line}:\n{saved}"
        );
    }
}

/// What people know by heart stays as it is; only the order is ours.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn the_listing_is_that_of_ipvsadm() {
    let netns = namespace();
    netns.run(|| {
        let mut kernel = KernelTable::open().unwrap();
        let mut wanted = everything();
        // Printed by ipvsadm as a signed number, and its third flag not at all.
        wanted.services.retain(|key, _| {
            !matches!(
                key,
                ServiceKey::Mark {
                    family: Family::V6,
                    ..
                }
            )
        });
        kernel.apply(&diff(&Table::default(), &wanted, |_| false));
    });
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[3..].sort();
        lines
    };
    // In the kernel all namespaces' services stand in one list, and a dump of several parts goes on by counting: what other
    // tests add or delete meanwhile may hide one from either program.
    let mut listings = (Vec::new(), Vec::new());
    let same = within(Duration::from_secs(10), || {
        listings = (
            sorted(netns.sh(&format!("{} table", env!("CARGO_BIN_EXE_weir")))),
            sorted(netns.sh("ipvsadm -Ln")),
        );
        (listings.0 == listings.1).then_some(())
    });
    assert!(
        same.is_some(),
        "weir: {:#?}, ipvsadm: {:#?}",
        listings.0,
        listings.1
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn weir_sees_what_ipvsadm_programmed() {
    let netns = namespace();
    netns.sh(
        "ipvsadm -A -t 10.0.0.200:80 -s wlc -p 300 -M 255.255.0.0 && \
         ipvsadm -a -t 10.0.0.200:80 -r 10.0.0.11 -g -w 5 -x 10 -y 2 && \
         ipvsadm -A -f 7 -6 -s nq && ipvsadm -a -f 7 -6 -r [fd00::11]:0 -i --tun-type gue --tun-port 6081 --tun-csum",
    );
    let table = netns.run(|| KernelTable::open().unwrap().list().unwrap());
    let persistence = Persistence {
        timeout: Duration::from_secs(300),
        granularity: Granularity::V4(Ipv4Addr::new(255, 255, 0, 0)),
        engine: None,
    };
    let web = &table.services[&service("10.0.0.200", Protocol::Tcp, 80)];
    assert_eq!(web.service.persistence, Some(persistence));
    let limited = Destination {
        upper_threshold: 10,
        lower_threshold: 2,
        ..Destination::new(ForwardingMethod::DirectRoute, 5)
    };
    assert_eq!(web.destinations, [(destination("10.0.0.11", 80), limited)].into());
    let marked = &table.services[&ServiceKey::Mark {
        family: Family::V6,
        mark: NonZeroU32::new(7).unwrap(),
    }];
    assert_eq!(marked.service, Service::new(Scheduler::NeverQueue));
    let gue = Tunnel::Gue {
        port: NonZeroU16::new(6081).unwrap(),
        checksum: TunnelChecksum::Full,
    };
    assert_eq!(
        marked.destinations,
        [(
            destination("fd00::11", 0),
            Destination::new(ForwardingMethod::Tunnel(gue), 1)
        )]
        .into()
    );
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn what_the_kernel_refuses_is_told_with_its_way_out_and_stops_nothing_else() {
    namespace().run(|| {
        let mut kernel = KernelTable::open().unwrap();
        let web = service("10.0.0.200", Protocol::Tcp, 80);
        let ssh = service("10.0.0.200", Protocol::Tcp, 22);
        let unknown = Scheduler::Other("nosuch".into());
        let rs = destination("10.0.0.11", 80);
        let direct = Destination::new(ForwardingMethod::DirectRoute, 1);
        let outcome = kernel.apply(&[
            Change::AddService {
                key: ssh,
                service: Service::new(Scheduler::RoundRobin),
            },
            Change::AddService {
                key: web,
                service: Service::new(unknown),
            },
            Change::AddDestination {
                service: web,
                key: rs,
                destination: direct,
            },
            Change::AddDestination {
                service: ssh,
                key: destination("224.0.0.1", 22),
                destination: direct,
            },
            Change::AddDestination {
                service: ssh,
                key: destination("fd00::1", 22),
                destination: direct,
            },
            Change::AddDestination {
                service: ssh,
                key: rs,
                destination: Destination {
                    lower_threshold: 2,
                    upper_threshold: 1,
                    ..direct
                },
            },
            Change::AddService {
                key: ssh,
                service: Service::new(Scheduler::RoundRobin),
            },
            Change::EditDestination {
                service: ssh,
                key: rs,
                destination: direct,
            },
            Change::DeleteDestination {
                service: ssh,
                key: rs,
            },
            Change::DeleteService { key: web },
            Change::AddDestination {
                service: ssh,
                key: rs,
                destination: direct,
            },
        ]);
        let errors: Vec<ChangeError> = outcome
            .failures
            .into_iter()
            .map(|failure| failure.error)
            .collect();
        assert_eq!(
            errors,
            [
                ChangeError::NoScheduler("nosuch".into()),
                ChangeError::Skipped,
                ChangeError::Invalid,
                ChangeError::Invalid,
                ChangeError::Thresholds,
                ChangeError::AlreadyThere,
                ChangeError::NotThere,
                ChangeError::NotThere,
                ChangeError::NotThere,
            ],
        );
        assert!(errors[0].to_string().contains("modprobe ip_vs_nosuch"));
        let table = kernel.list().unwrap();
        assert_eq!(table.services.keys().collect::<Vec<_>>(), [&ssh]);
        assert_eq!(table.services[&ssh].destinations, [(rs, direct)].into());
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn without_the_capability_the_error_names_it() {
    let error = namespace().run(|| {
        let CapabilitySets { permitted, .. } = capabilities(None).unwrap();
        let without = permitted - CapabilitySet::NET_ADMIN;
        set_capabilities(
            None,
            CapabilitySets {
                effective: without,
                permitted: without,
                inheritable: CapabilitySet::empty(),
            },
        )
        .unwrap();
        KernelTable::open()
            .and_then(|mut kernel| kernel.list())
            .unwrap_err()
    });
    assert!(matches!(error, IpvsError::NotPermitted), "{error:?}");
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn ten_thousand_destinations_are_programmed_and_read_without_losing_one() {
    namespace().run(|| {
        let entry = |vip: u16| Entry {
            service: Service::new(Scheduler::WeightedLeastConnections),
            destinations: (0..10u8)
                .map(|last| {
                    let address = IpAddr::V4(Ipv4Addr::new(10, 1 + (vip >> 8) as u8, vip as u8, last + 1));
                    (
                        DestinationKey { address, port: 80 },
                        Destination::new(ForwardingMethod::Masquerade, 1),
                    )
                })
                .collect(),
        };
        let services = (0..1000u16)
            .map(|vip| {
                (
                    service(&format!("10.200.{}.{}", vip >> 8, vip & 255), Protocol::Tcp, 80),
                    entry(vip),
                )
            })
            .collect();
        let wanted = Table { services };
        let mut kernel = KernelTable::open().unwrap();
        let outcome = kernel.apply(&diff(&Table::default(), &wanted, |_| false));
        assert_eq!((outcome.applied, outcome.failures), (11_000, vec![]));
        // The kernel remembers its place in a dump by a number that counts the services of all namespaces: a service that
        // comes or goes in another one meanwhile, as beside this test, makes it skip some.
        eventually(Duration::from_secs(30), "all that was programmed is read", || {
            (kernel.list().unwrap() == wanted).then_some(())
        });
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn timeouts_are_set_and_a_zero_keeps_one() {
    namespace().run(|| {
        let mut kernel = KernelTable::open().unwrap();
        let before = kernel.timeouts().unwrap();
        let wanted = Timeouts {
            tcp: Duration::from_secs(1200),
            ..Timeouts::default()
        };
        kernel.set_timeouts(&wanted).unwrap();
        assert_eq!(kernel.timeouts().unwrap(), wanted.over(&before));
        assert_eq!(kernel.timeouts().unwrap().tcp, Duration::from_secs(1200));
        assert_ne!(before.udp, Duration::ZERO);
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn sync_daemons_start_are_listed_and_stop() {
    let netns = namespace();
    netns.sh("ip link add front type dummy && ip address add 10.0.0.1/24 dev front && ip link set front up");
    netns.run(|| {
        let mut kernel = KernelTable::open().unwrap();
        assert_eq!(kernel.daemons().unwrap(), []);
        let master = SyncDaemon {
            role: SyncDaemonRole::Master,
            interface: "front".into(),
            sync_id: 7,
            max_length: Some(1400),
            group: Some("224.0.0.99".parse().unwrap()),
            port: Some(8849),
            ttl: Some(2),
        };
        let backup = SyncDaemon {
            role: SyncDaemonRole::Backup,
            ..master.clone()
        };
        kernel.start_daemon(&master).unwrap();
        kernel.start_daemon(&backup).unwrap();
        assert_eq!(kernel.daemons().unwrap(), [master, backup.clone()]);
        kernel.stop_daemon(SyncDaemonRole::Master).unwrap();
        assert_eq!(kernel.daemons().unwrap(), [backup]);
        kernel.stop_daemon(SyncDaemonRole::Backup).unwrap();
    });
}

/// A daemon whose thread has not run yet when it is stopped: then the kernel sends no answer at all.
#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn a_sync_daemon_that_is_stopped_at_once_is_not_waited_for() {
    let netns = namespace();
    netns.sh("ip link add front type dummy && ip address add 10.0.0.1/24 dev front && ip link set front up");
    let (busy, mut left) = (AtomicBool::new(true), Vec::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // What fails here must not leave them busy.
        let stopped = netns.run(|| -> Result<(), IpvsError> {
            let mut kernel = KernelTable::open()?;
            let daemon = SyncDaemon::new(SyncDaemonRole::Backup, "front", 7);
            for _ in 0..40 {
                kernel.start_daemon(&daemon)?;
                kernel.stop_daemon(daemon.role)?;
                left.extend(kernel.daemons()?);
            }
            Ok(())
        });
        busy.store(false, Ordering::Relaxed);
        stopped.unwrap();
    });
    assert_eq!(left, []);
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn counters_count_and_are_zeroed() {
    let netns = namespace();
    netns.sh("ip address add 10.0.0.200/32 dev lo");
    netns.run(|| {
        let mut kernel = KernelTable::open().unwrap();
        let key = service("10.0.0.200", Protocol::Tcp, 80);
        kernel.apply(&[
            Change::AddService {
                key,
                service: Service::new(Scheduler::RoundRobin),
            },
            Change::AddDestination {
                service: key,
                key: DestinationKey {
                    address: Ipv4Addr::LOCALHOST.into(),
                    port: 80,
                },
                destination: Destination::new(ForwardingMethod::Masquerade, 1),
            },
        ]);
        // Nobody listens: the connection is refused, and yet was scheduled.
        std::net::TcpStream::connect("10.0.0.200:80").unwrap_err();
        // The kernel adds its processors' counters up every two seconds.
        let listed = eventually(Duration::from_secs(10), "the connection is counted", || {
            kernel
                .service(&key)
                .unwrap()
                .filter(|listed| listed.statistics.connections == 1)
        });
        assert!(listed.statistics.bytes_in > 0);
        assert_eq!(listed.destinations[0].statistics.connections, 1);
        kernel.zero(Some(&key)).unwrap();
        assert_eq!(kernel.service(&key).unwrap().unwrap().statistics.connections, 0);
    });
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn schedulers_that_the_kernel_has_are_taken() {
    namespace().run(|| {
        let mut kernel = KernelTable::open().unwrap();
        for (number, scheduler) in Scheduler::KNOWN.iter().enumerate() {
            let key = ServiceKey::Address {
                protocol: Protocol::Udp,
                address: Ipv6Addr::LOCALHOST.into(),
                port: 1 + number as u16,
            };
            let outcome = kernel.apply(&[Change::AddService {
                key,
                service: Service::new(scheduler.clone()),
            }]);
            match outcome.failures.as_slice() {
                [] => {}
                // It came with kernel 6.7.
                [failure] if *scheduler == Scheduler::TwoRandomChoices => {
                    assert_eq!(failure.error, ChangeError::NoScheduler("twos".into()));
                }
                failures => panic!("{scheduler}: {failures:?}"),
            }
        }
        assert!(kernel.list().unwrap().services.len() >= Scheduler::KNOWN.len() - 1);
        assert_eq!(Weight::MAX.get(), 2_147_483_647);
    });
}
