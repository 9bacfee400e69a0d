//! Files that outlast a crash: replaced as a whole, read within bounds, and checked for damage.
//!
//! Two forms of text, both with a version in the first line:
//!
//! ```text
//! weir ledger 1                       records: lines, each with a digest of itself, for a file that is appended to
//! + TCP 10.0.0.200:80 shop/web 5c0f4b7a90d1e233
//!
//! weir host 1 5c0f4b7a90d1e233        a document: with a digest of all that follows, for a file that is replaced
//! {"sysctls":{}}
//! ```
//!
//! The digest is [`digest::text`], so a single changed byte is always noticed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::digest;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Whoever can reach it.
    Everyone,
    /// Weir's user only.
    Owner,
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Self::Everyone => 0o644,
            Self::Owner => 0o600,
        }
    }
}

/// Replaces a file: after a crash there is the old one or the new one, and when this returns, the new one. It is
/// written beside the old one, under the name with `.new` at its end. Returns the file, open for appending to it.
///
/// # Errors
///
/// It cannot be written. The old file is as it was, unless only the folder could not be synchronized.
pub fn replace(path: &Path, content: &[u8], readers: Readers) -> io::Result<File> {
    let temporary = temporary(path);
    let file = write(&temporary, content, readers)
        .and_then(|file| {
            fs::rename(&temporary, path)?;
            Ok(file)
        })
        .inspect_err(|_| {
            // On a full disk it would be in the way of everything else.
            let _ = fs::remove_file(&temporary);
        })?;
    // Renaming changes the folder, which is on disk no sooner than it is synchronized itself.
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write(path: &Path, content: &[u8], readers: Readers) -> io::Result<File> {
    // One that a crash left keeps its mode when it is written over.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(readers.mode())
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(file)
}

/// Reads a file, if there is one.
///
/// # Errors
///
/// It cannot be read, or has more than `limit` bytes ([`io::ErrorKind::FileTooLarge`]).
pub fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(content))
}

/// Ends a record: appends to the text that begins at `start`, which has no line end in it, its digest.
pub fn end_record(text: &mut String, start: usize) {
    let digest = digest::text(&text[start..]);
    text.push_str(&format!(" {digest:016x}\n"));
}

/// The records of a text, each without its digest; `None` for one that is damaged. A first line that is not this version
/// counts as one that is.
pub fn records<'t>(version: &str, text: &'t str) -> impl Iterator<Item = Option<&'t str>> {
    let mut lines = text.split_inclusive('\n');
    let is_known = lines.next().and_then(|line| line.strip_suffix('\n')) == Some(version);
    let damaged = (!is_known).then_some(None);
    damaged.into_iter().chain(lines.map(record))
}

fn record(line: &str) -> Option<&str> {
    let (body, digest) = line.strip_suffix('\n')?.rsplit_once(' ')?;
    (parse(digest)? == digest::text(body)).then_some(body)
}

/// A document of a version.
pub fn document(version: &str, body: &str) -> String {
    format!("{version} {:016x}\n{body}\n", digest::text(body))
}

/// What a document of this version says, unless it is damaged.
pub fn body<'t>(version: &str, text: &'t str) -> Option<&'t str> {
    let (header, body) = text.split_once('\n')?;
    let digest = header.strip_prefix(version)?.strip_prefix(' ')?;
    let body = body.strip_suffix('\n')?;
    (parse(digest)? == digest::text(body)).then_some(body)
}

/// A digest as it is written, and in no other way.
fn parse(digest: &str) -> Option<u64> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_written = digest.len() == 16 && digest.bytes().all(is_digit);
    u64::from_str_radix(digest, 16).ok().filter(|_| is_written)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_can_be_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        // As a crash leaves it.
        fs::write(folder.path().join("ledger.new"), "half of some").unwrap();
        replace(&path, b"one", Readers::Everyone).unwrap();
        let mut file = replace(&path, b"two", Readers::Owner).unwrap();
        file.write_all(b" and more").unwrap();
        assert_eq!(read(&path, 12).unwrap().as_deref(), Some(&b"two and more"[..]));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// A folder in the new file's place fails as late as any other cause does.
    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"one", Readers::Owner).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("no/ledger"), b"one", Readers::Owner).is_err());
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        assert_eq!(read(&path, 3).unwrap(), None);
        fs::write(&path, "four").unwrap();
        let error = read(&path, 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&path, 4).unwrap().as_deref(), Some(&b"four"[..]));
    }

    #[test]
    fn damage_to_a_document_is_noticed_wherever_it_is() {
        let whole = document("weir host 1", "{\"a\":\n1}");
        assert_eq!(body("weir host 1", &whole), Some("{\"a\":\n1}"));
        assert_eq!(body("weir host 2", &whole), None);
        assert_eq!(body("weir host", &whole), None);
        for length in 0..whole.len() {
            assert_eq!(body("weir host 1", &whole[..length]), None, "cut at {length}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone().into_bytes();
            for bit in 0..7 {
                bytes[at] ^= 1 << bit;
                let text = String::from_utf8(bytes.clone()).unwrap();
                assert_eq!(body("weir host 1", &text), None, "bit {bit} of byte {at}");
                bytes[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn a_damaged_record_leaves_the_others() {
        let mut text = "weir ledger 1\n".to_owned();
        for record in ["+ a", "- b"] {
            let start = text.len();
            text.push_str(record);
            end_record(&mut text, start);
        }
        let read = |text: &str| -> Vec<Option<String>> {
            let records = records("weir ledger 1", text);
            records.map(|record| record.map(str::to_owned)).collect()
        };
        let [a, b] = ["+ a", "- b"].map(|record| Some(record.to_owned()));
        assert_eq!(read(&text), [a.clone(), b.clone()]);
        assert_eq!(read(&text.replace("+ a", "+ c")), [None, b.clone()]);
        assert_eq!(read(&text[..text.len() - 1]), [a.clone(), None]);
        assert_eq!(read(&text.replace("ledger 1", "ledger 2")), [None, a, b]);
        assert_eq!(read(""), [None]);
    }
}
