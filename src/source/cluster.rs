//! The Kubernetes API as a source: VirtualServices, RealServers, DirectorGroups and the node's own labels; on directors
//! also Services, their endpoints and ReferenceGrants.
//!
//! Each object is validated and shrunk as it arrives; nothing keeps the whole of it. When the connection is lost,
//! what was last read stays in force. When a watch begins anew, the list that it begins with is the truth:
//! what is no longer in it has been deleted meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{DirectorGroup, RealServer, ReferenceGrant, VirtualService};
use crate::plan::validate::{self, Validation};
use crate::plan::{Form, Kind, ObjectRef, Update};

use super::SourceEvent;

/// How long the server may keep one watch open, in seconds. A connection that died silently is noticed by the
/// silence after this time, so it is short.
pub const WATCH_TIMEOUT: u32 = 40;
/// Updates handed on together while a list is read.
const BATCH: usize = 500;

/// One kind that is watched.
#[derive(Debug)]
struct Watch {
    /// What it is called in messages.
    plural: &'static str,
    /// Objects in force.
    known: BTreeSet<ObjectRef>,
    /// Objects seen in the list that is being read.
    listed: BTreeSet<ObjectRef>,
    complete: bool,
    problem: Option<String>,
    /// Whether the API server may not have the kind, which is as good as if there were no object of it.
    may_be_unknown: bool,
}

/// What a watch says of one object.
enum Seen {
    Object(Update),
    Labels(BTreeMap<String, String>),
}

type Event = Result<watcher::Event<Seen>, watcher::Error>;

/// Where each kind's watch is in the list of them.
mod place {
    pub(super) const VIRTUAL_SERVICES: usize = 0;
    pub(super) const REAL_SERVERS: usize = 1;
    pub(super) const DIRECTOR_GROUPS: usize = 2;
    pub(super) const NODES: usize = 3;
    pub(super) const SERVICES: usize = 4;
    pub(super) const ENDPOINT_SLICES: usize = 5;
    pub(super) const REFERENCE_GRANTS: usize = 6;
}

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
                Some((place, event)) => watches.take(place, event),
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

type Stream = BoxStream<'static, (usize, Event)>;

fn of_weir(client: &Client, node_name: &str) -> [Stream; 4] {
    let own_node = everything().fields(&format!("metadata.name={node_name}"));
    let virtual_services = objects(
        place::VIRTUAL_SERVICES,
        Api::<VirtualService>::all(client.clone()),
        everything(),
        |object| {
            put(Kind::VirtualService, object, &validate::virtual_service, |form| {
                Form::VirtualService(Box::new(form))
            })
        },
    );
    let real_servers = objects(
        place::REAL_SERVERS,
        Api::<RealServer>::all(client.clone()),
        everything(),
        |object| put(Kind::RealServer, object, &validate::real_server, Form::RealServer),
    );
    let director_groups = objects(
        place::DIRECTOR_GROUPS,
        Api::<DirectorGroup>::all(client.clone()),
        everything(),
        |object| {
            put(Kind::DirectorGroup, object, &validate::director_group, |form| {
                Form::DirectorGroup(Box::new(form))
            })
        },
    );
    let nodes = objects(place::NODES, Api::<Node>::all(client.clone()), own_node, |node| {
        Seen::Labels(node.labels().clone())
    });
    [virtual_services, real_servers, director_groups, nodes]
}

fn of_endpoints(client: &Client) -> [Stream; 3] {
    let services = objects(
        place::SERVICES,
        Api::<Service>::all(client.clone()),
        everything(),
        |object| put(Kind::Service, object, &validate::service, Form::Service),
    );
    let slices = objects(
        place::ENDPOINT_SLICES,
        Api::<EndpointSlice>::all(client.clone()),
        everything(),
        |object| {
            put(
                Kind::EndpointSlice,
                object,
                &validate::endpoint_slice,
                Form::EndpointSlice,
            )
        },
    );
    let grants = objects(
        place::REFERENCE_GRANTS,
        Api::<ReferenceGrant>::all(client.clone()),
        everything(),
        |object| {
            put(
                Kind::ReferenceGrant,
                object,
                &validate::reference_grant,
                Form::ReferenceGrant,
            )
        },
    );
    [services, slices, grants]
}

fn everything() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_TIMEOUT).any_semantic()
}

