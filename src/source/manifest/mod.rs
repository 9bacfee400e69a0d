//! Manifests: the text of a file → its objects, or what is wrong and where. Pure.
//!
//! ```text
//! text ─► documents ─► tree (YAML or JSON) ─► resource (serde) ─► plan::validate ─► ManifestObject
//! ```
//!
//! A document is read once. Every value of its tree knows its place, so that whatever is wrong later can be shown
//! where it was written, and a document that cannot be used does not stop the others of its file.
//!
//! | file | what |
//! | --- | --- |
//! | `document` | a file → its documents |
//! | `tree`, `yaml`, `json`, `scalar` | a document → values with their places |
//! | `plain` | the same, fast, for the YAML that manifests mostly are |
//! | `decode` | values → resources |
//! | `object` | a document → objects: whose it is, its name, its validated form |
//! | `diagnostic` | what is wrong, and how it is drawn |

mod decode;
mod diagnostic;
mod document;
mod json;
mod object;
mod plain;
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
use tree::{Node, Span};

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

/// Reads a file's content. JSON is expected where the name ends in `.json`, else YAML, of which JSON is a part.
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
            let fault = Fault::new(span, "here is a byte that is no UTF-8").help("save the file as UTF-8");
            reader.unreadable(Source { file, text }, fault);
        }
    }
    reader.manifest
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
        if source.file.ends_with(".json") {
            self.read_json(source);
            return;
        }
        for span in document::split(source.text) {
            self.read_yaml(source, span);
        }
    }

    /// Reads JSON values, one after the other.
    fn read_json(&mut self, source: Source<'_>) {
        let text = source.text;
        let mut at = skip_space(text, 0);
        while at < text.len() {
            match json::parse(text, at) {
                Ok((root, end)) => {
                    self.document(source, &root, Span { start: at, end }, false);
                    at = skip_space(text, end);
                }
                Err(fault) => {
                    self.unreadable(source, fault);
                    return;
                }
            }
        }
    }

    fn read_yaml(&mut self, source: Source<'_>, span: Span) {
        let text = &source.text[span.start..span.end];
        if text.starts_with('{')
            && let Ok((root, end)) = json::parse(&source.text[..span.end], span.start)
            && end == span.end
        {
            self.document(source, &root, span, false);
            return;
        }
        if let Some(root) = plain::parse(text, span.start) {
            self.document(source, &root, span, false);
            return;
        }
        match yaml::parse(text, span.start) {
            Ok(Some(tree)) => self.document(source, &tree.root, span, tree.has_aliases),
            Ok(None) => {}
            Err(fault) => self.unreadable(source, fault),
        }
    }

    /// Takes in a document; `whole` says that its parts cannot be told apart by their texts alone.
    fn document(&mut self, source: Source<'_>, root: &Node<'_>, span: Span, whole: bool) {
        object::read(self, source, root, span, whole);
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

fn skip_space(text: &str, at: usize) -> usize {
    text.len() - text[at..].trim_start_matches([' ', '\t', '\r', '\n']).len()
}
