//! The run folder of one control plane: what its servers read and write.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::certificates::{Authority, Credential, token_key};

/// The run folder. Its servers work in it, so their flags name files by their bare names.
#[derive(Debug)]
pub(crate) struct Layout {
    folder: TempDir,
}

impl Layout {
    /// A new folder that only this user can look into; `WEIR_TEST_KEEP=1` leaves it behind for a look afterwards.
    pub(crate) fn create() -> Self {
        let mut folder = tempfile::Builder::new()
            .prefix("weir-control-plane-")
            .tempdir()
            .expect("the folder for temporary files can be written");
        if env::var_os("WEIR_TEST_KEEP").is_some() {
            folder.disable_cleanup(true);
            eprintln!("the control plane's files stay in {}", folder.path().display());
        }
        Self { folder }
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Writes what the servers' flags name: `ca.crt`, `server.{crt,key}`, `token.{pub,key}`.
    pub(crate) fn write_credentials(&self, authority: &Authority) {
        self.write("ca.crt", &authority.certificate());
        let Credential { public, private } = authority.server();
        self.write("server.crt", &public);
        self.write("server.key", &private);
        let Credential { public, private } = token_key();
        self.write("token.pub", &public);
        self.write("token.key", &private);
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the run folder can be written");
        path
    }
}
