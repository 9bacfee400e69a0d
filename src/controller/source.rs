//! The Kubernetes API as the controller reads it: all of Weir's objects with their status, nodes and what their agents
//! say, Services and their endpoints.

use futures::stream::{StreamExt, select_all};
use k8s_openapi::api::core::v1::{self as core, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{
    DRAIN_FINALIZER, DirectorGroup, FailureReport, NodeState, NodeStateStatus, RealServer, ReferenceGrant,
    VirtualService,
};
use crate::catalog::validate::{Remark, Validation};
use crate::catalog::{Form, Kind, Update};
use crate::plan::{Directing, Node};
use crate::source::kinds::{Collection, Planned, planned, put};
use crate::source::served::Served;
use crate::source::watch::{Event, Name, Observation, Stream, everything, objects};
use crate::source::watches::{Notice, Watches};

use super::cluster::{News, NodeFacts, Object, Status};

/// What the source tells the controller, in order.
#[derive(Debug)]
pub enum SourceNews {
    /// What there is to hear.
    News(Vec<News>),
    /// Everything that is there has been seen once. Before that nothing may be judged.
    Complete,
    /// Everything that is wrong with the source now; replaces what was said before.
    Problems(Vec<String>),
}

/// What an object is to the controller.
#[derive(Debug)]
enum Content {
    Object(Kind, Validation<Form>, Option<Box<Object>>),
    NodeState(Box<NodeStateStatus>),
    Node(NodeFacts),
}

/// What is watched.
const WATCHED: [Collection; 8] = [
    Collection::VirtualServices,
    Collection::RealServers,
    Collection::DirectorGroups,
    Collection::NodeStates,
    Collection::Nodes,
    Collection::Services,
    Collection::EndpointSlices,
    Collection::ReferenceGrants,
];

/// Watches until the token is cancelled or nobody listens any more.
pub async fn watch(client: Client, sender: mpsc::Sender<SourceNews>, shutdown: CancellationToken) {
    let mut watches = Watches::new(WATCHED);
    let mut events = select_all(streams(&client));
    loop {
        let news = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                Some((collection, event)) => take(&mut watches, collection, event),
                None => return,
            },
        };
        for news in news {
            if sender.send(news).await.is_err() {
                return;
            }
        }
    }
}

/// Streams of [`WATCHED`].
fn streams(client: &Client) -> [Stream<Content>; 8] {
    let states = Api::<Served<NodeState>>::all(client.clone());
    let nodes = Api::<core::Node>::all(client.clone());
    [
        own::<VirtualService, _>(client, Status::VirtualService),
        own::<RealServer, _>(client, Status::RealServer),
        own::<DirectorGroup, _>(client, Status::DirectorGroup),
        objects(Collection::NodeStates, states, everything(), |object| {
            Content::NodeState(Box::new(object.status().unwrap_or_else(unreadable)))
        }),
        objects(Collection::Nodes, nodes, everything(), |node| {
            Content::Node(facts(&node))
        }),
        foreign::<Service>(client),
        foreign::<EndpointSlice>(client),
        foreign::<ReferenceGrant>(client),
    ]
}

/// Objects of others, of which nothing but the form matters.
fn foreign<K: Planned>(client: &Client) -> Stream<Content> {
    planned::<K, _>(client, |_, form| Content::Object(K::KIND, form, None))
}

/// Objects of Weir's, whose status the controller writes.
fn own<K, S>(client: &Client, status: impl Fn(S) -> Status + Send + 'static) -> Stream<Content>
where
    K: Resource<DynamicType = ()>,
    Served<K>: Planned,
    S: DeserializeOwned + Default,
{
    planned::<Served<K>, _>(client, move |object, form| {
        let status = status(object.status().unwrap_or_default());
        let metadata = object.into_metadata();
        let finalizers = metadata.finalizers.unwrap_or_default();
        let object = Object {
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            deleted: metadata.deletion_timestamp.is_some(),
            held: finalizers.iter().any(|finalizer| finalizer == DRAIN_FINALIZER),
            status,
        };
        Content::Object(Served::<K>::KIND, form, Some(Box::new(object)))
    })
}

/// What is to be known of a node whose agent says what this version does not understand: that much, and nothing else.
fn unreadable(remark: Remark) -> NodeStateStatus {
    NodeStateStatus {
        failure_count: 1,
        failures: vec![FailureReport {
            virtual_service: None,
            message: format!(
                "the controller cannot read its NodeState: {}: {}",
                remark.field, remark.message
            ),
        }],
        ..NodeStateStatus::default()
    }
}

fn facts(node: &core::Node) -> NodeFacts {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    NodeFacts {
        node: Node {
            name: node.name_any(),
            labels: node.labels().clone(),
            directing: Directing::InGroups,
        },
        // A node without kubelet, as some tests and hosts have it, says nothing about itself.
        ready: ready.is_none_or(|condition| condition.status == "True"),
    }
}

/// Takes in an event of one watch and says what the controller is to be told.
fn take(
    watches: &mut Watches<News>,
    collection: Collection,
    event: Event<(Name, Content)>,
) -> Vec<SourceNews> {
    let were_complete = watches.are_all_complete();
    let Notice { batch, problems } = watches.take(collection, event, |observation| match observation {
        Observation::Present(name, content) => Some(present(name, content)),
        Observation::Gone(name) => gone(collection, name),
    });
    let mut told = Vec::new();
    if !batch.is_empty() {
        told.push(SourceNews::News(batch));
    }
    told.extend(problems.map(SourceNews::Problems));
    if !were_complete && watches.are_all_complete() {
        told.push(SourceNews::Complete);
    }
    told
}

fn present(name: Name, content: Content) -> News {
    match content {
        Content::Object(kind, form, object) => News::Object(put(name.of(kind), form), object),
        Content::NodeState(status) => News::NodeState(name.name, Some(status)),
        Content::Node(facts) => News::Node(name.name, Some(facts)),
    }
}

fn gone(collection: Collection, name: Name) -> Option<News> {
    match collection {
        Collection::NodeStates => Some(News::NodeState(name.name, None)),
        Collection::Nodes => Some(News::Node(name.name, None)),
        collection => {
            let deletion = Update::Delete(name.of(collection.kind()?));
            Some(News::Object(deletion, None))
        }
    }
}
