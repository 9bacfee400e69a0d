//! The kernel's IPVS table of the network namespace in which the connection was opened.

use std::collections::BTreeSet;
use std::error::Error as _;

use neli::consts::nl::NlmF;
use thiserror::Error;

use crate::netlink::{
    AttributeType, Attributes, Batch, Connection, Errno, Family as GenericFamily, MessageWriter,
    NetlinkError, read_u32,
};

use super::TableStore;
use super::diff::Change;
use super::listing::ListedService;
use super::outcome::{ChangeError, Failure, Outcome};
use super::table::{ServiceKey, SyncDaemon, SyncDaemonRole, Table, Timeouts};
use super::wire::{self, Command, CommandAttribute, InfoAttribute};

/// Why the kernel's IPVS could not be asked.
#[derive(Debug, Error)]
pub enum IpvsError {
    /// The kernel has no IPVS and could not load it.
    #[error(
        "this kernel has no IPVS: load its module (modprobe ip_vs), or install the kernel package that holds it \
         (Debian: linux-image-amd64; RHEL: kernel-modules; cloud images often ship without it)"
    )]
    NoIpvs,
    /// The process may not read or change the table.
    #[error(
        "not permitted to administer IPVS: CAP_NET_ADMIN in the initial user namespace is needed (run as root, \
         or give the container the capability NET_ADMIN)"
    )]
    NotPermitted,
    /// The exchange failed.
    #[error("cannot {act}")]
    Netlink {
        /// What was asked.
        act: &'static str,
        /// Why it failed.
        #[source]
        source: NetlinkError,
    },
}

impl IpvsError {
    fn during(act: &'static str) -> impl Fn(NetlinkError) -> Self {
        move |source| match source.refusal() {
            Some(Errno::PERM) => Self::NotPermitted,
            _ => Self::Netlink { act, source },
        }
    }
}

/// What the kernel says of its IPVS (`ipvsadm` prints it first).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Info {
    /// Version: major, minor and patch in the low three bytes.
    pub version: u32,
    /// Slots of the connection table.
    pub connection_table_size: u32,
}

impl Info {
    /// The version as people write it: `1.2.1`.
    pub fn version_words(&self) -> String {
        let [_, major, minor, patch] = self.version.to_be_bytes();
        format!("{major}.{minor}.{patch}")
    }
}

/// The kernel's table.
#[derive(Debug)]
pub struct KernelTable {
    connection: Connection,
    family: GenericFamily,
    batch: Batch,
}

impl KernelTable {
    /// Opens the table of the calling thread's network namespace. The kernel loads ip_vs if it can.
    ///
    /// # Errors
    ///
    /// [`IpvsError::NoIpvs`] where the kernel has no IPVS.
    pub fn open() -> Result<Self, IpvsError> {
        let (connection, family) =
            GenericFamily::connect(wire::FAMILY_NAME, wire::FAMILY_VERSION).map_err(|error| {
                match error.refusal() {
                    Some(Errno::NOENT) => IpvsError::NoIpvs,
                    _ => IpvsError::during("look for the kernel's IPVS")(error),
                }
            })?;
        Ok(Self {
            connection,
            family,
            batch: Batch::default(),
        })
    }

