//! Passes over a table in memory, as the agent makes them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::catalog::validated::AdminState;
use crate::catalog::{Generation, Generations, MarkMask, NamespacedName, ObjectRef, Scope, Update, validate};
use crate::host::{self, ArpMethod, MemoryHost};
use crate::ipvs::{Entry, MemoryTable, Scheduler, Service, ServiceKey, Table};
use crate::ledger::Ledger;
use crate::plan::{Directing, Knowledge, Node, World, plan, vips_of_kube_proxy};

const WEB: &str = "
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  addresses: [10.0.0.200]
  listeners: [{name: http, protocol: TCP, port: 80}]
  forwarding: {method: DirectRoute}
  backends: [{name: web, realServers: {selector: {matchLabels: {app: web}}}}]
";

fn name(name: &str) -> NamespacedName {
    NamespacedName {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn web() -> Update {
    web_on("10.0.0.200")
}

fn web_on(vip: &str) -> Update {
    let object = serde_saphyr::from_str(&WEB.replace("10.0.0.200", vip)).unwrap();
    let form = validate::virtual_service(&object).value.unwrap();
    Update::Put {
        object: ObjectRef::virtual_service(&name("web")),
        form: Some(crate::catalog::Form::VirtualService(Box::new(form))),
        remarks: Vec::new(),
    }
}

fn real_server(last: u8, weight: u16) -> Update {
    let text = format!(
        "{{metadata: {{name: rs{last}, labels: {{app: web}}}}, spec: {{address: 10.0.0.{last}, weight: {weight}}}, \
         apiVersion: weir.dev/v1alpha1, kind: RealServer}}"
    );
    let form = validate::real_server(&serde_saphyr::from_str(&text).unwrap())
        .value
        .unwrap();
    Update::Put {
        object: ObjectRef::real_server(&name(&format!("rs{last}"))),
        form: Some(crate::catalog::Form::RealServer(form)),
        remarks: Vec::new(),
    }
}

fn alone() -> Node {
    Node {
        name: "d1".to_owned(),
        directing: Directing::AlsoAlone,
        ..Node::default()
    }
}

/// Passes are told what time it is.
#[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
fn start() -> Instant {
    Instant::now()
}

/// A node with what an agent knows of it.
struct Fixture {
    now: Instant,
    directory: tempfile::TempDir,
    world: World,
    programmer: Programmer<MemoryTable, MemoryHost>,
    /// When what leaves of a virtual service should be looked at.
    leaving: BTreeMap<NamespacedName, Instant>,
}

impl Fixture {
    fn new(table: Table) -> Self {
        Self::with(MemoryTable::new(table), MemoryHost::default())
    }

    fn on(host: MemoryHost) -> Self {
        Self::with(MemoryTable::default(), host)
    }

    fn with(table: MemoryTable, host: MemoryHost) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let programmer = Programmer::new(table, host, ledger, false);
        Self::knowing_nothing(start(), directory, programmer)
    }

    fn knowing_nothing(
        now: Instant,
        directory: tempfile::TempDir,
        mut programmer: Programmer<MemoryTable, MemoryHost>,
    ) -> Self {
        let mut world = World::new(alone(), MarkMask::default());
        world.knowledge = Knowledge::Whole;
        world.network = Some(programmer.look().unwrap());
        Self {
            now,
            directory,
            world,
            programmer,
            leaving: BTreeMap::new(),
        }
    }

    /// The same node after its agent was killed: what is in the kernel and on the disk stays.
    fn restart(self) -> Self {
        let Self {
            now,
            directory,
            programmer,
            ..
        } = self;
        let Programmer {
            store, host, ledger, ..
        } = programmer;
        drop(ledger);
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let programmer = Programmer::new(store, host, ledger, false);
        Self::knowing_nothing(now, directory, programmer)
    }

    fn work(&self, scope: &Scope, around: AroundWork) -> Work {
        Work {
            plan: plan(&self.world, scope),
            table: match scope {
                Scope::Every => TableWork::Everything,
                Scope::These(_) => TableWork::Planned,
            },
            scope: scope.clone(),
            around,
            leavers: Leavers::Drain(self.now),
            may_delete: self.world.knowledge.allows_deleting(),
        }
    }

    fn run(&mut self, work: Work) -> Result<Pass, PassError> {
        let known: Vec<NamespacedName> = self
            .world
            .catalog
            .virtual_services()
            .map(|(name, _)| name)
            .collect();
        let names: Vec<NamespacedName> = match &work.scope {
            Scope::Every => known,
            Scope::These(names) => names.iter().cloned().collect(),
        };
        let result = self.programmer.run(work);
        for (name, time) in self.programmer.leaving(names.iter()) {
            match time {
                Some(time) => drop(self.leaving.insert(name.clone(), time)),
                None => drop(self.leaving.remove(name)),
            }
        }
        result
    }

    /// A pass over some virtual services.
    fn pass(&mut self, scope: &Scope) -> Pass {
        self.run(self.work(scope, AroundWork::IfNeeded)).unwrap()
    }

    /// Everything is compared.
    fn audit(&mut self) -> Pass {
        let around = AroundWork::Inspect {
            vips_of_kube_proxy: vips_of_kube_proxy(&self.world),
        };
        self.run(self.work(&Scope::Every, around)).unwrap()
    }

    fn take(&mut self, updates: impl IntoIterator<Item = Update>) -> Pass {
        let mut scope = Scope::default();
        for update in updates {
            scope.extend(self.world.update(update).services);
        }
        self.pass(&scope)
    }

    fn words(pass: &Pass) -> Vec<String> {
        pass.steps.table.iter().map(ToString::to_string).collect()
    }

    fn table(&mut self) -> &mut MemoryTable {
        &mut self.programmer.store
    }

    fn host(&mut self) -> &mut MemoryHost {
        &mut self.programmer.host
    }

    fn next_look(&self) -> Option<Instant> {
        self.leaving.values().min().copied()
    }
}

fn foreign_table(key: &str) -> Table {
    let entry = Entry {
        service: Service::new(Scheduler::RoundRobin),
        destinations: BTreeMap::new(),
    };
    Table {
        services: [(key.parse().unwrap(), entry)].into(),
    }
}

#[test]
fn a_changed_real_server_changes_one_destination() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1), real_server(12, 1)]);
    let pass = node.take([real_server(12, 5)]);
    assert_eq!(
        Fixture::words(&pass),
        ["edit destination 10.0.0.12:80 of TCP 10.0.0.200:80"]
    );
    assert_eq!(
        node.programmer.summary().desired,
        node.programmer.summary().programmed
    );
}

