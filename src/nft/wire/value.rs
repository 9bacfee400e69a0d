//! What several messages have: families, registers, values, names.

use neli::consts::genl::NlAttrType;
use neli::neli_enum;

use crate::netlink::{AttributeType, Attributes, MessageWriter, read_string, read_u32_be};

use crate::nft::ruleset::{Family, Register};

/// `NFTA_LIST_*`: what a list consists of.
#[neli_enum(serialized_type = "u16")]
pub(super) enum ListAttribute {
    Item = 1,
}

impl NlAttrType for ListAttribute {}

/// `NFTA_DATA_*`: a value, or a verdict.
#[neli_enum(serialized_type = "u16")]
pub(super) enum DataAttribute {
    Value = 1,
    Verdict = 2,
}

impl NlAttrType for DataAttribute {}

/// Registers of 16 bytes: `NFT_REG_1` to `NFT_REG_4`. Each is four of those that Weir counts.
const OLD_REGISTERS: std::ops::RangeInclusive<u32> = 1..=4;
/// Registers of 4 bytes: `NFT_REG32_00` to `NFT_REG32_15`.
const REGISTERS: std::ops::RangeInclusive<u32> = 8..=23;

/// A family's number (`NFPROTO_*`, `include/uapi/linux/netfilter.h`).
pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 2,
        Family::Arp => 3,
        Family::Ipv6 => 10,
    }
}

/// The family of a number, if it is one of Weir's.
pub(super) fn family_from_number(number: u8) -> Option<Family> {
    [Family::Arp, Family::Ipv4, Family::Ipv6]
        .into_iter()
        .find(|family| family_number(*family) == number)
}

pub(super) fn register_number(register: Register) -> u32 {
    REGISTERS.start() + u32::from(register.0)
}

/// Reads a register. The kernel names one that starts at a multiple of 16 bytes as it was named when there were no
/// others.
pub(super) fn read_register(payload: &[u8]) -> Option<Register> {
    let number = read_u32_be(payload)?;
    let index = if OLD_REGISTERS.contains(&number) {
        (number - OLD_REGISTERS.start()) * 4
    } else if REGISTERS.contains(&number) {
        number - REGISTERS.start()
    } else {
        return None;
    };
    u8::try_from(index).ok().map(Register)
}

/// Writes `struct nft_data` with a value.
pub(super) fn write_value<T: AttributeType>(message: &mut MessageWriter<'_, T>, kind: T, value: &[u8]) {
    message.nest(kind, |data| data.bytes(DataAttribute::Value, value));
}

/// Reads the value of a `struct nft_data`; `None` where it holds a verdict.
pub(super) fn read_value(payload: &[u8]) -> Option<&[u8]> {
    attribute(payload, DataAttribute::Value)
}

/// The payload of the first attribute of a type in a list of attributes.
pub(super) fn attribute<T: AttributeType + PartialEq>(list: &[u8], kind: T) -> Option<&[u8]> {
    Attributes::new(list).get(kind)
}

/// A number in network order, as all of nf_tables are.
pub(super) fn number<T: AttributeType + PartialEq>(list: &[u8], kind: T) -> Option<u32> {
    attribute(list, kind).and_then(read_u32_be)
}

/// A string up to its terminating NUL.
pub(super) fn text<T: AttributeType + PartialEq>(list: &[u8], kind: T) -> Option<&str> {
    attribute(list, kind).and_then(read_string)
}

/// The items of a list.
pub(super) fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    Attributes::<ListAttribute>::new(list)
        .filter(|(kind, _)| *kind == ListAttribute::Item)
        .map(|(_, payload)| payload)
}
