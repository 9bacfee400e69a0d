//! VirtualService.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::api::{self, rules};
use crate::catalog::validated::{
    BackendSource, Listen, Ports, ServiceReference, ValidatedBackend, ValidatedDraining, ValidatedFallback,
    ValidatedForwarding, ValidatedPersistence, ValidatedVirtualService,
};
use crate::ipvs::{Family, ForwardingMethod, Protocol, Scheduler, SchedulerFlags};

use super::{Checker, Validation, is_label, parse_address, parts, port};

/// ipvsadm's default.
const DEFAULT_PERSISTENCE: Duration = Duration::from_secs(300);
/// How long connections have to end where nobody says.
const DEFAULT_DRAINING: Duration = Duration::from_secs(60);
/// The kernel keeps a persistence timeout of at most 31 days.
const MAX_PERSISTENCE: Duration = Duration::from_secs(31 * 24 * 3600);

/// Checks a VirtualService by the CRD's schema and rules.
pub fn virtual_service(object: &api::VirtualService) -> Validation<ValidatedVirtualService> {
    let mut at = Checker::default();
    let spec = at.field("spec", |at| check_spec(at, &object.spec));
    at.finish(|| {
        let created = object
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.as_second());
        spec.map(|spec| ValidatedVirtualService {
            created,
            generation: object.metadata.generation,
            ..spec
        })
    })
}

fn check_spec(at: &mut Checker, spec: &api::VirtualServiceSpec) -> Option<ValidatedVirtualService> {
    let api::VirtualServiceSpec {
        addresses,
        address_pool_ref,
        listeners,
        firewall_mark,
        group_listeners,
        scheduler,
        persistence,
        forwarding,
        backends,
        fallback,
        health_check,
        when_unhealthy,
        draining,
        director_group_ref,
    } = spec;
    check_choices(at, spec);
    let grouped = *group_listeners == Some(true);
    let addresses = check_addresses(at, addresses.as_deref());
    if let Some(api::AddressPoolRef { name }) = address_pool_ref {
        at.field("addressPoolRef", |at| at.text("name", name, 1, 253));
    }
    let ports = check_listeners(at, listeners.as_deref(), persistence.is_some());
    let mark = firewall_mark
        .as_ref()
        .map(|mark| at.field("firewallMark", |at| check_mark(at, mark)));
    let (algorithm, flags, one_packet) = check_scheduler(at, scheduler.as_ref());
    let datagrams = listeners
        .iter()
        .flatten()
        .all(|listener| listener.protocol == api::Protocol::Udp);
    at.rule(rules::ONE_PACKET_IS_UDP, !one_packet || datagrams);
    let persistence = check_persistence(at, persistence.as_ref());
    let forwarding = at.field("forwarding", |at| parts::forwarding(at, forwarding.as_ref()));
    let backends = check_backends(at, backends.as_deref().unwrap_or_default());
    let fallback = fallback
        .as_ref()
        .and_then(|fallback| at.field("fallback", |at| check_fallback(at, fallback)));
    parts::health_check(at, health_check.as_ref());
    let draining = check_draining(at, draining.as_ref());
    let director_group = director_group_ref
        .as_ref()
        .map_or(api::DEFAULT_DIRECTOR_GROUP, |group| &group.name);
    at.field("directorGroupRef", |at| at.text("name", director_group, 1, 253));

    at.not_supported("addressPoolRef", address_pool_ref.is_some());
    at.not_supported("whenUnhealthy", when_unhealthy.is_some());
    let listen = match mark {
        Some(mark) => {
            let (family, mark) = mark?;
            Listen::Mark {
                family,
                mark,
                addresses,
            }
        }
        None => Listen::Addresses {
            addresses,
            ports: if grouped { all_of_a_group(ports) } else { ports },
            grouped,
        },
    };
    Some(ValidatedVirtualService {
        created: None,
        generation: None,
        listen,
        scheduler: algorithm,
        flags,
        one_packet,
        persistence,
        forwarding: forwarding.unwrap_or(ValidatedForwarding::new(ForwardingMethod::Masquerade)),
        backends,
        fallback,
        draining,
        director_group: director_group.into(),
    })
}

