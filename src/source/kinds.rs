//! The kinds of objects that are watched: what the API server calls them, what they are to planning, and how they are read.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{DirectorGroup, RealServer, ReferenceGrant, VirtualService};
use crate::catalog::validate::{self, Validation};
use crate::catalog::{Form, Kind, ObjectRef, Update};

use super::served::Served;
use super::watch::{Stream, everything, objects};

/// A collection of the API server: all objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collection {
    /// VirtualServices.
    VirtualServices,
    /// RealServers.
    RealServers,
    /// DirectorGroups.
    DirectorGroups,
    /// What agents report.
    NodeStates,
    /// Nodes.
    Nodes,
    /// Services of Kubernetes.
    Services,
    /// Their endpoints.
    EndpointSlices,
    /// ReferenceGrants of the Gateway API.
    ReferenceGrants,
}

impl Collection {
    /// The collection of a kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::VirtualService => Self::VirtualServices,
            Kind::RealServer => Self::RealServers,
            Kind::DirectorGroup => Self::DirectorGroups,
            Kind::Service => Self::Services,
            Kind::EndpointSlice => Self::EndpointSlices,
            Kind::ReferenceGrant => Self::ReferenceGrants,
        }
    }

    /// What planning calls its objects, if it knows them.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::VirtualServices => Some(Kind::VirtualService),
            Self::RealServers => Some(Kind::RealServer),
            Self::DirectorGroups => Some(Kind::DirectorGroup),
            Self::NodeStates | Self::Nodes => None,
            Self::Services => Some(Kind::Service),
            Self::EndpointSlices => Some(Kind::EndpointSlice),
            Self::ReferenceGrants => Some(Kind::ReferenceGrant),
        }
    }

    /// The name of its resource, as in messages of the API server.
    pub fn resource(self) -> &'static str {
        match self {
            Self::VirtualServices => "virtualservices.weir.dev",
            Self::RealServers => "realservers.weir.dev",
            Self::DirectorGroups => "directorgroups.weir.dev",
            Self::NodeStates => "nodestates.weir.dev",
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices.discovery.k8s.io",
            Self::ReferenceGrants => "referencegrants.gateway.networking.k8s.io",
        }
    }

    /// Whether an API server may lack it, which is as good as an empty one.
    pub fn is_optional(self) -> bool {
        self == Self::ReferenceGrants
    }
}

/// An object that planning knows, as the API server has it.
pub trait Planned: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    /// Its kind.
    const KIND: Kind;

    /// Its validated form, or what is wrong with it.
    fn form(&self) -> Validation<Form>;

    /// As JSON of the API, without what Weir has no use for, on one line. `None` of one that this version cannot read.
    fn json(&self) -> Option<String>;
}

impl Planned for Served<VirtualService> {
    const KIND: Kind = Kind::VirtualService;

    fn form(&self) -> Validation<Form> {
        map(self.validate(validate::virtual_service), |service| {
            Form::VirtualService(Box::new(service))
        })
    }

    fn json(&self) -> Option<String> {
        self.validate(|object| Validation {
            value: json(object),
            remarks: Vec::new(),
        })
        .value
    }
}

impl Planned for Served<RealServer> {
    const KIND: Kind = Kind::RealServer;

    fn form(&self) -> Validation<Form> {
        map(self.validate(validate::real_server), Form::RealServer)
    }

    fn json(&self) -> Option<String> {
        self.validate(|object| Validation {
            value: json(object),
            remarks: Vec::new(),
        })
        .value
    }
}

impl Planned for Served<DirectorGroup> {
    const KIND: Kind = Kind::DirectorGroup;

    fn form(&self) -> Validation<Form> {
        map(self.validate(validate::director_group), |group| {
            Form::DirectorGroup(Box::new(group))
        })
    }

    fn json(&self) -> Option<String> {
        self.validate(|object| Validation {
            value: json(object),
            remarks: Vec::new(),
        })
        .value
    }
}

impl Planned for Service {
    const KIND: Kind = Kind::Service;

    fn form(&self) -> Validation<Form> {
        map(validate::service(self), Form::Service)
    }

    fn json(&self) -> Option<String> {
        json(self)
    }
}

impl Planned for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn form(&self) -> Validation<Form> {
        map(validate::endpoint_slice(self), Form::EndpointSlice)
    }

    fn json(&self) -> Option<String> {
        json(self)
    }
}

impl Planned for ReferenceGrant {
    const KIND: Kind = Kind::ReferenceGrant;

    fn form(&self) -> Validation<Form> {
        map(validate::reference_grant(self), Form::ReferenceGrant)
    }

    fn json(&self) -> Option<String> {
        json(self)
    }
}

/// Members of the metadata that mean something to validation.
const METADATA: [&str; 5] = ["name", "namespace", "labels", "generation", "deletionTimestamp"];

