//! A watched folder on a real file system: whatever happens to its files, the objects told are those that are
//! there, and nothing is told to be gone that is only out of sight.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weir::catalog::{Form, Update};
use weir::source::SourceEvent;
use weir::source::cache::Copies;
use weir::source::folder::{read_paths, watch};

/// A folder being watched, and what has been told of it.
struct Watched {
    folder: PathBuf,
    events: mpsc::Receiver<SourceEvent>,
    shutdown: CancellationToken,
    /// Real servers and their ports.
    servers: BTreeMap<String, u16>,
    problems: Vec<String>,
    is_complete: bool,
    unread: bool,
    /// Every deletion there was.
    deleted: Vec<String>,
    temporary: TempDir,
}

impl Watched {
    /// Watches a folder that is prepared like this.
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let temporary = TempDir::new().expect("a temporary folder");
        let folder = temporary.path().join("manifests");
        prepare(&folder);
        Self::of(temporary)
    }

    /// Watches a prepared folder, as another agent that has the same state directory.
    fn of(temporary: TempDir) -> Self {
        let folder = temporary.path().join("manifests");
        let (tx, events) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let copies = Copies::new(&temporary.path().join("state"), &folder);
        tokio::spawn(watch(folder.clone(), Some(copies), tx, shutdown.clone()));
        Self {
            folder,
            events,
            shutdown,
            servers: BTreeMap::new(),
            problems: Vec::new(),
            is_complete: false,
            unread: false,
            deleted: Vec::new(),
            temporary,
        }
    }

    /// Watches an ordinary folder with these files, and waits until it has been read.
    async fn with(files: &[(&str, &str)]) -> Self {
        let mut watched = Self::start(|folder| {
            fs::create_dir(folder).expect("a new folder");
            for (name, text) in files {
                fs::write(folder.join(name), text).expect("a new file");
            }
        });
        watched
            .eventually("the folder is read", |watched| watched.is_complete)
            .await;
        watched
    }

    /// Ends, lets something be changed meanwhile, and watches again.
    async fn restart(mut self, change: impl FnOnce(&Path)) -> Self {
        self.shutdown.cancel();
        while self.events.recv().await.is_some() {}
        change(&self.folder);
        Self::of(self.temporary)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the file can be written");
    }

    /// Takes in events until something holds.
    async fn eventually(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let event = timeout(Duration::from_secs(20), self.events.recv()).await;
            assert!(event.is_ok(), "{what}: {:?} {:?}", self.servers, self.problems);
            let event = event.ok().flatten();
            self.take(event.expect("the watch goes on"));
        }
    }

    async fn eventually_has(&mut self, servers: &[(&str, u16)]) {
        let wanted: BTreeMap<String, u16> = servers
            .iter()
            .map(|(name, port)| ((*name).to_owned(), *port))
            .collect();
        self.eventually(&format!("{wanted:?}"), |watched| watched.servers == wanted)
            .await;
    }

    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Updates(updates) => updates.into_iter().for_each(|update| self.update(update)),
            SourceEvent::Problems(problems) => self.problems = problems,
            SourceEvent::Complete { unread } => {
                self.is_complete = true;
                self.unread = unread;
            }
            SourceEvent::Remembered { .. } => unreachable!("a folder keeps objects file by file"),
            SourceEvent::Endpoints { known } => assert!(!known, "a folder has no endpoints"),
            SourceEvent::NodeLabels(labels) => assert!(labels.is_empty(), "a folder has no node"),
        }
    }

    fn update(&mut self, update: Update) {
        match update {
            Update::Put {
                object,
                form: Some(Form::RealServer(server)),
                ..
            } => {
                self.servers
                    .insert(object.name.to_string(), server.port.unwrap_or_default());
            }
            Update::Put { .. } => {}
            Update::Delete(object) => {
                self.servers.remove(&*object.name);
                self.deleted.push(object.name.to_string());
            }
        }
    }
}

fn server(name: &str, port: u16) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: RealServer\nmetadata: {{name: {name}}}\n\
         spec: {{address: 10.0.0.1, port: {port}}}\n---\n"
    )
}

#[tokio::test]
async fn files_come_change_and_go() {
    let mut watched = Watched::with(&[("a.yaml", &server("a", 80)), ("notes.txt", "none of ours")]).await;
    watched.eventually_has(&[("a", 80)]).await;
    watched.write("b.yml", &server("b", 81));
    watched.eventually_has(&[("a", 80), ("b", 81)]).await;
    watched.write("a.yaml", &server("a", 82));
    watched.eventually_has(&[("a", 82), ("b", 81)]).await;
    fs::remove_file(watched.path("b.yml")).unwrap();
    watched.eventually_has(&[("a", 82)]).await;
    assert!(watched.problems.is_empty(), "{:?}", watched.problems);
}

