//! Who wants which address and port, and who has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use crate::ipvs::{Family, Protocol};

use super::names::NamespacedName;
use super::small_set::SmallSet;
use super::validated::{Listen, Ports, ValidatedVirtualService};

/// What only one virtual service can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claimed {
    /// Ports on an address.
    Ports {
        protocol: Protocol,
        address: IpAddr,
        first: u16,
        last: u16,
    },
    /// A mark that somebody else's rules set.
    Mark { family: Family, mark: NonZeroU32 },
}

/// `TCP 10.0.0.200:80`, `TCP 10.0.0.200:30000-30100`, `FWM IPv4 100`.
impl fmt::Display for Claimed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports {
                protocol,
                address,
                first,
                last,
            } => {
                write!(formatter, "{protocol} {}", SocketAddr::new(*address, *first))?;
                if first == last {
                    Ok(())
                } else {
                    write!(formatter, "-{last}")
                }
            }
            Self::Mark { family, mark } => write!(formatter, "FWM {family} {mark}"),
        }
    }
}

impl Claimed {
    /// Everything a virtual service wants, each once.
    pub(crate) fn all(service: &ValidatedVirtualService) -> Vec<Self> {
        match &service.listen {
            Listen::Mark { family, mark, .. } => vec![Self::Mark {
                family: *family,
                mark: *mark,
            }],
            Listen::Addresses { addresses, ports, .. } => addresses
                .iter()
                .flat_map(|address| ports.iter().map(|ports| Self::ports(*address, *ports)))
                .collect(),
        }
    }

    pub(crate) fn ports(address: IpAddr, ports: Ports) -> Self {
        let Ports {
            protocol,
            first,
            last,
        } = ports;
        Self::Ports {
            protocol,
            address,
            first,
            last,
        }
    }

    fn is_range(&self) -> bool {
        matches!(self, Self::Ports { first, last, .. } if first != last)
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Ports {
                    protocol,
                    address,
                    first,
                    last,
                },
                Self::Ports {
                    protocol: other_protocol,
                    address: other_address,
                    first: other_first,
                    last: other_last,
                },
            ) => {
                (protocol, address) == (other_protocol, other_address)
                    && first <= other_last
                    && other_first <= last
            }
            _ => self == other,
        }
    }
}

/// A virtual service's wish, in order of precedence: the older first; without a time of creation, as in a manifest
/// folder, in the order of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) created: Option<i64>,
    pub(crate) name: NamespacedName,
}

/// All wishes.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    claims: BTreeMap<Claimed, SmallSet<Claim>>,
    /// Those of them that are ranges of ports; there are few.
    ranges: BTreeSet<Claimed>,
}

impl Claims {
    /// How many wishes there are, for tests of what is let go of.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.claims.len() + self.ranges.len()
    }

    pub(crate) fn insert(&mut self, claimed: Claimed, claim: Claim) {
        if claimed.is_range() {
            self.ranges.insert(claimed);
        }
        self.claims.entry(claimed).or_default().insert(claim);
    }

    pub(crate) fn remove(&mut self, claimed: Claimed, claim: &Claim) {
        let Some(claims) = self.claims.get_mut(&claimed) else {
            return;
        };
        claims.remove(claim);
        if claims.is_empty() {
            self.claims.remove(&claimed);
            self.ranges.remove(&claimed);
        }
    }

    /// The virtual service that comes first among all that want something of this.
    pub(crate) fn holder(&self, claimed: &Claimed) -> Option<&NamespacedName> {
        self.rivals(claimed).min().map(|claim| &claim.name)
    }

    /// Every wish for something of this.
    pub(crate) fn rivals(&self, claimed: &Claimed) -> impl Iterator<Item = &Claim> {
        let within = match *claimed {
            Claimed::Mark { .. } => *claimed..=*claimed,
            Claimed::Ports {
                protocol,
                address,
                first,
                last,
            } => {
                let begin = |first, last| Claimed::Ports {
                    protocol,
                    address,
                    first,
                    last,
                };
                begin(first, first)..=begin(last, u16::MAX)
            }
        };
        let before = match *claimed {
            Claimed::Ports {
                protocol, address, ..
            } => {
                let beginning = Claimed::Ports {
                    protocol,
                    address,
                    first: 0,
                    last: 0,
                };
                Some(self.ranges.range(beginning..*within.start()))
            }
            Claimed::Mark { .. } => None,
        };
        let before = before
            .into_iter()
            .flatten()
            .filter(move |range| range.overlaps(claimed))
            .filter_map(|range| self.claims.get(range));
        self.claims
            .range(within)
            .map(|(_, claims)| claims)
            .chain(before)
            .flat_map(SmallSet::iter)
    }
}
