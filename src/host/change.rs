//! One step on the way from what a node has to what it should have, and the outcome of steps.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

use crate::nft::Transaction;

use super::preflight::Inspection;
use super::setting;
use super::state::{BoundAddress, Current, GuePort, LinkKind, VIP_LINK};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChange {
    /// Give a setting a value; what it was is remembered first.
    SetSysctl {
        /// Its name (`net.ipv4.ip_forward`).
        name: Box<str>,
        /// Its value from now on.
        value: Box<str>,
    },
    /// Give a setting back the value it had before Weir changed it, unless somebody else has changed it since.
    RestoreSysctl {
        /// Its name.
        name: Box<str>,
    },
    /// Make a link, up, with Weir's alias.
    AddLink {
        /// Its name.
        name: Box<str>,
        /// What it is.
        kind: LinkKind,
    },
    /// Take a link of Weir's own away.
    DeleteLink {
        /// Its name.
        name: Box<str>,
    },
    /// Put a VIP on a link, tagged as Weir's.
    AddAddress(BoundAddress),
    /// Take a VIP of Weir's off a link.
    DeleteAddress(BoundAddress),
    /// Take encapsulated packets on a UDP port.
    OpenGuePort(GuePort),
    /// No longer do so.
    CloseGuePort(GuePort),
    /// Change the tables named `weir`, all in one transaction or not at all.
    ChangeRules(Transaction),
    /// Tell the neighbours on a link that an address is here: gratuitous ARP, or an unsolicited neighbour
    /// advertisement.
    Announce(BoundAddress),
}

/// What is done and to what: "add address 10.0.0.200 on eth0".
impl fmt::Display for HostChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSysctl { name, value } => write!(formatter, "set {name} to {value}"),
            Self::RestoreSysctl { name } => write!(formatter, "restore {name}"),
            Self::AddLink { name, kind } => write!(formatter, "add link {name} ({kind})"),
            Self::DeleteLink { name } => write!(formatter, "delete link {name}"),
            Self::AddAddress(bound) => write!(formatter, "add address {bound}"),
            Self::DeleteAddress(bound) => write!(formatter, "delete address {bound}"),
            Self::OpenGuePort(port) => write!(formatter, "open {port}"),
            Self::CloseGuePort(port) => write!(formatter, "close {port}"),
            Self::ChangeRules(transaction) => write!(formatter, "change nftables: {transaction}"),
            Self::Announce(bound) => write!(formatter, "announce {bound}"),
        }
    }
}

/// Why the node could not be read at all.
#[derive(Debug, Error)]
#[error("cannot {act}")]
pub struct HostError {
    /// What was tried: "read the node's links".
    pub act: Box<str>,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A step that failed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFailure {
    /// The step.
    pub change: HostChange,
    /// Why, and the way out where one is known.
    pub message: Box<str>,
}

/// "cannot add address 10.0.0.200 on eth0: …".
impl fmt::Display for HostFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}: {}", self.change, self.message)
    }
}

/// A node whose state around the IPVS table can be read and changed.
pub trait HostStore {
    /// Reads what is there. `sysctls` names the settings whose values matter.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    fn read(&mut self, sysctls: &mut dyn Iterator<Item = &str>) -> Result<Current, HostError>;

    /// Looks at what a pass does not need but may stand in its way. `sysctls` are the names of [`preflight::settings`].
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    ///
    /// [`preflight::settings`]: super::preflight::settings
    fn inspect(&mut self, sysctls: &[String]) -> Result<Inspection, HostError>;

    /// The netlink ports by which steps are taken: the kernel says them beside what it tells of changes.
    fn ports(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Takes steps in their order, and adds those that fail to `failures`, which may hold earlier ones. A step that
    /// depends on a failed one is not taken and fails as well.
    fn apply(&mut self, changes: &[HostChange], failures: &mut Vec<HostFailure>);
}

/// Takes steps in their order. `take` is given those that can be taken in one go, and says of which of them it failed at
/// and why. What would do harm after the failures there have been is not tried: no VIP comes to a real server that could
/// not be kept quiet, and nothing goes away that kept it quiet until now.
pub(super) fn take_in_order(
    changes: &[HostChange],
    failures: &mut Vec<HostFailure>,
    mut take: impl FnMut(&[&HostChange]) -> Vec<(usize, Box<str>)>,
) {
    for run in changes.chunk_by(HostChange::goes_with) {
        let failed = Failed::of(failures);
        let (mut allowed, mut held_back) = (Vec::new(), Vec::new());
        for change in run {
            match failed.holds_back(change) {
                None => allowed.push(change),
                Some(why) => held_back.push(HostFailure {
                    change: change.clone(),
                    message: format!("not tried, because {why}").into(),
                }),
            }
        }
        failures.append(&mut held_back);
        if allowed.is_empty() {
            continue;
        }
        failures.extend(take(&allowed).into_iter().map(|(index, message)| HostFailure {
            change: allowed[index].clone(),
            message,
        }));
    }
}

/// What failed, as far as other steps depend on it.
#[derive(Debug, Default)]
struct Failed<'a> {
    rules: bool,
    quiet: bool,
    links: BTreeSet<&'a str>,
    addresses: BTreeSet<&'a BoundAddress>,
}

impl<'a> Failed<'a> {
    fn of(failures: &'a [HostFailure]) -> Self {
        let mut failed = Self::default();
        for failure in failures {
            failed.quiet |= failure.change.keeps_quiet();
            match &failure.change {
                HostChange::ChangeRules(_) => failed.rules = true,
                HostChange::AddLink { name, .. } => drop(failed.links.insert(name)),
                HostChange::AddAddress(bound) => drop(failed.addresses.insert(bound)),
                _ => {}
            }
        }
        failed
    }

