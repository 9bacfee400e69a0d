//! Expressions of rules.
//!
//! Reading is strict: an expression that says more than Weir's words can say (an inverted lookup, a checksum to mend,
//! a range of ports) reads as unknown, so that it never passes for one of Weir's.

use crate::netlink::{MessageWriter, read_u8};

use crate::nft::ruleset::{Base, Expression, Family, MetaKey, Register, Verdict};

use super::value::{
    LIST_ITEM, attribute, family_from_number, family_number, items, number, read_register, read_value,
    register_number, text, write_value,
};

/// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;

/// The kernel's names of expressions.
mod name {
    pub(super) const PAYLOAD: &str = "payload";
    pub(super) const META: &str = "meta";
    pub(super) const BITWISE: &str = "bitwise";
    pub(super) const COMPARE: &str = "cmp";
    pub(super) const LOOKUP: &str = "lookup";
    pub(super) const IMMEDIATE: &str = "immediate";
    pub(super) const NAT: &str = "nat";
    pub(super) const MASQUERADE: &str = "masq";
    pub(super) const EXTENSION_HEADER: &str = "exthdr";
}

/// `NFTA_PAYLOAD_*`.
mod payload_attribute {
    pub(super) const DESTINATION: u16 = 1;
    pub(super) const BASE: u16 = 2;
    pub(super) const OFFSET: u16 = 3;
    pub(super) const LENGTH: u16 = 4;
    pub(super) const SOURCE: u16 = 5;
    /// `NFT_PAYLOAD_CSUM_NONE` is 0.
    pub(super) const CHECKSUM_TYPE: u16 = 6;
    pub(super) const CHECKSUM_OFFSET: u16 = 7;
    pub(super) const CHECKSUM_FLAGS: u16 = 8;
}

/// `NFTA_META_*`.
mod meta_attribute {
    pub(super) const DESTINATION: u16 = 1;
    pub(super) const KEY: u16 = 2;
    pub(super) const SOURCE: u16 = 3;
}

/// `NFTA_BITWISE_*`.
mod bitwise_attribute {
    pub(super) const SOURCE: u16 = 1;
    pub(super) const DESTINATION: u16 = 2;
    pub(super) const LENGTH: u16 = 3;
    pub(super) const MASK: u16 = 4;
    pub(super) const XOR: u16 = 5;
    /// `NFT_BITWISE_MASK_XOR`, called `NFT_BITWISE_BOOL` before, is 0.
    pub(super) const OPERATION: u16 = 6;
}

/// `NFTA_CMP_*`.
mod compare_attribute {
    pub(super) const SOURCE: u16 = 1;
    /// `NFT_CMP_EQ` is 0, `NFT_CMP_NEQ` 1.
    pub(super) const OPERATION: u16 = 2;
    pub(super) const DATA: u16 = 3;
}

/// `NFTA_LOOKUP_*`.
mod lookup_attribute {
    pub(super) const SET: u16 = 1;
    pub(super) const SOURCE: u16 = 2;
    pub(super) const DESTINATION: u16 = 3;
    pub(super) const FLAGS: u16 = 5;
}

/// `NFTA_IMMEDIATE_*`, and what is inside for verdicts.
mod immediate_attribute {
    pub(super) const DESTINATION: u16 = 1;
    pub(super) const DATA: u16 = 2;
    /// `NFTA_DATA_VERDICT`.
    pub(super) const VERDICT: u16 = 2;
    /// `NFTA_VERDICT_CODE`.
    pub(super) const CODE: u16 = 1;
}

/// `NFTA_NAT_*`.
mod nat_attribute {
    pub(super) const TYPE: u16 = 1;
    pub(super) const FAMILY: u16 = 2;
    pub(super) const ADDRESS_MIN: u16 = 3;
    pub(super) const ADDRESS_MAX: u16 = 4;
    pub(super) const PORT_MIN: u16 = 5;
    pub(super) const PORT_MAX: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
}

/// `NFTA_EXTHDR_*`.
mod extension_attribute {
    pub(super) const TYPE: u16 = 2;
    pub(super) const OFFSET: u16 = 3;
    pub(super) const LENGTH: u16 = 4;
    pub(super) const FLAGS: u16 = 5;
    pub(super) const OPERATION: u16 = 6;
    pub(super) const SOURCE: u16 = 7;
}

