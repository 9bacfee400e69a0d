//! Passes over a table in memory.

use std::time::Duration;

use super::*;
use crate::catalog::validated::AdminState;
use crate::catalog::{ObjectRef, validate};
use crate::host::MemoryHost;
use crate::ipvs::{Entry, MemoryTable, Scheduler, Service};
use crate::plan::Directing;

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

fn new_reconciler(
    ledger: Ledger,
    store: MemoryTable,
    host: MemoryHost,
) -> Reconciler<MemoryTable, MemoryHost> {
    Reconciler::new(alone(), ledger, store, host, false, MarkMask::default())
}

/// Passes are told what time it is.
#[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
fn start() -> Instant {
    Instant::now()
}

struct Fixture {
    now: Instant,
    directory: tempfile::TempDir,
    reconciler: Reconciler<MemoryTable, MemoryHost>,
}

impl Fixture {
    fn new(table: Table) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let reconciler = new_reconciler(ledger, MemoryTable::new(table), MemoryHost::default());
        Self {
            now: start(),
            directory,
            reconciler,
        }
    }

    fn on(host: MemoryHost) -> Self {
        let mut fixture = Self::new(Table::default());
        fixture.reconciler.host = host;
        // Facts of the node are known from the first pass on, which is one over everything.
        fixture.pass(&Scope::All);
        fixture
    }

    /// The same node after its agent was killed: what is in the kernel and on the disk stays.
    fn restart(self) -> Self {
        let Self {
            now,
            directory,
            reconciler,
        } = self;
        let (store, host) = (reconciler.store, reconciler.host);
        drop(reconciler.ledger);
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        Self {
            now,
            directory,
            reconciler: new_reconciler(ledger, store, host),
        }
    }

    fn pass(&mut self, scope: &Scope) -> Pass {
        self.reconciler.pass(scope, self.now).unwrap()
    }

    fn take(&mut self, updates: impl IntoIterator<Item = Update>) -> Pass {
        let mut scope = Scope::default();
        for update in updates {
            scope.extend(self.reconciler.update(update));
        }
        self.pass(&scope)
    }

    fn words(pass: &Pass) -> Vec<String> {
        pass.changes.iter().map(ToString::to_string).collect()
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
    assert_eq!(node.reconciler.desired(), node.reconciler.programmed());
}

#[test]
fn a_pass_with_nothing_to_do_changes_nothing() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1)]);
    assert_eq!(node.pass(&Scope::All), Pass::default());
}

#[test]
fn what_somebody_deleted_comes_back() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1)]);
    node.reconciler.store.table = Table::default();
    let pass = node.pass(&Scope::All);
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
    node.pass(&Scope::All);
    assert_eq!(node.reconciler.foreign(), 1);
    node.take([Update::Delete(ObjectRef::virtual_service(&name("web")))]);
    assert_eq!(node.reconciler.store.table, foreign_table("TCP 10.9.9.9:53"));
}

#[test]
fn a_service_that_is_wanted_and_there_already_is_adopted_and_then_ours() {
    let mut node = Fixture::new(foreign_table("TCP 10.0.0.200:80"));
    let pass = node.take([web()]);
    assert_eq!(pass.adopted, ["TCP 10.0.0.200:80".parse().unwrap()]);
    node.take([Update::Delete(ObjectRef::virtual_service(&name("web")))]);
    assert_eq!(node.reconciler.store.table, Table::default());
}

#[test]
fn a_service_deleted_while_the_agent_was_down_is_removed_after_the_restart() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1)]);
    let mut node = node.restart();
    let pass = node.pass(&Scope::All);
    assert_eq!(Fixture::words(&pass), ["delete service TCP 10.0.0.200:80"]);
    assert!(node.reconciler.ledger.entries().is_empty());
}

#[test]
fn without_its_ledger_an_agent_deletes_nothing_and_adopts_what_it_wants() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1)]);
    let table = node.reconciler.store.table.clone();
    let mut node = Fixture::new(table.clone());
    node.pass(&Scope::All);
    assert_eq!(node.reconciler.store.table, table);
    let pass = node.take([web(), real_server(11, 1)]);
    assert_eq!((pass.changes, pass.adopted.len()), (vec![], 1));
}

#[test]
fn a_refused_service_does_not_stop_the_others_and_is_reported_until_it_works() {
    let mut node = Fixture::new(Table::default());
    node.reconciler.store.missing_schedulers = vec![Scheduler::WeightedLeastConnections];
    let pass = node.take([web(), real_server(11, 1)]);
    assert!(
        pass.failures[0].error.to_string().contains("modprobe ip_vs_wlc"),
        "{}",
        pass.failures[0]
    );
    assert_eq!(node.reconciler.programmed().services(), 0);
    assert_eq!(node.reconciler.failed_scope(), Scope::Some([name("web")].into()));
    node.reconciler.store.missing_schedulers.clear();
    let scope = node.reconciler.failed_scope();
    node.pass(&scope);
    assert_eq!(node.reconciler.failures().count(), 0);
    assert_eq!(node.reconciler.desired(), node.reconciler.programmed());
}