#[test]
fn a_pass_with_nothing_to_do_changes_nothing() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1)]);
    assert_eq!(node.audit(), Pass::default());
}

#[test]
fn what_somebody_deleted_comes_back() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1)]);
    node.table().table = Table::default();
    let pass = node.audit();
    assert_eq!(
        Fixture::words(&pass),
        [
            "add service TCP 10.0.0.200:80",
            "add destination 10.0.0.11:80 to TCP 10.0.0.200:80"
        ]
    );
}

#[test]
fn a_foreign_service_is_counted_and_left_alone() {
    let mut node = Fixture::new(foreign_table("TCP 10.9.9.9:53"));
    node.take([web()]);
    node.audit();
    assert_eq!(node.programmer.summary().foreign, 1);
    node.take([Update::Delete(ObjectRef::virtual_service(&name("web")))]);
    assert_eq!(node.table().table, foreign_table("TCP 10.9.9.9:53"));
}

#[test]
fn a_service_that_is_wanted_and_there_already_is_adopted_and_then_ours() {
    let mut node = Fixture::new(foreign_table("TCP 10.0.0.200:80"));
    let pass = node.take([web()]);
    assert_eq!(pass.adopted, ["TCP 10.0.0.200:80".parse().unwrap()]);
    node.take([Update::Delete(ObjectRef::virtual_service(&name("web")))]);
    assert_eq!(node.table().table, Table::default());
}

#[test]
fn a_service_deleted_while_the_agent_was_down_is_removed_after_the_restart() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1)]);
    let mut node = node.restart();
    let pass = node.audit();
    assert_eq!(Fixture::words(&pass), ["delete service TCP 10.0.0.200:80"]);
    assert!(node.programmer.ledger.entries().is_empty());
}