/// All watches, and what is to be handed on.
#[derive(Debug)]
struct Watches {
    watches: [Watch; 7],
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
                Watch {
                    may_be_unknown: true,
                    ..Watch::new("referencegrants.gateway.networking.k8s.io")
                },
            ],
            batch: Vec::new(),
        }
    }

    fn of_weir_are_complete(&self) -> bool {
        self.watches[..place::SERVICES].iter().all(|watch| watch.complete)
    }

    fn of_endpoints_are_complete(&self) -> bool {
        self.watches[place::SERVICES..].iter().all(|watch| watch.complete)
    }

    fn problems(&self) -> Vec<String> {
        self.watches
            .iter()
            .filter_map(|watch| watch.problem.clone())
            .collect()
    }

    /// Takes in an event of one watch and says what the agent is to be told.
    fn take(&mut self, place: usize, event: Event) -> Vec<SourceEvent> {
        let (weir_was, endpoints_were) = (self.of_weir_are_complete(), self.of_endpoints_are_complete());
        let problems_before = self.problems();
        let in_list = matches!(event, Ok(watcher::Event::InitApply(_)));
        let mut news = Vec::new();
        for seen in self.watches[place].take(event) {
            match seen {
                Seen::Object(update) => self.batch.push(update),
                Seen::Labels(labels) => news.push(SourceEvent::NodeLabels(labels)),
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
        for watch in &mut self.watches[place::SERVICES..] {
            let Watch {
                plural,
                may_be_unknown,
                ..
            } = *watch;
            let known = std::mem::replace(
                watch,
                Watch {
                    may_be_unknown,
                    ..Watch::new(plural)
                },
            )
            .known;
            updates.extend(known.into_iter().map(Update::Delete));
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

/// The events of one kind, each object turned into what it means for the agent.
fn objects<K>(
    index: usize,
    api: Api<K>,
    config: watcher::Config,
    read: impl Fn(K) -> Seen + Send + 'static,
) -> BoxStream<'static, (usize, Event)>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    watcher(api, config)
        .default_backoff()
        .map(move |event| {
            let event = event.map(|event| match event {
                watcher::Event::Apply(object) => watcher::Event::Apply(read(object)),
                watcher::Event::Delete(object) => watcher::Event::Delete(read(object)),
                watcher::Event::Init => watcher::Event::Init,
                watcher::Event::InitApply(object) => watcher::Event::InitApply(read(object)),
                watcher::Event::InitDone => watcher::Event::InitDone,
            });
            (index, event)
        })
        .boxed()
}

/// An object as it was read: validated, and named.
fn put<K: ResourceExt, T>(
    kind: Kind,
    object: K,
    validate: &impl Fn(&K) -> Validation<T>,
    form: impl Fn(T) -> Form,
) -> Seen {
    let Validation { value, remarks } = validate(&object);
    let object = ObjectRef {
        kind,
        namespace: object.namespace().map(Arc::from),
        name: object.name_any().into(),
    };
    Seen::Object(Update::Put {
        object,
        form: value.map(form),
        remarks,
    })
}

impl Watch {
    fn new(plural: &'static str) -> Self {
        Self {
            plural,
            known: BTreeSet::new(),
            listed: BTreeSet::new(),
            complete: false,
            problem: None,
            may_be_unknown: false,
        }
    }

    /// Takes in an event and says what it means for the agent.
    fn take(&mut self, event: Event) -> Vec<Seen> {
        let event = match event {
            Ok(event) => event,
            Err(error) if self.may_be_unknown && is_unknown(&error) => {
                self.problem = None;
                self.complete = true;
                self.listed.clear();
                let gone = std::mem::take(&mut self.known).into_iter();
                return gone.map(|object| Seen::Object(Update::Delete(object))).collect();
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                self.problem = Some(format!(
                    "cannot watch {}: {error:#}; what was last read stays in force",
                    self.plural
                ));
                return Vec::new();
            }
        };
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(seen) => {
                if let Seen::Object(Update::Put { object, .. }) = &seen {
                    self.listed.insert(object.clone());
                }
                vec![seen]
            }
            watcher::Event::InitDone => {
                self.problem = None;
                self.complete = true;
                let listed = std::mem::take(&mut self.listed);
                let gone = self
                    .known
                    .difference(&listed)
                    .cloned()
                    .map(|object| Seen::Object(Update::Delete(object)));
                let gone = gone.collect();
                self.known = listed;
                gone
            }
            watcher::Event::Apply(seen) => {
                self.problem = None;
                if let Seen::Object(Update::Put { object, .. }) = &seen {
                    self.known.insert(object.clone());
                }
                vec![seen]
            }
            watcher::Event::Delete(seen) => match seen {
                Seen::Object(Update::Put { object, .. }) => {
                    self.known.remove(&object);
                    vec![Seen::Object(Update::Delete(object))]
                }
                // A node without an object keeps the labels it had: its agent is still running on it.
                seen => {
                    drop(seen);
                    Vec::new()
                }
            },
        }
    }
}

/// Whether an API server does not know a kind at all.
fn is_unknown(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str) -> Seen {
        Seen::Object(Update::Put {
            object: ObjectRef::director_group(name.into()),
            form: None,
            remarks: Vec::new(),
        })
    }

    fn words(news: Vec<Seen>) -> Vec<String> {
        let word = |seen| match seen {
            Seen::Object(Update::Put { object, .. }) => format!("+ {}", object.name),
            Seen::Object(Update::Delete(object)) => format!("- {}", object.name),
            Seen::Labels(_) => "labels".to_owned(),
        };
        news.into_iter().map(word).collect()
    }

    #[test]
    fn what_a_new_list_does_not_hold_was_deleted_while_nobody_watched() {
        let mut watch = Watch::new("directorgroups.weir.dev");
        watch.take(Ok(watcher::Event::Init));
        watch.take(Ok(watcher::Event::InitApply(seen("a"))));
        assert_eq!(words(watch.take(Ok(watcher::Event::InitDone))), [] as [&str; 0]);
        assert_eq!(words(watch.take(Ok(watcher::Event::Apply(seen("b"))))), ["+ b"]);
        watch.take(Ok(watcher::Event::Init));
        assert_eq!(
            words(watch.take(Ok(watcher::Event::InitApply(seen("b"))))),
            ["+ b"]
        );
        assert_eq!(words(watch.take(Ok(watcher::Event::InitDone))), ["- a"]);
    }

    #[test]
    fn a_lost_connection_is_a_problem_until_the_next_event_and_deletes_nothing() {
        let mut watch = Watch::new("directorgroups.weir.dev");
        watch.take(Ok(watcher::Event::Init));
        watch.take(Ok(watcher::Event::InitApply(seen("a"))));
        watch.take(Ok(watcher::Event::InitDone));
        assert!(watch.take(Err(watcher::Error::NoResourceVersion)).is_empty());
        assert!(
            watch
                .problem
                .as_ref()
                .is_some_and(|problem| problem.contains("stays in force"))
        );
        assert_eq!(words(watch.take(Ok(watcher::Event::Apply(seen("a"))))), ["+ a"]);
        assert_eq!(watch.problem, None);
    }

    fn unknown() -> watcher::Error {
        let status =
            kube::core::Status::failure("the server could not find the requested resource", "NotFound");
        watcher::Error::InitialListFailed(kube::Error::Api(status.with_code(404).boxed()))
    }

    #[test]
    fn a_kind_that_the_server_does_not_have_is_as_good_as_no_object_of_it() {
        let mut watches = Watches::new();
        for place in [place::SERVICES, place::ENDPOINT_SLICES] {
            assert_eq!(watches.take(place, Ok(watcher::Event::Init)), []);
            assert_eq!(watches.take(place, Ok(watcher::Event::InitDone)), []);
        }
        let known = watches.take(place::REFERENCE_GRANTS, Err(unknown()));
        assert_eq!(known, [SourceEvent::Endpoints { known: true }]);
        // Of other kinds it is a problem.
        let problems = watches.take(place::REAL_SERVERS, Err(unknown()));
        assert!(matches!(&problems[..], [SourceEvent::Problems(problems)] if problems.len() == 1));
    }

    #[test]
    fn what_is_let_go_of_is_not_known_before_it_is_gone() {
        let mut watches = Watches::new();
        let name = crate::plan::NamespacedName {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let service = ObjectRef::namespaced(Kind::Service, &name);
        let seen = Seen::Object(Update::Put {
            object: service.clone(),
            form: None,
            remarks: Vec::new(),
        });
        watches.take(place::SERVICES, Ok(watcher::Event::Init));
        watches.take(place::SERVICES, Ok(watcher::Event::InitDone));
        watches.take(place::SERVICES, Ok(watcher::Event::Apply(seen)));
        let expected = [
            SourceEvent::Endpoints { known: false },
            SourceEvent::Updates(vec![Update::Delete(service)]),
        ];
        assert_eq!(watches.forget_endpoints(), expected);
        assert!(!watches.watches[place::SERVICES].complete);
    }
}
