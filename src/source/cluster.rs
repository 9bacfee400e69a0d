//! The Kubernetes API as a source: VirtualServices, RealServers, DirectorGroups and the node's own labels; on directors
//! also Services, their endpoints and ReferenceGrants. Each object is validated as it arrives.

use std::collections::BTreeMap;
use std::ops::Range;

use futures::stream::{StreamExt, select_all};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{DirectorGroup, RealServer, ReferenceGrant, VirtualService};
use crate::catalog::validate::{self, Remark, Validation};
use crate::catalog::{Form, Kind, Update};

use super::SourceEvent;
use super::served::Served;
use super::watch::{Event, Name, Seen, Stream, Watch, everything, objects};
use super::watches::{Told, Watches};

/// What an object is to the agent.
#[derive(Debug)]
enum Read {
    Object(Option<Form>, Vec<Remark>),
    Labels(BTreeMap<String, String>),
}

/// The kinds that are watched, and what an object of each is; nodes are no kind that planning knows.
const KINDS: [Option<Kind>; 7] = [
    Some(Kind::VirtualService),
    Some(Kind::RealServer),
    Some(Kind::DirectorGroup),
    None,
    Some(Kind::Service),
    Some(Kind::EndpointSlice),
    Some(Kind::ReferenceGrant),
];

/// The kinds that are always watched.
const OF_WEIR: Range<usize> = 0..4;
/// The kinds that are watched on request.
const OF_ENDPOINTS: Range<usize> = OF_WEIR.end..KINDS.len();

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
    let mut events = select_all(of_weir(&client, node_name));
    let mut watching = CancellationToken::new();
    loop {
        let news = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                Some((number, event)) => take(&mut watches, number, event),
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

fn of_weir(client: &Client, node_name: &str) -> [Stream<Read>; 4] {
    let own_node = everything().fields(&format!("metadata.name={node_name}"));
    let virtual_services = Api::<Served<VirtualService>>::all(client.clone());
    let real_servers = Api::<Served<RealServer>>::all(client.clone());
    let director_groups = Api::<Served<DirectorGroup>>::all(client.clone());
    let nodes = Api::<Node>::all(client.clone());
    [
        objects(0, virtual_services, everything(), |object| {
            put(object.validate(validate::virtual_service), |form| {
                Form::VirtualService(Box::new(form))
            })
        }),
        objects(1, real_servers, everything(), |object| {
            put(object.validate(validate::real_server), Form::RealServer)
        }),
        objects(2, director_groups, everything(), |object| {
            put(object.validate(validate::director_group), |form| {
                Form::DirectorGroup(Box::new(form))
            })
        }),
        objects(3, nodes, own_node, |node| Read::Labels(node.labels().clone())),
    ]
}

fn of_endpoints(client: &Client) -> [Stream<Read>; 3] {
    let services = Api::<Service>::all(client.clone());
    let slices = Api::<EndpointSlice>::all(client.clone());
    let grants = Api::<ReferenceGrant>::all(client.clone());
    [
        objects(OF_ENDPOINTS.start, services, everything(), |object| {
            put(validate::service(&object), Form::Service)
        }),
        objects(OF_ENDPOINTS.start + 1, slices, everything(), |object| {
            put(validate::endpoint_slice(&object), Form::EndpointSlice)
        }),
        objects(OF_ENDPOINTS.start + 2, grants, everything(), |object| {
            put(validate::reference_grant(&object), Form::ReferenceGrant)
        }),
    ]
}

fn put<T>(validation: Validation<T>, form: impl Fn(T) -> Form) -> Read {
    Read::Object(validation.value.map(form), validation.remarks)
}

type AgentWatches = Watches<{ KINDS.len() }, Update>;

fn unread() -> AgentWatches {
    Watches::new([
        Watch::new("virtualservices.weir.dev"),
        Watch::new("realservers.weir.dev"),
        Watch::new("directorgroups.weir.dev"),
        Watch::new("nodes"),
        Watch::new("services"),
        Watch::new("endpointslices.discovery.k8s.io"),
        Watch::may_be_unknown("referencegrants.gateway.networking.k8s.io"),
    ])
}

/// Takes in an event of one watch and says what the agent is to be told.
fn take(watches: &mut AgentWatches, number: usize, event: Event<(Name, Read)>) -> Vec<SourceEvent> {
    let weir_was = watches.are_complete(OF_WEIR);
    let endpoints_were = watches.are_complete(OF_ENDPOINTS);
    let mut news = Vec::new();
    let Told { batch, problems } = watches.take(number, event, |seen| match (KINDS[number], seen) {
        (Some(kind), Seen::There(name, Read::Object(form, remarks))) => Some(Update::Put {
            object: name.of(kind),
            form,
            remarks,
        }),
        (Some(kind), Seen::Gone(name)) => Some(Update::Delete(name.of(kind))),
        (None, Seen::There(_, Read::Labels(labels))) => {
            news.push(SourceEvent::NodeLabels(labels));
            None
        }
        // A node without an object keeps the labels it had: its agent is still running on it.
        (_, Seen::Gone(_) | Seen::There(..)) => None,
    });
    if !batch.is_empty() {
        news.push(SourceEvent::Updates(batch));
    }
    news.extend(problems.map(SourceEvent::Problems));
    if !weir_was && watches.are_complete(OF_WEIR) {
        news.push(SourceEvent::Complete { unread: false });
    }
    if !endpoints_were && watches.are_complete(OF_ENDPOINTS) {
        news.push(SourceEvent::Endpoints { known: true });
    }
    news
}

/// What is to be told when Services and their endpoints are watched no more: that nothing is known of them, first, so that
/// nobody takes what is let go of for gone.
fn forget_endpoints(watches: &mut AgentWatches) -> Vec<SourceEvent> {
    let Told { batch, problems } = watches.forget(OF_ENDPOINTS, |number, name| {
        KINDS[number].map(|kind| Update::Delete(name.of(kind)))
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
        for number in OF_ENDPOINTS {
            take(&mut watches, number, Event::Said(watcher::Event::Init));
            take(&mut watches, number, Event::Said(watcher::Event::InitDone));
        }
        let there = (name.clone(), Read::Object(None, Vec::new()));
        take(
            &mut watches,
            OF_ENDPOINTS.start,
            Event::Said(watcher::Event::Apply(there)),
        );
        let expected = [
            SourceEvent::Endpoints { known: false },
            SourceEvent::Updates(vec![Update::Delete(name.of(Kind::Service))]),
        ];
        assert_eq!(forget_endpoints(&mut watches), expected);
        assert!(!watches.are_complete(OF_ENDPOINTS));
    }
}
