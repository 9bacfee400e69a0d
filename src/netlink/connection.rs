//! One netlink socket: batches of requests, transactions, single requests, dumps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use thiserror::Error;

use super::message::{Batch, Body, MessageWriter, Messages, flags};

/// Messages per `send`. An unread reply is accounted with its bookkeeping: 277 of them fill the default receive
/// buffer, and the next one is lost. Beyond some ten messages a larger batch gains little anyway.
const MESSAGES_PER_SEND: usize = 256;
/// Bytes per `send`, well below the default send buffer of 212,992.
const BYTES_PER_SEND: usize = 96 * 1024;
/// Dump datagrams reach 32 kB; the kernel offers more when the reader's buffer is larger.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// What the kernel may queue for us, where `CAP_NET_ADMIN` lets us ask for it.
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;
/// The kernel answers within the `send`; this bounds the wait for an answer that got lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an exchange with the kernel failed as a whole.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The socket could not be opened or set up.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// A request could not be sent.
    #[error("cannot send to the kernel")]
    Send(#[source] io::Error),
    /// An answer could not be received.
    #[error("cannot receive from the kernel")]
    Receive(#[source] io::Error),
    /// Replies were lost (`ENOBUFS`), or none came in time: whether the request took effect is unknown.
    #[error("the kernel's answer was lost: look again at what is there")]
    OutcomeUnknown,
    /// The kernel refused the request.
    #[error("the kernel refused: {0}")]
    Refused(Refused),
    /// What a dump reads changed while it was read.
    #[error("the kernel's table changed while it was being read")]
    DumpInterrupted,
}

/// The errno with which the kernel refused one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{}", io::Error::from_raw_os_error(*.0))]
pub struct Refused(pub i32);

impl Refused {
    /// The errno as rustix names it.
    pub fn errno(self) -> Errno {
        Errno::from_raw_os_error(self.0)
    }
}

/// A netlink socket that speaks one protocol with the kernel.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    sequence: u32,
    receive: Vec<u8>,
}

impl Connection {
    /// Opens a socket in the network namespace of the calling thread, and stays in it.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Open`] where the system has no netlink of this protocol or refuses the socket.
    pub fn open(protocol: net::Protocol) -> Result<Self, NetlinkError> {
        Self::try_open(Some(protocol)).map_err(|errno| NetlinkError::Open(errno.into()))
    }

    /// Opens a socket for links, addresses, routes and neighbours: `NETLINK_ROUTE`, whose number is 0 and which is
    /// therefore no [`net::Protocol`].
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_route() -> Result<Self, NetlinkError> {
        Self::try_open(None).map_err(|errno| NetlinkError::Open(errno.into()))
    }

