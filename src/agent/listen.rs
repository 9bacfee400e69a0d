//! Listens to the kernel, and hands on what is heard.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::causes::with_causes;
use crate::netlink::{Event, Monitor, NetlinkError, Source};

/// How many datagrams' worth of events may wait for the agent. What does not fit waits in the kernel, which says when it had
/// to drop something.
const WAITING: usize = 64;

/// Begins to listen in the network namespace of the calling thread. What happens from now on is heard.
///
/// What cannot be listened to is told in the log, and noticed by audits only.
pub fn listen(shutdown: CancellationToken) -> mpsc::Receiver<Vec<Event>> {
    let (sender, events) = mpsc::channel(WAITING);
    for (source, what) in [
        (Source::Route, "links, addresses and routes"),
        (Source::Rules, "rules"),
        (Source::GenericFamilies, "modules"),
    ] {
        match Monitor::open(source) {
            Ok(monitor) => drop(tokio::spawn(hand_on(monitor, sender.clone(), shutdown.clone()))),
            Err(error) => not_heard(what, &error),
        }
    }
    events
}

fn not_heard(what: &str, error: &NetlinkError) {
    warn!(
        "cannot hear what others change of {what}, so that it is repaired by audits only: {}",
        with_causes(error)
    );
}

async fn hand_on(mut monitor: Monitor, sender: mpsc::Sender<Vec<Event>>, shutdown: CancellationToken) {
    loop {
        let heard = tokio::select! {
            () = shutdown.cancelled() => return,
            heard = monitor.hear() => heard,
        };
        match heard {
            Ok(events) => {
                if sender.send(events).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(
                    "cannot hear any more what others change, so that it is repaired by audits only: {}",
                    with_causes(&error)
                );
                return;
            }
        }
    }
}
