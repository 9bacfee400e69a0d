//! Virtual services and the real servers they select → entries of the kernel's table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::{Catalog, Finding, NamespacedName, ObjectRef, Part, Reason, Referred, Unresolved};
use crate::ipvs::{
    Destination, DestinationKey, Entry, Family, ForwardingMethod, Granularity, Persistence, Service,
    ServiceKey, Weight,
};

use super::services::KernelService;
use crate::catalog::validated::{
    AdminState, Listen, ValidatedBackend, ValidatedFallback, ValidatedPersistence, ValidatedRealServer,
    ValidatedVirtualService,
};

/// What a director's kernel should hold for one virtual service, and what is to be said about it.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// In the order of their keys.
    pub(super) entries: Vec<(ServiceKey, Entry)>,
    /// Destinations that still serve the connections they have, with the RealServers that they are.
    pub(super) leaving: BTreeMap<(ServiceKey, DestinationKey), Option<NamespacedName>>,
    pub(super) findings: Vec<Finding>,
}

/// Plans the entries of one virtual service for a node that balances it.
pub(super) fn entries(
    catalog: &Catalog,
    name: &NamespacedName,
    service: &ValidatedVirtualService,
    services: &[KernelService],
    synchronized: bool,
) -> Entries {
    let mut entries = Entries::default();
    let input = PlanInput {
        name,
        service,
        synchronized,
    };
    let selected = select(catalog, name, service, &mut entries.findings);
    let resolved = resolve(catalog, &input, &mut entries.findings);
    for KernelService { key, .. } in services {
        let entry = entry(key, &input, &selected, &resolved, &mut entries);
        entries.entries.push((*key, entry));
    }
    entries.entries.sort_by_key(|(key, _)| *key);
    entries
}

/// A virtual service whose table is planned.
struct PlanInput<'a> {
    name: &'a NamespacedName,
    service: &'a ValidatedVirtualService,
    /// Whether directors pass connections to each other.
    synchronized: bool,
}

/// A real server with the backend that selected it.
struct Selected<'a> {
    name: &'a Arc<str>,
    server: &'a ValidatedRealServer,
    backend: &'a ValidatedBackend,
}

fn select<'a>(
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
struct ResolvedBackend<'a> {
    backend: &'a ValidatedBackend,
    service: NamespacedName,
    referred: Referred,
}

