//! What programming a table costs, beside `ipvsadm -R` and beside the least that the kernel makes anybody pay.
//!
//! `make bench` runs this in the lab's instruction-counting VM: a virtual millisecond is a million instructions of
//! kernel and programs together, so the figures hardly move with what else the host does. They are ratios within one
//! run and no times of any machine. Printed as a table in Markdown; docs/benchmarks.md holds the last one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot run fails, and it reads the clock"
)]

#[path = "../tests/support/lab/mod.rs"]
mod lab;
#[path = "../tests/support/poll.rs"]
mod poll;
#[path = "../tests/support/process.rs"]
mod process;

#[path = "table/encoding.rs"]
mod encoding;
#[path = "table/urgent.rs"]
mod urgent;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::netns::Netns;
use neli::consts::nl::NlmF;
use weir::catalog::{Form, Kind, MarkMask, NamespacedName, ObjectRef, Scope, Update, validate};
use weir::host::{Around, ArpSuppression, HostStore, KernelHost};
use weir::ipvs::{Change, KernelTable, Table, TableStore, diff, wire};
use weir::ledger::Ledger;
use weir::netlink::{Batch, Family};
use weir::node::{AroundWork, Leavers, Programmer, TableWork, Work};
use weir::plan::{Directing, Knowledge, Node, World, plan};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const DESTINATIONS: usize = 10;
/// Of a real server.
const VIPS: u32 = 2000;
/// How many weights are changed, one after the other.
const CHANGES: usize = 50;

fn main() {
    let small = Fleet { services: 1000 };
    let large = Fleet { services: 10_000 };
    println!("| 1000 services x {DESTINATIONS} destinations, empty table | virtual ms | ratio |");
    println!("| --- | --: | --- |");
    let ipvsadm = ipvsadm(&small);
    row("`ipvsadm -R`", ipvsadm, "1", ipvsadm);
    let floor = undisturbed(|| floor(&small));
    row(
        "floor: raw batched messages, encoded beforehand",
        floor,
        "of `ipvsadm -R`",
        ipvsadm,
    );
    row(
        "programming: table in memory to complete kernel table",
        undisturbed(|| programming(&small)),
        "of the floor",
        floor,
    );
    let changes = encoding::destinations(&small.changes());
    assert_eq!(encoding::by_weir(&changes), encoding::by_neli(&changes));
    row(
        "of that, encoding 10 000 destinations",
        undisturbed(|| timed(|| drop(encoding::by_weir(&changes)))),
        "of the floor",
        floor,
    );
    row(
        "encoding them as attributes of neli's types",
        undisturbed(|| timed(|| drop(encoding::by_neli(&changes)))),
        "of the floor",
        floor,
    );
    let by_hand = ipvsadm + addresses_by_hand(&small);
    row(
        "`ipvsadm -R` and `ip -batch`: the VIPs as well",
        by_hand,
        "1",
        by_hand,
    );
    for format in [Format::Yaml, Format::Json] {
        let folder = small.write(format);
        let name = format.name();
        let reading = reading(&folder);
        row(
            &format!("`weir check`: reading and checking 11 000 objects of {name}"),
            reading,
            "of both",
            by_hand,
        );
        let whole = applying(&folder);
        row(
            &format!("`weir apply`: {name} files to complete kernel table and VIPs"),
            whole,
            "of both",
            by_hand,
        );
        row(
            &format!("the same without reading {name}"),
            whole.saturating_sub(reading),
            "of both",
            by_hand,
        );
    }
    println!("\n| {VIPS} VIPs of a real server, from nothing | virtual ms | ratio |");
    println!("| --- | --: | --- |");
    let by_hand = quiet_by_hand();
    row("`ip -batch` and `nft -f`", by_hand, "1", by_hand);
    let quiet = quiet();
    row(
        "what is needed, in memory, to addresses and rules in the kernel",
        quiet,
        "of these",
        by_hand,
    );
    let idle = looking_at_what_is_quiet();
    row(
        "a look at them that finds nothing to do",
        idle,
        "of these",
        by_hand,
    );
    println!("\n| one weight changed, report to kernel entry | virtual µs | ratio |");
    println!("| --- | --: | --- |");
    let at_small = undisturbed(|| weight_change(&small));
    let at_large = undisturbed(|| weight_change(&large));
    println!("| among 1000 x {DESTINATIONS} | {} | 1 |", at_small.as_micros());
    println!(
        "| among 10 000 x {DESTINATIONS} | {} | {:.2} of that among 1000 |",
        at_large.as_micros(),
        at_large.as_secs_f64() / at_small.as_secs_f64()
    );
    println!("\n| in the middle of audits of 10 000 x {DESTINATIONS} | virtual ms |");
    println!("| --- | --: |");
    let waits = urgent::during_audits(&large);
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "| one weight changed, report to kernel entry: median | {:.1} |",
        millis(waits.median)
    );
    println!("| the longest of {CHANGES} | {:.1} |", millis(waits.longest));
    println!(
        "| the agent is told to stop, until it has | {:.1} |",
        millis(waits.shutdown)
    );
    println!("\n| agent, 10 000 x {DESTINATIONS} from 110 000 objects of YAML | MB |");
    println!("| --- | --: |");
    let (resident, peak) = memory(&large);
    println!("| resident when all is programmed | {resident} |\n| highest until then | {peak} |");
}