    /// Version and table size.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    pub fn info(&mut self) -> Result<Info, IpvsError> {
        let mut info = Info::default();
        self.request(
            "read IPVS's version",
            Command::GetInfo,
            NlmF::empty(),
            |_| {},
            |attributes| {
                for (kind, value) in attributes {
                    let value = read_u32(value).unwrap_or_default();
                    match kind {
                        InfoAttribute::Version => info.version = value,
                        InfoAttribute::ConnectionTableSize => info.connection_table_size = value,
                        InfoAttribute::UnrecognizedConst(_) => {}
                    }
                }
            },
        )?;
        Ok(info)
    }

    /// Every service with its destinations and counters, in the order of their keys (`ipvsadm -Ln --stats`).
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    pub fn listing(&mut self) -> Result<Vec<ListedService>, IpvsError> {
        let mut listing = self.services()?;
        for service in &mut listing {
            self.fill_destinations(service)?;
        }
        Ok(listing)
    }

    /// Every service without its destinations, in the order of their keys.
    fn services(&mut self) -> Result<Vec<ListedService>, IpvsError> {
        let mut listing = Vec::new();
        self.request(
            "list services",
            Command::GetService,
            NlmF::DUMP,
            |_| {},
            |attributes| listing.extend(wire::read_service(attributes)),
        )?;
        listing.sort_by_key(|service| service.key);
        Ok(listing)
    }

    /// One service with its destinations and counters, if it is there.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked.
    pub fn service(&mut self, key: &ServiceKey) -> Result<Option<ListedService>, IpvsError> {
        let mut found = None;
        let answer = self.connection.request(
            self.family.number,
            NlmF::empty(),
            &self.family.command(Command::GetService, |message| {
                wire::write_service_key(message, key);
            }),
            |_, payload| found = wire::read_service(GenericFamily::attributes(payload)),
        );
        match answer {
            Err(error) if error.refusal() == Some(Errno::SRCH) => return Ok(None),
            answer => answer.map_err(IpvsError::during("read a service"))?,
        }
        if let Some(service) = &mut found {
            self.fill_destinations(service)?;
        }
        Ok(found)
    }

    fn fill_destinations(&mut self, service: &mut ListedService) -> Result<(), IpvsError> {
        let ListedService {
            key, destinations, ..
        } = service;
        let family = key.family();
        let write = |message: &mut MessageWriter<'_, CommandAttribute>| wire::write_service_key(message, key);
        self.request(
            "list destinations",
            Command::GetDest,
            NlmF::DUMP,
            write,
            |attributes| destinations.extend(wire::read_destination(attributes, family)),
        )?;
        destinations.sort_by_key(|destination| destination.key);
        Ok(())
    }

    /// Zeroes the counters of one service or of all (`ipvsadm -Z`).
    ///
    /// # Errors
    ///
    /// `ESRCH` if the service is not there.
    pub fn zero(&mut self, service: Option<&ServiceKey>) -> Result<(), IpvsError> {
        let write = |message: &mut MessageWriter<'_, CommandAttribute>| {
            if let Some(key) = service {
                wire::write_service_key(message, key);
            }
        };
        self.request("zero the counters", Command::Zero, NlmF::empty(), write, ignore)
    }

    fn request<T: AttributeType>(
        &mut self,
        act: &'static str,
        command: Command,
        flags: NlmF,
        write: impl Fn(&mut MessageWriter<'_, CommandAttribute>),
        mut on_reply: impl FnMut(Attributes<'_, T>),
    ) -> Result<(), IpvsError> {
        let family = self.family;
        self.connection
            .request(
                family.number,
                flags,
                &family.command(command, write),
                |_, payload| on_reply(GenericFamily::attributes(payload)),
            )
            .map_err(IpvsError::during(act))
    }

    /// Asks once more with a new connection where the kernel no longer knows the family: its module was unloaded, and
    /// whoever loads it again gets another number for it.
    fn reopening<T>(&mut self, ask: impl Fn(&mut Self) -> Result<T, IpvsError>) -> Result<T, IpvsError> {
        match ask(self) {
            Err(IpvsError::Netlink { source, .. }) if source.refusal() == Some(Errno::NOENT) => {
                *self = Self::open()?;
                ask(self)
            }
            answer => answer,
        }
    }

    /// Makes `changes` of which each is independent of the success of those before it, but for `skip`.
    fn apply_batch(&mut self, changes: &[Change], skip: &BTreeSet<ServiceKey>) -> Vec<(usize, ChangeError)> {
        self.batch.clear();
        let mut sent = Vec::with_capacity(changes.len());
        let mut failures = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            if skip.contains(change.service()) {
                failures.push((index, ChangeError::Skipped));
                continue;
            }
            let family = self.family;
            self.batch
                .push(family.number, NlmF::empty(), &wire::request(family, change));
            sent.push(index);
        }
        match self.connection.batch(&mut self.batch) {
            Ok(refused) => failures.extend(refused.into_iter().map(|(place, refused)| {
                let index = sent[place];
                (index, ChangeError::of_refusal(&changes[index], refused))
            })),
            Err(error) => {
                let unknown = ChangeError::Unknown(with_cause(&error));
                failures.extend(sent.into_iter().map(|index| (index, unknown.clone())));
            }
        }
        failures
    }
}

fn with_cause(error: &NetlinkError) -> Box<str> {
    match error.source() {
        Some(cause) => format!("{error}: {cause}").into(),
        None => error.to_string().into(),
    }
}