    /// Opens a socket for netfilter's subsystems: `NETLINK_NETFILTER`.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_netfilter() -> Result<Self, NetlinkError> {
        Self::open(net::netlink::NETFILTER)
    }

    fn try_open(protocol: Option<net::Protocol>) -> rustix::io::Result<Self> {
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        // Without the capability the default buffer stays; MESSAGES_PER_SEND is chosen to fit it.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER);
        Ok(Self {
            socket,
            sequence: 0,
            receive: vec![0; RECEIVE_BUFFER],
        })
    }

    /// Sends all messages of a batch in as few system calls as is safe, and says which the kernel refused.
    ///
    /// A batch is a pipeline and not a transaction: what follows a refused message is executed all the same.
    ///
    /// # Errors
    ///
    /// The exchange broke down; messages from the failed `send` on may or may not have taken effect.
    pub fn batch(&mut self, batch: &mut Batch) -> Result<Vec<(usize, Refused)>, NetlinkError> {
        let mut refused = Vec::new();
        let mut first = 0;
        while first < batch.len() {
            let mut end = (first + MESSAGES_PER_SEND).min(batch.len());
            while end > first + 1 && batch.bytes(first, end).len() > BYTES_PER_SEND {
                end -= (end - first) / 2;
            }
            self.send_range(batch, first, end, &mut refused)?;
            first = end;
        }
        Ok(refused)
    }

    /// Sends messages `first..end`; only the last asks for an acknowledgement, whose arrival ends the exchange.
    fn send_range(
        &mut self,
        batch: &mut Batch,
        first: usize,
        end: usize,
        refused: &mut Vec<(usize, Refused)>,
    ) -> Result<(), NetlinkError> {
        let base = self.stamp(batch, first, end);
        let count = (end - first) as u32;
        batch.request_ack(end - 1);
        self.send(batch.bytes(first, end))?;
        loop {
            let length = self.receive()?;
            for message in Messages::new(&self.receive[..length]) {
                let offset = message.sequence.wrapping_sub(base);
                // An answer to an earlier exchange that was given up.
                if offset >= count {
                    continue;
                }
                if let Body::Ended { errno } = message.body {
                    if errno != 0 {
                        refused.push((first + offset as usize, Refused(errno)));
                    }
                    if offset == count - 1 {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends a batch that the kernel takes all together or not at all, in one piece however long it is, and says which
    /// messages the kernel refused. Nothing has changed if there is any.
    ///
    /// `batch` is what nfnetlink calls a batch: the first message begins it, and what is refused as a whole is refused
    /// under that one's number. The answer to message `last` ends the exchange: the last but the one that ends the
    /// batch, since kernel 6.1 acknowledges no `NFNL_MSG_BATCH_END`.
    ///
    /// # Errors
    ///
    /// The exchange broke down; the batch may or may not have taken effect, but not a part of it. `EMSGSIZE` as
    /// [`NetlinkError::Send`] where it is longer than the socket's send buffer, and raising that is not permitted.
    pub fn transaction(
        &mut self,
        batch: &mut Batch,
        last: usize,
    ) -> Result<Vec<(usize, Refused)>, NetlinkError> {
        let count = batch.len();
        let base = self.stamp(batch, 0, count);
        batch.request_ack(last);
        if batch.as_bytes().len() > BYTES_PER_SEND {
            // Whether it sufficed, the `send` says.
            let _ = sockopt::set_socket_send_buffer_size_force(&self.socket, batch.as_bytes().len());
        }
        self.send(batch.as_bytes())?;
        let mut refused = Vec::new();
        loop {
            let length = self.receive()?;
            for message in Messages::new(&self.receive[..length]) {
                let index = message.sequence.wrapping_sub(base) as usize;
                // An answer to an earlier exchange that was given up.
                if index >= count {
                    continue;
                }
                if let Body::Ended { errno } = message.body {
                    if errno != 0 {
                        refused.push((index, Refused(errno)));
                    }
                    if index == 0 || index == last {
                        return Ok(refused);
                    }
                }
            }
        }
    }

    /// Numbers messages `first..end` and says the first number.
    fn stamp(&mut self, batch: &mut Batch, first: usize, end: usize) -> u32 {
        let base = self.sequence.wrapping_add(1);
        for index in first..end {
            self.sequence = self.sequence.wrapping_add(1);
            batch.set_sequence(index, self.sequence);
        }
        base
    }

    /// Sends one request and hands each reply's payload to `on_reply`, until the kernel says that this was all.
    ///
    /// With [`flags::DUMP`] among `request_flags` the request is a dump, otherwise a single question.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Refused`] with the kernel's errno, or a broken exchange.
    pub fn request(
        &mut self,
        kind: u16,
        request_flags: u16,
        write: impl FnOnce(&mut MessageWriter<'_>),
        mut on_reply: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        let dump = request_flags & flags::DUMP == flags::DUMP;
        let mut batch = Batch::default();
        batch.push(kind, request_flags, write);
        if !dump {
            batch.request_ack(0);
        }
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        batch.set_sequence(0, sequence);
        self.send(batch.bytes(0, 1))?;
        let mut interrupted = false;
        loop {
            let length = self.receive()?;
            for message in Messages::new(&self.receive[..length]) {
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & flags::DUMP_INTERRUPTED != 0;
                match message.body {
                    Body::Reply { kind, payload } => on_reply(kind, payload),
                    Body::Ended { errno: 0 } | Body::DumpEnded { errno: 0 } if interrupted => {
                        return Err(NetlinkError::DumpInterrupted);
                    }
                    Body::Ended { errno: 0 } | Body::DumpEnded { errno: 0 } => return Ok(()),
                    Body::Ended { errno } | Body::DumpEnded { errno } => {
                        return Err(NetlinkError::Refused(Refused(errno)));
                    }
                    Body::Nothing => {}
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match net::send(&self.socket, bytes, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(NetlinkError::Send(errno.into())),
            }
        }
    }

    fn receive(&mut self) -> Result<usize, NetlinkError> {
        loop {
            match net::recv(&self.socket, &mut *self.receive, RecvFlags::TRUNC) {
                // A datagram longer than the buffer: what it said is lost.
                Ok((_, length)) if length > self.receive.len() => return Err(NetlinkError::OutcomeUnknown),
                Ok((_, length)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS | Errno::AGAIN) => return Err(NetlinkError::OutcomeUnknown),
                Err(errno) => return Err(NetlinkError::Receive(errno.into())),
            }
        }
    }
}
