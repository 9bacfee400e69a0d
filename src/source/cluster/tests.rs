use std::sync::Arc;
use std::time::UNIX_EPOCH;

use kube::runtime::watcher;
use serde_json::json;

use super::*;
use crate::catalog::Reason;
use crate::catalog::validate::Remark;

const SAVED: Duration = Duration::from_secs(1_764_150_000);

fn name(namespace: Option<&str>, name: &str) -> Name {
    Name {
        namespace: namespace.map(Arc::from),
        name: name.into(),
    }
}

/// A RealServer's or Service's name and its JSON.
fn json_of(kind: Kind, object: &str) -> (ObjectRef, String) {
    let spec = match kind {
        Kind::Service => json!({ "ports": [{ "port": 80 }] }),
        _ => json!({ "address": "10.0.0.11" }),
    };
    let json = json!({
        "apiVersion": if kind == Kind::Service { "v1" } else { "weir.dev/v1alpha1" },
        "kind": kind.name(),
        "metadata": { "name": object, "namespace": "shop" },
        "spec": spec,
    });
    (name(Some("shop"), object).of(kind), json.to_string())
}

fn memory(objects: &[(ObjectRef, String)]) -> Memory {
    let objects = objects
        .iter()
        .map(|(object, json)| (object.clone(), json.as_str().into()));
    Memory {
        found: Some(Cache {
            node: "d1".to_owned(),
            saved: UNIX_EPOCH + SAVED,
            labels: BTreeMap::from([("role".to_owned(), "director".to_owned())]),
            objects: objects.collect(),
        }),
        recorder: Recorder::default(),
    }
}

fn there(object: &ObjectRef, json: &str) -> (Name, Content) {
    let form = form_of(object.kind, json).unwrap();
    assert!(form.value.is_some(), "{:?}", form.remarks);
    let name = name(object.namespace.as_deref(), &object.name);
    (name, Content::Object(object.kind, form, None))
}

fn invalid(object: &ObjectRef) -> (Name, Content) {
    let remark = Remark {
        field: "spec".to_owned(),
        reason: Reason::Invalid,
        message: "wrong".to_owned(),
    };
    let form = Validation {
        value: None,
        remarks: vec![remark],
    };
    let name = name(object.namespace.as_deref(), &object.name);
    (name, Content::Object(object.kind, form, None))
}

impl Source {
    /// Reads a list, and says in words what the agent is told.
    fn list(&mut self, collection: Collection, objects: Vec<(Name, Content)>) -> Vec<String> {
        let objects = objects.into_iter().map(watcher::Event::InitApply);
        let events = [watcher::Event::Init]
            .into_iter()
            .chain(objects)
            .chain([watcher::Event::InitDone]);
        let news = events.flat_map(|event| self.take(collection, Event::Received(event)));
        words(news)
    }
}

fn words(news: impl IntoIterator<Item = SourceEvent>) -> Vec<String> {
    let word = |update: Update| match update {
        Update::Put {
            object,
            form: Some(_),
            remarks,
        } if remarks.is_empty() => format!("put {object}"),
        Update::Put {
            object,
            form: Some(_),
            ..
        } => format!("last good {object}"),
        Update::Put { object, .. } => format!("invalid {object}"),
        Update::Delete(object) => format!("delete {object}"),
    };
    let words = news.into_iter().flat_map(|event| match event {
        SourceEvent::Updates(updates) => updates.into_iter().map(word).collect(),
        SourceEvent::Complete { unread } => vec![format!("complete, unread {unread}")],
        SourceEvent::Remembered { saved } => {
            assert_eq!(saved, UNIX_EPOCH + SAVED);
            vec!["remembered".to_owned()]
        }
        SourceEvent::Endpoints { known } => vec![format!("endpoints {known}")],
        SourceEvent::NodeLabels(labels) => vec![format!("labels {labels:?}")],
        SourceEvent::Problems(problems) => vec![format!("problems {problems:?}")],
    });
    words.collect()
}

fn later() -> SystemTime {
    UNIX_EPOCH + SAVED + Duration::from_secs(3 * 3600 + 125)
}

