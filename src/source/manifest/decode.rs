//! Tree → resource, by serde. An error knows its place, and fields that a type does not know are noted with the
//! names it does know. Types are taken seriously: 80 is no text and "80" no number, as for the API server.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::diagnostic::Fault;
use super::scalar::{Scalar, resolve};
use super::tree::{Entry, Node, Span, Value};
use crate::source::decode::suggest;

/// Reads a value from these entries of a map, the document's outermost. All fields that its type does not know
/// are reported, up to where something else is wrong.
pub(super) fn decode<'de, T: serde::Deserialize<'de>>(
    root: &'de [&'de Entry<'de>],
    place: Span,
) -> Result<T, Vec<Fault>> {
    let unknown = RefCell::default();
    let value = T::deserialize(Root {
        entries: root,
        unknown: &unknown,
    });
    let mut faults = unknown.into_inner();
    match value {
        Ok(value) if faults.is_empty() => return Ok(value),
        Ok(_) => {}
        Err(error) => faults.push(Fault {
            span: error.span.unwrap_or(place),
            message: error.message,
            help: error.help,
        }),
    }
    Err(faults)
}

type Unknown = RefCell<Vec<Fault>>;
type Fields = &'static [&'static str];

/// Why a value does not fit its type.
#[derive(Debug)]
struct DecodeError {
    /// The place, once an enclosing value has said it.
    span: Option<Span>,
    message: String,
    help: Option<String>,
}

