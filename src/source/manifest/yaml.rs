//! YAML → tree. The scanner is granit's, the one inside serde-saphyr: reading its events directly takes half the
//! time that a typed reader on top of it would, and every value keeps its place.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span as Stretch, Tag,
};

use super::diagnostic::Fault;
use super::tree::{Entry, Node, Span, Value};

/// How deep values may stand within each other; more than any resource needs, less than any stack holds.
pub(super) const MAX_DEPTH: usize = 64;
/// How many values aliases may repeat in one document: a few lines of them can stand for billions.
const MAX_REPEATED: usize = 10_000;
/// Up to this many keys a look through all of them is faster than a table.
const FEW_KEYS: usize = 16;

/// A document.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    /// Its outermost value.
    pub root: Node<'a>,
    /// Whether parts of it are repeated elsewhere in it, so that a part's own text does not tell all about it.
    pub has_aliases: bool,
}

/// Reads one document that begins at an offset of its file; `None` if there is nothing in it.
pub(super) fn parse(text: &str, offset: usize) -> Result<Option<Tree<'_>>, Fault> {
    let mut options = Options::default();
    options.emit_comments = false;
    let mut builder = Builder {
        offset,
        ..Builder::default()
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, stretch) = event.map_err(|error| scan_fault(&error, text, offset))?;
        let span = builder.span(&stretch);
        builder.take(event, span)?;
    }
    Ok(builder.root.map(|root| Tree {
        root,
        has_aliases: builder.repeated > 0,
    }))
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
}

/// A list or map that is being read.
struct Open<'a> {
    span: Span,
    anchor: usize,
    collection: Collection<'a>,
}

enum Collection<'a> {
    List(Vec<Node<'a>>),
    Map {
        entries: Vec<Entry<'a>>,
        /// A key that waits for its value.
        key: Option<(Cow<'a, str>, Span)>,
        /// Maps whose entries are to be added (`<<`).
        merged: Vec<Node<'a>>,
    },
}

impl<'a> Builder<'a> {
    fn span(&self, stretch: &Stretch) -> Span {
        let range = stretch.byte_range().unwrap_or_default();
        Span {
            start: self.offset + range.start,
            end: self.offset + range.end,
        }
    }

    fn take(&mut self, event: Event<'a>, span: Span) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(text, style, tag.as_deref(), span)?;
                self.value(Node { span, value }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                known_tag(tag.as_deref(), &["seq"], span)?;
                self.begin(Collection::List(Vec::new()), span, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                known_tag(tag.as_deref(), &["map"], span)?;
                let collection = Collection::Map {
                    entries: Vec::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.begin(collection, span, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.repeat(anchor, span),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, collection: Collection<'a>, span: Span, anchor: usize) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.open.push(Open {
            span,
            anchor,
            collection,
        });
        Ok(())
    }

    fn end(&mut self, end: Span) -> Result<(), Fault> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let span = Span {
            start: open.span.start,
            end: end.end.max(open.span.end),
        };
        let value = match open.collection {
            Collection::List(items) => Value::List(items),
            Collection::Map {
                mut entries, merged, ..
            } => {
                check_keys(&entries)?;
                merge(&mut entries, merged)?;
                Value::Map(entries)
            }
        };
        self.value(Node { span, value }, open.anchor)
    }

    fn value(&mut self, node: Node<'a>, anchor: usize) -> Result<(), Fault> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.collection {
            Collection::List(items) => items.push(node),
            Collection::Map { entries, key, merged } => match key.take() {
                None => *key = Some(key_text(node)?),
                Some((name, _)) if name == "<<" => merged.push(node),
                Some((key, key_span)) => entries.push(Entry {
                    key,
                    key_span,
                    value: node,
                }),
            },
        }
        Ok(())
    }

    fn repeat(&mut self, anchor: usize, span: Span) -> Result<(), Fault> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Fault::new(
                span,
                "an alias inside the value it stands for never ends",
            ));
        };
        self.repeated += size(node);
        if self.repeated > MAX_REPEATED {
            let message = format!("aliases repeat more than {MAX_REPEATED} values in this document");
            return Err(Fault::new(span, message).help("write the values out, or split the document"));
        }
        let node = Node {
            span,
            value: node.value.clone(),
        };
        self.value(node, 0)
    }
}

/// How many values a value consists of.
fn size(node: &Node<'_>) -> usize {
    match &node.value {
        Value::Plain(_) | Value::Text(_) => 1,
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.value)).sum::<usize>(),
    }
}

fn scalar<'a>(
    text: Cow<'a, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    span: Span,
) -> Result<Value<'a>, Fault> {
    known_tag(tag, &["str", "int", "float", "bool", "null"], span)?;
    let plain = match tag.and_then(Tag::core_suffix) {
        Some(suffix) => suffix != "str",
        None => style == ScalarStyle::Plain,
    };
    Ok(match plain {
        // The scanner writes ~ for a value that is not there.
        true if span.end <= span.start => Value::Plain(Cow::Borrowed("")),
        true => Value::Plain(text),
        false => Value::Text(text),
    })
}