#[test]
fn while_not_all_that_is_wanted_is_known_nothing_is_deleted() {
    let mut node = Fixture::new(Table::default());
    node.take([web(), real_server(11, 1), real_server(12, 1)]);
    let mut node = node.restart();
    node.reconciler.keep_everything(true);
    // The manifest of real server 12 cannot be read.
    node.take([web(), real_server(11, 5)]);
    let pass = node.pass(&Scope::All);
    assert_eq!(pass.withheld.len(), 1);
    let table = node.reconciler.store.table.clone();
    assert_eq!(table.services.values().next().unwrap().destinations.len(), 2);
    assert_ne!(node.reconciler.desired(), node.reconciler.programmed());
    node.reconciler.keep_everything(false);
    assert_eq!(Fixture::words(&node.pass(&Scope::All)), [QUIESCE]);
    assert_eq!(Fixture::words(&wait(&mut node)), [REMOVE]);
    assert_eq!(node.reconciler.desired(), node.reconciler.programmed());
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
    assert!(pass.timeouts_set);
    assert_eq!(node.reconciler.store.timeouts.tcp.as_secs(), 1200);
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
    pass.steps.all().map(ToString::to_string).collect()
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
fn obstacles(node: &Fixture) -> Vec<&str> {
    let subjects = node.reconciler.obstacles().iter().map(|check| &*check.subject);
    subjects.filter(|subject| *subject != "settings").collect()
}

#[test]
fn what_kube_proxy_deletes_or_rewrites_is_told_until_it_stops() {
    let mut node = Fixture::on(beside_kube_proxy(&[]));
    node.take([web(), real_server(11, 1)]);
    node.pass(&Scope::All);
    assert_eq!(obstacles(&node), [""; 0]);
    node.reconciler.store.table = Table::default();
    node.pass(&Scope::All);
    assert_eq!(obstacles(&node), ["kube-proxy, ipvs.excludeCIDRs"]);
    let entry = node.reconciler.store.table.services.values_mut().next().unwrap();
    entry.service.scheduler = Some(Scheduler::RoundRobin);
    let (mut key, destination) = entry.destinations.pop_first().unwrap();
    key.address = [10, 1, 0, 11].into();
    entry.destinations.insert(key, destination);
    node.pass(&Scope::All);
    assert_eq!(obstacles(&node), ["kube-proxy, addresses of Services"]);
    // What objects change is nobody's doing.
    node.reconciler.update(real_server(11, 5));
    assert_ne!(node.pass(&Scope::All).changes, []);
    assert_eq!(obstacles(&node), [""; 0]);
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
    assert_eq!(obstacles(&node), [""; 0]);
    node.reconciler.node.directing = Directing::Never;
    node.pass(&Scope::All);
    assert_eq!(obstacles(&node), ["net.ipv4.conf.eth0.arp_ignore"]);
}

#[test]
fn a_flushed_table_is_missed_at_any_look_and_one_service_in_its_turn() {
    let mut node = Fixture::new(Table::default());
    assert!(!node.reconciler.misses_one(), "there is nothing to miss");
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
    let look_twice = |node: &mut Fixture| [(); 2].map(|()| node.reconciler.misses_one());
    assert_eq!(look_twice(&mut node), [false, false]);
    let table = std::mem::take(&mut node.reconciler.store.table);
    assert_eq!(look_twice(&mut node), [true, true]);
    node.reconciler.store.table = table;
    node.reconciler.store.table.services.pop_last();
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
    assert_eq!(fixture.reconciler.taken().len(), 1);
    assert_eq!(pass.steps.before, []);
    let pass = fixture.take([delete("web")]);
    assert_eq!(steps(&pass), ["delete address 10.0.0.200 on eth0"]);
    assert_eq!(pass.steps.after, []);
    assert_eq!(fixture.reconciler.taken(), []);
}

#[test]
fn a_change_that_needs_nothing_else_of_the_node_does_not_look_at_it() {
    let mut fixture = Fixture::on(neighbour());
    fixture.take([web(), real_server(11, 1)]);
    // Somebody else's doing shows only to whoever looks.
    fixture.reconciler.host.current.network.links[0].addresses.pop();
    assert_eq!(steps(&fixture.take([real_server(11, 2)])), [""; 0]);
    let audit = fixture.pass(&Scope::All);
    assert_eq!(
        steps(&audit),
        ["add address 10.0.0.200 on eth0", "announce 10.0.0.200 on eth0"]
    );
    assert_eq!(steps(&fixture.pass(&Scope::All)), [""; 0]);
}

#[test]
fn what_a_pass_could_not_look_at_the_next_one_makes_up_for() {
    let mut fixture = Fixture::on(neighbour());
    fixture.reconciler.host.unreadable = true;
    let scope = fixture.reconciler.update(web());
    assert!(fixture.reconciler.pass(&scope, fixture.now).is_err());
    fixture.reconciler.host.unreadable = false;
    let pass = fixture.pass(&scope);
    assert_eq!(
        steps(&pass),
        ["add address 10.0.0.200 on eth0", "announce 10.0.0.200 on eth0"]
    );
}

#[test]
fn a_refused_step_is_reported_and_tried_again_with_everything() {
    let mut fixture = Fixture::on(neighbour());
    fixture
        .reconciler
        .host
        .refused
        .push("add address 10.0.0.200 on eth0".to_owned());
    fixture.take([web(), real_server(11, 1)]);
    let failures: Vec<_> = fixture
        .reconciler
        .host_failures()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        failures,
        [
            "cannot add address 10.0.0.200 on eth0: refused",
            "cannot announce 10.0.0.200 on eth0: not tried, because the address is not there"
        ]
    );
    assert_eq!(
        fixture.reconciler.taken(),
        [],
        "nobody is told of what is not there"
    );
    assert_eq!(fixture.reconciler.failed_scope(), Scope::All);
    fixture.reconciler.host.refused.clear();
    fixture.pass(&Scope::All);
    assert_eq!(fixture.reconciler.host_failures(), []);
    assert_eq!(fixture.reconciler.failed_scope(), Scope::default());
}