#[tokio::test]
async fn a_file_is_replaced_at_once() {
    let mut watched = Watched::with(&[("a.yaml", &server("a", 80))]).await;
    watched.write(".a.yaml.new", &server("a", 81));
    fs::rename(watched.path(".a.yaml.new"), watched.path("a.yaml")).unwrap();
    watched.eventually_has(&[("a", 81)]).await;
    assert!(watched.deleted.is_empty());
}

#[tokio::test]
async fn an_object_moves_with_its_file() {
    let mut watched = Watched::with(&[("a.yaml", &server("a", 80))]).await;
    fs::rename(watched.path("a.yaml"), watched.path("b.yaml")).unwrap();
    watched.write("c.yaml", &server("c", 80));
    watched.eventually_has(&[("a", 80), ("c", 80)]).await;
    assert!(watched.deleted.is_empty());
}

#[tokio::test]
async fn a_mounted_config_map_changes_by_its_link() {
    let mut watched = Watched::start(|folder| {
        fs::create_dir_all(folder.join("..first")).unwrap();
        fs::write(folder.join("..first/a.yaml"), server("a", 80)).unwrap();
        symlink("..first", folder.join("..data")).unwrap();
        symlink("..data/a.yaml", folder.join("a.yaml")).unwrap();
    });
    watched.eventually_has(&[("a", 80)]).await;
    fs::create_dir(watched.path("..second")).unwrap();
    fs::write(watched.path("..second/a.yaml"), server("a", 81)).unwrap();
    symlink("..second", watched.path("..data_tmp")).unwrap();
    fs::rename(watched.path("..data_tmp"), watched.path("..data")).unwrap();
    watched.eventually_has(&[("a", 81)]).await;
    assert!(watched.deleted.is_empty());
}

#[tokio::test]
async fn a_broken_file_keeps_its_objects_until_it_is_mended() {
    let mut watched = Watched::with(&[("a.yaml", &(server("a", 80) + &server("b", 80)))]).await;
    watched.eventually_has(&[("a", 80), ("b", 80)]).await;
    watched.write("a.yaml", &(server("a", 81) + "kind: {\n"));
    watched.eventually_has(&[("a", 81), ("b", 80)]).await;
    watched
        .eventually("the problem is told", |watched| watched.problems.len() == 1)
        .await;
    assert!(
        watched.problems[0].contains("a.yaml:6:"),
        "{}",
        watched.problems[0]
    );
    watched.write("a.yaml", &server("a", 81));
    watched.eventually_has(&[("a", 81)]).await;
    watched
        .eventually("the problem is gone", |watched| watched.problems.is_empty())
        .await;
}

