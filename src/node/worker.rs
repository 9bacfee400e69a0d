//! The programmer beside the agent's loop: one request at a time, on a thread where waiting for the kernel keeps nobody else
//! waiting.
//!
//! The loop asks for the most urgent thing whenever the last one is done, so that nothing waits for longer than one request
//! takes; that is why audits come in slices.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::catalog::{NamespacedName, Scope};
use crate::host::{BoundAddress, HostError, HostFailure, HostStore, Network};
use crate::ipvs::TableStore;

use super::memory::Summary;
use super::programmer::{PassError, Programmer};
use super::work::{Failed, Pass, TableWork, Work};

/// Something to do.
#[derive(Debug)]
pub enum Request {
    /// Look at the node's network.
    Look,
    /// Make a pass.
    Pass(Box<Work>),
    /// Tell the neighbours again that VIPs are here.
    Announce(Vec<BoundAddress>),
    /// Tell the neighbours on a link again which VIPs are here: it carries packets again.
    AnnounceLink(Box<str>),
    /// See whether an entry is missing: the kernel tells nobody of a flush.
    CheckForFlush,
}

/// What came of it.
#[derive(Debug)]
pub enum Reply {
    /// Of [`Request::Look`].
    Looked(Result<Looked, HostError>),
    /// Of [`Request::Pass`].
    Passed(Box<Passed>),
    /// Of [`Request::Announce`] and [`Request::AnnounceLink`].
    Announced {
        /// Which VIPs.
        vips: Vec<BoundAddress>,
        /// What failed.
        failures: Vec<HostFailure>,
    },
    /// Of [`Request::CheckForFlush`].
    CheckedForFlush {
        /// Whether an entry is missing.
        misses_an_entry: bool,
    },
}

/// What was seen of a node.
#[derive(Debug)]
pub struct Looked {
    /// Its network.
    pub network: Network,
    /// The netlink ports by which steps are taken.
    pub ports: Vec<u32>,
}

/// A pass that was made, or not.
#[derive(Debug)]
pub struct Passed {
    /// The virtual services that it was for.
    pub scope: Scope,
    /// How much of the table was looked at.
    pub table: TableWork,
    /// What it did.
    pub result: Result<Pass, PassError>,
    /// What is refused now, and is to be tried again.
    pub failed: Failed,
    /// When something that leaves should be looked at again, for each virtual service that it was for.
    pub leaving: Vec<(NamespacedName, Option<Instant>)>,
    /// The network that planning should know of, where it is another.
    pub network: Option<Network>,
    /// The netlink ports by which steps are taken.
    pub ports: Vec<u32>,
    /// What is to be told of the node.
    pub summary: Summary,
}

/// Does what it is asked, one thing at a time.
#[derive(Debug)]
pub struct Worker<S, H> {
    /// Locked while something is done, and by nobody else.
    programmer: Arc<Mutex<Programmer<S, H>>>,
    running: Option<JoinHandle<Reply>>,
}

impl<S: TableStore + Send + 'static, H: HostStore + Send + 'static> Worker<S, H> {
    /// One that has nothing to do.
    pub fn new(programmer: Programmer<S, H>) -> Self {
        Self {
            programmer: Arc::new(Mutex::new(programmer)),
            running: None,
        }
    }

    /// Whether it does something now.
    pub fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Begins with something. Whatever is done now must have ended.
    pub fn begin(&mut self, request: Request) {
        debug_assert!(!self.is_busy(), "one thing at a time");
        let programmer = self.programmer.clone();
        self.running = Some(tokio::task::spawn_blocking(move || {
            let mut programmer = programmer.lock().unwrap_or_else(PoisonError::into_inner);
            programmer.answer(request)
        }));
    }

    /// What came of the thing that is done now; waits for ever if there is none. `None` while the runtime is being shut
    /// down. May be dropped and called again.
    pub async fn reply(&mut self) -> Option<Reply> {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let ended = running.await;
        self.running = None;
        match ended {
            Ok(reply) => Some(reply),
            // A broken invariant: what the programmer knew is lost, so the agent ends rather than go on blindly.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }
}

impl<S: TableStore, H: HostStore> Programmer<S, H> {
    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Look => Reply::Looked(self.look().map(|network| Looked {
                network,
                ports: self.host.ports(),
            })),
            Request::Pass(work) => Reply::Passed(Box::new(self.pass(*work))),
            Request::Announce(vips) => self.answer_announced(vips),
            Request::AnnounceLink(link) => {
                let vips = self.memory.around.announced_on(&link);
                self.answer_announced(vips)
            }
            Request::CheckForFlush => Reply::CheckedForFlush {
                misses_an_entry: self.misses_an_entry(),
            },
        }
    }

    fn answer_announced(&mut self, vips: Vec<BoundAddress>) -> Reply {
        let failures = self.announce(&vips);
        Reply::Announced { vips, failures }
    }

    fn pass(&mut self, work: Work) -> Passed {
        let (scope, table) = (work.scope.clone(), work.table);
        let names: Vec<NamespacedName> = match &scope {
            Scope::Every => work.plan.services.keys().cloned().collect(),
            Scope::These(names) => names.iter().cloned().collect(),
        };
        let result = self.run(work);
        let leaving = self
            .leaving(names.iter())
            .map(|(name, time)| (name.clone(), time));
        Passed {
            scope,
            table,
            failed: self.failed(),
            leaving: leaving.collect(),
            ports: self.host.ports(),
            network: self.take_network_news(),
            summary: self.summary(),
            result,
        }
    }
}
