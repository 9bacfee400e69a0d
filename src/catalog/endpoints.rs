//! Services and their endpoints, and who may refer to them.
//!
//! A backend names a Service and one of its ports. The pods behind it are in EndpointSlices, of which a Service may have
//! several, for a time with the same endpoint in two of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::ipvs::Protocol;

use super::finding::Reason;
use super::names::NamespacedName;
use super::scope::Scope;
use super::validated::{
    EndpointState, ServicePort, ServiceReference, ValidatedEndpointSlice, ValidatedReferenceGrant,
    ValidatedService, ValidatedVirtualService,
};

/// All Services, EndpointSlices and ReferenceGrants, with the virtual services that they concern.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    services: BTreeMap<NamespacedName, ValidatedService>,
    slices: BTreeMap<NamespacedName, ValidatedEndpointSlice>,
    slices_of: HashMap<NamespacedName, BTreeSet<Arc<str>>>,
    grants: BTreeMap<NamespacedName, ValidatedReferenceGrant>,
    /// Virtual services by the Service that they name.
    referring: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
}

/// An endpoint of a Service, as destination of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
    /// What it is for.
    pub(crate) part: Part,
}

/// What an endpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It takes its share of new connections.
    Takes,
    /// It takes none for now.
    Waits,
    /// It is about to end, and serves the connections it has until then.
    Leaves,
}

