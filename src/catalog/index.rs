//! The catalog: all objects in their validated form, with the indexes that tell which virtual services a change
//! concerns. What a change costs follows the change and not the number of objects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::claims::{Claim, Claimed, Claims};
use super::endpoints::Endpoints;
use super::marks::{MarkMask, MarkOwner, Marks};
use super::names::{Kind, NamespacedName, ObjectRef};
use super::namespace::Namespace;
use super::scope::Scope;
use super::shared_text::SharedText;
use super::validate::Remark;
use super::validated::{
    BackendSource, Listen, ValidatedDirectorGroup, ValidatedEndpointSlice, ValidatedRealServer,
    ValidatedReferenceGrant, ValidatedService, ValidatedVirtualService,
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

impl Update {
    /// Which object it is about.
    pub fn object(&self) -> &ObjectRef {
        match self {
            Self::Put { object, .. } | Self::Delete(object) => object,
        }
    }
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
    /// A Service.
    Service(ValidatedService),
    /// Some of its endpoints.
    EndpointSlice(ValidatedEndpointSlice),
    /// Who may refer to Services from another namespace.
    ReferenceGrant(ValidatedReferenceGrant),
}

/// All objects that a source has reported.
#[derive(Debug, Default)]
pub struct Catalog {
    pub(super) namespaces: BTreeMap<Arc<str>, Namespace>,
    pub(super) director_groups: BTreeMap<Arc<str>, ValidatedDirectorGroup>,
    pub(super) endpoints: Endpoints,
    pub(super) claims: Claims,
    pub(super) marks: Marks,
    /// RealServers that drain.
    pub(super) leaving: BTreeSet<NamespacedName>,
    /// Virtual services by director group.
    pub(super) by_group: HashMap<Arc<str>, BTreeSet<NamespacedName>>,
    /// Findings of validation, for the few objects that have any.
    pub(super) remarks: BTreeMap<ObjectRef, Vec<Remark>>,
    /// How often that has changed, or what is said of it.
    pub(super) findings_version: u64,
    pub(super) texts: SharedText,
}

impl Catalog {
    /// No objects yet; groups of listeners get marks of these bits.
    pub fn new(mark_mask: MarkMask) -> Self {
        Self {
            marks: Marks::new(mark_mask),
            ..Self::default()
        }
    }

    /// Takes in a report and says which virtual services it concerns.
    pub fn update(&mut self, update: Update) -> Scope {
        let mut scope = Scope::default();
        let there_were_groups = self.knows_director_groups();
        match update {
            Update::Delete(object) => {
                if self.remarks.remove(&object).is_some() {
                    self.findings_version += 1;
                }
                self.remove(&object, &mut scope);
            }
            Update::Put {
                object,
                form,
                remarks,
            } => {
                // An invalid object is told with whether an earlier version of it is in force.
                if self.remarks(&object) != remarks || (form.is_some() && !remarks.is_empty()) {
                    self.findings_version += 1;
                    self.touch(&object, &mut scope);
                }
                if remarks.is_empty() {
                    self.remarks.remove(&object);
                } else {
                    self.remarks.insert(object.clone(), remarks);
                }
                if let Some(form) = form {
                    self.put(&object, form, &mut scope);
                }
            }
        }
        // Not only deletions let go of texts: an object that is relabelled does, too.
        self.texts.forget_unused();
        // Whether there is any group decides what a host that stands alone is.
        if self.knows_director_groups() != there_were_groups {
            scope = Scope::Every;
        }
        scope
    }

    /// Marks what an object concerns of which there is something else to say, though its form may be the same.
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
        let name = self.namespaced_name(object);
        match form {
            Form::DirectorGroup(group) => {
                self.director_groups.insert(object.name.clone(), *group);
                self.touch_group(&object.name, scope);
            }
            // All other kinds live in namespaces.
            form => {
                if let Some(name) = name {
                    self.put_namespaced(name, form, scope);
                }
            }
        }
    }

    fn put_namespaced(&mut self, name: NamespacedName, form: Form, scope: &mut Scope) {
        match form {
            Form::DirectorGroup(_) => {}
            Form::VirtualService(service) => {
                self.remove_virtual_service(&name, scope);
                self.put_virtual_service(name, *service, scope);
            }
            Form::RealServer(server) => self.put_real_server(name, server, scope),
            Form::Service(service) => self.endpoints.put_service(name, service, scope),
            Form::EndpointSlice(slice) => {
                let service = self.texts.intern(&slice.service);
                self.endpoints
                    .put_slice(name, ValidatedEndpointSlice { service, ..slice }, scope);
            }
            Form::ReferenceGrant(grant) => self.endpoints.put_grant(name, grant, scope),
        }
    }

    fn put_real_server(&mut self, name: NamespacedName, server: ValidatedRealServer, scope: &mut Scope) {
        if server.admin_state.leaves() {
            self.leaving.insert(name.clone());
        } else {
            self.leaving.remove(&name);
        }
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
        let node_name = server.node_name.as_ref().map(|node| self.texts.intern(node));
        for label in &labels {
            namespace
                .by_label
                .entry(label.clone())
                .or_default()
                .insert(name.name.clone());
        }
        namespace.touch_selecting(&name.namespace, &labels, scope);
        namespace.real_servers.insert(
            name.name,
            ValidatedRealServer {
                labels,
                node_name,
                ..server
            },
        );
    }

    fn remove(&mut self, object: &ObjectRef, scope: &mut Scope) {
        if object.kind == Kind::DirectorGroup {
            self.director_groups.remove(&object.name);
            self.touch_group(&object.name, scope);
        }
        let Some(name) = self.namespaced_name(object) else {
            return;
        };
        match object.kind {
            Kind::DirectorGroup => {}
            Kind::Service => self.endpoints.remove_service(&name, scope),
            Kind::EndpointSlice => self.endpoints.remove_slice(&name, scope),
            Kind::ReferenceGrant => self.endpoints.remove_grant(&name, scope),
            Kind::VirtualService => {
                self.remove_virtual_service(&name, scope);
                scope.insert(name);
            }
            Kind::RealServer => {
                self.leaving.remove(&name);
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
        for claimed in Claimed::all(&service) {
            let claim = Claim {
                created: service.created,
                name: name.clone(),
            };
            self.claims.insert(claimed, claim);
            self.touch_rivals(&claimed, scope);
        }
        let changed = match &service.listen {
            Listen::Mark { mark, .. } => self.marks.reserve(*mark),
            Listen::Addresses { .. } => self.marks.insert(mark_owners(&name, &service)),
        };
        changed.into_iter().for_each(|name| scope.insert(name));
        self.by_group
            .entry(service.director_group.clone())
            .or_default()
            .insert(name.clone());
        self.endpoints.refer(&name, &service);
        let namespace = self.namespaces.entry(name.namespace.clone()).or_default();
        for backend in &mut service.backends {
            if let BackendSource::RealServers(selector) = &mut backend.source {
                selector.labels = self.texts.labels(&selector.labels);
                namespace.selecting_set(selector).insert(name.name.clone());
            }
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
        for selector in service
            .backends
            .iter()
            .filter_map(|backend| backend.source.selector())
        {
            namespace.selecting_set(selector).remove(&name.name);
            namespace.drop_empty_selecting(selector);
        }
        self.endpoints.forget(name, &service);
        for claimed in Claimed::all(&service) {
            self.touch_rivals(&claimed, scope);
            let claim = Claim {
                created: service.created,
                name: name.clone(),
            };
            self.claims.remove(claimed, &claim);
        }
        let changed = match &service.listen {
            Listen::Mark { mark, .. } => self.marks.release(*mark),
            Listen::Addresses { .. } => self.marks.remove(mark_owners(name, &service)),
        };
        changed.into_iter().for_each(|name| scope.insert(name));
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

    /// Marks everybody who wants something of what several want: any of them may now have it, or no longer.
    fn touch_rivals(&self, claimed: &Claimed, scope: &mut Scope) {
        if self.claims.rivals(claimed).nth(1).is_some() {
            for claim in self.claims.rivals(claimed) {
                scope.insert(claim.name.clone());
            }
        }
    }
}

/// What of a virtual service needs a mark of Weir's.
fn mark_owners(name: &NamespacedName, service: &ValidatedVirtualService) -> Vec<MarkOwner> {
    let owner = |ports| MarkOwner {
        created: service.created,
        service: name.clone(),
        ports,
    };
    match &service.listen {
        Listen::Mark { .. } => Vec::new(),
        Listen::Addresses { grouped: true, .. } => vec![owner(None)],
        Listen::Addresses { ports, .. } => {
            let ranges = ports.iter().filter(|ports| ports.is_range());
            ranges.map(|ports| owner(Some(*ports))).collect()
        }
    }
}

#[cfg(test)]
mod tests;
