//! Lingering: a node that is no longer one of a virtual service's real servers keeps the VIP, and what else it had for it,
//! while the directors drain it. Without the VIP it would answer nothing any more, and the connections that it has would
//! be lost, whatever the directors do. Pure: what time it is is an argument.
//!
//! A real server does not see what the directors count, so this lasts as long as draining may: `draining.timeout` from
//! when this agent saw the change. What is deleted in a cluster has been drained before it is gone, and needs nothing
//! more. An agent that restarts knows of nothing that lingers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::catalog::NamespacedName;
use crate::host::Around;
use crate::plan::{ServiceAround, ServicePlan};

/// What a node still has as a real server that it no longer is.
#[derive(Debug, Default)]
pub struct Lingering {
    left: BTreeMap<NamespacedName, BTreeMap<IpAddr, Left>>,
}

/// One real server's part, after it.
#[derive(Debug, Clone, PartialEq)]
struct Left {
    around: Around,
    since: Instant,
    /// `None` is until the virtual service goes, too.
    until: Option<Instant>,
}

impl Lingering {
    /// Takes in what a virtual service needs, in place of what it needed, and says whether that changes what lingers.
    /// `after` is its plan, if it is still there: the connections of one that is not have been cut.
    pub fn take_in(
        &mut self,
        name: &NamespacedName,
        before: Option<&ServiceAround>,
        after: Option<&ServicePlan>,
        now: Instant,
    ) -> bool {
        let earlier = self.left.remove(name).unwrap_or_default();
        let Some(service) = after else {
            return !earlier.is_empty();
        };
        let is_served = |address: &IpAddr| service.around.real_servers.contains_key(address);
        let parts = before.into_iter().flat_map(|before| &before.real_servers);
        let leaving = parts.filter(|(address, part)| !part.deleted && !is_served(address));
        let leaving = leaving.map(|(address, part)| {
            let left = Left {
                around: part.around.clone(),
                since: now,
                until: None,
            };
            (*address, left)
        });
        let mut left: BTreeMap<IpAddr, Left> = leaving.chain(earlier.clone()).collect();
        left.retain(|address, left| {
            left.until = until(left.since, service);
            !is_served(address) && left.until.is_none_or(|until| until > now)
        });
        for left in left.values_mut() {
            left.around.keep_vips(&service.vips);
        }
        let news = left != earlier;
        if !left.is_empty() {
            self.left.insert(name.clone(), left);
        }
        news
    }

    /// What is still to be there.
    pub fn around(&self) -> impl Iterator<Item = &Around> {
        self.all().map(|left| &left.around)
    }

    /// The virtual services of which something lingers.
    pub fn names(&self) -> impl Iterator<Item = &NamespacedName> {
        self.left.keys()
    }

    /// When something of a virtual service has lingered long enough.
    pub fn ends(&self, name: &NamespacedName) -> Option<Instant> {
        let left = self.left.get(name)?;
        left.values().filter_map(|left| left.until).min()
    }

    fn all(&self) -> impl Iterator<Item = &Left> {
        self.left.values().flat_map(BTreeMap::values)
    }
}

fn until(since: Instant, service: &ServicePlan) -> Option<Instant> {
    let draining = service.draining;
    let until = since.checked_add(draining.timeout);
    until.filter(|_| !draining.keep)
}