/// For what is answered with nothing but whether it was done.
fn ignore(_: Attributes<'_, CommandAttribute>) {}

/// Changes encoded at a time: as many as go into a few system calls, so that the memory for their bytes stays in use
/// and is not asked for anew.
const CHANGES_PER_BATCH: usize = 1024;

impl TableStore for KernelTable {
    fn list(&mut self) -> Result<Table, IpvsError> {
        self.reopening(|kernel| Ok(kernel.listing()?.into_iter().collect()))
    }

    fn keys(&mut self) -> Result<BTreeSet<ServiceKey>, IpvsError> {
        self.reopening(|kernel| {
            Ok(kernel
                .services()?
                .into_iter()
                .map(|service| service.key)
                .collect())
        })
    }

    fn look(&mut self, keys: &mut dyn Iterator<Item = ServiceKey>) -> Result<Vec<ListedService>, IpvsError> {
        let mut listing = Vec::new();
        for key in keys {
            listing.extend(self.reopening(|kernel| kernel.service(&key))?);
        }
        Ok(listing)
    }

    fn timeouts(&mut self) -> Result<Timeouts, IpvsError> {
        let mut timeouts = None;
        self.request(
            "read the timeouts",
            Command::GetConfig,
            NlmF::empty(),
            |_| {},
            |attributes| timeouts = Some(wire::read_timeouts(attributes)),
        )?;
        timeouts.ok_or_else(|| IpvsError::during("read the timeouts")(NetlinkError::OutcomeUnknown))
    }

    fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), IpvsError> {
        let write =
            |message: &mut MessageWriter<'_, CommandAttribute>| wire::write_timeouts(message, timeouts);
        self.request(
            "set the timeouts",
            Command::SetConfig,
            NlmF::empty(),
            write,
            ignore,
        )
    }

    fn daemons(&mut self) -> Result<Vec<SyncDaemon>, IpvsError> {
        let mut daemons = Vec::new();
        self.request(
            "list the sync daemons",
            Command::GetDaemon,
            NlmF::DUMP,
            |_| {},
            |attributes| daemons.extend(wire::read_daemon(attributes)),
        )?;
        daemons.sort_by_key(|daemon| daemon.role);
        Ok(daemons)
    }

    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), IpvsError> {
        let write = |message: &mut MessageWriter<'_, CommandAttribute>| wire::write_daemon(message, daemon);
        self.request(
            "start a sync daemon",
            Command::NewDaemon,
            NlmF::empty(),
            write,
            ignore,
        )
    }

    fn stop_daemon(&mut self, role: SyncDaemonRole) -> Result<(), IpvsError> {
        // Where the daemon's thread had not begun to run, the kernel stops it and answers nothing: kthread_stop() says
        // EINTR then, and to netlink_rcv_skb() that means that there is no answer yet. So a question follows whose
        // answer comes in any case, after the other's.
        let family = self.family;
        self.batch.clear();
        let stop = family.command(Command::DelDaemon, |message| {
            wire::write_daemon_role(message, role);
        });
        self.batch.push(family.number, NlmF::empty(), &stop);
        let question = family.command::<CommandAttribute>(Command::GetInfo, |_| {});
        self.batch.push(family.number, NlmF::empty(), &question);
        let during = IpvsError::during("stop a sync daemon");
        let refused = self.connection.batch(&mut self.batch).map_err(&during)?;
        match refused.into_iter().next() {
            Some((_, refused)) => Err(during(NetlinkError::Refused(refused))),
            None => Ok(()),
        }
    }

    /// A destination whose service could not be added is refused by the kernel as "not there"; it is reported as
    /// skipped, because its own picture was not stale.
    fn apply(&mut self, changes: &[Change]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut not_set_up = BTreeSet::new();
        for changes in changes.chunks(CHANGES_PER_BATCH) {
            let mut failed = self.apply_batch(changes, &not_set_up);
            failed.sort_by_key(|(index, _)| *index);
            outcome.applied += changes.len() - failed.len();
            for (index, error) in failed {
                let change = changes[index].clone();
                let of_service = matches!(change, Change::AddDestination { .. });
                let dependent =
                    of_service && error == ChangeError::NotThere && not_set_up.contains(change.service());
                let error = if dependent { ChangeError::Skipped } else { error };
                if matches!(change, Change::AddService { .. }) && error != ChangeError::AlreadyThere {
                    not_set_up.insert(*change.service());
                }
                outcome.failures.push(Failure { change, error });
            }
        }
        outcome
    }
}
