//! A file → its documents. Those of YAML are separated by lines that begin with `---` or `...`: nothing else may be at
//! the beginning of a line that looks so. Separated like this, a document that cannot be read does not hide the others.

use serde::de::IgnoredAny;

use super::diagnostic::Fault;
use super::tree::Span;

/// The values of a JSON file, one after the other, up to where it is no JSON any more.
pub(super) fn split_json(text: &str) -> (Vec<Span>, Option<Fault>) {
    let mut documents = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut start = 0;
    while let Some(value) = values.next() {
        if let Err(error) = value {
            return (documents, Some(json_fault(&error, text)));
        }
        let end = values.byte_offset();
        let space = text[start..end].len() - text[start..end].trim_start().len();
        documents.push(Span {
            start: start + space,
            end,
        });
        start = end;
    }
    (documents, None)
}

fn json_fault(error: &serde_json::Error, text: &str) -> Fault {
    let line_start: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let start = match error.is_eof() {
        true => text.len(),
        false => line_start + error.column().saturating_sub(1),
    };
    let message = error.to_string();
    let reason = message.split(" at line ").next().unwrap_or_default();
    Fault::new(
        Span {
            start,
            end: start + 1,
        },
        format!("invalid JSON: {reason}"),
    )
}

/// The documents of a YAML file, each with its marker, leaving out those of nothing but comments.
pub(super) fn split_yaml(text: &str) -> Vec<Span> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut has_content = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_marker(line, "---") || is_marker(line, "...") {
            if has_content {
                documents.push(Span { start, end: at });
            }
            // What ends a document is no part of the next one; what begins one is, since content may follow it.
            let begins = line.starts_with('-');
            start = if begins { at } else { at + line.len() };
            has_content = begins && is_content(&line[3..]);
        } else if !has_content {
            has_content = is_content(line) && !line.starts_with('%');
        }
        at += line.len();
    }
    if has_content {
        documents.push(Span {
            start,
            end: text.len(),
        });
    }
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether there is anything but blanks and a comment.
fn is_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Vec<&str> {
        split_yaml(text)
            .iter()
            .map(|span| &text[span.start..span.end])
            .collect()
    }

    #[test]
    fn documents_are_separated_at_markers() {
        assert_eq!(documents("a: 1\n---\nb: 2\n"), ["a: 1\n", "---\nb: 2\n"]);
        assert_eq!(
            documents("--- {a: 1}\n--- # next\r\nb: 2"),
            ["--- {a: 1}\n", "--- # next\r\nb: 2"]
        );
        assert_eq!(
            documents("a: 1\n...\n%YAML 1.2\n---\nb: 2\n"),
            ["a: 1\n", "---\nb: 2\n"]
        );
    }

    #[test]
    fn nothing_and_comments_are_no_documents() {
        for text in [
            "",
            "\n\n",
            "# comment\n",
            "---\n---\n# comment\n",
            "---",
            "--- # comment\n...\n",
        ] {
            assert!(documents(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_goes_on_is_no_marker() {
        assert_eq!(documents("a: |\n  x\n---b\n").len(), 1);
    }

    #[test]
    fn json_values_follow_each_other() {
        let values = |text| {
            let (spans, fault) = split_json(text);
            let values: Vec<&str> = spans.iter().map(|span| &text[span.start..span.end]).collect();
            (values, fault.map(|fault| (fault.message, fault.span.start)))
        };
        assert_eq!(
            values(" {\"a\": 1}\n\n[]{} "),
            (vec!["{\"a\": 1}", "[]", "{}"], None)
        );
        assert_eq!(values(" \n"), (vec![], None));
        for (text, message, place) in [
            ("{}\n{\"a\": 1,\n}", "key must be a string", 12),
            ("{a: 1}", "key must be a string", 1),
            ("[01]", "invalid number", 2),
            ("[nul]", "expected ident", 4),
            ("{\"a\" 1}", "expected `:`", 5),
            ("[1", "EOF while parsing a list", 2),
            ("[\"\\x\"]", "invalid escape", 3),
        ] {
            let expected = (format!("invalid JSON: {message}"), place);
            assert_eq!(values(text).1, Some(expected), "{text}");
        }
    }
}
