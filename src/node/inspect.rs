//! What about a node stands in the way of what it should have, whether or not its kernel has IPVS.

use crate::catalog::Scope;
use crate::host::preflight::{self, Check, Inspection};
use crate::host::{self, HostError, HostStore};
use crate::plan::{ServiceAround, World, plan, vips_of_kube_proxy};

use super::settle::settle_around;

/// Looks at the node, and at everything that what it should have depends on.
///
/// # Errors
///
/// The kernel could not be asked.
pub fn inspect(world: &mut World, host: &mut impl HostStore) -> Result<Vec<Check>, HostError> {
    let of_groups = crate::plan::globals(world).sysctls;
    let names = of_groups.keys().map(|name| &**name);
    let current = host.read(&mut names.chain(host::SYSCTLS))?;
    world.network = Some(current.network.without_own());
    let plan = plan(world, &Scope::Every);
    let around = plan.services.values().map(|service| &service.around);
    let desired = settle_around(around.flat_map(ServiceAround::all), &plan.globals, &current);
    let inspection = Inspection {
        vips_of_kube_proxy: vips_of_kube_proxy(world),
        ..host.inspect(&preflight::settings(&current.network))?
    };
    Ok(preflight::preflight(&inspection, &current, &desired))
}
