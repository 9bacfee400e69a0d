//! The tree of a document: what was written, each part with its place.

use std::borrow::Cow;

use serde_json::Value as Json;

/// A stretch of a file's text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node<'a> {
    /// Where it is.
    pub span: Span,
    /// What it is.
    pub value: Value<'a>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A number that is no integer of 64 bits.
    Float(f64),
    /// A string.
    String(Cow<'a, str>),
    /// A list.
    List(Vec<Node<'a>>),
    /// A map, in the order it was written; no key is in it twice.
    Map(Vec<Entry<'a>>),
}

/// A member of a map.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry<'a> {
    /// Its key.
    pub key: Cow<'a, str>,
    /// Where the key is.
    pub key_span: Span,
    /// Its value.
    pub value: Node<'a>,
}

/// What a path leads to.
struct Found<'t, 'a> {
    node: &'t Node<'a>,
    /// The place of its key, or of the item of a list.
    key: Span,
    /// The place to show.
    shown: Span,
}

impl<'a> Node<'a> {
    /// A member of a map.
    pub fn get(&self, key: &str) -> Option<&Entry<'a>> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The place of a field such as `spec.listeners[0].port`: its value, or its key where the value goes over
    /// several lines; for a field that is not there, the nearest thing around it that is.
    pub fn locate(&self, field: &str) -> Option<Span> {
        self.find(field).map(|found| found.shown)
    }

    /// The place of a field's key.
    pub fn locate_key(&self, field: &str) -> Option<Span> {
        self.find(field).map(|found| found.key)
    }

    fn find(&self, field: &str) -> Option<Found<'_, 'a>> {
        let mut node = self;
        let mut nearest = None;
        let mut rest = field;
        while let Some((found, remainder)) = node.step(rest) {
            node = found.node;
            nearest = Some(found);
            rest = remainder;
        }
        nearest
    }

    /// Follows the first part of a path: where it leads, and the rest of the path.
    fn step<'p>(&self, path: &'p str) -> Option<(Found<'_, 'a>, &'p str)> {
        match &self.value {
            Value::List(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let node = items.get(index.parse::<usize>().ok()?)?;
                let (key, shown) = (node.span, node.span);
                Some((Found { node, key, shown }, rest.strip_prefix('.').unwrap_or(rest)))
            }
            // Keys may have dots in them, as those of labels do: the longest that fits is meant.
            Value::Map(entries) => entries
                .iter()
                .filter_map(|entry| Some((entry, after_key(path, &entry.key)?)))
                .max_by_key(|(entry, _)| entry.key.len())
                .map(|(entry, rest)| {
                    let found = Found {
                        node: &entry.value,
                        key: entry.key_span,
                        shown: entry.shown(),
                    };
                    (found, rest)
                }),
            _ => None,
        }
    }

    /// The value alone.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Integer(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::String(text) => Json::from(text.as_ref()),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.to_string(), entry.value.to_json()))
                .collect(),
        }
    }

    /// Whether it is neither a list nor a map.
    pub fn is_scalar(&self) -> bool {
        !matches!(self.value, Value::List(_) | Value::Map(_))
    }
}

impl Entry<'_> {
    /// The place to show for this member: its value if that is a scalar that is there, else its key.
    pub fn shown(&self) -> Span {
        let Span { start, end } = self.value.span;
        match self.value.is_scalar() && end > start {
            true => self.value.span,
            false => self.key_span,
        }
    }
}

/// What follows a key in a path, if the path begins with it.
fn after_key<'p>(path: &'p str, key: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(key)?;
    match rest.chars().next() {
        None | Some('[') => Some(rest),
        Some('.') => Some(&rest[1..]),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml;

    const TEXT: &str = "metadata: {name: web}\nspec:\n  selector:\n    weir.dev: a\n    weir.dev/role: b\n  ports:\n  - {name: http, port: 80}\n";

    fn text_at(field: &str) -> Option<&'static str> {
        let tree = yaml::parse(TEXT, 0);
        let span = tree.root?.locate(field)?;
        Some(&TEXT[span.start..span.end])
    }

    #[test]
    fn fields_are_found() {
        assert_eq!(text_at("metadata.name"), Some("web"));
        assert_eq!(text_at("spec.ports[0].port"), Some("80"));
        assert_eq!(text_at("spec.selector.weir.dev/role"), Some("b"));
        assert_eq!(text_at("spec.selector.weir.dev"), Some("a"));
    }

    #[test]
    fn a_field_is_shown_by_its_key_where_that_is_wrong() {
        let tree = yaml::parse(TEXT, 0);
        let span = tree.root.unwrap().locate_key("spec.ports[0].port").unwrap();
        assert_eq!(&TEXT[span.start..span.end], "port");
    }

    #[test]
    fn a_missing_field_is_shown_by_what_is_around_it() {
        assert_eq!(text_at("spec.address"), Some("spec"));
        assert_eq!(text_at("spec.ports[0].protocol"), Some("{name: http, port: 80}"));
        assert_eq!(text_at("status"), None);
    }
}