/// `NFT_NAT_DNAT`.
const DESTINATION_NAT: u32 = 1;
/// `NF_NAT_RANGE_MAP_IPS`: an address is given, which the kernel adds by itself.
const NAT_OF_ADDRESS: u32 = 1;
/// `NFT_EXTHDR_OP_TCPOPT`.
const TCP_OPTION: u32 = 1;
/// `TCPOPT_MSS`, and where in the option the size is.
const SEGMENT_SIZE: u8 = 2;
const SEGMENT_SIZE_OFFSET: u32 = 2;
const SEGMENT_SIZE_LENGTH: u32 = 2;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `NF_DROP` and `NF_ACCEPT`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// Writes a list of expressions as attribute `kind`.
///
/// [`Expression::Unknown`] has no form; `check` in the module above keeps it from coming here.
pub(super) fn write_expressions(message: &mut MessageWriter<'_>, kind: u16, rule: &[Expression]) {
    message.nest(kind, |list| {
        for expression in rule {
            list.nest(LIST_ITEM, |item| {
                item.string(NAME, kernel_name(expression));
                item.nest(DATA, |data| write_data(data, expression));
            });
        }
    });
}

fn kernel_name(expression: &Expression) -> &str {
    match expression {
        Expression::Payload { .. } | Expression::PayloadWrite { .. } => name::PAYLOAD,
        Expression::Meta { .. } | Expression::SetMark { .. } => name::META,
        Expression::Mask { .. } => name::BITWISE,
        Expression::Compare { .. } => name::COMPARE,
        Expression::Lookup { .. } => name::LOOKUP,
        Expression::Immediate { .. } | Expression::Verdict(_) => name::IMMEDIATE,
        Expression::DestinationNat { .. } => name::NAT,
        Expression::Masquerade => name::MASQUERADE,
        Expression::ClampSegmentSize { .. } => name::EXTENSION_HEADER,
        Expression::Unknown(name) => name,
    }
}

fn write_data(data: &mut MessageWriter<'_>, expression: &Expression) {
    match expression {
        Expression::Payload {
            base,
            offset,
            length,
            register,
        } => {
            data.u32_be(payload_attribute::DESTINATION, register_number(*register));
            write_place(data, *base, *offset, *length);
        }
        Expression::PayloadWrite {
            base,
            offset,
            length,
            register,
        } => {
            data.u32_be(payload_attribute::SOURCE, register_number(*register));
            write_place(data, *base, *offset, *length);
            data.u32_be(payload_attribute::CHECKSUM_TYPE, 0);
            data.u32_be(payload_attribute::CHECKSUM_OFFSET, 0);
        }
        Expression::Meta { key, register } => {
            data.u32_be(meta_attribute::KEY, meta_number(*key));
            data.u32_be(meta_attribute::DESTINATION, register_number(*register));
        }
        Expression::SetMark { register } => {
            data.u32_be(meta_attribute::KEY, meta_number(MetaKey::Mark));
            data.u32_be(meta_attribute::SOURCE, register_number(*register));
        }
        Expression::Mask { register, mask } => {
            data.u32_be(bitwise_attribute::SOURCE, register_number(*register));
            data.u32_be(bitwise_attribute::DESTINATION, register_number(*register));
            data.u32_be(bitwise_attribute::LENGTH, mask.len() as u32);
            write_value(data, bitwise_attribute::MASK, mask);
            write_value(data, bitwise_attribute::XOR, &vec![0; mask.len()]);
        }
        Expression::Compare {
            register,
            equal,
            value,
        } => {
            data.u32_be(compare_attribute::SOURCE, register_number(*register));
            data.u32_be(compare_attribute::OPERATION, u32::from(!equal));
            write_value(data, compare_attribute::DATA, value);
        }
        Expression::Lookup { set, register, into } => {
            data.string(lookup_attribute::SET, set);
            data.u32_be(lookup_attribute::SOURCE, register_number(*register));
            if let Some(into) = into {
                data.u32_be(lookup_attribute::DESTINATION, register_number(*into));
            }
        }
        Expression::Immediate { register, value } => {
            data.u32_be(immediate_attribute::DESTINATION, register_number(*register));
            write_value(data, immediate_attribute::DATA, value);
        }
        Expression::Verdict(verdict) => {
            data.u32_be(immediate_attribute::DESTINATION, VERDICT_REGISTER);
            data.nest(immediate_attribute::DATA, |data| {
                data.nest(immediate_attribute::VERDICT, |data| {
                    data.u32_be(immediate_attribute::CODE, verdict_number(*verdict));
                });
            });
        }
        Expression::DestinationNat { family, address } => {
            data.u32_be(nat_attribute::TYPE, DESTINATION_NAT);
            data.u32_be(nat_attribute::FAMILY, family_number(*family).into());
            data.u32_be(nat_attribute::ADDRESS_MIN, register_number(*address));
        }
        Expression::ClampSegmentSize { register } => {
            data.u32_be(extension_attribute::SOURCE, register_number(*register));
            data.u8(extension_attribute::TYPE, SEGMENT_SIZE);
            data.u32_be(extension_attribute::OFFSET, SEGMENT_SIZE_OFFSET);
            data.u32_be(extension_attribute::LENGTH, SEGMENT_SIZE_LENGTH);
            data.u32_be(extension_attribute::OPERATION, TCP_OPTION);
        }
        Expression::Masquerade | Expression::Unknown(_) => {}
    }
}

