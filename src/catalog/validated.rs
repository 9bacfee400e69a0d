//! Resources that passed validation, in the form that planning needs: parsed, in range, and small, since an agent
//! holds a hundred thousand of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::host::ArpSuppression;
use crate::ipvs::{Family, ForwardingMethod, Protocol, Scheduler, SchedulerFlags};

use super::names::NamespacedName;

/// A VirtualService whose fields make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedVirtualService {
    /// When it was created, in seconds since the epoch; the older of two rivals wins. Absent in a manifest folder.
    pub created: Option<i64>,
    /// The object's generation. Absent in a manifest folder.
    pub generation: Option<i64>,
    /// What clients connect to.
    pub listen: Listen,
    /// How a destination is picked.
    pub scheduler: Scheduler,
    /// Options of the scheduler.
    pub flags: SchedulerFlags,
    /// Each packet is scheduled on its own.
    pub one_packet: bool,
    /// Whether and how a client stays with its destination.
    pub persistence: Option<ValidatedPersistence>,
    /// How packets get to real servers that do not say otherwise.
    pub forwarding: ValidatedForwarding,
    /// Where real servers come from.
    pub backends: Box<[ValidatedBackend]>,
    /// Who answers while no destination is usable.
    pub fallback: Option<ValidatedFallback>,
    /// How long connections have to end when a destination leaves.
    pub draining: ValidatedDraining,
    /// The group whose nodes may be director.
    pub director_group: Arc<str>,
}

/// What clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Every port on every address.
    Addresses {
        /// The VIPs.
        addresses: Box<[IpAddr]>,
        /// Protocols and ports.
        ports: Box<[Ports]>,
        /// Whether all of them are one service of the kernel's.
        grouped: bool,
    },
    /// Packets with a mark that somebody else's rules set.
    Mark {
        /// Their family.
        family: Family,
        /// The mark.
        mark: NonZeroU32,
        /// The VIPs that they are sent to, where those are Weir's business.
        addresses: Box<[IpAddr]>,
    },
}

impl Listen {
    /// The VIPs.
    pub fn addresses(&self) -> &[IpAddr] {
        let (Self::Addresses { addresses, .. } | Self::Mark { addresses, .. }) = self;
        addresses
    }
}

/// Ports of a protocol: one, or all from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The first port; 0 alone stands for all that no other service has.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Ports {
    /// One port.
    pub fn one(protocol: Protocol, port: u16) -> Self {
        Self {
            protocol,
            first: port,
            last: port,
        }
    }

    /// Whether they are more than one.
    pub fn is_range(&self) -> bool {
        self.first != self.last
    }
}

/// How packets get to a real server, and what that takes on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidatedForwarding {
    /// The forwarding method.
    pub method: ForwardingMethod,
    /// Whether masqueraded packets get the director's address as source.
    pub snat: Snat,
    /// How a real server takes packets to the VIP.
    pub binding: Binding,
    /// How a real server keeps quiet about the VIP, unless the director group says.
    pub arp_suppression: Option<ArpSuppression>,
}

impl ValidatedForwarding {
    /// A method, and all else as it is by default.
    pub fn new(method: ForwardingMethod) -> Self {
        Self {
            method,
            snat: Snat::Auto,
            binding: Binding::Address,
            arp_suppression: None,
        }
    }
}

/// When masqueraded packets get the director's address as source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snat {
    /// Where the real server's way back would not lead through the director.
    Auto,
    /// Never.
    Never,
    /// Always.
    Always,
}

/// How a real server takes packets to the VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// As an address of its own that nothing announces.
    Address,
    /// By translation to its own address.
    Redirect,
    /// Somebody else sees to it.
    None,
}

/// Persistence for both families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedPersistence {
    /// How long an assignment outlives its last connection.
    pub timeout: Duration,
    /// Which IPv4 clients count as one.
    pub netmask_v4: Ipv4Addr,
    /// Which IPv6 clients count as one.
    pub prefix_v6: u8,
    /// What else identifies a client.
    pub engine: Option<&'static str>,
}