#[test]
fn a_real_server_is_one_by_its_own_address_and_ceases_to_be_with_it() {
    let mut fixture = Fixture::on(neighbour());
    fixture.reconciler.node.directing = Directing::Never;
    let pass = fixture.take([web(), real_server(1, 1)]);
    assert_eq!(pass.changes, []);
    let words = steps(&pass);
    assert_eq!(
        (words.first().unwrap().as_str(), words.last().unwrap().as_str()),
        ("add link weir0 (dummy)", "add address 10.0.0.200 on weir0")
    );
    assert_eq!(
        fixture.reconciler.arp_suppression(),
        &[ArpMethod::Nftables].into()
    );
    fixture.take([delete("rs1")]);
    wait(&mut fixture);
    assert_is_no_real_server(&fixture);
}

/// Nothing is left of what it had as one.
fn assert_is_no_real_server(fixture: &Fixture) {
    let current = &fixture.reconciler.host.current;
    assert_eq!(current.network, neighbour().current.network);
    assert_eq!(current.rules, neighbour().current.rules);
    assert!(fixture.reconciler.arp_suppression().is_empty());
}

/// A real server that is no director and serves.
fn serving() -> Fixture {
    let mut fixture = Fixture::on(neighbour());
    fixture.reconciler.node.directing = Directing::Never;
    fixture.take([web(), real_server(1, 1)]);
    fixture
}

#[test]
fn a_node_that_is_no_longer_a_real_server_answers_while_the_directors_drain_it() {
    let mut fixture = serving();
    assert_eq!(steps(&fixture.take([delete("rs1")])), [""; 0]);
    // An audit knows of it.
    fixture.now += Duration::from_secs(59);
    assert_eq!(steps(&fixture.pass(&Scope::All)), [""; 0]);
    assert_eq!(
        fixture.reconciler.leaving_scope(fixture.now),
        Scope::Some(BTreeSet::new())
    );
    let pass = wait(&mut fixture);
    assert!(
        steps(&pass).contains(&"delete address 10.0.0.200 on weir0".to_owned()),
        "{:?}",
        steps(&pass)
    );
    assert_is_no_real_server(&fixture);
    assert_eq!(fixture.reconciler.next_look(), None);
}

#[test]
fn one_that_is_a_real_server_again_has_lost_nothing() {
    let mut fixture = serving();
    fixture.take([delete("rs1")]);
    assert_eq!(steps(&fixture.take([real_server(1, 1)])), [""; 0]);
    assert_eq!(fixture.reconciler.next_look(), None);
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
    assert_is_no_real_server(&fixture);
    // Whose virtual service goes, before it or after it.
    let mut fixture = serving();
    fixture.take([delete("web")]);
    assert_is_no_real_server(&fixture);
    let mut fixture = serving();
    fixture.take([delete("rs1")]);
    fixture.take([delete("web")]);
    assert_is_no_real_server(&fixture);
    // And a VIP that is the virtual service's no more.
    let mut fixture = serving();
    fixture.take([delete("rs1")]);
    fixture.take([web_on("10.0.0.201")]);
    assert_is_no_real_server(&fixture);
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
    fixture.reconciler.store.connections.insert(key, connections);
}

