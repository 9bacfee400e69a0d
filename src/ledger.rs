//! The ledger: which virtual services of the kernel are Weir's. The kernel itself does not say.
//!
//! It is a file of lines in the state directory, written before the kernel is changed:
//!
//! ```text
//! weir ledger 1
//! + TCP 10.0.0.200:80 shop/web 5c0f4b7a90d1e233
//! - TCP 10.0.0.200:80 77a1c0de12f3ab09
//! ```
//!
//! `+` takes a service into possession, `-` gives it up; the last word is a digest of the line before it
//! ([`durable::records`]). A line that does not match its digest was torn by a crash and counts for nothing: what it
//! spoke of is not provably ours and will not be deleted. Taking possession is on disk before the kernel is told; giving up need not be,
//! since a service that is gone does no harm in the ledger.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::catalog::{NamespacedName, SmallSet};
use crate::durable::{self, Readers};
use crate::ipvs::ServiceKey;

const VERSION: &str = "weir ledger 1";
const FILE: &str = "ledger";
const LOCK: &str = "lock";
/// The largest ledger, in bytes; a hundred thousand services take a tenth of it.
const LIMIT: u64 = 64 << 20;
/// Lines that may be out of date before the file is written anew.
const STALE_LINES: usize = 1024;

/// Why the ledger cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The state directory cannot be made or written.
    #[error("cannot use the state directory {path}: make it writable, or name another with --state-dir")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the state directory {path} is in use by another weir process: stop it first, or name another with --state-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the ledger {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written; nothing new is programmed meanwhile.
    #[error("cannot write the ledger {path}: nothing new is programmed until it can be")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// In what state a ledger was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerState {
    /// There was none: a new node, or a lost disk.
    New,
    /// Every line was whole.
    Whole,
    /// Lines were torn, and what they spoke of is not known to be ours.
    Torn {
        /// How many.
        lines: usize,
    },
}

/// The ledger, open for writing. One process at a time has it.
#[derive(Debug)]
pub struct Ledger {
    directory: PathBuf,
    entries: Entries,
    file: File,
    /// Lines in the file, the header apart.
    lines: usize,
    /// Whether a write failed half way: what is appended to a torn line would be lost with it.
    torn: bool,
    /// Held as long as the ledger is.
    _lock: File,
}

/// What a ledger says: each service with the virtual service that wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    owners: BTreeMap<ServiceKey, NamespacedName>,
    by_owner: BTreeMap<NamespacedName, SmallSet<ServiceKey>>,
}

impl Entries {
    /// Reads what a state directory's ledger says, without opening it for writing.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Read`], but not for a ledger that is not there.
    pub fn read(directory: &Path) -> Result<(Self, LedgerState), LedgerError> {
        let path = directory.join(FILE);
        match durable::read(&path, LIMIT) {
            Ok(Some(bytes)) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Ok(None) => Ok((Self::default(), LedgerState::New)),
            Err(source) => Err(LedgerError::Read { path, source }),
        }
    }

    fn parse(text: &str) -> (Self, LedgerState) {
        let mut entries = Self::default();
        let mut torn = 0;
        for record in durable::records(VERSION, text) {
            match record.and_then(Record::parse) {
                Some(Record::Take(key, owner)) => entries.insert(key, owner),
                Some(Record::GiveUp(key)) => entries.remove(&key),
                None => torn += 1,
            }
        }
        let state = if torn == 0 {
            LedgerState::Whole
        } else {
            LedgerState::Torn { lines: torn }
        };
        (entries, state)
    }

    /// Whether a service is ours.
    pub fn owns(&self, key: &ServiceKey) -> bool {
        self.owners.contains_key(key)
    }

    /// The virtual service that wants a service of ours.
    pub fn owner(&self, key: &ServiceKey) -> Option<&NamespacedName> {
        self.owners.get(key)
    }

    /// The services that a virtual service has.
    pub fn keys_of(&self, owner: &NamespacedName) -> impl Iterator<Item = ServiceKey> + '_ {
        self.by_owner
            .get(owner)
            .into_iter()
            .flat_map(SmallSet::iter)
            .copied()
    }

    /// Everything that is ours.
    pub fn keys(&self) -> impl Iterator<Item = ServiceKey> + '_ {
        self.owners.keys().copied()
    }

    /// How many services are ours.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether nothing is ours.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    fn insert(&mut self, key: ServiceKey, owner: NamespacedName) {
        self.remove(&key);
        self.by_owner.entry(owner.clone()).or_default().insert(key);
        self.owners.insert(key, owner);
    }

    fn remove(&mut self, key: &ServiceKey) {
        let Some(owner) = self.owners.remove(key) else {
            return;
        };
        if let Some(keys) = self.by_owner.get_mut(&owner) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
    }
}

