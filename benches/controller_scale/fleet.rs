//! The objects of a large cluster, written as users and agents write them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::ops::Range;

use futures::stream::{self, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weir::agent::report::Report;
use weir::api::{DirectorGroup, NodeState, RealServer, VirtualService};
use weir::catalog::{Generation, Generations, NamespacedName};
use weir::node::{RefusedChange, Summary};
use weir::plan::Role;

pub const NAMESPACE: &str = "shop";
pub const VIRTUAL_SERVICES: usize = 5000;
/// Of each virtual service.
pub const REAL_SERVERS: usize = 2;
/// Of its Service.
pub const ENDPOINTS: usize = 2;
pub const GROUPS: usize = 50;
pub const NODES: usize = 1000;
/// As many writes at a time as the controller has under way.
const WRITES: usize = 16;

/// The name of a virtual service, of its Service and of its EndpointSlice.
pub fn web(number: usize) -> String {
    format!("web-{number:04}")
}

pub fn real_server(service: usize, number: usize) -> String {
    format!("{}-{number}", web(service))
}

pub fn node(number: usize) -> String {
    format!("node-{number:04}")
}

pub fn group(number: usize) -> String {
    format!("edge-{number:02}")
}

/// The virtual services of a group.
pub fn of_group(group: usize) -> impl Iterator<Item = usize> {
    (group..VIRTUAL_SERVICES).step_by(GROUPS)
}

pub fn namespaced(name: String) -> NamespacedName {
    NamespacedName {
        namespace: NAMESPACE.into(),
        name: name.into(),
    }
}

fn label_of(group: usize) -> String {
    format!("weir.dev/{}", self::group(group))
}

fn address(block: u32, number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(block + number as u32)
}

/// Writes objects, several at a time.
pub async fn all<T>(writes: impl Iterator<Item = impl Future<Output = kube::Result<T>>>) {
    let writes =
        stream::iter(writes.map(Ok)).try_for_each_concurrent(WRITES, async |write| write.await.map(drop));
    writes.await.unwrap();
}

async fn create<K>(api: &Api<K>, object: Value) -> kube::Result<K>
where
    K: Clone + DeserializeOwned + serde::Serialize + Debug,
{
    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await
}

/// Writes to the API server as administrators, Kubernetes and agents do.
#[derive(Clone)]
pub struct Fleet {
    pub virtual_services: Api<VirtualService>,
    pub real_servers: Api<RealServer>,
    pub groups: Api<DirectorGroup>,
    pub slices: Api<EndpointSlice>,
    services: Api<Service>,
    nodes: Api<Node>,
    states: Api<NodeState>,
}

impl Fleet {
    pub fn new(client: &Client) -> Self {
        let client = || client.clone();
        Self {
            virtual_services: Api::namespaced(client(), NAMESPACE),
            real_servers: Api::namespaced(client(), NAMESPACE),
            groups: Api::all(client()),
            slices: Api::namespaced(client(), NAMESPACE),
            services: Api::namespaced(client(), NAMESPACE),
            nodes: Api::all(client()),
            states: Api::all(client()),
        }
    }

    pub async fn create_groups(&self) {
        all((0..GROUPS).map(async |number| {
            let selector = json!({ "matchLabels": { label_of(number): "director" } });
            let spec = json!({ "nodeSelector": selector, "failover": { "type": "Routed", "routed": {} } });
            let object = json!({ "metadata": { "name": group(number) }, "spec": spec });
            create(&self.groups, object).await
        }))
        .await;
    }

    /// Virtual services with two real servers each, and a Service with two endpoints.
    pub async fn create_virtual_services(&self, numbers: Range<usize>) {
        all(numbers.clone().map(|number| self.create_virtual_service(number))).await;
        let servers = numbers
            .clone()
            .flat_map(|service| (0..REAL_SERVERS).map(move |number| (service, number)));
        all(servers.map(|(service, number)| self.create_real_server(service, number))).await;
        all(numbers.clone().map(|number| self.create_service(number))).await;
        all(numbers.map(|number| self.create_slice(number))).await;
    }

    async fn create_virtual_service(&self, number: usize) -> kube::Result<VirtualService> {
        let name = web(number);
        let object = json!({
            "metadata": { "name": name },
            "spec": {
                "addresses": [address(0x0a40_0000, number)],
                "listeners": [{ "name": "http", "protocol": "TCP", "port": 80 }],
                "forwarding": { "method": "Masquerade", "snat": "Never" },
                "directorGroupRef": { "name": group(number % GROUPS) },
                "backends": [
                    { "name": "servers", "realServers": { "selector": { "matchLabels": { "app": name } } } },
                    { "name": "pods", "serviceRef": { "name": name, "port": "http" } },
                ],
            },
        });
        create(&self.virtual_services, object).await
    }

    async fn create_real_server(&self, service: usize, number: usize) -> kube::Result<RealServer> {
        let object = json!({
            "metadata": { "name": real_server(service, number), "labels": { "app": web(service) } },
            "spec": { "address": address(0x0a80_0000, service * REAL_SERVERS + number), "weight": 1 },
        });
        create(&self.real_servers, object).await
    }

    async fn create_service(&self, number: usize) -> kube::Result<Service> {
        let spec = json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] });
        create(
            &self.services,
            json!({ "metadata": { "name": web(number) }, "spec": spec }),
        )
        .await
    }

    async fn create_slice(&self, number: usize) -> kube::Result<EndpointSlice> {
        let object = json!({
            "metadata": { "name": web(number), "labels": { "kubernetes.io/service-name": web(number) } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": 80 }],
            "endpoints": endpoints(number, true),
        });
        create(&self.slices, object).await
    }

    /// A node that is director in these groups.
    pub async fn create_node(&self, name: &str, groups: Range<usize>) -> kube::Result<Node> {
        let labels: BTreeMap<String, &str> = groups.map(|group| (label_of(group), "director")).collect();
        create(
            &self.nodes,
            json!({ "metadata": { "name": name, "labels": labels } }),
        )
        .await
    }

    pub async fn delete_node(&self, name: &str) {
        self.nodes.delete(name, &Default::default()).await.unwrap();
    }

    pub async fn set_weight(&self, service: usize, number: usize, weight: u32) {
        self.patch_real_server(service, number, json!({ "weight": weight }))
            .await;
    }

    pub async fn patch_real_server(&self, service: usize, number: usize, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let name = real_server(service, number);
        self.real_servers
            .patch(&name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Makes the first endpoint of a Service ready, or not.
    pub async fn set_ready(&self, service: usize, ready: bool) {
        let patch = Patch::Merge(json!({ "endpoints": endpoints(service, ready) }));
        self.slices
            .patch(&web(service), &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Changes a virtual service so that it has a new generation.
    pub async fn set_scheduler(&self, service: usize, algorithm: &str) {
        let patch = Patch::Merge(json!({ "spec": { "scheduler": { "algorithm": algorithm } } }));
        self.virtual_services
            .patch(&web(service), &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub async fn create_state(&self, node: &str) -> kube::Result<NodeState> {
        create(&self.states, json!({ "metadata": { "name": node }, "spec": {} })).await
    }

    /// Writes what an agent says of itself, as `weir agent` does.
    pub async fn report(&self, director: &Director) -> kube::Result<NodeState> {
        let status = weir::agent::status::node_state(&director.report());
        let metadata = json!({ "name": director.name });
        let state = json!({
            "apiVersion": weir::api::API_VERSION, "kind": "NodeState", "metadata": metadata, "status": status,
        });
        let parameters = PatchParams::apply("weir-agent").force();
        self.states
            .patch_status(&director.name, &parameters, &Patch::Apply(state))
            .await
    }
}

/// One of them is always ready.
fn endpoints(service: usize, first_ready: bool) -> Value {
    let endpoint = |number, ready| {
        let address = address(0x0ac0_0000, service * ENDPOINTS + number);
        json!({ "addresses": [address], "conditions": { "ready": ready } })
    };
    json!([endpoint(0, first_ready), endpoint(1, true)])
}

/// The agent of a node that has everything for the virtual services of its group.
#[derive(Debug, Clone)]
pub struct Director {
    pub name: String,
    pub group: usize,
    /// The generation of the group's first virtual service; the others have the first.
    pub generation_of_first: i64,
    /// The virtual service for which something could not be done.
    pub lacks: Option<usize>,
    /// Real servers that leave, with how many destinations each still is.
    pub leaving: BTreeMap<NamespacedName, usize>,
}

impl Director {
    pub fn new(number: usize) -> Self {
        Self {
            name: node(number),
            group: number % GROUPS,
            generation_of_first: 1,
            lacks: None,
            leaving: BTreeMap::new(),
        }
    }

    fn report(&self) -> Report {
        let mut generations = Generations::default();
        for service in of_group(self.group).filter(|service| self.lacks != Some(*service)) {
            let generation = if service == self.group {
                self.generation_of_first
            } else {
                1
            };
            let name = namespaced(web(service));
            generations.exchange(None, Some(Generation::new(&name, Some(generation))));
        }
        let refused = self.lacks.map(|service| RefusedChange {
            virtual_service: Some(namespaced(web(service))),
            message: "cannot add a destination: Invalid argument".to_owned(),
        });
        Report {
            complete: true,
            roles: vec![(group(self.group), Role::Active)],
            leaving_real_servers: self.leaving.clone(),
            node: Summary {
                generations,
                refused: refused.into_iter().collect(),
                ..Summary::default()
            },
            ..Report::default()
        }
    }
}
