//! YAML → tree, from the events of granit-parser: it keeps the place of every value, and reads JSON as JSON. What it
//! leaves to its callers is here: repeated keys, merged maps, and how far aliases may expand.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span as Extent, Tag,
};

use super::diagnostic::Fault;
use super::scalar::{self, Scalar};
use super::tree::{Entry, Node, Span, Value};

/// How deep blocks may be nested, and how deep brackets; more than any resource needs, less than any stack holds.
const MAX_DEPTH: usize = 64;
/// How many values aliases may expand to in one document: a few lines of them can stand for billions.
const MAX_REPEATED: usize = 10_000;
/// Up to this many keys a look through all of them is faster than a table.
const FEW_KEYS: usize = 16;

/// A document.
#[derive(Debug, Default)]
pub(super) struct Tree<'a> {
    /// Its outermost value; none if there is nothing in it, or nothing that could be read.
    pub root: Option<Node<'a>>,
    /// Whether parts of it are repeated elsewhere in it, so that a part's own text does not tell all about it.
    pub has_aliases: bool,
    /// What is wrong with it. The last one may be why there is no root.
    pub faults: Vec<Fault>,
}

/// Reads one document that begins at an offset of its file.
pub(super) fn parse(text: &str, offset: usize) -> Tree<'_> {
    let mut options = Options::default();
    options.emit_comments = false;
    options.block_nesting_limit = MAX_DEPTH;
    options.flow_nesting_limit = MAX_DEPTH;
    let mut builder = Builder {
        offset,
        ..Builder::default()
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let taken = match event {
            Ok((event, extent)) => {
                let span = builder.span(&extent);
                builder.take(event, span)
            }
            Err(error) => Err(scan_fault(&error, text, offset)),
        };
        if let Err(fault) = taken {
            builder.root = None;
            builder.faults.push(fault);
            break;
        }
    }
    Tree {
        root: builder.root,
        has_aliases: builder.repeated > 0,
        faults: builder.faults,
    }
}

#[derive(Default)]
struct Builder<'a> {
    offset: usize,
    /// Lists and maps that have begun and not ended.
    open: Vec<Open<'a>>,
    root: Option<Node<'a>>,
    /// Values that have a name.
    anchors: HashMap<usize, Node<'a>>,
    repeated: usize,
    /// What is wrong and does not keep the rest from being read.
    faults: Vec<Fault>,
}

/// A list or map that is being read.
struct Open<'a> {
    span: Span,
    anchor: usize,
    collection: Collection<'a>,
}

enum Collection<'a> {
    List(Vec<Node<'a>>),
    Map(Members<'a>),
}

#[derive(Default)]
struct Members<'a> {
    entries: Vec<Entry<'a>>,
    /// A key that waits for its value.
    key: Option<Key<'a>>,
    /// Maps whose entries are to be added.
    merged: Vec<Node<'a>>,
}

enum Key<'a> {
    Name(Cow<'a, str>, Span),
    /// `<<`, which adds the entries of its value to the map.
    Merge,
}

impl<'a> Builder<'a> {
    fn span(&self, extent: &Extent) -> Span {
        let range = extent.byte_range().unwrap_or_default();
        Span {
            start: self.offset + range.start,
            end: self.offset + range.end,
        }
    }