/// What a ledger would say in which these had been taken into possession.
impl FromIterator<(ServiceKey, NamespacedName)> for Entries {
    fn from_iter<I: IntoIterator<Item = (ServiceKey, NamespacedName)>>(services: I) -> Self {
        let mut entries = Self::default();
        for (key, owner) in services {
            entries.insert(key, owner);
        }
        entries
    }
}

/// One line of the file.
#[derive(Debug, PartialEq, Eq)]
enum Record {
    Take(ServiceKey, NamespacedName),
    GiveUp(ServiceKey),
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        match text.split_at_checked(2)? {
            ("+ ", rest) => {
                let (key, owner) = rest.rsplit_once(' ')?;
                let (namespace, name) = owner.split_once('/')?;
                let owner = NamespacedName {
                    namespace: namespace.into(),
                    name: name.into(),
                };
                Some(Self::Take(key.parse().ok()?, owner))
            }
            ("- ", key) => Some(Self::GiveUp(key.parse().ok()?)),
            _ => None,
        }
    }

    fn write(&self, text: &mut String) {
        let start = text.len();
        // Writing to a string cannot fail.
        let _ = match self {
            Self::Take(key, owner) => write!(text, "+ {key} {owner}"),
            Self::GiveUp(key) => write!(text, "- {key}"),
        };
        durable::end_record(text, start);
    }
}

impl Ledger {
    /// Opens the ledger of a state directory, which is made if need be.
    ///
    /// # Errors
    ///
    /// The directory cannot be used, another process uses it, or the file cannot be read or written.
    pub fn open(directory: &Path) -> Result<(Self, LedgerState), LedgerError> {
        let unusable = |source| LedgerError::Directory {
            path: directory.to_owned(),
            source,
        };
        fs::create_dir_all(directory).map_err(unusable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(LOCK))
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LedgerError::InUse {
                    path: directory.to_owned(),
                });
            }
            Err(errno) => return Err(unusable(errno.into())),
        }
        let (entries, state) = Entries::read(directory)?;
        let (file, lines) =
            write_anew(directory, &entries).map_err(|source| write_error(directory, source))?;
        Ok((
            Self {
                directory: directory.to_owned(),
                entries,
                file,
                lines,
                torn: false,
                _lock: lock,
            },
            state,
        ))
    }

    /// What the ledger says.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Takes services into possession; when this returns, the disk knows.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Write`]; then the services must not be added to the kernel.
    pub fn take(
        &mut self,
        services: impl IntoIterator<Item = (ServiceKey, NamespacedName)>,
    ) -> Result<(), LedgerError> {
        let records: Vec<_> = services
            .into_iter()
            .map(|(key, owner)| Record::Take(key, owner))
            .collect();
        self.append(records, true)
    }

    /// Gives up services that are no longer in the kernel.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Write`].
    pub fn give_up(&mut self, services: impl IntoIterator<Item = ServiceKey>) -> Result<(), LedgerError> {
        self.append(services.into_iter().map(Record::GiveUp).collect(), false)
    }

    fn append(&mut self, records: Vec<Record>, durable: bool) -> Result<(), LedgerError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for record in &records {
            record.write(&mut text);
        }
        if self.torn {
            self.write_anew()?;
        }
        let written = self.file.write_all(text.as_bytes());
        let written = written.and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        self.torn = written.is_err();
        written.map_err(|source| write_error(&self.directory, source))?;
        self.lines += records.len();
        for record in records {
            match record {
                Record::Take(key, owner) => self.entries.insert(key, owner),
                Record::GiveUp(key) => self.entries.remove(&key),
            }
        }
        if self.lines > self.entries.len() * 2 + STALE_LINES {
            self.write_anew()?;
        }
        Ok(())
    }

    fn write_anew(&mut self) -> Result<(), LedgerError> {
        (self.file, self.lines) = write_anew(&self.directory, &self.entries)
            .map_err(|source| write_error(&self.directory, source))?;
        self.torn = false;
        Ok(())
    }
}

