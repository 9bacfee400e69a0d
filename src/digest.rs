//! Digests: numbers that are the same in every run, on every machine and in every build, for equal things.
//!
//! They tell whether two things are equal and whether a record is damaged; they are no protection against malice.
//!
//! | function | hash | for |
//! | --- | --- | --- |
//! | [`text`] | FNV-1a, 64 bits | what lasts: files in the state directory, names, marks. Another hash would make another ledger of the same lines |
//! | [`of`] | XXH3, 64 bits | values whose digests are added up: of FNV-1a, values that differ only in the end have digests that differ by small multiples of one number, which cancel each other out in a sum |
//!
//! `std::hash::Hash` says nothing about the bytes it hands to a hasher: they may be others with the next compiler. So a
//! value is written out by [`Encode`] first, and the tests say which digests that makes.

use std::net::IpAddr;

use twox_hash::XxHash3_64;

/// The digest of a text.
pub fn text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The digest of a value.
pub fn of(value: &impl Encode) -> u64 {
    let mut encoding = Encoding::default();
    value.encode(&mut encoding);
    XxHash3_64::oneshot(&encoding.0)
}

/// A value that can be written out, so that different values make different bytes.
pub trait Encode {
    /// Writes the value.
    fn encode(&self, encoding: &mut Encoding);
}

/// The bytes of a value. Whatever has no fixed length begins with its length.
#[derive(Debug, Default)]
pub struct Encoding(Vec<u8>);

impl Encoding {
    /// Which of several forms follows, a flag, or a small number.
    pub fn byte(&mut self, byte: impl Into<u8>) {
        self.0.push(byte.into());
    }

    /// A number, in 8 bytes, the least significant first.
    pub fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// A text: its length, and its bytes.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// An address: 4 or 6, and its bytes.
    pub fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.byte(4);
                self.0.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                self.byte(6);
                self.0.extend_from_slice(&address.octets());
            }
        }
    }

    /// What may be absent: 0, or 1 and what it is.
    pub fn optional<T>(&mut self, value: Option<T>, encode: impl FnOnce(&mut Self, T)) {
        self.byte(value.is_some());
        if let Some(value) = value {
            encode(self, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the algorithm's authors.
    #[test]
    fn known_texts_have_known_digests() {
        assert_eq!(text(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(text("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(text("foobar"), 0x8594_4171_f739_67e8);
    }

    /// Each part of an encoding, after the other.
    struct Parts;

    impl Encode for Parts {
        fn encode(&self, encoding: &mut Encoding) {
            encoding.byte(true);
            encoding.number(0x0102);
            encoding.text("é");
            encoding.address(IpAddr::from([10, 0, 0, 1]));
            encoding.address(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]));
            encoding.optional(None::<u8>, Encoding::byte);
            encoding.optional(Some(7), Encoding::byte);
        }
    }

    struct Nothing;

    impl Encode for Nothing {
        fn encode(&self, _encoding: &mut Encoding) {}
    }

    #[test]
    fn a_value_has_known_bytes_and_a_known_digest() {
        let mut encoding = Encoding::default();
        Parts.encode(&mut encoding);
        let expected = [
            &[1][..],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0xa9],
            &[4, 10, 0, 0, 1],
            &[6, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0],
            &[1, 7],
        ];
        assert_eq!(encoding.0, expected.concat());
        // XXH3_64bits of nothing, from xxHash's own tests.
        assert_eq!(of(&Nothing), 0x2d06_8005_38d3_94c2);
        assert_eq!(of(&Parts), 0x6ffb_18f8_0db7_a195);
    }
}