const IN_FORCE: &str = "problems [\"the API server has not said everything since the start: in force is what was saved at \
    2025-11-26T09:40:00Z, 3 h 2 min before; nothing is deleted until it answers\"]";

#[test]
fn what_is_let_go_of_is_not_known_before_it_is_gone() {
    let mut source = Source::new(Memory::default());
    source.wants_endpoints = true;
    let (service, json) = json_of(Kind::Service, "web");
    for collection in ENDPOINTS {
        source.list(collection, Vec::new());
    }
    let applied = watcher::Event::Apply(there(&service, &json));
    source.take(Collection::Services, Event::Received(applied));
    assert_eq!(
        words(source.forget_endpoints()),
        ["endpoints false", "delete Service shop/web"]
    );
    assert!(!source.watches.are_complete(&ENDPOINTS));
}

#[test]
fn what_was_saved_is_told_when_the_api_server_says_nothing_and_replaced_when_it_does() {
    let [(a, a_json), (b, b_json)] = ["a", "b"].map(|name| json_of(Kind::RealServer, name));
    let mut source = Source::new(memory(&[(a.clone(), a_json.clone()), (b, b_json)]));
    assert_eq!(
        words(source.remember(later())),
        [
            "labels {\"role\": \"director\"}",
            "put RealServer shop/a",
            "put RealServer shop/b",
            "endpoints true",
            IN_FORCE,
            "remembered",
        ]
    );
    // What is not listed any more has been deleted meanwhile.
    let list = source.list(Collection::RealServers, vec![there(&a, &a_json)]);
    assert_eq!(list, ["put RealServer shop/a", "delete RealServer shop/b"]);
    assert_eq!(source.list(Collection::VirtualServices, vec![]), [] as [&str; 0]);
    assert_eq!(source.list(Collection::DirectorGroups, vec![]), [] as [&str; 0]);
    assert_eq!(
        source.list(Collection::Nodes, vec![]),
        ["endpoints false", "problems []", "complete, unread false"]
    );
    assert_eq!(words(source.remember(later())), [] as [&str; 0]);
}

/// Of some kinds the API server has said everything, of others it refuses to.
#[test]
fn what_has_been_read_is_not_replaced_by_what_was_saved() {
    let [(a, a_json), (b, b_json), (c, c_json)] = ["a", "b", "c"].map(|name| json_of(Kind::RealServer, name));
    let saved = [(a.clone(), a_json.clone()), (b, b_json), (c, c_json)];
    let mut source = Source::new(memory(&saved));
    source.list(Collection::VirtualServices, vec![]);
    source.take(Collection::RealServers, Event::Received(watcher::Event::Init));
    let read = watcher::Event::InitApply(there(&a, &a_json));
    source.take(Collection::RealServers, Event::Received(read));
    let news = words(source.remember(later()));
    assert_eq!(news[1..3], ["put RealServer shop/b", "put RealServer shop/c"]);

    // Nothing is remembered of what has been read whole.
    let mut source = Source::new(memory(&saved));
    source.list(Collection::RealServers, vec![]);
    let news = words(source.remember(later()));
    assert_eq!(news[1..], ["endpoints true", IN_FORCE, "remembered"]);
}

#[test]
fn endpoints_that_were_saved_are_in_force_until_all_have_been_read() {
    let saved = ["web", "gone"].map(|name| json_of(Kind::Service, name));
    let mut source = Source::new(memory(&saved));
    let news = words(source.remember(later()));
    assert_eq!(news[1..3], ["put Service shop/gone", "put Service shop/web"]);
    source.wants_endpoints = true;
    for collection in ALWAYS {
        assert_eq!(source.list(collection, vec![]), [] as [&str; 0]);
    }
    source.list(Collection::EndpointSlices, vec![]);
    source.list(Collection::ReferenceGrants, vec![]);
    let (web, json) = &saved[0];
    assert_eq!(
        source.list(Collection::Services, vec![there(web, json)]),
        [
            "put Service shop/web",
            "delete Service shop/gone",
            "endpoints true",
            "problems []",
            "complete, unread false"
        ]
    );
}

