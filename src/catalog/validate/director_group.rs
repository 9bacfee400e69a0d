//! DirectorGroup.

use std::time::Duration;

use crate::api::{self, FailoverType, rules};
use crate::catalog::validated::{ValidatedConnectionSync, ValidatedDirectorGroup, ValidatedFailover};
use crate::ipvs::Timeouts;

use super::{Checker, Validation, parts};

/// Checks a DirectorGroup by the CRD's schema and rules.
pub fn director_group(object: &api::DirectorGroup) -> Validation<ValidatedDirectorGroup> {
    let mut at = Checker::default();
    let group = at.field("spec", |at| check_spec(at, &object.spec));
    at.finish(|| Some(group))
}

fn check_spec(at: &mut Checker, spec: &api::DirectorGroupSpec) -> ValidatedDirectorGroup {
    let api::DirectorGroupSpec {
        node_selector,
        interface,
        failover,
        connection_sync,
        timeouts,
        sysctls,
        arp_suppression,
    } = spec;
    let node_selector = at.field("nodeSelector", |at| parts::selector(at, node_selector));
    check_interface(at, interface.as_deref());
    let failover = at.field("failover", |at| check_failover(at, failover));
    let connection_sync = connection_sync.as_ref().map(|sync| {
        let api::ConnectionSync { sync_id, interface } = sync;
        at.field("connectionSync", |at| {
            at.range("syncId", *sync_id, 0, 255);
            check_interface(at, interface.as_deref());
        });
        ValidatedConnectionSync {
            sync_id: sync_id.and_then(|id| u8::try_from(id).ok()).unwrap_or_default(),
            interface: interface.as_deref().map(Into::into),
        }
    });
    if let Some(sysctls) = sysctls {
        at.length("sysctls", sysctls.len(), 0, 64);
        at.field("sysctls", |at| {
            at.rule(
                rules::SYSCTL_NAMES,
                sysctls.keys().all(|name| name.starts_with("net.ipv4.vs.")),
            );
            for (name, value) in sysctls {
                at.text(name, value, 0, 64);
            }
        });
    }
    let timeouts = timeouts
        .as_ref()
        .map(|timeouts| at.field("timeouts", |at| check_timeouts(at, timeouts)));
    ValidatedDirectorGroup {
        node_selector,
        failover,
        interface: interface.as_deref().map(Into::into),
        arp_suppression: arp_suppression.map(parts::arp_suppression),
        sysctls: sysctls
            .iter()
            .flatten()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect(),
        connection_sync,
        timeouts,
    }
}

/// An interface's name as the kernel takes it: 1 to 15 bytes without slash and space.
fn check_interface(at: &mut Checker, name: Option<&str>) {
    let Some(name) = name else { return };
    at.text("interface", name, 1, 15);
    if name
        .chars()
        .any(|character| character == '/' || is_pattern_space(character))
    {
        at.field("interface", |at| {
            at.invalid("an interface's name has neither slashes nor spaces")
        });
    }
}

/// What `\s` means in a schema's pattern.
fn is_pattern_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

fn check_failover(at: &mut Checker, failover: &api::Failover) -> ValidatedFailover {
    let api::Failover {
        r#type,
        vrrp,
        lease,
        r#static,
        routed,
    } = failover;
    let is = |wanted| *r#type == wanted;
    at.rule(
        rules::STATIC_MEMBER,
        r#static.is_some() == is(FailoverType::Static),
    );
    at.rule(
        rules::FAILOVER_MEMBER,
        (vrrp.is_none() || is(FailoverType::Vrrp))
            && (lease.is_none() || is(FailoverType::Lease))
            && (routed.is_none() || is(FailoverType::Routed)),
    );
    if let Some(api::VrrpFailover {
        virtual_router_id,
        advertisement_interval,
    }) = vrrp
    {
        at.field("vrrp", |at| {
            at.range("virtualRouterId", *virtual_router_id, 1, 255);
            at.duration("advertisementInterval", advertisement_interval.as_ref());
        });
    }
    if let Some(api::LeaseFailover { duration }) = lease {
        at.field("lease", |at| at.duration("duration", duration.as_ref()));
    }
    let active_node = r#static
        .as_ref()
        .map_or("", |options| options.active_node.as_str());
    if r#static.is_some() {
        at.field("static", |at| at.text("activeNode", active_node, 1, 253));
    }
    match r#type {
        FailoverType::Static => ValidatedFailover::Static(active_node.into()),
        FailoverType::Routed => ValidatedFailover::Routed,
        FailoverType::Vrrp | FailoverType::Lease => {
            at.not_supported_because(
                "type",
                "not yet supported: no node of the group is active; use Static or Routed",
            );
            ValidatedFailover::NotSupported
        }
    }
}

/// The kernel counts a timeout's ticks, up to 1000 a second, in a signed 32-bit number.
const MAX_TIMEOUT: Duration = Duration::from_secs(596 * 3600);

fn check_timeouts(at: &mut Checker, timeouts: &api::IpvsTimeouts) -> Timeouts {
    let api::IpvsTimeouts { tcp, tcp_fin, udp } = timeouts;
    let [tcp, tcp_fin, udp] = [("tcp", tcp), ("tcpFin", tcp_fin), ("udp", udp)]
        .map(|(name, value)| at.duration(name, value.as_ref()));
    let in_range = |timeout: Duration| timeout >= Duration::from_secs(1) && timeout <= MAX_TIMEOUT;
    at.rule(
        rules::TIMEOUTS,
        [tcp, tcp_fin, udp].into_iter().flatten().all(in_range),
    );
    // The kernel counts whole seconds and takes 0 for "keep".
    let seconds = |timeout: Option<Duration>| Duration::from_secs(timeout.unwrap_or_default().as_secs());
    Timeouts {
        tcp: seconds(tcp),
        tcp_fin: seconds(tcp_fin),
        udp: seconds(udp),
    }
}
