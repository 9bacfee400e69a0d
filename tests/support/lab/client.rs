//! Asking a [`super::server::Server`] who it is: how often each answered, connections held open, the length of an outage.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
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

/// Whom to ask, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// How.
    pub protocol: Protocol,
    /// Whom.
    pub to: SocketAddr,
    /// From which address, if the kernel is not to choose.
    pub from: Option<IpAddr>,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Asking {
    /// From whichever address.
    pub fn new(protocol: Protocol, to: impl Into<SocketAddr>, timeout: Duration) -> Self {
        Self {
            protocol,
            to: to.into(),
            from: None,
            timeout,
        }
    }

    /// From a certain address.
    pub fn from(self, from: IpAddr) -> Self {
        Self {
            from: Some(from),
            ..self
        }
    }

    /// Asks `questions` times from a namespace, one after the other.
    pub fn ask(&self, netns: &Netns, questions: usize) -> Histogram {
        self.put(netns, QUESTION, questions)
    }

    /// Asks once which address the server thinks that asks.
    pub fn ask_peer(&self, netns: &Netns) -> Histogram {
        self.put(netns, b"peer\n", 1)
    }

    fn put(&self, netns: &Netns, question: &[u8], questions: usize) -> Histogram {
        netns.run(|| {
            let mut histogram = Histogram::default();
            for _ in 0..questions {
                match self.once(question) {
                    Ok(name) => *histogram.answers.entry(name).or_default() += 1,
                    Err(error) => *histogram.failures.entry(error.to_string()).or_default() += 1,
                }
            }
            histogram
        })
    }

    /// Sends that many bytes over a new connection and waits for the answer behind them.
    ///
    /// # Errors
    ///
    /// No connection, or no answer in time.
    pub fn upload(&self, netns: &Netns, bytes: usize) -> io::Result<String> {
        netns.run(|| {
            let mut question = vec![b'x'; bytes];
            question.push(b'\n');
            self.once(&question)
        })
    }

    fn once(&self, question: &[u8]) -> io::Result<String> {
        match self.protocol {
            Protocol::Udp => self.once_udp(question),
            Protocol::Tcp | Protocol::Sctp => Connection::over(self.connect()?, self.timeout)?.put(question),
        }
    }

    fn once_udp(&self, question: &[u8]) -> io::Result<String> {
        let socket = UdpSocket::bind(self.source())?;
        socket.set_read_timeout(Some(self.timeout))?;
        // Connected, so that only an answer from the address that was asked counts.
        socket.connect(self.to)?;
        socket.send(question)?;
        let mut answer = [0; 256];
        let length = socket.recv(&mut answer)?;
        Ok(name_in(&answer[..length]))
    }

    /// Where a question of UDP or SCTP comes from, each from another port: the kernel would draw them, now and then one twice,
    /// and IPVS remembers who served the first.
    fn source(&self) -> SocketAddr {
        static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id() * 64));
        // Below those that the kernel draws.
        let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 12_000;
        let any: IpAddr = if self.to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        SocketAddr::new(self.from.unwrap_or(any), port as u16)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let family = if self.to.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let protocol = (self.protocol == Protocol::Sctp).then_some(ipproto::SCTP);
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, protocol)?;
        // Bounds connecting, too.
        set_socket_timeout(&socket, Timeout::Send, Some(self.timeout))?;
        match (self.protocol, self.from) {
            (Protocol::Sctp, _) => net::bind(&socket, &self.source())?,
            (_, Some(from)) => net::bind(&socket, &SocketAddr::new(from, 0))?,
            (_, None) => {}
        }
        net::connect(&socket, &self.to)?;
        // Reading and writing are the same system calls for SCTP as for TCP.
        Ok(socket.into())
    }
}

/// Asks once, from the namespace of the calling thread.
///
/// # Errors
///
/// No connection, or no answer in time.
pub fn ask(protocol: Protocol, to: SocketAddr, timeout: Duration) -> io::Result<String> {
    Asking::new(protocol, to, timeout).once(QUESTION)
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
        Asking::new(protocol, to, timeout).ask(netns, questions)
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
        let mut connection = Self::over(Asking::new(Protocol::Tcp, to, timeout).connect()?, timeout)?;
        connection.name = connection.put(QUESTION)?;
        Ok(connection)
    }

    fn over(stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        Ok(Self {
            name: String::new(),
            stream: BufReader::new(stream),
        })
    }

    fn put(&mut self, question: &[u8]) -> io::Result<String> {
        self.stream.get_mut().write_all(question)?;
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
            match connection.put(QUESTION) {
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