#[test]
fn without_its_ledger_an_agent_deletes_nothing_and_adopts_what_it_wants() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1)]);
    let table = node.table().table.clone();
    let mut node = Fixture::new(table.clone());
    node.audit();
    assert_eq!(node.table().table, table);
    let pass = node.take([web(), real_server(11, 1)]);
    assert_eq!((pass.steps.table, pass.adopted.len()), (vec![], 1));
}

#[test]
fn a_refused_service_does_not_stop_the_others_and_is_reported_until_it_works() {
    let mut node = Fixture::new(Table::default());
    node.table().missing_schedulers = vec![Scheduler::WeightedLeastConnections];
    let pass = node.take([web(), real_server(11, 1)]);
    assert!(
        pass.refused[0].error.to_string().contains("modprobe ip_vs_wlc"),
        "{}",
        pass.refused[0]
    );
    assert_eq!(node.programmer.summary().programmed.services, 0);
    assert_eq!(node.programmer.failed().services, [name("web")].into());
    node.table().missing_schedulers.clear();
    let scope = Scope::These(node.programmer.failed().services);
    node.pass(&scope);
    assert_eq!(node.programmer.summary().refused, []);
    assert_eq!(
        node.programmer.summary().desired,
        node.programmer.summary().programmed
    );
}

#[test]
fn while_not_all_that_is_wanted_is_known_nothing_is_deleted() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1), real_server(12, 1)]);
    let mut node = node.restart();
    node.world.knowledge = Knowledge::Partial;
    // The manifest of real server 12 cannot be read.
    node.take([web(), real_server(11, 5)]);
    let pass = node.audit();
    assert_eq!(pass.withheld.len(), 1);
    let table = node.table().table.clone();
    assert_eq!(table.services.values().next().unwrap().destinations.len(), 2);
    assert_ne!(
        node.programmer.summary().desired,
        node.programmer.summary().programmed
    );
    node.world.knowledge = Knowledge::Whole;
    assert_eq!(Fixture::words(&node.audit()), [QUIESCE]);
    assert_eq!(Fixture::words(&wait(&mut node)), [REMOVE]);
    assert_eq!(
        node.programmer.summary().desired,
        node.programmer.summary().programmed
    );
}

#[test]
fn timeouts_of_a_director_group_are_set_with_the_next_pass() {
    let text = "{apiVersion: weir.dev/v1alpha1, kind: DirectorGroup, metadata: {name: edge}, spec: {nodeSelector: {}, \
                failover: {type: Routed}, timeouts: {tcp: 20m}}}";
    let form = validate::director_group(&serde_saphyr::from_str(text).unwrap())
        .value
        .unwrap();
    let group = Update::Put {
        object: ObjectRef::director_group("edge".into()),
        form: Some(crate::catalog::Form::DirectorGroup(Box::new(form))),
        remarks: Vec::new(),
    };
    let mut node = Fixture::new(Table::default());
    // Another group is there already, so that this one is not the first.
    let mut other = group.clone();
    if let Update::Put {
        object,
        form: Some(crate::catalog::Form::DirectorGroup(form)),
        ..
    } = &mut other
    {
        *object = ObjectRef::director_group("other".into());
        form.timeouts = None;
    }
    node.take([other]);
    let pass = node.take([group.clone()]);
    assert_eq!(pass.steps.globals.len(), 1);
    assert_eq!(node.table().timeouts.tcp.as_secs(), 1200);
    assert_eq!(node.take([group]), Pass::default());
}

/// A node in the VIP's network, with an address of its own.
fn neighbour() -> MemoryHost {
    let eth0 = host::Link {
        index: 2,
        name: "eth0".into(),
        up: true,
        resolves: true,
        mtu: 1500,
        addresses: vec![host::Address {
            address: "10.0.0.1".parse().unwrap(),
            prefix: 24,
            ours: false,
        }],
        ..host::Link::default()
    };
    let mut host = MemoryHost::default();
    host.current.network = host::Network::new(vec![eth0], Vec::new());
    host.current.rules = Some(crate::nft::Ruleset::new());
    host.current.arp_rules = true;
    // As a director leaves them, so that steps are about what the tests are about.
    for name in [
        "net.ipv4.vs.expire_nodest_conn",
        "net.ipv4.vs.expire_quiescent_template",
    ] {
        host.current.sysctls.insert(name.into(), "1".into());
    }
    host
}

