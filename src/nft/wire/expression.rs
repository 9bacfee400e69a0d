//! Expressions of rules.
//!
//! Reading is strict: an expression that says more than Weir's words can say (an inverted lookup, a checksum to mend,
//! a range of ports) reads as unknown, so that it never passes for one of Weir's.

mod read;

pub(super) use read::read_expressions;

use neli::consts::genl::NlAttrType;
use neli::neli_enum;

use crate::netlink::{AttributeType, MessageWriter, Word, read_u8};

use crate::nft::ruleset::{Base, Expression, Family, MetaKey, Register, Verdict};

use super::value::{
    DataAttribute, ListAttribute, attribute, family_from_number, family_number, items, number, read_register,
    read_value, register_number, text, write_value,
};

/// `NFTA_EXPR_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum ExpressionAttribute {
    Name = 1,
    Data = 2,
}

impl NlAttrType for ExpressionAttribute {}

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
#[neli_enum(serialized_type = "u16")]
pub(super) enum PayloadAttribute {
    Destination = 1,
    Base = 2,
    Offset = 3,
    Length = 4,
    Source = 5,
    /// `NFT_PAYLOAD_CSUM_NONE` is 0.
    ChecksumType = 6,
    ChecksumOffset = 7,
    ChecksumFlags = 8,
}

impl NlAttrType for PayloadAttribute {}

/// `NFTA_META_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum MetaAttribute {
    Destination = 1,
    Key = 2,
    Source = 3,
}

impl NlAttrType for MetaAttribute {}

/// `NFTA_BITWISE_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum BitwiseAttribute {
    Source = 1,
    Destination = 2,
    Length = 3,
    Mask = 4,
    Xor = 5,
    /// `NFT_BITWISE_MASK_XOR`, called `NFT_BITWISE_BOOL` before, is 0.
    Operation = 6,
}

impl NlAttrType for BitwiseAttribute {}

/// `NFTA_CMP_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum CompareAttribute {
    Source = 1,
    /// `NFT_CMP_EQ` is 0, `NFT_CMP_NEQ` 1.
    Operation = 2,
    Data = 3,
}

impl NlAttrType for CompareAttribute {}

/// `NFTA_LOOKUP_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum LookupAttribute {
    Set = 1,
    Source = 2,
    Destination = 3,
    Flags = 5,
}

impl NlAttrType for LookupAttribute {}

/// `NFTA_IMMEDIATE_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum ImmediateAttribute {
    Destination = 1,
    Data = 2,
}

impl NlAttrType for ImmediateAttribute {}

/// `NFTA_VERDICT_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum VerdictAttribute {
    Code = 1,
}

impl NlAttrType for VerdictAttribute {}

/// `NFTA_MASQ_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum MasqueradeAttribute {
    Flags = 1,
    PortMin = 2,
    PortMax = 3,
}

impl NlAttrType for MasqueradeAttribute {}

/// `NFTA_NAT_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum NatAttribute {
    Type = 1,
    Family = 2,
    AddressMin = 3,
    AddressMax = 4,
    PortMin = 5,
    PortMax = 6,
    Flags = 7,
}

impl NlAttrType for NatAttribute {}

/// `NFTA_EXTHDR_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum ExtensionAttribute {
    Type = 2,
    Offset = 3,
    Length = 4,
    Flags = 5,
    Operation = 6,
    Source = 7,
}

impl NlAttrType for ExtensionAttribute {}

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

