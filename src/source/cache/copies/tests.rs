use super::*;
use crate::catalog::Form;

struct Fixture {
    state: tempfile::TempDir,
    file: Arc<str>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            file: "/etc/weir/a.yaml".into(),
        }
    }

    /// What an agent that starts makes of a text: the ports of its RealServers, and what it says.
    fn start(&self, text: &str) -> (Vec<(String, u16)>, Vec<String>) {
        let mut copies = Copies::new(self.state.path(), Path::new("/etc/weir"));
        let servers = self.read(&mut copies, text, true);
        (servers, copies.problems().collect())
    }

    fn read(&self, copies: &mut Copies, text: &str, is_first: bool) -> Vec<(String, u16)> {
        let mut manifest = manifest::read(&self.file, text.as_bytes());
        copies.take(&self.file, text.as_bytes(), &mut manifest, is_first);
        ports(&manifest)
    }

    fn path(&self) -> PathBuf {
        self.state.path().join("manifests/a.yaml")
    }
}

fn ports(manifest: &Manifest) -> Vec<(String, u16)> {
    let objects = manifest.objects.iter();
    let ports = objects.filter_map(|object| match &object.form {
        Some(Form::RealServer(server)) => {
            Some((object.object.name.to_string(), server.port.unwrap_or_default()))
        }
        _ => None,
    });
    ports.collect()
}

fn server(name: &str, port: u32) -> String {
    format!(
        "---\napiVersion: weir.dev/v1alpha1\nkind: RealServer\nmetadata: {{name: {name}}}\n\
         spec: {{address: 10.0.0.1, port: {port}}}\n"
    )
}

fn named(ports: &[(&str, u16)]) -> Vec<(String, u16)> {
    ports
        .iter()
        .map(|(name, port)| ((*name).to_owned(), *port))
        .collect()
}

const BROKEN: &str = "---\n{broken\n";
const INVALID: u32 = 99_999;

#[test]
fn a_manifest_that_is_broken_at_the_start_has_its_last_good_objects() {
    let fixture = Fixture::new();
    fixture.start(&(server("a", 80) + &server("b", 81)));
    let (servers, problems) = fixture.start(BROKEN);
    assert_eq!(servers, named(&[("a", 80), ("b", 81)]));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].ends_with("2 object(s)"), "{problems:?}");
    // Not for longer than it is broken.
    let (servers, problems) = fixture.start(&server("a", 82));
    assert_eq!((servers, problems), (named(&[("a", 82)]), vec![]));
    assert_eq!(fixture.start(BROKEN).0, named(&[("a", 82)]));
}

/// However often it changes while something in it is wrong.
#[test]
fn each_object_has_its_own_last_good_form() {
    let fixture = Fixture::new();
    fixture.start(&(server("a", 80) + &server("b", 80)));
    let texts = [
        server("a", 81) + &server("b", INVALID),
        server("a", 82) + &server("b", INVALID),
        server("a", INVALID) + &server("b", INVALID),
    ];
    let expected = [81, 82, 82];
    for (text, port) in texts.iter().zip(expected) {
        let (servers, problems) = fixture.start(text);
        assert_eq!(servers, named(&[("a", port), ("b", 80)]));
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
    assert_eq!(fixture.start(BROKEN).0, named(&[("a", 82), ("b", 80)]));
    // An object that was taken out of it while it could be read is gone.
    let (servers, _) = fixture.start(&server("b", INVALID));
    assert_eq!(servers, named(&[("b", 80)]));
    assert_eq!(fixture.start(BROKEN).0, named(&[("b", 80)]));
}

#[test]
fn a_manifest_that_was_read_since_the_start_is_left_to_who_knows_it() {
    let fixture = Fixture::new();
    let mut copies = Copies::new(fixture.state.path(), Path::new("/etc/weir"));
    fixture.read(&mut copies, &server("a", 80), true);
    assert_eq!(fixture.read(&mut copies, BROKEN, false), named(&[]));
    assert_eq!(copies.problems().count(), 0);
    assert_eq!(fixture.start(BROKEN).0, named(&[("a", 80)]));
}

#[test]
fn a_manifest_that_cannot_be_opened_has_its_last_good_objects() {
    let fixture = Fixture::new();
    let mut copies = Copies::new(fixture.state.path(), Path::new("/etc/weir"));
    let problem = || manifest::Diagnostic::of_file(&fixture.file, "cannot read this file");
    assert_eq!(copies.stand_in(&fixture.file, problem()), None);
    fixture.start(&server("a", 80));
    let manifest = copies.stand_in(&fixture.file, problem()).unwrap();
    assert_eq!(ports(&manifest), named(&[("a", 80)]));
    assert!(manifest.has_unreadable && manifest.diagnostics.len() == 1);
    copies.remove(&fixture.file);
    assert!(!fixture.path().exists());
    assert_eq!(copies.stand_in(&fixture.file, problem()), None);
}

#[test]
fn copies_of_manifests_that_are_gone_are_let_go_of() {
    let fixture = Fixture::new();
    fixture.start(&server("a", 80));
    let mut copies = Copies::new(fixture.state.path(), Path::new("/etc/weir"));
    copies.retain(&["b.yaml".to_owned(), "a.yaml".to_owned()]);
    assert!(fixture.path().exists());
    copies.retain(&["b.yaml".to_owned()]);
    assert!(!fixture.path().exists());
}

#[test]
fn a_copy_that_says_so_already_is_not_written_again() {
    let fixture = Fixture::new();
    let stamp = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(fixture.path()).unwrap());
    fixture.start(&server("a", 80));
    let before = stamp();
    fixture.start(&server("a", 80));
    assert_eq!(stamp(), before);
    fixture.start(&server("a", 81));
    assert_ne!(stamp(), before);
}

#[test]
fn a_damaged_copy_is_a_problem_and_gives_nothing_wherever_it_is_damaged() {
    let fixture = Fixture::new();
    fixture.start(&server("a", 80));
    let whole = fs::read(fixture.path()).unwrap();
    let damaged = (0..whole.len()).flat_map(|at| {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        [whole[..at].to_vec(), changed]
    });
    for bytes in damaged {
        assert_eq!(decode(&bytes), None);
    }
    fs::write(fixture.path(), &whole[..whole.len() - 1]).unwrap();
    let (servers, problems) = fixture.start(BROKEN);
    assert_eq!(servers, named(&[]));
    assert!(problems[0].contains("it is damaged"), "{problems:?}");
}

#[test]
fn copies_of_another_folder_are_not_for_use() {
    let fixture = Fixture::new();
    fixture.start(&server("a", 80));
    let mut other = Copies::new(fixture.state.path(), Path::new("/srv/weir"));
    assert_eq!(fixture.read(&mut other, BROKEN, true), named(&[]));
    assert_eq!(other.problems().count(), 0);
}

#[test]
fn what_cannot_be_written_is_a_problem_until_it_can_be() {
    let fixture = Fixture::new();
    let in_the_way = fixture.state.path().join("manifests");
    fs::write(&in_the_way, "a file").unwrap();
    let mut copies = Copies::new(fixture.state.path(), Path::new("/etc/weir"));
    let servers = fixture.read(&mut copies, &server("a", 80), true);
    assert_eq!(servers, named(&[("a", 80)]));
    let problems: Vec<String> = copies.problems().collect();
    assert!(
        problems[0].contains("cannot keep a copy of /etc/weir/a.yaml"),
        "{problems:?}"
    );
    fs::remove_file(&in_the_way).unwrap();
    fixture.read(&mut copies, &server("a", 80), false);
    assert_eq!(copies.problems().count(), 0);
}