fn steps(pass: &Pass) -> Vec<String> {
    pass.steps.around.all().map(ToString::to_string).collect()
}

fn delete(kind: &str) -> Update {
    Update::Delete(match kind {
        "web" => ObjectRef::virtual_service(&name("web")),
        server => ObjectRef::real_server(&name(server)),
    })
}

/// That node with kube-proxy in IPVS mode, which has some of the addresses of Services on its link.
fn beside_kube_proxy(addresses: &[&str]) -> MemoryHost {
    let mut host = neighbour();
    let address = |address: &&str| host::Address {
        address: address.parse().unwrap(),
        prefix: 32,
        ours: false,
    };
    host.current.network.links.push(host::Link {
        index: 3,
        name: host::KUBE_PROXY_LINK.into(),
        addresses: addresses.iter().map(address).collect(),
        ..host::Link::default()
    });
    host
}

/// What is said of other things than of this process.
fn obstacles(node: &mut Fixture) -> Vec<String> {
    let checks = node.programmer.summary().checks;
    let subjects = checks.into_iter().map(|check| check.subject.into_string());
    subjects.filter(|subject| subject != "settings").collect()
}

#[test]
fn what_others_delete_or_rewrite_is_told_from_what_objects_change() {
    let mut node = Fixture::new(Table::default());
    let key: ServiceKey = "TCP 10.0.0.200:80".parse().unwrap();
    assert_eq!(node.take([web(), real_server(11, 1)]).undone, Undone::default());
    assert_eq!(node.audit().undone, Undone::default());
    node.table().table = Table::default();
    assert_eq!(node.audit().undone.deleted, [key].into());
    let entry = node.table().table.services.values_mut().next().unwrap();
    entry.service.scheduler = Some(Scheduler::RoundRobin);
    let (mut destination, values) = entry.destinations.pop_first().unwrap();
    destination.address = [10, 1, 0, 11].into();
    entry.destinations.insert(destination, values);
    let undone = node.audit().undone;
    assert_eq!((undone.deleted, undone.changed), ([].into(), [key].into()));
    node.world.update(real_server(11, 5));
    let pass = node.audit();
    assert_ne!(pass.steps.table, []);
    assert_eq!(pass.undone, Undone::default());
}

#[test]
fn a_vip_that_kube_proxy_took_first_comes_to_its_link_and_whoever_has_no_part_is_told() {
    let mut node = Fixture::on(beside_kube_proxy(&["10.0.0.200", "10.96.0.1"]));
    let pass = node.take([web(), real_server(11, 1)]);
    assert!(
        steps(&pass).contains(&"add address 10.0.0.200 on eth0".to_owned()),
        "{:?}",
        steps(&pass)
    );
    assert_eq!(obstacles(&mut node), [""; 0]);
    node.world.node.directing = Directing::Never;
    node.audit();
    assert_eq!(obstacles(&mut node), ["net.ipv4.conf.eth0.arp_ignore"]);
}

#[test]
fn a_flushed_table_is_missed_at_any_look_and_one_service_in_its_turn() {
    let mut node = Fixture::new(Table::default());
    assert!(!node.programmer.misses_an_entry(), "there is nothing to miss");
    let other = WEB
        .replace("name: web,", "name: other,")
        .replace("port: 80", "port: 81");
    let object = serde_saphyr::from_str(&other).unwrap();
    let form = validate::virtual_service(&object).value.unwrap();
    let other = Update::Put {
        object: ObjectRef::virtual_service(&name("other")),
        form: Some(crate::catalog::Form::VirtualService(Box::new(form))),
        remarks: Vec::new(),
    };
    node.take([web(), other]);
    let look_twice = |node: &mut Fixture| [(); 2].map(|()| node.programmer.misses_an_entry());
    assert_eq!(look_twice(&mut node), [false, false]);
    let table = std::mem::take(&mut node.table().table);
    assert_eq!(look_twice(&mut node), [true, true]);
    node.table().table = table;
    node.table().table.services.pop_last();
    assert_eq!(look_twice(&mut node), [false, true]);
}

