//! RealServer.

use std::sync::Arc;

use crate::api::{self, rules};
use crate::catalog::validated::{AdminState, ValidatedRealServer};

use super::{Checker, Validation, parse_address, parts, port};

/// Checks a RealServer by the CRD's schema and rules.
pub fn real_server(object: &api::RealServer) -> Validation<ValidatedRealServer> {
    let mut at = Checker::default();
    let spec = at.field("spec", |at| check_spec(at, &object.spec));
    at.finish(|| {
        let labels = object.metadata.labels.iter().flatten();
        let labels = labels
            .map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str())))
            .collect();
        let deleted = object.metadata.deletion_timestamp.is_some();
        spec.map(|spec| ValidatedRealServer {
            labels,
            admin_state: if deleted {
                AdminState::Deleted
            } else {
                spec.admin_state
            },
            ..spec
        })
    })
}

fn check_spec(at: &mut Checker, spec: &api::RealServerSpec) -> Option<ValidatedRealServer> {
    let api::RealServerSpec {
        address,
        port: own_port,
        weight,
        node_name,
        admin_state,
        forwarding,
        upper_threshold,
        lower_threshold,
        health_check,
    } = spec;
    let parsed = parse_address(address);
    at.text("address", address, 2, 45);
    at.field("address", |at| at.rule(rules::ADDRESS_IS_IP, parsed.is_some()));
    at.range("port", *own_port, 1, 65535);
    at.range("weight", *weight, 0, 65535);
    if let Some(name) = node_name {
        at.text("nodeName", name, 1, 253);
    }
    let forwarding = at.field("forwarding", |at| parts::forwarding(at, forwarding.as_ref()));
    at.range("upperThreshold", *upper_threshold, 0, i32::MAX);
    at.range("lowerThreshold", *lower_threshold, 0, i32::MAX);
    at.rule(
        rules::THRESHOLDS,
        lower_threshold.is_none_or(|lower| upper_threshold.is_some_and(|upper| lower <= upper)),
    );
    parts::health_check(at, health_check.as_ref());
    Some(ValidatedRealServer {
        address: parsed?,
        port: own_port.map(port),
        weight: weight.map_or(1, port),
        admin_state: match admin_state {
            None | Some(api::AdminState::Enabled) => AdminState::Enabled,
            Some(api::AdminState::Draining) => AdminState::Draining,
            Some(api::AdminState::Disabled) => AdminState::Disabled,
        },
        node_name: node_name.as_deref().map(Arc::from),
        forwarding,
        upper_threshold: upper_threshold.unwrap_or_default().unsigned_abs(),
        lower_threshold: lower_threshold.unwrap_or_default().unsigned_abs(),
        labels: Box::default(),
    })
}
