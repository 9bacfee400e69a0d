//! Asking a [`super::server::Server`] who it is: how often each answered, connections held open, the length of an outage.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto};

use super::netns::Netns;

const QUESTION: &[u8] = b"who\n";

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A connection per question.
    Tcp,
    /// A datagram from a new port per question.
    Udp,
    /// An association per question.
    Sctp,
}

/// Asks once, from the namespace of the calling thread.
///
/// # Errors
///
/// No connection, or no answer in time.
pub fn ask(protocol: Protocol, to: SocketAddr, timeout: Duration) -> io::Result<String> {
    match protocol {
        Protocol::Tcp => Connection::open(to, timeout).map(|connection| connection.name),
        Protocol::Udp => ask_udp(to, timeout),
        Protocol::Sctp => {
            Connection::over(connect_sctp(to, timeout)?, timeout).map(|connection| connection.name)
        }
    }
}

fn ask_udp(to: SocketAddr, timeout: Duration) -> io::Result<String> {
    let from: SocketAddr = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(from)?;
    socket.set_read_timeout(Some(timeout))?;
    // Connected, so that only an answer from the address that was asked counts.
    socket.connect(to)?;
    socket.send(QUESTION)?;
    let mut answer = [0; 256];
    let length = socket.recv(&mut answer)?;
    Ok(name_in(&answer[..length]))
}

fn connect_sctp(to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::SCTP),
    )?;
    // Bounds connecting, too.
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    net::connect(&socket, &to)?;
    // Reading and writing are the same system calls as for TCP.
    Ok(socket.into())
}

fn name_in(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).trim().to_owned()
}

/// How often each node answered, and how questions failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Answers by the name of the node.
    pub answers: BTreeMap<String, usize>,
    /// Failures by what the system said.
    pub failures: BTreeMap<String, usize>,
}

impl Histogram {
    /// Asks `questions` times from a namespace, one after the other.
    pub fn ask(
        netns: &Netns,
        protocol: Protocol,
        to: SocketAddr,
        questions: usize,
        timeout: Duration,
    ) -> Self {
        netns.run(|| {
            let mut histogram = Self::default();
            for _ in 0..questions {
                match ask(protocol, to, timeout) {
                    Ok(name) => *histogram.answers.entry(name).or_default() += 1,
                    Err(error) => *histogram.failures.entry(error.to_string()).or_default() += 1,
                }
            }
            histogram
        })
    }

    /// The counts in the order of the nodes' names.
    pub fn counts(&self) -> Vec<usize> {
        self.answers.values().copied().collect()
    }

    /// The nodes that answered.
    pub fn names(&self) -> Vec<&str> {
        self.answers.keys().map(String::as_str).collect()
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.answers.iter().chain(&self.failures) {
            writeln!(out, "{count:6}  {name}")?;
        }
        Ok(())
    }
}

/// An open TCP connection and who answers on it.
#[derive(Debug)]
struct Connection {
    name: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(to: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, timeout)?;
        Self::over(stream, timeout)
    }

    fn over(stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        let mut connection = Self {
            name: String::new(),
            stream: BufReader::new(stream),
        };
        connection.name = connection.ask()?;
        Ok(connection)
    }

    fn ask(&mut self) -> io::Result<String> {
        self.stream.get_mut().write_all(QUESTION)?;
        let mut answer = String::new();
        if self.stream.by_ref().take(256).read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(name_in(answer.as_bytes()))
    }
}

/// What became of held connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Connections on which the same node still answers.
    pub alive: usize,
    /// Broken connections, by what the system said.
    pub broken: BTreeMap<String, usize>,
}

/// TCP connections that stay open.
#[derive(Debug)]
pub struct Held {
    connections: Vec<Connection>,
}

impl Held {
    /// Opens `count` connections from a namespace; each has been answered once.
    ///
    /// # Errors
    ///
    /// The first that could not be opened.
    pub fn open(netns: &Netns, to: SocketAddr, count: usize, timeout: Duration) -> io::Result<Self> {
        let open = || {
            (0..count)
                .map(|_| Connection::open(to, timeout))
                .collect::<io::Result<_>>()
        };
        Ok(Self {
            connections: netns.run(open)?,
        })
    }

    /// How many connections each node answers.
    pub fn by_name(&self) -> BTreeMap<&str, usize> {
        let mut count = BTreeMap::new();
        for connection in &self.connections {
            *count.entry(connection.name.as_str()).or_default() += 1;
        }
        count
    }

    /// Asks again on each.
    pub fn survey(&mut self) -> Survey {
        let mut survey = Survey::default();
        for connection in &mut self.connections {
            match connection.ask() {
                Ok(name) if name == connection.name => survey.alive += 1,
                Ok(name) => *survey.broken.entry(format!("answered by {name}")).or_default() += 1,
                Err(error) => *survey.broken.entry(error.to_string()).or_default() += 1,
            }
        }
        survey
    }
}

/// What a [`Probe`] saw.
#[derive(Debug, Clone, Default)]
pub struct Outages {
    /// Questions asked.
    pub asked: usize,
    /// Questions answered.
    pub answered: usize,
    /// For each outage, the time from the last answer before it to the first after it.
    pub gaps: Vec<Duration>,
    /// Whether the last question went unanswered.
    pub down_at_end: bool,
}

impl Outages {
    fn record(&mut self, answered: bool, last_answer: Instant) {
        self.asked += 1;
        self.answered += usize::from(answered);
        if answered && self.down_at_end {
            self.gaps.push(last_answer.elapsed());
        }
        self.down_at_end = !answered;
    }

    /// The longest outage.
    pub fn longest(&self) -> Duration {
        self.gaps.iter().max().copied().unwrap_or_default()
    }
}

/// Asks at an interval, on a thread, until it is stopped.
#[derive(Debug)]
pub struct Probe {
    seen: Arc<Mutex<Outages>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Probe {
    /// Begins to ask. Questions do not overlap, so that an outage is known to within `every` plus `timeout`.
    pub fn start(
        netns: &Netns,
        protocol: Protocol,
        to: SocketAddr,
        every: Duration,
        timeout: Duration,
    ) -> Self {
        let (stop, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Outages::default())),
        );
        let (netns, stopped, outages) = (netns.share(), stop.clone(), seen.clone());
        let thread = thread::spawn(move || {
            netns.enter();
            let mut last_answer = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let next = Instant::now() + every;
                let answered = ask(protocol, to, timeout).is_ok();
                outages.lock().unwrap().record(answered, last_answer);
                if answered {
                    last_answer = Instant::now();
                }
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self { seen, stop, thread }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Outages {
        self.seen.lock().unwrap().clone()
    }

    /// Ends it and says what it saw.
    pub fn stop(self) -> Outages {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}