#[test]
fn endpoints_that_were_saved_and_nobody_wants_are_forgotten_when_everything_else_has_been_read() {
    let mut source = Source::new(memory(&[json_of(Kind::Service, "web")]));
    source.remember(later());
    for collection in &ALWAYS[1..] {
        source.list(*collection, vec![]);
    }
    assert_eq!(
        source.list(ALWAYS[0], vec![]),
        [
            "endpoints false",
            "delete Service shop/web",
            "problems []",
            "complete, unread false"
        ]
    );
}

#[test]
fn an_object_that_is_invalid_at_the_start_has_its_last_good_form() {
    let [(a, a_json), (b, b_json)] = ["a", "b"].map(|name| json_of(Kind::RealServer, name));
    let mut source = Source::new(memory(&[(a.clone(), a_json)]));
    assert_eq!(
        source.list(Collection::RealServers, vec![invalid(&a), invalid(&b)]),
        ["last good RealServer shop/a", "invalid RealServer shop/b"]
    );
    // Later the agent has it.
    for collection in ALWAYS {
        source.list(collection, vec![]);
    }
    let (b_name, b_content) = there(&b, &b_json);
    source.take(
        Collection::RealServers,
        Event::Received(watcher::Event::Apply((b_name, b_content))),
    );
    let applied = Event::Received(watcher::Event::Apply(invalid(&b)));
    let news = words(source.take(Collection::RealServers, applied));
    assert_eq!(news, ["invalid RealServer shop/b"]);
}

#[test]
fn what_is_wrong_with_the_cache_is_said_beside_what_is_wrong_with_the_api_server() {
    let mut source = Source::new(Memory::default());
    let problem = || Some("the disk is full".to_owned());
    assert_eq!(
        words(source.set_cache_problem(problem())),
        ["problems [\"the disk is full\"]"]
    );
    assert_eq!(words(source.set_cache_problem(problem())), [] as [&str; 0]);
    let failed = Event::Failed(watcher::Error::NoResourceVersion);
    let news = words(source.take(Collection::Nodes, failed));
    assert!(
        news[0].contains("cannot watch nodes") && news[0].contains("full"),
        "{news:?}"
    );
    assert_eq!(words(source.set_cache_problem(None)).len(), 1);
}

/// Valid objects are kept, an invalid one as it last was, and one that is nothing to Weir not at all.
#[tokio::test(start_paused = true)]
async fn what_is_valid_is_saved() {
    let directory = tempfile::tempdir().unwrap();
    let (found, recorder, writer) = crate::source::cache::open(directory.path(), "d1");
    assert_eq!(found, None);
    let mut source = Source::new(Memory { found, recorder });
    let (a, json) = json_of(Kind::RealServer, "a");
    let present = |object: &ObjectRef, form, json: Option<&str>| {
        let name = name(object.namespace.as_deref(), &object.name);
        let content = Content::Object(object.kind, form, json.map(str::to_owned));
        Event::Received(watcher::Event::Apply((name, content)))
    };
    let valid = form_of(Kind::RealServer, &json).unwrap();
    source.take(Collection::RealServers, present(&a, valid, Some(&json)));
    let (_, Content::Object(_, wrong, None)) = invalid(&a) else {
        unreachable!()
    };
    source.take(Collection::RealServers, present(&a, wrong, None));
    let nothing = Validation {
        value: None,
        remarks: Vec::new(),
    };
    let slice = name(Some("shop"), "foreign").of(Kind::EndpointSlice);
    source.take(Collection::EndpointSlices, present(&slice, nothing, None));
    let labels = BTreeMap::from([("role".to_owned(), "director".to_owned())]);
    let node = (name(None, "d1"), Content::Labels(labels.clone()));
    source.take(Collection::Nodes, Event::Received(watcher::Event::Apply(node)));
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    writer.run(shutdown).await;

    let (found, ..) = crate::source::cache::open(directory.path(), "d1");
    let found = found.unwrap();
    assert_eq!(found.labels, labels);
    assert_eq!(found.objects, BTreeMap::from([(a, json.as_str().into())]));
}