/// The endpoints behind a reference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Referred {
    pub(crate) protocol: Protocol,
    /// Each once, in the order of addresses and ports.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Why a reference leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Endpoints {
    pub(crate) fn service(&self, name: &NamespacedName) -> Option<&ValidatedService> {
        self.services.get(name)
    }

    pub(crate) fn slice(&self, name: &NamespacedName) -> Option<&ValidatedEndpointSlice> {
        self.slices.get(name)
    }

    pub(crate) fn grant(&self, name: &NamespacedName) -> Option<&ValidatedReferenceGrant> {
        self.grants.get(name)
    }

    pub(crate) fn put_service(&mut self, name: NamespacedName, service: ValidatedService, scope: &mut Scope) {
        self.touch(&name, scope);
        self.services.insert(name, service);
    }

    pub(crate) fn remove_service(&mut self, name: &NamespacedName, scope: &mut Scope) {
        self.services.remove(name);
        self.touch(name, scope);
    }

    pub(crate) fn put_slice(
        &mut self,
        name: NamespacedName,
        slice: ValidatedEndpointSlice,
        scope: &mut Scope,
    ) {
        // It may have been another Service's before.
        self.remove_slice(&name, scope);
        let service = service_of(&name, &slice);
        self.touch(&service, scope);
        self.slices_of
            .entry(service)
            .or_default()
            .insert(name.name.clone());
        self.slices.insert(name, slice);
    }

    pub(crate) fn remove_slice(&mut self, name: &NamespacedName, scope: &mut Scope) {
        let Some(slice) = self.slices.remove(name) else {
            return;
        };
        let service = service_of(name, &slice);
        self.touch(&service, scope);
        if let Some(names) = self.slices_of.get_mut(&service) {
            names.remove(&name.name);
            if names.is_empty() {
                self.slices_of.remove(&service);
            }
        }
    }

    pub(crate) fn put_grant(
        &mut self,
        name: NamespacedName,
        grant: ValidatedReferenceGrant,
        scope: &mut Scope,
    ) {
        self.touch_into(&name.namespace, scope);
        self.grants.insert(name, grant);
    }

    pub(crate) fn remove_grant(&mut self, name: &NamespacedName, scope: &mut Scope) {
        self.grants.remove(name);
        self.touch_into(&name.namespace, scope);
    }

    /// Remembers whom a virtual service refers to.
    pub(crate) fn refer(&mut self, name: &NamespacedName, service: &ValidatedVirtualService) {
        for reference in references(service) {
            let target = reference.target(&name.namespace);
            self.referring.entry(target).or_default().insert(name.clone());
        }
    }

    pub(crate) fn forget(&mut self, name: &NamespacedName, service: &ValidatedVirtualService) {
        for reference in references(service) {
            let target = reference.target(&name.namespace);
            if let Some(names) = self.referring.get_mut(&target) {
                names.remove(name);
                if names.is_empty() {
                    self.referring.remove(&target);
                }
            }
        }
    }

    pub(crate) fn are_referred_to(&self) -> bool {
        !self.referring.is_empty()
    }

    /// How much there is, for tests of what is let go of.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.services.len()
            + self.slices.len()
            + self.slices_of.len()
            + self.grants.len()
            + self.referring.len()
    }

    /// Marks the virtual services that refer to a Service.
    fn touch(&self, service: &NamespacedName, scope: &mut Scope) {
        for name in self.referring.get(service).into_iter().flatten() {
            scope.insert(name.clone());
        }
    }

    /// Marks the virtual services that refer into a namespace from another.
    fn touch_into(&self, namespace: &Arc<str>, scope: &mut Scope) {
        let first = NamespacedName {
            namespace: namespace.clone(),
            name: "".into(),
        };
        let within = self
            .referring
            .range(first..)
            .take_while(|(service, _)| service.namespace == *namespace);
        for name in within.flat_map(|(_, names)| names) {
            if name.namespace != *namespace {
                scope.insert(name.clone());
            }
        }
    }

    /// The endpoints that a backend of a virtual service refers to.
    ///
    /// While any of them is ready, those take what is new, and those that end leave; when none is, those that end but
    /// still serve take it, as in kube-proxy (KEP-1669). One that is not ready may be again, and waits; one that ends and
    /// serves no more is as good as gone.
    pub(crate) fn resolve(
        &self,
        namespace: &Arc<str>,
        reference: &ServiceReference,
    ) -> Result<Referred, Unresolved> {
        let target = reference.target(namespace);
        let unresolved = |reason, message| Err(Unresolved { reason, message });
        if target.namespace != *namespace && !self.is_granted(namespace, &target) {
            return unresolved(
                Reason::NotPermitted,
                format!(
                    "Service {target} is in another namespace, which does not permit it: make a ReferenceGrant in {} from \
                     VirtualServices of {namespace} to Services",
                    target.namespace
                ),
            );
        }
        let Some(service) = self.services.get(&target) else {
            return unresolved(
                Reason::NotFound,
                format!(
                    "there is no Service {target}: create it, or correct the name; a folder of manifests holds none"
                ),
            );
        };
        if service.external_name {
            return unresolved(
                Reason::Mismatch,
                format!(
                    "Service {target} is of type ExternalName, which has no endpoints: name a RealServer for the other \
                     host"
                ),
            );
        }
        let Some(port) = service.ports.iter().find(|port| port.is_called(&reference.port)) else {
            let names: Vec<String> = service.ports.iter().map(ToString::to_string).collect();
            return unresolved(
                Reason::NotFound,
                format!(
                    "Service {target} has no port {}: it has {}",
                    reference.port,
                    names.join(", ")
                ),
            );
        };
        Ok(Referred {
            protocol: port.protocol,
            endpoints: self.endpoints_of(&target, port),
        })
    }

    /// The endpoints of a port of a Service.
    fn endpoints_of(&self, target: &NamespacedName, port: &ServicePort) -> Vec<Endpoint> {
        let mut states: BTreeMap<(IpAddr, Option<u16>), EndpointState> = BTreeMap::new();
        let slices = self.slices_of.get(target).into_iter().flatten();
        for slice in slices.filter_map(|name| {
            self.slices.get(&NamespacedName {
                namespace: target.namespace.clone(),
                name: name.clone(),
            })
        }) {
            let same = |own: &&super::validated::EndpointPort| {
                own.name == port.name && own.protocol == port.protocol
            };
            let Some(own) = slice.ports.iter().find(same) else {
                continue;
            };
            for (address, state) in &slice.endpoints {
                // On its way from one slice to another an endpoint is in both; the better word counts.
                let best = states.entry((*address, own.port)).or_insert(*state);
                *best = (*best).max(*state);
            }
        }
        let any_ready = states.values().any(|state| *state == EndpointState::Ready);
        let part = |state| match state {
            EndpointState::Ready => Part::Takes,
            EndpointState::Ending if any_ready => Part::Leaves,
            EndpointState::Ending => Part::Takes,
            EndpointState::Idle => Part::Waits,
        };
        let endpoints = states.into_iter().map(|((address, port), state)| Endpoint {
            address,
            port,
            part: part(state),
        });
        endpoints.collect()
    }

    fn is_granted(&self, from: &Arc<str>, to: &NamespacedName) -> bool {
        let first = NamespacedName {
            namespace: to.namespace.clone(),
            name: "".into(),
        };
        self.grants
            .range(first..)
            .take_while(|(name, _)| name.namespace == to.namespace)
            .any(|(_, grant)| grant.permits(from, &to.name))
    }
}

/// The Services that a virtual service names.
fn references(service: &ValidatedVirtualService) -> impl Iterator<Item = &ServiceReference> {
    service
        .backends
        .iter()
        .filter_map(|backend| backend.source.service())
}

fn service_of(slice: &NamespacedName, form: &ValidatedEndpointSlice) -> NamespacedName {
    NamespacedName {
        namespace: slice.namespace.clone(),
        name: form.service.clone(),
    }
}