/// The backends of a virtual service that are Services.
fn resolve<'a>(
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
fn endpoints(
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

fn entry(
    key: &ServiceKey,
    input: &PlanInput<'_>,
    selected: &[Selected<'_>],
    referred: &[ResolvedBackend<'_>],
    planned: &mut Entries,
) -> Entry {
    let name = input.name;
    let Entries {
        leaving, findings, ..
    } = planned;
    let mut destinations = BTreeMap::new();
    let mut holders: BTreeMap<DestinationKey, &Arc<str>> = BTreeMap::new();
    let mut leavers = BTreeMap::new();
    let named = |one: &Selected<'_>| NamespacedName {
        namespace: name.namespace.clone(),
        name: one.name.clone(),
    };
    for one in selected
        .iter()
        .filter(|one| one.server.admin_state == AdminState::Enabled)
    {
        let object = || ObjectRef::real_server(&named(one));
        match destination(key, input, one) {
            Err(Unfit { field, message }) => {
                findings.push(Finding::new(object(), field, Reason::Mismatch, message));
            }
            Ok(None) => {}
            Ok(Some((destination_key, destination))) => match holders.get(&destination_key) {
                // The same object by two backends, or the same machine by two objects: it counts once.
                Some(holder) if *holder != one.name => findings.push(Finding::new(
                    object(),
                    "spec.address",
                    Reason::Conflict,
                    format!(
                        "{destination_key} is already RealServer {}/{holder} in VirtualService {name}: remove \
                         one of the two",
                        name.namespace
                    ),
                )),
                Some(_) => {}
                None => {
                    holders.insert(destination_key, one.name);
                    destinations.insert(destination_key, destination);
                }
            },
        }
    }
    // What a RealServer says of an address counts more than what an endpoint is by default.
    for one in referred {
        for (destination_key, destination, part) in endpoints(key, input, one, findings) {
            if part == Part::Leaves {
                leavers.insert(destination_key, None);
            } else {
                destinations.entry(destination_key).or_insert(destination);
            }
        }
    }
    for one in selected.iter().filter(|one| one.server.admin_state.leaves()) {
        // What is wrong with one that never was a destination does not matter any more.
        if let Ok(Some((destination_key, _))) = destination(key, input, one) {
            leavers.insert(destination_key, Some(named(one)));
        }
    }
    let idle = destinations
        .values()
        .all(|destination: &Destination| destination.weight == Weight::QUIESCED);
    // Looked at even while nobody needs it: what is wrong with it should not come out in an outage.
    match fallback(key, input) {
        Err(Unfit { field, message }) => findings.push(Finding::new(
            ObjectRef::virtual_service(name),
            field,
            Reason::Mismatch,
            message,
        )),
        Ok(Some((key, destination))) if idle => drop(destinations.insert(key, destination)),
        Ok(_) => {}
    }
    let leavers = leavers
        .into_iter()
        .filter(|(destination, _)| !destinations.contains_key(destination));
    leaving.extend(leavers.map(|(destination, server)| ((*key, destination), server)));
    Entry {
        service: kernel_service(key.family(), input.service),
        destinations,
    }
}

/// Why a real server, or the sorry server, cannot be a destination of a service.
struct Unfit {
    field: &'static str,
    message: String,
}

/// The destination that a real server is, if it is one of this key's family.
fn destination(
    key: &ServiceKey,
    input: &PlanInput<'_>,
    one: &Selected<'_>,
) -> Result<Option<(DestinationKey, Destination)>, Unfit> {
    let PlanInput { name, service, .. } = input;
    let Selected { server, backend, .. } = one;
    let forwarding = server.forwarding.unwrap_or(service.forwarding).method;
    match family_fits(key, input, server.address, forwarding) {
        FamilyFits::Yes => {}
        FamilyFits::AnotherVip => return Ok(None),
        FamilyFits::No => return Err(unfit_family(key, input, server.address)),
        FamilyFits::NotWhileSynchronized => return Err(unfit_while_synchronized(key, input, server.address)),
    }
    let asked = server.port.or(backend.target_port);
    let port = port_behind(key, service, forwarding, asked).map_err(|own| Unfit {
        field: "spec.port",
        message: format!(
            "{} cannot translate ports: port {} differs from {own}, where clients of VirtualService {name} \
             connect; leave the port out, use the same one, or Masquerade",
            method_word(forwarding),
            asked.unwrap_or(own)
        ),
    })?;
    let weight = u64::from(server.weight) * u64::from(backend.weight);
    let destination = Destination {
        forwarding,
        weight: Weight::saturating(weight),
        upper_threshold: server.upper_threshold,
        lower_threshold: server.lower_threshold,
    };
    Ok(Some((
        DestinationKey {
            address: server.address,
            port,
        },
        destination,
    )))
}

/// The port of a destination: the one that is asked for, or the one clients connect to. `Err` is the latter, where
/// only translation would lead to the former.
///
/// Without a port of its own, under a mark or for all ports, a service leaves the packet's as it came. The kernel
/// makes one exception: it translates under a mark, unless persistence ties a client's ports together
/// (`ip_vs_sched_persist`).
fn port_behind(
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

/// Whether a destination's family can serve a key.
enum FamilyFits {
    Yes,
    /// In a dual-stack virtual service each destination serves the VIPs of its own family.
    AnotherVip,
    /// One of a family that no VIP has can only be reached through a tunnel.
    No,
    /// And through that only while directors do not pass connections to each other, whose messages have one family.
    NotWhileSynchronized,
}

fn family_fits(
    key: &ServiceKey,
    input: &PlanInput<'_>,
    address: IpAddr,
    forwarding: ForwardingMethod,
) -> FamilyFits {
    let family = Family::of(address);
    let some_vip_has_it = match &input.service.listen {
        Listen::Addresses { addresses, .. } => addresses.iter().any(|vip| Family::of(*vip) == family),
        Listen::Mark { .. } => false,
    };
    match forwarding {
        _ if family == key.family() => FamilyFits::Yes,
        _ if some_vip_has_it => FamilyFits::AnotherVip,
        ForwardingMethod::Tunnel(_) if input.synchronized => FamilyFits::NotWhileSynchronized,
        ForwardingMethod::Tunnel(_) => FamilyFits::Yes,
        _ => FamilyFits::No,
    }
}

/// The same for every listener, so that it is said once.
fn unfit_family(key: &ServiceKey, input: &PlanInput<'_>, address: IpAddr) -> Unfit {
    let PlanInput { name, service, .. } = input;
    let family = Family::of(address);
    let message = match &service.listen {
        Listen::Addresses { .. } => format!(
            "{address} is {family}, but VirtualService {name} has no {family} address: give it one, or use \
             method Tunnel"
        ),
        Listen::Mark { .. } => format!(
            "{address} is {family}, but the firewallMark of VirtualService {name} is for {}: use method Tunnel",
            key.family()
        ),
    };
    Unfit {
        field: "spec.address",
        message,
    }
}

fn unfit_while_synchronized(key: &ServiceKey, input: &PlanInput<'_>, address: IpAddr) -> Unfit {
    Unfit {
        field: "spec.address",
        message: format!(
            "{address} is {}, and the kernel tunnels {} packets of VirtualService {} there only while no connections \
             are passed to another director: give the real server an address of the same family, or take \
             connectionSync out of DirectorGroup {}",
            Family::of(address),
            key.family(),
            input.name,
            input.service.director_group
        ),
    }
}

fn translates(forwarding: ForwardingMethod) -> bool {
    forwarding == ForwardingMethod::Masquerade
}

fn method_word(forwarding: ForwardingMethod) -> &'static str {
    match forwarding {
        ForwardingMethod::Tunnel(_) => "Tunnel",
        ForwardingMethod::Masquerade => "Masquerade",
        _ => "DirectRoute",
    }
}

/// The sorry server, if it is one of this key's family. It is reached as the virtual service's real servers are.
fn fallback(key: &ServiceKey, input: &PlanInput<'_>) -> Result<Option<(DestinationKey, Destination)>, Unfit> {
    let service = input.service;
    let Some(ValidatedFallback { address, port }) = service.fallback else {
        return Ok(None);
    };
    let misfit = |unfit| {
        Err(Unfit {
            field: "spec.fallback.address",
            ..unfit
        })
    };
    match family_fits(key, input, address, service.forwarding.method) {
        FamilyFits::Yes => {}
        FamilyFits::AnotherVip => return Ok(None),
        FamilyFits::No => return misfit(unfit_family(key, input, address)),
        FamilyFits::NotWhileSynchronized => return misfit(unfit_while_synchronized(key, input, address)),
    }
    let port = port_behind(key, service, service.forwarding.method, port).map_err(|own| Unfit {
        field: "spec.fallback.port",
        message: format!(
            "{} cannot translate ports: port {} differs from {own}; leave the port out",
            method_word(service.forwarding.method),
            port.unwrap_or(own)
        ),
    })?;
    let destination = Destination::new(service.forwarding.method, 1);
    Ok(Some((DestinationKey { address, port }, destination)))
}

fn kernel_service(family: Family, service: &ValidatedVirtualService) -> Service {
    let persistence = service.persistence.as_ref().map(|persistence| {
        let ValidatedPersistence {
            timeout,
            netmask_v4,
            prefix_v6,
            engine,
        } = persistence;
        Persistence {
            timeout: *timeout,
            granularity: match family {
                Family::V4 => Granularity::V4(*netmask_v4),
                Family::V6 => Granularity::V6(*prefix_v6),
            },
            engine: engine.map(Into::into),
        }
    });
    Service {
        scheduler: Some(service.scheduler.clone()),
        flags: service.flags,
        one_packet: service.one_packet,
        persistence,
    }
}
