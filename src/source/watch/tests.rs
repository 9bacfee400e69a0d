use std::sync::atomic::{AtomicUsize, Ordering};

use super::Event::{Failed, Received};
use super::*;

fn object(name: &str) -> (Name, ()) {
    let name = Name {
        namespace: None,
        name: name.into(),
    };
    (name, ())
}

fn words(observations: Vec<Observation<()>>) -> Vec<String> {
    let word = |observation| match observation {
        Observation::Present(name, ()) => format!("+ {}", name.name),
        Observation::Gone(name) => format!("- {}", name.name),
    };
    observations.into_iter().map(word).collect()
}

#[test]
fn what_a_new_list_does_not_hold_was_deleted_while_nobody_watched() {
    let mut watch = Watch::new(Collection::DirectorGroups);
    watch.take::<()>(Received(watcher::Event::Init));
    watch.take(Received(watcher::Event::InitApply(object("a"))));
    assert_eq!(
        words(watch.take(Received(watcher::Event::InitDone))),
        [] as [&str; 0]
    );
    assert_eq!(
        words(watch.take(Received(watcher::Event::Apply(object("b"))))),
        ["+ b"]
    );
    watch.take::<()>(Received(watcher::Event::Init));
    assert_eq!(
        words(watch.take(Received(watcher::Event::InitApply(object("b"))))),
        ["+ b"]
    );
    assert_eq!(words(watch.take(Received(watcher::Event::InitDone))), ["- a"]);
}

#[test]
fn a_lost_connection_is_a_problem_until_the_next_event_and_deletes_nothing() {
    let mut watch = Watch::new(Collection::DirectorGroups);
    watch.take::<()>(Received(watcher::Event::Init));
    watch.take(Received(watcher::Event::InitApply(object("a"))));
    watch.take::<()>(Received(watcher::Event::InitDone));
    assert_eq!(watch.take::<()>(Failed(watcher::Error::NoResourceVersion)), []);
    assert!(
        watch
            .problem()
            .is_some_and(|problem| problem.contains("stays in force"))
    );
    assert_eq!(
        words(watch.take(Received(watcher::Event::Apply(object("a"))))),
        ["+ a"]
    );
    assert_eq!(watch.problem(), None);
}

#[test]
fn a_kind_that_the_server_does_not_have_is_as_good_as_no_object_of_it() {
    let unknown = || {
        let status =
            kube::core::Status::failure("the server could not find the requested resource", "NotFound");
        watcher::Error::InitialListFailed(kube::Error::Api(status.with_code(404).boxed()))
    };
    let mut grants = Watch::new(Collection::ReferenceGrants);
    assert_eq!(grants.take::<()>(Failed(unknown())), []);
    assert!(grants.is_complete());
    // Of other kinds it is a problem.
    let mut servers = Watch::new(Collection::RealServers);
    assert_eq!(servers.take::<()>(Failed(unknown())), []);
    assert!(!servers.is_complete());
    let problem = "cannot watch realservers.weir.dev: the server could not find the requested resource (404); \
                   what was last read stays in force";
    assert_eq!(servers.problem(), Some(problem));
}

fn refused(code: u16) -> kube::Error {
    kube::Error::Api(kube::core::Status::failure("no", "No").with_code(code).boxed())
}

/// What a watch says whose server answers as `answers` do, one after the other each time that it is begun, and then
/// not at all; and how often it is begun within an hour.
async fn hour<A>(answers: impl Fn() -> A + Send + 'static) -> (Vec<Event<()>>, usize)
where
    A: IntoIterator<Item = Result<watcher::Event<()>, watcher::Error>>,
    A::IntoIter: Send + 'static,
{
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let events = persistent(move || {
        count.fetch_add(1, Ordering::Relaxed);
        stream::iter(answers()).chain(stream::pending())
    });
    let said = events
        .take_until(sleep(Duration::from_secs(3600)))
        .collect()
        .await;
    (said, begun.load(Ordering::Relaxed))
}

/// Before each list comes the event that says so, which is no success.
#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_is_asked_for_more_and_more_rarely() {
    let refusal = || {
        [
            Ok(watcher::Event::Init),
            Err(watcher::Error::InitialListFailed(refused(500))),
        ]
    };
    let (said, _) = hour(move || std::iter::repeat_with(refusal).flatten()).await;
    let failures = said.iter().filter(|event| matches!(event, Failed(_))).count();
    assert!((60..150).contains(&failures), "{failures} in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_cannot_go_on_from_its_list_begins_with_a_new_one() {
    let list = || [watcher::Event::Init, watcher::Event::InitDone].map(Ok);
    let too_old = || Err(watcher::Error::WatchStartFailed(refused(410)));
    let (_, begun) = hour(move || list().into_iter().chain([too_old()])).await;
    assert!((60..150).contains(&begun), "begun {begun} times in an hour");
    // Any other refusal leaves the list as it is.
    let busy = || Err(watcher::Error::WatchStartFailed(refused(500)));
    let (_, begun) = hour(move || list().into_iter().chain([busy()])).await;
    assert_eq!(begun, 1);
}

/// Where nothing changes, nothing would be heard of it.
#[tokio::test(start_paused = true)]
async fn a_failure_that_does_not_come_again_is_over_though_nothing_changes() {
    let failure = || {
        [
            Ok(watcher::Event::InitDone),
            Err(watcher::Error::WatchStartFailed(refused(500))),
        ]
    };
    let (said, _) = hour(failure).await;
    assert!(
        matches!(
            said[..],
            [Received(watcher::Event::InitDone), Failed(_), Event::Recovered]
        ),
        "{said:?}"
    );
    let mut watch = Watch::new(Collection::DirectorGroups);
    watch.take::<()>(Failed(watcher::Error::NoResourceVersion));
    assert!(watch.problem().is_some());
    watch.take::<()>(Event::Recovered);
    assert_eq!(watch.problem(), None);
}

/// A list comes in parts, and the server may have to be asked again for the first.
#[test]
fn what_was_in_a_list_that_broke_off_and_is_not_in_the_next_is_gone() {
    let mut watch = Watch::new(Collection::DirectorGroups);
    watch.take::<()>(Received(watcher::Event::Init));
    watch.take(Received(watcher::Event::InitApply(object("a"))));
    watch.take::<()>(Failed(watcher::Error::NoResourceVersion));
    watch.take::<()>(Received(watcher::Event::Init));
    watch.take(Received(watcher::Event::InitApply(object("b"))));
    assert_eq!(words(watch.take(Received(watcher::Event::InitDone))), ["- a"]);
}

#[test]
fn what_is_assumed_is_gone_if_the_first_list_does_not_hold_it() {
    let mut watch = Watch::new(Collection::DirectorGroups);
    watch.take::<()>(Received(watcher::Event::Init));
    watch.take(Received(watcher::Event::InitApply(object("a"))));
    assert!(!watch.assume(object("a").0), "it is known better");
    assert!(watch.assume(object("b").0));
    assert_eq!(words(watch.take(Received(watcher::Event::InitDone))), ["- b"]);
    assert!(!watch.assume(object("c").0), "everything is known better");
}
