//! The cache of a node of a cluster: gathered by the source, written every few seconds by a task of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::catalog::ObjectRef;
use crate::durable::{self, Readers};

use super::codec::{self, Cache, MAX_SIZE};

const FILE: &str = "cache";
/// The least time between two writes, for each MiB that the last one had and one more: at most a MiB a second or so.
const INTERVAL: Duration = Duration::from_secs(2);
/// When the time of a cache is written anew though nothing has changed, and when a write that failed is tried again.
const REFRESH: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(60);

/// Opens the cache of a state directory: what it holds, and what keeps it up to date.
///
/// A cache that is of no use is a problem and otherwise as good as none; so is a missing one, without being a problem.
pub fn open(directory: &Path, node: &str) -> (Option<Cache>, Recorder, Writer) {
    let path = directory.join(FILE);
    let (found, problem) = match load(&path, node) {
        Ok(found) => (found, None),
        Err(problem) => (None, Some(problem)),
    };
    let objects = found.clone().unwrap_or_else(|| Cache {
        node: node.to_owned(),
        saved: SystemTime::UNIX_EPOCH,
        labels: BTreeMap::new(),
        objects: BTreeMap::new(),
    });
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            cache: objects,
            is_dirty: false,
            is_current: false,
        }),
        changed: Notify::new(),
        problem: watch::Sender::new(problem),
    });
    let recorder = Recorder(Some(shared.clone()));
    (found, recorder, Writer { path, shared })
}

fn load(path: &Path, node: &str) -> Result<Option<Cache>, String> {
    let unusable = |why: &dyn std::fmt::Display| {
        format!(
            "cannot use the saved objects in {}: {why}; until the API server answers there is nothing to program from",
            path.display()
        )
    };
    let bytes = durable::read(path, MAX_SIZE).map_err(|error| unusable(&error))?;
    let cache = bytes.map(|bytes| codec::decode(&bytes, node)).transpose();
    cache.map_err(|error| unusable(&error))
}

/// Takes in what is to be kept; one by default keeps nothing.
#[derive(Debug, Default)]
pub struct Recorder(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    problem: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct State {
    cache: Cache,
    is_dirty: bool,
    /// Whether all of it is known to be so now.
    is_current: bool,
}

impl Recorder {
    /// Whether it keeps anything.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps an object that is valid.
    pub fn put(&self, object: &ObjectRef, json: &str) {
        self.change(|cache| {
            let is_new = cache.objects.get(object).is_none_or(|kept| **kept != *json);
            if is_new {
                cache.objects.insert(object.clone(), json.into());
            }
            is_new
        });
    }

    /// Keeps an object no longer.
    pub fn delete(&self, object: &ObjectRef) {
        self.change(|cache| cache.objects.remove(object).is_some());
    }

    /// Keeps the node's labels.
    pub fn labels(&self, labels: &BTreeMap<String, String>) {
        self.change(|cache| {
            let is_new = cache.labels != *labels;
            if is_new {
                cache.labels.clone_from(labels);
            }
            is_new
        });
    }

    /// Says whether everything is known to be as it was last said.
    pub fn set_current(&self, is_current: bool) {
        if let Some(shared) = &self.0 {
            shared.lock().is_current = is_current;
        }
    }

    /// What is wrong with the cache on disk, always the latest.
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        match &self.0 {
            Some(shared) => shared.problem.subscribe(),
            None => watch::channel(None).1,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Cache) -> bool) {
        let Some(shared) = &self.0 else {
            return;
        };
        let mut state = shared.lock();
        if change(&mut state.cache) {
            state.is_dirty = true;
            drop(state);
            shared.changed.notify_one();
        }
    }
}

impl Shared {
    /// What is to be written, if anything is.
    fn take(&self, refresh: bool, now: SystemTime) -> Option<Cache> {
        let mut state = self.lock();
        if !(state.is_dirty || refresh && state.is_current) {
            return None;
        }
        state.is_dirty = false;
        Some(Cache {
            saved: now,
            ..state.cache.clone()
        })
    }

    fn settle(&self, written: Result<(), String>) {
        let problem = written.err();
        if problem.is_some() {
            self.lock().is_dirty = true;
        }
        self.problem.send_if_modified(|before| {
            let is_news = *before != problem;
            *before = problem;
            is_news
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a cache when something in it has changed.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    shared: Arc<Shared>,
}

impl Writer {
    /// Writes until the token is cancelled, and then once more if need be.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { path, shared } = self;
        let store = move |text: &[u8]| durable::replace(&path, text, Readers::Owner).map(drop);
        run(&shared, store, shutdown).await;
    }
}

async fn run(
    shared: &Shared,
    store: impl Fn(&[u8]) -> io::Result<()> + Clone + Send + 'static,
    shutdown: CancellationToken,
) {
    let mut next_write = Instant::now() + INTERVAL;
    let mut next_refresh = Instant::now() + REFRESH;
    loop {
        let is_over = tokio::select! {
            () = shutdown.cancelled() => true,
            () = shared.changed.notified() => {
                tokio::select! {
                    () = shutdown.cancelled() => true,
                    () = sleep_until(next_write) => false,
                }
            }
            () = sleep_until(next_refresh) => false,
        };
        let refresh = is_over || Instant::now() >= next_refresh;
        let wait = write(shared, refresh, store.clone()).await;
        if is_over {
            return;
        }
        let now = Instant::now();
        next_write = now + wait.unwrap_or(RETRY);
        next_refresh = now + if wait.is_some() { REFRESH } else { RETRY };
    }
}

/// Writes what is to be written. Says how long to wait before the next time, unless it failed.
async fn write(
    shared: &Shared,
    refresh: bool,
    store: impl Fn(&[u8]) -> io::Result<()> + Send + 'static,
) -> Option<Duration> {
    let Some(cache) = shared.take(refresh, now()) else {
        return Some(INTERVAL);
    };
    // Encoding takes as long as there are objects, and the disk as long as it likes.
    let written = tokio::task::spawn_blocking(move || {
        let text = codec::encode(&cache).map_err(|error| error.to_string())?;
        store(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok(text.len())
    });
    let written = written.await.unwrap_or_else(|error| Err(error.to_string()));
    let wait = written
        .as_ref()
        .ok()
        .map(|size| INTERVAL * u32::try_from(1 + (size >> 20)).unwrap_or(u32::MAX));
    shared.settle(written.map(drop).map_err(|error: String| {
        format!(
            "cannot save what the API server said: {error}; a node that starts without the API server programs what was \
             saved before"
        )
    }));
    wait
}

#[allow(clippy::disallowed_methods, reason = "a driver: decisions are told the time")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
