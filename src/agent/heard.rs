//! What is heard of the kernel, and what of it concerns this node. Pure: what time it is, is an argument.
//!
//! An event is a hint to look, and nothing that one says is believed. Most are about things that Weir has nothing to do
//! with, such as the links of pods that come and go; of the others, those that its own sockets caused say nothing new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::host::Link;
use crate::netlink::{Event, Heard};
use crate::nft::TABLE;
use crate::phases::contest::Work;
use crate::plan::World;

/// What happens together is looked at together: a link that goes down takes its addresses and routes along.
const QUIET: Duration = Duration::from_millis(10);
/// Where looks find nothing, each waits longer than the one before, up to this: on a node whose routes change all the time
/// the audit would else never end.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The kernel does not say of all events that this node's own steps caused them; those that come so soon after did.
const ECHO: Duration = Duration::from_millis(50);
/// How many events may wait while something is done.
const WAITING: usize = 4096;
/// The routing table `main`, the only one that planning reads.
const MAIN: u32 = 254;

/// What has been heard of the kernel, as far as it is not looked at yet.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// The ports of this node's own sockets.
    ports: BTreeSet<u32>,
    /// Until when events that nobody owns up to are an echo of own steps.
    echo_until: Option<Instant>,
    /// Which links carried packets when they were last heard of.
    carriers: BTreeMap<u32, bool>,
    /// Whether rules of Weir's were touched since the last generation was told.
    touched_rules: bool,
    /// Events that have not been judged yet.
    waiting: Vec<Event>,
    /// Whether a look has begun at what was heard.
    looking: bool,
    /// How long a look waits, since the last ones found nothing.
    wait: Duration,
    last_look: Option<Instant>,
}

/// What an event asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Concerned {
    /// A look at what is around the table: somebody may have undone this.
    Around(Work),
    /// A look at the table: its module came or went.
    Table,
    /// A look at everything: events were lost.
    Everything,
    /// The VIPs of a link are to be announced: it carries packets again.
    Carrier(Box<str>),
    /// Nothing; it says which program changed Weir's rules.
    Program(String),
}

impl Hearing {
    /// Takes in that own steps around the table were taken until now, by sockets with these ports.
    pub(super) fn took_steps(&mut self, any: bool, ports: impl IntoIterator<Item = u32>, now: Instant) {
        self.ports.extend(ports);
        if any {
            self.echo_until = Some(now + ECHO);
        }
    }

    /// Takes in events, to be judged later.
    pub(super) fn hear(&mut self, events: Vec<Event>) {
        // What this node's own sockets caused may be ten thousand addresses; of links it says whether they carry packets.
        let is_news =
            |event: &Event| !self.ports.contains(&event.port) || matches!(event.heard, Heard::Link { .. });
        self.waiting.extend(events.into_iter().filter(is_news));
        if self.waiting.len() > WAITING {
            self.waiting = vec![Event::LOST];
        }
    }

    /// What the events ask for that were taken in.
    pub(super) fn concerned(&mut self, world: &World, now: Instant) -> Vec<Concerned> {
        let events = std::mem::take(&mut self.waiting);
        let concerned = events.iter().filter_map(|event| self.judge(event, world, now));
        concerned.collect()
    }

    /// What an event asks for, if anything.
    fn judge(&mut self, event: &Event, world: &World, now: Instant) -> Option<Concerned> {
        let is_own = self.ports.contains(&event.port);
        let is_echo = event.port == 0 && self.echo_until.is_some_and(|until| now < until);
        match &event.heard {
            Heard::Lost => Some(Concerned::Everything),
            Heard::Link {
                index,
                name,
                carrier,
                removed,
            } => {
                let carried = match removed {
                    true => self.carriers.remove(index),
                    false => self.carriers.insert(*index, *carrier),
                };
                let link = known(world, *index, name.as_deref())?;
                if *carrier && carried == Some(false) {
                    return Some(Concerned::Carrier(link));
                }
                (!is_own && !is_echo).then_some(Concerned::Around(Work::Addresses))
            }
            Heard::Address { address, .. } => {
                let is_link_local = match address {
                    std::net::IpAddr::V6(address) => address.is_unicast_link_local(),
                    std::net::IpAddr::V4(_) => false,
                };
                (!is_own && !is_echo && !is_link_local).then_some(Concerned::Around(Work::Addresses))
            }
            Heard::Route { table, .. } => {
                (!is_own && !is_echo && *table == MAIN).then_some(Concerned::Around(Work::Addresses))
            }
            Heard::Ruleset { table } => {
                let touched = !is_own && **table == *TABLE;
                self.touched_rules |= touched;
                touched.then_some(Concerned::Around(Work::Rules))
            }
            Heard::Generation { by } => {
                let touched = std::mem::take(&mut self.touched_rules);
                let program = by.as_ref().filter(|_| touched)?;
                Some(Concerned::Program(format!(
                    "{} (process {})",
                    program.name, program.process
                )))
            }
            Heard::GenericFamily { name, .. } => (**name == *"IPVS").then_some(Concerned::Table),
        }
    }

    /// When to look at what has been heard of now.
    pub(super) fn look_at(&self, now: Instant) -> Instant {
        let last = self.last_look.map_or(now, |last| last + self.wait);
        last.max(now + QUIET)
    }

    /// Takes in that a look begins.
    pub(super) fn begin_look(&mut self) {
        self.looking = true;
    }

    /// Takes in that a pass has ended, and whether there was anything to do around the table.
    pub(super) fn looked(&mut self, found_something: bool, now: Instant) {
        if !std::mem::take(&mut self.looking) {
            return;
        }
        let calm = self.last_look.is_none_or(|last| now > last + LONGEST_WAIT * 10);
        self.wait = match found_something || calm {
            true => Duration::ZERO,
            false => (self.wait * 2).clamp(QUIET, LONGEST_WAIT),
        };
        self.last_look = Some(now);
    }
}

/// The name of a link that Weir has to do with: one of its own, one with addresses that planning knows, or one that a
/// director group names.
fn known(world: &World, index: u32, name: Option<&str>) -> Option<Box<str>> {
    let network = world.network.as_ref()?;
    let matters = |link: &&Link| !link.addresses.is_empty();
    if let Some(link) = network.link_by_index(index).filter(matters) {
        return Some(link.name.clone());
    }
    let name = name?;
    let is_named = world.catalog.director_groups().any(|(_, group)| {
        let of_sync = group
            .connection_sync
            .as_ref()
            .and_then(|sync| sync.interface.as_deref());
        group.interface.as_deref() == Some(name) || of_sync == Some(name)
    });
    // Weir's own links are weir0 and those of tunnels, such as weir-ipip-1a2b3.
    (is_named || name.starts_with("weir")).then(|| name.into())
}

#[cfg(test)]
mod tests;
