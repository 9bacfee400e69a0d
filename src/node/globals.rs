//! What a node has once: as it is, and steps to what it should be.

use std::fmt;

use crate::ipvs::{IpvsError, SyncDaemon, SyncDaemonRole, TableStore, Timeouts};
use crate::plan::Globals;

/// What a node has once, as it is; the settings are read with what is around the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CurrentGlobals {
    /// The connection timeouts.
    pub timeouts: Timeouts,
    /// The sync daemons that run.
    pub daemons: Vec<SyncDaemon>,
}

/// One step to what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlobalChange {
    /// Set the connection timeouts (`ipvsadm --set`).
    SetTimeouts(Timeouts),
    /// Stop a sync daemon (`ipvsadm --stop-daemon`).
    StopSyncDaemon(SyncDaemonRole),
    /// Start a sync daemon (`ipvsadm --start-daemon`).
    StartSyncDaemon(SyncDaemon),
}

/// "set connection timeouts to TCP 1200 s, TCP after FIN 120 s, UDP 300 s".
impl fmt::Display for GlobalChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetTimeouts(timeouts) => write!(formatter, "set connection timeouts to {timeouts}"),
            Self::StopSyncDaemon(role) => write!(formatter, "stop sync daemon {role}"),
            Self::StartSyncDaemon(daemon) => write!(formatter, "start sync daemon {daemon}"),
        }
    }
}

/// What could not be done of it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalFailure {
    /// What: "set connection timeouts to …".
    pub act: Box<str>,
    /// Why, and the way out where one is known.
    pub message: Box<str>,
}

/// "cannot start sync daemon master on eth1 with sync ID 3: …".
impl fmt::Display for GlobalFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}: {}", self.act, self.message)
    }
}

impl GlobalFailure {
    /// Why something could not be done.
    pub fn new(act: impl fmt::Display, error: &IpvsError) -> Self {
        Self {
            act: act.to_string().into(),
            message: crate::causes::with_causes(error).into(),
        }
    }
}

/// The steps to what a node should have once. A sync daemon that somebody else started is stopped only where it is in the
/// way; `own` is the role of the one that Weir started.
pub fn diff(current: &CurrentGlobals, desired: &Globals, own: Option<SyncDaemonRole>) -> Vec<GlobalChange> {
    let mut changes = Vec::new();
    if let Some(timeouts) = &desired.timeouts {
        let set = timeouts.over(&current.timeouts);
        if set != current.timeouts {
            changes.push(GlobalChange::SetTimeouts(set));
        }
    }
    let wanted = desired.sync_daemon.as_ref();
    let is_wanted = |daemon: &&SyncDaemon| wanted.is_some_and(|wanted| daemon.is_what_is_wanted(wanted));
    for daemon in current.daemons.iter().filter(|daemon| !is_wanted(daemon)) {
        if wanted.is_some() || own == Some(daemon.role) {
            changes.push(GlobalChange::StopSyncDaemon(daemon.role));
        }
    }
    let runs = current.daemons.iter().any(|daemon| is_wanted(&daemon));
    changes.extend(
        wanted
            .filter(|_| !runs)
            .cloned()
            .map(GlobalChange::StartSyncDaemon),
    );
    changes
}

/// Reads what `desired` speaks of, or what may have to be stopped.
///
/// # Errors
///
/// The kernel could not be asked.
pub fn read(
    store: &mut impl TableStore,
    desired: &Globals,
    own: Option<SyncDaemonRole>,
) -> Result<CurrentGlobals, IpvsError> {
    let mut current = CurrentGlobals::default();
    if desired.timeouts.is_some() {
        current.timeouts = store.timeouts()?;
    }
    if desired.sync_daemon.is_some() || own.is_some() {
        current.daemons = store.daemons()?;
    }
    Ok(current)
}

/// Takes one step.
///
/// # Errors
///
/// The kernel refused it.
pub fn apply(store: &mut impl TableStore, change: &GlobalChange) -> Result<(), IpvsError> {
    match change {
        GlobalChange::SetTimeouts(timeouts) => store.set_timeouts(timeouts),
        GlobalChange::StopSyncDaemon(role) => store.stop_daemon(*role),
        GlobalChange::StartSyncDaemon(daemon) => store.start_daemon(daemon),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(sync_id: u8) -> SyncDaemon {
        SyncDaemon::new(SyncDaemonRole::Master, "eth1", sync_id)
    }

    /// As the kernel lists one for which nothing else was asked.
    fn listed(daemon: &SyncDaemon) -> SyncDaemon {
        SyncDaemon {
            max_length: Some(1472),
            group: Some([224, 0, 0, 81].into()),
            port: Some(8848),
            ttl: Some(1),
            ..daemon.clone()
        }
    }

    fn words(daemons: &[SyncDaemon], wanted: Option<SyncDaemon>, own: Option<SyncDaemonRole>) -> Vec<String> {
        let current = CurrentGlobals {
            daemons: daemons.to_vec(),
            ..CurrentGlobals::default()
        };
        let desired = Globals {
            sync_daemon: wanted,
            ..Globals::default()
        };
        diff(&current, &desired, own)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_sync_daemon_as_it_should_be_stays() {
        assert_eq!(words(&[listed(&master(3))], Some(master(3)), None), [""; 0]);
    }

    /// It would speak to nobody, or nobody to it.
    #[test]
    fn a_sync_daemon_with_other_options_is_exchanged_whoever_started_it() {
        let other_port = SyncDaemon {
            port: Some(9999),
            ..listed(&master(3))
        };
        let short = SyncDaemon {
            max_length: Some(512),
            ..listed(&master(3))
        };
        let other_group = SyncDaemon {
            group: Some([224, 0, 0, 82].into()),
            ..listed(&master(3))
        };
        for running in [other_port, short, other_group, listed(&master(4))] {
            assert_eq!(
                words(&[running], Some(master(3)), None),
                [
                    "stop sync daemon master",
                    "start sync daemon master on eth1 with sync ID 3"
                ]
            );
        }
    }

    #[test]
    fn a_sync_daemon_that_nobody_wants_is_stopped_by_whoever_started_it() {
        assert_eq!(words(&[listed(&master(3))], None, None), [""; 0]);
        let own = Some(SyncDaemonRole::Master);
        assert_eq!(
            words(&[listed(&master(3))], None, own),
            ["stop sync daemon master"]
        );
    }
}
