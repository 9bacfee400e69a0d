//! Objects in, table, findings and changes out: `golden/CASE/objects.yaml` is planned for the node of `node.yaml`,
//! compared with the kernel's table in `current.txt`, and must come to `expected.txt`. A new case is a folder;
//! `UPDATE_EXPECTED=1 cargo test --test golden` writes what comes out, to be read before it is committed.
//!
//! | file | |
//! | --- | --- |
//! | `objects.yaml` | documents in the order in which a source reports them; a later one replaces an earlier one of the same name |
//! | `node.yaml` | `name`, `labels`, `directs`; without it the node is `d1` with the label `weir.dev/role: director` |
//! | `network.txt` | its links as `host_text` reads them; without it what is around the table is not planned |
//! | `current.txt` | a table as `table_text` reads it; without it no changes are computed |

mod host_text;
mod table_text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::strategies;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use weir::api::{DirectorGroup, RealServer, ReferenceGrant, VirtualService};
use weir::catalog::validate::{self, Validation};
use weir::catalog::{Catalog, Finding, Form, Kind, MarkMask, NamespacedName, ObjectRef, Scope, Update};
use weir::host::MemoryHost;
use weir::ipvs::{Change, MemoryTable, ServiceKey, Table};
use weir::ledger::Entries;
use weir::node::{AroundWork, Desired, Leavers, Preview, Programmer, TableWork, Work};
use weir::plan::{Directing, Knowledge, Node, Plan, World, plan};

use super::cases::{Expectations, cases};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NodeFile {
    name: String,
    labels: BTreeMap<String, String>,
    directs: Directs,
}

#[derive(Deserialize, Clone, Copy)]
enum Directs {
    InGroups,
    AlsoAlone,
    Never,
}

impl Default for NodeFile {
    fn default() -> Self {
        Self {
            name: "d1".to_owned(),
            labels: [("weir.dev/role".to_owned(), "director".to_owned())].into(),
            directs: Directs::InGroups,
        }
    }
}

#[test]
fn every_case_comes_to_what_is_expected() {
    let mut expectations = Expectations::new();
    for case in cases("golden") {
        expectations.compare(&case, &run(&case));
    }
    expectations.hold();
}

fn run(case: &Path) -> String {
    let read = |name| fs::read_to_string(case.join(name)).ok();
    let NodeFile {
        name,
        labels,
        directs,
    } = read("node.yaml").map_or_else(NodeFile::default, |text| serde_saphyr::from_str(&text).unwrap());
    let node = Node {
        name,
        labels,
        directing: match directs {
            Directs::InGroups => Directing::InGroups,
            Directs::AlsoAlone => Directing::AlsoAlone,
            Directs::Never => Directing::Never,
        },
    };

    let mut world = World::new(node, MarkMask::default());
    world.knowledge = Knowledge::Whole;
    let objects = read("objects.yaml").unwrap_or_else(|| panic!("{} has no objects.yaml", case.display()));
    for object in serde_saphyr::from_multiple(&objects).unwrap() {
        world.update(report(&object));
    }
    let current = read("current.txt").map(|text| table_text::parse(&text));
    world.network = read("network.txt").map(|text| host_text::network(&text));
    let plan = plan(&world, &Scope::Every);
    let preview = preview(&world, plan.clone(), current.clone().unwrap_or_default());
    let mut text = print_desired(&preview.desired);
    if let Some(around) = &preview.desired.around {
        write!(text, "\n# around the table\n{}", host_text::print(around)).unwrap();
    }
    if !preview.steps.globals.is_empty() {
        text.push_str("\n# what the node has once\n");
        for change in &preview.steps.globals {
            writeln!(text, "{change}").unwrap();
        }
    }
    text.push_str(&print_findings(&plan, &world.catalog));
    if current.is_some() {
        text.push_str(&print_changes(&preview.steps.table));
    }
    text
}

