//! The last good texts of a folder's manifests: each manifest has a copy of its own in the state directory, so that of
//! a hundred thousand objects nothing is held in memory.
//!
//! ```text
//! weir manifest 1 5c0f4b7a90d1e233
//! {"folder":"/etc/weir","saved":1764150000,"texts":[{"length":180,"digest":"77a1c0de12f3ab09"}]}
//! apiVersion: weir.dev/v1alpha1
//! …
//! ```
//!
//! A copy mostly has one text: the manifest as it is. While something in it is wrong there may be earlier ones before it,
//! each with the names of the objects that were last good in it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::ObjectRef;
use crate::digest;
use crate::durable::{self, Readers};
use crate::source::manifest::{self, Level, Manifest, ManifestObject};

const DIRECTORY: &str = "manifests";
const VERSION: &str = "weir manifest 1";
/// The largest copy, in bytes.
const MAX_SIZE: u64 = 64 << 20;
/// Where the header of a copy with a single text ends at the latest: a path has at most 4096 bytes.
const MAX_HEADER: u64 = 32 << 10;

/// The copies of a folder's manifests.
#[derive(Debug)]
pub struct Copies {
    directory: PathBuf,
    /// The folder. Copies of another one's manifests are not for use.
    folder: String,
    /// What is wrong, by the manifest that it is wrong with.
    problems: BTreeMap<Arc<str>, String>,
    /// What is in force only because there are copies, by the manifest.
    restored: BTreeMap<Arc<str>, String>,
}

/// The first line of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    folder: String,
    /// Seconds since 1970.
    saved: i64,
    texts: Vec<TextHeader>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TextHeader {
    length: usize,
    digest: String,
    /// The objects that it is the last good text of; if that is not said, all that are good in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    objects: Option<BTreeSet<String>>,
}

/// A text of a manifest, and of which objects it is the last good one: all that are good in it, if that is not said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Text<'t> {
    text: Cow<'t, str>,
    objects: Option<BTreeSet<String>>,
}

impl<'t> Text<'t> {
    fn whole(text: &'t str) -> Self {
        Self {
            text: text.into(),
            objects: None,
        }
    }

    fn header(&self) -> TextHeader {
        TextHeader {
            length: self.text.len(),
            digest: format!("{:016x}", digest::text(&self.text)),
            objects: self.objects.clone(),
        }
    }

    fn covers(&self, object: &ManifestObject) -> bool {
        let objects = self.objects.as_ref();
        object.form.is_some() && objects.is_none_or(|objects| objects.contains(&object.object.to_string()))
    }
}

/// Texts of a manifest, the latest at the end, and when they were saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Copy {
    saved: i64,
    texts: Vec<Text<'static>>,
}

impl Copies {
    /// The copies in a state directory; there need not be any yet.
    pub fn new(state: &Path, folder: &Path) -> Self {
        Self {
            directory: state.join(DIRECTORY),
            folder: folder.to_string_lossy().into_owned(),
            problems: BTreeMap::new(),
            restored: BTreeMap::new(),
        }
    }

    /// Takes in what was read of a manifest, whose content that was. If it is the first time since the start, objects
    /// that cannot be read are put into it as they last could be.
    pub fn take(&mut self, file: &Arc<str>, content: &[u8], manifest: &mut Manifest, is_first: bool) {
        self.problems.remove(file);
        self.restored.remove(file);
        let text = std::str::from_utf8(content).unwrap_or_default();
        let is_good = |diagnostic: &manifest::Diagnostic| diagnostic.level != Level::Error;
        let done = if manifest.diagnostics.iter().all(is_good) {
            self.save(file, &[Text::whole(text)])
        } else {
            self.take_broken(file, text, manifest, is_first)
        };
        if let Err(problem) = done {
            self.problems.insert(file.clone(), problem);
        }
    }

    /// What is in force of a manifest that cannot be read at all since the start, if it could be earlier.
    pub fn stand_in(&mut self, file: &Arc<str>, problem: manifest::Diagnostic) -> Option<Manifest> {
        let mut manifest = Manifest {
            has_unreadable: true,
            diagnostics: vec![problem],
            ..Manifest::default()
        };
        self.take(file, b"", &mut manifest, true);
        (!manifest.objects.is_empty()).then_some(manifest)
    }

    /// Takes in that a manifest is gone.
    pub fn remove(&mut self, file: &Arc<str>) {
        self.problems.remove(file);
        self.restored.remove(file);
        // Whether it was there or not: a copy is of use only while there is the manifest.
        let _ = fs::remove_file(self.path(file));
    }

