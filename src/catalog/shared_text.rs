//! Texts that many objects share.

use std::collections::HashSet;
use std::sync::Arc;

use super::validated::Labels;

/// Texts that many objects share, such as labels and namespaces, are kept once.
#[derive(Debug, Default)]
pub(super) struct SharedText {
    texts: HashSet<Arc<str>>,
    /// How many there may be before unused ones are looked for.
    limit: usize,
}

impl SharedText {
    pub(super) fn intern(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        self.texts.insert(text.clone());
        text.clone()
    }

    pub(super) fn labels(&mut self, labels: &Labels) -> Labels {
        labels
            .iter()
            .map(|(key, value)| (self.intern(key), self.intern(value)))
            .collect()
    }

    /// Lets go of texts that nothing else holds, when there are twice as many as after the last time.
    pub(super) fn forget_unused(&mut self) {
        if self.texts.len() > self.limit.max(1024) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.limit = self.texts.len() * 2;
        }
    }
}