#[test]
fn the_vip_comes_after_the_table_and_goes_before_it() {
    let mut fixture = Fixture::on(neighbour());
    let pass = fixture.take([web(), real_server(11, 1)]);
    assert_eq!(
        steps(&pass),
        ["add address 10.0.0.200 on eth0", "announce 10.0.0.200 on eth0"]
    );
    assert_eq!(pass.steps.around.before, []);
    let pass = fixture.take([delete("web")]);
    assert_eq!(steps(&pass), ["delete address 10.0.0.200 on eth0"]);
    assert_eq!(pass.steps.around.after, []);
}

#[test]
fn a_change_that_needs_nothing_else_of_the_node_does_not_look_at_it() {
    let mut fixture = Fixture::on(neighbour());
    fixture.take([web(), real_server(11, 1)]);
    // Somebody else's doing shows only to whoever looks.
    fixture.host().current.network.links[0].addresses.pop();
    assert_eq!(steps(&fixture.take([real_server(11, 2)])), [""; 0]);
    let audit = fixture.audit();
    assert_eq!(
        steps(&audit),
        ["add address 10.0.0.200 on eth0", "announce 10.0.0.200 on eth0"]
    );
    assert_eq!(steps(&fixture.audit()), [""; 0]);
}

#[test]
fn what_a_pass_could_not_look_at_the_next_one_makes_up_for() {
    let mut fixture = Fixture::on(neighbour());
    fixture.host().unreadable = true;
    let scope = fixture.world.update(web()).services;
    let work = fixture.work(&scope, AroundWork::IfNeeded);
    assert!(matches!(fixture.run(work), Err(PassError::NotBegun(_))));
    fixture.host().unreadable = false;
    let pass = fixture.pass(&scope);
    assert_eq!(
        steps(&pass),
        ["add address 10.0.0.200 on eth0", "announce 10.0.0.200 on eth0"]
    );
}

#[test]
fn a_refused_step_is_reported_and_tried_again_without_the_table() {
    let mut fixture = Fixture::on(neighbour());
    fixture
        .host()
        .refused
        .push("add address 10.0.0.200 on eth0".to_owned());
    fixture.take([web(), real_server(11, 1)]);
    let refused = fixture.programmer.summary().refused;
    let failures: Vec<_> = refused.into_iter().map(|refused| refused.message).collect();
    assert_eq!(
        failures,
        [
            "cannot add address 10.0.0.200 on eth0: refused",
            "cannot announce 10.0.0.200 on eth0: not tried, because the address is not there"
        ]
    );
    let around_only = Failed {
        around: true,
        ..Failed::default()
    };
    assert_eq!(fixture.programmer.failed(), around_only);
    fixture.host().refused.clear();
    let work = fixture.work(&Scope::default(), AroundWork::Bring);
    fixture.run(work).unwrap();
    assert_eq!(fixture.programmer.failed(), Failed::default());
}

#[test]
fn a_real_server_is_one_by_its_own_address_and_ceases_to_be_with_it() {
    let mut fixture = Fixture::on(neighbour());
    fixture.world.node.directing = Directing::Never;
    let pass = fixture.take([web(), real_server(1, 1)]);
    assert_eq!(pass.steps.table, []);
    let words = steps(&pass);
    assert_eq!(
        (words.first().unwrap().as_str(), words.last().unwrap().as_str()),
        ("add link weir0 (dummy)", "add address 10.0.0.200 on weir0")
    );
    assert_eq!(
        fixture.programmer.summary().arp_suppression,
        [ArpMethod::Nftables].into()
    );
    fixture.take([delete("rs1")]);
    wait(&mut fixture);
    assert_is_no_real_server(&mut fixture);
}

/// Nothing is left of what it had as one.
fn assert_is_no_real_server(fixture: &mut Fixture) {
    let current = &fixture.host().current;
    assert_eq!(current.network, neighbour().current.network);
    assert_eq!(current.rules, neighbour().current.rules);
    assert!(fixture.programmer.summary().arp_suppression.is_empty());
}

/// A real server that is no director and serves.
fn serving() -> Fixture {
    let mut fixture = Fixture::on(neighbour());
    fixture.world.node.directing = Directing::Never;
    fixture.take([web(), real_server(1, 1)]);
    fixture
}

