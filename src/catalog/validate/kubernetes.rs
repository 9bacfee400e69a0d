//! Services, EndpointSlices and ReferenceGrants → what planning needs of them. The API server has checked them; what is
//! none of Weir's business is left out, and nothing is invalid.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::api::{self, ReferenceGrant};
use crate::catalog::validated::{
    EndpointPort, EndpointState, ServicePort, ValidatedEndpointSlice, ValidatedReferenceGrant,
    ValidatedService,
};
use crate::ipvs::Protocol;

use super::{Validation, parse_address};

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Reads a Service.
pub fn service(object: &Service) -> Validation<ValidatedService> {
    let spec = object.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    let ports = ports.filter_map(|port| {
        Some(ServicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            port: u16::try_from(port.port).ok()?,
            protocol: protocol(port.protocol.as_deref())?,
        })
    });
    good(Some(ValidatedService {
        external_name: spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName"),
        ports: ports.collect(),
    }))
}

/// Reads an EndpointSlice; one that belongs to no Service, or holds names instead of addresses, is nothing to Weir.
pub fn endpoint_slice(object: &EndpointSlice) -> Validation<ValidatedEndpointSlice> {
    let labels = object.metadata.labels.as_ref();
    let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) else {
        return good(None);
    };
    let ports = object.ports.iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: port.name.as_deref().unwrap_or_default().into(),
            port: port.port.map(u16::try_from).transpose().ok()?,
            protocol: protocol(port.protocol.as_deref())?,
        })
    });
    let mut endpoints: BTreeMap<IpAddr, EndpointState> = BTreeMap::new();
    for endpoint in &object.endpoints {
        // The others are the same endpoint's, and not for use (`Endpoint.addresses` of the API reference).
        let address = endpoint.addresses.first().and_then(|text| parse_address(text));
        if let (Some(address), Some(state)) = (address, state(endpoint)) {
            let best = endpoints.entry(address).or_insert(state);
            *best = (*best).max(state);
        }
    }
    good(Some(ValidatedEndpointSlice {
        service: service.as_str().into(),
        ports: ports.collect(),
        endpoints: endpoints.into_iter().collect(),
    }))
}

/// Reads a ReferenceGrant, as far as it is about virtual services and Services.
pub fn reference_grant(object: &ReferenceGrant) -> Validation<ValidatedReferenceGrant> {
    let from = object.spec.from.iter();
    let from = from.filter(|from| from.group == api::GROUP && from.kind == "VirtualService");
    let to: Vec<_> = object
        .spec
        .to
        .iter()
        .filter(|to| to.group.is_empty() && to.kind == "Service")
        .collect();
    let names = to.iter().map(|to| to.name.as_deref().map(Arc::from));
    good(Some(ValidatedReferenceGrant {
        from: from.map(|from| from.namespace.as_str().into()).collect(),
        // One without a name is for all.
        to: names.collect(),
    }))
}

/// What its conditions come to; absent ones are to be taken for good ones (`EndpointConditions` of the API reference).
/// One that ends and serves no more is as good as gone.
fn state(endpoint: &Endpoint) -> Option<EndpointState> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions
        .and_then(|conditions| conditions.serving)
        .unwrap_or(ready);
    let terminating = conditions
        .and_then(|conditions| conditions.terminating)
        .unwrap_or(false);
    match (ready, serving, terminating) {
        (true, ..) => Some(EndpointState::Ready),
        (false, true, true) => Some(EndpointState::Ending),
        (false, false, true) => None,
        (false, _, false) => Some(EndpointState::Idle),
    }
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn good<T>(value: Option<T>) -> Validation<T> {
    Validation {
        value,
        remarks: Vec::new(),
    }
}
