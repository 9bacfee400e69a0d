//! The audit: everything is compared with the kernel now and then, whatever has been heard. It comes in slices, so that news
//! never wait for more than one of them. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::catalog::{NamespacedName, Scope};
use crate::node::{AroundWork, TableWork, Work};
use crate::plan::{Plan, World, globals, plan, plan_service, vips_of_kube_proxy};

use super::pending::work;

/// How many virtual services, and how many destinations, make a slice: reading one service with ten destinations takes the
/// kernel and this program 0.12 ms together (docs/benchmarks.md).
const SERVICES: usize = 32;
const DESTINATIONS: usize = 320;

/// The audits of one agent.
#[derive(Debug)]
pub(super) struct Audit {
    interval: Duration,
    at: Option<Place>,
    /// How long the slices of this one have taken.
    pub(super) took: Duration,
}

/// How far an audit has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// The virtual services after this one are next.
    After(Option<NamespacedName>),
    /// All that is left is what no virtual service has for itself.
    Rest,
}

impl Audit {
    /// None is under way.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            at: None,
            took: Duration::ZERO,
        }
    }

    /// Begins with one, unless one is under way.
    pub(super) fn begin(&mut self) {
        if self.at.is_none() {
            self.at = Some(Place::After(None));
            self.took = Duration::ZERO;
        }
    }

    /// Has what no virtual service has for itself looked at: the others have just been.
    pub(super) fn begin_with_rest(&mut self) {
        self.at = Some(Place::Rest);
        self.took = Duration::ZERO;
    }

    /// Whether one is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.at.is_some()
    }

    /// When the next one begins after one that ended now. Those of many nodes are spread over a tenth of the interval.
    pub(super) fn next(&self, node: &str, now: Instant) -> Instant {
        let share = (crate::digest::text(node) % 1000) as u32;
        now + (self.interval - self.interval / 10 * share / 1000)
    }

    /// The next slice, if one is under way. The last one is that of what no virtual service has for itself.
    pub(super) fn slice(&mut self, world: &World, now: Instant) -> Option<Work> {
        let Place::After(last) = self.at.clone()? else {
            self.at = None;
            return Some(rest(world, now));
        };
        let mut plan = Plan {
            globals: globals(world),
            ..Plan::default()
        };
        let mut names = BTreeSet::new();
        let mut destinations = 0;
        let mut left = world.catalog.virtual_services_after(last.as_ref());
        for (name, service) in left.by_ref() {
            let planned = plan_service(world, &name, service);
            destinations += planned
                .entries
                .iter()
                .map(|(_, entry)| 1 + entry.destinations.len())
                .sum::<usize>();
            names.insert(name.clone());
            plan.services.insert(name, planned);
            if names.len() == SERVICES || destinations >= DESTINATIONS {
                break;
            }
        }
        let Some(last) = names.last() else {
            self.at = None;
            return Some(rest(world, now));
        };
        self.at = Some(match left.next() {
            Some(_) => Place::After(Some(last.clone())),
            None => Place::Rest,
        });
        let planned = (Scope::These(names), plan);
        let (table, around) = (TableWork::Planned, AroundWork::IfNeeded);
        Some(work(world, planned, table, around, now))
    }
}

fn rest(world: &World, now: Instant) -> Work {
    let nobody = Scope::default();
    let plan = plan(world, &nobody);
    let around = AroundWork::Inspect {
        vips_of_kube_proxy: vips_of_kube_proxy(world),
    };
    work(world, (nobody, plan), TableWork::Unwanted, around, now)
}
