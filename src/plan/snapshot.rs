//! The snapshot: all objects in their validated form, with the indexes that tell which virtual services a change
//! concerns. What a change costs follows the change and not the number of objects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::ipvs::ServiceKey;

use super::finding::{Finding, Kind, NamespacedName, ObjectRef, Reason};
use super::interner::Interner;
use super::namespace::Namespace;
use super::small_set::SmallSet;
use super::validate::Remark;
use super::validated::{
    Listen, Selector, ValidatedDirectorGroup, ValidatedRealServer, ValidatedVirtualService,
};

/// What a source reports of one object.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The object is there in this form. Without a form it is invalid: its last good one stays in force.
    Put {
        /// The object.
        object: ObjectRef,
        /// Its form, if it is valid.
        form: Option<Form>,
        /// What is wrong with it.
        remarks: Vec<Remark>,
    },
    /// The object is gone.
    Delete(ObjectRef),
}

/// A validated object of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// A virtual service.
    VirtualService(Box<ValidatedVirtualService>),
    /// A real server.
    RealServer(ValidatedRealServer),
    /// A director group.
    DirectorGroup(Box<ValidatedDirectorGroup>),
}

/// The virtual services that a pass looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every one, and everything of ours in the kernel.
    All,
    /// These.
    Some(BTreeSet<NamespacedName>),
}

