//! Netlink messages and attributes as bytes.
//!
//! ```text
//!  0               4       6       8              12              16
//! +---------------+-------+-------+---------------+---------------+---------------------------+
//! | length        | type  | flags | sequence      | port          | family header, attributes |
//! +---------------+-------+-------+---------------+---------------+---------------------------+
//! attribute: | length u16 | type u16 | payload, padded to a multiple of 4 |
//! ```
//!
//! All integers are in host order unless a family says otherwise. Reading never panics and never allocates: what
//! is too short for its own length field ends the iteration.

/// Bytes of a message header (`struct nlmsghdr`).
const HEADER: usize = 16;
/// Bytes of an attribute header (`struct nlattr`).
const ATTRIBUTE_HEADER: usize = 4;
/// Room made for a message before it is written; most are shorter.
const USUAL_LENGTH: usize = 256;
/// `NLA_F_NESTED`: the payload is itself a list of attributes.
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`: an attribute's type without the nested and byte-order bits.
const TYPE_MASK: u16 = 0x3fff;

/// Message types every family shares.
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Bits of a message header's `flags` field (`NLM_F_*`).
pub mod flags {
    /// `NLM_F_REQUEST`: set on everything that is sent to the kernel.
    pub const REQUEST: u16 = 0x1;
    /// `NLM_F_ACK`: answer even if all went well.
    pub const ACK: u16 = 0x4;
    /// `NLM_F_DUMP_INTR`: the dump's source changed while it was read.
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    /// `NLM_F_DUMP`: list everything.
    pub const DUMP: u16 = 0x300;
    /// `NLM_F_REPLACE`: with `CREATE`, overwrite what exists.
    pub const REPLACE: u16 = 0x100;
    /// `NLM_F_EXCL`: with `CREATE`, fail on what exists.
    pub const EXCLUSIVE: u16 = 0x200;
    /// `NLM_F_CREATE`: create what does not exist.
    pub const CREATE: u16 = 0x400;
    /// `NLM_F_APPEND`: add to the end of a list.
    pub const APPEND: u16 = 0x800;
}

/// Rounds a length up to netlink's alignment of four bytes.
pub const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Messages one after another, ready to be sent: a pipeline that the kernel works through in order.
#[derive(Debug, Default)]
pub struct Batch {
    buffer: Vec<u8>,
    starts: Vec<usize>,
}

impl Batch {
    /// Appends one message; `write` fills what follows the header.
    pub fn push(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut MessageWriter<'_>)) {
        let start = self.buffer.len();
        self.starts.push(start);
        self.buffer.reserve(USUAL_LENGTH);
        self.buffer.extend_from_slice(&[0; HEADER]);
        write(&mut MessageWriter {
            buffer: &mut self.buffer,
        });
        let length = (self.buffer.len() - start) as u32;
        let header = &mut self.buffer[start..start + HEADER];
        header[..4].copy_from_slice(&length.to_ne_bytes());
        header[4..6].copy_from_slice(&kind.to_ne_bytes());
        header[6..8].copy_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
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
        self.buffer.clear();
        self.starts.clear();
    }

    /// The bytes of all messages, as they are sent; sequence numbers are still to be stamped.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The bytes of messages `first..end`.
    pub(super) fn bytes(&self, first: usize, end: usize) -> &[u8] {
        let from = self.starts.get(first).copied().unwrap_or(self.buffer.len());
        let to = self.starts.get(end).copied().unwrap_or(self.buffer.len());
        &self.buffer[from..to]
    }

    /// Stamps a message with its sequence number.
    pub(super) fn set_sequence(&mut self, index: usize, sequence: u32) {
        let start = self.starts[index];
        self.buffer[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }

    /// Asks for an acknowledgement of one message.
    pub(super) fn request_ack(&mut self, index: usize) {
        let start = self.starts[index];
        let field = &mut self.buffer[start + 6..start + 8];
        let flags = u16::from_ne_bytes([field[0], field[1]]) | flags::ACK;
        field.copy_from_slice(&flags.to_ne_bytes());
    }
}

/// Writes what follows a message's header: a family's fixed fields, then attributes.
#[derive(Debug)]
pub struct MessageWriter<'a> {
    buffer: &'a mut Vec<u8>,
}

impl MessageWriter<'_> {
    /// Appends a family's fixed header, padded to four bytes.
    pub fn header(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.pad();
    }

    /// Appends an attribute with a payload of raw bytes.
    ///
    /// The payload must be shorter than 65,532 bytes, the most an attribute's length field can say.
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) {
        self.attribute_header(kind, payload.len());
        self.buffer.extend_from_slice(payload);
        self.pad();
    }

    /// Appends a `u8` attribute.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.attribute_header(kind, 1);
        self.buffer.extend_from_slice(&[value, 0, 0, 0]);
    }

    /// Appends a `u16` attribute in host order.
    pub fn u16(&mut self, kind: u16, value: u16) {
        self.two_bytes(kind, value.to_ne_bytes());
    }

    /// Appends a `u16` attribute in network order.
    pub fn u16_be(&mut self, kind: u16, value: u16) {
        self.two_bytes(kind, value.to_be_bytes());
    }

    /// Appends a `u32` attribute in host order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.array(kind, value.to_ne_bytes());
    }

    /// Appends a `u32` attribute in network order.
    pub fn u32_be(&mut self, kind: u16, value: u32) {
        self.array(kind, value.to_be_bytes());
    }

    /// Appends a `u64` attribute in host order.
    pub fn u64(&mut self, kind: u16, value: u64) {
        self.array(kind, value.to_ne_bytes());
    }

    /// Appends an attribute whose payload has a fixed size, a multiple of four.
    ///
    /// A table of ten thousand destinations is a hundred thousand attributes: with the size known there is neither a
    /// copying loop nor padding to work out.
    pub fn array<const N: usize>(&mut self, kind: u16, payload: [u8; N]) {
        const { assert!(N.is_multiple_of(4), "padding would be needed") }
        self.attribute_header(kind, N);
        self.buffer.extend_from_slice(&payload);
    }

    fn two_bytes(&mut self, kind: u16, [first, second]: [u8; 2]) {
        self.attribute_header(kind, 2);
        self.buffer.extend_from_slice(&[first, second, 0, 0]);
    }

    fn attribute_header(&mut self, kind: u16, payload: usize) {
        let [length_first, length_second] = ((ATTRIBUTE_HEADER + payload) as u16).to_ne_bytes();
        let [kind_first, kind_second] = kind.to_ne_bytes();
        self.buffer
            .extend_from_slice(&[length_first, length_second, kind_first, kind_second]);
    }

    /// Appends a string attribute with its terminating NUL.
    pub fn string(&mut self, kind: u16, text: &str) {
        self.attribute_header(kind, text.len() + 1);
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(0);
        self.pad();
    }

    /// Appends an attribute whose payload is a list of attributes.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut MessageWriter<'_>)) {
        let start = self.buffer.len();
        self.attribute_header(kind | NESTED, 0);
        write(&mut MessageWriter { buffer: self.buffer });
        let length = (self.buffer.len() - start) as u16;
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        let missing = align(self.buffer.len()) - self.buffer.len();
        self.buffer.extend_from_slice(&[0; 3][..missing]);
    }
}

/// What one received message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// Ends a request (errno 0) or refuses it (`NLMSG_ERROR`); errno is positive here.
    Ended {
        /// 0, or the positive errno.
        errno: i32,
    },
    /// Ends a dump (`NLMSG_DONE`), which may itself have failed half way.
    DumpEnded {
        /// 0, or the positive errno.
        errno: i32,
    },
    /// A reply: its type and all that follows the header.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The request this answers.
    pub sequence: u32,
    /// Header flags, see [`flags`].
    pub flags: u16,
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
        let kind = read_u16(&message[4..])?;
        let payload = &message[HEADER..];
        let errno = || read_u32(payload).map_or(0, |code| (code as i32).wrapping_neg());
        let body = match kind {
            NLMSG_ERROR => Body::Ended { errno: errno() },
            NLMSG_DONE => Body::DumpEnded { errno: errno() },
            NLMSG_NOOP => Body::Nothing,
            kind => Body::Reply { kind, payload },
        };
        Some(Received {
            sequence: read_u32(&message[8..])?,
            flags: read_u16(&message[6..])?,
            body,
        })
    }
}

/// The attributes of a message or of a nested attribute: type without flag bits, and payload.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads a list of attributes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads the attributes of a message's payload behind a fixed header of `header` bytes.
    pub fn after_header(payload: &'a [u8], header: usize) -> Self {
        Self::new(payload.get(align(header)..).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(read_u16(self.rest)?);
        let attribute = self
            .rest
            .get(..length)
            .filter(|attribute| attribute.len() >= ATTRIBUTE_HEADER)?;
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        Some((
            read_u16(&attribute[2..])? & TYPE_MASK,
            &attribute[ATTRIBUTE_HEADER..],
        ))
    }
}

/// Reads a `u8` from the start of a payload.
pub fn read_u8(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied()
}

/// Reads a host-order `u16` from the start of a payload.
pub fn read_u16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

/// Reads a network-order `u16` from the start of a payload.
pub fn read_u16_be(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

/// Reads a host-order `u32` from the start of a payload.
pub fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// Reads a network-order `u32` from the start of a payload.
pub fn read_u32_be(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

/// Reads a network-order `u64` from the start of a payload.
pub fn read_u64_be(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|chunk| u64::from_be_bytes(*chunk))
}

/// Reads a host-order `u64` from the start of a payload.
pub fn read_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_written_as_the_kernel_reads_it() {
        let mut batch = Batch::default();
        batch.push(0x1c, flags::ACK, |message| {
            message.header(&[1, 1, 0]);
            message.nest(1, |service| {
                service.u16(1, 2);
                service.string(6, "wlc");
            });
        });
        batch.set_sequence(0, 7);
        #[rustfmt::skip]
        let expected = [
            40, 0, 0, 0, 0x1c, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0,
            1, 1, 0, 0,
            20, 0, 1, 0x80,
            6, 0, 1, 0, 2, 0, 0, 0,
            8, 0, 6, 0, b'w', b'l', b'c', 0,
        ];
        assert_eq!(batch.bytes(0, 1), expected);
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut batch = Batch::default();
        batch.push(30, 0, |message| {
            message.header(&[4, 1, 0, 0]);
            message.u8(1, 9);
            message.nest(2, |inner| inner.u64(3, 1 << 40));
            message.u16_be(4, 80);
            message.u32_be(5, 7);
        });
        let mut messages = Messages::new(batch.bytes(0, 1));
        let Some(Received {
            body: Body::Reply { kind: 30, payload },
            ..
        }) = messages.next()
        else {
            panic!("a reply of type 30");
        };
        let attributes: Vec<_> = Attributes::after_header(payload, 4).collect();
        assert_eq!(attributes[0], (1, [9].as_slice()));
        let nested: Vec<_> = Attributes::new(attributes[1].1).collect();
        assert_eq!(nested, [(3, (1u64 << 40).to_ne_bytes().as_slice())]);
        assert_eq!(read_u16_be(attributes[2].1), Some(80));
        assert_eq!(read_u32_be(attributes[3].1), Some(7));
        assert_eq!(messages.next(), None);
    }

    #[test]
    fn an_error_carries_a_positive_errno() {
        let mut datagram = vec![20, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        datagram.extend_from_slice(&(-17i32).to_ne_bytes());
        let expected = Received {
            sequence: 5,
            flags: 0,
            body: Body::Ended { errno: 17 },
        };
        assert_eq!(Messages::new(&datagram).collect::<Vec<_>>(), [expected]);
    }

    proptest! {
        #[test]
        fn reading_any_bytes_ends_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in Messages::new(&bytes) {
                if let Body::Reply { payload, .. } = message.body {
                    prop_assert!(Attributes::after_header(payload, 4).count() <= payload.len());
                }
            }
        }
    }
}