impl DecodeError {
    /// Says where, unless that is known more closely.
    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            span: None,
            message: message.to_string(),
            help: None,
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("missing field `{field}`"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let all = format!("possible are {}", expected.join(", "));
        let help = match suggest::nearest(variant, expected.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`? {all}"),
            None => all,
        };
        Self {
            help: Some(help),
            ..Self::custom(format_args!("unknown value `{variant}`"))
        }
    }
}

/// The outermost map.
struct Root<'de, 's> {
    entries: &'de [&'de Entry<'de>],
    unknown: &'s Unknown,
}

impl<'de> Deserializer<'de> for Root<'de, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_map(Members::new(self.entries.iter().copied(), None, self.unknown))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: Fields,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_map(Members::new(
            self.entries.iter().copied(),
            Some(fields),
            self.unknown,
        ))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A value within the outermost map.
struct Decoder<'de, 's> {
    node: &'de Node<'de>,
    /// The key and its siblings that the type knows, if this is a field of a struct.
    field: Option<(&'de Entry<'de>, Fields)>,
    unknown: &'s Unknown,
}

impl<'de> Decoder<'de, '_> {
    fn mismatch(&self, expected: &str) -> DecodeError {
        let (found, help) = match &self.node.value {
            Value::List(_) => ("a list".to_owned(), None),
            Value::Map(_) => ("a map".to_owned(), None),
            Value::Text(text) => {
                let unquoted = !matches!(resolve(text), Scalar::String(_) | Scalar::Null);
                let help = unquoted.then(|| "take away the quotes".to_owned());
                (format!("the text \"{}\"", shorten(text)), help)
            }
            Value::Plain(text) => {
                let quoted = (expected == A_TEXT).then(|| format!("put it in quotes: \"{text}\""));
                match resolve(text) {
                    Scalar::Null => ("nothing".to_owned(), None),
                    Scalar::Bool(value) => (format!("`{text}`, which means {value}"), quoted),
                    Scalar::Integer(_) | Scalar::Float(_) => (format!("the number {text}"), quoted),
                    Scalar::String(text) => (format!("the text \"{}\"", shorten(text)), None),
                }
            }
        };
        DecodeError {
            span: self.shown(),
            message: format!("expected {expected}, found {found}"),
            help,
        }
    }

    /// The place of a scalar; that of a list or map is rather its key's, which only the enclosing value knows.
    fn shown(&self) -> Option<Span> {
        match self.node.value {
            Value::Plain(_) | Value::Text(_) if self.node.span.end > self.node.span.start => {
                Some(self.node.span)
            }
            _ => None,
        }
    }

    fn place<T>(&self, result: Result<T, DecodeError>) -> Result<T, DecodeError> {
        result.map_err(|error| match self.shown() {
            Some(span) => error.at(span),
            None => error,
        })
    }

    fn integer<'v, V: Visitor<'v>>(self, min: i64, max: i64, visitor: V) -> Result<V::Value, DecodeError> {
        let scalar = match &self.node.value {
            Value::Plain(text) => resolve(text),
            _ => Scalar::Null,
        };
        let out_of_range = |number: &dyn fmt::Display| DecodeError {
            span: self.shown(),
            message: format!("{number} is out of range: {min} to {max}"),
            help: None,
        };
        match scalar {
            Scalar::Integer(number) if (min..=max).contains(&number) => self.place(visitor.visit_i64(number)),
            Scalar::Integer(number) => Err(out_of_range(&number)),
            Scalar::Float(number) if number.fract() == 0.0 && number.is_finite() => {
                Err(out_of_range(&number))
            }
            _ => Err(self.mismatch("a whole number")),
        }
    }
}

const A_TEXT: &str = "a text";

/// A text short enough for a message.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.integer(
                i64::try_from(<$type>::MIN).unwrap_or(i64::MIN),
                i64::try_from(<$type>::MAX).unwrap_or(i64::MAX),
                visitor,
            )
        })*
    };
}

impl<'de> Deserializer<'de> for Decoder<'de, '_> {
    type Error = DecodeError;

    integers! {
        deserialize_i8: i8, deserialize_i16: i16, deserialize_i32: i32, deserialize_i64: i64,
        deserialize_u8: u8, deserialize_u16: u16, deserialize_u32: u32, deserialize_u64: u64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
            Value::Text(_) => self.deserialize_str(visitor),
            Value::Plain(text) => match resolve(text) {
                Scalar::Null => self.place(visitor.visit_unit()),
                Scalar::Bool(value) => self.place(visitor.visit_bool(value)),
                Scalar::Integer(number) => self.place(visitor.visit_i64(number)),
                Scalar::Float(number) => self.place(visitor.visit_f64(number)),
                Scalar::String(text) => self.place(visitor.visit_str(text)),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Plain(text) => match resolve(text) {
                Scalar::Bool(value) => self.place(visitor.visit_bool(value)),
                _ => Err(self.mismatch("true or false")),
            },
            _ => Err(self.mismatch("true or false")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Plain(text) => match resolve(text) {
                Scalar::Integer(number) => self.place(visitor.visit_i64(number)),
                Scalar::Float(number) => self.place(visitor.visit_f64(number)),
                _ => Err(self.mismatch("a number")),
            },
            _ => Err(self.mismatch("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let text = match &self.node.value {
            Value::Text(text) => text.as_ref(),
            Value::Plain(text) => match resolve(text) {
                Scalar::String(text) => text,
                _ => return Err(self.mismatch(A_TEXT)),
            },
            _ => return Err(self.mismatch(A_TEXT)),
        };
        self.place(visitor.visit_str(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Plain(text) if resolve(text) == Scalar::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::List(items) = &self.node.value else {
            return Err(self.mismatch("a list"));
        };
        visitor.visit_seq(Items {
            items: items.iter(),
            unknown: self.unknown,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.mismatch("a map"));
        };
        visitor.visit_map(Members::new(entries.iter(), None, self.unknown))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: Fields,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.mismatch("a map"));
        };
        visitor.visit_map(Members::new(entries.iter(), Some(fields), self.unknown))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: Fields,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let text = match &self.node.value {
            Value::Text(text) | Value::Plain(text) if !text.is_empty() => text.as_ref(),
            _ => return Err(self.mismatch(&format!("one of {}", variants.join(", ")))),
        };
        let variant: StrDeserializer<'_, DecodeError> = text.into_deserializer();
        self.place(visitor.visit_enum(variant))
    }

    /// Serde skips what a type does not know; in a field of a struct that is a misspelt one.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Some((entry, fields)) = self.field {
            self.unknown.borrow_mut().push(Fault {
                span: entry.key_span,
                message: format!("unknown field `{}`", shorten(&entry.key)),
                help: suggest::help(&entry.key, "fields", fields),
            });
        }
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

/// The items of a list.
struct Items<'de, 's> {
    items: std::slice::Iter<'de, Node<'de>>,
    unknown: &'s Unknown,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some(node) = self.items.next() else {
            return Ok(None);
        };
        let decoder = Decoder {
            node,
            field: None,
            unknown: self.unknown,
        };
        seed.deserialize(decoder)
            .map(Some)
            .map_err(|error| error.at(node.span))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The members of a map.
struct Members<'de, 's, I> {
    entries: I,
    /// The one whose value is next.
    current: Option<&'de Entry<'de>>,
    fields: Option<Fields>,
    unknown: &'s Unknown,
}

impl<'de, 's, I: Iterator<Item = &'de Entry<'de>>> Members<'de, 's, I> {
    fn new(entries: I, fields: Option<Fields>, unknown: &'s Unknown) -> Self {
        Self {
            entries,
            current: None,
            fields,
            unknown,
        }
    }
}

impl<'de, I: Iterator<Item = &'de Entry<'de>>> de::MapAccess<'de> for Members<'de, '_, I> {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        self.current = self.entries.next();
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, DecodeError> = entry.key.as_ref().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|error| error.at(entry.key_span))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        let Some(entry) = self.current else {
            return Err(de::Error::custom("a value without a key"));
        };
        let decoder = Decoder {
            node: &entry.value,
            field: self.fields.map(|fields| (entry, fields)),
            unknown: self.unknown,
        };
        seed.deserialize(decoder)
            .map_err(|error| error.at(entry.key_span))
    }
}