/// Writes a list of expressions.
///
/// [`Expression::Unknown`] has no form; `check` in the module above keeps it from coming here.
pub(super) fn write_expressions(list: &mut MessageWriter<'_, ListAttribute>, rule: &[Expression]) {
    for expression in rule {
        list.nest(ListAttribute::Item, |item| {
            item.string(ExpressionAttribute::Name, kernel_name(expression));
            write_data(item, expression);
        });
    }
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

fn write_data(item: &mut MessageWriter<'_, ExpressionAttribute>, expression: &Expression) {
    let kind = ExpressionAttribute::Data;
    match expression {
        Expression::Payload {
            base,
            offset,
            length,
            register,
        } => item.nest(kind, |data| {
            data.u32_be(PayloadAttribute::Destination, register_number(*register));
            data.words(place(*base, *offset, *length));
        }),
        Expression::PayloadWrite {
            base,
            offset,
            length,
            register,
        } => item.nest(kind, |data| {
            data.u32_be(PayloadAttribute::Source, register_number(*register));
            data.words(place(*base, *offset, *length));
            data.u32_be(PayloadAttribute::ChecksumType, 0);
            data.u32_be(PayloadAttribute::ChecksumOffset, 0);
        }),
        Expression::Meta { key, register } => item.nest(kind, |data| {
            data.u32_be(MetaAttribute::Key, meta_number(*key));
            data.u32_be(MetaAttribute::Destination, register_number(*register));
        }),
        Expression::SetMark { register } => item.nest(kind, |data| {
            data.u32_be(MetaAttribute::Key, meta_number(MetaKey::Mark));
            data.u32_be(MetaAttribute::Source, register_number(*register));
        }),
        Expression::Mask { register, mask } => item.nest(kind, |data| {
            data.u32_be(BitwiseAttribute::Source, register_number(*register));
            data.u32_be(BitwiseAttribute::Destination, register_number(*register));
            data.u32_be(BitwiseAttribute::Length, mask.len() as u32);
            write_value(data, BitwiseAttribute::Mask, mask);
            write_value(data, BitwiseAttribute::Xor, &vec![0; mask.len()]);
        }),
        Expression::Compare {
            register,
            equal,
            value,
        } => item.nest(kind, |data| {
            data.u32_be(CompareAttribute::Source, register_number(*register));
            data.u32_be(CompareAttribute::Operation, u32::from(!equal));
            write_value(data, CompareAttribute::Data, value);
        }),
        Expression::Lookup { set, register, into } => item.nest(kind, |data| {
            data.string(LookupAttribute::Set, set);
            data.u32_be(LookupAttribute::Source, register_number(*register));
            if let Some(into) = into {
                data.u32_be(LookupAttribute::Destination, register_number(*into));
            }
        }),
        Expression::Immediate { register, value } => item.nest(kind, |data| {
            data.u32_be(ImmediateAttribute::Destination, register_number(*register));
            write_value(data, ImmediateAttribute::Data, value);
        }),
        Expression::Verdict(verdict) => item.nest(kind, |data| write_verdict(data, *verdict)),
        Expression::DestinationNat { family, address } => item.nest(kind, |data| {
            data.u32_be(NatAttribute::Type, DESTINATION_NAT);
            data.u32_be(NatAttribute::Family, family_number(*family).into());
            data.u32_be(NatAttribute::AddressMin, register_number(*address));
        }),
        Expression::ClampSegmentSize { register } => item.nest(kind, |data| {
            data.u32_be(ExtensionAttribute::Source, register_number(*register));
            data.u8(ExtensionAttribute::Type, SEGMENT_SIZE);
            data.u32_be(ExtensionAttribute::Offset, SEGMENT_SIZE_OFFSET);
            data.u32_be(ExtensionAttribute::Length, SEGMENT_SIZE_LENGTH);
            data.u32_be(ExtensionAttribute::Operation, TCP_OPTION);
        }),
        Expression::Masquerade => item.nest::<MasqueradeAttribute>(kind, |_| {}),
        Expression::Unknown(_) => {}
    }
}

fn write_verdict(data: &mut MessageWriter<'_, ImmediateAttribute>, verdict: Verdict) {
    data.u32_be(ImmediateAttribute::Destination, VERDICT_REGISTER);
    data.nest(ImmediateAttribute::Data, |content| {
        content.nest(DataAttribute::Verdict, |content| {
            content.u32_be(VerdictAttribute::Code, verdict_number(verdict));
        });
    });
}

fn place(base: Base, offset: u32, length: u32) -> [Word<PayloadAttribute>; 3] {
    [
        Word::u32_be(PayloadAttribute::Base, base_number(base)),
        Word::u32_be(PayloadAttribute::Offset, offset),
        Word::u32_be(PayloadAttribute::Length, length),
    ]
}

fn register<T: AttributeType + PartialEq>(data: &[u8], kind: T) -> Option<Register> {
    attribute(data, kind).and_then(read_register)
}

fn is_zero<T: AttributeType + PartialEq>(data: &[u8], kind: T) -> bool {
    number(data, kind).is_none_or(|value| value == 0)
}

fn is_absent<T: AttributeType + PartialEq>(data: &[u8], kind: T) -> bool {
    attribute(data, kind).is_none()
}

/// A value for a register, or a verdict. Verdicts beside accept and drop read as unknown by the word `nft` has for
/// them, which tells more than "immediate".
fn read_immediate(data: &[u8]) -> Option<Expression> {
    let content = attribute(data, ImmediateAttribute::Data)?;
    if number(data, ImmediateAttribute::Destination)? != VERDICT_REGISTER {
        return Some(Expression::Immediate {
            register: attribute(data, ImmediateAttribute::Destination).and_then(read_register)?,
            value: read_value(content)?.to_vec(),
        });
    }
    let verdict = attribute(content, DataAttribute::Verdict)?;
    let code = number(verdict, VerdictAttribute::Code)?;
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
