//! Parts that several resources have: forwarding, label selectors, health checks.

use std::num::NonZeroU16;

use crate::api::{self, rules};
use crate::catalog::validated::{
    Binding, Requirement, RequirementCondition, Selector, Snat, ValidatedForwarding,
};
use crate::host::ArpSuppression;
use crate::ipvs::{ForwardingMethod, Tunnel, TunnelChecksum};

use super::{Checker, port};

/// The length of the longest label key: a DNS subdomain, a slash and a name.
const LABEL_KEY_MAX: usize = 317;
/// The length of the longest label value.
const LABEL_VALUE_MAX: usize = 63;

/// Checks forwarding and says what it comes to; `None` where the forwarding is left out.
pub(super) fn forwarding(at: &mut Checker, value: Option<&api::Forwarding>) -> Option<ValidatedForwarding> {
    let value = value?;
    let api::Forwarding {
        method,
        tunnel,
        snat,
        real_server_binding,
        arp_suppression,
    } = value;
    let is_tunnel = *method == Some(api::ForwardingMethod::Tunnel);
    let is_masquerade = matches!(method, None | Some(api::ForwardingMethod::Masquerade));
    at.rule(rules::TUNNEL_NEEDS_METHOD, tunnel.is_none() || is_tunnel);
    at.rule(rules::SNAT_NEEDS_MASQUERADE, snat.is_none() || is_masquerade);
    at.rule(
        rules::BINDING_NEEDS_DIRECT_RETURN,
        (real_server_binding.is_none() && arp_suppression.is_none()) || !is_masquerade,
    );
    let tunnel = tunnel.as_ref().map_or(Tunnel::Ipip, |tunnel| {
        at.field("tunnel", |at| check_tunnel(at, tunnel))
    });
    Some(ValidatedForwarding {
        method: match method {
            None | Some(api::ForwardingMethod::Masquerade) => ForwardingMethod::Masquerade,
            Some(api::ForwardingMethod::DirectRoute) => ForwardingMethod::DirectRoute,
            Some(api::ForwardingMethod::Tunnel) => ForwardingMethod::Tunnel(tunnel),
        },
        snat: match snat {
            None | Some(api::Snat::Auto) => Snat::Auto,
            Some(api::Snat::Never) => Snat::Never,
            Some(api::Snat::Always) => Snat::Always,
        },
        binding: match real_server_binding {
            None | Some(api::RealServerBinding::Address) => Binding::Address,
            Some(api::RealServerBinding::Redirect) => Binding::Redirect,
            Some(api::RealServerBinding::None) => Binding::None,
        },
        arp_suppression: arp_suppression.map(self::arp_suppression),
    })
}

/// What a choice of ARP suppression comes to.
pub(super) fn arp_suppression(value: api::ArpSuppression) -> ArpSuppression {
    match value {
        api::ArpSuppression::Auto => ArpSuppression::Auto,
        api::ArpSuppression::Nftables => ArpSuppression::Nftables,
        api::ArpSuppression::Sysctl => ArpSuppression::Sysctl,
        api::ArpSuppression::None => ArpSuppression::None,
    }
}

fn check_tunnel(at: &mut Checker, value: &api::Tunnel) -> Tunnel {
    let api::Tunnel {
        r#type,
        port: tunnel_port,
        checksum,
    } = value;
    let is_gue = *r#type == api::TunnelType::Gue;
    at.range("port", *tunnel_port, 1, 65535);
    at.rule(rules::TUNNEL_PORT, is_gue == tunnel_port.is_some());
    let checksum_fits = match checksum {
        None | Some(api::TunnelChecksum::None) => true,
        Some(api::TunnelChecksum::Full) => *r#type != api::TunnelType::Ipip,
        Some(api::TunnelChecksum::Remote) => is_gue,
    };
    at.rule(rules::TUNNEL_CHECKSUM, checksum_fits);
    let checksum = match checksum {
        None | Some(api::TunnelChecksum::None) => TunnelChecksum::None,
        Some(api::TunnelChecksum::Full) => TunnelChecksum::Full,
        Some(api::TunnelChecksum::Remote) => TunnelChecksum::Remote,
    };
    match (r#type, tunnel_port.and_then(|value| NonZeroU16::new(port(value)))) {
        (api::TunnelType::Gue, Some(port)) => Tunnel::Gue { port, checksum },
        (api::TunnelType::Gre, _) => Tunnel::Gre { checksum },
        _ => Tunnel::Ipip,
    }
}