fn row(what: &str, time: Duration, of: &str, base: Duration) {
    let ratio = time.as_secs_f64() / base.as_secs_f64();
    let ratio = if of == "1" {
        of.to_owned()
    } else {
        format!("{ratio:.2} {of}")
    };
    println!("| {what} | {:.1} | {ratio} |", time.as_secs_f64() * 1000.0);
}

fn timed(act: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    act();
    begin.elapsed()
}

/// The shortest of three times. The kernel takes namespaces apart in the background, and in one of them it may be the
/// table of the case before.
fn undisturbed(mut measure: impl FnMut() -> Duration) -> Duration {
    [(); 3].map(|()| measure()).into_iter().min().unwrap()
}

/// A fresh namespace: what was deleted from a table before would slow down what is added to it.
fn fresh() -> Netns {
    let netns = Netns::new("bench");
    netns.sh("ip link set lo up; ip link add vips up type dummy; ip address add 10.200.255.254/16 dev vips");
    netns
}

#[derive(Clone, Copy)]
enum Format {
    Yaml,
    Json,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Yaml => "YAML",
            Self::Json => "JSON",
        }
    }
}

/// Services of ten real servers each.
struct Fleet {
    services: usize,
}

impl Fleet {
    fn vip(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, (number >> 8) as u8, number as u8)
    }

    fn real_server(service: usize, number: usize) -> Ipv4Addr {
        Ipv4Addr::new(
            10,
            100 + (service >> 12) as u8,
            (service >> 4) as u8,
            ((service & 15) * DESTINATIONS + number + 1) as u8,
        )
    }

    fn service_text(number: usize, format: Format) -> String {
        let vip = Self::vip(number);
        match format {
            Format::Yaml => format!(
                "apiVersion: weir.dev/v1alpha1\nkind: VirtualService\nmetadata:\n  name: web-{number}\n  namespace: shop\nspec:\n  \
                 addresses:\n  - {vip}\n  listeners:\n  - name: http\n    protocol: TCP\n    port: 80\n  scheduler:\n    algorithm: wlc\n  \
                 forwarding:\n    method: DirectRoute\n  backends:\n  - name: web\n    realServers:\n      selector:\n        matchLabels:\n          \
                 app: web-{number}\n"
            ),
            Format::Json => format!(
                r#"{{"apiVersion":"weir.dev/v1alpha1","kind":"VirtualService","metadata":{{"name":"web-{number}","namespace":"shop"}},"spec":{{"addresses":["{vip}"],"listeners":[{{"name":"http","protocol":"TCP","port":80}}],"scheduler":{{"algorithm":"wlc"}},"forwarding":{{"method":"DirectRoute"}},"backends":[{{"name":"web","realServers":{{"selector":{{"matchLabels":{{"app":"web-{number}"}}}}}}}}]}}}}"#
            ),
        }
    }

    fn server_text(service: usize, number: usize, weight: usize, format: Format) -> String {
        let address = Self::real_server(service, number);
        match format {
            Format::Yaml => format!(
                "apiVersion: weir.dev/v1alpha1\nkind: RealServer\nmetadata:\n  name: web-{service}-{number}\n  namespace: shop\n  labels:\n    \
                 app: web-{service}\nspec:\n  address: {address}\n  port: 80\n  weight: {weight}\n"
            ),
            Format::Json => format!(
                r#"{{"apiVersion":"weir.dev/v1alpha1","kind":"RealServer","metadata":{{"name":"web-{service}-{number}","namespace":"shop","labels":{{"app":"web-{service}"}}}},"spec":{{"address":"{address}","port":80,"weight":{weight}}}}}"#
            ),
        }
    }

    /// Writes the manifests, a file for each service with its real servers.
    fn write(&self, format: Format) -> PathBuf {
        let folder = PathBuf::from(format!("/tmp/{}-{}", format.name(), self.services));
        fs::create_dir_all(&folder).unwrap();
        let (ending, between) = match format {
            Format::Yaml => ("yaml", "---\n"),
            Format::Json => ("json", "\n"),
        };
        for service in 0..self.services {
            let servers = (0..DESTINATIONS).map(|number| Self::server_text(service, number, 1, format));
            let texts: Vec<String> = [Self::service_text(service, format)]
                .into_iter()
                .chain(servers)
                .collect();
            fs::write(
                folder.join(format!("web-{service}.{ending}")),
                texts.join(between),
            )
            .unwrap();
        }
        folder
    }

    fn name(name: String) -> NamespacedName {
        NamespacedName {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn service_update(number: usize) -> Update {
        let object = serde_json::from_str(&Self::service_text(number, Format::Json)).unwrap();
        Update::Put {
            object: ObjectRef::virtual_service(&Self::name(format!("web-{number}"))),
            form: validate::virtual_service(&object)
                .value
                .map(|form| Form::VirtualService(Box::new(form))),
            remarks: Vec::new(),
        }
    }

    fn server_update(service: usize, number: usize, weight: usize) -> Update {
        let object = serde_json::from_str(&Self::server_text(service, number, weight, Format::Json)).unwrap();
        let name = ObjectRef::real_server(&Self::name(format!("web-{service}-{number}")));
        assert_eq!(name.kind, Kind::RealServer);
        Update::Put {
            object: name,
            form: validate::real_server(&object).value.map(Form::RealServer),
            remarks: Vec::new(),
        }
    }

    fn changes(&self) -> Vec<Change> {
        diff(&Table::default(), &self.table(), |_| false)
    }

    fn table(&self) -> Table {
        let plan = plan(&self.world(), &Scope::Every);
        Table {
            services: plan
                .services
                .into_values()
                .flat_map(|service| service.entries)
                .collect(),
        }
    }

    fn world(&self) -> World {
        let mut world = World::new(alone(), MarkMask::default());
        for service in 0..self.services {
            world.update(Self::service_update(service));
            for number in 0..DESTINATIONS {
                world.update(Self::server_update(service, number, 1));
            }
        }
        world.knowledge = Knowledge::Whole;
        world
    }
}

fn alone() -> Node {
    Node {
        name: "bench".to_owned(),
        directing: Directing::AlsoAlone,
        ..Node::default()
    }
}

fn ipvsadm(fleet: &Fleet) -> Duration {
    let mut rules = String::new();
    for service in 0..fleet.services {
        let vip = Fleet::vip(service);
        let _ = writeln!(rules, "-A -t {vip}:80 -s wlc");
        for number in 0..DESTINATIONS {
            let _ = writeln!(
                rules,
                "-a -t {vip}:80 -r {}:80 -g -w 1",
                Fleet::real_server(service, number)
            );
        }
    }
    fs::write("/tmp/rules", rules).unwrap();
    let netns = fresh();
    let time = timed(|| drop(netns.sh("ipvsadm -R </tmp/rules")));
    check(&netns, fleet);
    time
}

/// The kernel's own work and the system calls for it: messages that are ready, in batches as large as is safe.
fn addresses_by_hand(fleet: &Fleet) -> Duration {
    let netns = fresh();
    let lines: String = (0..fleet.services)
        .map(|service| format!("address add {}/32 dev vips\n", Fleet::vip(service)))
        .collect();
    let file = "/tmp/addresses";
    fs::write(file, lines).unwrap();
    let time = timed(|| drop(netns.sh(&format!("ip -batch {file}"))));
    assert_eq!(bound(&netns, "vips"), fleet.services + 1);
    time
}

fn bound(netns: &Netns, link: &str) -> usize {
    netns
        .sh(&format!("ip -4 -oneline address show dev {link}"))
        .lines()
        .count()
}

/// The VIPs of a real server.
fn quiet_vips() -> impl Iterator<Item = Ipv4Addr> {
    (0..VIPS).map(|number| Ipv4Addr::from_bits(0x0ac9_0000 + number))
}

/// What a script does: a link, its addresses, and a table that keeps quiet about them.
fn quiet_by_hand() -> Duration {
    let netns = fresh();
    let addresses: String = quiet_vips()
        .map(|vip| format!("address add {vip}/32 dev weir0\n"))
        .collect();
    fs::write("/tmp/quiet", format!("link add weir0 up type dummy\n{addresses}")).unwrap();
    let vips: Vec<String> = quiet_vips().map(|vip| vip.to_string()).collect();
    let rules = format!(
        "table arp quiet {{\n set vips {{ type ipv4_addr; elements = {{ {} }}; }}\n \
         chain input {{ type filter hook input priority 0; arp operation request arp daddr ip @vips drop; }}\n \
         chain output {{ type filter hook output priority 0; oifname \"vips\" arp saddr ip @vips arp saddr ip set 10.200.255.254; \
         arp saddr ip @vips drop; }}\n}}\n",
        vips.join(", ")
    );
    fs::write("/tmp/rules", rules).unwrap();
    let time = timed(|| drop(netns.sh("nft -f /tmp/rules && ip -batch /tmp/quiet")));
    assert_eq!(bound(&netns, "weir0"), VIPS as usize);
    time
}

fn quiet_around() -> Around {
    Around {
        held: quiet_vips().map(IpAddr::from).collect(),
        quiet: quiet_vips()
            .map(|vip| (vip.into(), ArpSuppression::Auto))
            .collect(),
        ..Around::default()
    }
}

/// One look at a node and the steps to what is needed; how many there were.
fn bring(host: &mut KernelHost, around: &Around) -> usize {
    let current = host.read(&mut weir::host::SYSCTLS.into_iter()).unwrap();
    let steps = weir::host::diff(
        &current,
        &weir::host::desired(std::iter::once(around), &BTreeMap::new(), &current),
        false,
    );
    let mut failures = Vec::new();
    host.apply(&steps.before, &mut failures);
    host.apply(&steps.after, &mut failures);
    assert_eq!(failures, []);
    steps.len()
}

fn quiet() -> Duration {
    let netns = fresh();
    let state = tempfile::tempdir().unwrap();
    let around = quiet_around();
    let time = netns.run(|| {
        let mut host = KernelHost::open(Path::new("/proc/sys/net"), state.path()).unwrap();
        timed(|| assert!(bring(&mut host, &around) > 0))
    });
    assert_eq!(bound(&netns, "weir0"), VIPS as usize);
    time
}

fn looking_at_what_is_quiet() -> Duration {
    let netns = fresh();
    let state = tempfile::tempdir().unwrap();
    let around = quiet_around();
    netns.run(|| {
        let mut host = KernelHost::open(Path::new("/proc/sys/net"), state.path()).unwrap();
        bring(&mut host, &around);
        timed(|| assert_eq!(bring(&mut host, &around), 0))
    })
}

fn floor(fleet: &Fleet) -> Duration {
    let netns = fresh();
    let changes = fleet.changes();
    let time = netns.run(|| {
        let (mut connection, family) = Family::connect(wire::FAMILY_NAME, wire::FAMILY_VERSION).unwrap();
        let mut batch = Batch::default();
        for change in &changes {
            batch.push(family.number, NlmF::empty(), &wire::request(family, change));
        }
        timed(|| assert_eq!(connection.batch(&mut batch).unwrap(), []))
    });
    check(&netns, fleet);
    time
}

fn programming(fleet: &Fleet) -> Duration {
    let netns = fresh();
    let wanted = fleet.table();
    let time = netns.run(|| {
        let mut kernel = KernelTable::open().unwrap();
        timed(|| {
            let current = kernel.list().unwrap();
            let outcome = kernel.apply(&diff(&current, &wanted, |_| false));
            assert_eq!(outcome.failures, []);
        })
    });
    check(&netns, fleet);
    time
}

fn reading(folder: &Path) -> Duration {
    let netns = fresh();
    timed(|| drop(netns.sh(&format!("{WEIR} check -f {}", folder.display()))))
}

fn applying(folder: &Path) -> Duration {
    let netns = fresh();
    let state = tempfile::tempdir().unwrap();
    let line = format!(
        "{WEIR} apply -f {} --state-dir {}",
        folder.display(),
        state.path().display()
    );
    let time = timed(|| drop(netns.sh(&line)));
    check(&netns, &Fleet { services: 1000 });
    time
}

fn weight_change(fleet: &Fleet) -> Duration {
    let netns = fresh();
    let state = tempfile::tempdir().unwrap();
    netns.run(|| {
        let (ledger, _) = Ledger::open(state.path()).unwrap();
        let host = KernelHost::open(Path::new("/proc/sys/net"), state.path()).unwrap();
        let table = KernelTable::open().unwrap();
        let mut programmer = Programmer::new(table, host, ledger, false);
        let mut world = fleet.world();
        world.network = Some(programmer.look().unwrap());
        let work = |world: &World, scope: Scope, table| Work {
            plan: plan(world, &scope),
            scope,
            table,
            around: AroundWork::IfNeeded,
            leavers: Leavers::Drain(Instant::now()),
            may_delete: true,
        };
        let everything = work(&world, Scope::Every, TableWork::Everything);
        assert_eq!(programmer.run(everything).unwrap().refused, []);
        let updates: Vec<Update> = (0..CHANGES)
            .map(|change| Fleet::server_update(change * fleet.services / CHANGES, change % DESTINATIONS, 7))
            .collect();
        let time = timed(|| {
            for update in updates {
                let scope = world.update(update).services;
                let change = work(&world, scope, TableWork::Planned);
                assert_eq!(programmer.run(change).unwrap().steps.table.len(), 1);
            }
        });
        time / CHANGES as u32
    })
}

/// Resident and highest memory of an agent, in MB.
fn memory(fleet: &Fleet) -> (u64, u64) {
    let netns = fresh();
    let folder = fleet.write(Format::Yaml);
    let state = tempfile::tempdir().unwrap();
    let mut command = Command::new(WEIR);
    command
        .args(["agent", "--node-name", "bench", "--manifests"])
        .arg(&folder)
        .arg("--state-dir")
        .arg(state.path());
    let mut agent = netns.spawn(&mut command);
    agent.wait_for_log(Duration::from_secs(600), "the kernel's table has been changed");
    check(&netns, fleet);
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    agent.stop();
    (field("VmRSS:"), field("VmHWM:"))
}

/// That the table is complete: a benchmark of less work would say nothing.
fn check(netns: &Netns, fleet: &Fleet) {
    let table = netns.run(|| KernelTable::open().unwrap().list().unwrap());
    assert_eq!(table.services.len(), fleet.services);
    let complete = |entry: &weir::ipvs::Entry| entry.destinations.len() == DESTINATIONS;
    assert!(table.services.values().all(complete));
    let first: IpAddr = Fleet::vip(0).into();
    assert!(
        table
            .services
            .keys()
            .any(|key| key.to_string().contains(&first.to_string()))
    );
}
