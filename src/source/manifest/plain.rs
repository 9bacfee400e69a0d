//! The YAML that manifests mostly are → tree, in a tenth of the time a scanner of all YAML takes, which is the
//! most part of starting with ten thousand objects.
//!
//! That is: printable ASCII; maps and lists by indentation; scalars, and maps and lists in brackets, that end on
//! their line; quotes without escapes. At anything else, a mistake included, this reader gives up and leaves the
//! document to [`yaml`](super::yaml). What it does read, it reads alike: a property test compares the two.

use std::borrow::Cow;

use super::tree::{Entry, Node, Span, Value};
use super::yaml::{MAX_DEPTH, check_keys};

/// Reads one document that begins at an offset of its file, if it is plain.
pub(super) fn parse(text: &str, offset: usize) -> Option<Node<'_>> {
    let mut reader = Reader {
        text,
        bytes: text.as_bytes(),
        offset,
        line: Line::default(),
    };
    if let Some(rest) = text.strip_prefix("---") {
        reader.line.next = rest.find('\n').map_or(text.len(), |length| length + 4);
        reader.line.end = reader.line.next;
        if !matches!(rest.as_bytes().first(), None | Some(b' ' | b'\n')) {
            return None;
        }
        reader.line.at = 3;
        reader.line.end = text[..reader.line.next].trim_end_matches('\n').len();
        reader.end_line()?;
    }
    reader.next_line()?;
    let root = reader.block(0)?;
    reader.line.is_past_end.then_some(root)
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    offset: usize,
    line: Line,
}

/// The line being read; lines of nothing but a remark are skipped.
#[derive(Default)]
struct Line {
    start: usize,
    /// How far it has been read.
    at: usize,
    end: usize,
    /// Where the next one begins.
    next: usize,
    is_past_end: bool,
}

impl Line {
    /// The column of what is next; also the indentation where nothing has been read yet.
    fn column(&self) -> usize {
        self.at - self.start
    }
}

impl<'a> Reader<'a> {
    /// Goes to the next line that has content, or past the end.
    fn next_line(&mut self) -> Option<()> {
        loop {
            let start = self.line.next;
            if start >= self.bytes.len() {
                self.line = Line {
                    next: start,
                    is_past_end: true,
                    ..Line::default()
                };
                return Some(());
            }
            let rest = &self.bytes[start..];
            let length = rest
                .iter()
                .position(|byte| !matches!(byte, b' '..=b'~'))
                .unwrap_or(rest.len());
            if rest.get(length).is_some_and(|byte| *byte != b'\n') {
                return None;
            }
            let end = start + length;
            let indent = rest[..length]
                .iter()
                .position(|byte| *byte != b' ')
                .unwrap_or(length);
            self.line = Line {
                start,
                at: start + indent,
                end,
                next: end + 1,
                is_past_end: false,
            };
            if !matches!(self.peek(), None | Some(b'#')) {
                return Some(());
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.byte(self.line.at)
    }

    /// A byte of the line.
    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes[..self.line.end].get(at).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.line.at += 1;
        }
    }

    /// Nothing but a remark may follow on this line.
    fn end_line(&mut self) -> Option<()> {
        let before = self.line.at;
        self.skip_spaces();
        match self.peek() {
            None => Some(()),
            Some(b'#') if self.line.at > before => Some(()),
            Some(_) => None,
        }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span {
            start: self.offset + start,
            end: self.offset + end,
        }
    }

