//! One netlink socket: batches of requests, transactions, single requests, dumps.

use std::fmt;
use std::io;
use std::ops::Range;

use neli::ToBytes;
use neli::consts::nl::{NlType, NlmF};
use neli::consts::socket::{Msg, NlFamily};
use neli::err::SerError;
use neli::socket::NlSocket;
use neli::utils::Groups;
use rustix::io::Errno;
use thiserror::Error;

use super::message::{Batch, Body, Messages, Received};
use super::refused::Refused;
use super::socket;

/// Messages per `send`. An unread reply is accounted with its bookkeeping: 277 of them fill the default receive
/// buffer, and the next one is lost. Beyond some ten messages a larger batch gains little anyway.
const MESSAGES_PER_SEND: usize = 256;
/// Bytes per `send`, well below the default send buffer of 212,992.
const BYTES_PER_SEND: usize = 96 * 1024;
/// Dump datagrams reach 32 kB; the kernel offers more when the reader's buffer is larger.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Why an exchange with the kernel failed as a whole.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The socket could not be opened or set up.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// A request has no form. Nothing was sent.
    #[error("cannot write a netlink message")]
    Write(#[source] SerError),
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

impl NetlinkError {
    /// The errno of a refusal, by which to decide what it means.
    pub fn refusal(&self) -> Option<Errno> {
        match self {
            Self::Refused(refused) => Some(refused.errno),
            _ => None,
        }
    }
}

/// A netlink socket that speaks one protocol with the kernel.
pub struct Connection {
    socket: NlSocket,
    port: u32,
    sequence: u32,
    receive: Vec<u8>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, sequence, .. } = self;
        formatter
            .debug_struct("Connection")
            .field("port", port)
            .field("sequence", sequence)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Opens a socket in the network namespace of the calling thread, and stays in it.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Open`] where the system has no netlink of this protocol or refuses the socket.
    pub fn open(family: NlFamily) -> Result<Self, NetlinkError> {
        let socket = socket::open(family, Groups::empty()).map_err(NetlinkError::Open)?;
        Ok(Self {
            port: socket.pid().map_err(NetlinkError::Open)?,
            socket,
            sequence: 0,
            receive: vec![0; RECEIVE_BUFFER],
        })
    }

    /// The socket's number among those of its protocol. The kernel tells it with every event that a request caused.
    pub fn port(&self) -> u32 {
        self.port
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
            let last = end - 1;
            self.exchange(batch, first..end, last, |index| index == last, &mut refused)?;
            first = end;
        }
        Ok(refused)
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
        let length = batch.as_bytes().len();
        if length > BYTES_PER_SEND {
            socket::make_room_to_send(&self.socket, length);
        }
        let mut refused = Vec::new();
        let ends = |index| index == 0 || index == last;
        self.exchange(batch, 0..batch.len(), last, ends, &mut refused)?;
        Ok(refused)
    }

    /// Sends some messages of a batch in one piece. Only `last` asks for an acknowledgement; an answer to one that `ends` the
    /// exchange is the last that is waited for.
    fn exchange(
        &mut self,
        batch: &mut Batch,
        messages: Range<usize>,
        last: usize,
        ends: impl Fn(usize) -> bool,
        refused: &mut Vec<(usize, Refused)>,
    ) -> Result<(), NetlinkError> {
        let first = messages.start;
        batch.request_ack(last);
        let sent = self.send(batch, messages)?;
        self.answers(sent, |number, message| {
            let Body::Ended(result) = message.body else {
                return None;
            };
            let index = first + number;
            refused.extend(result.err().map(|why| (index, why)));
            ends(index).then_some(())
        })
    }

    /// Sends one request and hands each reply's payload to `on_reply`, until the kernel says that this was all.
    ///
    /// With [`NlmF::DUMP`] among `flags` the request is a dump, otherwise a single question.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Refused`] with the kernel's errno, or a broken exchange.
    pub fn request(
        &mut self,
        kind: impl NlType,
        flags: NlmF,
        body: &impl ToBytes,
        mut on_reply: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        batch.push(kind, flags, body);
        if !flags.contains(NlmF::DUMP) {
            batch.request_ack(0);
        }
        let sent = self.send(&mut batch, 0..1)?;
        let mut interrupted = false;
        self.answers(sent, |_, message| {
            interrupted |= message.flags.contains(NlmF::DUMP_INTR);
            match message.body {
                Body::Reply { kind, payload } => on_reply(kind, payload),
                Body::Ended(Ok(())) | Body::DumpEnded(Ok(())) if interrupted => {
                    return Some(Err(NetlinkError::DumpInterrupted));
                }
                Body::Ended(result) | Body::DumpEnded(result) => {
                    return Some(result.map_err(NetlinkError::Refused));
                }
                Body::Nothing => {}
            }
            None
        })?
    }

    /// Numbers some messages of a batch, sends them, and says their numbers.
    fn send(&mut self, batch: &mut Batch, messages: Range<usize>) -> Result<Sent, NetlinkError> {
        if let Some(error) = batch.unwritable() {
            return Err(NetlinkError::Write(error.clone()));
        }
        let sent = Sent {
            base: self.sequence.wrapping_add(1),
            count: messages.len(),
        };
        for index in messages.clone() {
            self.sequence = self.sequence.wrapping_add(1);
            batch.set_sequence(index, self.sequence);
        }
        let bytes = batch.bytes(messages.start, messages.end);
        loop {
            match self.socket.send(bytes, Msg::empty()) {
                Ok(_) => return Ok(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Send(error)),
            }
        }
    }

    /// Hands each answer to one of the messages that were sent to `take`, with that one's place among them, until `take`
    /// says that it was the last. Answers to an earlier exchange that was given up are left out.
    fn answers<T>(
        &mut self,
        sent: Sent,
        mut take: impl FnMut(usize, Received<'_>) -> Option<T>,
    ) -> Result<T, NetlinkError> {
        loop {
            let length = self.receive()?;
            for message in Messages::new(&self.receive[..length]) {
                let number = message.sequence.wrapping_sub(sent.base) as usize;
                if number < sent.count
                    && let Some(end) = take(number, message)
                {
                    return Ok(end);
                }
            }
        }
    }

    fn receive(&mut self) -> Result<usize, NetlinkError> {
        loop {
            match self.socket.recv(&mut *self.receive, Msg::TRUNC) {
                // A datagram longer than the buffer: what it said is lost.
                Ok((length, _)) if length > self.receive.len() => return Err(NetlinkError::OutcomeUnknown),
                Ok((length, _)) => return Ok(length),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::NOBUFS | Errno::AGAIN) => return Err(NetlinkError::OutcomeUnknown),
                    _ => return Err(NetlinkError::Receive(error)),
                },
            }
        }
    }
}

/// The numbers of messages that were sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    base: u32,
    count: usize,
}