/// Checks a label selector.
pub(super) fn selector(at: &mut Checker, value: &api::LabelSelector) -> Selector {
    let api::LabelSelector {
        match_labels,
        match_expressions,
    } = value;
    at.length("matchLabels", match_labels.len(), 0, 16);
    at.field("matchLabels", |at| {
        for (key, value) in match_labels {
            at.text(key, value, 0, LABEL_VALUE_MAX);
        }
    });
    at.length("matchExpressions", match_expressions.len(), 0, 16);
    let expressions = at.field("matchExpressions", |at| {
        match_expressions
            .iter()
            .enumerate()
            .map(|(index, requirement)| at.item(index, |at| check_requirement(at, requirement)))
            .collect()
    });
    let labels = match_labels
        .iter()
        .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
        .collect();
    Selector { labels, expressions }
}

fn check_requirement(at: &mut Checker, value: &api::LabelSelectorRequirement) -> Requirement {
    use api::SelectorOperator::{DoesNotExist, Exists, In, NotIn};
    let api::LabelSelectorRequirement {
        key,
        operator,
        values,
    } = value;
    at.text("key", key, 1, LABEL_KEY_MAX);
    let given = values.as_deref().unwrap_or_default();
    at.length("values", given.len(), 0, 32);
    at.field("values", |at| {
        for (index, value) in given.iter().enumerate() {
            at.item(index, |at| at.characters(value, 0, LABEL_VALUE_MAX));
        }
    });
    at.rule(
        rules::SELECTOR_VALUES,
        matches!(operator, In | NotIn) != given.is_empty(),
    );
    let values = || given.iter().map(|value| value.as_str().into()).collect();
    let condition = match operator {
        In => RequirementCondition::In(values()),
        NotIn => RequirementCondition::NotIn(values()),
        Exists => RequirementCondition::Exists,
        DoesNotExist => RequirementCondition::DoesNotExist,
    };
    Requirement {
        key: key.as_str().into(),
        condition,
    }
}

/// Checks a health check, which nothing obeys yet.
pub(super) fn health_check(at: &mut Checker, value: Option<&api::HealthCheck>) {
    let Some(api::HealthCheck {
        r#type,
        tcp,
        http,
        interval,
        timeout,
        rise,
        fall,
    }) = value
    else {
        return;
    };
    at.field("healthCheck", |at| {
        let is = |wanted| *r#type == wanted;
        at.rule(
            rules::HEALTH_CHECK_MEMBER,
            (tcp.is_none() || is(api::HealthCheckType::Tcp))
                && (http.is_none() || is(api::HealthCheckType::Http)),
        );
        if let Some(api::TcpCheck { port }) = tcp {
            at.field("tcp", |at| at.range("port", *port, 1, 65535));
        }
        if let Some(api::HttpCheck { port, path, host }) = http {
            at.field("http", |at| {
                at.range("port", *port, 1, 65535);
                if let Some(path) = path {
                    at.text("path", path, 1, 1024);
                }
                if let Some(host) = host {
                    at.text("host", host, 1, 253);
                }
            });
        }
        at.duration("interval", interval.as_ref());
        at.duration("timeout", timeout.as_ref());
        at.range("rise", *rise, 1, 100);
        at.range("fall", *fall, 1, 100);
    });
    at.not_supported("healthCheck", *r#type != api::HealthCheckType::None);
}
