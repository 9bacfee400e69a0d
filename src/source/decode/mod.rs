//! JSON → resource, for every source: an object of the API server, of whatever version, or of a manifest. Pure.
//!
//! A value is held against the [`Shape`] of its kind, which is made from the definition that the API server has. So
//! everything that is wrong with an object is found at once, and both sources say it alike.
//!
//! | file | what |
//! | --- | --- |
//! | `shape` | what values a kind may have, from its CustomResourceDefinition |
//! | `check` | a value against a shape: everything that does not fit |
//! | `suggest` | which word was meant |

mod check;
mod shape;
pub mod suggest;
#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::catalog::Reason;
use crate::catalog::validate::{Remark, Validation};

use check::Checker;

pub use shape::Shape;

/// Something in a value that does not fit its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field, as a path from the object's root.
    pub field: String,
    /// What kind of fault.
    pub kind: FaultKind,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The kind has no such field.
    UnknownField,
    /// A field that has to be there is not.
    MissingField,
    /// A value that the field cannot have.
    Value,
}

impl Fault {
    /// The fault as a remark on the object.
    pub fn to_remark(&self) -> Remark {
        Remark {
            field: self.field.clone(),
            reason: Reason::Invalid,
            message: match &self.help {
                Some(help) => format!("{}; {help}", self.message),
                None => self.message.clone(),
            },
        }
    }

    /// Whether a rule at a field may be broken by this fault alone: a rule is about its field and what is below it.
    fn concerns(&self, field: &str) -> bool {
        is_within(&self.field, field) || is_within(field, &self.field)
    }
}

/// Whether a path leads to a field or to something below it.
fn is_within(path: &str, field: &str) -> bool {
    let rest = path.strip_prefix(field);
    rest.is_some_and(|rest| field.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A value that was read as a resource.
#[derive(Debug, Clone)]
pub struct Decoded<K> {
    /// The resource, if it could be read. What does not fit is left out, or replaced by something that does.
    resource: Result<K, Fault>,
    /// What does not fit.
    pub faults: Vec<Fault>,
}

impl<K: DeserializeOwned> Decoded<K> {
    /// Reads a value. `written` tells how the scalar at a field was written, if that can differ from its JSON.
    pub fn new<'a>(shape: &Shape, mut value: Value, written: impl Fn(&str) -> Option<&'a str>) -> Self {
        let mut checker = Checker::new(&written);
        checker.check_object(shape, &mut value);
        let mut faults = checker.faults;
        // What has the shape can be read, as a property test says; whatever cannot must not pass for an object.
        let resource = K::deserialize(value).map_err(|error| Fault {
            field: String::new(),
            kind: FaultKind::Value,
            message: error.to_string(),
            help: None,
        });
        faults.extend(resource.as_ref().err().cloned());
        Self { resource, faults }
    }
}

impl<K> Decoded<K> {
    /// The resource.
    ///
    /// # Errors
    ///
    /// The first of what does not fit.
    pub fn into_resource(self) -> Result<K, Fault> {
        match self.faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => self.resource,
        }
    }

    /// Validates the resource. Where something does not fit, the rules of other fields are still checked.
    pub fn validate<T>(&self, validate: impl FnOnce(&K) -> Validation<T>) -> Validation<T> {
        let mut validation = match &self.resource {
            Ok(resource) => validate(resource),
            Err(_) => Validation {
                value: None,
                remarks: Vec::new(),
            },
        };
        if !self.faults.is_empty() {
            validation.value = None;
            validation
                .remarks
                .retain(|remark| !self.faults.iter().any(|fault| fault.concerns(&remark.field)));
        }
        validation
    }
}
