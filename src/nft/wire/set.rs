//! Sets and their elements.

use std::collections::BTreeMap;

use crate::netlink::{Attributes, MessageWriter};

use crate::nft::ruleset::{Element, Field, Set};

use super::value::{LIST_ITEM, attribute, items, number, read_value, text, write_value};

/// Elements per message. A list is an attribute and thus at most 65,535 bytes long; an element with a key, an end and
/// data of 64 bytes each, the most that the kernel takes, has 220.
pub(super) const ELEMENTS_PER_MESSAGE: usize = 256;

/// `NFTA_SET_*`.
mod set_attribute {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const KEY_TYPE: u16 = 4;
    pub(super) const KEY_LENGTH: u16 = 5;
    pub(super) const DATA_TYPE: u16 = 6;
    pub(super) const DATA_LENGTH: u16 = 7;
    pub(super) const DESCRIPTION: u16 = 9;
    pub(super) const ID: u16 = 10;
    pub(super) const USER_DATA: u16 = 13;
    /// `NFTA_SET_DESC_CONCAT`, in the description.
    pub(super) const DESCRIPTION_FIELDS: u16 = 2;
    /// `NFTA_SET_FIELD_LEN`, in each of the fields.
    pub(super) const FIELD_LENGTH: u16 = 1;
}

/// `NFTA_SET_ELEM_LIST_*`.
mod list_attribute {
    pub(super) const TABLE: u16 = 1;
    pub(super) const SET: u16 = 2;
    pub(super) const ELEMENTS: u16 = 3;
}

/// `NFTA_SET_ELEM_*`.
mod element_attribute {
    pub(super) const KEY: u16 = 1;
    pub(super) const DATA: u16 = 2;
    /// What `nft` notes for itself, such as comments.
    pub(super) const USER_DATA: u16 = 6;
    pub(super) const PADDING: u16 = 8;
    pub(super) const KEY_END: u16 = 10;
}

/// `NFT_SET_INTERVAL`, `NFT_SET_MAP`, `NFT_SET_CONCAT`.
const FLAG_INTERVAL: u32 = 0x4;
const FLAG_MAP: u32 = 0x8;
const FLAG_CONCATENATION: u32 = 0x80;

/// `nft` says the types of a concatenation's fields in six bits each (`TYPE_BITS` of its `include/datatype.h`).
const TYPE_BITS: u32 = 6;
const TYPE_MASK: u32 = (1 << TYPE_BITS) - 1;

/// What `nft` keeps in a set's user data (`enum nftnl_udata_set_types` of libnftnl's `include/libnftnl/udata.h`): the
/// byte orders of key and data, without which it prints marks the wrong way round.
const USER_DATA_KEY_ORDER: u8 = 0;
const USER_DATA_DATA_ORDER: u8 = 1;
/// `BYTEORDER_HOST_ENDIAN` and `BYTEORDER_BIG_ENDIAN` of its `include/datatype.h`.
const HOST_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;

/// A set that is of no form that Weir writes. Not equal to any that Weir would.
pub(super) fn foreign_set() -> Set {
    Set {
        key: Vec::new(),
        data: None,
        ranges: false,
        elements: BTreeMap::new(),
    }
}

/// Writes a set without its elements, for `NFT_MSG_NEWSET`. `id` is a number that no other set of the batch has.
pub(super) fn write_set(message: &mut MessageWriter<'_>, table: &str, name: &str, set: &Set, id: u32) {
    let mut flags = 0;
    if set.ranges {
        flags |= FLAG_INTERVAL | FLAG_CONCATENATION;
    }
    if set.data.is_some() {
        flags |= FLAG_MAP;
    }
    message.string(set_attribute::TABLE, table);
    message.string(set_attribute::NAME, name);
    message.u32_be(set_attribute::FLAGS, flags);
    message.u32_be(set_attribute::KEY_TYPE, key_type(&set.key));
    message.u32_be(set_attribute::KEY_LENGTH, key_length(&set.key) as u32);
    if let Some(data) = set.data {
        message.u32_be(set_attribute::DATA_TYPE, type_number(data));
        message.u32_be(set_attribute::DATA_LENGTH, data.length() as u32);
    }
    if set.ranges {
        message.nest(set_attribute::DESCRIPTION, |description| {
            description.nest(set_attribute::DESCRIPTION_FIELDS, |fields| {
                for field in &set.key {
                    fields.nest(LIST_ITEM, |item| {
                        item.u32_be(set_attribute::FIELD_LENGTH, field.length() as u32);
                    });
                }
            });
        });
    }
    message.u32_be(set_attribute::ID, id);
    let mut user_data = Vec::new();
    // The fields of a concatenation know their orders themselves.
    let key_order = if set.key[..] == [Field::Mark] {
        HOST_ORDER
    } else {
        NETWORK_ORDER
    };
    write_user_data(&mut user_data, USER_DATA_KEY_ORDER, key_order);
    if let Some(data) = set.data {
        let data_order = if data == Field::Mark {
            HOST_ORDER
        } else {
            NETWORK_ORDER
        };
        write_user_data(&mut user_data, USER_DATA_DATA_ORDER, data_order);
    }
    message.bytes(set_attribute::USER_DATA, &user_data);
}

/// `struct nftnl_udata`: type, length, value, without padding.
fn write_user_data(user_data: &mut Vec<u8>, kind: u8, value: u32) {
    let value = value.to_ne_bytes();
    user_data.extend_from_slice(&[kind, value.len() as u8]);
    user_data.extend_from_slice(&value);
}