    /// A map or list by indentation, as deep as what is next on the line.
    fn block(&mut self, depth: usize) -> Option<Node<'a>> {
        if depth >= MAX_DEPTH {
            return None;
        }
        match self.is_item() {
            true => self.block_list(depth),
            false => self.block_map(depth),
        }
    }

    /// Whether an item of a list begins here.
    fn is_item(&self) -> bool {
        self.peek() == Some(b'-') && matches!(self.byte(self.line.at + 1), None | Some(b' '))
    }

    fn block_map(&mut self, depth: usize) -> Option<Node<'a>> {
        let (start, indent) = (self.line.at, self.line.column());
        let mut entries = Vec::new();
        loop {
            let (key, key_span) = self.key()?;
            let value = self.member(indent, depth)?;
            entries.push(Entry { key, key_span, value });
            if self.line.is_past_end || self.line.column() < indent {
                break;
            }
            if self.line.column() > indent {
                return None;
            }
        }
        check_keys(&entries).ok()?;
        Some(self.collection(start, Value::Map(entries)))
    }

    /// The value of a key, on the same line or on the next ones.
    fn member(&mut self, indent: usize, depth: usize) -> Option<Node<'a>> {
        let after_key = self.line.at;
        if self.end_line().is_some() {
            self.next_line()?;
            let column = self.line.column();
            if !self.line.is_past_end && (column > indent || (column == indent && self.is_item())) {
                return self.block(depth + 1);
            }
            return Some(self.nothing(after_key));
        }
        self.line_value(depth)
    }

    fn block_list(&mut self, depth: usize) -> Option<Node<'a>> {
        let (start, indent) = (self.line.at, self.line.column());
        let mut items = Vec::new();
        while !self.line.is_past_end && self.line.column() == indent && self.is_item() {
            self.line.at += 1;
            items.push(self.item(indent, depth)?);
            if !self.line.is_past_end && self.line.column() > indent {
                return None;
            }
        }
        Some(self.collection(start, Value::List(items)))
    }

    fn item(&mut self, indent: usize, depth: usize) -> Option<Node<'a>> {
        let after_dash = self.line.at;
        if self.end_line().is_some() {
            self.next_line()?;
            return match !self.line.is_past_end && self.line.column() > indent {
                true => self.block(depth + 1),
                false => Some(self.nothing(after_dash)),
            };
        }
        let begin = self.line.at;
        let is_map = self.key().is_some();
        self.line.at = begin;
        match is_map || self.is_item() {
            true => self.block(depth + 1),
            false => self.line_value(depth),
        }
    }

    /// A value that ends with its line.
    fn line_value(&mut self, depth: usize) -> Option<Node<'a>> {
        let node = self.value(depth + 1, false)?;
        self.end_line()?;
        self.next_line()?;
        Some(node)
    }

    fn nothing(&self, at: usize) -> Node<'a> {
        Node {
            span: self.span(at, at),
            value: Value::Plain(Cow::Borrowed("")),
        }
    }

    /// A map or list by indentation that has ended before this line.
    fn collection(&self, start: usize, value: Value<'a>) -> Node<'a> {
        let end = match self.line.is_past_end {
            true => self.bytes.len(),
            false => self.line.start,
        };
        Node {
            span: self.span(start, end),
            value,
        }
    }

    /// A key with its colon.
    fn key(&mut self) -> Option<(Cow<'a, str>, Span)> {
        let start = self.line.at;
        if !self.peek()?.is_ascii_alphanumeric() {
            return None;
        }
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/') = self.peek() {
            self.line.at += 1;
        }
        let end = self.line.at;
        if self.peek() != Some(b':') || !matches!(self.byte(end + 1), None | Some(b' ')) {
            return None;
        }
        self.line.at += 1;
        // YAML looks no further than this for the colon.
        (end - start < 1000).then(|| (Cow::Borrowed(&self.text[start..end]), self.span(start, end)))
    }

    fn value(&mut self, depth: usize, in_brackets: bool) -> Option<Node<'a>> {
        if depth >= MAX_DEPTH {
            return None;
        }
        let start = self.line.at;
        let value = match self.peek()? {
            b'{' => self.flow_map(depth)?,
            b'[' => self.flow_list(depth)?,
            quote @ (b'"' | b'\'') => self.quoted(quote)?,
            _ => self.scalar(in_brackets)?,
        };
        Some(Node {
            span: self.span(start, self.line.at),
            value,
        })
    }

    fn flow_map(&mut self, depth: usize) -> Option<Value<'a>> {
        let mut entries = Vec::new();
        self.flow_items(b'}', |reader| {
            let (key, key_span) = reader.key()?;
            reader.skip_spaces();
            let value = reader.value(depth + 1, true)?;
            entries.push(Entry { key, key_span, value });
            Some(())
        })?;
        check_keys(&entries).ok()?;
        Some(Value::Map(entries))
    }

    fn flow_list(&mut self, depth: usize) -> Option<Value<'a>> {
        let mut items = Vec::new();
        self.flow_items(b']', |reader| {
            items.push(reader.value(depth + 1, true)?);
            Some(())
        })?;
        Some(Value::List(items))
    }

    fn flow_items(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.line.at += 1;
        self.skip_spaces();
        if self.peek()? == close {
            self.line.at += 1;
            return Some(());
        }
        loop {
            self.skip_spaces();
            item(self)?;
            self.skip_spaces();
            let next = self.peek()?;
            self.line.at += 1;
            match next {
                b',' => {}
                next if next == close => return Some(()),
                _ => return None,
            }
        }
    }

    fn quoted(&mut self, quote: u8) -> Option<Value<'a>> {
        let start = self.line.at + 1;
        let length = self.bytes[start..self.line.end]
            .iter()
            .position(|byte| *byte == quote)?;
        let text = &self.text[start..start + length];
        self.line.at = start + length + 1;
        // Escapes, of which a second single quote is one.
        if text.contains('\\') || self.peek() == Some(quote) {
            return None;
        }
        Some(Value::Text(Cow::Borrowed(text)))
    }

    /// A scalar without quotes, up to the end of the line, a remark, or what separates values in brackets.
    fn scalar(&mut self, in_brackets: bool) -> Option<Value<'a>> {
        let start = self.line.at;
        let is_good_start = match self.peek()? {
            b'-' => self
                .byte(start + 1)
                .is_some_and(|byte| byte.is_ascii_alphanumeric()),
            byte => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/'),
        };
        if !is_good_start {
            return None;
        }
        while let Some(byte) = self.peek() {
            match byte {
                b',' | b'[' | b']' | b'{' | b'}' if in_brackets => break,
                b'#' if self.bytes[self.line.at - 1] == b' ' => break,
                b':' => match self.byte(self.line.at + 1)? {
                    b' ' => return None,
                    b',' | b'[' | b']' | b'{' | b'}' if in_brackets => return None,
                    _ => {}
                },
                _ => {}
            }
            self.line.at += 1;
        }
        let text = self.text[start..self.line.at].trim_end_matches(' ');
        self.line.at = start + text.len();
        Some(Value::Plain(Cow::Borrowed(text)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::yaml;
    use super::*;

    /// Leaves out the places nobody asks for: of lists, of values that are not there, and where a block ends.
    fn normal<'a>(mut node: Node<'a>, text: &str) -> Node<'a> {
        match &mut node.value {
            Value::Plain(empty) if empty.is_empty() => node.span = Span::default(),
            Value::Plain(_) | Value::Text(_) => {}
            Value::List(items) => {
                node.span = Span::default();
                let all = std::mem::take(items).into_iter();
                *items = all.map(|item| normal(item, text)).collect();
            }
            Value::Map(entries) => {
                if !text[node.span.start..].starts_with('{') {
                    node.span.end = 0;
                }
                for entry in std::mem::take(entries) {
                    let value = normal(entry.value, text);
                    entries.push(Entry { value, ..entry });
                }
            }
        }
        node
    }

    fn compare(text: &str) -> bool {
        let Some(ours) = parse(text, 0) else {
            return false;
        };
        let theirs = yaml::parse(text, 0)
            .unwrap_or_else(|fault| panic!("{text:?}: {fault:?}"))
            .unwrap_or_else(|| panic!("{text:?}: no document"));
        assert!(!theirs.has_aliases, "{text:?}");
        assert_eq!(normal(ours, text), normal(theirs.root, text), "{text:?}");
        true
    }

    #[test]
    fn manifests_as_people_write_them_are_plain() {
        for text in [
            "--- # first\napiVersion: weir.dev/v1alpha1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\n\
             spec:\n  addresses: [10.0.0.200, \"fd00::200\", fd00::1]\n  listeners:\n  - {name: http, port: 80}  # all\n\
             \n  backends:\n    - name: web\n      realServers:\n        selector: {matchLabels: {app: web}}\n\
             \x20   -\n      name: other\n  empty:\n  last: 'a b' ",
            "- a\n- - b\n  - c\n-\n- d: 1\n  e: []\n",
            "items:\n- a: {}\n  b:\n  - 1\n  - 2\n  c: x y\nkind: List",
        ] {
            assert!(compare(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_alone() {
        for text in [
            "a: |\n  b",
            "a: &x b",
            "a: *x",
            "a: !!str b",
            "a: b\n  c",
            "a: \"b\\n\"",
            "a: 'b''c'",
            "a: ü",
            "a:\tb",
            "a: b: c",
            "a: [1,\n  2]",
            "a: 1\na: 2",
            "a: b:",
            "a: {b}",
            "a: {b: }",
            "a: [b: c]",
            "a\n",
            "{a: 1} b",
            "a: b\r\n",
            "<<: b",
            "? a",
            "a: @b",
            "a:\n  b: 1\n c: 2\n",
            "",
            "# b",
            "- a\nb: 1",
            "a: [1]]",
            "--- a: b",
        ] {
            assert_eq!(parse(text, 0), None, "{text:?}");
        }
    }

    fn yaml_like() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "a", "b", "c d", "1", "key", ": ", ":", ":\n", "\n", "\n", "\n  ", "\n    ", "\n- ", "\n  - ",
            "- ", "-", " ", "  ", "#", " # r", "{", "}", "[", "]", ", ", ",", "{a: 1}", "[1, 2]", "\"", "'",
            "'x'", "\"y\"", "a: ", "b: ", "c:", "\nd: ", "\n  e: ", "::", ".", "/", "~", "<<", "---",
            "\n---", "?", "|", "\\", "a:\n  b:",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    /// Lines that look right by themselves, of which many fit together.
    fn lines() -> impl Strategy<Value = String> {
        let indent = (0..4_usize).prop_map(|depth| "  ".repeat(depth));
        let dash = prop::sample::select(vec!["", "", "", "- ", "- - ", "-   "]);
        let key = prop::sample::select(vec!["a: ", "b: ", "c: ", "d:", "e.f/g:", ""]);
        let value = prop::sample::select(vec![
            "",
            "",
            "",
            "1",
            "x y",
            "x#y #z",
            "10.0.0.1",
            "a::b",
            "-",
            "{}",
            "{a: 1, b: [x, 'y']}",
            "[{a: b}, c]",
            "\"q\"",
            "'r' # s",
            "# t",
            "[a, b",
            "x: y",
            "- z",
        ]);
        let line = (indent, dash, key, value);
        let line = line.prop_map(|(indent, dash, key, value)| format!("{indent}{dash}{key}{value}\n"));
        prop::collection::vec(line, 1..8).prop_map(|lines| lines.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_plain_is_read_alike(text in prop_oneof![yaml_like(), lines()]) {
            // A file is parted before it gets here.
            if !text.contains("\n---") && !text.contains("\n...") {
                compare(&text);
            }
        }
    }
}
