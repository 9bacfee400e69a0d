//! What comes out, as text.

use std::time::Duration;

/// Times of which some are longer than others.
#[derive(Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that so many percent of them do not exceed, in milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let index = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted[index].as_secs_f64() * 1000.0
    }

    /// Columns of a table: the middle, and what hardly any exceeds.
    pub fn columns(&self) -> String {
        format!("{:.1} | {:.1}", self.percentile(50), self.percentile(99))
    }
}
