//! What is asked of the catalog.

use std::num::NonZeroU32;
use std::ops::Bound;
use std::sync::Arc;

use super::claims::Claimed;
use super::endpoints::{Referred, Unresolved};
use super::finding::{Finding, Reason};
use super::index::{Catalog, Form};
use super::marks::{MarkMask, MarkOwner};
use super::names::{Kind, NamespacedName, ObjectRef};
use super::scope::Scope;
use super::validate::Remark;
use super::validated::{
    Ports, Selector, ServiceReference, ValidatedDirectorGroup, ValidatedRealServer, ValidatedVirtualService,
};

impl Catalog {
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

    /// Every virtual service that comes after one in the order of [`Self::virtual_services`].
    pub fn virtual_services_after(
        &self,
        last: Option<&NamespacedName>,
    ) -> impl Iterator<Item = (NamespacedName, &ValidatedVirtualService)> {
        let from: Bound<&str> = last.map_or(Bound::Unbounded, |last| Bound::Included(&*last.namespace));
        let namespaces = self.namespaces.range::<str, _>((from, Bound::Unbounded));
        let last = last.cloned();
        namespaces.flat_map(move |(namespace, content)| {
            let last = last.as_ref().filter(|last| last.namespace == *namespace);
            let from: Bound<&str> = last.map_or(Bound::Unbounded, |last| Bound::Excluded(&*last.name));
            let services = content.virtual_services.range::<str, _>((from, Bound::Unbounded));
            services.map(|(name, service)| {
                let name = NamespacedName {
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                (name, service)
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

    /// The virtual service that has something which several may want.
    pub(crate) fn holder(&self, claimed: &Claimed) -> Option<&NamespacedName> {
        self.claims.holder(claimed)
    }

    /// The mark of a virtual service's group of listeners, or of one of its ranges of ports. There is none where all
    /// marks are given.
    pub(crate) fn mark(
        &self,
        name: &NamespacedName,
        service: &ValidatedVirtualService,
        ports: Option<Ports>,
    ) -> Option<NonZeroU32> {
        self.marks.get(&MarkOwner {
            created: service.created,
            service: name.clone(),
            ports,
        })
    }

    /// The bits of Weir's own marks.
    pub fn mark_mask(&self) -> MarkMask {
        self.marks.mask()
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

    /// The virtual services that select a real server.
    pub fn selecting(&self, name: &NamespacedName) -> Scope {
        let mut scope = Scope::default();
        if let Some(namespace) = self.namespaces.get(&name.namespace)
            && let Some(server) = namespace.real_servers.get(&name.name)
        {
            namespace.touch_selecting(&name.namespace, &server.labels, &mut scope);
        }
        scope
    }

    /// One real server.
    pub fn real_server(&self, name: &NamespacedName) -> Option<&ValidatedRealServer> {
        self.namespaces.get(&name.namespace)?.real_servers.get(&name.name)
    }

    /// The virtual services of a director group.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = &NamespacedName> {
        self.by_group.get(group).into_iter().flatten()
    }

    /// The RealServers that drain, by their administrator's wish or because their objects are deleted.
    pub fn leaving_real_servers(&self) -> impl Iterator<Item = NamespacedName> {
        self.leaving.iter().cloned()
    }

    /// Whether any virtual service refers to a Service.
    pub fn refers_to_services(&self) -> bool {
        self.endpoints.are_referred_to()
    }

    /// The endpoints that a backend of a virtual service of a namespace refers to.
    pub(crate) fn resolve(
        &self,
        namespace: &Arc<str>,
        reference: &ServiceReference,
    ) -> Result<Referred, Unresolved> {
        self.endpoints.resolve(namespace, reference)
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

    /// Another number than before whenever [`Self::findings`] may say something else.
    pub fn findings_version(&self) -> u64 {
        self.findings_version
    }

    /// What validation had to say of one object.
    pub fn remarks(&self, object: &ObjectRef) -> &[Remark] {
        self.remarks.get(object).map_or(&[], Vec::as_slice)
    }

    /// Whether an object breaks the schema or a rule, so that not its latest form is in force.
    pub fn is_invalid(&self, object: &ObjectRef) -> bool {
        let mut remarks = self.remarks(object).iter();
        remarks.any(|remark| remark.reason == Reason::Invalid)
    }

    /// Whether an object is there that has never been valid, so that nobody knows what it stood for before.
    pub fn has_formless(&self) -> bool {
        let invalid = |remarks: &[Remark]| remarks.iter().any(|remark| remark.reason == Reason::Invalid);
        self.remarks
            .iter()
            .any(|(object, remarks)| invalid(remarks) && !self.has(object))
    }

    /// Whether an object is in force in exactly this form.
    pub(super) fn holds(&self, object: &ObjectRef, form: &Form) -> bool {
        let namespace = object
            .namespace
            .as_ref()
            .and_then(|namespace| self.namespaces.get(namespace));
        let name = object.namespaced_name();
        match form {
            Form::Service(service) => name.is_some_and(|name| self.endpoints.service(&name) == Some(service)),
            Form::EndpointSlice(slice) => name.is_some_and(|name| self.endpoints.slice(&name) == Some(slice)),
            Form::ReferenceGrant(grant) => {
                name.is_some_and(|name| self.endpoints.grant(&name) == Some(grant))
            }
            Form::DirectorGroup(group) => self.director_groups.get(&object.name) == Some(&**group),
            Form::VirtualService(service) => namespace
                .is_some_and(|namespace| namespace.virtual_services.get(&object.name) == Some(&**service)),
            Form::RealServer(server) => {
                namespace.is_some_and(|namespace| namespace.real_servers.get(&object.name) == Some(server))
            }
        }
    }

    /// Whether there is a form of an object in force.
    pub(super) fn has(&self, object: &ObjectRef) -> bool {
        let namespace = object
            .namespace
            .as_ref()
            .and_then(|namespace| self.namespaces.get(namespace));
        let name = object.namespaced_name();
        match object.kind {
            Kind::Service => name.is_some_and(|name| self.endpoints.service(&name).is_some()),
            Kind::EndpointSlice => name.is_some_and(|name| self.endpoints.slice(&name).is_some()),
            Kind::ReferenceGrant => name.is_some_and(|name| self.endpoints.grant(&name).is_some()),
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
