//! An error with its causes, on one line.

use std::error::Error;

/// "cannot list the links: cannot receive from the kernel: …".
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
