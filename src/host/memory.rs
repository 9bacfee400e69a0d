//! A node in memory, for tests of whoever takes steps.

use crate::nft::Ruleset;

use super::SYSCTLS;
use super::change::{HostChange, HostError, HostFailure, HostStore, take_in_order};
use super::network::{Address, Link};
use super::preflight::Inspection;
use super::state::{BoundAddress, ChangedSysctl, Current};

/// A node that does what it is told, and refuses what a kernel refuses.
#[derive(Debug, Clone)]
pub struct MemoryHost {
    /// What is there.
    pub current: Current,
    /// What a look at what stands in the way finds.
    pub inspection: Inspection,
    /// Every step that was asked for, in order.
    pub taken: Vec<HostChange>,
    /// Steps that are refused, by their words.
    pub refused: Vec<String>,
    /// Whether it cannot be read.
    pub unreadable: bool,
}

/// It has the settings that every node has.
impl Default for MemoryHost {
    fn default() -> Self {
        Self {
            current: Current {
                sysctls: SYSCTLS.map(|name| (name.into(), "0".into())).into(),
                ..Current::default()
            },
            inspection: Inspection::default(),
            taken: Vec::new(),
            refused: Vec::new(),
            unreadable: false,
        }
    }
}

impl MemoryHost {
    fn take(&mut self, change: &HostChange) -> Result<(), &'static str> {
        let current = &mut self.current;
        match change {
            HostChange::SetSysctl { name, value } => {
                let before = current.sysctls.insert(name.clone(), value.clone());
                let set = value.clone();
                match current.changed_sysctls.get_mut(name) {
                    Some(changed) => changed.set = set,
                    None => {
                        let before = before.ok_or("this kernel has no such setting")?;
                        current
                            .changed_sysctls
                            .insert(name.clone(), ChangedSysctl { before, set });
                    }
                }
            }
            HostChange::RestoreSysctl { name } => {
                if let Some(ChangedSysctl { before, set }) = current.changed_sysctls.remove(name)
                    && current.sysctls.get(name) == Some(&set)
                {
                    current.sysctls.insert(name.clone(), before);
                }
            }
            HostChange::AddLink { name, kind } => {
                let index = current
                    .network
                    .links
                    .iter()
                    .map(|link| link.index)
                    .max()
                    .unwrap_or(0)
                    + 1;
                current.network.links.push(Link {
                    index,
                    name: name.clone(),
                    ours: true,
                    up: true,
                    mtu: 1500,
                    ..Link::default()
                });
                current.links.insert(name.clone(), *kind);
                current.sysctls.insert(rp_filter(name), "0".into());
            }
            HostChange::DeleteLink { name } => {
                current
                    .links
                    .remove(name)
                    .ok_or("there is no such link of Weir's")?;
                current.network.links.retain(|link| link.name != *name);
                current.sysctls.remove(&rp_filter(name));
            }
            HostChange::AddAddress(bound) => {
                let link = link_of(current, bound)?;
                link.addresses.push(Address {
                    address: bound.address,
                    prefix: if bound.address.is_ipv4() { 32 } else { 128 },
                    ours: true,
                });
            }
            HostChange::DeleteAddress(bound) => {
                let link = link_of(current, bound)?;
                link.addresses
                    .retain(|own| !own.ours || own.address != bound.address);
            }
            HostChange::OpenGuePort(port) => {
                current.gue_ports.insert(*port);
                current.own_gue_ports.insert(*port);
            }
            HostChange::CloseGuePort(port) => {
                current.gue_ports.remove(port);
                current.own_gue_ports.remove(port);
            }
            HostChange::ChangeRules(transaction) => {
                let rules = current.rules.get_or_insert_with(Ruleset::new);
                *rules = transaction.apply_to(rules);
            }
            HostChange::Announce(bound) => drop(link_of(current, bound)?),
        }
        Ok(())
    }
}

/// The setting that each link has.
fn rp_filter(link: &str) -> Box<str> {
    format!("net.ipv4.conf.{link}.rp_filter").into()
}

fn link_of<'a>(current: &'a mut Current, bound: &BoundAddress) -> Result<&'a mut Link, &'static str> {
    let mut links = current.network.links.iter_mut();
    links
        .find(|link| link.name == bound.link)
        .ok_or("there is no such link")
}

impl HostStore for MemoryHost {
    fn read(&mut self, _: &mut dyn Iterator<Item = &str>) -> Result<Current, HostError> {
        if self.unreadable {
            return Err(HostError {
                act: "read the node".into(),
                source: "it is unreadable".into(),
            });
        }
        Ok(self.current.clone())
    }

    fn inspect(&mut self, _: &[String]) -> Result<Inspection, HostError> {
        Ok(self.inspection.clone())
    }

    fn apply(&mut self, changes: &[HostChange], failures: &mut Vec<HostFailure>) {
        take_in_order(changes, failures, |run| {
            let mut failed = Vec::new();
            for (index, change) in run.iter().enumerate() {
                self.taken.push((*change).clone());
                let refused = self.refused.contains(&change.to_string());
                let result = if refused {
                    Err("refused")
                } else {
                    self.take(change)
                };
                failed.extend(result.err().map(|message| (index, message.into())));
            }
            failed
        });
    }
}
