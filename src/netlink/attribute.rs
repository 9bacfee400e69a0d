//! Attributes as bytes: what a message says after its family's header.
//!
//! ```text
//! | length u16 | type u16 | payload, padded to a multiple of 4 |
//! ```
//!
//! Which numbers an attribute's type may be depends on the list that it is in: 1 is the address in a destination of IPVS
//! and the family in a service. So every list is of a type, an enum of neli's or one made with its `neli_enum`, and what
//! belongs into another list does not compile:
//!
//! ```compile_fail
//! # use neli::consts::rtnl::{Ifa, Ifla};
//! # use weir::netlink::{Batch, written};
//! Batch::default().push(20u16, neli::consts::nl::NlmF::empty(), &written(|address| {
//!     address.u32(Ifa::Flags, 0);
//!     address.u32(Ifla::Mtu, 1500);
//! }));
//! ```
//!
//! Reading never panics and never allocates: what is too short for its own length field ends the iteration.

use std::fmt;
use std::io::Cursor;
use std::marker::PhantomData;

use neli::ToBytes;
use neli::err::SerError;

use super::message::align;

/// Bytes of an attribute header (`struct nlattr`).
const HEADER: usize = 4;
/// `NLA_F_NESTED`: the payload is itself a list of attributes.
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`: an attribute's type without the nested and byte-order bits.
const TYPE_MASK: u16 = 0x3fff;

/// The types of the attributes of one list. neli has two traits for it, `NlAttrType` and `RtaType`, of which either will do.
pub trait AttributeType: Copy + From<u16> + Into<u16> {}

impl<T: Copy + From<u16> + Into<u16>> AttributeType for T {}

/// Writes what follows a message's header: a family's fixed fields, then attributes of the types `T`.
#[derive(Debug)]
pub struct MessageWriter<'a, T> {
    buffer: &'a mut Vec<u8>,
    of: PhantomData<T>,
}

/// A small attribute of a list of `T`: with header and padding it has eight bytes.
///
/// As a value of known size it goes into the buffer with others, without a copying loop or padding to work out.
#[derive(Debug, Clone, Copy)]
pub struct Word<T> {
    bytes: [u8; 8],
    of: PhantomData<T>,
}

impl<T: AttributeType> Word<T> {
    /// A `u8`.
    pub fn u8(kind: T, value: u8) -> Self {
        Self::new(kind, 1, [value, 0, 0, 0])
    }

    /// A `u16` in host order.
    pub fn u16(kind: T, value: u16) -> Self {
        let [first, second] = value.to_ne_bytes();
        Self::new(kind, 2, [first, second, 0, 0])
    }

    /// A `u16` in network order.
    pub fn u16_be(kind: T, value: u16) -> Self {
        let [first, second] = value.to_be_bytes();
        Self::new(kind, 2, [first, second, 0, 0])
    }

    /// A `u32` in host order.
    pub fn u32(kind: T, value: u32) -> Self {
        Self::new(kind, 4, value.to_ne_bytes())
    }

    /// A `u32` in network order.
    pub fn u32_be(kind: T, value: u32) -> Self {
        Self::new(kind, 4, value.to_be_bytes())
    }

    fn new(kind: T, length: usize, [a, b, c, d]: [u8; 4]) -> Self {
        let [e, f, g, h] = header(kind.into(), length);
        Self {
            bytes: [e, f, g, h, a, b, c, d],
            of: PhantomData,
        }
    }
}

/// Attributes of known size, put together before they go into a buffer in one write: [`MessageWriter::fixed`],
/// [`MessageWriter::nest_fixed`].
///
/// All of it is to be inlined: then the place of each attribute is a number in the program, and what remains of a destination
/// is a few dozen stores (`make bench`, "encoding").
///
/// # Panics
///
/// Where the attributes have more bytes than was said. Both are of the program, not of what it is told.
#[derive(Debug)]
pub struct Fixed<'a, T> {
    bytes: &'a mut [u8],
    length: usize,
    of: PhantomData<T>,
}

impl<'a, T: AttributeType> Fixed<'a, T> {
    #[inline(always)]
    fn fill(bytes: &'a mut [u8], write: impl FnOnce(&mut Self)) -> usize {
        let mut fixed = Self {
            bytes,
            length: 0,
            of: PhantomData,
        };
        write(&mut fixed);
        fixed.length
    }

    /// Appends small attributes.
    #[inline(always)]
    pub fn words<const W: usize>(&mut self, words: [Word<T>; W]) {
        for word in words {
            self.put(word.bytes);
        }
    }

    /// Appends an attribute with a payload of a fixed size, a multiple of four.
    #[inline(always)]
    pub fn array<const P: usize>(&mut self, kind: T, payload: [u8; P]) {
        const { assert!(P.is_multiple_of(4), "padding would be needed") }
        self.put(header(kind.into(), P));
        self.put(payload);
    }

    #[inline(always)]
    fn put<const P: usize>(&mut self, part: [u8; P]) {
        let end = self.length + P;
        self.bytes[self.length..end].copy_from_slice(&part);
        self.length = end;
    }
}

/// `struct nlattr` of an attribute with a payload of `length` bytes.
fn header(kind: u16, length: usize) -> [u8; HEADER] {
    let [a, b] = ((HEADER + length) as u16).to_ne_bytes();
    let [c, d] = kind.to_ne_bytes();
    [a, b, c, d]
}

impl<T: AttributeType> MessageWriter<'_, T> {
    /// Appends a family's fixed header, of a multiple of four bytes.
    pub fn header<const N: usize>(&mut self, bytes: [u8; N]) {
        const { assert!(N.is_multiple_of(4), "padding would be needed") }
        self.buffer.extend_from_slice(&bytes);
    }

    /// Appends attributes that have `N` bytes together, in one write.
    #[inline]
    pub fn fixed<const N: usize>(&mut self, write: impl FnOnce(&mut Fixed<'_, T>)) {
        let mut bytes = [0; N];
        let length = Fixed::fill(&mut bytes, write);
        self.buffer.extend_from_slice(&bytes[..length]);
    }

    /// Appends an attribute whose payload is attributes, which has `N` bytes with its own header, in one write.
    #[inline]
    pub fn nest_fixed<U: AttributeType, const N: usize>(
        &mut self,
        kind: T,
        write: impl FnOnce(&mut Fixed<'_, U>),
    ) {
        let mut bytes = [0; N];
        let (head, list) = bytes.split_at_mut(HEADER);
        let length = HEADER + Fixed::fill(list, write);
        head.copy_from_slice(&header(kind.into() | NESTED, length - HEADER));
        self.buffer.extend_from_slice(&bytes[..length]);
    }

    /// Appends small attributes, all at once.
    pub fn words<const N: usize>(&mut self, words: [Word<T>; N]) {
        self.buffer
            .extend_from_slice(words.map(|word| word.bytes).as_flattened());
    }

    /// Appends a `u8` attribute.
    pub fn u8(&mut self, kind: T, value: u8) {
        self.words([Word::u8(kind, value)]);
    }

    /// Appends a `u16` attribute in host order.
    pub fn u16(&mut self, kind: T, value: u16) {
        self.words([Word::u16(kind, value)]);
    }

    /// Appends a `u16` attribute in network order.
    pub fn u16_be(&mut self, kind: T, value: u16) {
        self.words([Word::u16_be(kind, value)]);
    }

    /// Appends a `u32` attribute in host order.
    pub fn u32(&mut self, kind: T, value: u32) {
        self.words([Word::u32(kind, value)]);
    }

    /// Appends a `u32` attribute in network order.
    pub fn u32_be(&mut self, kind: T, value: u32) {
        self.words([Word::u32_be(kind, value)]);
    }

    /// Appends a `u64` attribute in host order.
    pub fn u64(&mut self, kind: T, value: u64) {
        self.array(kind, value.to_ne_bytes());
    }

    /// Appends an attribute whose payload has a fixed size, a multiple of four.
    pub fn array<const N: usize>(&mut self, kind: T, payload: [u8; N]) {
        const { assert!(N.is_multiple_of(4), "padding would be needed") }
        self.buffer.extend_from_slice(&header(kind.into(), N));
        self.buffer.extend_from_slice(&payload);
    }

    /// Appends an attribute with a payload of raw bytes.
    ///
    /// The payload must be shorter than 65,532 bytes, the most an attribute's length field can say.
    pub fn bytes(&mut self, kind: T, payload: &[u8]) {
        self.buffer.extend_from_slice(&header(kind.into(), payload.len()));
        self.buffer.extend_from_slice(payload);
        self.pad();
    }

    /// Appends a string attribute with its terminating NUL.
    pub fn string(&mut self, kind: T, text: &str) {
        self.buffer
            .extend_from_slice(&header(kind.into(), text.len() + 1));
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(0);
        self.pad();
    }

    /// Appends an attribute whose payload is a list of attributes of the types `U`.
    pub fn nest<U: AttributeType>(&mut self, kind: T, write: impl FnOnce(&mut MessageWriter<'_, U>)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&header(kind.into() | NESTED, 0));
        write(&mut MessageWriter {
            buffer: self.buffer,
            of: PhantomData,
        });
        let length = (self.buffer.len() - start) as u16;
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        let missing = align(self.buffer.len()) - self.buffer.len();
        self.buffer.extend_from_slice(&[0; 3][..missing]);
    }
}

/// The body of a message, as [`MessageWriter`] writes it, in the form in which neli takes bodies.
pub fn written<T: AttributeType>(write: impl Fn(&mut MessageWriter<'_, T>)) -> impl ToBytes {
    Written {
        write,
        of: PhantomData,
    }
}

struct Written<T, W> {
    write: W,
    of: PhantomData<T>,
}

/// A requirement of neli's.
impl<T, W> fmt::Debug for Written<T, W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Written").finish_non_exhaustive()
    }
}

impl<T: AttributeType, W: Fn(&mut MessageWriter<'_, T>)> ToBytes for Written<T, W> {
    #[inline]
    fn to_bytes(&self, buffer: &mut Cursor<Vec<u8>>) -> Result<(), SerError> {
        (self.write)(&mut MessageWriter {
            buffer: buffer.get_mut(),
            of: PhantomData,
        });
        buffer.set_position(buffer.get_ref().len() as u64);
        Ok(())
    }
}

/// The attributes of a message or of a nested attribute: type without flag bits, and payload.
#[derive(Debug)]
pub struct Attributes<'a, T> {
    rest: &'a [u8],
    of: PhantomData<T>,
}

impl<T> Clone for Attributes<'_, T> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a, T: AttributeType> Attributes<'a, T> {
    /// Reads a list of attributes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            of: PhantomData,
        }
    }

    /// Reads the attributes of a message's payload behind a fixed header of `header` bytes.
    pub fn after_header(payload: &'a [u8], header: usize) -> Self {
        Self::new(payload.get(align(header)..).unwrap_or_default())
    }

    /// The payload of the first attribute of a type.
    pub fn get(&self, wanted: T) -> Option<&'a [u8]>
    where
        T: PartialEq,
    {
        self.clone()
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, payload)| payload)
    }
}

impl<'a, T: AttributeType> Iterator for Attributes<'a, T> {
    type Item = (T, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(read_u16(self.rest)?);
        let attribute = self
            .rest
            .get(..length)
            .filter(|attribute| attribute.len() >= HEADER)?;
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        let kind = read_u16(&attribute[2..])? & TYPE_MASK;
        Some((T::from(kind), &attribute[HEADER..]))
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

/// Reads a string up to its terminating NUL, or to its end where a kernel wrote none.
pub fn read_string(payload: &[u8]) -> Option<&str> {
    let text = payload.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok()
}
