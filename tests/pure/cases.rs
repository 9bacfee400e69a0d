//! Cases as folders: what comes out of each must be what its `expected.txt` says, which `UPDATE_EXPECTED=1` writes anew.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders of a folder of `tests/data`, in the order of their names; there is one at least.
pub fn cases(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(folder);
    let mut cases: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// Collects what is not as expected.
pub struct Expectations {
    update: bool,
    wrong: Vec<String>,
}

impl Expectations {
    pub fn new() -> Self {
        Self {
            update: std::env::var_os("UPDATE_EXPECTED").is_some(),
            wrong: Vec::new(),
        }
    }

    /// Compares what comes out of a case with what is expected, or writes it.
    pub fn compare(&mut self, case: &Path, actual: &str) {
        let file = case.join("expected.txt");
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if self.update {
            fs::write(file, actual).unwrap();
        } else if actual != expected {
            self.wrong.push(format!(
                "{}\n--- expected\n{expected}--- actual\n{actual}",
                case.display()
            ));
        }
    }

    /// Fails with everything that is not as expected.
    #[track_caller]
    pub fn hold(self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}