    /// Lets go of copies of manifests that are no longer among these names.
    pub fn retain(&mut self, names: &[String]) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for entry in entries.flatten() {
            if !names.contains(&*entry.file_name().to_string_lossy()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Everything that is to be said now.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.problems.values().chain(self.restored.values()).cloned()
    }

    fn take_broken(
        &mut self,
        file: &Arc<str>,
        text: &str,
        manifest: &mut Manifest,
        is_first: bool,
    ) -> Result<(), String> {
        let Copy { saved, texts } = self.load(file)?;
        let is_of_use = manifest.objects.iter().any(|object| object.form.is_some());
        let missing = missing(file, &texts, manifest);
        let mut kept = still_needed(texts, &missing);
        if is_of_use {
            kept.push(Text::whole(text));
        }
        let result = self.save(file, &kept);
        if is_first && !missing.is_empty() {
            let at = Timestamp::from_second(saved)
                .map_or_else(|_| "an unknown time".to_owned(), |at| at.to_string());
            let count = missing.len();
            self.restored.insert(
                file.clone(),
                format!("{file}: what cannot be read is in force as it was saved at {at}: {count} object(s)"),
            );
            restore(manifest, missing.into_values().map(|(_, object)| object));
        }
        result
    }

    fn path(&self, file: &str) -> PathBuf {
        let name = Path::new(file).file_name().unwrap_or_default();
        self.directory.join(name)
    }

    fn load(&self, file: &str) -> Result<Copy, String> {
        let path = self.path(file);
        let unusable = |why: &dyn std::fmt::Display| {
            format!(
                "cannot use {}, the copy of {file} when it was last good: {why}",
                path.display()
            )
        };
        let Some(bytes) = durable::read(&path, MAX_SIZE).map_err(|error| unusable(&error))? else {
            return Ok(Copy::default());
        };
        let Some((folder, copy)) = decode(&bytes) else {
            return Err(unusable(&"it is damaged, or another version of Weir wrote it"));
        };
        Ok(if folder == self.folder {
            copy
        } else {
            Copy::default()
        })
    }

    /// Makes these texts the copy of a manifest.
    fn save(&self, file: &str, texts: &[Text<'_>]) -> Result<(), String> {
        let path = self.path(file);
        let header = Header {
            folder: self.folder.clone(),
            saved: seconds(now()),
            texts: texts.iter().map(Text::header).collect(),
        };
        if is_saved(&path, &header) {
            return Ok(());
        }
        let written = if texts.is_empty() {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        } else {
            self.write(&path, &encode(&header, texts))
        };
        written.map_err(|error| {
            format!("cannot keep a copy of {file}: {error}; should it be broken at the next start, nothing is known of it")
        })
    }

    fn write(&self, path: &Path, copy: &str) -> io::Result<()> {
        if copy.len() as u64 > MAX_SIZE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        fs::create_dir_all(&self.directory)?;
        durable::replace(path, copy.as_bytes(), Readers::Owner).map(drop)
    }
}

/// The last good forms of objects that a manifest has no form of, each with the index of the text that it is from.
fn missing(
    file: &Arc<str>,
    texts: &[Text<'_>],
    manifest: &Manifest,
) -> BTreeMap<ObjectRef, (usize, ManifestObject)> {
    let forms = manifest.objects.iter();
    let forms: BTreeMap<&ObjectRef, bool> = forms
        .map(|object| (&object.object, object.form.is_some()))
        .collect();
    let mut missing = BTreeMap::new();
    for (index, text) in texts.iter().enumerate() {
        for object in manifest::read(file, text.text.as_bytes()).objects {
            let is_missing = match forms.get(&object.object) {
                Some(has_form) => !has_form,
                None => manifest.has_unreadable,
            };
            if is_missing && text.covers(&object) {
                missing.insert(object.object.clone(), (index, object));
            }
        }
    }
    missing
}

/// The texts that any of these objects is from, each for those that are.
fn still_needed(
    texts: Vec<Text<'static>>,
    missing: &BTreeMap<ObjectRef, (usize, ManifestObject)>,
) -> Vec<Text<'static>> {
    let mut names: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (object, (index, _)) in missing {
        names.entry(*index).or_default().insert(object.to_string());
    }
    let texts = texts.into_iter().enumerate();
    let needed = texts.filter_map(|(index, Text { text, .. })| {
        let objects = Some(names.remove(&index)?);
        Some(Text { text, objects })
    });
    needed.collect()
}

/// Puts objects into a manifest that has them without a form, or not at all.
fn restore(manifest: &mut Manifest, objects: impl Iterator<Item = ManifestObject>) {
    let there = manifest.objects.iter().enumerate();
    let there: HashMap<ObjectRef, usize> = there
        .map(|(index, object)| (object.object.clone(), index))
        .collect();
    for saved in objects {
        match there.get(&saved.object) {
            Some(index) => manifest.objects[*index].form = saved.form,
            None => manifest.objects.push(saved),
        }
    }
}

fn encode(header: &Header, texts: &[Text<'_>]) -> String {
    // It cannot fail: it has no map.
    let header = serde_json::to_string(header).unwrap_or_default();
    let texts: Vec<&str> = texts.iter().map(|text| &*text.text).collect();
    durable::document(VERSION, &format!("{header}\n{}", texts.concat()))
}

/// The folder of a copy and what it says, unless it is damaged.
fn decode(bytes: &[u8]) -> Option<(String, Copy)> {
    let body = durable::body(VERSION, std::str::from_utf8(bytes).ok()?)?;
    let (header, mut rest) = body.split_once('\n')?;
    let header: Header = serde_json::from_str(header).ok()?;
    let mut texts = Vec::new();
    for text in header.texts {
        let (this, others) = rest.split_at_checked(text.length)?;
        texts.push(Text {
            text: this.to_owned().into(),
            objects: text.objects,
        });
        rest = others;
    }
    let copy = Copy {
        saved: header.saved,
        texts,
    };
    rest.is_empty().then_some((header.folder, copy))
}

/// Whether a copy says so already, but for its time. Its beginning tells: manifests are read again and again, and mostly
/// found as they were.
fn is_saved(path: &Path, header: &Header) -> bool {
    let read = || -> Option<Header> {
        let mut begin = Vec::new();
        File::open(path)
            .ok()?
            .take(MAX_HEADER)
            .read_to_end(&mut begin)
            .ok()?;
        let mut lines = begin.split(|byte| *byte == b'\n');
        lines.next()?;
        serde_json::from_slice(lines.next()?).ok()
    };
    read().is_some_and(|saved| (saved.folder, saved.texts) == (header.folder.clone(), header.texts.clone()))
}

fn seconds(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
}

#[allow(clippy::disallowed_methods, reason = "a driver: nothing is decided by it")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
