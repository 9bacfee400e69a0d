//! What became of changes: each with its result, and errnos turned into advice.

use std::fmt;

use thiserror::Error;

use crate::netlink::{Errno, Refused};

use super::diff::Change;
use super::table::{Family, ServiceKey};

/// Why the kernel did not make a change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// What should be added is there already: the picture of the kernel was stale.
    #[error("it is there already")]
    AlreadyThere,
    /// What should be changed or deleted is not there: the picture of the kernel was stale.
    #[error("it is not there")]
    NotThere,
    /// The kernel has no such scheduler and could not load it.
    #[error("this kernel has no scheduler \"{0}\": load its module (modprobe ip_vs_{0}) or choose another")]
    NoScheduler(Box<str>),
    /// The kernel lacks the scheduler or the persistence engine; it does not say which.
    #[error(
        "this kernel lacks the scheduler \"{scheduler}\" or the persistence engine \"{engine}\": load their \
         modules (modprobe ip_vs_{scheduler} ip_vs_pe_{engine})"
    )]
    NoSchedulerOrEngine {
        /// The scheduler asked for.
        scheduler: Box<str>,
        /// The engine asked for.
        engine: Box<str>,
    },
    /// The process may not administer IPVS.
    #[error("not permitted: CAP_NET_ADMIN in the initial user namespace is needed")]
    NotPermitted,
    /// The kernel was built without IPVS for this family.
    #[error("this kernel's IPVS does not speak {0}")]
    NoFamily(Family),
    /// The kernel was built without IPVS for this protocol.
    #[error("this kernel's IPVS does not schedule this protocol")]
    NoProtocol,
    /// The kernel finds the entry contradictory.
    #[error(
        "the kernel refuses these values: a destination must be a unicast address that this node has a route \
         to, and its family may differ from the service's only for tunnels while no sync daemon runs"
    )]
    Invalid,
    /// The thresholds contradict each other.
    #[error("the lower threshold is above the upper one")]
    Thresholds,
    /// Something this change depends on failed before it.
    #[error("not tried, because the service could not be set up")]
    Skipped,
    /// The exchange with the kernel broke down; whether the change took effect is unknown.
    #[error("unknown: {0}")]
    Unknown(Box<str>),
    /// Any other errno, or one for which the kernel has a sentence of its own.
    #[error(transparent)]
    Other(Refused),
}

impl ChangeError {
    /// What a refusal means for a change: its errno, if the kernel has no sentence that tells more.
    ///
    /// Source: `net/netfilter/ipvs/ip_vs_ctl.c`: `ip_vs_add_service`, `ip_vs_edit_service`, `ip_vs_add_dest`,
    /// `ip_vs_edit_dest`, `ip_vs_genl_set_cmd`.
    pub fn of_refusal(change: &Change, refused: Refused) -> Self {
        match (refused.errno, change) {
            (Errno::PERM, _) => Self::NotPermitted,
            (Errno::EXIST, _) => Self::AlreadyThere,
            (Errno::NOENT, Change::AddService { service, .. } | Change::EditService { service, .. }) => {
                let scheduler = service
                    .scheduler
                    .as_ref()
                    .map_or("none", |scheduler| scheduler.name())
                    .into();
                match service
                    .persistence
                    .as_ref()
                    .and_then(|persistence| persistence.engine.clone())
                {
                    None => Self::NoScheduler(scheduler),
                    Some(engine) => Self::NoSchedulerOrEngine { scheduler, engine },
                }
            }
            (Errno::NOENT | Errno::SRCH, _) => Self::NotThere,
            _ if refused.why.is_some() => Self::Other(refused),
            (Errno::INVAL, _) => Self::Invalid,
            (Errno::RANGE, _) => Self::Thresholds,
            (Errno::PROTONOSUPPORT, _) => Self::NoProtocol,
            (Errno::AFNOSUPPORT, _) => Self::NoFamily(change.service().family()),
            _ => Self::Other(refused),
        }
    }

    /// Whether the picture of the kernel was stale, so that looking again is the remedy.
    pub fn is_stale_picture(&self) -> bool {
        matches!(self, Self::AlreadyThere | Self::NotThere | Self::Unknown(_))
    }
}

/// A change that did not happen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The change.
    pub change: Change,
    /// Why.
    pub error: ChangeError,
}

/// "cannot edit service TCP 10.0.0.200:80: …".
impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}: {}", self.change, self.error)
    }
}

/// What became of a list of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many changes the kernel made.
    pub applied: usize,
    /// Those it did not make, in their order.
    pub failures: Vec<Failure>,
}

impl Outcome {
    /// The services for which the picture of the kernel was stale.
    pub fn stale_services(&self) -> impl Iterator<Item = ServiceKey> + '_ {
        self.failures
            .iter()
            .filter(|failure| failure.error.is_stale_picture())
            .map(|failure| *failure.change.service())
    }
}
