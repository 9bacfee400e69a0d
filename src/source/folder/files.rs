//! Files on disk: which of a folder's are manifests, whether one has changed, and reading it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::source::manifest::{self, Diagnostic};

use super::state::Reading;

/// The largest manifest; a hundred thousand objects take less than a fifth of it.
const MAX_SIZE: u64 = 256 << 20;

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// When the content changed, and when anything about the file did.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Which folder it is that a path leads to: another folder of the same name is another one.
pub(super) fn identity(folder: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(folder)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether a file of this name is a manifest: as for kubectl, and not hidden.
pub(super) fn is_manifest(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The names of a folder's manifests in their order. Names that are no UTF-8 come as well as they can be shown.
pub(super) fn list(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if is_manifest(&name) {
            names.push(name.into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether nothing has this path, not even a link that leads nowhere.
pub(super) fn is_gone(path: &Path) -> bool {
    matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// The state a file is in, if it can be told.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
}

/// Reads a manifest. A folder named like a manifest is none.
pub(super) fn read(shown: &Arc<str>, path: &Path) -> Option<Reading> {
    match content(path) {
        Ok(None) => None,
        Ok(Some((content, _))) => Some(Reading::Manifest(manifest::read(shown, &content))),
        Err(error) => Some(Reading::Unreadable(unreadable(shown, &error))),
    }
}

/// Says that a file cannot be read.
pub(super) fn unreadable(shown: &Arc<str>, error: &io::Error) -> Diagnostic {
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied => "let Weir's user read it",
        io::ErrorKind::NotFound => "is it a link that leads nowhere, or is the name no UTF-8?",
        io::ErrorKind::FileTooLarge => "split it: a manifest has at most 256 MiB",
        _ => "what it held before stays in force until it can be read",
    };
    Diagnostic::of_file(shown, format!("cannot read this file: {error}")).help(help)
}

/// The content of a manifest; with the state it was in before, so that what is written meanwhile is seen as a change.
pub(super) fn content(path: &Path) -> io::Result<Option<(Vec<u8>, Stamp)>> {
    // Before opening: of a pipe that would never return.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(None);
    }
    if metadata.len() > MAX_SIZE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1);
    fs::File::open(path)?.take(MAX_SIZE).read_to_end(&mut content)?;
    Ok(Some((content, Stamp::of(&metadata))))
}
