//! Findings: what is wrong with an object, or not as it was asked for.

use std::fmt;

use super::names::ObjectRef;

/// Why there is a finding, in one word; a closed list, so that programs can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The object breaks the schema or a rule; its last good form stays in force.
    Invalid,
    /// A field asks for what this version of Weir does not do yet.
    NotSupported,
    /// Another object has what this one claims.
    Conflict,
    /// The object names one that does not exist.
    NotFound,
    /// A selection holds nothing.
    Empty,
    /// The object may not name the one it names.
    NotPermitted,
    /// Values of two objects do not fit together.
    Mismatch,
    /// All is as asked for, but has an effect that may surprise.
    Notice,
}

impl Reason {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::NotSupported => "NotSupported",
            Self::Conflict => "Conflict",
            Self::NotFound => "NotFound",
            Self::Empty => "Empty",
            Self::NotPermitted => "NotPermitted",
            Self::Mismatch => "Mismatch",
            Self::Notice => "Notice",
        }
    }
}

/// What is wrong with an object, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object.
    pub object: ObjectRef,
    /// The field, as a path from the object's root: `spec.listeners[0].port`. Empty for the object as a whole.
    pub field: Box<str>,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in one sentence, and the next step.
    pub message: Box<str>,
}

impl Finding {
    /// A finding on a field.
    pub fn new(object: ObjectRef, field: &str, reason: Reason, message: impl Into<Box<str>>) -> Self {
        Self {
            object,
            field: field.into(),
            reason,
            message: message.into(),
        }
    }
}

/// `VirtualService shop/web: spec.listeners[0].port: …`.
impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.message)
    }
}
