//! The loop with a table in memory and a clock that the runtime moves.

use super::*;
use crate::ipvs::MemoryTable;
use crate::ledger::Ledger;
use crate::plan::{Node, ObjectRef, Update};

struct Running {
    events: mpsc::Sender<SourceEvent>,
    reports: watch::Receiver<Report>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(directory.path()).unwrap();
        let node = Node {
            name: "d1".to_owned(),
            stands_alone: true,
            ..Node::default()
        };
        let reconciler = Reconciler::new(node, ledger, MemoryTable::default(), false);
        let (events, received) = mpsc::channel(16);
        let (sender, reports) = watch::channel(Report::default());
        let shutdown = CancellationToken::new();
        let agent = Agent::new(reconciler, Duration::from_secs(60), sender);
        let task = tokio::spawn(agent.run(received, shutdown.clone()));
        Self {
            events,
            reports,
            shutdown,
            task,
            _directory: directory,
        }
    }

    async fn send(&self, event: SourceEvent) {
        self.events.send(event).await.unwrap();
    }

    async fn until(&mut self, is_so: impl FnMut(&Report) -> bool) -> Report {
        self.reports.wait_for(is_so).await.unwrap().clone()
    }
}

fn invalid_group() -> SourceEvent {
    let remark = crate::plan::validate::Remark {
        field: "spec".to_owned(),
        reason: crate::plan::Reason::Invalid,
        message: "wrong".to_owned(),
    };
    let object = ObjectRef::director_group("edge".into());
    SourceEvent::Updates(vec![Update::Put {
        object,
        form: None,
        remarks: vec![remark],
    }])
}

/// With a timer that stays due the runtime's clock would never move, and this test not end.
#[tokio::test(start_paused = true)]
async fn before_the_source_is_complete_audits_pass_by_without_a_pass() {
    let agent = Running::start();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!agent.reports.borrow().complete);
    agent.shutdown.cancel();
    agent.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deletions_are_withheld_until_every_object_was_valid_once() {
    let mut agent = Running::start();
    agent.send(invalid_group()).await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    let report = agent.until(|report| report.complete).await;
    assert_eq!(
        report.problems,
        ["nothing is deleted until every object has been read once"]
    );
    assert_eq!(report.findings.len(), 1);
    agent
        .send(SourceEvent::Updates(vec![Update::Delete(
            ObjectRef::director_group("edge".into()),
        )]))
        .await;
    agent
        .until(|report| report.complete && report.problems.is_empty())
        .await;
    // From then on an invalid object withholds nothing.
    agent.send(invalid_group()).await;
    let report = agent.until(|report| report.findings.len() == 1).await;
    assert!(report.problems.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_of_the_source_withholds_deletions_until_it_says_that_this_is_over() {
    let mut agent = Running::start();
    agent.send(SourceEvent::Complete { unread: true }).await;
    agent
        .until(|report| report.complete && report.problems.len() == 1)
        .await;
    agent.send(SourceEvent::Complete { unread: false }).await;
    agent
        .until(|report| report.complete && report.problems.is_empty())
        .await;
}
