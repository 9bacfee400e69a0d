//! The journal: what Weir has changed on a node that neither the kernel nor a name shows as Weir's. It is the file `host`
//! of the state directory, written before the kernel is changed:
//!
//! ```text
//! weir host 1 5c0f4b7a90d1e233
//! {"sysctls":{"net.ipv4.ip_forward":{"before":"0","set":"1"}},"guePorts":[{"ipv6":false,"port":6080}],"links":[]}
//! ```
//!
//! The number is a digest of the second line ([`durable::document`]). A file that does not match it counts for nothing: what it recorded is not
//! provably ours, so nothing is restored and nothing closed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::{self, Readers};

use super::state::{ChangedSysctl, GuePort};

const FILE: &str = "host";
const VERSION: &str = "weir host 1";
/// The largest journal, in bytes.
const LIMIT: u64 = 4 << 20;

/// What the journal records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) sysctls: BTreeMap<Box<str>, ChangedSysctl>,
    pub(super) gue_ports: BTreeSet<GuePort>,
    /// Links that are being made: the kernel takes the alias that shows whose a link is only once it has the link.
    pub(super) links: BTreeSet<Box<str>>,
}

/// The record as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    sysctls: BTreeMap<Box<str>, SysctlForm>,
    gue_ports: Vec<PortForm>,
    links: BTreeSet<Box<str>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SysctlForm {
    before: Box<str>,
    set: Box<str>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PortForm {
    ipv6: bool,
    port: NonZeroU16,
}

/// The journal of a state directory.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    record: Record,
}

impl Journal {
    /// Reads the journal; nothing is written before something is to be recorded.
    ///
    /// # Errors
    ///
    /// It is there and cannot be read.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let bytes = durable::read(&directory.join(FILE), LIMIT)?;
        let record = bytes.and_then(|bytes| parse(&String::from_utf8_lossy(&bytes)));
        Ok(Self {
            directory: directory.to_owned(),
            record: record.unwrap_or_default(),
        })
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Changes the record; when this returns, the disk knows.
    ///
    /// # Errors
    ///
    /// The disk does not; then the record is as it was, and what it is about must not happen.
    pub(super) fn write(&mut self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut record = self.record.clone();
        change(&mut record);
        if record == self.record {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let text = durable::document(VERSION, &print(&record)?);
        durable::replace(&self.directory.join(FILE), text.as_bytes(), Readers::Everyone)?;
        self.record = record;
        Ok(())
    }
}

fn print(record: &Record) -> io::Result<String> {
    let sysctls = record.sysctls.iter().map(|(name, changed)| {
        let ChangedSysctl { before, set } = changed.clone();
        (name.clone(), SysctlForm { before, set })
    });
    let ports = record.gue_ports.iter().map(|GuePort { ipv6, port }| PortForm {
        ipv6: *ipv6,
        port: *port,
    });
    let form = Form {
        sysctls: sysctls.collect(),
        gue_ports: ports.collect(),
        links: record.links.clone(),
    };
    Ok(serde_json::to_string(&form)?)
}

fn parse(text: &str) -> Option<Record> {
    let Form {
        sysctls,
        gue_ports,
        links,
    } = serde_json::from_str(durable::body(VERSION, text)?).ok()?;
    let sysctls = sysctls
        .into_iter()
        .map(|(name, SysctlForm { before, set })| (name, ChangedSysctl { before, set }));
    let ports = gue_ports
        .into_iter()
        .map(|PortForm { ipv6, port }| GuePort { ipv6, port });
    Some(Record {
        sysctls: sysctls.collect(),
        gue_ports: ports.collect(),
        links,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(journal: &mut Journal) {
        let changed = ChangedSysctl {
            before: "0".into(),
            set: "1".into(),
        };
        let port = GuePort {
            ipv6: true,
            port: NonZeroU16::MIN,
        };
        journal
            .write(|record| {
                record.sysctls.insert("net.ipv4.ip_forward".into(), changed);
                record.gue_ports.insert(port);
                record.links.insert("weir0".into());
            })
            .unwrap();
    }

    #[test]
    fn what_was_recorded_is_known_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&directory.path().join("deep/er")).unwrap();
        record(&mut journal);
        let again = Journal::open(&directory.path().join("deep/er")).unwrap();
        assert_eq!(again.record(), journal.record());
        assert_eq!(again.record().sysctls.len(), 1);
    }

    /// As released versions wrote it.
    #[test]
    fn a_journal_of_an_earlier_version_is_read() {
        let text = concat!(
            "weir host 1 f279c10820522c09\n",
            r#"{"sysctls":{"net.ipv4.ip_forward":{"before":"0","set":"1"}},"guePorts":[{"ipv6":false,"port":6080}],"links":["weir0"]}"#,
            "\n"
        );
        let record = parse(text).unwrap();
        assert_eq!(&*record.sysctls["net.ipv4.ip_forward"].before, "0");
        assert!(record.links.contains("weir0"));
    }

    #[test]
    fn a_torn_journal_counts_for_nothing_wherever_it_was_torn() {
        let directory = tempfile::tempdir().unwrap();
        record(&mut Journal::open(directory.path()).unwrap());
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(
                *Journal::open(directory.path()).unwrap().record(),
                Record::default(),
                "cut at {length}"
            );
        }
        fs::write(&path, [0xff; 40]).unwrap();
        assert_eq!(
            *Journal::open(directory.path()).unwrap().record(),
            Record::default()
        );
    }

    #[test]
    fn what_the_disk_does_not_know_is_not_recorded() {
        let mut journal = Journal::open(Path::new("/proc/nosuch")).unwrap();
        assert!(
            journal
                .write(|record| {
                    record.gue_ports.insert(GuePort {
                        ipv6: false,
                        port: NonZeroU16::MIN,
                    });
                })
                .is_err()
        );
        assert_eq!(*journal.record(), Record::default());
    }
}
