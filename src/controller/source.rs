//! The Kubernetes API as the controller reads it: all of Weir's objects with their status, nodes and what their agents
//! say, Services and their endpoints.

use futures::stream::{StreamExt, select_all};
use k8s_openapi::api::core::v1::{self as core, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{
    DRAIN_FINALIZER, DirectorGroup, FailureReport, NodeState, NodeStateStatus, RealServer, ReferenceGrant,
    VirtualService,
};
use crate::catalog::validate::{self, Remark, Validation};
use crate::catalog::{Form, Kind, Update};
use crate::plan::{Directing, Node};
use crate::source::served::Served;
use crate::source::watch::{Event, Name, Seen, Stream, Watch, everything, objects};
use crate::source::watches::{Told, Watches};

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
enum Read {
    Object(Option<Form>, Vec<Remark>, Option<Box<Object>>),
    NodeState(Box<NodeStateStatus>),
    Node(NodeFacts),
}

/// What each watch watches.
#[derive(Debug, Clone, Copy)]
enum Watched {
    Objects(Kind),
    NodeStates,
    Nodes,
}

const WATCHED: [(Watched, &str); 8] = [
    (Watched::Objects(Kind::VirtualService), "virtualservices.weir.dev"),
    (Watched::Objects(Kind::RealServer), "realservers.weir.dev"),
    (Watched::Objects(Kind::DirectorGroup), "directorgroups.weir.dev"),
    (Watched::NodeStates, "nodestates.weir.dev"),
    (Watched::Nodes, "nodes"),
    (Watched::Objects(Kind::Service), "services"),
    (
        Watched::Objects(Kind::EndpointSlice),
        "endpointslices.discovery.k8s.io",
    ),
    (
        Watched::Objects(Kind::ReferenceGrant),
        "referencegrants.gateway.networking.k8s.io",
    ),
];

/// Watches until the token is cancelled or nobody listens any more.
pub async fn watch(client: Client, sender: mpsc::Sender<SourceNews>, shutdown: CancellationToken) {
    let mut watches = unread();
    let mut events = select_all(streams(&client));
    loop {
        let news = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                Some((number, event)) => take(&mut watches, number, event),
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

/// One stream for each of [`WATCHED`].
fn streams(client: &Client) -> [Stream<Read>; 8] {
    let c = || client.clone();
    [
        objects(
            0,
            Api::<Served<VirtualService>>::all(c()),
            everything(),
            |object| {
                let status = Status::VirtualService(object.status().unwrap_or_default());
                let form = |form| Form::VirtualService(Box::new(form));
                own(
                    object.validate(validate::virtual_service),
                    form,
                    object.into_metadata(),
                    status,
                )
            },
        ),
        objects(1, Api::<Served<RealServer>>::all(c()), everything(), |object| {
            let status = Status::RealServer(object.status().unwrap_or_default());
            own(
                object.validate(validate::real_server),
                Form::RealServer,
                object.into_metadata(),
                status,
            )
        }),
        objects(
            2,
            Api::<Served<DirectorGroup>>::all(c()),
            everything(),
            |object| {
                let status = Status::DirectorGroup(object.status().unwrap_or_default());
                let form = |form| Form::DirectorGroup(Box::new(form));
                own(
                    object.validate(validate::director_group),
                    form,
                    object.into_metadata(),
                    status,
                )
            },
        ),
        objects(3, Api::<Served<NodeState>>::all(c()), everything(), |object| {
            Read::NodeState(Box::new(object.status().unwrap_or_else(unreadable)))
        }),
        objects(4, Api::<core::Node>::all(c()), everything(), |node| {
            Read::Node(facts(&node))
        }),
        objects(5, Api::<Service>::all(c()), everything(), |object| {
            foreign(validate::service(&object), Form::Service)
        }),
        objects(6, Api::<EndpointSlice>::all(c()), everything(), |object| {
            foreign(validate::endpoint_slice(&object), Form::EndpointSlice)
        }),
        objects(7, Api::<ReferenceGrant>::all(c()), everything(), |object| {
            foreign(validate::reference_grant(&object), Form::ReferenceGrant)
        }),
    ]
}

fn foreign<T>(validation: Validation<T>, form: impl Fn(T) -> Form) -> Read {
    Read::Object(validation.value.map(form), validation.remarks, None)
}

fn own<T>(validation: Validation<T>, form: impl Fn(T) -> Form, metadata: ObjectMeta, status: Status) -> Read {
    let finalizers = metadata.finalizers.unwrap_or_default();
    let object = Object {
        uid: metadata.uid.unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        deleted: metadata.deletion_timestamp.is_some(),
        held: finalizers.iter().any(|finalizer| finalizer == DRAIN_FINALIZER),
        status,
    };
    Read::Object(
        validation.value.map(form),
        validation.remarks,
        Some(Box::new(object)),
    )
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

fn unread() -> Watches<8, News> {
    Watches::new(WATCHED.map(|(watched, plural)| match watched {
        Watched::Objects(Kind::ReferenceGrant) => Watch::may_be_unknown(plural),
        _ => Watch::new(plural),
    }))
}

/// Takes in an event of one watch and says what the controller is to be told.
fn take(watches: &mut Watches<8, News>, number: usize, event: Event<(Name, Read)>) -> Vec<SourceNews> {
    let all = 0..WATCHED.len();
    let were_complete = watches.are_complete(all.clone());
    let (watched, _) = WATCHED[number];
    let Told { batch, problems } = watches.take(number, event, |seen| news(watched, seen));
    let mut told = Vec::new();
    if !batch.is_empty() {
        told.push(SourceNews::News(batch));
    }
    told.extend(problems.map(SourceNews::Problems));
    if !were_complete && watches.are_complete(all) {
        told.push(SourceNews::Complete);
    }
    told
}

fn news(watched: Watched, seen: Seen<Read>) -> Option<News> {
    Some(match (watched, seen) {
        (Watched::Objects(kind), Seen::There(name, Read::Object(form, remarks, object))) => {
            let update = Update::Put {
                object: name.of(kind),
                form,
                remarks,
            };
            News::Object(update, object)
        }
        (Watched::Objects(kind), Seen::Gone(name)) => News::Object(Update::Delete(name.of(kind)), None),
        (Watched::NodeStates, Seen::There(name, Read::NodeState(status))) => {
            News::NodeState(name.name, Some(status))
        }
        (Watched::NodeStates, Seen::Gone(name)) => News::NodeState(name.name, None),
        (Watched::Nodes, Seen::There(name, Read::Node(facts))) => News::Node(name.name, Some(facts)),
        (Watched::Nodes, Seen::Gone(name)) => News::Node(name.name, None),
        // What a watch reads is what it was made for.
        (_, Seen::There(..)) => return None,
    })
}