fn write_error(directory: &Path, source: io::Error) -> LedgerError {
    LedgerError::Write {
        path: directory.join(FILE),
        source,
    }
}

/// Replaces the ledger by one without what is out of date.
fn write_anew(directory: &Path, entries: &Entries) -> io::Result<(File, usize)> {
    let mut text = format!("{VERSION}\n");
    for (key, owner) in &entries.owners {
        Record::Take(*key, owner.clone()).write(&mut text);
    }
    let file = durable::replace(&directory.join(FILE), text.as_bytes(), Readers::Everyone)?;
    Ok((file, entries.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> ServiceKey {
        format!("TCP 10.0.0.200:{port}").parse().unwrap()
    }

    fn owner(name: &str) -> NamespacedName {
        NamespacedName {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    #[test]
    fn what_was_taken_is_ours_after_a_restart_and_what_was_given_up_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, state) = Ledger::open(directory.path()).unwrap();
        assert_eq!(state, LedgerState::New);
        ledger
            .take([(key(80), owner("web")), (key(443), owner("web"))])
            .unwrap();
        ledger.give_up([key(80)]).unwrap();
        drop(ledger);
        let (ledger, state) = Ledger::open(directory.path()).unwrap();
        assert_eq!(state, LedgerState::Whole);
        assert!(!ledger.entries().owns(&key(80)));
        assert_eq!(
            ledger.entries().keys_of(&owner("web")).collect::<Vec<_>>(),
            [key(443)]
        );
    }

    /// As released versions wrote it.
    #[test]
    fn a_ledger_of_an_earlier_version_is_read() {
        let text = "weir ledger 1\n\
            + TCP 10.0.0.200:80 shop/web b79feec1276cf711\n\
            + FWM IPv6 7 shop/mail 274774c9e9d60456\n\
            - TCP 10.0.0.200:80 97b5049361385e9a\n";
        let (entries, state) = Entries::parse(text);
        assert_eq!(state, LedgerState::Whole);
        let mail = ("FWM IPv6 7".parse().unwrap(), owner("mail"));
        assert_eq!(entries.owners, BTreeMap::from([mail]));
    }

    #[test]
    fn a_service_has_one_owner_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(directory.path()).unwrap();
        ledger
            .take([(key(80), owner("web")), (key(80), owner("shop"))])
            .unwrap();
        assert_eq!(ledger.entries().owner(&key(80)), Some(&owner("shop")));
        assert_eq!(ledger.entries().keys_of(&owner("web")).count(), 0);
    }

    #[test]
    fn a_torn_line_counts_for_nothing_wherever_it_was_torn() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(directory.path()).unwrap();
        ledger
            .take([(key(80), owner("web")), (key(443), owner("web"))])
            .unwrap();
        drop(ledger);
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (entries, state) = Entries::read(directory.path()).unwrap();
            let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(entries.len(), lines.saturating_sub(1), "cut at {length}");
            let at_a_line_end = length > 0 && whole[length - 1] == b'\n';
            assert_eq!(state == LedgerState::Whole, at_a_line_end, "cut at {length}");
        }
    }

    /// `/dev/full` takes nothing, as a full disk does.
    #[test]
    fn after_a_full_disk_the_ledger_is_written_whole_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(directory.path()).unwrap();
        ledger.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let refused = ledger.take([(key(80), owner("web"))]);
        assert!(matches!(refused, Err(LedgerError::Write { .. })), "{refused:?}");
        assert!(
            !ledger.entries().owns(&key(80)),
            "what the disk does not know is not ours"
        );
        ledger.take([(key(443), owner("web"))]).unwrap();
        drop(ledger);
        let (entries, state) = Entries::read(directory.path()).unwrap();
        assert_eq!(
            (state, entries.keys().collect()),
            (LedgerState::Whole, vec![key(443)])
        );
    }

    #[test]
    fn a_second_process_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Ledger::open(directory.path()).unwrap();
        assert!(matches!(
            Ledger::open(directory.path()),
            Err(LedgerError::InUse { .. })
        ));
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(directory.path()).unwrap();
        for _ in 0..STALE_LINES {
            ledger.take([(key(80), owner("web"))]).unwrap();
            ledger.give_up([key(80)]).unwrap();
        }
        assert!(fs::metadata(directory.path().join(FILE)).unwrap().len() < 100 * STALE_LINES as u64);
    }
}