#[test]
fn a_node_that_is_no_longer_a_real_server_answers_while_the_directors_drain_it() {
    let mut fixture = serving();
    assert_eq!(steps(&fixture.take([delete("rs1")])), [""; 0]);
    // An audit knows of it.
    fixture.now += Duration::from_secs(59);
    assert_eq!(steps(&fixture.audit()), [""; 0]);
    assert!(fixture.next_look().unwrap() > fixture.now);
    let pass = wait(&mut fixture);
    assert!(
        steps(&pass).contains(&"delete address 10.0.0.200 on weir0".to_owned()),
        "{:?}",
        steps(&pass)
    );
    assert_is_no_real_server(&mut fixture);
    assert_eq!(fixture.next_look(), None);
}

#[test]
fn one_that_is_a_real_server_again_has_lost_nothing() {
    let mut fixture = serving();
    fixture.take([delete("rs1")]);
    assert_eq!(steps(&fixture.take([real_server(1, 1)])), [""; 0]);
    assert_eq!(fixture.next_look(), None);
}

#[test]
fn what_the_directors_do_not_drain_does_not_linger() {
    // Whose connections have been waited for before its object went.
    let mut fixture = serving();
    let mut deleted = real_server(1, 1);
    if let Update::Put {
        form: Some(crate::catalog::Form::RealServer(server)),
        ..
    } = &mut deleted
    {
        server.admin_state = AdminState::Deleted;
    }
    assert_eq!(steps(&fixture.take([deleted])), [""; 0]);
    fixture.take([delete("rs1")]);
    assert_is_no_real_server(&mut fixture);
    // Whose virtual service goes, before it or after it.
    let mut fixture = serving();
    fixture.take([delete("web")]);
    assert_is_no_real_server(&mut fixture);
    let mut fixture = serving();
    fixture.take([delete("rs1")]);
    fixture.take([delete("web")]);
    assert_is_no_real_server(&mut fixture);
    // And a VIP that is the virtual service's no more.
    let mut fixture = serving();
    fixture.take([delete("rs1")]);
    fixture.take([web_on("10.0.0.201")]);
    assert_is_no_real_server(&mut fixture);
}

fn established(fixture: &mut Fixture, last: u8, active: u32) {
    let key = crate::ipvs::DestinationKey {
        address: std::net::IpAddr::from([10, 0, 0, last]),
        port: 80,
    };
    let connections = crate::ipvs::Connections {
        active,
        ..Default::default()
    };
    fixture.table().connections.insert(key, connections);
}

/// Lets the time pass until something that leaves is to be looked at, and looks at it.
fn wait(fixture: &mut Fixture) -> Pass {
    fixture.now = fixture
        .next_look()
        .expect("something is leaving")
        .max(fixture.now);
    let is_due = |(name, time): (&NamespacedName, &Instant)| (*time <= fixture.now).then(|| name.clone());
    let due = fixture.leaving.iter().filter_map(is_due).collect();
    fixture.pass(&Scope::These(due))
}

const QUIESCE: &str = "edit destination 10.0.0.12:80 of TCP 10.0.0.200:80";
const REMOVE: &str = "delete destination 10.0.0.12:80 of TCP 10.0.0.200:80";

#[test]
fn a_destination_leaves_when_its_connections_have_ended() {
    let mut fixture = Fixture::new(Table::default());
    fixture.take([web(), real_server(11, 1), real_server(12, 1)]);
    established(&mut fixture, 12, 3);
    assert_eq!(Fixture::words(&fixture.take([delete("rs12")])), [QUIESCE]);
    for _ in 0..5 {
        assert_eq!(wait(&mut fixture), Pass::default());
    }
    assert_eq!(
        fixture.programmer.summary().desired,
        fixture.programmer.summary().programmed
    );
    established(&mut fixture, 12, 0);
    assert_eq!(Fixture::words(&wait(&mut fixture)), [REMOVE]);
    assert_eq!(
        (fixture.programmer.summary().leaving, fixture.next_look()),
        (0, None)
    );
    assert_eq!(
        fixture.programmer.summary().desired,
        fixture.programmer.summary().programmed
    );
}