fn write_place(data: &mut MessageWriter<'_>, base: Base, offset: u32, length: u32) {
    data.u32_be(payload_attribute::BASE, base_number(base));
    data.u32_be(payload_attribute::OFFSET, offset);
    data.u32_be(payload_attribute::LENGTH, length);
}

/// Reads the expressions of a rule.
pub(super) fn read_expressions(list: &[u8]) -> Vec<Expression> {
    items(list)
        .map(|item| {
            let name = text(item, NAME).unwrap_or_default();
            let data = attribute(item, DATA).unwrap_or_default();
            read_expression(name, data).unwrap_or_else(|| Expression::Unknown(name.into()))
        })
        .collect()
}

/// `None` for what Weir has no word for.
fn read_expression(name: &str, data: &[u8]) -> Option<Expression> {
    let register = |kind: u16| attribute(data, kind).and_then(read_register);
    let is_zero = |kind: u16| number(data, kind).is_none_or(|value| value == 0);
    let is_absent = |kind: u16| attribute(data, kind).is_none();
    match name {
        name::PAYLOAD => {
            let base = base_from_number(number(data, payload_attribute::BASE)?)?;
            let offset = number(data, payload_attribute::OFFSET)?;
            let length = number(data, payload_attribute::LENGTH)?;
            if let Some(register) = register(payload_attribute::DESTINATION) {
                return Some(Expression::Payload {
                    base,
                    offset,
                    length,
                    register,
                });
            }
            let mends_no_checksum =
                is_zero(payload_attribute::CHECKSUM_TYPE) && is_zero(payload_attribute::CHECKSUM_FLAGS);
            mends_no_checksum.then_some(Expression::PayloadWrite {
                base,
                offset,
                length,
                register: register(payload_attribute::SOURCE)?,
            })
        }
        name::META => {
            let key = meta_from_number(number(data, meta_attribute::KEY)?)?;
            match (
                register(meta_attribute::DESTINATION),
                register(meta_attribute::SOURCE),
            ) {
                (Some(register), None) => Some(Expression::Meta { key, register }),
                (None, Some(register)) if key == MetaKey::Mark => Some(Expression::SetMark { register }),
                _ => None,
            }
        }
        name::BITWISE => {
            let register = same(
                register(bitwise_attribute::SOURCE)?,
                register(bitwise_attribute::DESTINATION)?,
            )?;
            let mask = read_value(attribute(data, bitwise_attribute::MASK)?)?;
            let flipped = read_value(attribute(data, bitwise_attribute::XOR)?)?;
            let masks_alone = is_zero(bitwise_attribute::OPERATION) && flipped.iter().all(|byte| *byte == 0);
            masks_alone.then(|| Expression::Mask {
                register,
                mask: mask.to_vec(),
            })
        }
        name::COMPARE => Some(Expression::Compare {
            register: register(compare_attribute::SOURCE)?,
            equal: match number(data, compare_attribute::OPERATION)? {
                0 => true,
                1 => false,
                _ => return None,
            },
            value: read_value(attribute(data, compare_attribute::DATA)?)?.to_vec(),
        }),
        name::LOOKUP => is_zero(lookup_attribute::FLAGS).then_some(Expression::Lookup {
            set: text(data, lookup_attribute::SET)?.into(),
            register: register(lookup_attribute::SOURCE)?,
            into: register(lookup_attribute::DESTINATION),
        }),
        name::IMMEDIATE => read_immediate(data),
        name::NAT => {
            let family = u8::try_from(number(data, nat_attribute::FAMILY)?).ok();
            let address = register(nat_attribute::ADDRESS_MIN)?;
            // Without a last address the kernel says the first once more.
            let last = register(nat_attribute::ADDRESS_MAX).unwrap_or(address);
            let plain = number(data, nat_attribute::TYPE)? == DESTINATION_NAT
                && number(data, nat_attribute::FLAGS).is_none_or(|flags| flags & !NAT_OF_ADDRESS == 0)
                && is_absent(nat_attribute::PORT_MIN)
                && is_absent(nat_attribute::PORT_MAX);
            plain.then_some(Expression::DestinationNat {
                family: family.and_then(family_from_number)?,
                address: same(address, last)?,
            })
        }
        // Its attributes are flags and ports: Weir's has none.
        name::MASQUERADE => (1..=3).all(is_zero).then_some(Expression::Masquerade),
        name::EXTENSION_HEADER => {
            let is_segment_size = number(data, extension_attribute::OPERATION)? == TCP_OPTION
                && attribute(data, extension_attribute::TYPE).and_then(read_u8)? == SEGMENT_SIZE
                && number(data, extension_attribute::OFFSET)? == SEGMENT_SIZE_OFFSET
                && number(data, extension_attribute::LENGTH)? == SEGMENT_SIZE_LENGTH
                && is_zero(extension_attribute::FLAGS);
            is_segment_size.then_some(Expression::ClampSegmentSize {
                register: register(extension_attribute::SOURCE)?,
            })
        }
        _ => None,
    }
}

