//! Durations as the resources write them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A length of time: whole numbers with a unit, `500ms`, `2s`, `1m30s`, `12h`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Duration(#[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,9}(ms|s|m|h))+$"))] pub String);

/// A text that is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a duration: write whole numbers with a unit, such as 500ms, 2s, 1m30s or 12h")]
pub struct DurationError;

impl Duration {
    /// The time it means.
    ///
    /// # Errors
    ///
    /// [`DurationError`] for anything the schema's pattern does not match.
    pub fn parse(&self) -> Result<std::time::Duration, DurationError> {
        if self.0.is_empty() || self.0.len() > 32 {
            return Err(DurationError);
        }
        let mut total = std::time::Duration::ZERO;
        let mut rest = self.0.as_str();
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 9 {
                return Err(DurationError);
            }
            let number: u64 = rest[..digits].parse().map_err(|_| DurationError)?;
            let unit = &rest[digits..];
            let letters = unit.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
            let milliseconds = match &unit[..letters] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(DurationError),
            };
            total += std::time::Duration::from_millis(number * milliseconds);
            rest = &unit[letters..];
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("1m30s", 90_000),
            ("12h", 43_200_000),
        ] {
            let duration = Duration(text.to_owned()).parse();
            assert_eq!(
                duration,
                Ok(std::time::Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "5 s",
            "1d",
            "1s2",
            "1234567890s",
            "é",
        ] {
            assert_eq!(Duration(text.to_owned()).parse(), Err(DurationError), "{text}");
        }
    }
}
