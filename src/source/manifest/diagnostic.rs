//! What is wrong in a manifest, where, and the way out: drawn as compilers do, with the line it is about.

use std::fmt;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level as DrawnLevel, Origin, Renderer, Snippet};

use crate::catalog::ObjectRef;

use super::tree::Span;

/// How much of a long line is kept on either side of the place; a JSON file may be a single line.
const EXCERPT: usize = 120;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The object cannot be used like this.
    Error,
    /// The object is used, but not all of it has an effect.
    Warning,
}

/// Something to say about a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub level: Level,
    /// The file.
    pub file: Arc<str>,
    /// The place in it; absent if it is about the file as a whole.
    pub place: Option<Place>,
    /// The object it is about, if that could be told.
    pub object: Option<ObjectRef>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
    /// The text around the place, so that it can be drawn when the file's text is long gone.
    excerpt: Option<Excerpt>,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// One line of a file, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    text: String,
    /// What to underline, in bytes of `text`.
    start: usize,
    end: usize,
    /// Whether the beginning of the line is left out.
    begins_late: bool,
}

impl Diagnostic {
    /// Says something about a file as a whole.
    pub fn of_file(file: &Arc<str>, message: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            file: file.clone(),
            place: None,
            object: None,
            message: message.into(),
            help: None,
            excerpt: None,
        }
    }

    /// Adds the way out.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Draws it over several lines, with the line of the file it is about.
    pub fn draw(&self, colour: bool) -> String {
        let level = match self.level {
            Level::Error => DrawnLevel::ERROR,
            Level::Warning => DrawnLevel::WARNING,
        };
        let title = level.primary_title(self.message.as_str());
        let mut group = match (&self.excerpt, self.place) {
            (Some(excerpt), Some(place)) => {
                let snippet = Snippet::source(excerpt.text.as_str())
                    .line_start(place.line)
                    .annotation(AnnotationKind::Primary.span(excerpt.start..excerpt.end));
                match excerpt.begins_late {
                    // A snippet counts columns from where its text begins.
                    true => title.element(self.origin()).element(snippet),
                    false => title.element(snippet.path(self.file.as_ref())),
                }
            }
            _ => title.element(self.origin()),
        };
        if let Some(help) = &self.help {
            group = group.element(DrawnLevel::HELP.message(help.as_str()));
        }
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }

    fn origin(&self) -> Origin<'_> {
        let origin = Origin::path(self.file.as_ref());
        match self.place {
            Some(Place { line, column }) => origin.line(line).char_column(column),
            None => origin,
        }
    }
}

/// `web.yaml:3:5: unknown field `prot`; did you mean `port`?`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(formatter, ":{line}:{column}")?;
        }
        write!(formatter, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(formatter, "; {help}"),
            None => Ok(()),
        }
    }
}

/// What is wrong at a stretch of text, before it is known which file and line that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub span: Span,
    pub message: String,
    pub help: Option<String>,
}

impl Fault {
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: None,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A file's name and text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub file: &'a Arc<str>,
    pub text: &'a str,
}

impl Source<'_> {
    /// The diagnostic of a fault.
    pub fn diagnostic(&self, level: Level, object: Option<ObjectRef>, fault: Fault) -> Diagnostic {
        let start = floor(self.text, fault.span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text[start..]
            .find(['\n', '\r'])
            .map_or(self.text.len(), |length| start + length);
        let place = Place {
            line: self.line(start),
            column: self.text[line_start..start].chars().count() + 1,
        };
        // Of a value that goes over several lines, the first is shown.
        let end = floor(self.text, fault.span.end).clamp(start, line_end);
        let marked = self.text[start..end].trim_end();
        let from = floor(self.text, start.saturating_sub(EXCERPT)).max(line_start);
        let until = floor(self.text, start + marked.len().min(EXCERPT) + EXCERPT).min(line_end);
        let end = (start + marked.len()).min(until);
        Diagnostic {
            level,
            file: self.file.clone(),
            place: Some(place),
            object,
            message: fault.message,
            help: fault.help,
            excerpt: Some(Excerpt {
                text: self.text[from..until].to_owned(),
                start: start - from,
                end: end - from,
                begins_late: from > line_start,
            }),
        }
    }

    /// The number of the line that has this byte.
    pub fn line(&self, byte: usize) -> usize {
        newlines(&self.text[..floor(self.text, byte)]) + 1
    }
}

/// How many lines end in a text.
pub(super) fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The nearest boundary of a character at or before a byte.
fn floor(text: &str, byte: usize) -> usize {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}