fn json(object: &impl Serialize) -> Option<String> {
    let mut object = serde_json::to_value(object).ok()?;
    let members = object.as_object_mut()?;
    members.remove("status");
    let metadata = members.get_mut("metadata")?.as_object_mut()?;
    metadata.retain(|member, _| METADATA.contains(&member.as_str()));
    Some(object.to_string())
}

/// Reads an object of a kind from [`Planned::json`], of whatever version that is.
///
/// # Errors
///
/// It is no such object.
pub fn form_of(kind: Kind, json: &str) -> serde_json::Result<Validation<Form>> {
    fn read<K: Planned>(json: &str) -> serde_json::Result<Validation<Form>> {
        Ok(serde_json::from_str::<K>(json)?.form())
    }
    match kind {
        Kind::VirtualService => read::<Served<VirtualService>>(json),
        Kind::RealServer => read::<Served<RealServer>>(json),
        Kind::DirectorGroup => read::<Served<DirectorGroup>>(json),
        Kind::Service => read::<Service>(json),
        Kind::EndpointSlice => read::<EndpointSlice>(json),
        Kind::ReferenceGrant => read::<ReferenceGrant>(json),
    }
}

fn map<T>(validation: Validation<T>, form: impl Fn(T) -> Form) -> Validation<Form> {
    Validation {
        value: validation.value.map(form),
        remarks: validation.remarks,
    }
}

/// What a snapshot is told of an object that is there.
pub fn put(object: ObjectRef, form: Validation<Form>) -> Update {
    Update::Put {
        object,
        form: form.value,
        remarks: form.remarks,
    }
}

/// Watches all objects of a kind; `content` says what is kept of one besides its form.
pub fn planned<K: Planned, T: Send + 'static>(
    client: &Client,
    content: impl Fn(K, Validation<Form>) -> T + Send + 'static,
) -> Stream<T> {
    let api = Api::<K>::all(client.clone());
    objects(Collection::of(K::KIND), api, everything(), move |object| {
        let form = object.form();
        content(object, form)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn virtual_service() -> Value {
        json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "VirtualService",
            "metadata": {
                "name": "web",
                "namespace": "shop",
                "generation": 7,
                "resourceVersion": "77",
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "…" },
                "managedFields": [{ "manager": "kubectl" }],
            },
            "spec": {
                "addresses": ["10.0.0.200"],
                "listeners": [{ "name": "http", "protocol": "TCP", "port": 80 }],
                "backends": [{ "name": "web", "realServers": { "selector": { "matchLabels": { "app": "web" } } } }],
            },
            "status": { "ready": "True" },
        })
    }

    fn real_server() -> Value {
        json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "RealServer",
            "metadata": {
                "name": "rs1",
                "namespace": "shop",
                "labels": { "app": "web" },
                "deletionTimestamp": "2026-11-26T09:00:00Z",
            },
            "spec": { "address": "10.0.0.11", "port": 80 },
        })
    }

    fn slice() -> Value {
        json!({
            "metadata": { "name": "web-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": [{ "addresses": ["10.244.0.5"], "conditions": { "ready": true } }],
        })
    }

    /// The JSON of an object means what the object meant.
    fn kept<K: Planned>(object: Value) -> Value {
        let object: K = serde_json::from_value(object).unwrap();
        let json = object.json().unwrap();
        assert!(!json.contains('\n'), "{json}");
        let form = object.form();
        assert!(form.value.is_some(), "{:?}", form.remarks);
        assert_eq!(form_of(K::KIND, &json).unwrap(), form);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn what_is_kept_of_an_object_is_what_planning_makes_of_it_and_little_else() {
        let web = kept::<Served<VirtualService>>(virtual_service());
        assert_eq!(
            web["metadata"],
            json!({ "name": "web", "namespace": "shop", "generation": 7 })
        );
        assert_eq!(web.get("status"), None);
        kept::<Served<RealServer>>(real_server());
        kept::<EndpointSlice>(slice());
        let group = json!({
            "metadata": { "name": "edge" },
            "spec": {
                "nodeSelector": { "matchLabels": { "weir.dev/role": "director" } },
                "failover": { "type": "Static", "static": { "activeNode": "d1" } },
            },
        });
        kept::<Served<DirectorGroup>>(json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "DirectorGroup",
            "metadata": group["metadata"],
            "spec": group["spec"],
        }));
        kept::<Service>(json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "ports": [{ "name": "http", "port": 80 }] },
        }));
        kept::<ReferenceGrant>(json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": { "name": "shop", "namespace": "pods" },
            "spec": {
                "from": [{ "group": "weir.dev", "kind": "VirtualService", "namespace": "shop" }],
                "to": [{ "group": "", "kind": "Service" }],
            },
        }));
    }

    #[test]
    fn an_object_that_this_version_cannot_read_is_not_kept() {
        let mut newer = virtual_service();
        newer["spec"]["listeners"][0]["protocol"] = json!("QUIC");
        let newer: Served<VirtualService> = serde_json::from_value(newer).unwrap();
        assert_eq!(newer.json(), None);
    }
}