    fn holds_back(&self, change: &HostChange) -> Option<&'static str> {
        let no_link = "there is no such link of Weir's";
        match change {
            HostChange::AddAddress(bound) if self.links.contains(&*bound.link) => Some(no_link),
            HostChange::SetSysctl { name, .. }
                if self.links.iter().any(|link| setting::is_of_link(name, link)) =>
            {
                Some(no_link)
            }
            HostChange::AddAddress(bound) if self.quiet && *bound.link == *VIP_LINK => {
                Some("this node could not be kept quiet about it")
            }
            HostChange::RestoreSysctl { name } if self.rules && setting::keeps_quiet(name) => {
                Some("the rules that should keep this node quiet instead were refused")
            }
            HostChange::ChangeRules(_) if self.rules => Some("the rules before them were refused"),
            HostChange::Announce(bound) if self.addresses.contains(bound) => Some("the address is not there"),
            _ => None,
        }
    }
}

impl HostChange {
    /// The address that a step is about.
    pub fn bound(&self) -> Option<&BoundAddress> {
        match self {
            Self::AddAddress(bound) | Self::DeleteAddress(bound) | Self::Announce(bound) => Some(bound),
            _ => None,
        }
    }

    /// Whether the step is part of keeping a real server quiet.
    pub fn keeps_quiet(&self) -> bool {
        match self {
            Self::ChangeRules(_) => true,
            Self::SetSysctl { name, .. } => setting::keeps_quiet(name),
            _ => false,
        }
    }

    /// Whether two steps, one after the other, can be taken in one go.
    fn goes_with(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::AddAddress(_), Self::AddAddress(_))
                | (Self::DeleteAddress(_), Self::DeleteAddress(_))
                | (Self::Announce(_), Self::Announce(_))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::TunnelKind;

    const VIP: [u8; 4] = [10, 0, 0, 200];

    fn on(link: &str) -> BoundAddress {
        BoundAddress {
            link: link.into(),
            address: VIP.into(),
        }
    }

    fn link(name: &str) -> HostChange {
        HostChange::AddLink {
            name: name.into(),
            kind: LinkKind::Tunnel {
                kind: TunnelKind::Ipip,
                local: VIP.into(),
            },
        }
    }

    fn set(name: &str) -> HostChange {
        HostChange::SetSysctl {
            name: name.into(),
            value: "2".into(),
        }
    }

    /// What is not tried after a step has failed.
    fn held_back(failed: HostChange, later: &[HostChange]) -> Vec<String> {
        let steps = [std::slice::from_ref(&failed), later].concat();
        let mut failures = Vec::new();
        let mut taken = Vec::new();
        take_in_order(&steps, &mut failures, |run| {
            taken.extend(run.iter().map(|change| (*change).clone()));
            let refused =
                |(index, change): (usize, &&HostChange)| (**change == failed).then(|| (index, "no".into()));
            run.iter().enumerate().filter_map(refused).collect()
        });
        assert_eq!(
            taken.len() + failures.len(),
            steps.len() + 1,
            "each is taken or fails"
        );
        failures
            .iter()
            .skip(1)
            .map(|failure| failure.change.to_string())
            .collect()
    }

    #[test]
    fn what_cannot_be_kept_quiet_does_not_come() {
        let vips = [
            HostChange::AddAddress(on(VIP_LINK)),
            HostChange::AddAddress(on("eth0")),
        ];
        let rules = || HostChange::ChangeRules(Transaction::default());
        assert_eq!(held_back(rules(), &vips), ["add address 10.0.0.200 on weir0"]);
        let setting = set("net.ipv4.conf.all.arp_ignore");
        assert_eq!(held_back(setting, &vips), ["add address 10.0.0.200 on weir0"]);
        assert_eq!(held_back(set("net.ipv4.ip_forward"), &vips), [""; 0]);
    }

    #[test]
    fn what_keeps_quiet_stays_until_something_else_does() {
        let restore = |name: &str| HostChange::RestoreSysctl { name: name.into() };
        let rules = HostChange::ChangeRules(Transaction::default());
        let later = [
            restore("net.ipv4.conf.all.arp_ignore"),
            restore("net.ipv4.ip_forward"),
            rules.clone(),
        ];
        let held = held_back(rules, &later);
        assert_eq!(held.len(), 2, "{held:?}");
        assert_eq!(held[0], "restore net.ipv4.conf.all.arp_ignore");
        assert!(held[1].starts_with("change nftables"));
    }

    #[test]
    fn a_link_of_somebody_elses_stays_as_it_is() {
        let later = [
            set("net.ipv4.conf.weir-ipip-1.rp_filter"),
            HostChange::AddAddress(on("weir-ipip-1")),
            HostChange::AddAddress(on("weir-ipip-2")),
        ];
        let held = [
            "set net.ipv4.conf.weir-ipip-1.rp_filter to 2",
            "add address 10.0.0.200 on weir-ipip-1",
        ];
        assert_eq!(held_back(link("weir-ipip-1"), &later), held);
    }

    #[test]
    fn an_address_that_is_not_there_is_not_announced() {
        let later = [HostChange::Announce(on("eth0")), HostChange::Announce(on("eth1"))];
        let held = held_back(HostChange::AddAddress(on("eth0")), &later);
        assert_eq!(held, ["announce 10.0.0.200 on eth0"]);
    }
}
