//! Settings below `net.`: `net.ipv4.conf.eth0.rp_filter` is the file `ipv4/conf/eth0/rp_filter` of a root folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a setting could not be read or written.
#[derive(Debug, Error)]
pub enum SysctlError {
    /// The kernel does not have it.
    #[error("this kernel has no {0}: its module may be missing, or the name is wrong")]
    Missing(Box<str>),
    /// It is read-only here, or this process may not.
    #[error(
        "{name} cannot be written here: set it by hand (sysctl -w {name}={value}), or mount the node's /proc/sys/net \
         writable and name it with --sysctl-root"
    )]
    NotWritable {
        /// Which.
        name: Box<str>,
        /// What it should be.
        value: Box<str>,
    },
    /// The kernel does not take the value.
    #[error("the kernel does not take {value} for {name}")]
    Invalid {
        /// Which.
        name: Box<str>,
        /// What it should be.
        value: Box<str>,
    },
    /// The name is none of a setting below `net.`.
    #[error("{0} is no setting below net.")]
    NotOfTheNetwork(Box<str>),
    /// Anything else.
    #[error("cannot use the setting {name}")]
    Io {
        /// Which.
        name: Box<str>,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The settings of a network namespace.
#[derive(Debug, Clone)]
pub struct Sysctls {
    root: PathBuf,
}

impl Sysctls {
    /// Settings below a folder, normally `/proc/sys/net`: there they are those of the namespace of whoever asks.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// A setting's value without the space around it, if this kernel has the setting.
    ///
    /// # Errors
    ///
    /// It is there and cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Box<str>>, SysctlError> {
        match fs::read_to_string(self.path(name)?) {
            Ok(value) => Ok(Some(value.trim().into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SysctlError::Io {
                name: name.into(),
                source,
            }),
        }
    }

    /// Gives a setting a value.
    ///
    /// # Errors
    ///
    /// The kernel does not have it or does not take the value, or the folder is read-only.
    pub fn write(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        // Not created where it is missing: in /proc that is refused, elsewhere it would be no setting.
        let opened = fs::OpenOptions::new().write(true).open(self.path(name)?);
        let written = opened.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
        written.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SysctlError::Missing(name.into()),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => SysctlError::NotWritable {
                name: name.into(),
                value: value.into(),
            },
            io::ErrorKind::InvalidInput => SysctlError::Invalid {
                name: name.into(),
                value: value.into(),
            },
            _ => SysctlError::Io {
                name: name.into(),
                source,
            },
        })
    }

    /// Whether settings can be written here.
    pub fn are_writable(&self) -> bool {
        rustix::fs::access(self.root.join("ipv4/ip_forward"), rustix::fs::Access::WRITE_OK).is_ok()
    }

    /// A slash in a name stands for a dot in a part of it, such as an interface's name (sysctl(8)).
    fn path(&self, name: &str) -> Result<PathBuf, SysctlError> {
        let refuse = || SysctlError::NotOfTheNetwork(name.into());
        let parts = name.strip_prefix("net.").ok_or_else(refuse)?.split('.');
        let mut path = self.root.clone();
        for part in parts {
            let part = part.replace('/', ".");
            if part.is_empty() || part == "." || part == ".." {
                return Err(refuse());
            }
            path.push(part);
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> (tempfile::TempDir, Sysctls) {
        let root = tempfile::tempdir().unwrap();
        for folder in ["ipv4/conf/eth0.7", "ipv4/vs"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("ipv4/conf/eth0.7/rp_filter"), "1\n").unwrap();
        fs::write(root.path().join("ipv4/vs/sync_threshold"), "3\t50\n").unwrap();
        let sysctls = Sysctls::new(root.path());
        (root, sysctls)
    }

    #[test]
    fn a_setting_is_found_by_its_name() {
        let (_root, sysctls) = settings();
        let value = |name| sysctls.read(name).unwrap();
        assert_eq!(value("net.ipv4.conf.eth0/7.rp_filter").as_deref(), Some("1"));
        assert_eq!(value("net.ipv4.vs.sync_threshold").as_deref(), Some("3\t50"));
        assert_eq!(value("net.ipv4.nosuch"), None);
        sysctls.write("net.ipv4.conf.eth0/7.rp_filter", "2").unwrap();
        assert_eq!(value("net.ipv4.conf.eth0/7.rp_filter").as_deref(), Some("2"));
    }

    #[test]
    fn nothing_is_reached_outside_and_nothing_is_made() {
        let (root, sysctls) = settings();
        for name in [
            "kernel.modprobe",
            "net.",
            "net.ipv4..x",
            "net.ipv4.//.x",
            "net./.x",
        ] {
            assert!(
                matches!(sysctls.read(name), Err(SysctlError::NotOfTheNetwork(_))),
                "{name}"
            );
        }
        let missing = sysctls.write("net.ipv4.ip_forward", "1");
        assert!(matches!(missing, Err(SysctlError::Missing(_))), "{missing:?}");
        assert!(!root.path().join("ipv4/ip_forward").exists());
    }
}
