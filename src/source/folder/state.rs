//! Which file gave which object, and what a change of a file leads to. Pure: files come as what was read of them.
//!
//! - The first file in the order of names holds an object that several have; the others are a problem.
//! - What cannot be read takes nothing away: the objects a file gave last time stay until it can be read again.
//! - An object is deleted when no file has it at the end of a batch of changes, so that one that moves from file
//!   to file is never gone in between.
//!
//! Of an object no more is kept than its name, its line and a digest: a folder may hold a hundred thousand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::catalog::{ObjectRef, Update};
use crate::source::manifest::{Diagnostic, Level, Manifest, Place};

/// What became of reading a file.
#[derive(Debug)]
pub enum Reading {
    /// It was read.
    Manifest(Manifest),
    /// It is there and could not be read.
    Unreadable(Diagnostic),
    /// It is gone.
    Gone,
}

/// What a batch of changes leads to in the end.
#[derive(Debug, Default, PartialEq)]
pub struct Settled {
    /// Objects that no file has any more.
    pub updates: Vec<Update>,
    /// Files that hold an object now that another file held, and have to be read for its form.
    pub read_again: BTreeSet<Arc<str>>,
}

/// The files of a folder and their objects.
#[derive(Debug, Default)]
pub struct FolderState {
    files: BTreeMap<Arc<str>, File>,
    /// The file whose form of an object is in force.
    holders: HashMap<ObjectRef, Arc<str>>,
    /// The files of an object that several have.
    rivals: BTreeMap<ObjectRef, BTreeSet<Arc<str>>>,
    /// Objects that their file no longer has, in this batch.
    lost: BTreeSet<ObjectRef>,
    read_again: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectRef, Entry>,
    problems: Vec<String>,
    /// Whether it has never been read to its end, so that it may hold objects that nobody has heard of.
    unread: bool,
}

/// An object in a file.
#[derive(Debug)]
struct Entry {
    line: usize,
    /// Of the form this file last brought into force; none while another file's is.
    digest: Option<u64>,
}

impl FolderState {
    /// Takes in what was read of a file, and says what changes at once.
    pub fn take(&mut self, file: &Arc<str>, reading: Reading) -> Vec<Update> {
        match reading {
            Reading::Manifest(manifest) => self.take_manifest(file, manifest),
            Reading::Unreadable(problem) => {
                let unread = self.never_read(file);
                let entry = self.files.entry(file.clone()).or_default();
                entry.problems = vec![problem.draw(false)];
                entry.unread = unread;
                Vec::new()
            }
            Reading::Gone => {
                let objects = self.files.remove(file).unwrap_or_default().objects;
                for object in objects.into_keys() {
                    self.release(file, object);
                }
                Vec::new()
            }
        }
    }

    /// Ends a batch of changes.
    pub fn settle(&mut self) -> Settled {
        let lost = std::mem::take(&mut self.lost);
        Settled {
            updates: lost
                .into_iter()
                .filter(|object| !self.holders.contains_key(object))
                .map(Update::Delete)
                .collect(),
            read_again: std::mem::take(&mut self.read_again),
        }
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.keys()
    }

    /// Whether some file has never been read to its end.
    pub fn unread(&self) -> bool {
        self.files.values().any(|file| file.unread)
    }

    fn never_read(&self, file: &Arc<str>) -> bool {
        self.files.get(file).is_none_or(|file| file.unread)
    }

    /// Everything that is wrong now.
    pub fn problems(&self) -> Vec<String> {
        let of_files = self.files.values().flat_map(|file| file.problems.iter().cloned());
        let of_rivals = self.rivals.iter().flat_map(|(object, files)| {
            let holder = self.holders.get(object);
            files
                .iter()
                .filter(move |file| Some(*file) != holder)
                .filter_map(move |file| Some(self.rivalry(object, file, holder?)))
        });
        of_files.chain(of_rivals).collect()
    }

    fn take_manifest(&mut self, file: &Arc<str>, manifest: Manifest) -> Vec<Update> {
        let unread = manifest.has_unreadable && self.never_read(file);
        let mut before = self.files.remove(file).unwrap_or_default().objects;
        let mut now = File {
            unread,
            ..File::default()
        };
        let mut updates = Vec::new();
        for object in manifest.objects {
            let in_force = before.remove(&object.object).and_then(|entry| entry.digest);
            let digest = self.claim(file, &object.object).then_some(object.digest);
            let entry = Entry {
                line: object.line,
                digest,
            };
            now.objects.insert(object.object.clone(), entry);
            if digest.is_some() && digest != in_force {
                updates.push(object.into_update());
            }
        }
        if manifest.has_unreadable {
            // Any of them may be what could not be read.
            now.objects.append(&mut before);
        }
        let errors = manifest
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.level == Level::Error);
        now.problems = errors.map(|diagnostic| diagnostic.draw(false)).collect();
        self.files.insert(file.clone(), now);
        for object in before.into_keys() {
            self.release(file, object);
        }
        updates
    }

    /// Notes that a file has an object; says whether it is this file that holds it.
    fn claim(&mut self, file: &Arc<str>, object: &ObjectRef) -> bool {
        let Some(holder) = self.holders.get(object) else {
            self.holders.insert(object.clone(), file.clone());
            return true;
        };
        if holder == file {
            return true;
        }
        let rivals = self.rivals.entry(object.clone()).or_default();
        rivals.insert(holder.clone());
        rivals.insert(file.clone());
        if holder < file {
            return false;
        }
        let entry = self
            .files
            .get_mut(holder)
            .and_then(|loser| loser.objects.get_mut(object));
        if let Some(entry) = entry {
            entry.digest = None;
        }
        self.holders.insert(object.clone(), file.clone());
        true
    }

    /// Notes that a file no longer has an object.
    fn release(&mut self, file: &Arc<str>, object: ObjectRef) {
        let is_holder = self.holders.get(&object) == Some(file);
        let mut next = None;
        if let Some(rivals) = self.rivals.get_mut(&object) {
            rivals.remove(file);
            next = rivals.first().cloned();
            if rivals.len() < 2 {
                self.rivals.remove(&object);
            }
        }
        if !is_holder {
            return;
        }
        match next {
            Some(next) => {
                self.read_again.insert(next.clone());
                self.holders.insert(object, next);
            }
            None => {
                self.holders.remove(&object);
                self.lost.insert(object);
            }
        }
    }

    /// Says that an object stands in two files.
    fn rivalry(&self, object: &ObjectRef, file: &Arc<str>, holder: &Arc<str>) -> String {
        let line = |file: &Arc<str>| {
            let entry = self.files.get(file).and_then(|file| file.objects.get(object));
            entry.map_or(1, |entry| entry.line)
        };
        rivalry(object, (file, line(file)), (holder, line(holder))).draw(false)
    }
}

/// Says that an object stands in a file, and in an earlier one that holds it.
pub(super) fn rivalry(
    object: &ObjectRef,
    file: (&Arc<str>, usize),
    holder: (&Arc<str>, usize),
) -> Diagnostic {
    let mut diagnostic = Diagnostic::of_file(file.0, format!("{object} stands in two files"));
    diagnostic.place = Some(Place {
        line: file.1,
        column: 1,
    });
    diagnostic.object = Some(object.clone());
    diagnostic.help(format!(
        "{}:{} came first and holds: remove or rename one of the two",
        holder.0, holder.1
    ))
}

#[cfg(test)]
mod tests;