/// A value for a register, or a verdict. Verdicts beside accept and drop read as unknown by the word `nft` has for
/// them, which tells more than "immediate".
fn read_immediate(data: &[u8]) -> Option<Expression> {
    let content = attribute(data, immediate_attribute::DATA)?;
    if number(data, immediate_attribute::DESTINATION)? != VERDICT_REGISTER {
        return Some(Expression::Immediate {
            register: attribute(data, immediate_attribute::DESTINATION).and_then(read_register)?,
            value: read_value(content)?.to_vec(),
        });
    }
    let verdict = attribute(content, immediate_attribute::VERDICT)?;
    let code = number(verdict, immediate_attribute::CODE)?;
    // `enum nft_verdicts`: negative numbers.
    let word = match code as i32 {
        -1 => "continue",
        -2 => "break",
        -3 => "jump",
        -4 => "goto",
        -5 => "return",
        _ => return verdict_from_number(code).map(Expression::Verdict),
    };
    Some(Expression::Unknown(word.into()))
}

fn same(one: Register, other: Register) -> Option<Register> {
    (one == other).then_some(one)
}

/// `NFT_PAYLOAD_LL_HEADER`, `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
fn base_number(base: Base) -> u32 {
    match base {
        Base::Link => 0,
        Base::Network => 1,
        Base::Transport => 2,
    }
}

fn base_from_number(number: u32) -> Option<Base> {
    [Base::Link, Base::Network, Base::Transport]
        .into_iter()
        .find(|base| base_number(*base) == number)
}

/// `NFT_META_MARK`, `NFT_META_IIFNAME`, `NFT_META_OIFNAME`, `NFT_META_L4PROTO`.
fn meta_number(key: MetaKey) -> u32 {
    match key {
        MetaKey::Mark => 3,
        MetaKey::InputInterface => 6,
        MetaKey::OutputInterface => 7,
        MetaKey::Protocol => 16,
    }
}

fn meta_from_number(number: u32) -> Option<MetaKey> {
    [
        MetaKey::Mark,
        MetaKey::InputInterface,
        MetaKey::OutputInterface,
        MetaKey::Protocol,
    ]
    .into_iter()
    .find(|key| meta_number(*key) == number)
}

pub(super) fn verdict_number(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop => DROP,
        Verdict::Accept => ACCEPT,
    }
}

pub(super) fn verdict_from_number(number: u32) -> Option<Verdict> {
    match number {
        DROP => Some(Verdict::Drop),
        ACCEPT => Some(Verdict::Accept),
        _ => None,
    }
}

/// Whether an expression is one of NAT's, whose modules a kernel may lack.
pub(super) fn is_nat(expression: &Expression) -> bool {
    matches!(
        expression,
        Expression::DestinationNat {
            family: Family::Ipv4 | Family::Ipv6,
            ..
        } | Expression::Masquerade
    )
}
