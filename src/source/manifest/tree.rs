//! The tree of a document: what was written, each part with its place. YAML and JSON both come to this.

use std::borrow::Cow;

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
    /// A scalar whose text decides whether it is a number, true or false, nothing, or a text.
    Plain(Cow<'a, str>),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Node<'a>>),
    /// A map, in the order it was written; no key stands in it twice.
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
        let mut node = self;
        let mut found = None;
        let mut rest = field;
        while let Some((next, span, remainder)) = node.step(rest) {
            found = Some(span);
            node = next;
            rest = remainder;
        }
        found
    }

    /// Follows the first part of a path: where it leads, the place to show, the rest of the path.
    fn step<'p>(&self, path: &'p str) -> Option<(&Self, Span, &'p str)> {
        match &self.value {
            Value::List(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, item.span, rest.strip_prefix('.').unwrap_or(rest)))
            }
            // Keys may have dots in them, as those of labels do: the longest that fits is meant.
            Value::Map(entries) => entries
                .iter()
                .filter_map(|entry| Some((entry, after_key(path, &entry.key)?)))
                .max_by_key(|(entry, _)| entry.key.len())
                .map(|(entry, rest)| (&entry.value, entry.shown(), rest)),
            Value::Plain(_) | Value::Text(_) => None,
        }
    }

    /// The path of the field that has this place.
    pub fn path_of(&self, span: Span) -> Option<String> {
        match &self.value {
            Value::Plain(_) | Value::Text(_) => None,
            Value::List(items) => items.iter().enumerate().find_map(|(index, item)| {
                let below = match item.span == span {
                    true => String::new(),
                    false => item.path_of(span)?,
                };
                let dot = if below.is_empty() { "" } else { "." };
                Some(format!("[{index}]{dot}{below}"))
            }),
            Value::Map(entries) => entries.iter().find_map(|entry| {
                if entry.key_span == span || entry.value.span == span {
                    return Some(entry.key.to_string());
                }
                let below = entry.value.path_of(span)?;
                let dot = if below.starts_with('[') { "" } else { "." };
                Some(format!("{}{dot}{below}", entry.key))
            }),
        }
    }
}

impl Entry<'_> {
    /// The place to show for this member: its value if that is a scalar that is there, else its key.
    pub fn shown(&self) -> Span {
        match &self.value.value {
            Value::Plain(_) | Value::Text(_) if self.value.span.end > self.value.span.start => {
                self.value.span
            }
            _ => self.key_span,
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
        let tree = yaml::parse(TEXT, 0).unwrap().unwrap();
        let span = tree.root.locate(field)?;
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
    fn a_missing_field_is_shown_by_what_is_around_it() {
        assert_eq!(text_at("spec.address"), Some("spec"));
        assert_eq!(text_at("spec.ports[0].protocol"), Some("{name: http, port: 80}"));
        assert_eq!(text_at("status"), None);
    }

    #[test]
    fn paths_lead_back() {
        let tree = yaml::parse(TEXT, 0).unwrap().unwrap();
        for field in [
            "metadata.name",
            "spec.ports[0].port",
            "spec.ports[0]",
            "spec.selector.weir.dev/role",
        ] {
            let span = tree.root.locate(field).unwrap();
            assert_eq!(tree.root.path_of(span).as_deref(), Some(field));
        }
    }
}
