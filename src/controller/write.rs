//! What the controller writes: statuses, finalizers, events, the Lease. Nothing waits for ever: the client itself would.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{API_VERSION, DRAIN_FINALIZER, DirectorGroup, NodeState, RealServer, VirtualService};
use crate::plan::{Kind, ObjectRef};

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
    pub(super) async fn status(&self, name: &ObjectRef, uid: &str, status: &Status) -> anyhow::Result<()> {
        let mut body = head(name, uid);
        body["status"] = match status {
            Status::VirtualService(status) => json!(status),
            Status::RealServer(status) => json!(status),
            Status::DirectorGroup(status) => json!(status),
        };
        self.apply(name, &body, true).await
    }

    /// Puts the finalizer on a real server.
    pub(super) async fn hold(&self, name: &ObjectRef, uid: &str) -> anyhow::Result<()> {
        let mut body = head(name, uid);
        body["metadata"]["finalizers"] = json!([DRAIN_FINALIZER]);
        self.apply(name, &body, false).await
    }

    /// Takes the finalizer off a real server, whoever put it on: an object that comes back from a backup has it from there.
    pub(super) async fn release(&self, name: &ObjectRef, uid: &str) -> anyhow::Result<()> {
        let namespace = name.namespace.as_deref().unwrap_or_default();
        let api: Api<RealServer> = Api::namespaced(self.client.clone(), namespace);
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
            match api
                .patch(&name.name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                answer => answer.map(drop),
            }
        };
        within(patched).await
    }

    /// Takes the finalizer off every real server, and says off how many.
    pub(super) async fn release_all(&self) -> anyhow::Result<usize> {
        let api: Api<RealServer> = Api::all(self.client.clone());
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

    async fn apply(&self, name: &ObjectRef, body: &Value, of_status: bool) -> anyhow::Result<()> {
        let namespace = name.namespace.as_deref().unwrap_or_default();
        let client = self.client.clone();
        match name.kind {
            Kind::VirtualService => {
                let api = Api::<VirtualService>::namespaced(client, namespace);
                apply(&api, name, body, of_status).await
            }
            Kind::RealServer => {
                let api = Api::<RealServer>::namespaced(client, namespace);
                apply(&api, name, body, of_status).await
            }
            Kind::DirectorGroup => apply(&Api::<DirectorGroup>::all(client), name, body, of_status).await,
            // Nobody judges those of others.
            Kind::Service | Kind::EndpointSlice | Kind::ReferenceGrant => Ok(()),
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
            match api.delete(node, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                answer => answer.map(drop),
            }
        };
        within(gone).await
    }
}

/// What says which object is meant; its uid, so that one of the same name that has come meanwhile is not.
fn head(name: &ObjectRef, uid: &str) -> Value {
    let mut metadata = json!({ "name": &*name.name, "uid": uid });
    if let Some(namespace) = &name.namespace {
        metadata["namespace"] = json!(&**namespace);
    }
    json!({ "apiVersion": API_VERSION, "kind": name.kind.name(), "metadata": metadata })
}

async fn apply<K>(api: &Api<K>, name: &ObjectRef, body: &Value, of_status: bool) -> anyhow::Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(body);
    let applied = async {
        let answer = if of_status {
            api.patch_status(&name.name, &parameters, &patch).await
        } else {
            api.patch(&name.name, &parameters, &patch).await
        };
        match answer {
            // It is gone, or another of its name has come: then there is nothing to write any more.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            answer => answer.map(drop),
        }
    };
    within(applied).await
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

async fn within<T, E>(act: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    Ok(tokio::time::timeout(TIMEOUT, act)
        .await
        .context("no answer in time")??)
}
