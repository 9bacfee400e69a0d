//! A program that runs beside the test.

#![allow(dead_code, reason = "each program uses another part of it")]

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::poll::{eventually, within};

/// How long a program may take to follow a signal.
const GRACE: Duration = Duration::from_secs(10);

/// A running program. Its output is collected, and it is killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in the namespace of the calling thread, with nothing to read.
    pub fn start(command: &mut Command) -> Self {
        Self::try_start(command)
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()))
    }

    /// As [`Self::start`].
    ///
    /// # Errors
    ///
    /// The program could not be started.
    pub fn try_start(command: &mut Command) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("lab-{}-{number}.log", std::process::id()));
        let output = fs::File::create(&log)?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self { name, child, log })
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far, both streams in the order of writing.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it has printed `text`.
    #[track_caller]
    pub fn wait_for_log(&mut self, timeout: Duration, text: &str) {
        let seen = within(timeout, || self.log().contains(text).then_some(()));
        assert!(
            seen.is_some(),
            "{} has not printed {text:?}; it printed:\n{}",
            self.name,
            self.log()
        );
    }

    /// Its status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself; then there is nothing to tell it.
        let _ = kill_process(self.pid(), signal);
    }

    /// Asks it to end and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        eventually(GRACE, "the program ends after SIGTERM", || self.ended())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}