#[tokio::test]
async fn a_folder_that_vanishes_takes_nothing_away() {
    let mut watched = Watched::with(&[("a.yaml", &server("a", 80)), ("b.yaml", &server("b", 80))]).await;
    watched.eventually_has(&[("a", 80), ("b", 80)]).await;
    let away = watched.folder.with_extension("away");
    fs::rename(&watched.folder, &away).unwrap();
    watched
        .eventually("it is told", |watched| watched.problems.len() == 1)
        .await;
    assert!(
        watched.problems[0].contains("cannot read this folder"),
        "{}",
        watched.problems[0]
    );
    fs::remove_file(away.join("b.yaml")).unwrap();
    fs::write(away.join("a.yaml"), server("a", 81)).unwrap();
    assert!(watched.deleted.is_empty());
    fs::rename(&away, &watched.folder).unwrap();
    watched.eventually_has(&[("a", 81)]).await;
    watched
        .eventually("it is healed", |watched| watched.problems.is_empty())
        .await;
    // The watch is on the folder that came back.
    watched.write("c.yaml", &server("c", 80));
    watched.eventually_has(&[("a", 81), ("c", 80)]).await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_yet_is_waited_for() {
    let mut watched = Watched::start(|_| {});
    watched
        .eventually("it is told", |watched| watched.problems.len() == 1)
        .await;
    assert!(!watched.is_complete);
    let prepared = watched.folder.with_extension("new");
    fs::create_dir(&prepared).unwrap();
    fs::write(prepared.join("a.yaml"), server("a", 80)).unwrap();
    fs::rename(&prepared, &watched.folder).unwrap();
    watched
        .eventually("it is read", |watched| watched.is_complete)
        .await;
    watched.eventually_has(&[("a", 80)]).await;
    assert!(watched.problems.is_empty());
}

#[tokio::test]
async fn what_could_not_be_read_since_the_start_is_said_until_it_has_been() {
    let mut watched = Watched::with(&[("a.yaml", &server("a", 80)), ("b.yaml", "kind: [")]).await;
    assert!(watched.unread, "nobody knows what b.yaml holds");
    watched.write("b.yaml", &server("b", 80));
    watched
        .eventually("b.yaml has been read", |watched| !watched.unread)
        .await;
    // What it holds now is known, and stays in force while it is broken.
    watched.write("b.yaml", "kind: [");
    watched
        .eventually("it is told", |watched| watched.problems.len() == 1)
        .await;
    assert!(!watched.unread);
}

/// An agent that runs has the last good form in memory; one that starts has it on disk.
#[tokio::test]
async fn what_is_broken_at_the_start_is_as_it_last_was() {
    let mut watched = Watched::with(&[("a.yaml", &(server("a", 80) + &server("b", 80)))]).await;
    watched.write("a.yaml", &(server("a", 81) + &server("b", 80)));
    watched.eventually_has(&[("a", 81), ("b", 80)]).await;
    let mut watched = watched
        .restart(|folder| fs::write(folder.join("a.yaml"), server("a", 82) + "kind: {\n").unwrap())
        .await;
    watched.eventually_has(&[("a", 82), ("b", 80)]).await;
    watched
        .eventually("it is said", |watched| {
            watched.is_complete && watched.problems.len() == 2
        })
        .await;
    assert!(watched.unread, "there may be more in it than what is known");
    let problem = &watched.problems[1];
    assert!(
        problem.contains("a.yaml: what cannot be read is in force as it was saved at"),
        "{problem}"
    );
    watched.write("a.yaml", &server("a", 83));
    watched.eventually_has(&[("a", 83)]).await;
    watched
        .eventually("it is mended", |watched| {
            !watched.unread && watched.problems.is_empty()
        })
        .await;
    assert_eq!(watched.deleted, ["b"]);
}

#[tokio::test]
async fn another_folder_takes_the_place() {
    let mut watched = Watched::with(&[("a.yaml", &server("a", 80))]).await;
    let other = watched.folder.with_extension("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("a.yaml"), server("a", 81)).unwrap();
    fs::write(other.join("b.yaml"), server("b", 80)).unwrap();
    fs::rename(&watched.folder, watched.folder.with_extension("old")).unwrap();
    fs::rename(&other, &watched.folder).unwrap();
    watched.eventually_has(&[("a", 81), ("b", 80)]).await;
    assert!(watched.deleted.is_empty());
}

#[tokio::test]
async fn an_object_in_two_files_is_the_first_ones() {
    let mut watched = Watched::with(&[("b.yaml", &server("a", 81)), ("c.yaml", &server("a", 82))]).await;
    watched.eventually_has(&[("a", 81)]).await;
    watched
        .eventually("it is told", |watched| watched.problems.len() == 1)
        .await;
    let problem = &watched.problems[0];
    assert!(
        problem.contains("c.yaml:1") && problem.contains("b.yaml:1"),
        "{problem}"
    );
    fs::remove_file(watched.path("b.yaml")).unwrap();
    watched.eventually_has(&[("a", 82)]).await;
    watched
        .eventually("it is settled", |watched| watched.problems.is_empty())
        .await;
    assert!(watched.deleted.is_empty());
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_a_problem_until_it_leads_somewhere() {
    let mut watched = Watched::with(&[]).await;
    symlink("target", watched.path("a.yaml")).unwrap();
    watched
        .eventually("it is told", |watched| watched.problems.len() == 1)
        .await;
    watched.write("target", &server("a", 80));
    // No event names the link now; any other look at it will do.
    fs::rename(watched.path("a.yaml"), watched.path("b.yaml")).unwrap();
    watched.eventually_has(&[("a", 80)]).await;
    watched
        .eventually("it is settled", |watched| watched.problems.is_empty())
        .await;
}

#[tokio::test]
async fn the_watch_ends_when_told() {
    let mut watched = Watched::with(&[]).await;
    watched.shutdown.cancel();
    let end = timeout(Duration::from_secs(20), watched.events.recv()).await;
    assert_eq!(end.expect("it ends"), None);
}

#[test]
fn files_and_folders_are_read_once() {
    let temporary = TempDir::new().unwrap();
    let folder = temporary.path();
    fs::write(
        folder.join("a.yaml"),
        server("a", 80) + "apiVersion: v1\nkind: Service\n",
    )
    .unwrap();
    fs::write(folder.join("b.json"), "{}").unwrap();
    fs::create_dir(folder.join("c.yaml")).unwrap();
    let other = folder.join("other");
    fs::write(&other, server("a", 81) + &server("b", 81)).unwrap();
    let reading = read_paths(&[folder, &other, &folder.join("missing.yaml")]);
    assert_eq!((reading.files, reading.skipped, reading.updates.len()), (3, 1, 2));
    assert!(reading.has_errors());
    let said: Vec<String> = reading.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!(
        said[0].split_once("b.json").map(|(_, rest)| rest),
        Some(":1:1: apiVersion: required field is missing")
    );
    assert_eq!(
        said[1].split_once("b.json").map(|(_, rest)| rest),
        Some(":1:1: kind: required field is missing")
    );
    assert!(
        said[2].contains("other:1:1: RealServer default/a stands in two files"),
        "{}",
        said[2]
    );
    assert!(
        said[3].contains("missing.yaml: cannot read this file"),
        "{}",
        said[3]
    );
}
