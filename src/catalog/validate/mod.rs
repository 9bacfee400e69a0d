//! Validation: a resource as it was written → its [validated](super::validated) form, or every reason why not.
//!
//! The same schema bounds and the same rules as in the CustomResourceDefinition, with the same messages, in Rust:
//! an agent checks a hundred thousand objects, and a folder of manifests has no API server before it. A property
//! test holds both to the same verdict.
//!
//! A field that asks for what this version does not do is a finding as well, but the rest of the object is used.

mod director_group;
mod kubernetes;
mod parts;
mod real_server;
#[cfg(test)]
mod tests;
mod virtual_service;

use std::fmt::Display;
use std::net::IpAddr;

use crate::api::rules::Rule;

use super::finding::Reason;

pub use director_group::director_group;
pub use kubernetes::{endpoint_slice, reference_grant, service};
pub use real_server::real_server;
pub use virtual_service::virtual_service;

/// What became of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation<T> {
    /// Its validated form, unless something is invalid.
    pub value: Option<T>,
    /// What is invalid or not supported.
    pub remarks: Vec<Remark>,
}

/// Something to say about a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The field, as a path from the object's root.
    pub field: String,
    /// Invalid, or not supported.
    pub reason: Reason,
    /// What is wrong and the way out.
    pub message: String,
}

/// Collects remarks while walking a resource; knows the path of the field it is at.
#[derive(Debug, Default)]
struct Checker {
    path: String,
    remarks: Vec<Remark>,
}

impl Checker {
    /// Walks into a field.
    fn field<T>(&mut self, name: &str, check: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let result = check(self);
        self.path.truncate(length);
        result
    }

    /// Walks into an item of a list.
    fn item<T>(&mut self, index: usize, check: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let result = check(self);
        self.path.truncate(length);
        result
    }

    fn invalid(&mut self, message: impl Into<String>) {
        self.remarks.push(Remark {
            field: self.path.clone(),
            reason: Reason::Invalid,
            message: message.into(),
        });
    }

    /// Checks a rule of the CRD.
    fn rule(&mut self, rule: Rule, holds: bool) {
        if !holds {
            self.invalid(rule.message);
        }
    }

    /// Says that a field which is there has no effect yet.
    fn not_supported(&mut self, name: &str, given: bool) {
        if given {
            self.not_supported_because(name, "not yet supported: it has no effect");
        }
    }

    fn not_supported_because(&mut self, name: &str, message: &str) {
        self.field(name, |at| {
            at.remarks.push(Remark {
                field: at.path.clone(),
                reason: Reason::NotSupported,
                message: message.to_owned(),
            });
        });
    }

    /// A number within bounds; both are part of the schema.
    fn range<N: PartialOrd + Display + Copy>(&mut self, name: &str, value: Option<N>, min: N, max: N) {
        if let Some(value) = value.filter(|value| *value < min || *value > max) {
            self.field(name, |at| {
                at.invalid(format!("{value} is out of range: {min} to {max}"))
            });
        }
    }

    /// A text whose length in characters is within bounds.
    fn text(&mut self, name: &str, value: &str, min: usize, max: usize) {
        self.field(name, |at| at.characters(value, min, max));
    }

    /// The same for the text at the current path.
    fn characters(&mut self, value: &str, min: usize, max: usize) {
        let length = value.chars().count();
        if length < min || length > max {
            self.invalid(length_message("characters", length, min, max));
        }
    }

    /// A list or map whose length is within bounds.
    fn length(&mut self, name: &str, length: usize, min: usize, max: usize) {
        if length < min || length > max {
            self.field(name, |at| at.invalid(length_message("entries", length, min, max)));
        }
    }

    /// A duration, if it is one.
    fn duration(&mut self, name: &str, value: Option<&crate::api::Duration>) -> Option<std::time::Duration> {
        let value = value?;
        match value.parse() {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.field(name, |at| at.invalid(format!("\"{}\" is {error}", value.0)));
                None
            }
        }
    }

    /// Ends the walk: whatever was invalid keeps the object out.
    fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Validation<T> {
        let invalid = self.remarks.iter().any(|remark| remark.reason == Reason::Invalid);
        Validation {
            value: if invalid { None } else { build() },
            remarks: self.remarks,
        }
    }
}

fn length_message(what: &str, length: usize, min: usize, max: usize) -> String {
    format!("has {length} {what}, may have {min} to {max}")
}

/// Reads an address as the API server's `isIP` does: no zone, and no IPv4 address in IPv6 clothes.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|address| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_none(),
    })
}

/// Whether a text is a DNS label as listeners and backends are named: `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`.
fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(*byte) || *byte == b'-')
}

/// A port that the schema's bounds have already passed.
fn port(value: i32) -> u16 {
    u16::try_from(value).unwrap_or_default()
}