/// What `weir apply` would do on a node with this table, of which these services are Weir's.
fn preview(world: &World, plan: Plan, (table, ours): (Table, Vec<ServiceKey>)) -> Preview {
    let somebody = NamespacedName {
        namespace: "shop".into(),
        name: "before".into(),
    };
    let owned: Entries = ours.into_iter().map(|key| (key, somebody.clone())).collect();
    let mut host = MemoryHost::default();
    host.current.network = world.network.clone().unwrap_or_default();
    host.current.arp_rules = true;
    let around = match world.network {
        Some(_) => AroundWork::Bring,
        None => AroundWork::IfNeeded,
    };
    let work = Work {
        scope: Scope::Every,
        plan,
        table: TableWork::Everything,
        around,
        leavers: Leavers::KeepServing,
        may_delete: true,
    };
    let mut programmer = Programmer::new(MemoryTable::new(table), host, owned, false);
    programmer.preview(work).unwrap()
}

/// What a source would report of a document.
pub(super) fn report(object: &Value) -> Update {
    let kind = [Kind::Service, Kind::EndpointSlice, Kind::ReferenceGrant]
        .into_iter()
        .chain(Kind::OWN)
        .find(|kind| object["kind"] == kind.name())
        .unwrap();
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let name = ObjectRef {
        kind,
        namespace: kind.is_namespaced().then(|| namespace.into()),
        name: metadata["name"].as_str().unwrap().into(),
    };
    match kind {
        Kind::VirtualService => put::<VirtualService, _>(name, object, validate::virtual_service, |form| {
            Form::VirtualService(Box::new(form))
        }),
        Kind::RealServer => put::<RealServer, _>(name, object, validate::real_server, Form::RealServer),
        Kind::DirectorGroup => put::<DirectorGroup, _>(name, object, validate::director_group, |form| {
            Form::DirectorGroup(Box::new(form))
        }),
        Kind::Service => put::<Service, _>(name, object, validate::service, Form::Service),
        Kind::EndpointSlice => {
            put::<EndpointSlice, _>(name, object, validate::endpoint_slice, Form::EndpointSlice)
        }
        Kind::ReferenceGrant => {
            put::<ReferenceGrant, _>(name, object, validate::reference_grant, Form::ReferenceGrant)
        }
    }
}

fn put<T: DeserializeOwned, V>(
    object: ObjectRef,
    manifest: &Value,
    validate: fn(&T) -> Validation<V>,
    form: fn(V) -> Form,
) -> Update {
    let resource =
        serde_json::from_value(manifest.clone()).unwrap_or_else(|error| panic!("{object}: {error}"));
    let Validation { value, remarks } = validate(&resource);
    Update::Put {
        object,
        form: value.map(form),
        remarks,
    }
}

fn print_desired(desired: &Desired) -> String {
    let mut text = String::from("# desired\n");
    for (key, entry) in &desired.table.services {
        let owner = &desired.owners[key];
        writeln!(text, "{key} {} for {owner}", table_text::service(&entry.service)).unwrap();
        text.push_str(&table_text::destinations(entry));
    }
    text
}

fn print_findings(plan: &Plan, catalog: &Catalog) -> String {
    let services = plan.services.values();
    let planned = services.flat_map(|service| &service.findings).cloned();
    let findings: BTreeSet<Finding> = planned.chain(catalog.findings()).collect();
    findings
        .iter()
        .fold(String::from("\n# findings\n"), |text, finding| {
            format!("{text}{}: {finding}\n", finding.reason.word())
        })
}

fn print_changes(changes: &[Change]) -> String {
    let mut text = String::from("\n# changes\n");
    for change in changes {
        let value = match change {
            Change::AddService { service, .. } | Change::EditService { service, .. } => {
                table_text::service(service)
            }
            Change::AddDestination { destination, .. } | Change::EditDestination { destination, .. } => {
                table_text::destination(destination)
            }
            Change::DeleteService { .. } | Change::DeleteDestination { .. } => {
                writeln!(text, "{change}").unwrap();
                continue;
            }
        };
        writeln!(text, "{change}: {value}").unwrap();
    }
    text
}

proptest! {
    #[test]
    fn a_table_is_read_from_its_text(table in strategies::table()) {
        let mut expected = table;
        for destination in expected.services.values_mut().flat_map(|entry| entry.destinations.values_mut()) {
            // The text leaves a lower limit without an upper one out, and so does the kernel.
            if destination.upper_threshold == 0 {
                destination.lower_threshold = 0;
            }
        }
        prop_assert_eq!(table_text::parse(&table_text::print(&expected)), (expected, Vec::new()));
    }
}
