//! A network namespace as a value: it lives as long as this, or as anything that was started or opened in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::Path;
use std::process::{Command, Output};
use std::{io, process, thread};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::process::Process;

/// Where `ip netns` and others look for namespaces by name.
const NAMED: &str = "/run/netns";

/// A network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    handle: File,
}

impl Netns {
    /// Makes a new one, with `lo` down and nothing else.
    pub fn new(name: &str) -> Self {
        let handle = on_thread(|| {
            // The safe form is deprecated because of UnshareFlags::FILES; a network namespace breaks no invariant.
            #[allow(deprecated)]
            rustix::thread::unshare(UnshareFlags::NEWNET).expect("root may make a network namespace");
            own_namespace()
        });
        Self {
            name: name.to_owned(),
            handle,
        }
    }

    /// The namespace of the calling thread.
    pub fn current() -> Self {
        Self {
            name: "root".to_owned(),
            handle: own_namespace(),
        }
    }

    /// One that has been published under a name, here or by `ip netns add`.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn named(name: &str) -> io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            handle: File::open(Path::new(NAMED).join(name))?,
        })
    }

    /// Another handle on the same namespace, for a thread that lives longer than this one.
    pub fn share(&self) -> Self {
        Self {
            name: self.name.clone(),
            handle: self.handle.try_clone().unwrap(),
        }
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For netlink messages that move a link here.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Makes it known to `ip netns exec NAME`, for as long as this process lives.
    pub fn publish(&self) {
        fs::create_dir_all(NAMED).unwrap();
        let link = Path::new(NAMED).join(&self.name);
        let _ = fs::remove_file(&link);
        let target = format!("/proc/{}/fd/{}", process::id(), self.handle.as_raw_fd());
        std::os::unix::fs::symlink(target, link).unwrap();
    }

    /// Acts in the namespace: on a thread of its own, since a thread that has moved must not go back among others.
    ///
    /// Sockets opened there stay in the namespace, wherever they are used. `/proc/sys/net` is the namespace's.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        on_thread(|| {
            self.enter();
            act()
        })
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) {
        // A container is where it is, and has not the right to move.
        if same_file(&self.handle, &own_namespace()) {
            return;
        }
        move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may enter a network namespace");
    }

    /// Sets a sysctl below `net.`: `sysctl("ipv4/ip_forward", "1")`.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.run(|| write_sysctl(path, value));
    }

    /// Runs a program to its end.
    pub fn output<S: AsRef<OsStr> + Sync>(&self, words: &[S]) -> Output {
        let (program, arguments) = words.split_first().expect("a program to run");
        self.run(|| Command::new(program).args(arguments).output())
            .unwrap_or_else(|error| panic!("{}: {error}", program.as_ref().display()))
    }

    /// Runs a shell command line to its end and hands back what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.output(&["sh", "-c", line]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: {line}: {} {stderr}",
            self.name,
            output.status
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a program and leaves it running.
    pub fn spawn(&self, command: &mut Command) -> Process {
        self.run(|| Process::start(command))
    }
}

/// Sets a sysctl below `net.` in the namespace of the calling thread.
pub fn write_sysctl(path: &str, value: &str) {
    let path = Path::new("/proc/sys/net").join(path);
    fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn own_namespace() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn same_file(one: &File, other: &File) -> bool {
    let key = |file: &File| file.metadata().map(|found| (found.dev(), found.ino())).unwrap();
    key(one) == key(other)
}

/// Runs `act` on a thread of its own; its panic becomes ours.
fn on_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(act).join()).unwrap_or_else(|cause| panic::resume_unwind(cause))
}
