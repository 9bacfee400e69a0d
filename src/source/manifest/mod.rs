//! Manifests: the text of a file → its objects, or what is wrong and where. Pure.
//!
//! ```text
//! text ─► documents ─► tree ─► source::decode ─► catalog::validate ─► ManifestObject
//! ```
//!
//! Every value of a tree knows its place, so that whatever is wrong can be shown where it was written. Everything that
//! is wrong with a document is said at once, and a document that cannot be used does not stop the others of its file.
//!
//! | file | what |
//! | --- | --- |
//! | `document` | a file → its documents |
//! | `tree` | values with their places |
//! | `yaml`, `scalar` | a document of YAML, which JSON is as well → its tree |
//! | `object` | a document → objects: whose it is, its name, its validated form |
//! | `diagnostic` | what is wrong, and how it is drawn |

mod diagnostic;
mod document;
mod object;
mod scalar;
#[cfg(test)]
mod tests;
mod tree;
mod yaml;

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::validate::Remark;
use crate::catalog::{Form, ObjectRef, Update};

use diagnostic::{Fault, Source};
use tree::Span;

pub use diagnostic::{Diagnostic, Level, Place};

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// Its objects, in the order they were written; none twice.
    pub objects: Vec<ManifestObject>,
    /// What is wrong, in the order of the places.
    pub diagnostics: Vec<Diagnostic>,
    /// How many objects are not for Weir: those of other API groups, and Weir's own reports.
    pub skipped: usize,
    /// Whether something could not be read of which it is unknown what object it is.
    pub has_unreadable: bool,
}

/// An object of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestObject {
    /// Which.
    pub object: ObjectRef,
    /// The line it begins at.
    pub line: usize,
    /// Of its text: while that stays the same, so does the object.
    pub digest: u64,
    /// Its validated form, unless it is invalid.
    pub form: Option<Form>,
    /// What is invalid or not supported.
    pub remarks: Vec<Remark>,
}

impl ManifestObject {
    /// What to tell a catalog.
    pub fn into_update(self) -> Update {
        Update::Put {
            object: self.object,
            form: self.form,
            remarks: self.remarks,
        }
    }
}

/// Reads a file's content. One whose name ends in `.json` holds JSON values, any other documents of YAML, of which JSON
/// is a part.
pub fn read(file: &Arc<str>, content: &[u8]) -> Manifest {
    let mut reader = Reader::default();
    match std::str::from_utf8(content) {
        Ok(text) => {
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            reader.read(Source { file, text });
        }
        Err(error) => {
            // The text before the wrong byte is enough to show where it is.
            let (good, _) = content.split_at(error.valid_up_to());
            let text = std::str::from_utf8(good).unwrap_or_default();
            let span = Span {
                start: text.len(),
                end: text.len(),
            };
            let fault = Fault::new(span, "invalid UTF-8").help("save the file as UTF-8");
            reader.unreadable(Source { file, text }, fault);
        }
    }
    let mut manifest = reader.manifest;
    manifest.diagnostics.sort_by_key(|diagnostic| diagnostic.place);
    manifest
}

/// Collects what a file says.
#[derive(Default)]
struct Reader {
    manifest: Manifest,
    /// The lines of the objects so far.
    seen: HashMap<ObjectRef, usize>,
    /// The last namespace: most objects of a file are in the same one, and share its text.
    namespace: Option<Arc<str>>,
    /// How many lines end before a place, counted from there on.
    counted: (usize, usize),
}

impl Reader {
    fn read(&mut self, source: Source<'_>) {
        let (documents, fault) = match source.file.ends_with(".json") {
            true => document::split_json(source.text),
            false => (document::split_yaml(source.text), None),
        };
        for span in documents {
            let tree = yaml::parse(&source.text[span.start..span.end], span.start);
            object::read(self, source, tree, span);
        }
        if let Some(fault) = fault {
            self.unreadable(source, fault);
        }
    }

    /// Something is wrong with what could not be told to be any object.
    fn unreadable(&mut self, source: Source<'_>, fault: Fault) {
        self.manifest.has_unreadable = true;
        self.say(source, Level::Error, None, fault);
    }

    fn say(&mut self, source: Source<'_>, level: Level, object: Option<&ObjectRef>, fault: Fault) {
        let diagnostic = source.diagnostic(level, object.cloned(), fault);
        self.manifest.diagnostics.push(diagnostic);
    }

    /// The number of a place's line. Places come nearly in order, so each line end is looked at once.
    fn line(&mut self, source: Source<'_>, at: usize) -> usize {
        let (from, lines) = match self.counted {
            counted if counted.0 <= at => counted,
            _ => (0, 0),
        };
        let lines = lines + diagnostic::newlines(&source.text[from..at]);
        self.counted = (at, lines);
        lines + 1
    }

    fn intern_namespace(&mut self, name: &str) -> Arc<str> {
        match &self.namespace {
            Some(last) if **last == *name => last.clone(),
            _ => self.namespace.insert(name.into()).clone(),
        }
    }
}