#[test]
fn one_that_is_wanted_again_has_its_weight_again() {
    let mut fixture = Fixture::new(Table::default());
    fixture.take([web(), real_server(11, 1), real_server(12, 1)]);
    established(&mut fixture, 12, 3);
    fixture.take([delete("rs12")]);
    let pass = fixture.take([real_server(12, 1)]);
    assert_eq!(Fixture::words(&pass), [QUIESCE], "the edit back");
    assert_eq!(fixture.next_look(), None);
    assert_eq!(fixture.audit(), Pass::default());
}

#[test]
fn an_audit_in_the_middle_changes_nothing_about_who_leaves() {
    let mut fixture = Fixture::new(Table::default());
    fixture.take([web(), real_server(11, 1), real_server(12, 1)]);
    established(&mut fixture, 12, 1);
    let begin = fixture.now;
    fixture.take([delete("rs12")]);
    for second in 1..60 {
        fixture.now = begin + std::time::Duration::from_secs(second);
        assert_eq!(fixture.audit(), Pass::default(), "after {second} s");
    }
    fixture.now = begin + std::time::Duration::from_secs(60);
    assert_eq!(Fixture::words(&fixture.audit()), [REMOVE]);
}

/// After a restart nobody knows how long it has been leaving: it has its whole time again, but no new connections.
#[test]
fn a_restart_in_the_middle_cuts_nobody_off() {
    let mut fixture = Fixture::new(Table::default());
    fixture.take([web(), real_server(11, 1), real_server(12, 1)]);
    established(&mut fixture, 12, 1);
    fixture.take([delete("rs12")]);
    let mut fixture = fixture.restart();
    assert_eq!(fixture.take([web(), real_server(11, 1)]), Pass::default());
    assert_eq!(fixture.programmer.summary().leaving, 1);
    established(&mut fixture, 12, 0);
    assert_eq!(Fixture::words(&wait(&mut fixture)), [REMOVE]);
}

#[test]
fn a_removal_that_is_refused_is_tried_again_and_not_begun_anew() {
    let mut fixture = Fixture::new(Table::default());
    fixture.take([web(), real_server(11, 1), real_server(12, 1)]);
    fixture.take([delete("rs12")]);
    // Somebody takes it away first: what is gone is as good as removed.
    let key: ServiceKey = "TCP 10.0.0.200:80".parse().unwrap();
    let entry = fixture.table().table.services.get_mut(&key).unwrap();
    entry
        .destinations
        .retain(|key, _| key.address != std::net::IpAddr::from([10, 0, 0, 12]));
    assert_eq!(wait(&mut fixture), Pass::default());
    assert_eq!(fixture.programmer.summary().leaving, 0);
}

#[test]
fn a_service_that_goes_takes_those_who_leave_with_it() {
    let mut fixture = Fixture::new(Table::default());
    fixture.take([web(), real_server(11, 1), real_server(12, 1)]);
    established(&mut fixture, 12, 1);
    fixture.take([delete("rs12")]);
    let pass = fixture.take([delete("web")]);
    assert_eq!(Fixture::words(&pass), ["delete service TCP 10.0.0.200:80"]);
    assert_eq!(
        (fixture.programmer.summary().leaving, fixture.next_look()),
        (0, None)
    );
}

fn marked_deleted(last: u8) -> Update {
    let mut update = real_server(last, 1);
    if let Update::Put {
        form: Some(crate::catalog::Form::RealServer(server)),
        ..
    } = &mut update
    {
        server.admin_state = crate::catalog::validated::AdminState::Deleted;
    }
    update
}

#[test]
fn who_holds_a_deleted_real_server_hears_when_it_has_left() {
    let mut fixture = Fixture::new(Table::default());
    fixture.take([web(), real_server(11, 1), real_server(12, 1)]);
    established(&mut fixture, 12, 1);
    fixture.take([marked_deleted(12)]);
    assert_eq!(
        fixture.programmer.summary().leaving_real_servers,
        [(name("rs12"), 1)].into()
    );
    established(&mut fixture, 12, 0);
    wait(&mut fixture);
    assert_eq!(fixture.programmer.summary().leaving_real_servers, BTreeMap::new());
    fixture.take([delete("rs12")]);
    assert_eq!(fixture.programmer.summary().leaving_real_servers, BTreeMap::new());
}

