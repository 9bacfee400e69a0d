//! The kinds of objects that are watched: what the API server calls them, what they are to planning, and how they are read.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource};
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
    /// What it is in.
    const COLLECTION: Collection;

    /// Its validated form, or what is wrong with it.
    fn form(&self) -> Validation<Form>;
}

impl Planned for Served<VirtualService> {
    const KIND: Kind = Kind::VirtualService;
    const COLLECTION: Collection = Collection::VirtualServices;

    fn form(&self) -> Validation<Form> {
        map(self.validate(validate::virtual_service), |service| {
            Form::VirtualService(Box::new(service))
        })
    }
}

impl Planned for Served<RealServer> {
    const KIND: Kind = Kind::RealServer;
    const COLLECTION: Collection = Collection::RealServers;

    fn form(&self) -> Validation<Form> {
        map(self.validate(validate::real_server), Form::RealServer)
    }
}

impl Planned for Served<DirectorGroup> {
    const KIND: Kind = Kind::DirectorGroup;
    const COLLECTION: Collection = Collection::DirectorGroups;

    fn form(&self) -> Validation<Form> {
        map(self.validate(validate::director_group), |group| {
            Form::DirectorGroup(Box::new(group))
        })
    }
}

impl Planned for Service {
    const KIND: Kind = Kind::Service;
    const COLLECTION: Collection = Collection::Services;

    fn form(&self) -> Validation<Form> {
        map(validate::service(self), Form::Service)
    }
}

impl Planned for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;
    const COLLECTION: Collection = Collection::EndpointSlices;

    fn form(&self) -> Validation<Form> {
        map(validate::endpoint_slice(self), Form::EndpointSlice)
    }
}

impl Planned for ReferenceGrant {
    const KIND: Kind = Kind::ReferenceGrant;
    const COLLECTION: Collection = Collection::ReferenceGrants;

    fn form(&self) -> Validation<Form> {
        map(validate::reference_grant(self), Form::ReferenceGrant)
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
    objects(K::COLLECTION, api, everything(), move |object| {
        let form = object.form();
        content(object, form)
    })
}
