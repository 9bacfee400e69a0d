use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::catalog::Kind;

fn object(name: &str) -> (ObjectRef, String) {
    let object = ObjectRef {
        kind: Kind::RealServer,
        namespace: Some("shop".into()),
        name: name.into(),
    };
    let json = format!("{{\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"shop\"}}}}");
    (object, json)
}

fn put(recorder: &Recorder, name: &str) {
    let (object, json) = object(name);
    recorder.put(&object, &json);
}

/// A disk: what was written, how often, and whether it is full.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, usize, bool)>>);

impl Disk {
    fn store(&self, text: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.1 += 1;
        if disk.2 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.0 = text.to_owned();
        Ok(())
    }

    fn fill(&self, is_full: bool) {
        self.0.lock().unwrap().2 = is_full;
    }

    fn writes(&self) -> usize {
        self.0.lock().unwrap().1
    }

    /// The names of the objects on it.
    fn names(&self) -> Vec<String> {
        let cache = codec::decode(&self.0.lock().unwrap().0, "d1").unwrap();
        cache
            .objects
            .keys()
            .map(|object| object.name.to_string())
            .collect()
    }
}

/// A writer that runs with a disk.
fn running() -> (Recorder, Disk, CancellationToken, tokio::task::JoinHandle<()>) {
    let directory = tempfile::tempdir().unwrap();
    let (_, recorder, Writer { shared, .. }) = open(directory.path(), "d1");
    let (disk, shutdown) = (Disk::default(), CancellationToken::new());
    let (store, token) = (disk.clone(), shutdown.clone());
    let task = tokio::spawn(async move { run(&shared, move |text: &[u8]| store.store(text), token).await });
    (recorder, disk, shutdown, task)
}

async fn until(disk: &Disk, writes: usize) {
    while disk.writes() < writes {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn many_changes_are_one_write_and_the_last_is_written_at_the_end() {
    let (recorder, disk, shutdown, task) = running();
    for number in 0..1000 {
        put(&recorder, &format!("rs{number}"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until(&disk, 5).await;
    assert!(disk.writes() <= 6, "{} in ten seconds", disk.writes());
    put(&recorder, "last");
    shutdown.cancel();
    task.await.unwrap();
    assert_eq!(disk.names().len(), 1001);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_not_written_but_for_its_time() {
    let (recorder, disk, shutdown, task) = running();
    put(&recorder, "a");
    until(&disk, 1).await;
    put(&recorder, "a");
    recorder.delete(&object("b").0);
    recorder.labels(&BTreeMap::new());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(disk.writes(), 1);
    // Known to be so for another hour.
    recorder.set_current(true);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!((5..=6).contains(&(disk.writes() - 1)), "{}", disk.writes());
    recorder.set_current(false);
    let before = disk.writes();
    shutdown.cancel();
    task.await.unwrap();
    assert_eq!(disk.writes(), before);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_a_problem_until_it_can_be_written_again() {
    let (recorder, disk, _shutdown, _task) = running();
    let mut problem = recorder.problem();
    disk.fill(true);
    put(&recorder, "a");
    problem.wait_for(Option::is_some).await.unwrap();
    let said = problem.borrow().clone().unwrap();
    assert!(
        said.starts_with("cannot save what the API server said: "),
        "{said}"
    );
    // It is not tried without a pause, whatever changes meanwhile.
    for number in 0..100 {
        put(&recorder, &format!("rs{number}"));
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    assert!(disk.writes() <= 12, "{} in ten minutes", disk.writes());
    disk.fill(false);
    problem.wait_for(Option::is_none).await.unwrap();
    assert_eq!(disk.names().len(), 101);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_disk_is_found_by_the_next_and_by_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let (found, recorder, writer) = open(directory.path(), "d1");
    assert_eq!(found, None);
    assert_eq!(*recorder.problem().borrow(), None);
    put(&recorder, "a");
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    writer.run(shutdown).await;
    let path = directory.path().join(FILE);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let (found, recorder, _) = open(directory.path(), "d1");
    assert_eq!(found.unwrap().objects.len(), 1);
    assert_eq!(*recorder.problem().borrow(), None);
    let (found, recorder, _) = open(directory.path(), "d2");
    assert_eq!(found, None);
    let problem = recorder.problem().borrow().clone().unwrap();
    assert!(problem.contains("it is that of node d1"), "{problem}");
}

#[test]
fn a_cache_that_is_damaged_is_a_problem_and_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    fs::write(&path, "weir cache 1 0000").unwrap();
    let (found, recorder, _) = open(directory.path(), "d1");
    assert_eq!(found, None);
    let problem = recorder.problem().borrow().clone().unwrap();
    assert!(problem.contains("it is damaged"), "{problem}");
    // As does one that cannot be read at all.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let (found, recorder, _) = open(directory.path(), "d1");
    assert_eq!(found, None);
    assert!(recorder.problem().borrow().is_some());
}