impl Default for Scope {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Scope {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Some(names) if names.is_empty())
    }

    /// Adds a virtual service.
    pub fn insert(&mut self, name: NamespacedName) {
        if let Self::Some(names) = self {
            names.insert(name);
        }
    }

    /// Adds another scope.
    pub fn extend(&mut self, other: Self) {
        match (self, other) {
            (Self::Some(names), Self::Some(others)) => names.extend(others),
            (scope, Self::All) => *scope = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// All objects that a source has reported.
#[derive(Debug, Default)]
pub struct Snapshot {
    namespaces: BTreeMap<Arc<str>, Namespace>,
    director_groups: BTreeMap<Arc<str>, ValidatedDirectorGroup>,
    /// Who wants a service key; where several do, the first in order of precedence has it.
    claims: BTreeMap<ServiceKey, SmallSet<Claim>>,
    /// Virtual services by director group.
    by_group: HashMap<Arc<str>, BTreeSet<NamespacedName>>,
    /// Findings of validation, for the few objects that have any.
    remarks: BTreeMap<ObjectRef, Vec<Remark>>,
    texts: Interner,
}

/// A virtual service's wish for a service key, in order of precedence: the older first; without a time of
/// creation, as in a manifest folder, in the order of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: Option<i64>,
    name: NamespacedName,
}

impl Snapshot {
    /// Takes in a report and says which virtual services it concerns.
    pub fn update(&mut self, update: Update) -> Scope {
        let mut scope = Scope::default();
        let there_were_groups = self.knows_director_groups();
        match update {
            Update::Delete(object) => {
                self.remarks.remove(&object);
                self.remove(&object, &mut scope);
            }
            Update::Put {
                object,
                form,
                remarks,
            } => {
                if remarks.is_empty() {
                    self.remarks.remove(&object);
                } else {
                    self.remarks.insert(object.clone(), remarks);
                }
                match form {
                    Some(form) => self.put(&object, form, &mut scope),
                    None => self.touch(&object, &mut scope),
                }
            }
        }
        // Not only deletions let go of texts: an object that is relabelled does, too.
        self.texts.forget_unused();
        // Whether there is any group decides what a host that stands alone is.
        if self.knows_director_groups() != there_were_groups {
            scope = Scope::All;
        }
        scope
    }

    /// Marks what an invalid object concerns, so that its findings are reported.
    fn touch(&self, object: &ObjectRef, scope: &mut Scope) {
        if let (Kind::VirtualService, Some(namespace)) = (object.kind, &object.namespace) {
            scope.insert(NamespacedName {
                namespace: namespace.clone(),
                name: object.name.clone(),
            });
        }
    }

    fn put(&mut self, object: &ObjectRef, form: Form, scope: &mut Scope) {
        // A source that connects again reports everything again; what has not changed concerns nobody.
        if self.holds(object, &form) {
            return;
        }
        match form {
            Form::DirectorGroup(group) => {
                self.director_groups.insert(object.name.clone(), *group);
                self.touch_group(&object.name, scope);
            }
            Form::VirtualService(service) => {
                let Some(name) = self.namespaced_name(object) else {
                    return;
                };
                self.remove_virtual_service(&name, scope);
                self.put_virtual_service(name, *service, scope);
            }
            Form::RealServer(server) => self.put_real_server(object, server, scope),
        }
    }

    fn put_real_server(&mut self, object: &ObjectRef, server: ValidatedRealServer, scope: &mut Scope) {
        let Some(name) = self.namespaced_name(object) else {
            return;
        };
        let namespace = self.namespaces.entry(name.namespace.clone()).or_default();
        match namespace.real_servers.get_mut(&name.name) {
            // Most changes leave the labels alone: then those who selected it still do, and nobody else.
            Some(before) if before.labels == server.labels => {
                let labels = std::mem::take(&mut before.labels);
                *before = ValidatedRealServer {
                    labels: labels.clone(),
                    ..server
                };
                namespace.touch_selecting(&name.namespace, &labels, scope);
                return;
            }
            Some(_) => namespace.remove_real_server(&name, scope),
            None => {}
        }
        let labels = self.texts.labels(&server.labels);
        for label in &labels {
            namespace
                .by_label
                .entry(label.clone())
                .or_default()
                .insert(name.name.clone());
        }
        namespace.touch_selecting(&name.namespace, &labels, scope);
        namespace
            .real_servers
            .insert(name.name, ValidatedRealServer { labels, ..server });
    }

    fn remove(&mut self, object: &ObjectRef, scope: &mut Scope) {
        match object.kind {
            Kind::DirectorGroup => {
                self.director_groups.remove(&object.name);
                self.touch_group(&object.name, scope);
            }
            Kind::VirtualService => {
                let Some(name) = self.namespaced_name(object) else {
                    return;
                };
                self.remove_virtual_service(&name, scope);
                scope.insert(name);
            }
            Kind::RealServer => {
                let Some(name) = self.namespaced_name(object) else {
                    return;
                };
                if let Some(namespace) = self.namespaces.get_mut(&name.namespace) {
                    namespace.remove_real_server(&name, scope);
                }
            }
        }
    }

    fn put_virtual_service(
        &mut self,
        name: NamespacedName,
        mut service: ValidatedVirtualService,
        scope: &mut Scope,
    ) {
        service.director_group = self.texts.intern(&service.director_group);
        for key in service_keys(&service) {
            let claims = self.claims.entry(key).or_default();
            claims.insert(Claim {
                created: service.created,
                name: name.clone(),
            });
            touch_rivals(claims, scope);
        }
        self.by_group
            .entry(service.director_group.clone())
            .or_default()
            .insert(name.clone());
        let namespace = self.namespaces.entry(name.namespace.clone()).or_default();
        for backend in &mut service.backends {
            backend.selector.labels = self.texts.labels(&backend.selector.labels);
            namespace
                .selecting_set(&backend.selector)
                .insert(name.name.clone());
        }
        namespace.virtual_services.insert(name.name.clone(), service);
        scope.insert(name);
    }

    fn remove_virtual_service(&mut self, name: &NamespacedName, scope: &mut Scope) {
        let Some(namespace) = self.namespaces.get_mut(&name.namespace) else {
            return;
        };
        let Some(service) = namespace.virtual_services.remove(&name.name) else {
            return;
        };
        for backend in &service.backends {
            namespace.selecting_set(&backend.selector).remove(&name.name);
            namespace.drop_empty_selecting(&backend.selector);
        }
        for key in service_keys(&service) {
            if let Some(claims) = self.claims.get_mut(&key) {
                touch_rivals(claims, scope);
                claims.remove(&Claim {
                    created: service.created,
                    name: name.clone(),
                });
                if claims.is_empty() {
                    self.claims.remove(&key);
                }
            }
        }
        if let Some(names) = self.by_group.get_mut(&service.director_group) {
            names.remove(name);
            if names.is_empty() {
                self.by_group.remove(&service.director_group);
            }
        }
    }

    fn touch_group(&self, group: &str, scope: &mut Scope) {
        for name in self.by_group.get(group).into_iter().flatten() {
            scope.insert(name.clone());
        }
    }

    fn namespaced_name(&mut self, object: &ObjectRef) -> Option<NamespacedName> {
        let namespace = self.texts.intern(object.namespace.as_ref()?);
        Some(NamespacedName {
            namespace,
            name: object.name.clone(),
        })
    }

    /// Every virtual service with its name.
    pub fn virtual_services(&self) -> impl Iterator<Item = (NamespacedName, &ValidatedVirtualService)> {
        self.namespaces.iter().flat_map(|(namespace, content)| {
            content.virtual_services.iter().map(|(name, service)| {
                (
                    NamespacedName {
                        namespace: namespace.clone(),
                        name: name.clone(),
                    },
                    service,
                )
            })
        })
    }

    /// One virtual service.
    pub fn virtual_service(&self, name: &NamespacedName) -> Option<&ValidatedVirtualService> {
        self.namespaces
            .get(&name.namespace)?
            .virtual_services
            .get(&name.name)
    }

    /// One director group.
    pub fn director_group(&self, name: &str) -> Option<&ValidatedDirectorGroup> {
        self.director_groups.get(name)
    }

    /// Whether any director group has been reported, be it invalid: one that nobody can read still says that this
    /// host is not alone.
    pub fn knows_director_groups(&self) -> bool {
        let reported_invalid = self.remarks.keys().next();
        !self.director_groups.is_empty()
            // Groups are first in the order of kinds.
            || reported_invalid.is_some_and(|object| object.kind == Kind::DirectorGroup)
    }

    /// Every director group, in the order of their names.
    pub fn director_groups(&self) -> impl Iterator<Item = (&Arc<str>, &ValidatedDirectorGroup)> {
        self.director_groups.iter()
    }

    /// The virtual service that has a key, where several want it.
    pub fn holder(&self, key: &ServiceKey) -> Option<&NamespacedName> {
        self.claims.get(key)?.iter().next().map(|claim| &claim.name)
    }

    /// The real servers of a namespace that a selector selects, in the order of their names.
    pub fn select<'a>(
        &'a self,
        namespace: &str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a ValidatedRealServer)> {
        let namespace = self.namespaces.get(namespace);
        let (narrow, wide) = match selector.labels.first() {
            Some(label) => (
                namespace.and_then(|namespace| namespace.by_label.get(label)),
                None,
            ),
            None => (None, namespace.map(|namespace| &namespace.real_servers)),
        };
        let narrow = narrow.into_iter().flatten().filter_map(move |name| {
            namespace.and_then(|namespace| namespace.real_servers.get_key_value(name))
        });
        narrow
            .chain(wide.into_iter().flatten())
            .filter(|(_, server)| selector.matches(&server.labels))
    }

    /// What validation had to say of all objects.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        self.remarks.iter().flat_map(|(object, remarks)| {
            remarks.iter().map(|remark| {
                let message = match remark.reason {
                    Reason::Invalid if self.has(object) => {
                        format!(
                            "{}; the last good form of the object stays in force",
                            remark.message
                        )
                    }
                    _ => remark.message.clone(),
                };
                Finding::new(object.clone(), &remark.field, remark.reason, message)
            })
        })
    }

    /// Whether an object is there that has never been valid, so that nobody knows what it stood for before.
    pub fn has_formless(&self) -> bool {
        let invalid = |remarks: &[Remark]| remarks.iter().any(|remark| remark.reason == Reason::Invalid);
        self.remarks
            .iter()
            .any(|(object, remarks)| invalid(remarks) && !self.has(object))
    }

    /// Whether an object is in force in exactly this form.
    fn holds(&self, object: &ObjectRef, form: &Form) -> bool {
        let namespace = object
            .namespace
            .as_ref()
            .and_then(|namespace| self.namespaces.get(namespace));
        match form {
            Form::DirectorGroup(group) => self.director_groups.get(&object.name) == Some(&**group),
            Form::VirtualService(service) => namespace
                .is_some_and(|namespace| namespace.virtual_services.get(&object.name) == Some(&**service)),
            Form::RealServer(server) => {
                namespace.is_some_and(|namespace| namespace.real_servers.get(&object.name) == Some(server))
            }
        }
    }

    /// Whether there is a form of an object in force.
    fn has(&self, object: &ObjectRef) -> bool {
        let namespace = object
            .namespace
            .as_ref()
            .and_then(|namespace| self.namespaces.get(namespace));
        match object.kind {
            Kind::DirectorGroup => self.director_groups.contains_key(&object.name),
            Kind::RealServer => {
                namespace.is_some_and(|namespace| namespace.real_servers.contains_key(&object.name))
            }
            Kind::VirtualService => {
                namespace.is_some_and(|namespace| namespace.virtual_services.contains_key(&object.name))
            }
        }
    }
}

/// The keys a virtual service wants, each once.
pub(super) fn service_keys(service: &ValidatedVirtualService) -> Vec<ServiceKey> {
    match &service.listen {
        Listen::Mark { family, mark } => vec![ServiceKey::Mark {
            family: *family,
            mark: *mark,
        }],
        Listen::Addresses { addresses, ports } => addresses
            .iter()
            .flat_map(|address| {
                ports.iter().map(|(protocol, port)| ServiceKey::Address {
                    protocol: *protocol,
                    address: *address,
                    port: *port,
                })
            })
            .collect(),
    }
}

/// Marks everybody who wants a key that several want: any of them may now have it, or no longer.
fn touch_rivals(claims: &SmallSet<Claim>, scope: &mut Scope) {
    if claims.iter().len() > 1 {
        for claim in claims.iter() {
            scope.insert(claim.name.clone());
        }
    }
}

#[cfg(test)]
mod tests;
