//! A virtual service → the services of the kernel that it is made of.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::host::Listened;
use crate::ipvs::{Family, ServiceKey};

use crate::catalog::validated::{Listen, Ports, ValidatedVirtualService};
use crate::catalog::{Catalog, Claimed, Finding, NamespacedName, ObjectRef, Reason};

/// One service of the kernel, and what clients connect to.
#[derive(Debug)]
pub(super) struct KernelService {
    pub(super) key: ServiceKey,
    /// Nothing where a mark is set by somebody else's rules.
    pub(super) listened: Vec<Listened>,
}

/// The services of the kernel that a virtual service has.
#[derive(Debug, Default)]
pub(super) struct KernelServices {
    pub(super) services: Vec<KernelService>,
    /// What it claims and another one has.
    pub(super) conflicts: Vec<Finding>,
}

/// The services of the kernel that a virtual service has; for what another one has there is a finding instead.
///
/// A single port is a service of its own. A range of ports is one by a mark of Weir's, and so is a group of listeners,
/// once for each family.
pub(super) fn services(
    catalog: &Catalog,
    name: &NamespacedName,
    service: &ValidatedVirtualService,
) -> KernelServices {
    let mut conflicts = Vec::new();
    let services = claimed(catalog, name, service, &mut conflicts);
    KernelServices { services, conflicts }
}

fn claimed(
    catalog: &Catalog,
    name: &NamespacedName,
    service: &ValidatedVirtualService,
    findings: &mut Vec<Finding>,
) -> Vec<KernelService> {
    let mut conflict = |claimed: &Claimed| match catalog.holder(claimed) {
        Some(holder) if holder != name => {
            findings.push(Finding::new(
                ObjectRef::virtual_service(name),
                "",
                Reason::Conflict,
                format!("{claimed} belongs to VirtualService {holder}, which was there first: remove one of the two"),
            ));
            true
        }
        _ => false,
    };
    let (addresses, ports, grouped) = match &service.listen {
        Listen::Mark { family, mark, .. } => {
            let (family, mark) = (*family, *mark);
            let taken = conflict(&Claimed::Mark { family, mark });
            let service = KernelService {
                key: ServiceKey::Mark { family, mark },
                listened: Vec::new(),
            };
            return if taken { Vec::new() } else { vec![service] };
        }
        Listen::Addresses {
            addresses,
            ports,
            grouped,
        } => (addresses, ports, *grouped),
    };
    let mut listened: Vec<(Listened, Ports)> = Vec::new();
    for address in addresses {
        for ports in ports {
            if !conflict(&Claimed::ports(*address, *ports)) {
                listened.push((
                    Listened::new(*address, ports.protocol, ports.first..=ports.last),
                    *ports,
                ));
            }
        }
    }
    let mut services = Vec::new();
    if grouped {
        let listened = listened.into_iter().map(|(listened, _)| listened).collect();
        services.extend(marked(catalog, name, service, None, listened, findings));
        return services;
    }
    let (ranges, single): (Vec<_>, Vec<_>) = listened.into_iter().partition(|(_, ports)| ports.is_range());
    services.extend(single.into_iter().map(|(listened, ports)| KernelService {
        key: ServiceKey::Address {
            protocol: ports.protocol,
            address: listened.address,
            port: ports.first,
        },
        listened: vec![listened],
    }));
    let distinct: BTreeSet<Ports> = ranges.iter().map(|(_, ports)| *ports).collect();
    for ports in distinct {
        let of_range = ranges.iter().filter(|(_, range)| *range == ports);
        let listened = of_range.map(|(listened, _)| listened.clone()).collect();
        services.extend(marked(catalog, name, service, Some(ports), listened, findings));
    }
    services
}

/// The services for what has a mark of Weir's, one for each family.
fn marked(
    catalog: &Catalog,
    name: &NamespacedName,
    service: &ValidatedVirtualService,
    ports: Option<Ports>,
    listened: Vec<Listened>,
    findings: &mut Vec<Finding>,
) -> Vec<KernelService> {
    if listened.is_empty() {
        return Vec::new();
    }
    let Some(mark) = catalog.mark(name, service, ports) else {
        findings.push(Finding::new(
            ObjectRef::virtual_service(name),
            if ports.is_none() { "spec.groupListeners" } else { "spec.listeners" },
            Reason::Conflict,
            format!(
                "all marks of {} are given to other virtual services: give Weir more bits with --mark-mask, the same \
                 on every node",
                catalog.mark_mask()
            ),
        ));
        return Vec::new();
    };
    let of = |family| -> Vec<Listened> {
        let same = |listened: &&Listened| Family::of(listened.address) == family;
        listened.iter().filter(same).cloned().collect()
    };
    [Family::V4, Family::V6]
        .into_iter()
        .map(|family| KernelService {
            key: ServiceKey::Mark { family, mark },
            listened: of(family),
        })
        .filter(|service| !service.listened.is_empty())
        .collect()
}

/// The VIPs of a virtual service that it has anything on.
pub(super) fn vips(service: &ValidatedVirtualService, services: &[KernelService]) -> BTreeSet<IpAddr> {
    let listened = services.iter().flat_map(|service| &service.listened);
    let of_mark: &[IpAddr] = match &service.listen {
        Listen::Mark { addresses, .. } if !services.is_empty() => addresses,
        _ => &[],
    };
    listened
        .map(|listened| listened.address)
        .chain(of_mark.iter().copied())
        .collect()
}
