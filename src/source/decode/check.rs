//! A value against a shape: everything that does not fit.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::shape::{Field, Shape};
use super::{Fault, FaultKind, suggest};

/// How much of a long string a message repeats, in characters.
const EXCERPT: usize = 40;
const A_STRING: &str = "a string";

/// Collects what does not fit.
pub(super) struct Checker<'w, 'a> {
    /// How the scalar at a field was written.
    written: &'w dyn Fn(&str) -> Option<&'a str>,
    pub faults: Vec<Fault>,
}

/// A place in a value; written out only where something is wrong there.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Member(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(Path::Root, name) => formatter.write_str(name),
            Self::Member(parent, name) => write!(formatter, "{parent}.{name}"),
            Self::Item(parent, index) => write!(formatter, "{parent}[{index}]"),
        }
    }
}

impl<'w, 'a> Checker<'w, 'a> {
    pub fn new(written: &'w dyn Fn(&str) -> Option<&'a str>) -> Self {
        Self {
            written,
            faults: Vec::new(),
        }
    }

    /// Checks a whole object. What does not fit is taken out of it or replaced, so that afterwards it can be read.
    pub fn check_object(&mut self, shape: &Shape, value: &mut Value) {
        self.check_or_replace(shape, value, &Path::Root);
    }

    fn check_or_replace(&mut self, shape: &Shape, value: &mut Value, path: &Path<'_>) {
        if !self.check(shape, value, path) {
            *value = placeholder(shape);
        }
    }

    /// Whether a value fits, once what is wrong within it has been taken out or replaced.
    fn check(&mut self, shape: &Shape, value: &mut Value, path: &Path<'_>) -> bool {
        let expected = match (shape, &mut *value) {
            (Shape::Any, _)
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Number, Value::Number(_))
            | (Shape::String, Value::String(_)) => return true,
            (Shape::Integer { min, max }, Value::Number(number)) => match number.as_i64() {
                Some(integer) if (*min..=*max).contains(&integer) => return true,
                None if number.as_f64().is_some_and(|number| number.fract() != 0.0) => "an integer",
                _ => return self.wrong(path, format!("{number} is out of range: {min} to {max}"), None),
            },
            (Shape::Time, Value::String(text)) => return self.check_time(text, path),
            (Shape::Choice(choices), Value::String(text)) => {
                return choices.contains(text) || self.unsupported(text, choices, path);
            }
            (Shape::List(item), Value::Array(items)) => {
                for (index, value) in items.iter_mut().enumerate() {
                    self.check_or_replace(item, value, &Path::Item(path, index));
                }
                return true;
            }
            (Shape::Map(values), Value::Object(members)) => {
                for (name, value) in members {
                    self.check_or_replace(values, value, &Path::Member(path, name));
                }
                return true;
            }
            (Shape::Object(fields), Value::Object(members)) => {
                self.check_members(fields, members, path);
                return true;
            }
            (Shape::Choice(choices), _) => &format!("one of {}", choices.join(", ")),
            (Shape::Bool, _) => "true or false",
            (Shape::Integer { .. }, _) => "an integer",
            (Shape::Number, _) => "a number",
            (Shape::String | Shape::Time, _) => A_STRING,
            (Shape::List(_), _) => "a list",
            (Shape::Map(_) | Shape::Object(_), _) => "a map",
        };
        self.mismatch(expected, value, path)
    }

    fn check_time(&mut self, text: &str, path: &Path<'_>) -> bool {
        let expected = "expected a time such as 2026-05-01T10:00:00Z";
        Time::deserialize(&Value::from(text)).is_ok()
            || self.wrong(path, format!("{expected}, found \"{}\"", shorten(text)), None)
    }

    fn unsupported(&mut self, text: &str, choices: &[String], path: &Path<'_>) -> bool {
        let supported = format!("supported values: {}", choices.join(", "));
        let help = match suggest::nearest(text, choices.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant}? {supported}"),
            None => supported,
        };
        self.wrong(
            path,
            format!("unsupported value \"{}\"", shorten(text)),
            Some(help),
        )
    }

    fn check_members(&mut self, fields: &[Field], members: &mut Map<String, Value>, path: &Path<'_>) {
        members.retain(|name, value| {
            let path = Path::Member(path, name);
            match fields.iter().find(|field| field.name == *name) {
                None => {
                    let known = fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>();
                    let help = suggest::help(name, "fields", &known);
                    self.fault(FaultKind::UnknownField, &path, "unknown field".to_owned(), help);
                    false
                }
                Some(field) if field.is_required => {
                    self.check_or_replace(&field.shape, value, &path);
                    true
                }
                // To the API server as well, nothing is the same as a field that is not there.
                Some(field) => !value.is_null() && self.check(&field.shape, value, &path),
            }
        });
        for Field { name, shape, .. } in fields.iter().filter(|field| field.is_required) {
            if !members.contains_key(name) {
                let message = "required field is missing".to_owned();
                self.fault(FaultKind::MissingField, &Path::Member(path, name), message, None);
                members.insert(name.clone(), placeholder(shape));
            }
        }
    }

    /// Says that a value is of another type.
    fn mismatch(&mut self, expected: &str, value: &Value, path: &Path<'_>) -> bool {
        let (found, help) = match value {
            Value::Null => ("nothing".to_owned(), None),
            Value::Array(_) => ("a list".to_owned(), None),
            Value::Object(_) => ("a map".to_owned(), None),
            Value::String(text) => {
                let unquoted = serde_json::from_str(text);
                let is_quoted = unquoted.is_ok_and(|value: Value| value.is_number() || value.is_boolean());
                let help = is_quoted.then(|| "remove the quotes".to_owned());
                (format!("the string \"{}\"", shorten(text)), help)
            }
            Value::Bool(_) | Value::Number(_) => {
                let value = value.to_string();
                let written = (self.written)(&path.to_string()).unwrap_or(&value);
                let help = (expected == A_STRING).then(|| format!("put it in quotes: \"{written}\""));
                match written == value {
                    true => (format!("`{value}`"), help),
                    false => (format!("`{written}`, which means {value}"), help),
                }
            }
        };
        self.wrong(path, format!("expected {expected}, found {found}"), help)
    }

    fn wrong(&mut self, path: &Path<'_>, message: String, help: Option<String>) -> bool {
        self.fault(FaultKind::Value, path, message, help);
        false
    }

    fn fault(&mut self, kind: FaultKind, path: &Path<'_>, message: String, help: Option<String>) {
        self.faults.push(Fault {
            field: path.to_string(),
            kind,
            message,
            help,
        });
    }
}

/// A string short enough for a message.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A value that fits.
fn placeholder(shape: &Shape) -> Value {
    match shape {
        Shape::Any => Value::Null,
        Shape::Bool => Value::Bool(false),
        Shape::Integer { min, max } => Value::from(0.clamp(*min, *max)),
        Shape::Number => Value::from(0),
        Shape::String => Value::from(""),
        Shape::Time => Value::from("1970-01-01T00:00:00Z"),
        Shape::Choice(choices) => choices.first().map(String::as_str).into(),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Map(_) => Value::Object(Map::new()),
        Shape::Object(fields) => {
            let required = fields.iter().filter(|field| field.is_required);
            let members = required.map(|field| (field.name.clone(), placeholder(&field.shape)));
            Value::Object(members.collect())
        }
    }
}
