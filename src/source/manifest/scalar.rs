//! What a scalar without quotes means: the same as to kubectl, so that a manifest means the same in a folder and in a
//! cluster. kubectl reads by the rules of go-yaml v2, which are those of YAML 1.1: `yes`, `on` and `y` are true, `0777` is
//! octal, `1_000` is a thousand.
//!
//! `tests/data/manifest_scalars.tsv` has examples, to which this file and kubectl itself are held.

use std::borrow::Cow;

/// The meaning of a scalar without quotes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer, also where it is written with a fraction of zero or an exponent: JSON does not tell them apart.
    Integer(i64),
    /// A number with a fraction, or too large for an integer.
    Float(f64),
    /// A string.
    String(&'a str),
}

/// Reads a scalar without quotes.
pub(super) fn resolve(text: &str) -> Scalar<'_> {
    let Some(first) = text.bytes().next() else {
        return Scalar::Null;
    };
    // Nearly all scalars are strings, and their first letter says so.
    match first {
        b'0'..=b'9' | b'-' | b'+' => number(text),
        b'.' => fraction(text),
        b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'y' | b'Y' | b'o' | b'O' => word(text),
        _ => Scalar::String(text),
    }
}

/// The key that a scalar without quotes is: JSON wants a string. `None` if it is nothing.
pub(super) fn key(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    match resolve(&text) {
        Scalar::Null => None,
        Scalar::Bool(value) => Some(Cow::Borrowed(if value { "true" } else { "false" })),
        Scalar::Integer(number) if has_fraction(&text) => Some(Cow::Owned(float_key(number as f64))),
        Scalar::Integer(number) => Some(Cow::Owned(number.to_string())),
        Scalar::Float(number) if number.is_finite() => Some(Cow::Owned(float_key(number))),
        Scalar::Float(_) | Scalar::String(_) => Some(text),
    }
}

fn word(text: &str) -> Scalar<'_> {
    match text {
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Scalar::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        _ => Scalar::String(text),
    }
}

/// Reads what begins with a digit or a sign. Underscores between the digits mean nothing, wherever they are.
fn number(text: &str) -> Scalar<'_> {
    if let "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" = text {
        return Scalar::Float(f64::INFINITY);
    }
    let plain = without_underscores(text);
    match integer(&plain) {
        Some(number) => number,
        None => decimal(&plain).unwrap_or(Scalar::String(text)),
    }
}

/// Reads what begins with a point, where an underscore has to separate two digits.
fn fraction(text: &str) -> Scalar<'_> {
    if let ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN" = text {
        return Scalar::Float(f64::INFINITY);
    }
    let digits = text.split('_').collect::<Vec<_>>();
    let separates = digits.windows(2).all(|pair| {
        pair[0].ends_with(|end: char| end.is_ascii_digit())
            && pair[1].starts_with(|start: char| start.is_ascii_digit())
    });
    let number = separates.then(|| decimal(&without_underscores(text))).flatten();
    number.unwrap_or(Scalar::String(text))
}

fn without_underscores(text: &str) -> Cow<'_, str> {
    match text.contains('_') {
        true => Cow::Owned(text.replace('_', "")),
        false => Cow::Borrowed(text),
    }
}

/// An integer of 64 bits, as a Go program writes them: `0x`, `0o`, `0b`, and a zero alone for octal.
fn integer(text: &str) -> Option<Scalar<'static>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (radix, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    // Rust would read a second sign.
    if !digits.starts_with(|digit: char| digit.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    let number = match text.starts_with('-') {
        true => 0_i64.checked_sub_unsigned(magnitude),
        false => i64::try_from(magnitude).ok(),
    };
    match number {
        Some(number) => Some(Scalar::Integer(number)),
        None if unsigned.len() == text.len() => Some(Scalar::Float(magnitude as f64)),
        None => None,
    }
}

/// A decimal number, with or without fraction and exponent.
fn decimal(text: &str) -> Option<Scalar<'static>> {
    // Rust would also read "infinity" here.
    let numeric = |byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    if !text.bytes().all(numeric) {
        return None;
    }
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    // 2^63, the first that is too large.
    let is_integer = number.fract() == 0.0 && number.abs() < 9_223_372_036_854_775_808.0;
    Some(match is_integer {
        true => Scalar::Integer(number as i64),
        false => Scalar::Float(number),
    })
}

/// Whether a number was written as one that may have a fraction.
fn has_fraction(text: &str) -> bool {
    integer(&without_underscores(text)).is_none()
}

/// A key that is such a number: of single precision, and from a million on with an exponent.
fn float_key(number: f64) -> String {
    let single = number as f32;
    let scientific = format!("{single:e}");
    match scientific.split_once('e') {
        Some((digits, exponent)) => match exponent.parse::<i32>() {
            Ok(exponent) if !(-4..6).contains(&exponent) => format!("{digits}e{exponent:+03}"),
            _ => single.to_string(),
        },
        None => scientific,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn as_json(text: &str) -> Value {
        match resolve(text) {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => value.into(),
            Scalar::Integer(number) => number.into(),
            Scalar::Float(number) => number.into(),
            Scalar::String(text) => text.into(),
        }
    }

    #[test]
    fn scalars_mean_what_they_mean_to_kubectl() {
        let examples = include_str!("../../../tests/data/manifest_scalars.tsv");
        for line in examples.lines() {
            let (text, meaning) = line.split_once('\t').unwrap();
            let meaning: Value = serde_json::from_str(meaning).unwrap();
            let ours = as_json(text);
            // Numbers beyond 64 bits are rounded on either side.
            match (ours.as_i64(), meaning.as_i64()) {
                (None, None) if ours.is_number() => assert_eq!(ours.as_f64(), meaning.as_f64(), "{text:?}"),
                _ => assert_eq!(ours, meaning, "{text:?}"),
            }
        }
        assert_eq!(as_json(""), Value::Null);
        assert_eq!(as_json("-"), json!("-"));
    }

    #[test]
    fn what_is_no_number_to_json_is_none_that_fits_anywhere() {
        for text in [".inf", "-.INF", "+.Inf", ".nan", ".NaN"] {
            assert_eq!(resolve(text), Scalar::Float(f64::INFINITY), "{text:?}");
        }
    }

    #[test]
    fn keys_are_strings_as_kubectl_makes_them() {
        for (text, meaning) in [
            ("app", "app"),
            ("on", "true"),
            ("n", "false"),
            ("0x10", "16"),
            ("1_000", "1000"),
            ("9223372036854775807", "9223372036854775807"),
            ("1.10", "1.1"),
            ("80.0", "80"),
            ("-1.5", "-1.5"),
            ("1e6", "1e+06"),
            ("1234567.5", "1.2345675e+06"),
            ("123456.7", "123456.7"),
            ("16777217.5", "1.6777218e+07"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1e20", "1e+20"),
            ("2001-01-01", "2001-01-01"),
        ] {
            assert_eq!(key(text.into()).as_deref(), Some(meaning), "{text:?}");
        }
        assert_eq!(key("~".into()), None);
    }
}
