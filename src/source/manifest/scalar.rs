//! What a scalar without quotes means. As in kubectl, so that a manifest means the same here and there: numbers,
//! true and false with their YAML 1.1 spellings (yes, on, …), nothing; all else is text.

/// The meaning of a scalar without quotes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or an exponent, or too large for a whole number.
    Float(f64),
    /// A text.
    Text(&'a str),
}

/// Reads a scalar without quotes.
pub(super) fn resolve(text: &str) -> Scalar<'_> {
    let Some(first) = text.bytes().next() else {
        return Scalar::Null;
    };
    // Nearly all scalars are texts, and their first letter says so.
    match first {
        b'0'..=b'9' | b'-' | b'+' | b'.' => number(text),
        b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'y' | b'Y' | b'o' | b'O' => word(text),
        _ => Scalar::Text(text),
    }
}

fn word(text: &str) -> Scalar<'_> {
    match text {
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Scalar::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Scalar::Bool(false),
        _ => Scalar::Text(text),
    }
}

fn number(text: &str) -> Scalar<'_> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Ok(number) = text.parse() {
        return Scalar::Integer(number);
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        let number = text
            .strip_prefix(prefix)
            .map(|digits| i64::from_str_radix(digits, radix));
        if let Some(Ok(number)) = number {
            return Scalar::Integer(number);
        }
    }
    match digits {
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::INFINITY),
        _ => {}
    }
    // Rust would also read "infinity" here, and YAML would not.
    let numeric = digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    match text.parse() {
        Ok(number) if numeric => Scalar::Float(number),
        _ => Scalar::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_mean_what_kubectl_takes_them_for() {
        for (text, meaning) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("null", Scalar::Null),
            ("yes", Scalar::Bool(true)),
            ("off", Scalar::Bool(false)),
            ("80", Scalar::Integer(80)),
            ("-1", Scalar::Integer(-1)),
            ("0x1F", Scalar::Integer(31)),
            ("80.5", Scalar::Float(80.5)),
            ("1e3", Scalar::Float(1000.0)),
            ("99999999999999999999", Scalar::Float(1e20)),
            ("10.0.0.1", Scalar::Text("10.0.0.1")),
            ("1m30s", Scalar::Text("1m30s")),
            ("::1", Scalar::Text("::1")),
            ("-", Scalar::Text("-")),
            ("nq", Scalar::Text("nq")),
            ("-infinity", Scalar::Text("-infinity")),
        ] {
            assert_eq!(resolve(text), meaning, "{text:?}");
        }
    }
}
