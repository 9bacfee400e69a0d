//! The Kubernetes API as a source: VirtualServices, RealServers, DirectorGroups and the node's own labels.
//!
//! Each object is validated and shrunk as it arrives; nothing keeps the whole of it. When the connection is lost,
//! what was last read stays in force. When a watch begins anew, the list that it begins with is the truth:
//! what is no longer in it has been deleted meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{DirectorGroup, RealServer, VirtualService};
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
}

/// What a watch says of one object.
enum Seen {
    Object(Update),
    Labels(BTreeMap<String, String>),
}

type Event = Result<watcher::Event<Seen>, watcher::Error>;

/// Watches until the token is cancelled or nobody listens any more.
pub async fn watch(
    client: Client,
    node_name: &str,
    sender: mpsc::Sender<SourceEvent>,
    shutdown: CancellationToken,
) {
    let mut watches = [
        Watch::new("virtualservices.weir.dev"),
        Watch::new("realservers.weir.dev"),
        Watch::new("directorgroups.weir.dev"),
        Watch::new("nodes"),
    ];
    let everything = watcher::Config::default().timeout(WATCH_TIMEOUT).any_semantic();
    let own_node = everything.clone().fields(&format!("metadata.name={node_name}"));
    let mut events = select_all([
        objects(
            0,
            Api::<VirtualService>::all(client.clone()),
            everything.clone(),
            |object| {
                put(Kind::VirtualService, object, &validate::virtual_service, |form| {
                    Form::VirtualService(Box::new(form))
                })
            },
        ),
        objects(
            1,
            Api::<RealServer>::all(client.clone()),
            everything.clone(),
            |object| put(Kind::RealServer, object, &validate::real_server, Form::RealServer),
        ),
        objects(
            2,
            Api::<DirectorGroup>::all(client.clone()),
            everything,
            |object| {
                put(Kind::DirectorGroup, object, &validate::director_group, |form| {
                    Form::DirectorGroup(Box::new(form))
                })
            },
        ),
        objects(3, Api::<Node>::all(client), own_node, |node| {
            Seen::Labels(node.labels().clone())
        }),
    ]);
    let mut batch = Vec::new();
    loop {
        let (index, event) = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                Some(event) => event,
                None => return,
            },
        };
        let was_complete = watches.iter().all(|watch| watch.complete);
        let problems_before = problems(&watches);
        let in_list = matches!(event, Ok(watcher::Event::InitApply(_)));
        for news in watches[index].take(event) {
            match news {
                Seen::Object(update) => batch.push(update),
                Seen::Labels(labels) => {
                    if sender.send(SourceEvent::NodeLabels(labels)).await.is_err() {
                        return;
                    }
                }
            }
        }
        let mut news = Vec::new();
        if !batch.is_empty() && (!in_list || batch.len() >= BATCH) {
            news.push(SourceEvent::Updates(std::mem::take(&mut batch)));
        }
        let problems_now = problems(&watches);
        if problems_now != problems_before {
            news.push(SourceEvent::Problems(problems_now));
        }
        if !was_complete && watches.iter().all(|watch| watch.complete) {
            news.push(SourceEvent::Complete { unread: false });
        }
        for event in news {
            if sender.send(event).await.is_err() {
                return;
            }
        }
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
        }
    }

    /// Takes in an event and says what it means for the agent.
    fn take(&mut self, event: Event) -> Vec<Seen> {
        let event = match event {
            Ok(event) => event,
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

fn problems(watches: &[Watch]) -> Vec<String> {
    watches.iter().filter_map(|watch| watch.problem.clone()).collect()
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
}
