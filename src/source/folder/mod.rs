//! A folder of manifests, watched: `*.yaml`, `*.yml` and `*.json` directly in it.
//!
//! ```text
//! inotify ─► Pending ─► Look ─► files read ─► FolderState ─► SourceEvent
//!            (50 ms)     ▲
//!                        └── every second: is it still the same folder? every minute: has any file changed?
//! ```
//!
//! An event names a file, and only that is read again. A file is read when its writer closes it, or it appears by
//! a rename; links, and the swap of links by which a mounted ConfigMap changes, are followed. A file or folder that
//! cannot be read takes nothing away. Nothing else promises that a change is seen: events may be lost and some file
//! systems have none, so all files' states are compared every minute.
//!
//! | file | what |
//! | --- | --- |
//! | `state` | which file gave which object, and what a change leads to; pure |
//! | `look` | a look at the folder, or at some files of it |
//! | `files` | files on disk |
//! | `pending` | what the file system said since the last look |
//! | `once` | manifests read once, for commands |

mod files;
mod look;
mod once;
mod pending;
mod state;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::SourceEvent;
use super::cache::Copies;
use look::{Folder, Look};
use pending::Pending;

pub use once::{FolderReading, read_paths};
pub use state::{FolderState, Reading, Settled};

/// How long events are collected: an editor that saves a file causes several.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often it is asked whether the path still leads to the same folder, which no event tells.
const IDENTITY: Duration = Duration::from_secs(1);
/// Updates told together while many files are read.
const BATCH: usize = 1000;
/// How often all files' states are compared.
const COMPARISON: Duration = Duration::from_secs(60);

/// Reports a folder's objects and every change of them, until told to stop or nobody listens.
///
/// [`SourceEvent::Complete`] comes when the folder has been read for the first time, whatever was wrong in it.
/// `copies` keeps the last good form of each manifest, for one that is broken when this begins.
pub async fn watch(
    path: PathBuf,
    copies: Option<Copies>,
    tx: mpsc::Sender<SourceEvent>,
    shutdown: CancellationToken,
) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = run(path, copies, tx) => {}
    }
}

async fn run(path: PathBuf, copies: Option<Copies>, tx: mpsc::Sender<SourceEvent>) {
    let pending = Arc::new(Pending::default());
    let mut driver = Driver {
        folder: Folder::new(path, copies),
        watcher: None,
        pending: pending.clone(),
    };
    let mut notifier = Notifier {
        tx,
        problems: Vec::new(),
        complete: None,
    };
    let mut identity = interval(IDENTITY);
    let mut comparison = interval(COMPARISON);
    for timer in [&mut identity, &mut comparison] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer.reset();
    }
    let mut look = pending.take_all();
    loop {
        // Reading files blocks, and thousands of them for long.
        let tx = notifier.tx.clone();
        let pass = tokio::task::spawn_blocking(move || {
            let report = driver.pass(&look, &tx);
            (driver, report)
        });
        let report;
        (driver, report) = match pass.await {
            Ok(done) => done,
            Err(_) => return,
        };
        if notifier.notify(report).await.is_err() {
            return;
        }
        look = tokio::select! {
            () = pending.news() => {
                sleep(DEBOUNCE).await;
                pending.take()
            }
            _ = comparison.tick() => pending.take_all(),
            _ = identity.tick() => pending.take(),
        };
    }
}

/// What a look came to.
struct Report {
    problems: Vec<String>,
    is_readable: bool,
    /// Whether a file has never been read to its end.
    unread: bool,
}

/// The folder and its watcher.
struct Driver {
    folder: Folder,
    watcher: Option<RecommendedWatcher>,
    pending: Arc<Pending>,
}

impl Driver {
    /// Looks, and tells what changed while it goes on: a hundred thousand objects need not be held at once. Nobody may
    /// be listening any more; that shows when the report is told.
    fn pass(&mut self, look: &Look, tx: &mpsc::Sender<SourceEvent>) -> Report {
        let watched = self.watch();
        // What changed before a watcher was there, it does not tell.
        let everything = Look::All {
            except: BTreeSet::new(),
        };
        let look = match watched {
            Ok(Watching::Renewed) => &everything,
            _ => look,
        };
        let mut batch = Vec::new();
        self.folder.look(look, &mut |updates| {
            batch.extend(updates);
            if batch.len() >= BATCH {
                let _ = tx.blocking_send(SourceEvent::Updates(std::mem::take(&mut batch)));
            }
        });
        if !batch.is_empty() {
            let _ = tx.blocking_send(SourceEvent::Updates(batch));
        }
        let mut problems = self.folder.problems();
        problems.extend(watched.err());
        Report {
            problems,
            is_readable: self.folder.identity().is_some(),
            unread: self.folder.unread(),
        }
    }

    /// Watches the folder that the path leads to now, before it is looked at: what changes after that is told.
    fn watch(&mut self) -> Result<Watching, String> {
        let identity = files::identity(self.folder.path()).ok();
        if identity.is_none() {
            // The look says what is wrong.
            self.watcher = None;
            return Ok(Watching::Unchanged);
        }
        if self.watcher.is_some() && identity == self.folder.identity() {
            return Ok(Watching::Unchanged);
        }
        self.watcher = None;
        let (path, pending) = (self.folder.path().to_owned(), self.pending.clone());
        let watcher = notify::recommended_watcher(move |event| pending.add(&path, event));
        let watching = watcher.and_then(|mut watcher| {
            watcher.watch(self.folder.path(), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watching.map_err(|error| {
            format!(
                "{}: changes are seen only after a minute, since the folder cannot be watched: {error}; raise \
                 fs.inotify.max_user_instances and fs.inotify.max_user_watches",
                self.folder.path().display()
            )
        })?;
        self.watcher = Some(watcher);
        Ok(Watching::Renewed)
    }
}

/// What became of the watcher.
enum Watching {
    /// It watches the folder that it did before.
    Unchanged,
    /// It is a new one.
    Renewed,
}

/// Tells the agent what is new, and knows what it has been told.
struct Notifier {
    tx: mpsc::Sender<SourceEvent>,
    problems: Vec<String>,
    /// Whether something was unread when it was last told that everything has been looked at.
    complete: Option<bool>,
}

impl Notifier {
    async fn notify(&mut self, report: Report) -> Result<(), mpsc::error::SendError<SourceEvent>> {
        if report.problems != self.problems {
            self.problems.clone_from(&report.problems);
            self.tx.send(SourceEvent::Problems(report.problems)).await?;
        }
        let news = match self.complete {
            None => report.is_readable,
            Some(unread) => unread && !report.unread,
        };
        if news {
            self.complete = Some(report.unread);
            self.tx
                .send(SourceEvent::Complete {
                    unread: report.unread,
                })
                .await?;
        }
        Ok(())
    }
}
