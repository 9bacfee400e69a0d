//! Schedulers: how a virtual service picks a destination for a new connection.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest scheduler name the kernel takes, in bytes (`IP_VS_SCHEDNAME_MAXLEN` less its NUL).
pub const NAME_MAX: usize = 15;

macro_rules! schedulers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A scheduler under the kernel's own name (`ipvsadm -s`).
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Scheduler {
            $($(#[$doc])* $variant,)*
            /// A scheduler this version of Weir does not know, as found in a kernel's table.
            Other(Box<str>),
        }

        impl Scheduler {
            /// All schedulers Weir knows, in the order of ipvsadm's manual.
            pub const KNOWN: &[Scheduler] = &[$(Scheduler::$variant,)*];

            /// The kernel's name.
            pub fn name(&self) -> &str {
                match self {
                    $(Scheduler::$variant => $name,)*
                    Scheduler::Other(name) => name,
                }
            }
        }

        impl FromStr for Scheduler {
            type Err = SchedulerNameError;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok(Scheduler::$variant),)*
                    _ if name.is_empty() || name.len() > NAME_MAX => Err(SchedulerNameError),
                    _ => Ok(Scheduler::Other(name.into())),
                }
            }
        }
    };
}

schedulers! {
    /// Round robin.
    RoundRobin = "rr",
    /// Weighted round robin.
    WeightedRoundRobin = "wrr",
    /// Least connections.
    LeastConnections = "lc",
    /// Weighted least connections, ipvsadm's default.
    WeightedLeastConnections = "wlc",
    /// Locality-based least connections, by destination address.
    LocalityLeastConnections = "lblc",
    /// Locality-based least connections with replication.
    LocalityLeastConnectionsReplication = "lblcr",
    /// Hash of the destination address.
    DestinationHash = "dh",
    /// Hash of the source address.
    SourceHash = "sh",
    /// Shortest expected delay.
    ShortestExpectedDelay = "sed",
    /// Never queue.
    NeverQueue = "nq",
    /// Weighted fail-over: the highest weight that is up.
    Failover = "fo",
    /// Weighted overflow: the highest weight until it has as many connections.
    Overflow = "ovf",
    /// Maglev hash of the source address.
    Maglev = "mh",
    /// Power of two choices, weighted (kernel 6.7 and later).
    TwoRandomChoices = "twos",
}

impl fmt::Display for Scheduler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A text that cannot be a scheduler's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a scheduler's name has 1 to 15 characters")]
pub struct SchedulerNameError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_scheduler_is_read_from_its_name() {
        for scheduler in Scheduler::KNOWN {
            assert_eq!(scheduler.name().parse().as_ref(), Ok(scheduler));
        }
    }

    #[test]
    fn an_unknown_name_is_kept_and_an_impossible_one_refused() {
        assert_eq!("custom".parse(), Ok(Scheduler::Other("custom".into())));
        assert_eq!("".parse::<Scheduler>(), Err(SchedulerNameError));
        assert_eq!("sixteen-letters-".parse::<Scheduler>(), Err(SchedulerNameError));
    }
}