/// What must be there, or may not be there beside something else.
fn check_choices(at: &mut Checker, spec: &api::VirtualServiceSpec) {
    let has_addresses = spec.addresses.is_some();
    let has_pool = spec.address_pool_ref.is_some();
    let has_listeners = spec.listeners.is_some();
    let has_mark = spec.firewall_mark.is_some();
    at.rule(rules::ADDRESSES_OR_POOL, !has_addresses || !has_pool);
    at.rule(rules::SOME_ADDRESS, has_addresses || has_pool || has_mark);
    at.rule(rules::LISTENERS_OR_MARK, has_listeners != has_mark);
    let grouped = spec.group_listeners == Some(true);
    at.rule(rules::GROUP_NEEDS_LISTENERS, !grouped || has_listeners);
}

fn check_addresses(at: &mut Checker, addresses: Option<&[String]>) -> Box<[IpAddr]> {
    let Some(addresses) = addresses else {
        return Box::default();
    };
    at.length("addresses", addresses.len(), 1, 8);
    at.field("addresses", |at| {
        let mut texts = BTreeSet::new();
        let parsed: BTreeSet<IpAddr> = addresses
            .iter()
            .enumerate()
            .filter_map(|(index, text)| {
                at.item(index, |at| {
                    if !texts.insert(text) {
                        at.invalid(format!("duplicate entry {text}: remove one"));
                    }
                    at.characters(text, 2, 45);
                    let address = parse_address(text);
                    at.rule(rules::ADDRESSES_ARE_IPS, address.is_some());
                    address
                })
            })
            .collect();
        parsed.into_iter().collect()
    })
}

fn check_listeners(at: &mut Checker, listeners: Option<&[api::Listener]>, persistent: bool) -> Box<[Ports]> {
    let Some(listeners) = listeners else {
        return Box::default();
    };
    at.length("listeners", listeners.len(), 1, 64);
    at.rule(
        rules::ALL_PORTS_NEED_PERSISTENCE,
        persistent || listeners.iter().all(|listener| listener.port != 0),
    );
    let distinct = listeners.iter().enumerate().all(|(index, a)| {
        listeners[..index]
            .iter()
            .all(|b| (a.protocol, a.port) != (b.protocol, b.port))
    });
    at.rule(rules::DISTINCT_LISTENERS, distinct);
    at.field("listeners", |at| {
        let mut names = BTreeSet::new();
        let mut ports = Vec::new();
        for (index, listener) in listeners.iter().enumerate() {
            at.item(index, |at| {
                check_name(at, &listener.name, &mut names);
                ports.push(check_listener(at, listener));
            });
        }
        ports.into()
    })
}

/// In a group, where a mark is set by address and port, all ports are a range like any other.
fn all_of_a_group(mut ports: Box<[Ports]>) -> Box<[Ports]> {
    for ports in ports.iter_mut().filter(|ports| ports.last == 0) {
        ports.last = u16::MAX;
    }
    ports
}

/// A listener's protocol and ports.
fn check_listener(at: &mut Checker, listener: &api::Listener) -> Ports {
    let api::Listener {
        name: _,
        protocol,
        port: first,
        end_port,
    } = listener;
    at.range("port", Some(*first), 0, 65535);
    at.range("endPort", *end_port, 1, 65535);
    at.rule(
        rules::PORT_RANGE,
        end_port.is_none_or(|end| *first > 0 && end >= *first),
    );
    let protocol = match protocol {
        api::Protocol::Tcp => Protocol::Tcp,
        api::Protocol::Udp => Protocol::Udp,
        api::Protocol::Sctp => Protocol::Sctp,
    };
    Ports {
        protocol,
        first: port(*first),
        last: port(end_port.unwrap_or(*first)),
    }
}

/// A name by which entries of a list are told apart.
fn check_name<'a>(at: &mut Checker, name: &'a str, names: &mut BTreeSet<&'a str>) {
    at.text("name", name, 1, 63);
    at.field("name", |at| {
        if !is_label(name) {
            at.invalid(format!(
                "\"{name}\" is no name: use lower-case letters, digits and inner hyphens"
            ));
        }
    });
    if !names.insert(name) {
        at.invalid(format!("\"{name}\" names two entries: rename one"));
    }
}

