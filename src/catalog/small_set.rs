//! A sorted set that takes no more room than what it holds.
//!
//! Most service keys are wanted by one virtual service, and most virtual services want one key. A tree's node has
//! room for eleven; ten thousand such nodes were a tenth of an agent's memory.

/// A sorted set for few elements: adding and removing moves what comes after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallSet<T>(Vec<T>);

impl<T> Default for SmallSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> SmallSet<T> {
    /// Adds an element, unless it is there.
    pub fn insert(&mut self, element: T) {
        if let Err(place) = self.0.binary_search(&element) {
            self.0.reserve_exact(1);
            self.0.insert(place, element);
        }
    }

    /// Takes an element out, if it is there.
    pub fn remove(&mut self, element: &T) {
        if let Ok(place) = self.0.binary_search(element) {
            self.0.remove(place);
        }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The elements in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::SmallSet;

    proptest! {
        #[test]
        fn it_holds_what_a_tree_would(acts in proptest::collection::vec((any::<bool>(), 0u8..8), 0..40)) {
            let (mut small, mut tree) = (SmallSet::default(), BTreeSet::new());
            for (insert, element) in acts {
                if insert {
                    small.insert(element);
                    tree.insert(element);
                } else {
                    small.remove(&element);
                    tree.remove(&element);
                }
                prop_assert!(small.iter().eq(tree.iter()));
                prop_assert_eq!(small.is_empty(), tree.is_empty());
            }
        }
    }
}
