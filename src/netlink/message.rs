//! Netlink messages as bytes, one after another.
//!
//! ```text
//!  0               4       6       8              12              16
//! +---------------+-------+-------+---------------+---------------+---------------------------+
//! | length        | type  | flags | sequence      | port          | family header, attributes |
//! +---------------+-------+-------+---------------+---------------+---------------------------+
//! ```
//!
//! All integers are in host order unless a family says otherwise. Reading never panics: what is too short for its own length
//! field ends the iteration. neli's own reader of messages is given none but refusals, whole ones: at a length below
//! that of a header it panics.

use std::io::Cursor;

use neli::ToBytes;
use neli::consts::nl::{NlType, NlmF, Nlmsg};
use neli::err::SerError;

use super::attribute::{read_u16, read_u32};
use super::refused::Refused;

/// Bytes of a message header (`struct nlmsghdr`).
pub(super) const HEADER: usize = 16;
/// Room made for a message before it is written; most are shorter.
const USUAL_LENGTH: usize = 256;

/// Rounds a length up to netlink's alignment of four bytes.
pub const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Messages one after another, ready to be sent: a pipeline that the kernel works through in order.
#[derive(Debug, Default)]
pub struct Batch {
    buffer: Cursor<Vec<u8>>,
    starts: Vec<usize>,
    unwritable: Option<SerError>,
}

impl Batch {
    /// Appends one message.
    ///
    /// A body that cannot be written keeps the whole batch from being sent, which then fails with its error.
    #[inline]
    pub fn push(&mut self, kind: impl NlType, flags: NlmF, body: &impl ToBytes) {
        let start = self.buffer.get_ref().len();
        self.starts.push(start);
        let bytes = self.buffer.get_mut();
        bytes.reserve(USUAL_LENGTH);
        bytes.extend_from_slice(&header(kind.into(), flags | NlmF::REQUEST));
        self.buffer.set_position((start + HEADER) as u64);
        if let Err(error) = body.to_bytes(&mut self.buffer) {
            self.unwritable = Some(error);
        }
        let bytes = self.buffer.get_mut();
        let length = (bytes.len() - start) as u32;
        bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// How many messages the batch holds.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether the batch holds no message.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Forgets the messages and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.get_mut().clear();
        self.starts.clear();
        self.unwritable = None;
    }

    /// The bytes of all messages, as they are sent; sequence numbers are still to be stamped.
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get_ref()
    }

    /// The bytes of one message; none where there is no such.
    pub fn message(&self, index: usize) -> &[u8] {
        self.bytes(index, index + 1)
    }

    /// The bytes of messages `first..end`.
    pub(super) fn bytes(&self, first: usize, end: usize) -> &[u8] {
        let bytes = self.as_bytes();
        let start = |index: usize| self.starts.get(index).copied().unwrap_or(bytes.len());
        &bytes[start(first)..start(end)]
    }

    /// Stamps a message with its sequence number.
    pub(super) fn set_sequence(&mut self, index: usize, sequence: u32) {
        let start = self.starts[index];
        self.buffer.get_mut()[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }

    /// Asks for an acknowledgement of one message.
    pub(super) fn request_ack(&mut self, index: usize) {
        let start = self.starts[index];
        let field = &mut self.buffer.get_mut()[start + 6..start + 8];
        let flags = u16::from_ne_bytes([field[0], field[1]]) | NlmF::ACK.bits();
        field.copy_from_slice(&flags.to_ne_bytes());
    }

    /// Why the batch cannot be sent, if a body could not be written.
    pub(super) fn unwritable(&self) -> Option<&SerError> {
        self.unwritable.as_ref()
    }
}

/// A header without the length, which is known later, and the sequence number, which is the connection's.
fn header(kind: u16, flags: NlmF) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&flags.bits().to_ne_bytes());
    header
}

/// What one received message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// Ends a request, or refuses it (`NLMSG_ERROR`).
    Ended(Result<(), Refused>),
    /// Ends a dump (`NLMSG_DONE`), which may itself have failed half way.
    DumpEnded(Result<(), Refused>),
    /// A reply or an event: its type and all that follows the header.
    Reply {
        /// The message type: a family's number, or one of a family's own types.
        kind: u16,
        /// Family header and attributes.
        payload: &'a [u8],
    },
    /// A message without meaning (`NLMSG_NOOP`).
    Nothing,
}

/// One received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received<'a> {
    /// The request this answers.
    pub sequence: u32,
    /// The port of the socket that asked: of an event, whose request caused it; 0 where the kernel did by itself.
    pub port: u32,
    /// Header flags.
    pub flags: NlmF,
    /// What it says.
    pub body: Body<'a>,
}