/// One that was deleted before this agent knew of it is nobody's destination here.
#[test]
fn a_deleted_real_server_that_was_no_destination_does_not_become_one() {
    let mut fixture = Fixture::new(Table::default());
    let pass = fixture.take([web(), real_server(11, 1), marked_deleted(12)]);
    assert_eq!(pass.steps.table.len(), 2);
    assert_eq!(fixture.programmer.summary().leaving_real_servers, BTreeMap::new());
}

#[test]
fn a_virtual_service_is_served_when_the_kernel_has_all_of_it() {
    let mut fixture = Fixture::new(Table::default());
    fixture.table().missing_schedulers = vec![Scheduler::WeightedLeastConnections];
    fixture.take([web(), real_server(11, 1)]);
    assert!(
        fixture.programmer.summary().generations.is_empty(),
        "it is refused"
    );
    fixture.table().missing_schedulers.clear();
    fixture.audit();
    let mut expected = Generations::default();
    expected.exchange(None, Some(Generation::new(&name("web"), None)));
    assert_eq!(fixture.programmer.summary().generations, expected);
    // One whose latest form is invalid is not served as it is meant.
    let invalid = Update::Put {
        object: ObjectRef::virtual_service(&name("web")),
        form: None,
        remarks: vec![validate::Remark {
            field: "spec".into(),
            reason: crate::catalog::Reason::Invalid,
            message: "nonsense".to_owned(),
        }],
    };
    fixture.take([invalid]);
    assert!(fixture.programmer.summary().generations.is_empty());
    fixture.take([web()]);
    assert_eq!(fixture.programmer.summary().generations, expected);
    fixture.take([delete("web")]);
    assert!(fixture.programmer.summary().generations.is_empty());
}

#[test]
fn a_vip_that_cannot_be_bound_is_not_served() {
    let mut host = neighbour();
    host.refused = vec!["add address 10.0.0.200 on eth0".to_owned()];
    let mut fixture = Fixture::on(host);
    fixture.take([web(), real_server(11, 1)]);
    assert!(fixture.programmer.summary().generations.is_empty());
    fixture.host().refused.clear();
    fixture.audit();
    assert!(!fixture.programmer.summary().generations.is_empty());
}

/// What `weir plan` shows is what `weir apply` does, what a node has once included.
#[test]
fn a_preview_shows_the_steps_that_a_pass_takes() {
    let group = "{apiVersion: weir.dev/v1alpha1, kind: DirectorGroup, metadata: {name: default}, spec: {nodeSelector: {}, \
                 failover: {type: Routed}, timeouts: {tcp: 20m}, connectionSync: {interface: eth0, syncId: 3}, \
                 sysctls: {net.ipv4.vs.sloppy_tcp: '1'}}}";
    let form = validate::director_group(&serde_saphyr::from_str(group).unwrap())
        .value
        .unwrap();
    let group = Update::Put {
        object: ObjectRef::director_group("default".into()),
        form: Some(crate::catalog::Form::DirectorGroup(Box::new(form))),
        remarks: Vec::new(),
    };
    let once = |fixture: &Fixture| Work {
        leavers: Leavers::KeepServing,
        ..fixture.work(&Scope::Every, AroundWork::Bring)
    };
    let mut host = neighbour();
    let setting = "net.ipv4.vs.sloppy_tcp".into();
    host.current.sysctls.insert(setting, "0".into());
    let mut fixture = Fixture::on(host);
    for updates in [
        vec![web(), real_server(11, 1), real_server(12, 1), group],
        vec![real_server(12, 7), marked_deleted(11)],
        vec![delete("web")],
    ] {
        for update in updates {
            fixture.world.update(update);
        }
        let owned: crate::ledger::Entries = fixture.programmer.ledger.entries().clone();
        let (table, host) = (fixture.table().clone(), fixture.host().clone());
        let mut looks = Programmer::new(table, host, owned, false);
        let shown = looks.preview(once(&fixture)).unwrap().steps;
        let work = once(&fixture);
        let done = fixture.run(work).unwrap().steps;
        assert_eq!(shown, done);
        assert!(!done.is_empty());
    }
}