fn known_tag(tag: Option<&Tag>, known: &[&str], span: Span) -> Result<(), Fault> {
    match tag {
        Some(tag) if !tag.core_suffix().is_some_and(|suffix| known.contains(&suffix)) => {
            Err(Fault::new(span, format!("the tag {} has no meaning here", tag.original())).help("remove it"))
        }
        _ => Ok(()),
    }
}

/// A key has to be a scalar.
fn key_text<'a>(node: Node<'a>) -> Result<(Cow<'a, str>, Span), Fault> {
    match node.value {
        Value::Plain(text) | Value::Text(text) => Ok((text, node.span)),
        Value::List(_) | Value::Map(_) => Err(Fault::new(node.span, "a list or a map cannot be a key")),
    }
}

/// No key may stand in a map twice: which of them is meant, nobody could tell.
pub(super) fn check_keys(entries: &[Entry<'_>]) -> Result<(), Fault> {
    let twice = if entries.len() <= FEW_KEYS {
        entries
            .iter()
            .enumerate()
            .find(|(index, entry)| entries[..*index].iter().any(|earlier| earlier.key == entry.key))
            .map(|(_, entry)| entry)
    } else {
        let mut seen = std::collections::HashSet::new();
        entries.iter().find(|entry| !seen.insert(&entry.key))
    };
    match twice {
        Some(entry) => {
            let message = format!("`{}` stands in this map twice", entry.key);
            Err(Fault::new(entry.key_span, message).help("remove one of the two"))
        }
        None => Ok(()),
    }
}

/// Adds the entries of merged maps (`<<`) that the map does not have itself.
fn merge<'a>(entries: &mut Vec<Entry<'a>>, merged: Vec<Node<'a>>) -> Result<(), Fault> {
    for node in merged {
        match node.value {
            Value::List(items) => merge(entries, items)?,
            Value::Map(more) => {
                for entry in more {
                    if entries.iter().all(|own| own.key != entry.key) {
                        entries.push(entry);
                    }
                }
            }
            Value::Plain(_) | Value::Text(_) => {
                return Err(Fault::new(node.span, "only a map can be merged with <<"));
            }
        }
    }
    Ok(())
}

/// Values stand too deep within each other.
pub(super) fn too_deep(span: Span) -> Fault {
    Fault::new(
        span,
        format!("values stand more than {MAX_DEPTH} deep within each other"),
    )
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
    let fault = Fault::new(span, format!("this is no YAML: {}", error.info()));
    match error.kind() {
        ErrorKind::TabInBlockIndentation | ErrorKind::TabNotAllowed => fault.help("indent with spaces"),
        ErrorKind::UnknownAnchor => fault.help("an alias such as *web needs a value marked with &web before it"),
        ErrorKind::MappingValueNotAllowed => fault.help(
            "fields of one map begin in the same column, and a text with a colon and a space in it needs quotes",
        ),
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        parse(text, 0).unwrap_err().message
    }

    fn root(text: &str) -> Node<'_> {
        parse(text, 0).unwrap().unwrap().root
    }

    #[test]
    fn nothing_is_no_document() {
        for text in ["", "# only a remark\n", "\n\n"] {
            assert!(parse(text, 0).unwrap().is_none(), "{text:?}");
        }
    }

    #[test]
    fn aliases_and_merged_maps_are_filled_in() {
        let tree = parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n", 0)
            .unwrap()
            .unwrap();
        assert!(tree.has_aliases);
        let text = |field: &str| {
            let entry = field
                .split_once('.')
                .and_then(|(a, b)| tree.root.get(a)?.value.get(b));
            entry.map(|entry| entry.value.value.clone())
        };
        assert_eq!(text("b.x"), Some(Value::Plain("1".into())));
        assert_eq!(text("b.y"), Some(Value::Plain("3".into())));
        assert_eq!(text("c.y"), Some(Value::Plain("2".into())));
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let below = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
        }
        assert!(fault(&text).starts_with("aliases repeat more than"));
    }

    #[test]
    fn values_deep_within_each_other_are_refused() {
        let flow = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(fault(&flow).contains("deep"), "{}", fault(&flow));
        let block = format!("{}x", "- ".repeat(100));
        assert!(fault(&block).contains("deep"), "{}", fault(&block));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        assert_eq!(fault("{a: 1, b: 2, a: 3}"), "`a` stands in this map twice");
        let many: String = (0..40).map(|index| format!("k{}: 1\n", index % 39)).collect();
        assert_eq!(fault(&many), "`k0` stands in this map twice");
    }

    #[test]
    fn quotes_and_tags_make_a_text() {
        assert_eq!(root("!!str 80").value, Value::Text("80".into()));
        assert_eq!(root("'80'").value, Value::Text("80".into()));
        assert_eq!(root("!!int '80'").value, Value::Plain("80".into()));
        assert!(fault("!secret x").contains("!secret"));
    }
}
