//! The objects of one namespace, and who selects whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::names::NamespacedName;
use super::scope::Scope;
use super::validated::{Label, Labels, Selector, ValidatedRealServer, ValidatedVirtualService};

/// What a namespace holds. Virtual services select real servers of their own namespace only.
#[derive(Debug, Default)]
pub(super) struct Namespace {
    pub(super) virtual_services: BTreeMap<Arc<str>, ValidatedVirtualService>,
    pub(super) real_servers: BTreeMap<Arc<str>, ValidatedRealServer>,
    /// Real servers by each of their labels.
    pub(super) by_label: HashMap<Label, BTreeSet<Arc<str>>>,
    /// Virtual services by the first label that each of their selectors asks for.
    pub(super) selecting: HashMap<Label, BTreeSet<Arc<str>>>,
    /// Virtual services with a selector that asks for no label's exact value.
    pub(super) selecting_widely: BTreeSet<Arc<str>>,
}

impl Namespace {
    /// Where a virtual service with this selector is found by a real server's labels.
    pub(super) fn selecting_set(&mut self, selector: &Selector) -> &mut BTreeSet<Arc<str>> {
        match selector.labels.first() {
            Some(label) => self.selecting.entry(label.clone()).or_default(),
            None => &mut self.selecting_widely,
        }
    }

    pub(super) fn drop_empty_selecting(&mut self, selector: &Selector) {
        if let Some(label) = selector.labels.first()
            && self.selecting.get(label).is_some_and(BTreeSet::is_empty)
        {
            self.selecting.remove(label);
        }
    }

    pub(super) fn remove_real_server(&mut self, name: &NamespacedName, scope: &mut Scope) {
        let Some(server) = self.real_servers.remove(&name.name) else {
            return;
        };
        for label in &server.labels {
            if let Some(names) = self.by_label.get_mut(label) {
                names.remove(&name.name);
                if names.is_empty() {
                    self.by_label.remove(label);
                }
            }
        }
        self.touch_selecting(&name.namespace, &server.labels, scope);
    }

    /// Marks the virtual services that select an object with these labels.
    pub(super) fn touch_selecting(&self, namespace: &Arc<str>, labels: &Labels, scope: &mut Scope) {
        let by_label = labels
            .iter()
            .filter_map(|label| self.selecting.get(label))
            .flatten();
        for name in by_label.chain(&self.selecting_widely) {
            let selects = self.virtual_services.get(name).is_some_and(|service| {
                service
                    .backends
                    .iter()
                    .filter_map(|backend| backend.source.selector())
                    .any(|selector| selector.matches(labels))
            });
            if selects {
                scope.insert(NamespacedName {
                    namespace: namespace.clone(),
                    name: name.clone(),
                });
            }
        }
    }
}
