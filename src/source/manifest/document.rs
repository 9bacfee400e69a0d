//! A file → its documents. Only lines that begin with `---` or `...` part them: nothing else may stand at the
//! beginning of a line that looks so. Parted like this, a document that cannot be read does not hide the others.

use super::tree::Span;

/// The documents of a YAML file, each with its marker, leaving out those of nothing but remarks.
pub(super) fn split(text: &str) -> Vec<Span> {
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

/// Whether there is anything but blanks and a remark.
fn is_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<&str> {
        split(text)
            .iter()
            .map(|span| &text[span.start..span.end])
            .collect()
    }

    #[test]
    fn documents_are_parted_at_markers() {
        assert_eq!(parts("a: 1\n---\nb: 2\n"), ["a: 1\n", "---\nb: 2\n"]);
        assert_eq!(
            parts("--- {a: 1}\n--- # next\r\nb: 2"),
            ["--- {a: 1}\n", "--- # next\r\nb: 2"]
        );
        assert_eq!(
            parts("a: 1\n...\n%YAML 1.2\n---\nb: 2\n"),
            ["a: 1\n", "---\nb: 2\n"]
        );
    }

    #[test]
    fn nothing_and_remarks_are_no_documents() {
        for text in [
            "",
            "\n\n",
            "# remark\n",
            "---\n---\n# remark\n",
            "---",
            "--- # remark\n...\n",
        ] {
            assert!(parts(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_goes_on_is_no_marker() {
        assert_eq!(parts("a: |\n  x\n---b\n").len(), 1);
    }
}
