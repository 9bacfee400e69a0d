//! One server as a child process: it logs to a file, and it does not outlive the test.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::time::Instant;

use super::{
    programs,
    wait::{limit, until},
};

/// How much of a server's log a failed test prints.
const TAIL_LINES: usize = 40;

/// A running server; dropping it kills it, and prints the end of its log if the test is failing.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program of the control plane in `folder`, where its output is appended to `<name>.log`.
    pub(crate) fn start(name: &'static str, arguments: Vec<String>, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the run folder takes a log");
        // setpriv asks the kernel to kill the process when its parent ends, and then becomes the program: neither
        // etcd nor kube-apiserver would notice that the test was killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(programs::path(name))
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file can be duplicated"))
            .stderr(output)
            // Ctrl-C in a terminal goes to the test's group: the servers end after the test, not with it.
            .process_group(0);
        let child =
            spawn_from_lasting_thread(command).unwrap_or_else(|error| panic!("cannot run setpriv: {error}"));
        Self { name, child, log }
    }

    /// The program's name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Panics
    /// When the server has ended: waiting for it is of no use.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("the server is our child") {
            panic!("{} ended with {status}", self.name);
        }
    }

    /// Asks the server to end and waits until it has.
    pub(crate) async fn terminate(&mut self) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let waiting_for = format!("{} to end after SIGTERM", self.name);
        let ended = async || match self.child.try_wait().expect("the server is our child") {
            Some(_) => Ok(()),
            None => Err("it still runs".to_owned()),
        };
        until(&waiting_for, limit(30), ended).await;
        eprintln!("{} ended after {:?}", self.name, began.elapsed());
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, signal: Signal) {
        let sent = kill_process(Pid::from_child(&self.child), signal);
        sent.expect("a child that was not waited for can be signalled");
    }

    /// Stops the server where it is, and waits until all its threads have stopped: until then it may answer.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED).expect("the server is our child");
    }

    fn print_tail(&self) {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        eprintln!(
            "--- {}: the last {} of {} lines ---",
            self.log.display(),
            tail.len(),
            lines.len()
        );
        eprintln!("{}", tail.join("\n"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Neither can fail for a child that runs, and one that has ended needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.print_tail();
        }
    }
}

/// Starts a child from a thread that lives as long as the process.
///
/// To the kernel, the parent whose end kills the child is the *thread* that started it. A test's own thread, or one
/// of tokio's, may end while the control plane is still in use.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();

    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // Nobody waits for the reply only if that thread has panicked.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, child) = mpsc::channel();
    orders
        .send((command, reply))
        .expect("the thread never stops receiving");
    child.recv().expect("the thread answers every order")
}
