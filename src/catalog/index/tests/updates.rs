//! Updates in a world so small that everything gets into everything else's way.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::*;
use crate::catalog::Reason;
use crate::catalog::validated::{
    AdminState, Binding, EndpointPort, EndpointState, Label, Labels, Ports, Requirement,
    RequirementCondition, Selector, ServicePort, ServiceReference, ValidatedBackend, ValidatedDraining,
    ValidatedFailover, ValidatedFallback, ValidatedForwarding,
};
use crate::ipvs::{Family, ForwardingMethod, Protocol, Scheduler, SchedulerFlags, Tunnel};

pub(super) fn updates(count: Range<usize>) -> impl Strategy<Value = Vec<Update>> {
    let kind = prop_oneof![
        1 => Just(Kind::DirectorGroup),
        4 => Just(Kind::RealServer),
        4 => Just(Kind::VirtualService),
        1 => Just(Kind::Service),
        2 => Just(Kind::EndpointSlice),
        1 => Just(Kind::ReferenceGrant),
    ];
    vec(kind.prop_flat_map(update), count)
}

/// An object of a kind that is there in some form, invalid, or gone.
pub(super) fn update(kind: Kind) -> impl Strategy<Value = Update> {
    let form = match kind {
        Kind::DirectorGroup => director_group().boxed(),
        Kind::RealServer => real_server().boxed(),
        Kind::VirtualService => virtual_service().boxed(),
        Kind::Service => service().boxed(),
        Kind::EndpointSlice => endpoint_slice().boxed(),
        Kind::ReferenceGrant => reference_grant().boxed(),
    };
    let outcome = prop_oneof![
        6 => form.prop_map(|form| Some(Some(form))),
        1 => Just(Some(None)),
        2 => Just(None),
    ];
    (object(kind), outcome).prop_map(|(object, outcome)| match outcome {
        None => Update::Delete(object),
        Some(form) => Update::Put {
            remarks: match form {
                Some(_) => Vec::new(),
                None => vec![invalid()],
            },
            object,
            form,
        },
    })
}

fn invalid() -> Remark {
    Remark {
        field: "spec".to_owned(),
        reason: Reason::Invalid,
        message: "wrong".to_owned(),
    }
}

fn object(kind: Kind) -> impl Strategy<Value = ObjectRef> {
    let namespace = if kind.is_namespaced() {
        select(vec![Some("a"), Some("b")])
    } else {
        select(vec![None])
    };
    let names = if kind.is_namespaced() {
        vec!["x", "y", "z"]
    } else {
        vec!["g", "h"]
    };
    (namespace, select(names)).prop_map(move |(namespace, name)| ObjectRef {
        kind,
        namespace: namespace.map(Into::into),
        name: name.into(),
    })
}

fn addresses() -> Vec<IpAddr> {
    ["10.0.0.1", "10.0.0.2", "fd00::1"]
        .map(|text| text.parse().unwrap())
        .into()
}

fn all_labels() -> Vec<Label> {
    [("app", "db"), ("app", "web"), ("tier", "one")]
        .map(|(key, value)| (key.into(), value.into()))
        .into()
}