/// Reads a set from `NFT_MSG_NEWSET`: its table, its name and what it is, without elements.
pub(super) fn read_set(message: &[u8]) -> Option<(&str, &str, Set)> {
    let table = text(message, set_attribute::TABLE)?;
    let name = text(message, set_attribute::NAME)?;
    Some((table, name, read_form(message).unwrap_or_else(foreign_set)))
}

/// `None` for a form that Weir does not write.
fn read_form(message: &[u8]) -> Option<Set> {
    let flags = number(message, set_attribute::FLAGS).unwrap_or(0);
    let ranges = match flags & !FLAG_MAP {
        0 => false,
        flags if flags == FLAG_INTERVAL | FLAG_CONCATENATION => true,
        _ => return None,
    };
    let key = key_from_type(number(message, set_attribute::KEY_TYPE)?)?;
    let data = match flags & FLAG_MAP {
        0 => None,
        _ => Some(field_from_type(number(message, set_attribute::DATA_TYPE)?)?),
    };
    let key_fits = number(message, set_attribute::KEY_LENGTH)? as usize == key_length(&key);
    let data_fits = match data {
        None => true,
        Some(data) => number(message, set_attribute::DATA_LENGTH)? as usize == data.length(),
    };
    (key_fits && data_fits).then_some(Set {
        key,
        data,
        ranges,
        elements: BTreeMap::new(),
    })
}

/// Writes elements for `NFT_MSG_NEWSETELEM`, or for `NFT_MSG_DELSETELEM`, to which their keys are enough.
pub(super) fn write_elements<'a>(
    message: &mut MessageWriter<'_>,
    table: &str,
    name: &str,
    set: &Set,
    elements: impl Iterator<Item = (&'a Element, &'a Option<Vec<u8>>)>,
    with_data: bool,
) {
    write_set_name(message, table, name);
    let key_length = key_length(&set.key);
    message.nest(list_attribute::ELEMENTS, |list| {
        for (element, data) in elements {
            list.nest(LIST_ITEM, |item| {
                write_value(item, element_attribute::KEY, &sized(&element.first, key_length));
                if let Some(last) = &element.last {
                    write_value(item, element_attribute::KEY_END, &sized(last, key_length));
                }
                if let (true, Some(data), Some(field)) = (with_data, data, set.data) {
                    write_value(item, element_attribute::DATA, &sized(data, field.length()));
                }
            });
        }
    });
}

/// Writes which set is meant, for `NFT_MSG_GETSETELEM`.
pub(super) fn write_set_name(message: &mut MessageWriter<'_>, table: &str, name: &str) {
    message.string(list_attribute::TABLE, table);
    message.string(list_attribute::SET, name);
}

/// The table and the set that a message with elements is about.
pub(super) fn read_set_name(message: &[u8]) -> Option<(&str, &str)> {
    Some((
        text(message, list_attribute::TABLE)?,
        text(message, list_attribute::SET)?,
    ))
}

/// Adds the elements of `NFT_MSG_NEWSETELEM` to a set. One that Weir would not write, such as one that expires, makes
/// the whole set foreign.
pub(super) fn read_elements(message: &[u8], set: &mut Set) {
    for item in items(attribute(message, list_attribute::ELEMENTS).unwrap_or_default()) {
        match read_element(item, set) {
            Some((element, data)) => {
                set.elements.insert(element, data);
            }
            None => *set = foreign_set(),
        }
    }
}

fn read_element(item: &[u8], set: &Set) -> Option<(Element, Option<Vec<u8>>)> {
    use element_attribute::{DATA, KEY, KEY_END, PADDING, USER_DATA};
    let plain =
        Attributes::new(item).all(|(kind, _)| [KEY, KEY_END, DATA, PADDING, USER_DATA].contains(&kind));
    let value = |kind: u16, length: usize| -> Option<Option<Vec<u8>>> {
        let Some(payload) = attribute(item, kind) else {
            return Some(None);
        };
        let value = read_value(payload).filter(|value| value.len() == length)?;
        Some(Some(sized(value, length.next_multiple_of(4))))
    };
    let key_length = key_length(&set.key);
    let element = Element {
        first: value(KEY, key_length)??,
        last: value(KEY_END, key_length)?,
    };
    let data = value(DATA, set.data.map_or(0, Field::length))?;
    (plain && data.is_some() == set.data.is_some()).then_some((element, data))
}

/// Bytes of a key as the kernel has it: fields are padded if there are several.
fn key_length(key: &[Field]) -> usize {
    match key {
        [field] => field.length(),
        fields => fields.iter().map(|field| field.padded_length()).sum(),
    }
}

/// The bytes cut or filled up with zeros.
fn sized(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut sized = bytes.to_vec();
    sized.resize(length, 0);
    sized
}

fn key_type(key: &[Field]) -> u32 {
    key.iter()
        .fold(0, |number, field| number << TYPE_BITS | type_number(*field))
}

/// `None` for no field, or one that is not among Weir's.
fn key_from_type(mut number: u32) -> Option<Vec<Field>> {
    let mut key = Vec::new();
    while number != 0 {
        key.insert(0, field_from_type(number & TYPE_MASK)?);
        number >>= TYPE_BITS;
    }
    (!key.is_empty()).then_some(key)
}

/// The kernel keeps the type of a set for `nft` (`enum datatypes` of its `include/datatype.h`).
fn type_number(field: Field) -> u32 {
    match field {
        Field::Ipv4Address => 7,
        Field::Ipv6Address => 8,
        Field::Protocol => 12,
        Field::Port => 13,
        Field::Mark => 19,
    }
}

fn field_from_type(number: u32) -> Option<Field> {
    [
        Field::Ipv4Address,
        Field::Ipv6Address,
        Field::Protocol,
        Field::Port,
        Field::Mark,
    ]
    .into_iter()
    .find(|field| type_number(*field) == number)
}
