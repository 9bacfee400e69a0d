//! What the controller writes: statuses, finalizers, events, the Lease. Nothing waits for ever: the client itself would.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams,
};
use kube::core::Status as Answer;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::api::{
    API_VERSION, DRAIN_FINALIZER, DirectorGroup, NodeState, RealServer, ReferenceGrant, VirtualService,
};
use crate::catalog::{Kind, ObjectRef};
use crate::source::watch;

use super::cluster::Status;
use super::events::Told;

/// Who the API server says wrote a field.
const FIELD_MANAGER: &str = "weir-controller";
/// Time a write may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes to the Kubernetes API.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
    recorder: Recorder,
}

impl Writer {
    /// Events name the instance that told them.
    pub(super) fn new(client: Client, identity: String) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(identity),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
        }
    }

    /// Puts a status in place of the one an object has.
    ///
    /// Not by server-side apply: where the definition is of an older version and has no place for one field, that refuses
    /// the whole status, while a patch leaves the field out.
    pub(super) async fn status(&self, name: &ObjectRef, uid: &str, status: &Status) -> anyhow::Result<()> {
        let status = match status {
            Status::VirtualService(status) => json!(status),
            Status::RealServer(status) => json!(status),
            Status::DirectorGroup(status) => json!(status),
        };
        // The uid, so that an object of the same name that has come meanwhile is not meant.
        let patch = serde_json::from_value(json!([
            { "op": "test", "path": "/metadata/uid", "value": uid },
            { "op": "add", "path": "/status", "value": status },
        ]))?;
        let (api, parameters) = (self.api(name), parameters());
        let written = async {
            let answer = api
                .patch_status(&name.name, &parameters, &Patch::<()>::Json(patch))
                .await;
            unless(is_another, answer)
        };
        within(written).await
    }

    /// Puts the finalizer on a real server.
    pub(super) async fn hold(&self, name: &ObjectRef, uid: &str) -> anyhow::Result<()> {
        let body = json!({
            "apiVersion": API_VERSION, "kind": name.kind.name(),
            "metadata": { "name": &*name.name, "uid": uid, "finalizers": [DRAIN_FINALIZER] },
        });
        let (api, parameters) = (self.api(name), parameters().force());
        let held = async {
            let answer = api.patch(&name.name, &parameters, &Patch::Apply(body)).await;
            unless(|answer| answer.code == 404 || answer.code == 409, answer)
        };
        within(held).await
    }

    /// Takes the finalizer off a real server, whoever put it on: an object that comes back from a backup has it from there.
    pub(super) async fn release(&self, name: &ObjectRef, uid: &str) -> anyhow::Result<()> {
        let api = self.api(name);
        let server = within(api.get_opt(&name.name)).await?;
        let Some(server) = server.filter(|server| server.uid().as_deref() == Some(uid)) else {
            return Ok(());
        };
        let others: Vec<&String> = server
            .finalizers()
            .iter()
            .filter(|finalizer| *finalizer != DRAIN_FINALIZER)
            .collect();
        // In the version that was read: somebody may just have added another.
        let version = server.resource_version();
        let patch = json!({ "metadata": { "uid": uid, "resourceVersion": version, "finalizers": others } });
        let patched = async {
            let answer = api
                .patch(&name.name, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            unless(|answer| answer.code == 404, answer)
        };
        within(patched).await
    }

    /// Takes the finalizer off every real server, and says off how many.
    pub(super) async fn release_all(&self) -> anyhow::Result<usize> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(Kind::RealServer));
        let mut released = 0;
        let listed = async {
            match api.list(&ListParams::default()).await {
                // Without their definition there are none.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
                answer => answer.map(|list| list.items),
            }
        };
        for server in within(listed).await? {
            if server
                .finalizers()
                .iter()
                .any(|finalizer| finalizer == DRAIN_FINALIZER)
            {
                let name = ObjectRef {
                    kind: Kind::RealServer,
                    namespace: server.namespace().map(Arc::from),
                    name: server.name_any().into(),
                };
                let uid = server.uid().unwrap_or_default();
                self.release(&name, &uid).await?;
                released += 1;
            }
        }
        Ok(released)
    }

    /// Of whatever version the objects are: of what is there, nothing but metadata matters here.
    fn api(&self, name: &ObjectRef) -> Api<DynamicObject> {
        let (client, resource) = (self.client.clone(), resource(name.kind));
        match &name.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }

    /// Tells something of an object.
    pub(super) async fn event(&self, name: &ObjectRef, uid: &str, told: &Told) -> anyhow::Result<()> {
        let reference = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(name.kind.name().to_owned()),
            name: Some(name.name.to_string()),
            namespace: name.namespace.as_ref().map(ToString::to_string),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: if told.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: told.reason.clone(),
            note: Some(told.note.chars().take(1024).collect()),
            action: told.action.to_owned(),
            secondary: None,
        };
        within(self.recorder.publish(&event, &reference)).await
    }

    /// Takes away what a node's agent has said.
    pub(super) async fn forget_node(&self, node: &str) -> anyhow::Result<()> {
        let api: Api<NodeState> = Api::all(self.client.clone());
        let gone = async {
            let answer = api.delete(node, &DeleteParams::default()).await;
            unless(|answer| answer.code == 404, answer)
        };
        within(gone).await
    }
}

fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::VirtualService => ApiResource::erase::<VirtualService>(&()),
        Kind::RealServer => ApiResource::erase::<RealServer>(&()),
        Kind::DirectorGroup => ApiResource::erase::<DirectorGroup>(&()),
        Kind::Service => ApiResource::erase::<Service>(&()),
        Kind::EndpointSlice => ApiResource::erase::<EndpointSlice>(&()),
        Kind::ReferenceGrant => ApiResource::erase::<ReferenceGrant>(&()),
    }
}

fn parameters() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER)
}

/// Whether the object is gone, or another of its name has come: then there is nothing to write any more.
fn is_another(answer: &Answer) -> bool {
    let causes = answer.details.as_ref().map_or(0, |details| details.causes.len());
    // A patch whose test fails; an invalid object has causes.
    answer.code == 404 || answer.code == 422 && causes == 0
}

/// An answer that says that there is nothing to be done is none to complain of.
fn unless<T>(is_done: impl Fn(&Answer) -> bool, answer: kube::Result<T>) -> kube::Result<()> {
    match answer {
        Err(kube::Error::Api(answer)) if is_done(&answer) => Ok(()),
        answer => answer.map(drop),
    }
}

/// The Lease that says who writes.
pub(super) struct LeaseWriter {
    api: Api<Lease>,
    name: String,
}

/// What became of a write to the Lease.
pub(super) enum LeaseWritten {
    /// It is written.
    Yes,
    /// Somebody else wrote first.
    Lost,
}

impl LeaseWriter {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
        }
    }

    pub(super) async fn read(&self) -> anyhow::Result<Option<Lease>> {
        within(self.api.get_opt(&self.name)).await
    }

    /// Puts a spec in place of the one that was read.
    pub(super) async fn write(&self, read: Option<&Lease>, spec: LeaseSpec) -> anyhow::Result<LeaseWritten> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: read.and_then(|lease| lease.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        };
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = async {
            let answer = match read {
                Some(_) => self.api.replace(&self.name, &parameters, &lease).await,
                None => self.api.create(&parameters, &lease).await,
            };
            match answer {
                Ok(_) => Ok(LeaseWritten::Yes),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(LeaseWritten::Lost),
                Err(error) => Err(error),
            }
        };
        within(written).await
    }
}

async fn within<T>(act: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(TIMEOUT, act).await;
    answer
        .context("no answer in time")?
        .map_err(|error| anyhow!(watch::words(&error)))
}
