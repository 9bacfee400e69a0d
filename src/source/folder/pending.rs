//! What the file system said since the last look.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use tokio::sync::Notify;

use super::files;
use super::look::Look;

/// Names to look at, collected by the watcher's thread for the task.
#[derive(Debug, Default)]
pub(super) struct Pending {
    names: Mutex<Names>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Names {
    changed: BTreeSet<String>,
    /// Files that somebody writes to and has not closed: half of a file would look as if the rest were gone.
    writing: BTreeSet<String>,
    all: bool,
}

impl Pending {
    /// Takes in what the file system says about a folder.
    pub fn add(&self, folder: &Path, event: notify::Result<notify::Event>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.add(folder, event) {
            self.news.notify_one();
        }
    }

    /// Waits until there is something to look at.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// What to look at now.
    pub fn take(&self) -> Look {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut names.all) {
            names.changed.clear();
            drop(names);
            return self.take_all();
        }
        Look::Some(std::mem::take(&mut names.changed))
    }

    /// A look at everything but what is being written. What nobody closes has been waited for long enough at the
    /// next such look.
    pub fn take_all(&self) -> Look {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        Look::All {
            except: std::mem::take(&mut names.writing),
        }
    }
}

impl Names {
    /// Says whether there is something to look at now.
    fn add(&mut self, folder: &Path, event: notify::Result<notify::Event>) -> bool {
        let Ok(event) = event else {
            self.all = true;
            return true;
        };
        if event.need_rescan() {
            self.all = true;
            return true;
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            // Our own reading among them.
            EventKind::Access(_) => return false,
            _ => {}
        }
        let is_write = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
        let mut news = false;
        for path in &event.paths {
            news |= self.add_path(folder, path, is_write);
        }
        news
    }

    fn add_path(&mut self, folder: &Path, path: &Path, is_write: bool) -> bool {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        match name {
            // `..data` of a mounted ConfigMap: all its files change when this link does.
            Some(name) if path != folder && name.starts_with("..") => self.all = true,
            Some(name) if path != folder => {
                if !files::is_manifest(&name) {
                    return false;
                }
                if is_write {
                    self.writing.insert(name);
                    return false;
                }
                self.writing.remove(&name);
                self.changed.insert(name);
            }
            _ => self.all = true,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use notify::Event;
    use notify::event::{CreateKind, DataChange, Flag};

    use super::*;

    fn event(kind: EventKind, name: &str) -> notify::Result<Event> {
        Ok(Event::new(kind).add_path(Path::new("/m").join(name)))
    }

    fn look(events: impl IntoIterator<Item = notify::Result<Event>>) -> Look {
        let pending = Pending::default();
        for event in events {
            pending.add(Path::new("/m"), event);
        }
        pending.take()
    }

    const CREATE: EventKind = EventKind::Create(CreateKind::File);
    const WRITE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

    fn some(names: &[&str]) -> Look {
        Look::Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn all(except: &[&str]) -> Look {
        Look::All {
            except: except.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn only_manifests_are_looked_at() {
        let names = ["a.yaml", "b.txt", ".c.yaml", ".a.yaml.swp", "4913", "d.json"];
        let events = names.map(|name| event(CREATE, name));
        assert_eq!(look(events), some(&["a.yaml", "d.json"]));
    }

    #[test]
    fn a_file_is_read_when_its_writer_closes_it() {
        assert_eq!(look([event(WRITE, "a.yaml")]), some(&[]));
        assert_eq!(
            look([event(WRITE, "a.yaml"), event(CLOSE, "a.yaml")]),
            some(&["a.yaml"])
        );
    }

    #[test]
    fn a_full_look_leaves_out_what_is_being_written_once() {
        let pending = Pending::default();
        pending.add(Path::new("/m"), event(WRITE, "a.yaml"));
        assert_eq!(pending.take_all(), all(&["a.yaml"]));
        assert_eq!(pending.take_all(), all(&[]));
    }

    #[test]
    fn everything_is_looked_at_when_it_is_unknown_what_changed() {
        let overflow = Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan));
        assert_eq!(look([overflow]), all(&[]));
        assert_eq!(look([event(CREATE, "..data")]), all(&[]));
        assert_eq!(look([event(CREATE, "")]), all(&[]), "the folder itself");
        assert_eq!(look([Err(notify::Error::generic("lost"))]), all(&[]));
    }
}