/// Labels of which a key may have one value only.
fn labels() -> impl Strategy<Value = Labels> {
    subsequence(all_labels(), 0..=3).prop_map(|mut labels| {
        labels.dedup_by(|later, earlier| later.0 == earlier.0);
        labels.into()
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    let values = |value: &str| -> Box<[Box<str>]> { [value.into()].into() };
    let condition = select(vec![
        RequirementCondition::In(values("web")),
        RequirementCondition::NotIn(values("web")),
        RequirementCondition::Exists,
        RequirementCondition::DoesNotExist,
    ]);
    let requirement = (select(vec!["app", "tier"]), condition).prop_map(|(key, condition)| Requirement {
        key: key.into(),
        condition,
    });
    (labels(), vec(requirement, 0..2)).prop_map(|(labels, expressions)| Selector {
        labels,
        expressions: expressions.into(),
    })
}

fn director_group() -> impl Strategy<Value = Form> {
    let role: Label = ("role".into(), "director".into());
    let node_selector = select(vec![
        Selector {
            labels: [role].into(),
            ..Selector::default()
        },
        Selector::default(),
        Selector {
            expressions: [Requirement {
                key: "role".into(),
                condition: RequirementCondition::DoesNotExist,
            }]
            .into(),
            ..Selector::default()
        },
    ]);
    let failover = select(vec![
        ValidatedFailover::Static("n1".into()),
        ValidatedFailover::Static("n2".into()),
        ValidatedFailover::Routed,
        ValidatedFailover::NotSupported,
    ]);
    (node_selector, failover).prop_map(|(node_selector, failover)| {
        Form::DirectorGroup(Box::new(ValidatedDirectorGroup {
            node_selector,
            failover,
            interface: None,
            arp_suppression: None,
            sysctls: BTreeMap::new(),
            connection_sync: None,
            timeouts: None,
        }))
    })
}

fn forwarding() -> impl Strategy<Value = ValidatedForwarding> {
    let method = select(vec![
        ForwardingMethod::Masquerade,
        ForwardingMethod::DirectRoute,
        ForwardingMethod::Tunnel(Tunnel::Ipip),
    ]);
    let binding = select(vec![Binding::Address, Binding::Redirect]);
    (method, binding).prop_map(|(method, binding)| ValidatedForwarding {
        binding,
        ..ValidatedForwarding::new(method)
    })
}

fn real_server() -> impl Strategy<Value = Form> {
    (
        select(addresses()),
        option::of(select(vec![80, 8080])),
        0..2u16,
        select(vec![
            AdminState::Enabled,
            AdminState::Draining,
            AdminState::Deleted,
            AdminState::Disabled,
        ]),
        option::weighted(0.2, forwarding()),
        labels(),
    )
        .prop_map(|(address, port, weight, admin_state, forwarding, labels)| {
            Form::RealServer(ValidatedRealServer {
                address,
                port,
                weight,
                admin_state,
                node_name: None,
                forwarding,
                upper_threshold: 0,
                lower_threshold: 0,
                labels,
            })
        })
}

fn listen() -> impl Strategy<Value = Listen> {
    let vips = ["10.0.0.200", "10.0.0.201", "fd00::200"].map(|text| text.parse().unwrap());
    let range = Ports {
        last: 90,
        ..Ports::one(Protocol::Tcp, 80)
    };
    let ports = vec![
        Ports::one(Protocol::Tcp, 80),
        Ports::one(Protocol::Udp, 80),
        Ports::one(Protocol::Tcp, 443),
        range,
    ];
    prop_oneof![
        5 => (subsequence(vips.to_vec(), 0..=2), subsequence(ports, 0..=2), weighted(0.3)).prop_map(
            |(addresses, ports, grouped)| Listen::Addresses {
                addresses: addresses.into(),
                ports: ports.into(),
                grouped,
            },
        ),
        1 => select(vec![Family::V4, Family::V6]).prop_map(|family| Listen::Mark {
            family,
            mark: NonZeroU32::MIN,
            addresses: [].into(),
        }),
    ]
}

fn service_reference() -> impl Strategy<Value = ServiceReference> {
    let namespace = option::weighted(0.5, select(vec!["a", "b"]));
    let port = select(vec!["http", "80", "dns"]);
    (namespace, select(vec!["x", "y"]), port).prop_map(|(namespace, name, port)| ServiceReference {
        namespace: namespace.map(Into::into),
        name: name.into(),
        port: port.into(),
    })
}

fn service() -> impl Strategy<Value = Form> {
    let ports = vec![("http", 80, Protocol::Tcp), ("dns", 53, Protocol::Udp)];
    (weighted(0.1), subsequence(ports, 0..=2)).prop_map(|(external_name, ports)| {
        let port = |(name, port, protocol): (&str, u16, Protocol)| ServicePort {
            name: name.into(),
            port,
            protocol,
        };
        Form::Service(ValidatedService {
            external_name,
            ports: ports.into_iter().map(port).collect(),
        })
    })
}

fn endpoint_slice() -> impl Strategy<Value = Form> {
    let state = select(vec![
        EndpointState::Idle,
        EndpointState::Ending,
        EndpointState::Ready,
    ]);
    let port = option::weighted(0.9, select(vec![80u16, 8080]));
    (
        select(vec!["x", "y"]),
        port,
        vec((select(addresses()), state), 0..3),
    )
        .prop_map(|(service, port, endpoints)| {
            Form::EndpointSlice(ValidatedEndpointSlice {
                service: service.into(),
                ports: [EndpointPort {
                    name: "http".into(),
                    port,
                    protocol: Protocol::Tcp,
                }]
                .into(),
                endpoints: endpoints.into(),
            })
        })
}

fn reference_grant() -> impl Strategy<Value = Form> {
    let to = option::of(subsequence(vec!["x", "y"], 0..=2));
    (subsequence(vec!["a", "b"], 0..=2), to).prop_map(|(from, to)| {
        let names = |names: Vec<&str>| names.into_iter().map(Into::into).collect();
        Form::ReferenceGrant(ValidatedReferenceGrant {
            from: names(from),
            to: to.map(names),
        })
    })
}

fn virtual_service() -> impl Strategy<Value = Form> {
    let source = prop_oneof![
        3 => selector().prop_map(BackendSource::RealServers),
        1 => service_reference().prop_map(BackendSource::Service),
    ];
    let backend = (source, 0..3u32, option::weighted(0.2, Just(8080u16)));
    let fallback = (select(addresses()), option::of(Just(8080u16)))
        .prop_map(|(address, port)| ValidatedFallback { address, port });
    (
        select(vec![None, Some(1), Some(2)]),
        listen(),
        forwarding(),
        vec(backend, 0..3),
        option::weighted(0.2, fallback),
        select(vec!["g", "h"]),
    )
        .prop_map(|(created, listen, forwarding, backends, fallback, group)| {
            let backends = backends.into_iter().zip(0..);
            let backends = backends.map(|((source, weight, target_port), index)| ValidatedBackend {
                source,
                weight,
                target_port,
                index,
            });
            Form::VirtualService(Box::new(ValidatedVirtualService {
                created,
                generation: None,
                listen,
                scheduler: Scheduler::WeightedLeastConnections,
                flags: SchedulerFlags::default(),
                one_packet: false,
                persistence: None,
                forwarding,
                backends: backends.collect(),
                fallback,
                draining: ValidatedDraining {
                    timeout: Duration::from_secs(60),
                    keep: false,
                },
                director_group: group.into(),
            }))
        })
}
