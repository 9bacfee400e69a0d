//! A ruleset as a value: what the tables named `weir` hold, or should hold.
//!
//! Only what Weir's own rules are made of has a form here. What somebody else's rules are made of beside that reads as
//! [`Expression::Unknown`], which equals nothing Weir would write.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// The name of every table of Weir's: one in each family that needs one.
pub const TABLE: &str = "weir";

/// Weir's tables by family.
pub type Ruleset = BTreeMap<Family, Table>;

/// Families of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// ARP requests and replies.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// As `nft` writes it: "arp", "ip", "ip6".
impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Arp => "arp",
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        })
    }
}

/// One table: sets that its rules look into, and chains of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Sets and maps by name.
    pub sets: BTreeMap<Box<str>, Set>,
    /// Chains by name.
    pub chains: BTreeMap<Box<str>, Chain>,
}

/// A set of keys, or with `data` a map from keys to values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What a key is made of, in order.
    pub key: Vec<Field>,
    /// What a key leads to, in a map.
    pub data: Option<Field>,
    /// Whether an element may stand for a range of keys. Only where keys have two fields or more: the kernel keeps
    /// ranges of single fields in another form, which has none here.
    pub ranges: bool,
    /// The elements, each with what it leads to in a map, padded like a key. No two may have a key in common.
    pub elements: BTreeMap<Element, Option<Vec<u8>>>,
}

impl Set {
    /// Whether two sets hold elements of the same form, whichever they are.
    pub fn has_definition_of(&self, other: &Self) -> bool {
        (&self.key, self.data, self.ranges) == (&other.key, other.data, other.ranges)
    }

    /// A set of the same form with other elements.
    pub fn with(&self, elements: BTreeMap<Element, Option<Vec<u8>>>) -> Self {
        Self {
            key: self.key.clone(),
            data: self.data,
            ranges: self.ranges,
            elements,
        }
    }
}

/// A part of a key, or what a map leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// An IPv4 address, 4 bytes.
    Ipv4Address,
    /// An IPv6 address, 16 bytes.
    Ipv6Address,
    /// A transport protocol's number, 1 byte.
    Protocol,
    /// A port in network order, 2 bytes.
    Port,
    /// A packet mark in host order, 4 bytes.
    Mark,
}

impl Field {
    /// How many bytes it has.
    pub fn length(self) -> usize {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ipv4Address | Self::Mark => 4,
            Self::Ipv6Address => 16,
        }
    }

    /// How many bytes of registers it takes: the next multiple of four.
    pub fn padded_length(self) -> usize {
        self.length().next_multiple_of(4)
    }
}

/// A key, or a range of keys from the first to the last in each field, both included. The bytes are those of the fields
/// one after another, each padded with zeros to a multiple of four, as registers hold them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The key, or the first of the range.
    pub first: Vec<u8>,
    /// The last of the range, in a set with ranges.
    pub last: Option<Vec<u8>>,
}

impl Element {
    /// Whether some key is in both, in a set with keys of these fields.
    pub fn overlaps(&self, other: &Self, key: &[Field]) -> bool {
        let mut offset = 0;
        key.iter().all(|field| {
            let part = offset..offset + field.padded_length();
            offset = part.end;
            match (self.bounds(part.clone()), other.bounds(part)) {
                (Some((first, last)), Some((other_first, other_last))) => {
                    first <= other_last && other_first <= last
                }
                _ => false,
            }
        })
    }

    /// First and last value of the field at these bytes.
    fn bounds(&self, part: Range<usize>) -> Option<(&[u8], &[u8])> {
        let last = self.last.as_ref().unwrap_or(&self.first);
        Some((self.first.get(part.clone())?, last.get(part)?))
    }
}

/// A chain of rules at a hook; packets that no rule decides upon go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// What its rules may do.
    pub kind: ChainKind,
    /// Where packets meet it.
    pub hook: Hook,
    /// Its place among the chains of a hook: lower ones come first.
    pub priority: i32,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// What the rules of a chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Let pass, drop, change.
    Filter,
    /// Translate addresses of connections.
    Nat,
}

/// Where packets meet a chain. Family `arp` has input and output alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// As they arrive.
    Prerouting,
    /// When they are for this node.
    Input,
    /// When they come from this node.
    Output,
    /// As they leave.
    Postrouting,
}

/// A rule: its expressions in order. The first that does not hold ends it.
pub type Rule = Vec<Expression>;

/// One of the registers that expressions hand values on in: four bytes each, and longer values take several in a row.
///
/// Counted from 0, which is the kernel's `NFT_REG32_00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(pub u8);

/// A step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads bytes of the packet.
    Payload {
        /// Where offsets count from.
        base: Base,
        /// The first byte.
        offset: u32,
        /// How many bytes.
        length: u32,
        /// Where to.
        register: Register,
    },
    /// Overwrites bytes of the packet, without mending any checksum: ARP has none.
    PayloadWrite {
        /// Where offsets count from.
        base: Base,
        /// The first byte.
        offset: u32,
        /// How many bytes.
        length: u32,
        /// Where from.
        register: Register,
    },
    /// Loads what the kernel knows of a packet.
    Meta {
        /// What.
        key: MetaKey,
        /// Where to.
        register: Register,
    },
    /// Sets the packet's mark.
    SetMark {
        /// Where from.
        register: Register,
    },
    /// Keeps some bits of a register and clears the others.
    Mask {
        /// Where from and to.
        register: Register,
        /// The bits to keep.
        mask: Vec<u8>,
    },
    /// Holds if a register equals a value, or if it does not.
    Compare {
        /// The register.
        register: Register,
        /// Whether they must be equal.
        equal: bool,
        /// The value.
        value: Vec<u8>,
    },
    /// Holds if a register is in a set.
    Lookup {
        /// The set.
        set: Box<str>,
        /// The key.
        register: Register,
        /// In a map, where to load what the key leads to.
        into: Option<Register>,
    },
    /// Loads a value.
    Immediate {
        /// Where to.
        register: Register,
        /// The value.
        value: Vec<u8>,
    },
    /// Decides.
    Verdict(Verdict),
    /// Translates the connection's destination address.
    DestinationNat {
        /// The family of the address.
        family: Family,
        /// Where the address is.
        address: Register,
    },
    /// Translates the connection's source address to the one of the interface it leaves by.
    Masquerade,
    /// Lowers the maximum segment size that a TCP SYN announces; never raises it.
    ClampSegmentSize {
        /// Where the size is, two bytes in network order.
        register: Register,
    },
    /// Something else, by the kernel's name for it.
    Unknown(Box<str>),
}

/// Where offsets into a packet count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The link-layer header.
    Link,
    /// The network header; in family `arp` the ARP header.
    Network,
    /// The transport header.
    Transport,
}

/// What the kernel knows of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// The transport protocol, 1 byte.
    Protocol,
    /// The name of the interface it came by, 16 bytes padded with zeros.
    InputInterface,
    /// The name of the interface it leaves by, 16 bytes padded with zeros.
    OutputInterface,
    /// The mark, 4 bytes in host order.
    Mark,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on; later rules of the chain are not asked.
    Accept,
    /// It ends here.
    Drop,
}
