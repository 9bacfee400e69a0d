//! How the demos speak.

use std::time::Duration;
use std::{env, thread};

/// Prints a heading and a sentence, and leaves time to read.
pub(crate) fn say(heading: &str, text: &str) {
    println!("\n\x1b[1m== {heading}\x1b[0m\n{text}");
    pause();
}

pub(crate) fn pause() {
    let seconds = env::var("WEIR_DEMO_PAUSE")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2.0);
    thread::sleep(Duration::from_secs_f64(seconds));
}

/// Prints a command as a person would have typed it.
pub(crate) fn show_command(node: &str, line: &str) {
    println!("\x1b[36m{node}#\x1b[0m {line}");
}

pub(crate) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