/// Lets the time pass until the reconciler asks to be called, and passes over what it asks for.
fn wait(fixture: &mut Fixture) -> Pass {
    fixture.now = fixture
        .reconciler
        .next_look()
        .expect("something is leaving")
        .max(fixture.now);
    let scope = fixture.reconciler.leaving_scope(fixture.now);
    fixture.pass(&scope)
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
    assert_eq!(fixture.reconciler.desired(), fixture.reconciler.programmed());
    established(&mut fixture, 12, 0);
    assert_eq!(Fixture::words(&wait(&mut fixture)), [REMOVE]);
    assert_eq!(
        (fixture.reconciler.leaving(), fixture.reconciler.next_look()),
        (0, None)
    );
    assert_eq!(fixture.reconciler.desired(), fixture.reconciler.programmed());
}

#[test]
fn one_that_is_wanted_again_has_its_weight_again() {
    let mut fixture = Fixture::new(Table::default());
    fixture.take([web(), real_server(11, 1), real_server(12, 1)]);
    established(&mut fixture, 12, 3);
    fixture.take([delete("rs12")]);
    let pass = fixture.take([real_server(12, 1)]);
    assert_eq!(Fixture::words(&pass), [QUIESCE], "the edit back");
    assert_eq!(fixture.reconciler.next_look(), None);
    assert_eq!(fixture.pass(&Scope::All), Pass::default());
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
        assert_eq!(fixture.pass(&Scope::All), Pass::default(), "after {second} s");
    }
    fixture.now = begin + std::time::Duration::from_secs(60);
    assert_eq!(Fixture::words(&fixture.pass(&Scope::All)), [REMOVE]);
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
    assert_eq!(fixture.reconciler.leaving(), 1);
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
    let entry = fixture.reconciler.store.table.services.get_mut(&key).unwrap();
    entry
        .destinations
        .retain(|key, _| key.address != std::net::IpAddr::from([10, 0, 0, 12]));
    assert_eq!(wait(&mut fixture), Pass::default());
    assert_eq!(fixture.reconciler.leaving(), 0);
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
        (fixture.reconciler.leaving(), fixture.reconciler.next_look()),
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
        fixture.reconciler.leaving_real_servers(),
        [(name("rs12"), 1)].into()
    );
    established(&mut fixture, 12, 0);
    wait(&mut fixture);
    assert_eq!(
        fixture.reconciler.leaving_real_servers(),
        [(name("rs12"), 0)].into()
    );
    fixture.take([delete("rs12")]);
    assert_eq!(fixture.reconciler.leaving_real_servers(), BTreeMap::new());
}

/// One that was deleted before this agent knew of it is nobody's destination here.
#[test]
fn a_deleted_real_server_that_was_no_destination_does_not_become_one() {
    let mut fixture = Fixture::new(Table::default());
    let pass = fixture.take([web(), real_server(11, 1), marked_deleted(12)]);
    assert_eq!(pass.changes.len(), 2);
    assert_eq!(
        fixture.reconciler.leaving_real_servers(),
        [(name("rs12"), 0)].into()
    );
}

#[test]
fn a_virtual_service_is_served_when_the_kernel_has_all_of_it() {
    let mut fixture = Fixture::new(Table::default());
    fixture.reconciler.store.missing_schedulers = vec![Scheduler::WeightedLeastConnections];
    fixture.take([web(), real_server(11, 1)]);
    assert!(fixture.reconciler.generations().is_empty(), "it is refused");
    fixture.reconciler.store.missing_schedulers.clear();
    fixture.pass(&Scope::All);
    let mut expected = Generations::default();
    expected.exchange(None, Some(Generation::new(&name("web"), None)));
    assert_eq!(*fixture.reconciler.generations(), expected);
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
    assert!(fixture.reconciler.generations().is_empty());
    fixture.take([web()]);
    assert_eq!(*fixture.reconciler.generations(), expected);
    fixture.take([delete("web")]);
    assert!(fixture.reconciler.generations().is_empty());
}

#[test]
fn a_vip_that_cannot_be_bound_is_not_served() {
    let mut host = neighbour();
    host.refused = vec!["add address 10.0.0.200 on eth0".to_owned()];
    let mut fixture = Fixture::on(host);
    fixture.take([web(), real_server(11, 1)]);
    assert!(fixture.reconciler.generations().is_empty());
    fixture.reconciler.host.refused.clear();
    fixture.pass(&Scope::All);
    assert!(!fixture.reconciler.generations().is_empty());
}
