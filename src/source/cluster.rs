//! The Kubernetes API as a source: VirtualServices, RealServers, DirectorGroups and the node's own labels; on directors
//! also Services, their endpoints and ReferenceGrants. Each object is validated as it arrives.

use std::collections::BTreeMap;

use futures::stream::{StreamExt, select_all};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{DirectorGroup, RealServer, ReferenceGrant, VirtualService};
use crate::catalog::validate::Validation;
use crate::catalog::{Form, Kind, Update};

use super::SourceEvent;
use super::kinds::{Collection, Planned, planned, put};
use super::served::Served;
use super::watch::{Event, Name, Observation, Stream, everything, objects};
use super::watches::{Notice, Watches};

/// What an object is to the agent.
#[derive(Debug)]
enum Content {
    Object(Kind, Validation<Form>),
    Labels(BTreeMap<String, String>),
}

/// What is always watched.
const ALWAYS: [Collection; 4] = [
    Collection::VirtualServices,
    Collection::RealServers,
    Collection::DirectorGroups,
    Collection::Nodes,
];
/// What is watched on request.
const ENDPOINTS: [Collection; 3] = [
    Collection::Services,
    Collection::EndpointSlices,
    Collection::ReferenceGrants,
];

/// Watches until the token is cancelled or nobody listens any more. Services and their endpoints are watched while
/// `endpoints` says so: there are many, and most nodes have no use for them.
pub async fn watch(
    client: Client,
    node_name: &str,
    mut endpoints: tokio::sync::watch::Receiver<bool>,
    sender: mpsc::Sender<SourceEvent>,
    shutdown: CancellationToken,
) {
    let mut watches = unread();
    let mut events = select_all(always(&client, node_name));
    let mut watching = CancellationToken::new();
    loop {
        let news = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                Some((collection, event)) => take(&mut watches, collection, event),
                None => return,
            },
            Ok(()) = endpoints.changed() => {
                watching.cancel();
                watching = CancellationToken::new();
                if *endpoints.borrow_and_update() {
                    for stream in of_endpoints(&client) {
                        events.push(stream.take_until(watching.clone().cancelled_owned()).boxed());
                    }
                    Vec::new()
                } else {
                    forget_endpoints(&mut watches)
                }
            }
        };
        for event in news {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// Streams of what [`ALWAYS`] is watched.
fn always(client: &Client, node_name: &str) -> [Stream<Content>; 4] {
    let own_node = everything().fields(&format!("metadata.name={node_name}"));
    let nodes = Api::<Node>::all(client.clone());
    [
        objects_of::<Served<VirtualService>>(client),
        objects_of::<Served<RealServer>>(client),
        objects_of::<Served<DirectorGroup>>(client),
        objects(Collection::Nodes, nodes, own_node, |node| {
            Content::Labels(node.labels().clone())
        }),
    ]
}

/// Streams of [`ENDPOINTS`].
fn of_endpoints(client: &Client) -> [Stream<Content>; 3] {
    [
        objects_of::<Service>(client),
        objects_of::<EndpointSlice>(client),
        objects_of::<ReferenceGrant>(client),
    ]
}

fn objects_of<K: Planned>(client: &Client) -> Stream<Content> {
    planned::<K, _>(client, |_, form| Content::Object(K::KIND, form))
}

fn unread() -> Watches<Update> {
    Watches::new(ALWAYS.into_iter().chain(ENDPOINTS))
}

/// Takes in an event of one watch and says what the agent is to be told.
fn take(
    watches: &mut Watches<Update>,
    collection: Collection,
    event: Event<(Name, Content)>,
) -> Vec<SourceEvent> {
    let weir_was = watches.are_complete(&ALWAYS);
    let endpoints_were = watches.are_complete(&ENDPOINTS);
    let mut news = Vec::new();
    let Notice { batch, problems } = watches.take(collection, event, |observation| match observation {
        Observation::Present(name, Content::Object(kind, form)) => Some(put(name.of(kind), form)),
        Observation::Present(_, Content::Labels(labels)) => {
            news.push(SourceEvent::NodeLabels(labels));
            None
        }
        // A node without an object keeps the labels it had: its agent is still running on it.
        Observation::Gone(name) => collection.kind().map(|kind| Update::Delete(name.of(kind))),
    });
    if !batch.is_empty() {
        news.push(SourceEvent::Updates(batch));
    }
    news.extend(problems.map(SourceEvent::Problems));
    if !weir_was && watches.are_complete(&ALWAYS) {
        news.push(SourceEvent::Complete { unread: false });
    }
    if !endpoints_were && watches.are_complete(&ENDPOINTS) {
        news.push(SourceEvent::Endpoints { known: true });
    }
    news
}

/// What is to be told when Services and their endpoints are watched no more: that nothing is known of them, first, so that
/// nobody takes what is let go of for gone.
fn forget_endpoints(watches: &mut Watches<Update>) -> Vec<SourceEvent> {
    let Notice { batch, problems } = watches.forget(&ENDPOINTS, |collection, name| {
        collection.kind().map(|kind| Update::Delete(name.of(kind)))
    });
    let mut news = vec![
        SourceEvent::Endpoints { known: false },
        SourceEvent::Updates(batch),
    ];
    news.extend(problems.map(SourceEvent::Problems));
    news
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher;

    use super::*;

    #[test]
    fn what_is_let_go_of_is_not_known_before_it_is_gone() {
        let mut watches = unread();
        let name = Name {
            namespace: Some("shop".into()),
            name: "web".into(),
        };
        for collection in ENDPOINTS {
            take(&mut watches, collection, Event::Received(watcher::Event::Init));
            take(
                &mut watches,
                collection,
                Event::Received(watcher::Event::InitDone),
            );
        }
        let form = Validation {
            value: None,
            remarks: Vec::new(),
        };
        let there = (name.clone(), Content::Object(Kind::Service, form));
        take(
            &mut watches,
            Collection::Services,
            Event::Received(watcher::Event::Apply(there)),
        );
        let expected = [
            SourceEvent::Endpoints { known: false },
            SourceEvent::Updates(vec![Update::Delete(name.of(Kind::Service))]),
        ];
        assert_eq!(forget_endpoints(&mut watches), expected);
        assert!(!watches.are_complete(&ENDPOINTS));
    }
}
