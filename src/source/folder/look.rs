//! A look at a folder: the files that may have changed are read, and the bookkeeping says what that leads to.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Update;
use crate::source::cache::Copies;
use crate::source::manifest::{self, Diagnostic, Manifest};

use super::files::{self, Stamp};
use super::state::{FolderState, Reading};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Every file that is in another state than when it was read. Some are left out since they are being written.
    All {
        /// Their names.
        except: BTreeSet<String>,
    },
    /// The files of these names, in whatever state they are.
    Some(BTreeSet<String>),
}

type Names = Vec<Arc<str>>;

/// A folder and what was read of it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    state: FolderState,
    stamps: HashMap<Arc<str>, Stamp>,
    /// Which folder it was that was last looked at as a whole.
    identity: Option<(u64, u64)>,
    /// Why the folder cannot be looked at.
    trouble: Option<String>,
    copies: Option<Copies>,
}

impl Folder {
    /// A folder of which nothing has been read; copies of its manifests may be kept.
    pub fn new(path: PathBuf, copies: Option<Copies>) -> Self {
        Self {
            path,
            state: FolderState::default(),
            stamps: HashMap::new(),
            identity: None,
            trouble: None,
            copies,
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which folder was last looked at as a whole.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.identity
    }

    /// Looks, and tells file by file what changed. A folder that is not there or cannot be read takes nothing away.
    pub fn look(&mut self, look: &Look, tell: &mut dyn FnMut(Vec<Update>)) {
        match self.try_look(look, tell) {
            Ok(()) => self.trouble = None,
            Err(error) => {
                self.trouble = Some(self.describe(&error));
                // Whatever is there when it comes back, all of it has to be looked at.
                self.identity = None;
            }
        }
    }

    /// Whether some file has never been read to its end.
    pub fn unread(&self) -> bool {
        self.state.unread()
    }

    /// Everything that is wrong now.
    pub fn problems(&self) -> Vec<String> {
        self.trouble
            .iter()
            .cloned()
            .chain(self.state.problems())
            .chain(self.copies.iter().flat_map(Copies::problems))
            .collect()
    }

    fn try_look(&mut self, look: &Look, tell: &mut dyn FnMut(Vec<Update>)) -> io::Result<()> {
        let identity = files::identity(&self.path)?;
        let everything = Look::All {
            except: BTreeSet::new(),
        };
        let look = if self.identity == Some(identity) {
            look
        } else {
            &everything
        };
        let (gone, changed): (Names, Names) = match look {
            Look::All { except } => self.compare(except)?,
            Look::Some(names) => names
                .iter()
                .map(|name| self.shown(name))
                .partition(|file| files::is_gone(&self.path_of(file))),
        };
        // Where the folder itself went meanwhile, its files only seem to be gone.
        if files::identity(&self.path)? != identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.identity.is_none()
            && let Some(copies) = &mut self.copies
        {
            copies.retain(&files::list(&self.path)?);
        }
        self.identity = Some(identity);
        for file in gone {
            self.stamps.remove(&file);
            if let Some(copies) = &mut self.copies {
                copies.remove(&file);
            }
            tell(self.state.take(&file, Reading::Gone));
        }
        self.read(changed, tell);
        loop {
            let settled = self.state.settle();
            tell(settled.updates);
            if settled.read_again.is_empty() {
                return Ok(());
            }
            self.read(settled.read_again, tell);
        }
    }

    /// Files that are gone, and files that are in another state than when they were read.
    fn compare(&self, except: &BTreeSet<String>) -> io::Result<(Names, Names)> {
        let listed = files::list(&self.path)?;
        let there: BTreeSet<Arc<str>> = listed.iter().map(|name| self.shown(name)).collect();
        let gone = self.state.files().filter(|file| !there.contains(*file));
        let except: BTreeSet<Arc<str>> = except.iter().map(|name| self.shown(name)).collect();
        let changed = there.iter().filter(|file| {
            let stamp = files::stamp(&self.path_of(file));
            !except.contains(*file) && (stamp.is_none() || stamp.as_ref() != self.stamps.get(*file))
        });
        Ok((gone.cloned().collect(), changed.cloned().collect()))
    }

    fn read(&mut self, files: impl IntoIterator<Item = Arc<str>>, tell: &mut dyn FnMut(Vec<Update>)) {
        for file in files {
            let path = self.path_of(&file);
            let reading = match files::content(&path) {
                Ok(None) => continue,
                Ok(Some((content, stamp))) => {
                    self.stamps.insert(file.clone(), stamp);
                    Reading::Manifest(self.manifest(&file, &content))
                }
                // A file that went just now is not unreadable: the next look finds it gone.
                Err(_) if files::is_gone(&path) && self.knows(&file) => continue,
                Err(error) => {
                    self.stamps.remove(&file);
                    self.unreadable(&file, files::unreadable(&file, &error))
                }
            };
            tell(self.state.take(&file, reading));
        }
    }

    fn manifest(&mut self, file: &Arc<str>, content: &[u8]) -> Manifest {
        let mut manifest = manifest::read(file, content);
        let is_first = !self.knows(file);
        if let Some(copies) = &mut self.copies {
            copies.take(file, content, &mut manifest, is_first);
        }
        manifest
    }

    fn unreadable(&mut self, file: &Arc<str>, problem: Diagnostic) -> Reading {
        let is_first = !self.knows(file);
        let copies = self.copies.as_mut().filter(|_| is_first);
        match copies.and_then(|copies| copies.stand_in(file, problem.clone())) {
            Some(manifest) => Reading::Manifest(manifest),
            None => Reading::Unreadable(problem),
        }
    }

    fn knows(&self, file: &Arc<str>) -> bool {
        self.state.files().any(|known| known == file)
    }

    /// What a file is called in messages.
    fn shown(&self, name: &str) -> Arc<str> {
        self.path.join(name).to_string_lossy().into()
    }

    fn path_of(&self, shown: &Arc<str>) -> PathBuf {
        match Path::new(&**shown).file_name() {
            Some(name) => self.path.join(name),
            None => self.path.clone(),
        }
    }

    fn describe(&self, error: &io::Error) -> String {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "create it, or give another folder",
            io::ErrorKind::NotADirectory => "give the folder that the manifest is in",
            io::ErrorKind::PermissionDenied => "let Weir's user read it",
            _ => "it is tried again every second",
        };
        let shown = self.path.to_string_lossy().into();
        let message = format!("cannot read this folder: {error}; what it held before stays in force");
        Diagnostic::of_file(&shown, message).help(help).draw(false)
    }
}
