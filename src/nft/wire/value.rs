//! What several messages have: families, registers, values, names.

use crate::netlink::{Attributes, MessageWriter, read_u32_be};

use crate::nft::ruleset::{Family, Register};

/// `NFTA_LIST_ELEM`: an item of a list.
pub(super) const LIST_ITEM: u16 = 1;
/// `NFTA_DATA_VALUE`.
const DATA_VALUE: u16 = 1;
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
pub(super) fn write_value(message: &mut MessageWriter<'_>, kind: u16, value: &[u8]) {
    message.nest(kind, |data| data.bytes(DATA_VALUE, value));
}

/// Reads the value of a `struct nft_data`; `None` where it holds a verdict.
pub(super) fn read_value(payload: &[u8]) -> Option<&[u8]> {
    attribute(payload, DATA_VALUE)
}

/// The payload of the first attribute of a type in a list of attributes.
pub(super) fn attribute(list: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes::new(list)
        .find(|(found, _)| *found == kind)
        .map(|(_, payload)| payload)
}

/// A number in network order, as all of nf_tables are.
pub(super) fn number(list: &[u8], kind: u16) -> Option<u32> {
    attribute(list, kind).and_then(read_u32_be)
}

/// A string up to its terminating NUL.
pub(super) fn text(list: &[u8], kind: u16) -> Option<&str> {
    let payload = attribute(list, kind)?;
    let text = payload.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok()
}

/// The items of a list.
pub(super) fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    Attributes::new(list)
        .filter(|(kind, _)| *kind == LIST_ITEM)
        .map(|(_, payload)| payload)
}