/// How long connections have to end when a destination leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidatedDraining {
    /// The time they have.
    pub timeout: Duration,
    /// Whether the destination stays until the last of them has ended, however long that takes.
    pub keep: bool,
}

/// A source of real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedBackend {
    /// Who they are.
    pub source: BackendSource,
    /// Multiplies each one's weight.
    pub weight: u32,
    /// Where they listen, unless one says its own port.
    pub target_port: Option<u16>,
    /// Its place in the resource's list, for findings.
    pub index: u8,
}

/// Who the real servers of a backend are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendSource {
    /// RealServers of the namespace.
    RealServers(Selector),
    /// The endpoints of a Service.
    Service(ServiceReference),
}

impl BackendSource {
    /// Which RealServers, if they are.
    pub fn selector(&self) -> Option<&Selector> {
        match self {
            Self::RealServers(selector) => Some(selector),
            Self::Service(_) => None,
        }
    }

    /// Which Service, if it is one.
    pub fn service(&self) -> Option<&ServiceReference> {
        match self {
            Self::RealServers(_) => None,
            Self::Service(reference) => Some(reference),
        }
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReference {
    /// The Service's namespace, if it is another one.
    pub namespace: Option<Arc<str>>,
    /// The Service's name.
    pub name: Arc<str>,
    /// The port's name or number.
    pub port: Arc<str>,
}

impl ServiceReference {
    /// The Service that is meant in a namespace.
    pub fn target(&self, namespace: &Arc<str>) -> NamespacedName {
        NamespacedName {
            namespace: self.namespace.as_ref().unwrap_or(namespace).clone(),
            name: self.name.clone(),
        }
    }
}

/// A Service, as far as somebody can refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedService {
    /// Whether it stands for a name outside, and has no endpoints.
    pub external_name: bool,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; an only port may have none.
    pub name: Arc<str>,
    /// Its number.
    pub port: u16,
    /// Its transport protocol.
    pub protocol: Protocol,
}

impl ServicePort {
    /// Whether a reference means it, by name or by number.
    pub fn is_called(&self, name: &str) -> bool {
        *self.name == *name || name.parse() == Ok(self.port)
    }
}

/// `http (80)`, `80`.
impl fmt::Display for ServicePort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(formatter, "{}", self.port)
        } else {
            write!(formatter, "{} ({})", self.name, self.port)
        }
    }
}

/// Some of the endpoints of a Service, all of one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedEndpointSlice {
    /// The Service, of the same namespace.
    pub service: Arc<str>,
    /// Where each of the endpoints listens, by the names of the Service's ports.
    pub ports: Box<[EndpointPort]>,
    /// Their addresses, and how they are.
    pub endpoints: Box<[(IpAddr, EndpointState)]>,
}

/// Where endpoints listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    /// The name of the Service's port.
    pub name: Arc<str>,
    /// The number; without one, wherever clients connect.
    pub port: Option<u16>,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// How an endpoint is, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// It does not serve, and may again.
    Idle,
    /// It is about to end but still serves.
    Ending,
    /// It serves.
    Ready,
}

/// Who may refer to the Services of a namespace from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedReferenceGrant {
    /// Namespaces whose virtual services may.
    pub from: Box<[Arc<str>]>,
    /// To which Services; nothing means all.
    pub to: Option<Box<[Arc<str>]>>,
}

impl ValidatedReferenceGrant {
    /// Whether a virtual service of a namespace may refer to a Service.
    pub fn permits(&self, from: &str, service: &str) -> bool {
        let names_it = |to: &[Arc<str>]| to.iter().any(|name| **name == *service);
        self.from.iter().any(|namespace| **namespace == *from) && self.to.as_deref().is_none_or(names_it)
    }
}

/// The sorry server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidatedFallback {
    /// Its address.
    pub address: IpAddr,
    /// Its port, if not the one clients connect to.
    pub port: Option<u16>,
}

