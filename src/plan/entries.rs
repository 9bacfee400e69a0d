//! Virtual services and the real servers they select → entries of the kernel's table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::validated::{
    AdminState, Listen, ValidatedFallback, ValidatedPersistence, ValidatedVirtualService,
};
use crate::catalog::{Catalog, Finding, NamespacedName, ObjectRef, Part, Reason};
use crate::ipvs::{
    Destination, DestinationKey, Entry, Family, ForwardingMethod, Granularity, Persistence, Service,
    ServiceKey, Weight,
};

use super::backends::{
    PlanInput, ResolvedBackend, Selected, endpoints, method_word, port_behind, resolve, select,
};
use super::services::KernelService;

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

/// The destinations of one service of the kernel.
#[derive(Default)]
struct Destinations {
    there: BTreeMap<DestinationKey, Destination>,
    /// Those that leave, with the RealServers that they are.
    leaving: BTreeMap<DestinationKey, Option<NamespacedName>>,
}

fn entry(
    key: &ServiceKey,
    input: &PlanInput<'_>,
    selected: &[Selected<'_>],
    resolved: &[ResolvedBackend<'_>],
    planned: &mut Entries,
) -> Entry {
    let Entries {
        leaving, findings, ..
    } = planned;
    let mut destinations = Destinations::default();
    destinations.add_real_servers(key, input, selected, findings);
    destinations.add_endpoints(key, input, resolved, findings);
    destinations.add_leaving(key, input, selected);
    destinations.add_fallback(key, input, findings);
    let Destinations {
        there,
        leaving: leavers,
    } = destinations;
    let leavers = leavers
        .into_iter()
        .filter(|(destination, _)| !there.contains_key(destination));
    leaving.extend(leavers.map(|(destination, server)| ((*key, destination), server)));
    Entry {
        service: kernel_service(key.family(), input.service),
        destinations: there,
    }
}

impl Destinations {
    fn add_real_servers(
        &mut self,
        key: &ServiceKey,
        input: &PlanInput<'_>,
        selected: &[Selected<'_>],
        findings: &mut Vec<Finding>,
    ) {
        let mut holders: BTreeMap<DestinationKey, &Arc<str>> = BTreeMap::new();
        let is_enabled = |one: &&Selected<'_>| one.server.admin_state == AdminState::Enabled;
        for one in selected.iter().filter(is_enabled) {
            let object = || ObjectRef::real_server(&input.named(one.name));
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
                            "{destination_key} is already RealServer {}/{holder} in VirtualService {}: remove \
                             one of the two",
                            input.name.namespace, input.name
                        ),
                    )),
                    Some(_) => {}
                    None => {
                        holders.insert(destination_key, one.name);
                        self.there.insert(destination_key, destination);
                    }
                },
            }
        }
    }

    /// What a RealServer says of an address counts more than what an endpoint is by default.
    fn add_endpoints(
        &mut self,
        key: &ServiceKey,
        input: &PlanInput<'_>,
        resolved: &[ResolvedBackend<'_>],
        findings: &mut Vec<Finding>,
    ) {
        for one in resolved {
            for (destination_key, destination, part) in endpoints(key, input, one, findings) {
                if part == Part::Leaves {
                    self.leaving.insert(destination_key, None);
                } else {
                    self.there.entry(destination_key).or_insert(destination);
                }
            }
        }
    }

    fn add_leaving(&mut self, key: &ServiceKey, input: &PlanInput<'_>, selected: &[Selected<'_>]) {
        for one in selected.iter().filter(|one| one.server.admin_state.leaves()) {
            // What is wrong with one that never was a destination does not matter any more.
            if let Ok(Some((destination_key, _))) = destination(key, input, one) {
                self.leaving.insert(destination_key, Some(input.named(one.name)));
            }
        }
    }

    /// Looked at even while nobody needs it: what is wrong with it should not come out in an outage.
    fn add_fallback(&mut self, key: &ServiceKey, input: &PlanInput<'_>, findings: &mut Vec<Finding>) {
        let mut weights = self.there.values().map(|destination| destination.weight);
        let is_idle = weights.all(|weight| weight == Weight::QUIESCED);
        match fallback(key, input) {
            Err(Unfit { field, message }) => findings.push(Finding::new(
                ObjectRef::virtual_service(input.name),
                field,
                Reason::Mismatch,
                message,
            )),
            Ok(Some((key, destination))) if is_idle => drop(self.there.insert(key, destination)),
            Ok(_) => {}
        }
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
