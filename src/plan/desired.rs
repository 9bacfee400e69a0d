//! Virtual services and the real servers they select → entries of the kernel's table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ipvs::{
    Destination, DestinationKey, Entry, Family, ForwardingMethod, Granularity, Persistence, Service,
    ServiceKey, Weight,
};

use super::finding::{Finding, NamespacedName, ObjectRef, Reason};
use super::snapshot::{Snapshot, service_keys};
use super::validated::{
    AdminState, Listen, ValidatedBackend, ValidatedPersistence, ValidatedRealServer, ValidatedVirtualService,
};

/// What a director's kernel should hold for one virtual service, and what is to be said about it.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) entries: Vec<(ServiceKey, Entry)>,
    pub(super) findings: Vec<Finding>,
}

/// Plans one virtual service for a node that is its active director.
pub(super) fn want(snapshot: &Snapshot, name: &NamespacedName, service: &ValidatedVirtualService) -> Wanted {
    let mut wanted = Wanted::default();
    let selected = select(snapshot, name, service, &mut wanted.findings);
    for key in service_keys(service) {
        match snapshot.holder(&key).filter(|holder| *holder != name) {
            Some(holder) => wanted.findings.push(Finding::new(
                ObjectRef::virtual_service(name),
                "",
                Reason::Conflict,
                format!(
                    "{key} belongs to VirtualService {holder}, which was there first: remove one of the two"
                ),
            )),
            None => {
                let entry = entry(&key, name, service, &selected, &mut wanted.findings);
                wanted.entries.push((key, entry));
            }
        }
    }
    // The same real server is looked at for every key, and what is wrong with it is the same for all.
    wanted.findings.sort();
    wanted.findings.dedup();
    wanted
}

/// A real server with the backend that selected it.
struct Selected<'a> {
    name: &'a Arc<str>,
    server: &'a ValidatedRealServer,
    backend: &'a ValidatedBackend,
}

fn select<'a>(
    snapshot: &'a Snapshot,
    name: &NamespacedName,
    service: &'a ValidatedVirtualService,
    findings: &mut Vec<Finding>,
) -> Vec<Selected<'a>> {
    let mut selected = Vec::new();
    for backend in &service.backends {
        let before = selected.len();
        let servers = snapshot.select(&name.namespace, &backend.selector);
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

fn entry(
    key: &ServiceKey,
    name: &NamespacedName,
    service: &ValidatedVirtualService,
    selected: &[Selected<'_>],
    findings: &mut Vec<Finding>,
) -> Entry {
    let mut destinations = BTreeMap::new();
    let mut holders: BTreeMap<DestinationKey, &Arc<str>> = BTreeMap::new();
    for one in selected
        .iter()
        .filter(|one| one.server.admin_state != AdminState::Disabled)
    {
        let object = || {
            ObjectRef::real_server(&NamespacedName {
                namespace: name.namespace.clone(),
                name: one.name.clone(),
            })
        };
        match destination(key, name, service, one) {
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
    if destinations
        .values()
        .all(|destination: &Destination| destination.weight == Weight::QUIESCED)
    {
        add_fallback(key, name, service, &mut destinations, findings);
    }
    Entry {
        service: kernel_service(key.family(), service),
        destinations,
    }
}

/// Why a real server cannot be a destination of a service.
struct Unfit {
    field: &'static str,
    message: String,
}

/// The destination that a real server is, if it is one of this key's family.
fn destination(
    key: &ServiceKey,
    name: &NamespacedName,
    service: &ValidatedVirtualService,
    one: &Selected<'_>,
) -> Result<Option<(DestinationKey, Destination)>, Unfit> {
    let Selected { server, backend, .. } = one;
    let forwarding = server.forwarding.unwrap_or(service.forwarding);
    if !family_fits(key, service, server.address, forwarding)? {
        return Ok(None);
    }
    let asked = server.port.or(backend.target_port);
    let port = match (key, asked) {
        // Under a mark, and for all ports, a packet keeps the port it came with unless it is translated.
        (ServiceKey::Mark { .. } | ServiceKey::Address { port: 0, .. }, None) => 0,
        (ServiceKey::Address { port, .. }, None) => *port,
        (ServiceKey::Address { port, .. }, Some(asked)) if !translates(forwarding) && asked != *port => {
            return Err(Unfit {
                field: "spec.port",
                message: format!(
                    "{} cannot translate ports: port {asked} differs from {port}, where clients of \
                     VirtualService {name} connect; use the same port, or Masquerade",
                    method_word(forwarding)
                ),
            });
        }
        (ServiceKey::Mark { .. }, Some(_)) if !translates(forwarding) => 0,
        (_, Some(asked)) => asked,
    };
    let weight = match server.admin_state {
        AdminState::Enabled => u64::from(server.weight) * u64::from(backend.weight),
        AdminState::Draining | AdminState::Disabled => 0,
    };
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

/// Whether a real server's family can serve a key. In a dual-stack virtual service each real server serves the
/// VIPs of its own family; one of a family that no VIP has can only be reached through a tunnel.
fn family_fits(
    key: &ServiceKey,
    service: &ValidatedVirtualService,
    address: IpAddr,
    forwarding: ForwardingMethod,
) -> Result<bool, Unfit> {
    let family = Family::of(address);
    if family == key.family() {
        return Ok(true);
    }
    let some_vip_has_it = match &service.listen {
        Listen::Addresses { addresses, .. } => addresses.iter().any(|vip| Family::of(*vip) == family),
        Listen::Mark { .. } => false,
    };
    match (some_vip_has_it, forwarding) {
        (true, _) => Ok(false),
        (false, ForwardingMethod::Tunnel(_)) => Ok(true),
        (false, _) => Err(Unfit {
            field: "spec.address",
            message: format!(
                "{address} is {family}, but {key} is {}: give the virtual service a VIP of the same family, or \
                 use method Tunnel",
                key.family()
            ),
        }),
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

/// Adds the sorry server. It is reached as the virtual service's real servers are.
fn add_fallback(
    key: &ServiceKey,
    name: &NamespacedName,
    service: &ValidatedVirtualService,
    destinations: &mut BTreeMap<DestinationKey, Destination>,
    findings: &mut Vec<Finding>,
) {
    let Some(fallback) = service.fallback else { return };
    let own_port = match key {
        ServiceKey::Address { port, .. } => *port,
        ServiceKey::Mark { .. } => 0,
    };
    let port = fallback.port.unwrap_or(own_port);
    let cannot = if port != own_port && !translates(service.forwarding) {
        Some((
            "spec.fallback.port",
            format!(
                "{} cannot translate ports: port {port} differs from {own_port}; leave the port out",
                method_word(service.forwarding)
            ),
        ))
    } else if Family::of(fallback.address) != key.family()
        && !matches!(service.forwarding, ForwardingMethod::Tunnel(_))
    {
        Some((
            "spec.fallback.address",
            format!(
                "{} cannot answer for {key}: it is of another family",
                fallback.address
            ),
        ))
    } else {
        None
    };
    match cannot {
        Some((field, message)) => {
            findings.push(Finding::new(
                ObjectRef::virtual_service(name),
                field,
                Reason::Mismatch,
                message,
            ));
        }
        None => {
            let key = DestinationKey {
                address: fallback.address,
                port,
            };
            destinations.insert(key, Destination::new(service.forwarding, 1));
        }
    }
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
