//! JSON → tree.

use std::borrow::Cow;

use super::diagnostic::Fault;
use super::tree::{Entry, Node, Span, Value};
use super::yaml::{MAX_DEPTH, check_keys, too_deep};

/// Reads the JSON value that begins at a place of a file's text, and says where it ends.
pub(super) fn parse(text: &str, at: usize) -> Result<(Node<'_>, usize), Fault> {
    let mut reader = Reader { text, at };
    let node = reader.value(0)?;
    reader.skip_space();
    Ok((node, reader.at))
}

struct Reader<'a> {
    /// The whole file, so that places are places of the file.
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fault(&self, expected: &str) -> Fault {
        let next = self.text.get(self.at..).and_then(|rest| rest.chars().next());
        let found = match next {
            Some(character) => format!("`{}`", character.escape_debug()),
            None => "the end of the file".to_owned(),
        };
        let span = Span {
            start: self.at,
            end: self.at + next.map_or(0, char::len_utf8),
        };
        Fault::new(
            span,
            format!("this is no JSON: expected {expected}, found {found}"),
        )
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, Fault> {
        self.skip_space();
        let start = self.at;
        if depth > MAX_DEPTH {
            return Err(too_deep(Span {
                start,
                end: start + 1,
            }));
        }
        let value = match self.peek() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9' | b'a'..=b'z') => self.word()?,
            _ => return Err(self.fault("a value")),
        };
        let span = Span { start, end: self.at };
        Ok(Node { span, value })
    }

    fn map(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        let mut entries = Vec::new();
        self.items(b'}', "`,` or `}`", |reader| {
            let start = reader.at;
            if reader.peek() != Some(b'"') {
                return Err(reader.fault("a key in double quotes"));
            }
            let key = reader.string()?;
            let key_span = Span {
                start,
                end: reader.at,
            };
            reader.skip_space();
            if reader.peek() != Some(b':') {
                return Err(reader.fault("`:`"));
            }
            reader.at += 1;
            let value = reader.value(depth + 1)?;
            entries.push(Entry { key, key_span, value });
            Ok(())
        })?;
        check_keys(&entries)?;
        Ok(Value::Map(entries))
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        let mut items = Vec::new();
        self.items(b']', "`,` or `]`", |reader| {
            items.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        Ok(Value::List(items))
    }

    /// Reads what stands between brackets, separated by commas.
    fn items(
        &mut self,
        close: u8,
        expected: &str,
        mut item: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.at += 1;
        self.skip_space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            item(self)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.fault(expected)),
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += 1;
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                }
                Some(byte) if byte >= b' ' => {}
                _ => return Err(self.fault("the closing quote")),
            }
        }
        self.at += 1;
        let token = &self.text[start..self.at];
        if !escaped {
            return Ok(Cow::Borrowed(&token[1..token.len() - 1]));
        }
        let unescaped: Result<String, _> = serde_json::from_str(token);
        unescaped.map(Cow::Owned).map_err(|_| {
            let span = Span { start, end: self.at };
            Fault::new(span, "this is no JSON: there is a wrong escape in this text")
        })
    }

    /// Reads a number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<Value<'a>, Fault> {
        let start = self.at;
        while let Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') = self.peek() {
            self.at += 1;
        }
        let token = &self.text[start..self.at];
        if matches!(token, "true" | "false" | "null") || is_number(token) {
            return Ok(Value::Plain(Cow::Borrowed(token)));
        }
        let span = Span { start, end: self.at };
        let message = format!("this is no JSON: `{token}` is neither a number nor true, false or null");
        Err(Fault::new(span, message).help("put texts in double quotes"))
    }
}

/// Whether a token is a number as JSON writes them: without leading zeros, with digits around the point.
fn is_number(token: &str) -> bool {
    let token = token.strip_prefix('-').unwrap_or(token);
    let (number, exponent) = match token.find(['e', 'E']) {
        Some(place) => (&token[..place], Some(&token[place + 1..])),
        None => (token, None),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        parse(text, 0).unwrap_err().message
    }

    #[test]
    fn values_have_their_places() {
        let text = r#" {"a": [1, "t\u00e4"], "b": null} {"#;
        let (node, end) = parse(text, 0).unwrap();
        assert_eq!(&text[end..], "{");
        let shown = |field| {
            let span = node.locate(field).unwrap();
            &text[span.start..span.end]
        };
        assert_eq!(shown("a[0]"), "1");
        assert_eq!(shown("a[1]"), r#""t\u00e4""#);
        assert_eq!(node.get("b").unwrap().value.value, Value::Plain("null".into()));
        let Value::List(items) = &node.get("a").unwrap().value.value else {
            panic!("a list");
        };
        assert_eq!(items[1].value, Value::Text("tä".into()));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for (text, message) in [
            (
                "{",
                "this is no JSON: expected a key in double quotes, found the end of the file",
            ),
            (
                "{a: 1}",
                "this is no JSON: expected a key in double quotes, found `a`",
            ),
            (r#"{"a" 1}"#, "this is no JSON: expected `:`, found `1`"),
            (
                r#"{"a": 1"#,
                "this is no JSON: expected `,` or `}`, found the end of the file",
            ),
            ("[1,]", "this is no JSON: expected a value, found `]`"),
            (
                r#"["a"#,
                "this is no JSON: expected the closing quote, found the end of the file",
            ),
            (
                "[01]",
                "this is no JSON: `01` is neither a number nor true, false or null",
            ),
            (
                "[nul]",
                "this is no JSON: `nul` is neither a number nor true, false or null",
            ),
            (
                r#"["\x"]"#,
                "this is no JSON: there is a wrong escape in this text",
            ),
            (r#"{"a": 1, "a": 2}"#, "`a` stands in this map twice"),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
        assert!(fault(&"[".repeat(1000)).contains("deep"));
    }
}
