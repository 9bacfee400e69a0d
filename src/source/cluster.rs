//! The Kubernetes API as a source: VirtualServices, RealServers, DirectorGroups and the node's own labels; on directors
//! also Services, their endpoints and ReferenceGrants. Each object is validated as it arrives.

use std::collections::BTreeMap;

use futures::stream::{StreamExt, select_all};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{DirectorGroup, RealServer, ReferenceGrant, VirtualService};
use crate::plan::validate::{self, Remark, Validation};
use crate::plan::{Form, Kind, Update};

use super::SourceEvent;
use super::served::Served;
use super::watch::{Event, Name, Seen, Stream, Watch, everything, objects};

/// Updates handed on together while a list is read.
const BATCH: usize = 500;

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

/// Where the kinds begin that are watched on request.
const ENDPOINTS: usize = 4;

/// Watches until the token is cancelled or nobody listens any more. Services and their endpoints are watched while
/// `endpoints` says so: there are many, and most nodes have no use for them.
pub async fn watch(
    client: Client,
    node_name: &str,
    mut endpoints: tokio::sync::watch::Receiver<bool>,
    sender: mpsc::Sender<SourceEvent>,
    shutdown: CancellationToken,
) {
    let mut watches = Watches::new();
    let mut events = select_all(of_weir(&client, node_name));
    let mut watching = CancellationToken::new();
    loop {
        let news = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                Some((number, event)) => watches.take(number, event),
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
                    watches.forget_endpoints()
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
        objects(ENDPOINTS, services, everything(), |object| {
            put(validate::service(&object), Form::Service)
        }),
        objects(ENDPOINTS + 1, slices, everything(), |object| {
            put(validate::endpoint_slice(&object), Form::EndpointSlice)
        }),
        objects(ENDPOINTS + 2, grants, everything(), |object| {
            put(validate::reference_grant(&object), Form::ReferenceGrant)
        }),
    ]
}

fn put<T>(validation: Validation<T>, form: impl Fn(T) -> Form) -> Read {
    Read::Object(validation.value.map(form), validation.remarks)
}

/// All watches, and what is to be handed on.
#[derive(Debug)]
struct Watches {
    watches: [Watch; KINDS.len()],
    /// Updates of a list that is being read.
    batch: Vec<Update>,
}

impl Watches {
    fn new() -> Self {
        Self {
            watches: [
                Watch::new("virtualservices.weir.dev"),
                Watch::new("realservers.weir.dev"),
                Watch::new("directorgroups.weir.dev"),
                Watch::new("nodes"),
                Watch::new("services"),
                Watch::new("endpointslices.discovery.k8s.io"),
                Watch::may_be_unknown("referencegrants.gateway.networking.k8s.io"),
            ],
            batch: Vec::new(),
        }
    }

    fn of_weir_are_complete(&self) -> bool {
        self.watches[..ENDPOINTS].iter().all(Watch::is_complete)
    }

    fn of_endpoints_are_complete(&self) -> bool {
        self.watches[ENDPOINTS..].iter().all(Watch::is_complete)
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.watches.iter().filter_map(Watch::problem);
        problems.map(str::to_owned).collect()
    }

    /// Takes in an event of one watch and says what the agent is to be told.
    fn take(&mut self, number: usize, event: Event<(Name, Read)>) -> Vec<SourceEvent> {
        let (weir_was, endpoints_were) = (self.of_weir_are_complete(), self.of_endpoints_are_complete());
        let problems_before = self.problems();
        let in_list = matches!(event, Event::Said(watcher::Event::InitApply(_)));
        let mut news = Vec::new();
        for seen in self.watches[number].take(event) {
            match (KINDS[number], seen) {
                (Some(kind), Seen::There(name, Read::Object(form, remarks))) => {
                    self.batch.push(Update::Put {
                        object: name.of(kind),
                        form,
                        remarks,
                    });
                }
                (Some(kind), Seen::Gone(name)) => self.batch.push(Update::Delete(name.of(kind))),
                (None, Seen::There(_, Read::Labels(labels))) => news.push(SourceEvent::NodeLabels(labels)),
                // A node without an object keeps the labels it had: its agent is still running on it.
                (_, Seen::Gone(_) | Seen::There(..)) => {}
            }
        }
        if !self.batch.is_empty() && (!in_list || self.batch.len() >= BATCH) {
            news.push(SourceEvent::Updates(std::mem::take(&mut self.batch)));
        }
        let problems = self.problems();
        if problems != problems_before {
            news.push(SourceEvent::Problems(problems));
        }
        if !weir_was && self.of_weir_are_complete() {
            news.push(SourceEvent::Complete { unread: false });
        }
        if !endpoints_were && self.of_endpoints_are_complete() {
            news.push(SourceEvent::Endpoints { known: true });
        }
        news
    }

    /// What is to be told when Services and their endpoints are watched no more: that nothing is known of them, first,
    /// so that nobody takes what is let go of for gone.
    fn forget_endpoints(&mut self) -> Vec<SourceEvent> {
        let problems_before = self.problems();
        let mut updates = std::mem::take(&mut self.batch);
        for (watch, kind) in self.watches.iter_mut().zip(KINDS).skip(ENDPOINTS) {
            let gone = kind.map(|kind| watch.forget().map(move |name| Update::Delete(name.of(kind))));
            updates.extend(gone.into_iter().flatten());
        }
        let mut news = vec![
            SourceEvent::Endpoints { known: false },
            SourceEvent::Updates(updates),
        ];
        let problems = self.problems();
        if problems != problems_before {
            news.push(SourceEvent::Problems(problems));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_go_of_is_not_known_before_it_is_gone() {
        let mut watches = Watches::new();
        let name = Name {
            namespace: Some("shop".into()),
            name: "web".into(),
        };
        for number in ENDPOINTS..KINDS.len() {
            watches.take(number, Event::Said(watcher::Event::Init));
            watches.take(number, Event::Said(watcher::Event::InitDone));
        }
        let there = (name.clone(), Read::Object(None, Vec::new()));
        watches.take(ENDPOINTS, Event::Said(watcher::Event::Apply(there)));
        let expected = [
            SourceEvent::Endpoints { known: false },
            SourceEvent::Updates(vec![Update::Delete(name.of(Kind::Service))]),
        ];
        assert_eq!(watches.forget_endpoints(), expected);
        assert!(!watches.of_endpoints_are_complete());
    }
}
