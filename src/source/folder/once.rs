//! Manifests read once, for commands that take `-f`.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{ObjectRef, Update};
use crate::source::manifest::{self, Diagnostic, Level, Manifest};

use super::files;
use super::state::{Reading, rivalry};

/// What some files say together.
#[derive(Debug, Default)]
pub struct FolderReading {
    /// The objects, in the order of files and places.
    pub updates: Vec<Update>,
    /// What is wrong, in the same order.
    pub diagnostics: Vec<Diagnostic>,
    /// How many files were read.
    pub files: usize,
    /// How many objects are not for Weir.
    pub skipped: usize,
}

impl FolderReading {
    /// Whether anything cannot be used as it is written.
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.level == Level::Error)
    }
}

/// Reads files, the manifests directly in folders, and standard input (`-`). The first place of an object holds.
pub fn read_paths<P: AsRef<Path>>(paths: &[P]) -> FolderReading {
    let mut collector = Collector::default();
    for path in paths {
        collector.read(path.as_ref());
    }
    collector.reading
}

#[derive(Default)]
struct Collector {
    reading: FolderReading,
    seen: HashMap<ObjectRef, (Arc<str>, usize)>,
}

impl Collector {
    fn read(&mut self, path: &Path) {
        let shown: Arc<str> = path.to_string_lossy().into();
        if path == Path::new("-") {
            self.read_stdin();
        } else if path.is_dir() {
            match files::list(path) {
                Ok(names) => names.iter().for_each(|name| self.read_file(path.join(name))),
                Err(error) => {
                    let message = format!("cannot read this folder: {error}");
                    self.reading
                        .diagnostics
                        .push(Diagnostic::of_file(&shown, message));
                }
            }
        } else {
            self.read_file(path.to_owned());
        }
    }

    fn read_stdin(&mut self) {
        let shown = Arc::from("standard input");
        let mut content = Vec::new();
        match io::stdin().lock().read_to_end(&mut content) {
            Ok(_) => self.take(&shown, manifest::read(&shown, &content)),
            Err(error) => self.reading.diagnostics.push(files::unreadable(&shown, &error)),
        }
    }

    fn read_file(&mut self, path: PathBuf) {
        let shown: Arc<str> = path.to_string_lossy().into();
        match files::read(&shown, &path) {
            Some(Reading::Manifest(manifest)) => self.take(&shown, manifest),
            Some(Reading::Unreadable(diagnostic)) => self.reading.diagnostics.push(diagnostic),
            Some(Reading::Gone) | None => {}
        }
    }

    fn take(&mut self, file: &Arc<str>, manifest: Manifest) {
        self.reading.files += 1;
        self.reading.skipped += manifest.skipped;
        self.reading.diagnostics.extend(manifest.diagnostics);
        for object in manifest.objects {
            if let Some((holder, line)) = self.seen.get(&object.object) {
                let rivalry = rivalry(&object.object, (file, object.line), (holder, *line));
                self.reading.diagnostics.push(rivalry);
                continue;
            }
            self.seen
                .insert(object.object.clone(), (file.clone(), object.line));
            self.reading.updates.push(object.into_update());
        }
    }
}
