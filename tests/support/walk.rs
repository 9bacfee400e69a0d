//! The walk through docs/kubernetes.md: what is typed under each of its headings, and what the page shows that it prints.
//!
//! Whatever stands there in a fence is a `console` block, whose commands begin with `$ `.

#![allow(dead_code, reason = "each program uses another part of it")]

use std::fs;

/// A heading of the walk and what is typed under it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) heading: String,
    pub(crate) commands: Vec<Command>,
}

/// A command, and what the page shows that it prints: nothing, if that does not matter.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) line: String,
    shown: String,
}

impl Command {
    /// Whether this is what the page shows, but for the widths of columns and for ages.
    pub(crate) fn shows(&self, printed: &str) -> bool {
        self.shown.is_empty() || words(&self.shown) == words(printed)
    }
}

/// The steps, in the page's order.
pub(crate) fn steps() -> Vec<Step> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/kubernetes.md"))
        .expect("the page is there");
    let (_, walk) = page
        .split_once("\n## From nothing to traffic\n")
        .expect("the page has the walk");
    let (walk, _) = walk.split_once("\n## ").expect("the page goes on");
    let (opening, steps) = walk.split_once("\n### ").expect("the walk has steps");
    assert!(
        !opening.contains("```"),
        "what is typed belongs to a step: {opening}"
    );
    steps.split("\n### ").map(step).collect()
}

fn step(text: &str) -> Step {
    let (heading, text) = text.split_once('\n').expect("something stands under a heading");
    let mut commands: Vec<Command> = Vec::new();
    // Every other piece is within fences.
    for block in text.split("```").skip(1).step_by(2) {
        let lines = block
            .strip_prefix("console\n")
            .unwrap_or_else(|| panic!("{heading}: nobody types{block}"));
        for line in lines.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(line), _) => commands.push(Command {
                    line: line.to_owned(),
                    shown: String::new(),
                }),
                (None, Some(command)) => command.shown += &format!("{line}\n"),
                (None, None) => panic!("{heading}: who prints this? {line}"),
            }
        }
    }
    Step {
        heading: heading.to_owned(),
        commands,
    }
}

/// The words of each line, all ages alike.
fn words(text: &str) -> Vec<Vec<&str>> {
    let word = |word| if is_age(word) { "AGE" } else { word };
    text.lines()
        .map(|line| line.split_whitespace().map(word).collect())
        .collect()
}

/// As in "12s" and "3m20s".
fn is_age(word: &str) -> bool {
    word.ends_with(['s', 'm', 'h']) && word.starts_with(|first: char| first.is_ascii_digit())
}