    /// Takes in the next event, or says why the document cannot be read any further.
    fn take(&mut self, event: Event<'a>, span: Span) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), &["str", "int", "float", "bool", "null"], span);
                // The scanner writes ~ for a value that is not there.
                let text = if span.end <= span.start {
                    Cow::Borrowed("")
                } else {
                    text
                };
                let scalar = (text, is_plain(style, tag.as_deref()), span);
                if self.awaits_key() {
                    return self.key(scalar, anchor);
                }
                let value = value(scalar);
                if matches!(value, Value::Float(number) if !number.is_finite()) {
                    self.faults.push(Fault::new(
                        span,
                        "JSON has no infinity and nothing that is not a number",
                    ));
                }
                self.value(Node { span, value }, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], span);
                self.begin(Collection::List(Vec::new()), span, anchor)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], span);
                self.begin(Collection::Map(Members::default()), span, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.repeat(anchor, span)?,
            _ => {}
        }
        Ok(())
    }

    fn check_tag(&mut self, tag: Option<&Tag>, known: &[&str], span: Span) {
        if let Some(tag) = tag
            && !tag.core_suffix().is_some_and(|suffix| known.contains(&suffix))
        {
            let fault = Fault::new(span, format!("unsupported tag {}", tag.original()));
            self.faults.push(fault.help("remove it"));
        }
    }

    /// Whether the next value is the key of a map.
    fn awaits_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { collection: Collection::Map(members), .. }) if members.key.is_none())
    }

    fn key(&mut self, (text, is_plain, span): PlacedScalar<'a>, anchor: usize) -> Result<(), Fault> {
        let key = match is_plain {
            true if text == "<<" => Key::Merge,
            true => match scalar::key(text) {
                Some(name) => Key::Name(name, span),
                None => return Err(Fault::new(span, "a key must not be empty or null")),
            },
            false => Key::Name(text, span),
        };
        if let Key::Name(name, _) = &key
            && anchor != 0
        {
            let value = Value::String(name.clone());
            self.anchors.insert(anchor, Node { span, value });
        }
        if let Some(members) = self.members() {
            members.key = Some(key);
        }
        Ok(())
    }

    /// The map that is being read.
    fn members(&mut self) -> Option<&mut Members<'a>> {
        match self.open.last_mut()? {
            Open {
                collection: Collection::Map(members),
                ..
            } => Some(members),
            _ => None,
        }
    }

    fn begin(&mut self, collection: Collection<'a>, span: Span, anchor: usize) -> Result<(), Fault> {
        if self.awaits_key() {
            return Err(Fault::new(span, "a key must be a string"));
        }
        self.open.push(Open {
            span,
            anchor,
            collection,
        });
        Ok(())
    }

    fn end(&mut self, end: Span) {
        let Some(open) = self.open.pop() else {
            return;
        };
        let span = Span {
            start: open.span.start,
            end: end.end.max(open.span.end),
        };
        let value = match open.collection {
            Collection::List(items) => Value::List(items),
            Collection::Map(members) => {
                let mut entries = members.entries;
                self.drop_duplicates(&mut entries);
                self.merge(&mut entries, members.merged);
                Value::Map(entries)
            }
        };
        self.value(Node { span, value }, open.anchor);
    }

    fn value(&mut self, node: Node<'a>, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.collection) {
            None => self.root = Some(node),
            Some(Collection::List(items)) => items.push(node),
            Some(Collection::Map(members)) => match members.key.take() {
                Some(Key::Name(key, key_span)) => members.entries.push(Entry {
                    key,
                    key_span,
                    value: node,
                }),
                Some(Key::Merge) => members.merged.push(node),
                None => {}
            },
        }
    }

    fn repeat(&mut self, anchor: usize, span: Span) -> Result<(), Fault> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Fault::new(
                span,
                "this alias is part of the value that it stands for",
            ));
        };
        self.repeated += size(node);
        if self.repeated > MAX_REPEATED {
            let message = format!("aliases expand to more than {MAX_REPEATED} values in this document");
            return Err(Fault::new(span, message).help("write the values out, or split the document"));
        }
        let value = node.value.clone();
        if !self.awaits_key() {
            self.value(Node { span, value }, 0);
            return Ok(());
        }
        match value {
            Value::String(text) => self.key((text, false, span), 0),
            _ => Err(Fault::new(span, "a key must be a string")),
        }
    }

    /// No key may be in a map twice: which of them is meant, nobody could tell.
    fn drop_duplicates(&mut self, entries: &mut Vec<Entry<'a>>) {
        let duplicates: Vec<usize> = if entries.len() <= FEW_KEYS {
            let is_duplicate = |index: &usize| {
                entries[..*index]
                    .iter()
                    .any(|earlier| earlier.key == entries[*index].key)
            };
            (1..entries.len()).filter(is_duplicate).collect()
        } else {
            let mut seen = HashSet::new();
            let is_duplicate = |index: &usize| !seen.insert(&entries[*index].key);
            (0..entries.len()).filter(is_duplicate).collect()
        };
        for index in duplicates.into_iter().rev() {
            let Entry { key, key_span, .. } = entries.remove(index);
            let fault = Fault::new(key_span, format!("duplicate key `{key}`"));
            self.faults.push(fault.help("remove one of the two"));
        }
    }

    /// Adds the entries of merged maps that the map does not have itself.
    fn merge(&mut self, entries: &mut Vec<Entry<'a>>, merged: Vec<Node<'a>>) {
        for node in merged {
            match node.value {
                Value::List(items) => self.merge(entries, items),
                Value::Map(more) => {
                    for entry in more {
                        if entries.iter().all(|own| own.key != entry.key) {
                            entries.push(entry);
                        }
                    }
                }
                _ => self
                    .faults
                    .push(Fault::new(node.span, "only maps can be merged with <<")),
            }
        }
    }
}

/// The text of a scalar, whether it decides by itself what it means, and its place.
type PlacedScalar<'a> = (Cow<'a, str>, bool, Span);

/// Whether the text of a scalar decides whether it is a number, true or false, nothing, or a string.
fn is_plain(style: ScalarStyle, tag: Option<&Tag>) -> bool {
    match tag.and_then(Tag::core_suffix) {
        Some(suffix) => suffix != "str",
        None => style == ScalarStyle::Plain,
    }
}