/// The messages of one datagram.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Reads the messages of a datagram.
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = read_u32(self.rest)? as usize;
        let message = self
            .rest
            .get(..length)
            .filter(|message| message.len() >= HEADER)?;
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        let payload = &message[HEADER..];
        let body = match Nlmsg::from(read_u16(&message[4..])?) {
            Nlmsg::Error => Body::Ended(Refused::read(message)),
            // An end that says nothing is a good one.
            Nlmsg::Done if payload.is_empty() => Body::DumpEnded(Ok(())),
            Nlmsg::Done => Body::DumpEnded(Refused::read(message)),
            Nlmsg::Noop => Body::Nothing,
            kind => Body::Reply {
                kind: kind.into(),
                payload,
            },
        };
        Some(Received {
            sequence: read_u32(&message[8..])?,
            port: read_u32(&message[12..])?,
            flags: NlmF::from_bits_retain(read_u16(&message[6..])?),
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Attributes, read_u16_be, read_u32_be, written};
    use proptest::prelude::*;

    #[test]
    fn a_message_is_written_as_the_kernel_reads_it() {
        let mut batch = Batch::default();
        let body = written(|message| {
            message.header([1, 1, 0, 0]);
            message.nest(1u16, |service| {
                service.u16(1u16, 2);
                service.string(6, "wlc");
            });
        });
        batch.push(0x1cu16, NlmF::ACK, &body);
        batch.set_sequence(0, 7);
        #[rustfmt::skip]
        let expected = [
            40, 0, 0, 0, 0x1c, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0,
            1, 1, 0, 0,
            20, 0, 1, 0x80,
            6, 0, 1, 0, 2, 0, 0, 0,
            8, 0, 6, 0, b'w', b'l', b'c', 0,
        ];
        assert_eq!(batch.message(0), expected);
        assert!(batch.message(1).is_empty());
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut batch = Batch::default();
        let body = written(|message| {
            message.header([4, 1, 0, 0]);
            message.u8(1u16, 9);
            message.nest(2, |inner| inner.u64(3u16, 1 << 40));
            message.u16_be(4, 80);
            message.u32_be(5, 7);
        });
        batch.push(30u16, NlmF::empty(), &body);
        let mut messages = Messages::new(batch.message(0));
        let Some(Received {
            body: Body::Reply { kind: 30, payload },
            ..
        }) = messages.next()
        else {
            panic!("a reply of type 30");
        };
        let attributes: Vec<(u16, &[u8])> = Attributes::after_header(payload, 4).collect();
        assert_eq!(attributes[0], (1, [9].as_slice()));
        let nested: Vec<(u16, &[u8])> = Attributes::new(attributes[1].1).collect();
        assert_eq!(nested, [(3, (1u64 << 40).to_ne_bytes().as_slice())]);
        assert_eq!(read_u16_be(attributes[2].1), Some(80));
        assert_eq!(read_u32_be(attributes[3].1), Some(7));
        assert_eq!(messages.next(), None);
    }

    /// What neli writes of its own types, beside what Weir does.
    #[test]
    fn a_body_may_be_of_nelis_types() {
        let mut batch = Batch::default();
        batch.push(30u16, NlmF::empty(), &written(|body| body.u8(1u16, 9)));
        batch.push(31u16, NlmF::DUMP, &7u32);
        assert_eq!(batch.message(1).len(), HEADER + 4);
        assert_eq!(batch.message(1)[..8], [20, 0, 0, 0, 31, 0, 1, 3]);
        assert_eq!(batch.message(1)[HEADER..], 7u32.to_ne_bytes());
    }

    #[derive(Debug)]
    struct Unwritable;

    impl ToBytes for Unwritable {
        fn to_bytes(&self, _: &mut Cursor<Vec<u8>>) -> Result<(), SerError> {
            Err(SerError::new("no form"))
        }
    }

    #[test]
    fn a_body_that_cannot_be_written_is_not_forgotten() {
        let mut batch = Batch::default();
        batch.push(30u16, NlmF::empty(), &Unwritable);
        batch.push(30u16, NlmF::empty(), &7u32);
        assert_eq!(
            batch.unwritable().map(ToString::to_string),
            Some("no form".into())
        );
        batch.clear();
        assert!(batch.unwritable().is_none() && batch.is_empty());
    }

    proptest! {
        #[test]
        fn reading_any_bytes_ends_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in Messages::new(&bytes) {
                if let Body::Reply { payload, .. } = message.body {
                    let attributes = Attributes::<u16>::after_header(payload, 4);
                    prop_assert!(attributes.count() <= payload.len());
                }
            }
        }
    }
}