fn check_mark(at: &mut Checker, value: &api::FirewallMark) -> Option<(Family, NonZeroU32)> {
    let api::FirewallMark { mark, family } = value;
    at.range("mark", Some(*mark), 1, u32::MAX.into());
    let family = match family {
        api::IpFamily::IPv4 => Family::V4,
        api::IpFamily::IPv6 => Family::V6,
    };
    Some((family, NonZeroU32::new(u32::try_from(*mark).ok()?)?))
}

fn check_scheduler(at: &mut Checker, value: Option<&api::Scheduler>) -> (Scheduler, SchedulerFlags, bool) {
    use api::SchedulerFlag::{Flag1, Flag2, Flag3, MhFallback, MhPort, ShFallback, ShPort};
    let Some(value) = value else {
        return (
            Scheduler::WeightedLeastConnections,
            SchedulerFlags::default(),
            false,
        );
    };
    let api::Scheduler {
        algorithm,
        flags,
        one_packet,
    } = value;
    at.field("scheduler", |at| {
        let algorithm = algorithm.map_or(Scheduler::WeightedLeastConnections, scheduler);
        let given = flags.as_deref().unwrap_or_default();
        at.length("flags", given.len(), 0, 8);
        at.field("flags", |at| {
            for (index, flag) in given.iter().enumerate() {
                if given[..index].contains(flag) {
                    at.item(index, |at| at.invalid("duplicate flag: remove one"));
                }
            }
        });
        let fits = given.iter().all(|flag| match flag {
            ShFallback | ShPort => algorithm == Scheduler::SourceHash,
            MhFallback | MhPort => algorithm == Scheduler::Maglev,
            Flag1 | Flag2 | Flag3 => true,
        });
        at.rule(rules::SCHEDULER_FLAGS, fits);
        let any = |wanted: &[api::SchedulerFlag]| given.iter().any(|flag| wanted.contains(flag));
        let flags = SchedulerFlags {
            flag1: any(&[Flag1, ShFallback, MhFallback]),
            flag2: any(&[Flag2, ShPort, MhPort]),
            flag3: any(&[Flag3]),
        };
        (algorithm, flags, one_packet.unwrap_or_default())
    })
}

fn scheduler(algorithm: api::SchedulerAlgorithm) -> Scheduler {
    match algorithm {
        api::SchedulerAlgorithm::Rr => Scheduler::RoundRobin,
        api::SchedulerAlgorithm::Wrr => Scheduler::WeightedRoundRobin,
        api::SchedulerAlgorithm::Lc => Scheduler::LeastConnections,
        api::SchedulerAlgorithm::Wlc => Scheduler::WeightedLeastConnections,
        api::SchedulerAlgorithm::Lblc => Scheduler::LocalityLeastConnections,
        api::SchedulerAlgorithm::Lblcr => Scheduler::LocalityLeastConnectionsReplication,
        api::SchedulerAlgorithm::Dh => Scheduler::DestinationHash,
        api::SchedulerAlgorithm::Sh => Scheduler::SourceHash,
        api::SchedulerAlgorithm::Sed => Scheduler::ShortestExpectedDelay,
        api::SchedulerAlgorithm::Nq => Scheduler::NeverQueue,
        api::SchedulerAlgorithm::Fo => Scheduler::Failover,
        api::SchedulerAlgorithm::Ovf => Scheduler::Overflow,
        api::SchedulerAlgorithm::Mh => Scheduler::Maglev,
        api::SchedulerAlgorithm::Twos => Scheduler::TwoRandomChoices,
    }
}

fn check_draining(at: &mut Checker, value: Option<&api::Draining>) -> ValidatedDraining {
    let timeout = value
        .and_then(|draining| at.field("draining", |at| at.duration("timeout", draining.timeout.as_ref())));
    ValidatedDraining {
        timeout: timeout.unwrap_or(DEFAULT_DRAINING),
        keep: value.and_then(|draining| draining.on_timeout) == Some(api::OnDrainTimeout::Keep),
    }
}

