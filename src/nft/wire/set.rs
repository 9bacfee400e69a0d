//! Sets and their elements.

use std::collections::BTreeMap;

use neli::consts::genl::NlAttrType;
use neli::neli_enum;

use crate::netlink::{Attributes, MessageWriter};

use crate::nft::ruleset::{Element, Field, Set};

use super::value::{ListAttribute, attribute, items, number, read_value, text, write_value};

/// Elements per message. A list is an attribute and thus at most 65,535 bytes long; an element with a key, an end and
/// data of 64 bytes each, the most that the kernel takes, has 220.
pub(super) const ELEMENTS_PER_MESSAGE: usize = 256;

/// `NFTA_SET_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum SetAttribute {
    Table = 1,
    Name = 2,
    Flags = 3,
    KeyType = 4,
    KeyLength = 5,
    DataType = 6,
    DataLength = 7,
    Description = 9,
    Id = 10,
    UserData = 13,
}

impl NlAttrType for SetAttribute {}

/// `NFTA_SET_DESC_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum DescriptionAttribute {
    Fields = 2,
}

impl NlAttrType for DescriptionAttribute {}

/// `NFTA_SET_FIELD_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum FieldAttribute {
    Length = 1,
}

impl NlAttrType for FieldAttribute {}

/// `NFTA_SET_ELEM_LIST_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum ElementsAttribute {
    Table = 1,
    Set = 2,
    Elements = 3,
}

impl NlAttrType for ElementsAttribute {}

/// `NFTA_SET_ELEM_*`.
#[neli_enum(serialized_type = "u16")]
pub(super) enum ElementAttribute {
    Key = 1,
    Data = 2,
    /// What `nft` notes for itself, such as comments.
    UserData = 6,
    Padding = 8,
    KeyEnd = 10,
}

impl NlAttrType for ElementAttribute {}

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
pub(super) fn write_set(
    message: &mut MessageWriter<'_, SetAttribute>,
    table: &str,
    name: &str,
    set: &Set,
    id: u32,
) {
    let mut flags = 0;
    if set.ranges {
        flags |= FLAG_INTERVAL | FLAG_CONCATENATION;
    }
    if set.data.is_some() {
        flags |= FLAG_MAP;
    }
    message.string(SetAttribute::Table, table);
    message.string(SetAttribute::Name, name);
    message.u32_be(SetAttribute::Flags, flags);
    message.u32_be(SetAttribute::KeyType, key_type(&set.key));
    message.u32_be(SetAttribute::KeyLength, key_length(&set.key) as u32);
    if let Some(data) = set.data {
        message.u32_be(SetAttribute::DataType, type_number(data));
        message.u32_be(SetAttribute::DataLength, data.length() as u32);
    }
    if set.ranges {
        message.nest(SetAttribute::Description, |description| {
            description.nest(DescriptionAttribute::Fields, |fields| {
                for field in &set.key {
                    fields.nest(ListAttribute::Item, |item| {
                        item.u32_be(FieldAttribute::Length, field.length() as u32);
                    });
                }
            });
        });
    }
    message.u32_be(SetAttribute::Id, id);
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
    message.bytes(SetAttribute::UserData, &user_data);
}

/// `struct nftnl_udata`: type, length, value, without padding.
fn write_user_data(user_data: &mut Vec<u8>, kind: u8, value: u32) {
    let value = value.to_ne_bytes();
    user_data.extend_from_slice(&[kind, value.len() as u8]);
    user_data.extend_from_slice(&value);
}

/// Reads a set from `NFT_MSG_NEWSET`: its table, its name and what it is, without elements.
pub(super) fn read_set(message: &[u8]) -> Option<(&str, &str, Set)> {
    let table = text(message, SetAttribute::Table)?;
    let name = text(message, SetAttribute::Name)?;
    Some((table, name, read_form(message).unwrap_or_else(foreign_set)))
}

/// `None` for a form that Weir does not write.
fn read_form(message: &[u8]) -> Option<Set> {
    let flags = number(message, SetAttribute::Flags).unwrap_or(0);
    let ranges = match flags & !FLAG_MAP {
        0 => false,
        flags if flags == FLAG_INTERVAL | FLAG_CONCATENATION => true,
        _ => return None,
    };
    let key = key_from_type(number(message, SetAttribute::KeyType)?)?;
    let data = match flags & FLAG_MAP {
        0 => None,
        _ => Some(field_from_type(number(message, SetAttribute::DataType)?)?),
    };
    let key_fits = number(message, SetAttribute::KeyLength)? as usize == key_length(&key);
    let data_fits = match data {
        None => true,
        Some(data) => number(message, SetAttribute::DataLength)? as usize == data.length(),
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
    message: &mut MessageWriter<'_, ElementsAttribute>,
    table: &str,
    name: &str,
    set: &Set,
    elements: impl Iterator<Item = (&'a Element, &'a Option<Vec<u8>>)>,
    with_data: bool,
) {
    write_set_name(message, table, name);
    let key_length = key_length(&set.key);
    message.nest(ElementsAttribute::Elements, |list| {
        for (element, data) in elements {
            list.nest(ListAttribute::Item, |item| {
                write_value(item, ElementAttribute::Key, &sized(&element.first, key_length));
                if let Some(last) = &element.last {
                    write_value(item, ElementAttribute::KeyEnd, &sized(last, key_length));
                }
                if let (true, Some(data), Some(field)) = (with_data, data, set.data) {
                    write_value(item, ElementAttribute::Data, &sized(data, field.length()));
                }
            });
        }
    });
}

/// Writes which set is meant, for `NFT_MSG_GETSETELEM`.
pub(super) fn write_set_name(message: &mut MessageWriter<'_, ElementsAttribute>, table: &str, name: &str) {
    message.string(ElementsAttribute::Table, table);
    message.string(ElementsAttribute::Set, name);
}

/// The table and the set that a message with elements is about.
pub(super) fn read_set_name(message: &[u8]) -> Option<(&str, &str)> {
    Some((
        text(message, ElementsAttribute::Table)?,
        text(message, ElementsAttribute::Set)?,
    ))
}

/// Adds the elements of `NFT_MSG_NEWSETELEM` to a set. One that Weir would not write, such as one that expires, makes
/// the whole set foreign.
pub(super) fn read_elements(message: &[u8], set: &mut Set) {
    for item in items(attribute(message, ElementsAttribute::Elements).unwrap_or_default()) {
        match read_element(item, set) {
            Some((element, data)) => {
                set.elements.insert(element, data);
            }
            None => *set = foreign_set(),
        }
    }
}

fn read_element(item: &[u8], set: &Set) -> Option<(Element, Option<Vec<u8>>)> {
    use ElementAttribute::{Data, Key, KeyEnd, Padding, UserData};
    let plain = Attributes::new(item).all(|(kind, _)| [Key, KeyEnd, Data, Padding, UserData].contains(&kind));
    let value = |kind: ElementAttribute, length: usize| -> Option<Option<Vec<u8>>> {
        let Some(payload) = attribute(item, kind) else {
            return Some(None);
        };
        let value = read_value(payload).filter(|value| value.len() == length)?;
        Some(Some(sized(value, length.next_multiple_of(4))))
    };
    let key_length = key_length(&set.key);
    let element = Element {
        first: value(Key, key_length)??,
        last: value(KeyEnd, key_length)?,
    };
    let data = value(Data, set.data.map_or(0, Field::length))?;
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
