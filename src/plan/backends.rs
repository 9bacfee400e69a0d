//! The backends of a virtual service: the RealServers that they select, and the endpoints of the Services that they name.

use std::sync::Arc;

use crate::catalog::validated::{ValidatedBackend, ValidatedRealServer, ValidatedVirtualService};
use crate::catalog::{Catalog, Finding, NamespacedName, ObjectRef, Part, Reason, Referred, Unresolved};
use crate::ipvs::{Destination, DestinationKey, Family, ForwardingMethod, ServiceKey};

/// A virtual service whose table is planned.
pub(super) struct PlanInput<'a> {
    pub(super) name: &'a NamespacedName,
    pub(super) service: &'a ValidatedVirtualService,
    /// Whether directors pass connections to each other.
    pub(super) synchronized: bool,
}

impl PlanInput<'_> {
    /// An object of the virtual service's namespace.
    pub(super) fn named(&self, name: &Arc<str>) -> NamespacedName {
        NamespacedName {
            namespace: self.name.namespace.clone(),
            name: name.clone(),
        }
    }
}

/// A real server with the backend that selected it.
pub(super) struct Selected<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) server: &'a ValidatedRealServer,
    pub(super) backend: &'a ValidatedBackend,
}

pub(super) fn select<'a>(
    catalog: &'a Catalog,
    name: &NamespacedName,
    service: &'a ValidatedVirtualService,
    findings: &mut Vec<Finding>,
) -> Vec<Selected<'a>> {
    let mut selected = Vec::new();
    for backend in &service.backends {
        let Some(selector) = backend.source.selector() else {
            continue;
        };
        let before = selected.len();
        let servers = catalog.select(&name.namespace, selector);
        selected.extend(servers.map(|(name, server)| Selected {
            name,
            server,
            backend,
        }));
        if selected.len() == before {
            findings.push(Finding::new(
                ObjectRef::virtual_service(name),
                &format!("spec.backends[{}].realServers.selector", backend.index),
                Reason::Empty,
                format!(
                    "selects no RealServer of namespace {}: label one to match, or correct the selector",
                    name.namespace
                ),
            ));
        }
    }
    selected
}

/// A backend that is a Service, with the endpoints it has.
pub(super) struct ResolvedBackend<'a> {
    pub(super) backend: &'a ValidatedBackend,
    pub(super) service: NamespacedName,
    pub(super) referred: Referred,
}

/// The backends of a virtual service that are Services.
pub(super) fn resolve<'a>(
    catalog: &Catalog,
    input: &PlanInput<'a>,
    findings: &mut Vec<Finding>,
) -> Vec<ResolvedBackend<'a>> {
    let PlanInput { name, service, .. } = input;
    let mut all = Vec::new();
    for backend in &service.backends {
        let Some(reference) = backend.source.service() else {
            continue;
        };
        let mut say = |field: &str, reason, message| {
            let field = format!("spec.backends[{}].{field}", backend.index);
            findings.push(Finding::new(
                ObjectRef::virtual_service(name),
                &field,
                reason,
                message,
            ));
        };
        if backend.target_port.is_some() {
            let message =
                "has no effect beside serviceRef: the Service's own targetPort counts; leave it out";
            say("targetPort", Reason::Mismatch, message.to_owned());
        }
        let target = reference.target(&name.namespace);
        let method = service.forwarding.method;
        if !translates(method) {
            let message = format!(
                "the pods of a Service are reached by method Masquerade only, not yet by {}: say Masquerade, or name \
                 RealServers",
                method_word(method)
            );
            say("serviceRef", Reason::NotSupported, message);
            continue;
        }
        match catalog.resolve(&name.namespace, reference) {
            Err(Unresolved { reason, message }) => say("serviceRef", reason, message),
            Ok(referred) => {
                if referred.endpoints.is_empty() {
                    let message = format!(
                        "Service {target} has no endpoints: its selector selects no pod that runs, or it has none and \
                         nobody has written EndpointSlices"
                    );
                    say("serviceRef", Reason::Empty, message);
                }
                all.push(ResolvedBackend {
                    backend,
                    service: target,
                    referred,
                });
            }
        }
    }
    all
}

/// The destinations of a key that the endpoints of a Service are, and whether they leave.
pub(super) fn endpoints(
    key: &ServiceKey,
    input: &PlanInput<'_>,
    of: &ResolvedBackend<'_>,
    findings: &mut Vec<Finding>,
) -> Vec<(DestinationKey, Destination, Part)> {
    let ResolvedBackend {
        backend,
        service,
        referred,
    } = of;
    let mut unfit = |field: &str, message| {
        let field = format!("spec.backends[{}].serviceRef{field}", backend.index);
        findings.push(Finding::new(
            ObjectRef::virtual_service(input.name),
            &field,
            Reason::Mismatch,
            message,
        ));
    };
    if let ServiceKey::Address { protocol, .. } = key
        && *protocol != referred.protocol
    {
        unfit(
            ".port",
            format!(
                "this port of Service {service} is {}, which clients of {key} do not speak: name a port that is {protocol}",
                referred.protocol
            ),
        );
        return Vec::new();
    }
    let family = key.family();
    let fitting = || {
        referred
            .endpoints
            .iter()
            .filter(|endpoint| Family::of(endpoint.address) == family)
    };
    if fitting().next().is_none() && !referred.endpoints.is_empty() {
        unfit(
            "",
            format!("Service {service} has no {family} endpoints for {key}: give it both families"),
        );
    }
    fitting()
        .map(|endpoint| {
            let method = ForwardingMethod::Masquerade;
            let port = port_behind(key, input.service, method, endpoint.port);
            let (Ok(port) | Err(port)) = port;
            let weight = match endpoint.part {
                Part::Takes => backend.weight,
                Part::Waits | Part::Leaves => 0,
            };
            let address = endpoint.address;
            (
                DestinationKey { address, port },
                Destination::new(method, weight),
                endpoint.part,
            )
        })
        .collect()
}

/// The port of a destination: the one that is asked for, or the one clients connect to. `Err` is the latter, where
/// only translation would lead to the former.
///
/// Without a port of its own, under a mark or for all ports, a service leaves the packet's as it came. The kernel
/// makes one exception: it translates under a mark, unless persistence ties a client's ports together
/// (`ip_vs_sched_persist`).
pub(super) fn port_behind(
    key: &ServiceKey,
    service: &ValidatedVirtualService,
    forwarding: ForwardingMethod,
    asked: Option<u16>,
) -> Result<u16, u16> {
    match (key, asked) {
        (ServiceKey::Mark { .. }, Some(asked)) if translates(forwarding) && service.persistence.is_none() => {
            Ok(asked)
        }
        (ServiceKey::Mark { .. } | ServiceKey::Address { port: 0, .. }, _) => Ok(0),
        (ServiceKey::Address { port, .. }, None) => Ok(*port),
        (ServiceKey::Address { port, .. }, Some(asked)) if asked == *port || translates(forwarding) => {
            Ok(asked)
        }
        (ServiceKey::Address { port, .. }, Some(_)) => Err(*port),
    }
}

pub(super) fn translates(forwarding: ForwardingMethod) -> bool {
    forwarding == ForwardingMethod::Masquerade
}

pub(super) fn method_word(forwarding: ForwardingMethod) -> &'static str {
    match forwarding {
        ForwardingMethod::Tunnel(_) => "Tunnel",
        ForwardingMethod::Masquerade => "Masquerade",
        _ => "DirectRoute",
    }
}
