//! Bytes → expressions.

use super::*;

/// Reads the expressions of a rule.
pub(in crate::nft::wire) fn read_expressions(list: &[u8]) -> Vec<Expression> {
    items(list)
        .map(|item| {
            let name = text(item, ExpressionAttribute::Name).unwrap_or_default();
            let data = attribute(item, ExpressionAttribute::Data).unwrap_or_default();
            read_expression(name, data).unwrap_or_else(|| Expression::Unknown(name.into()))
        })
        .collect()
}

/// `None` for what Weir has no word for.
fn read_expression(name: &str, data: &[u8]) -> Option<Expression> {
    match name {
        name::PAYLOAD => read_payload(data),
        name::META => read_meta(data),
        name::BITWISE => read_mask(data),
        name::COMPARE => Some(Expression::Compare {
            register: register(data, CompareAttribute::Source)?,
            equal: match number(data, CompareAttribute::Operation)? {
                0 => true,
                1 => false,
                _ => return None,
            },
            value: read_value(attribute(data, CompareAttribute::Data)?)?.to_vec(),
        }),
        name::LOOKUP => is_zero(data, LookupAttribute::Flags).then_some(Expression::Lookup {
            set: text(data, LookupAttribute::Set)?.into(),
            register: register(data, LookupAttribute::Source)?,
            into: register(data, LookupAttribute::Destination),
        }),
        name::IMMEDIATE => read_immediate(data),
        name::NAT => read_nat(data),
        // Its attributes are flags and ports: Weir's has none.
        name::MASQUERADE => {
            use MasqueradeAttribute::{Flags, PortMax, PortMin};
            let is_plain = [Flags, PortMin, PortMax]
                .into_iter()
                .all(|kind| is_zero(data, kind));
            is_plain.then_some(Expression::Masquerade)
        }
        name::EXTENSION_HEADER => {
            let is_segment_size = number(data, ExtensionAttribute::Operation)? == TCP_OPTION
                && attribute(data, ExtensionAttribute::Type).and_then(read_u8)? == SEGMENT_SIZE
                && number(data, ExtensionAttribute::Offset)? == SEGMENT_SIZE_OFFSET
                && number(data, ExtensionAttribute::Length)? == SEGMENT_SIZE_LENGTH
                && is_zero(data, ExtensionAttribute::Flags);
            is_segment_size.then_some(Expression::ClampSegmentSize {
                register: register(data, ExtensionAttribute::Source)?,
            })
        }
        _ => None,
    }
}

fn read_payload(data: &[u8]) -> Option<Expression> {
    let base = base_from_number(number(data, PayloadAttribute::Base)?)?;
    let offset = number(data, PayloadAttribute::Offset)?;
    let length = number(data, PayloadAttribute::Length)?;
    if let Some(register) = register(data, PayloadAttribute::Destination) {
        return Some(Expression::Payload {
            base,
            offset,
            length,
            register,
        });
    }
    let mends_no_checksum =
        is_zero(data, PayloadAttribute::ChecksumType) && is_zero(data, PayloadAttribute::ChecksumFlags);
    mends_no_checksum.then_some(Expression::PayloadWrite {
        base,
        offset,
        length,
        register: register(data, PayloadAttribute::Source)?,
    })
}

fn read_meta(data: &[u8]) -> Option<Expression> {
    let key = meta_from_number(number(data, MetaAttribute::Key)?)?;
    match (
        register(data, MetaAttribute::Destination),
        register(data, MetaAttribute::Source),
    ) {
        (Some(register), None) => Some(Expression::Meta { key, register }),
        (None, Some(register)) if key == MetaKey::Mark => Some(Expression::SetMark { register }),
        _ => None,
    }
}

fn read_mask(data: &[u8]) -> Option<Expression> {
    let register = same(
        register(data, BitwiseAttribute::Source)?,
        register(data, BitwiseAttribute::Destination)?,
    )?;
    let mask = read_value(attribute(data, BitwiseAttribute::Mask)?)?;
    let flipped = read_value(attribute(data, BitwiseAttribute::Xor)?)?;
    let masks_alone = is_zero(data, BitwiseAttribute::Operation) && flipped.iter().all(|byte| *byte == 0);
    masks_alone.then(|| Expression::Mask {
        register,
        mask: mask.to_vec(),
    })
}

fn read_nat(data: &[u8]) -> Option<Expression> {
    let family = u8::try_from(number(data, NatAttribute::Family)?).ok();
    let address = register(data, NatAttribute::AddressMin)?;
    // Without a last address the kernel says the first once more.
    let last = register(data, NatAttribute::AddressMax).unwrap_or(address);
    let plain = number(data, NatAttribute::Type)? == DESTINATION_NAT
        && number(data, NatAttribute::Flags).is_none_or(|flags| flags & !NAT_OF_ADDRESS == 0)
        && is_absent(data, NatAttribute::PortMin)
        && is_absent(data, NatAttribute::PortMax);
    plain.then_some(Expression::DestinationNat {
        family: family.and_then(family_from_number)?,
        address: same(address, last)?,
    })
}
