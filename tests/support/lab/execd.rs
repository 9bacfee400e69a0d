//! Running commands in the VM from outside: one line of JSON is a request, one line the answer.
//!
//! The daemon's half; [`super::remote`] is the other. There is no authentication: the port is reachable only through the
//! forward that the VM was started with, from the host's loopback.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::netns::Netns;
use crate::process::Process;

/// A program to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    /// The namespace, by its published name; the VM's own without.
    pub netns: Option<String>,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Further variables.
    pub env: BTreeMap<String, String>,
    /// What it reads; only for [`Request::Run`].
    pub stdin: String,
}

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Run a program to its end: [`Answer::Ended`].
    Run(Call),
    /// Start a program and leave it running: [`Answer::Started`].
    Start(Call),
    /// What a started program has printed: [`Answer::Log`].
    Log(u32),
    /// Send a signal to a started program: [`Answer::Done`].
    Signal(u32, i32),
    /// Write a file, and the folders above it: [`Answer::Done`].
    Put {
        /// Where.
        path: String,
        /// All of it.
        text: String,
    },
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A program ran.
    Ended(Output),
    /// A program runs, under this number.
    Started(u32),
    /// What a program has printed so far, and its status if it has ended.
    Log(String, Option<i32>),
    /// It is done.
    Done,
    /// It could not be done.
    Failed(String),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its exit status, or 128 plus the signal that killed it.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

type Processes = Arc<Mutex<BTreeMap<u32, Process>>>;

/// Serves requests, each connection on a thread, for ever.
///
/// # Errors
///
/// The port cannot be listened on.
pub fn serve(port: u16) -> io::Result<()> {
    let processes = Processes::default();
    for connection in TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?.incoming() {
        let (connection, processes) = (connection?, processes.clone());
        // A connection that breaks has nobody left to tell.
        thread::spawn(move || answer_all(&connection, &processes));
    }
    Ok(())
}

fn answer_all(connection: &TcpStream, processes: &Processes) -> io::Result<()> {
    let mut writer = connection;
    for line in BufReader::new(connection).lines() {
        let answer = serde_json::from_str(&line?)
            .map_err(io::Error::from)
            .and_then(|request| answer(request, processes))
            .unwrap_or_else(|error| Answer::Failed(error.to_string()));
        writer.write_all(&[&serde_json::to_vec(&answer)?, b"\n".as_slice()].concat())?;
    }
    Ok(())
}

fn answer(request: Request, processes: &Processes) -> io::Result<Answer> {
    let gone = || io::Error::other("no program was started under this number");
    match request {
        Request::Run(call) => run(&call).map(Answer::Ended),
        Request::Start(call) => {
            let process = in_namespace(&call, Process::try_start)?;
            let mut processes = processes.lock().unwrap();
            let number = processes.len() as u32;
            processes.insert(number, process);
            Ok(Answer::Started(number))
        }
        Request::Log(number) => {
            let mut processes = processes.lock().unwrap();
            let process = processes.get_mut(&number).ok_or_else(gone)?;
            // In this order, so that a program that has ended has printed all it will.
            let status = process.ended().map(number_of);
            Ok(Answer::Log(process.log(), status))
        }
        Request::Signal(number, signal) => {
            let signal = Signal::from_named_raw(signal).ok_or_else(|| io::Error::other("no such signal"))?;
            processes
                .lock()
                .unwrap()
                .get(&number)
                .ok_or_else(gone)?
                .signal(signal);
            Ok(Answer::Done)
        }
        Request::Put { path, text } => {
            if let Some(folder) = std::path::Path::new(&path).parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, text)?;
            Ok(Answer::Done)
        }
    }
}

fn run(call: &Call) -> io::Result<Output> {
    let mut child = in_namespace(call, |command| {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    })?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        // On a thread of its own: a program may print before it has read all. That it reads nothing is its own affair.
        scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(call.stdin.as_bytes())));
        child.wait_with_output()
    })?;
    Ok(Output {
        status: number_of(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Lets `start` act on the call's program inside its namespace.
fn in_namespace<T: Send>(
    call: &Call,
    start: impl FnOnce(&mut Command) -> io::Result<T> + Send,
) -> io::Result<T> {
    let (program, arguments) = call
        .argv
        .split_first()
        .ok_or_else(|| io::Error::other("no program"))?;
    let mut command = Command::new(program);
    command.args(arguments).envs(&call.env);
    let netns = match &call.netns {
        Some(name) => Netns::named(name)?,
        None => Netns::current(),
    };
    netns
        .run(|| start(&mut command))
        .map_err(|error| io::Error::other(format!("{program}: {error}")))
}

fn number_of(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