/// A RealServer whose fields make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedRealServer {
    /// Where it is reached.
    pub address: IpAddr,
    /// Where it listens, if it says so.
    pub port: Option<u16>,
    /// Its share of new connections.
    pub weight: u16,
    /// What its administrator wants.
    pub admin_state: AdminState,
    /// The node it is, if it says so.
    pub node_name: Option<Arc<str>>,
    /// Its own forwarding.
    pub forwarding: Option<ValidatedForwarding>,
    /// Connections above which it gets no new ones; 0 is no limit.
    pub upper_threshold: u32,
    /// Connections below which it gets new ones again.
    pub lower_threshold: u32,
    /// Its labels, by which virtual services select it, in the order of their keys.
    pub labels: Labels,
}

/// Whether a real server takes connections, as its administrator wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminState {
    /// It takes its share.
    Enabled,
    /// It takes no new connections, serves those it has, and leaves when they have ended.
    Draining,
    /// As `Draining`; its object is deleted, and kept in the API only until it has left.
    Deleted,
    /// It is taken out, as if there were no such object.
    Disabled,
}

impl AdminState {
    /// Whether it drains.
    pub fn leaves(self) -> bool {
        matches!(self, Self::Draining | Self::Deleted)
    }
}

/// A DirectorGroup whose fields make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedDirectorGroup {
    /// The nodes that may be director.
    pub node_selector: Selector,
    /// Which of them is.
    pub failover: ValidatedFailover,
    /// The link that carries the VIPs on an active director.
    pub interface: Option<Box<str>>,
    /// How real servers keep quiet about the VIPs.
    pub arp_suppression: Option<ArpSuppression>,
    /// Settings below `net.ipv4.vs` that the group owns.
    pub sysctls: BTreeMap<Box<str>, Box<str>>,
    /// Whether and how connections are passed to the standby directors.
    pub connection_sync: Option<ValidatedConnectionSync>,
    /// How long the kernel keeps connections; zero leaves a timeout as it is.
    pub timeouts: Option<crate::ipvs::Timeouts>,
}

/// How connections are passed to the standby directors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedConnectionSync {
    /// Tells groups on one network apart.
    pub sync_id: u8,
    /// The link over which the directors see each other, if not the one of the VIPs.
    pub interface: Option<Box<str>>,
}

impl ValidatedDirectorGroup {
    /// Whether a standby director keeps its table, as the kernel's `backup_only` makes harmless: while it receives
    /// connections from the active one, it balances nothing.
    pub fn standby_keeps_table(&self) -> bool {
        let backup_only = self.sysctls.get("net.ipv4.vs.backup_only");
        self.connection_sync.is_some() && backup_only.is_some_and(|value| **value != *"0")
    }
}

/// How it is decided which node is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidatedFailover {
    /// This one.
    Static(Box<str>),
    /// Every one.
    Routed,
    /// A way that this version does not know how to go: no node is.
    NotSupported,
}

/// A label: key and value.
pub type Label = (Arc<str>, Arc<str>);

/// Labels in the order of their keys.
pub type Labels = Box<[Label]>;

/// A label selector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels that must be there with exactly these values.
    pub labels: Labels,
    /// Further conditions.
    pub expressions: Box<[Requirement]>,
}

/// A condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: Box<str>,
    /// What must hold for its value.
    pub condition: RequirementCondition,
}

/// What must hold for a label's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequirementCondition {
    /// It is one of these.
    In(Box<[Box<str>]>),
    /// It is absent or none of these.
    NotIn(Box<[Box<str>]>),
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl Selector {
    /// Whether an object with these labels is selected. An empty selector selects everything.
    pub fn matches<K: AsRef<str>, V: AsRef<str>>(&self, labels: &[(K, V)]) -> bool {
        let value = |key: &str| {
            labels
                .iter()
                .find(|(candidate, _)| candidate.as_ref() == key)
                .map(|(_, value)| value.as_ref())
        };
        self.labels.iter().all(|(key, wanted)| value(key) == Some(wanted))
            && self
                .expressions
                .iter()
                .all(|requirement| requirement.condition.holds(value(&requirement.key)))
    }
}

impl RequirementCondition {
    fn holds(&self, value: Option<&str>) -> bool {
        let among = |values: &[Box<str>]| value.is_some_and(|value| values.iter().any(|one| **one == *value));
        match self {
            Self::In(values) => among(values),
            Self::NotIn(values) => !among(values),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
        }
    }
}
