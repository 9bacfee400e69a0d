//! What the kernel points at in a message that it refuses: nf_tables has no sentences, and says the place of an attribute.

use crate::netlink::{AttributeType, Attributes, Errno, Refused, read_string, read_u16};

use super::chain::{ChainAttribute, RuleAttribute};
use super::expression::ExpressionAttribute;
use super::set::{ElementsAttribute, SetAttribute};
use super::value::{ListAttribute, text};
use super::{MESSAGE_HEADER, MessageType, TableAttribute};

/// Says in words what a refusal of a message is about, if the kernel points at it and has no sentence of its own.
pub(super) fn explain(message: &[u8], refused: &mut Refused) {
    let errno = refused.errno;
    let place = refused.offset.filter(|_| refused.why.is_none());
    refused.why = match place.and_then(|offset| part_at(message, offset as usize)) {
        Some(Part::Named(noun, name)) if errno == Errno::NOENT => {
            Some(format!("no such {noun}: {name}").into())
        }
        Some(Part::Named(noun, name)) => Some(format!("{noun} {name}: {errno}").into()),
        Some(Part::Counted(noun, number, "")) => Some(format!("{noun} {number}: {errno}").into()),
        Some(Part::Counted(noun, number, name)) => Some(format!("{noun} {number}, {name}: {errno}").into()),
        None => refused.why.take(),
    };
}

/// A part of a message that has a name, or a place in a list.
enum Part<'a> {
    Named(&'static str, &'a str),
    Counted(&'static str, usize, &'a str),
}

fn part_at(message: &[u8], offset: usize) -> Option<Part<'_>> {
    match MessageType::from(read_u16(message.get(4..)?)?) {
        MessageType::NewTable | MessageType::DeleteTable => match attribute_at(message, offset)? {
            (TableAttribute::Name, name) => named("table", name),
            _ => None,
        },
        MessageType::NewChain => match attribute_at(message, offset)? {
            (ChainAttribute::Table, name) => named("table", name),
            (ChainAttribute::Name, name) => named("chain", name),
            (ChainAttribute::Type, name) => named("chain type", name),
            _ => None,
        },
        MessageType::NewRule => match attribute_at(message, offset)? {
            (RuleAttribute::Table, name) => named("table", name),
            (RuleAttribute::Chain, name) => named("chain", name),
            (RuleAttribute::Expressions, list) => {
                let (number, item) = item_at(message, list, offset)?;
                let name = text(item, ExpressionAttribute::Name)?;
                Some(Part::Counted("expression", number, name))
            }
            _ => None,
        },
        MessageType::NewSet => match attribute_at(message, offset)? {
            (SetAttribute::Table, name) => named("table", name),
            (SetAttribute::Name, name) => named("set", name),
            _ => None,
        },
        MessageType::NewElements | MessageType::DeleteElements => match attribute_at(message, offset)? {
            (ElementsAttribute::Table, name) => named("table", name),
            (ElementsAttribute::Set, name) => named("set", name),
            (ElementsAttribute::Elements, list) => {
                let (number, _) = item_at(message, list, offset)?;
                Some(Part::Counted("element", number, ""))
            }
            _ => None,
        },
        _ => None,
    }
}

fn named<'a>(noun: &'static str, name: &'a [u8]) -> Option<Part<'a>> {
    Some(Part::Named(noun, read_string(name)?))
}

/// The attribute of a message that holds the byte at an offset.
fn attribute_at<T: AttributeType>(message: &[u8], offset: usize) -> Option<(T, &[u8])> {
    Attributes::after_header(message, MESSAGE_HEADER)
        .find(|(_, payload)| ends_behind(message, payload, offset))
}

/// The item of a list in a message that holds the byte at an offset, and its number, from 1.
fn item_at<'a>(message: &[u8], list: &'a [u8], offset: usize) -> Option<(usize, &'a [u8])> {
    Attributes::<ListAttribute>::new(list)
        .map(|(_, item)| item)
        .zip(1..)
        .find(|(item, _)| ends_behind(message, item, offset))
        .map(|(item, number)| (number, item))
}

/// Whether a part of a message ends behind an offset: of parts in their order, the first that does holds it.
fn ends_behind(message: &[u8], part: &[u8], offset: usize) -> bool {
    offset < part.as_ptr_range().end.addr() - message.as_ptr().addr()
}