fn check_persistence(at: &mut Checker, value: Option<&api::Persistence>) -> Option<ValidatedPersistence> {
    let api::Persistence {
        timeout,
        netmask_v4,
        prefix_v6,
        engine,
    } = value?;
    at.field("persistence", |at| {
        let parsed = at.duration("timeout", timeout.as_ref());
        let in_range = |timeout: Duration| timeout >= Duration::from_secs(1) && timeout <= MAX_PERSISTENCE;
        at.rule(rules::PERSISTENCE_TIMEOUT, parsed.is_none_or(in_range));
        let mask = netmask_v4.as_ref().map(|mask| {
            at.text("netmaskV4", mask, 7, 15);
            let parsed: Option<Ipv4Addr> = mask.parse().ok();
            at.field("netmaskV4", |at| at.rule(rules::NETMASK_IS_V4, parsed.is_some()));
            parsed.unwrap_or(Ipv4Addr::BROADCAST)
        });
        at.range("prefixV6", *prefix_v6, 1, 128);
        Some(ValidatedPersistence {
            timeout: Duration::from_secs(parsed.unwrap_or(DEFAULT_PERSISTENCE).as_secs()),
            netmask_v4: mask.unwrap_or(Ipv4Addr::BROADCAST),
            prefix_v6: prefix_v6
                .and_then(|prefix| u8::try_from(prefix).ok())
                .unwrap_or(128),
            engine: engine.map(|api::PersistenceEngine::Sip| "sip"),
        })
    })
}

fn check_backends(at: &mut Checker, backends: &[api::Backend]) -> Box<[ValidatedBackend]> {
    at.length("backends", backends.len(), 0, 16);
    at.field("backends", |at| {
        let mut names = BTreeSet::new();
        let mut validated = Vec::new();
        for (index, backend) in backends.iter().enumerate() {
            at.item(index, |at| {
                check_name(at, &backend.name, &mut names);
                let index = u8::try_from(index).unwrap_or(u8::MAX);
                validated.extend(check_backend(at, backend, index));
            });
        }
        validated.into()
    })
}

fn check_backend(at: &mut Checker, backend: &api::Backend, index: u8) -> Option<ValidatedBackend> {
    let api::Backend {
        name: _,
        real_servers,
        service_ref,
        weight,
        target_port,
    } = backend;
    at.rule(
        rules::ONE_BACKEND_SOURCE,
        real_servers.is_some() != service_ref.is_some(),
    );
    at.range("weight", *weight, 0, 65535);
    at.range("targetPort", *target_port, 1, 65535);
    if let Some(api::ServiceRef {
        name,
        namespace,
        port,
    }) = service_ref
    {
        at.field("serviceRef", |at| {
            at.text("name", name, 1, 253);
            if let Some(namespace) = namespace {
                at.text("namespace", namespace, 1, 63);
            }
            at.text("port", port, 1, 63);
        });
    }
    let source = match (real_servers, service_ref) {
        (Some(selection), _) => BackendSource::RealServers(at.field("realServers", |at| {
            at.field("selector", |at| parts::selector(at, &selection.selector))
        })),
        (None, Some(reference)) => BackendSource::Service(ServiceReference {
            namespace: reference.namespace.as_deref().map(Into::into),
            name: reference.name.as_str().into(),
            port: reference.port.as_str().into(),
        }),
        (None, None) => return None,
    };
    Some(ValidatedBackend {
        source,
        weight: weight.unwrap_or(1).unsigned_abs(),
        target_port: target_port.map(port),
        index,
    })
}

fn check_fallback(at: &mut Checker, fallback: &api::Fallback) -> Option<ValidatedFallback> {
    let api::Fallback {
        address,
        port: own_port,
    } = fallback;
    let parsed = parse_address(address);
    at.text("address", address, 2, 45);
    at.field("address", |at| at.rule(rules::ADDRESS_IS_IP, parsed.is_some()));
    at.range("port", *own_port, 1, 65535);
    Some(ValidatedFallback {
        address: parsed?,
        port: own_port.map(port),
    })
}
