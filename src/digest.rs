//! A digest that is the same in every run and on every machine: FNV-1a, 64 bits.
//!
//! It tells whether two things are equal and whether a record is torn; it is no protection against malice.

use std::hash::Hasher;

/// FNV-1a as a hasher.
#[derive(Debug, Clone, Copy)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// The digest of a text.
pub fn text(text: &str) -> u64 {
    let mut digest = Digest::default();
    digest.write(text.as_bytes());
    digest.finish()
}

/// The digest of a value.
pub fn value(value: &impl std::hash::Hash) -> u64 {
    let mut digest = Digest::default();
    value.hash(&mut digest);
    digest.finish()
}

#[cfg(test)]
mod tests {
    /// Test vectors of the algorithm's authors.
    #[test]
    fn known_texts_have_known_digests() {
        assert_eq!(super::text(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::text("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(super::text("foobar"), 0x8594_4171_f739_67e8);
    }
}
