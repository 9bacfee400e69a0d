//! The Kubernetes API as a source: VirtualServices, RealServers, DirectorGroups and the node's own labels; on directors
//! also Services, their endpoints and ReferenceGrants. Each object is validated as it arrives.
//!
//! What is valid is saved. When the API server does not say everything soon after the start, what was saved is told in
//! place of the rest, until it does.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures::stream::{StreamExt, select_all};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::{DirectorGroup, RealServer, ReferenceGrant, VirtualService};
use crate::catalog::validate::Validation;
use crate::catalog::{Form, Kind, ObjectRef, Update};

use super::SourceEvent;
use super::cache::{Cache, Recorder};
use super::kinds::{Collection, Planned, form_of, planned, put};
use super::served::Served;
use super::watch::{Event, Name, Observation, Stream, everything, objects};
use super::watches::{Notice, Watches};

/// What an object is to the agent.
#[derive(Debug)]
enum Content {
    /// With its JSON, if that is to be kept.
    Object(Kind, Validation<Form>, Option<String>),
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

/// How long the API server has before what was saved earlier is used in its place.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was saved when the agent started, and what saves what is to be known next time; by default neither.
#[derive(Debug, Default)]
pub struct Memory {
    /// What was saved.
    pub found: Option<Cache>,
    /// What saves.
    pub recorder: Recorder,
}

/// Watches until the token is cancelled or nobody listens any more. Services and their endpoints are watched while
/// `endpoints` says so: there are many, and most nodes have no use for them.
pub async fn watch(
    client: Client,
    node_name: &str,
    memory: Memory,
    mut endpoints: tokio::sync::watch::Receiver<bool>,
    sender: mpsc::Sender<SourceEvent>,
    shutdown: CancellationToken,
) {
    let keep = memory.recorder.is_on();
    let mut cache_problem = memory.recorder.problem();
    cache_problem.mark_changed();
    let mut source = Source::new(memory);
    let mut events = select_all(always(&client, node_name, keep));
    let mut watching = CancellationToken::new();
    let mut patience = pin!(sleep(PATIENCE));
    let mut is_patient = true;
    loop {
        let news = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                Some((collection, event)) => source.take(collection, event),
                None => return,
            },
            () = &mut patience, if is_patient => {
                is_patient = false;
                source.remember(now())
            }
            Ok(()) = cache_problem.changed() => {
                source.set_cache_problem(cache_problem.borrow_and_update().clone())
            }
            Ok(()) = endpoints.changed() => {
                watching.cancel();
                watching = CancellationToken::new();
                source.wants_endpoints = *endpoints.borrow_and_update();
                if source.wants_endpoints {
                    for stream in of_endpoints(&client, keep) {
                        events.push(stream.take_until(watching.clone().cancelled_owned()).boxed());
                    }
                    Vec::new()
                } else {
                    source.forget_endpoints()
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

#[allow(clippy::disallowed_methods, reason = "a driver: decisions are told the time")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Streams of what [`ALWAYS`] is watched.
fn always(client: &Client, node_name: &str, keep: bool) -> [Stream<Content>; 4] {
    let own_node = everything().fields(&format!("metadata.name={node_name}"));
    let nodes = Api::<Node>::all(client.clone());
    [
        objects_of::<Served<VirtualService>>(client, keep),
        objects_of::<Served<RealServer>>(client, keep),
        objects_of::<Served<DirectorGroup>>(client, keep),
        objects(Collection::Nodes, nodes, own_node, |node| {
            Content::Labels(node.labels().clone())
        }),
    ]
}

/// Streams of [`ENDPOINTS`].
fn of_endpoints(client: &Client, keep: bool) -> [Stream<Content>; 3] {
    [
        objects_of::<Service>(client, keep),
        objects_of::<EndpointSlice>(client, keep),
        objects_of::<ReferenceGrant>(client, keep),
    ]
}

fn objects_of<K: Planned>(client: &Client, keep: bool) -> Stream<Content> {
    planned::<K, _>(client, move |object, form| {
        let is_kept = keep && form.value.is_some();
        let json = is_kept.then(|| object.json()).flatten();
        Content::Object(K::KIND, form, json)
    })
}

/// What the source knows, and what it has told the agent.
#[derive(Debug)]
struct Source {
    watches: Watches<Update>,
    recorder: Recorder,
    /// What was saved, until everything has been read.
    found: Option<Cache>,
    /// Whether objects that were saved have been told, and not everything has been read since.
    remembers: bool,
    wants_endpoints: bool,
    has_labels: bool,
    problems: Problems,
}

/// What is wrong, by what it is wrong with.
#[derive(Debug, Default)]
struct Problems {
    watches: Vec<String>,
    memory: Option<String>,
    cache: Option<String>,
}

impl Source {
    fn new(memory: Memory) -> Self {
        let Memory { found, recorder } = memory;
        Self {
            watches: Watches::new(ALWAYS.into_iter().chain(ENDPOINTS)),
            recorder,
            found,
            remembers: false,
            wants_endpoints: false,
            has_labels: false,
            problems: Problems::default(),
        }
    }

    /// Takes in an event of one watch and says what the agent is to be told.
    fn take(&mut self, collection: Collection, event: Event<(Name, Content)>) -> Vec<SourceEvent> {
        let was_complete = self.is_complete();
        let endpoints_were = self.watches.are_complete(&ENDPOINTS);
        let mut labels = None;
        let (recorder, found) = (&self.recorder, self.found.as_ref());
        let notice = self
            .watches
            .take(collection, event, |observation| match observation {
                Observation::Present(name, Content::Object(kind, form, json)) => {
                    let object = name.of(kind);
                    record(recorder, &object, &form, json.as_deref());
                    let form = with_last_good(found, &object, form);
                    Some(put(object, form))
                }
                Observation::Present(_, Content::Labels(read)) => {
                    recorder.labels(&read);
                    labels = Some(read);
                    None
                }
                // A node without an object keeps the labels it had: its agent is still running on it.
                Observation::Gone(name) => {
                    let object = name.of(collection.kind()?);
                    recorder.delete(&object);
                    Some(Update::Delete(object))
                }
            });
        self.has_labels |= labels.is_some();
        let mut news = Vec::from_iter(labels.map(SourceEvent::NodeLabels));
        news.extend(self.tell(notice));
        if !endpoints_were && self.watches.are_complete(&ENDPOINTS) {
            news.push(SourceEvent::Endpoints { known: true });
        }
        if !was_complete {
            news.extend(self.complete());
        }
        news
    }

    /// What is to be told when Services and their endpoints are watched no more: that nothing is known of them, first, so
    /// that nobody takes what is let go of for gone.
    fn forget_endpoints(&mut self) -> Vec<SourceEvent> {
        let was_complete = self.is_complete();
        let recorder = &self.recorder;
        let notice = self.watches.forget(&ENDPOINTS, |collection, name| {
            let object = name.of(collection.kind()?);
            recorder.delete(&object);
            Some(Update::Delete(object))
        });
        let mut news = vec![SourceEvent::Endpoints { known: false }];
        news.extend(self.tell(notice));
        if !was_complete {
            news.extend(self.complete());
        }
        news
    }

    /// What is to be told when the API server has not said everything for a while: what was saved of the rest.
    fn remember(&mut self, now: SystemTime) -> Vec<SourceEvent> {
        let Some(found) = self.found.as_ref().filter(|_| !self.is_complete()) else {
            return Vec::new();
        };
        let mut updates = Vec::new();
        for (object, json) in &found.objects {
            let name = Name {
                namespace: object.namespace.clone(),
                name: object.name.clone(),
            };
            if let Ok(form) = form_of(object.kind, json)
                && self.watches.assume(Collection::of(object.kind), name)
            {
                updates.push(put(object.clone(), form));
            }
        }
        let labels = (!self.has_labels).then(|| SourceEvent::NodeLabels(found.labels.clone()));
        let saved = found.saved;
        self.problems.memory = Some(age(saved, now));
        self.remembers = true;
        labels
            .into_iter()
            .chain([
                SourceEvent::Updates(updates),
                SourceEvent::Endpoints { known: true },
                self.problems(),
                SourceEvent::Remembered { saved },
            ])
            .collect()
    }

    fn set_cache_problem(&mut self, problem: Option<String>) -> Vec<SourceEvent> {
        if self.problems.cache == problem {
            return Vec::new();
        }
        self.problems.cache = problem;
        vec![self.problems()]
    }

    /// Whether everything that was told has been read. Of endpoints that were saved, none may be in use when there is no
    /// longer a reason to delete nothing.
    fn is_complete(&self) -> bool {
        let uses_saved_endpoints =
            self.remembers && self.wants_endpoints && self.watches.assume_any(&ENDPOINTS);
        self.watches.are_complete(&ALWAYS) && !uses_saved_endpoints
    }

    /// What is to be told when the last thing that was missing may have been read.
    fn complete(&mut self) -> Vec<SourceEvent> {
        if !self.is_complete() {
            return Vec::new();
        }
        let mut news = Vec::new();
        self.found = None;
        self.problems.memory = None;
        if std::mem::take(&mut self.remembers) {
            if !self.wants_endpoints {
                news.extend(self.forget_endpoints());
            }
            news.push(self.problems());
        }
        self.recorder.set_current(self.problems.watches.is_empty());
        news.push(SourceEvent::Complete { unread: false });
        news
    }

    fn tell(&mut self, notice: Notice<Update>) -> Vec<SourceEvent> {
        let Notice { batch, problems } = notice;
        let updates = (!batch.is_empty()).then_some(SourceEvent::Updates(batch));
        let problems = problems.map(|problems| {
            self.problems.watches = problems;
            let is_current = self.problems.watches.is_empty() && self.is_complete();
            self.recorder.set_current(is_current);
            self.problems()
        });
        updates.into_iter().chain(problems).collect()
    }

    fn problems(&self) -> SourceEvent {
        let Problems {
            watches,
            memory,
            cache,
        } = &self.problems;
        SourceEvent::Problems(memory.iter().chain(watches).chain(cache).cloned().collect())
    }
}

/// Keeps a valid object, and lets go of one that is nothing to Weir. Of an invalid one the last good form stays.
fn record(recorder: &Recorder, object: &ObjectRef, form: &Validation<Form>, json: Option<&str>) {
    match json {
        Some(json) => recorder.put(object, json),
        None if form.value.is_none() && form.remarks.is_empty() => recorder.delete(object),
        None => {}
    }
}

/// An invalid object has the form that it had when it was last valid, even if that was before the start.
fn with_last_good(found: Option<&Cache>, object: &ObjectRef, form: Validation<Form>) -> Validation<Form> {
    if form.value.is_some() || form.remarks.is_empty() {
        return form;
    }
    let saved = found.and_then(|found| found.objects.get(object));
    let last_good = saved.and_then(|json| form_of(object.kind, json).ok()?.value);
    Validation {
        value: last_good,
        ..form
    }
}

/// Says of when what was saved is.
fn age(saved: SystemTime, now: SystemTime) -> String {
    let minutes = now.duration_since(saved).unwrap_or_default().as_secs() / 60;
    let ago = match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours @ ..48, minutes) => format!("{hours} h {minutes} min"),
        (hours, _) => format!("{} days", hours / 24),
    };
    let at =
        Timestamp::try_from(saved).map_or_else(|_| "an unknown time".to_owned(), |at| format!("{at:.0}"));
    format!(
        "the API server has not said everything since the start: in force is what was saved at {at}, {ago} before; \
         nothing is deleted until it answers"
    )
}

#[cfg(test)]
mod tests;
