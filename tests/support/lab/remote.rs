//! A VM driven from the host: for tests that need something on the host beside it, such as an API server.
//!
//! The VM runs the helper program's daemon ([`super::execd`]) with a topology whose nodes reach the host as 10.0.2.2.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::execd::{Answer, Call, Output, Request};
use crate::poll::within;

/// The daemon's port in the VM.
const PORT: u16 = 7000;
/// How long a VM may take to boot, on a busy machine and without hardware virtualisation. A kernel that is stuck then takes two
/// minutes to say so, and is begun once more.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// The whole life of a VM that nobody ends.
const LIFETIME: &str = "3600";

/// How to boot.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// One of `tests/lab/kernels`; the usual one without.
    pub kernel: Option<String>,
    /// Files and folders of the host, and where they are to be in the VM.
    pub files: Vec<(PathBuf, String)>,
    /// Ports of the host (on 127.0.0.1), and where they lead to: a port of the VM's own namespace, or `ADDRESS:PORT` of a
    /// node's.
    pub forwards: Vec<(u16, String)>,
    /// Further options of `tests/lab/run`.
    pub options: Vec<String>,
}

/// A running VM; it is ended on drop.
#[derive(Debug)]
pub struct Vm {
    script: Child,
    port: u16,
    log: PathBuf,
}

impl Vm {
    /// Builds `weir` and the helper for the VM, boots it with both on the PATH, and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it cannot be built or does not come up; the message has what it printed.
    pub fn boot(boot: &Boot) -> Self {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab");
        let programs = build(&lab);
        let port = free_port();
        let log = std::env::temp_dir().join(format!("weir-lab-vm-{port}.log"));
        let output = File::create(&log).unwrap();
        let mut run = Command::new(lab.join("run"));
        run.args([
            "--base",
            "tools",
            "--timeout",
            LIFETIME,
            "--net",
            "--hostfwd",
            &format!("{port}:{PORT}"),
        ]);
        for name in ["examples/lab", "weir"] {
            let path = programs.join(name);
            run.arg("--program").arg(format!(
                "{}:/lab/{}",
                path.display(),
                name.trim_start_matches("examples/")
            ));
        }
        for (host, guest) in &boot.files {
            run.arg("--file").arg(format!("{}:{guest}", host.display()));
        }
        for (host, guest) in &boot.forwards {
            run.arg("--hostfwd").arg(format!("{host}:{guest}"));
        }
        if let Some(kernel) = &boot.kernel {
            run.args(["--kernel", kernel]);
        }
        run.args(&boot.options);
        run.args(["--", "lab", "execd", "--topology", "--host", &PORT.to_string()]);
        run.stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let mut vm = Self {
            script: run.spawn().unwrap(),
            port,
            log,
        };
        vm.wait_until_up();
        vm
    }

    fn wait_until_up(&mut self) {
        let call = Call {
            argv: vec!["true".to_owned()],
            ..Call::default()
        };
        let up = within(BOOT_TIMEOUT, || {
            let ended = self.script.try_wait().unwrap().is_some();
            (ended || self.try_request(&Request::Run(call.clone())).is_ok()).then_some(!ended)
        });
        assert!(
            up == Some(true),
            "the VM did not come up; it printed:\n{}",
            self.printed()
        );
    }

    /// Runs a program to its end, in a node's namespace or in the VM's own.
    pub fn run(&self, netns: Option<&str>, argv: &[&str]) -> Output {
        match self.request(&Request::Run(call(netns, argv))) {
            Answer::Ended(output) => output,
            other => panic!("{argv:?}: {other:?}"),
        }
    }

    /// As [`Self::run`], for who must not panic.
    ///
    /// # Errors
    ///
    /// The VM does not answer, or the program cannot be run.
    pub fn try_run(&self, netns: Option<&str>, argv: &[&str]) -> io::Result<Output> {
        match self.try_request(&Request::Run(call(netns, argv)))? {
            Answer::Ended(output) => Ok(output),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Runs a shell command line in a namespace and hands back what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, netns: &str, line: &str) -> String {
        let output = self.run(Some(netns), &["sh", "-c", line]);
        assert_eq!(
            output.status, 0,
            "{netns}: {line}: {}{}",
            output.stdout, output.stderr
        );
        output.stdout
    }

    /// Starts a program and leaves it running.
    pub fn start(&self, netns: Option<&str>, argv: &[&str]) -> Program<'_> {
        self.start_with(call(netns, argv))
    }

    /// As [`Self::start`], with variables.
    pub fn start_with(&self, call: Call) -> Program<'_> {
        match self.request(&Request::Start(call)) {
            Answer::Started(number) => Program { vm: self, number },
            other => panic!("{other:?}"),
        }
    }

    /// Writes a file in the VM.
    pub fn put(&self, path: &str, text: &str) {
        self.request(&Request::Put {
            path: path.to_owned(),
            text: text.to_owned(),
        });
    }

    fn request(&self, request: &Request) -> Answer {
        match self.try_request(request) {
            Ok(Answer::Failed(message)) => panic!("{request:?}: {message}"),
            Ok(answer) => answer,
            Err(error) => panic!("{request:?}: {error}; the VM printed:\n{}", self.printed()),
        }
    }

    fn try_request(&self, request: &Request) -> io::Result<Answer> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        connection.write_all(&[&serde_json::to_vec(request)?, b"\n".as_slice()].concat())?;
        let mut answer = String::new();
        // Empty while nobody listens in the VM yet: QEMU accepts connections before.
        BufReader::new(connection).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Not SIGKILL: the script ends QEMU and removes its files.
        let _ = kill_process(Pid::from_child(&self.script), Signal::TERM);
        let _ = self.script.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

/// A program that runs in a VM, until the VM ends or it is told to.
#[derive(Debug)]
pub struct Program<'vm> {
    vm: &'vm Vm,
    number: u32,
}

impl Program<'_> {
    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.look().0
    }

    /// Its status, when it has ended.
    pub fn ended(&self) -> Option<i32> {
        self.look().1
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.vm.request(&Request::Signal(self.number, signal.as_raw()));
    }

    fn look(&self) -> (String, Option<i32>) {
        match self.vm.request(&Request::Log(self.number)) {
            Answer::Log(text, status) => (text, status),
            other => panic!("{other:?}"),
        }
    }
}

fn call(netns: Option<&str>, argv: &[&str]) -> Call {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    Call {
        netns: netns.map(str::to_owned),
        argv,
        ..Call::default()
    }
}

/// Builds the programs for the VM, and says in which folder they are.
fn build(lab: &Path) -> PathBuf {
    let mut cargo = Command::new(lab.join("cargo"));
    cargo.args(["build", "--quiet", "--bin", "weir", "--example", "lab"]);
    // What the Cargo that runs this test says of it is nothing to a build: ring's would begin anew, and all that need it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    assert!(
        cargo.status().unwrap().success(),
        "the programs for the VM do not build"
    );
    let target = std::env::var_os("WEIR_LAB_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab"),
        PathBuf::from,
    );
    target.join("x86_64-unknown-linux-gnu/debug")
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port()
}