fn value<'a>((text, is_plain, _): PlacedScalar<'a>) -> Value<'a> {
    let scalar = match is_plain {
        true => scalar::resolve(&text),
        false => Scalar::String(&text),
    };
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Integer(number) => Value::Integer(number),
        Scalar::Float(number) => Value::Float(number),
        Scalar::String(_) => Value::String(text),
    }
}

/// How many values a value consists of.
fn size(node: &Node<'_>) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.value)).sum::<usize>(),
        _ => 1,
    }
}

/// What the scanner did not understand, in its own words, and what it mostly is.
fn scan_fault(error: &ScanError, text: &str, offset: usize) -> Fault {
    let marker = error.marker();
    let start = marker.byte_offset().unwrap_or_else(|| {
        let place = text.char_indices().nth(marker.index());
        place.map_or(text.len(), |(place, _)| place)
    });
    let start = offset + start.min(text.len());
    let span = Span {
        start,
        end: start + 1,
    };
    if *error.kind() == ErrorKind::RecursionLimitExceeded {
        return Fault::new(span, format!("nested more than {MAX_DEPTH} levels deep"));
    }
    let fault = Fault::new(span, format!("invalid YAML: {}", error.info()));
    match error.kind() {
        ErrorKind::TabInBlockIndentation | ErrorKind::TabNotAllowed => fault.help("indent with spaces"),
        ErrorKind::UnknownAnchor => fault.help("an alias such as *web needs a value marked with &web before it"),
        ErrorKind::MappingValueNotAllowed => fault.help(
            "the fields of a map must start in the same column; a string with a colon and a space needs quotes",
        ),
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let faults = parse(text, 0).faults.into_iter();
        faults.map(|fault| fault.message).collect()
    }

    fn root(text: &str) -> Node<'_> {
        let tree = parse(text, 0);
        assert_eq!(tree.faults, []);
        tree.root.unwrap()
    }

    #[test]
    fn nothing_is_no_document() {
        for text in ["", "# only a comment\n", "\n\n"] {
            let tree = parse(text, 0);
            assert!(tree.root.is_none() && tree.faults.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn aliases_and_merged_maps_are_filled_in() {
        let text = "a: &a {p: 1, q: 2}\nb: {<<: *a, q: 3}\nc: *a\nd: &d e\n*d : f\n\"<<\": g\n";
        let tree = parse(text, 0);
        assert!(tree.has_aliases);
        let expected = serde_json::json!({
            "a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}, "c": {"p": 1, "q": 2}, "d": "e", "e": "f", "<<": "g",
        });
        assert_eq!(tree.root.unwrap().to_json(), expected);
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let below = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
        }
        assert_eq!(
            faults(&text),
            ["aliases expand to more than 10000 values in this document"]
        );
    }

    #[test]
    fn an_alias_within_its_own_value_is_refused() {
        assert_eq!(
            faults("&a [*a]"),
            ["this alias is part of the value that it stands for"]
        );
    }

    #[test]
    fn values_nested_too_deep_are_refused() {
        for text in [
            format!("{}{}", "[".repeat(100), "]".repeat(100)),
            format!("{}x", "- ".repeat(100)),
            "[".repeat(100_000),
        ] {
            assert_eq!(faults(&text), ["nested more than 64 levels deep"]);
        }
    }

    #[test]
    fn every_duplicate_key_is_found() {
        assert_eq!(
            faults("{a: 1, b: {c: 1, c: 2}, a: 3}"),
            ["duplicate key `c`", "duplicate key `a`"]
        );
        assert_eq!(faults("{on: 1, true: 2}"), ["duplicate key `true`"]);
        let many: String = (0..40).map(|index| format!("k{}: 1\n", index % 39)).collect();
        assert_eq!(faults(&many), ["duplicate key `k0`"]);
    }

    #[test]
    fn keys_are_strings() {
        assert_eq!(
            root("{1_0: a, on: b, 'on': c}").to_json(),
            serde_json::json!({"10": "a", "true": "b", "on": "c"})
        );
        for text in ["{[a]: b}", "? {a: b}\n: c", "&a [b]: c"] {
            assert_eq!(faults(text), ["a key must be a string"], "{text}");
        }
        assert_eq!(faults("~: b"), ["a key must not be empty or null"]);
    }

    #[test]
    fn numbers_are_those_of_json() {
        for text in ["a: .inf", "[-.inf]", ".nan"] {
            assert_eq!(
                faults(text),
                ["JSON has no infinity and nothing that is not a number"]
            );
        }
    }

    #[test]
    fn quotes_and_tags_make_a_string() {
        assert_eq!(root("!!str 80").value, Value::String("80".into()));
        assert_eq!(root("'80'").value, Value::String("80".into()));
        assert_eq!(root("!!int '80'").value, Value::Integer(80));
        assert_eq!(
            faults("[!secret x, !other y]"),
            ["unsupported tag !secret", "unsupported tag !other"]
        );
    }
}
