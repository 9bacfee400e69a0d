use super::*;
use crate::source::manifest;

/// A folder's state, told in names: `put a` and `delete a`.
#[derive(Default)]
struct Replay(FolderState);

impl Replay {
    /// Reads a file that has RealServers of these names, and ends the batch.
    fn write(&mut self, file: &str, names: &[&str]) -> Vec<String> {
        let text: Vec<String> = names.iter().map(|name| server(name, 80)).collect();
        self.write_text(file, &text.concat())
    }

    fn write_text(&mut self, file: &str, text: &str) -> Vec<String> {
        let mut updates = self.0.take(&file.into(), reading(file, text));
        let settled = self.0.settle();
        updates.extend(settled.updates);
        let mut words: Vec<String> = updates.iter().map(word).collect();
        words.extend(settled.read_again.iter().map(|file| format!("read {file}")));
        words
    }

    fn remove(&mut self, file: &str) -> Vec<String> {
        assert!(self.0.take(&file.into(), Reading::Gone).is_empty());
        let settled = self.0.settle();
        let mut words: Vec<String> = settled.updates.iter().map(word).collect();
        words.extend(settled.read_again.iter().map(|file| format!("read {file}")));
        words
    }
}

fn server(name: &str, port: u32) -> String {
    format!(
        "---\napiVersion: weir.dev/v1alpha1\nkind: RealServer\nmetadata: {{name: {name}}}\n\
         spec: {{address: 10.0.0.1, port: {port}}}\n"
    )
}

fn reading(file: &str, text: &str) -> Reading {
    Reading::Manifest(manifest::read(&file.into(), text.as_bytes()))
}

fn word(update: &Update) -> String {
    match update {
        Update::Put {
            object,
            form: Some(_),
            ..
        } => format!("put {}", object.name),
        Update::Put { object, .. } => format!("put invalid {}", object.name),
        Update::Delete(object) => format!("delete {}", object.name),
    }
}

#[test]
fn only_what_changed_is_told() {
    let mut replay = Replay::default();
    assert_eq!(replay.write("1", &["a", "b"]), ["put a", "put b"]);
    assert!(replay.write("1", &["a", "b"]).is_empty());
    assert_eq!(
        replay.write_text("1", &(server("a", 80) + &server("b", 81))),
        ["put b"]
    );
    assert_eq!(replay.write("1", &["a"]), ["delete b"]);
    assert_eq!(replay.remove("1"), ["delete a"]);
    assert!(replay.0.problems().is_empty());
}

#[test]
fn a_broken_document_keeps_what_was_there() {
    let mut replay = Replay::default();
    replay.write("1", &["a", "b"]);
    let broken = server("a", 81) + "---\n{broken\n";
    assert_eq!(replay.write_text("1", &broken), ["put a"]);
    assert_eq!(replay.0.problems().len(), 1);
    assert_eq!(replay.write_text("1", &server("a", 81)), ["delete b"]);
    assert!(replay.0.problems().is_empty());
}

#[test]
fn an_invalid_object_is_told_and_not_deleted() {
    let mut replay = Replay::default();
    replay.write("1", &["a"]);
    assert_eq!(replay.write_text("1", &server("a", 99999)), ["put invalid a"]);
    assert_eq!(replay.0.problems().len(), 1);
}

#[test]
fn an_unreadable_file_keeps_what_was_there() {
    let mut replay = Replay::default();
    replay.write("1", &["a"]);
    let problem = Diagnostic::of_file(&"1".into(), "no");
    assert!(
        replay
            .0
            .take(&"1".into(), Reading::Unreadable(problem))
            .is_empty()
    );
    assert_eq!(replay.0.settle(), Settled::default());
    assert_eq!(replay.0.problems().len(), 1);
    assert!(replay.write("1", &["a"]).is_empty());
    assert!(replay.0.problems().is_empty());
}

#[test]
fn an_object_that_moves_is_never_gone() {
    let mut replay = Replay::default();
    replay.write("1", &["a"]);
    replay.0.take(&"1".into(), Reading::Gone);
    let updates = replay.0.take(&"2".into(), reading("2", &server("a", 80)));
    assert_eq!(updates.iter().map(word).collect::<Vec<_>>(), ["put a"]);
    assert_eq!(replay.0.settle(), Settled::default());
}

#[test]
fn the_first_file_by_name_holds() {
    let mut replay = Replay::default();
    replay.write("2", &["a"]);
    assert!(replay.write("3", &["a"]).is_empty());
    assert_eq!(replay.write("1", &["a"]), ["put a"]);
    let problems = replay.0.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].contains("2:2") && problems[0].contains("1:2 came first"),
        "{}",
        problems[0]
    );
    assert_eq!(replay.remove("1"), ["read 2"]);
    assert_eq!(replay.write("2", &["a"]), ["put a"]);
    assert_eq!(replay.0.problems().len(), 1);
    assert!(replay.remove("3").is_empty());
    assert!(replay.0.problems().is_empty());
    assert_eq!(replay.remove("2"), ["delete a"]);
}

#[test]
fn a_loser_that_changes_is_not_told() {
    let mut replay = Replay::default();
    replay.write("1", &["a"]);
    replay.write("2", &["a", "b"]);
    assert!(
        replay
            .write_text("2", &(server("a", 81) + &server("b", 80)))
            .is_empty()
    );
    assert!(replay.write("2", &["b"]).is_empty());
    assert!(replay.0.problems().is_empty());
    assert_eq!(replay.remove("1"), ["delete a"]);
}

#[test]
fn the_next_file_may_have_lost_it_meanwhile() {
    let mut replay = Replay::default();
    replay.write("1", &["a"]);
    replay.write("2", &["a"]);
    assert_eq!(replay.remove("1"), ["read 2"]);
    assert_eq!(replay.write("2", &[]), ["delete a"]);
}
