//! VirtualService: what clients connect to, and which real servers answer.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Duration, Forwarding, HealthCheck, LabelSelector, rules};

/// Addresses and ports that clients connect to, and the real servers among which IPVS spreads the connections.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "VirtualService",
    plural = "virtualservices",
    shortname = "ivs",
    category = "weir",
    category = "ipvs",
    namespaced,
    derive = "PartialEq",
    status = "VirtualServiceStatus",
    doc = "Addresses and ports that clients connect to, and the real servers among which IPVS spreads the connections.",
    printcolumn(json_path = ".status.addressSummary", name = "Address", type_ = "string"),
    printcolumn(json_path = ".status.portSummary", name = "Ports", type_ = "string"),
    printcolumn(json_path = ".spec.forwarding.method", name = "Method", type_ = "string"),
    printcolumn(json_path = ".status.activeNode", name = "Active", type_ = "string"),
    printcolumn(json_path = ".status.backendSummary", name = "Backends", type_ = "string"),
    printcolumn(
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        name = "Ready",
        type_ = "string"
    ),
    printcolumn(
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        name = "Reason",
        type_ = "string",
        priority = 1
    ),
    printcolumn(
        json_path = ".spec.scheduler.algorithm",
        name = "Scheduler",
        type_ = "string",
        priority = 1
    ),
    printcolumn(
        json_path = ".spec.directorGroupRef.name",
        name = "Directors",
        type_ = "string",
        priority = 1
    ),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[x_kube(
    validation = Rule::new(rules::ADDRESSES_OR_POOL.cel).message(rules::ADDRESSES_OR_POOL.message),
    validation = Rule::new(rules::SOME_ADDRESS.cel).message(rules::SOME_ADDRESS.message),
    validation = Rule::new(rules::LISTENERS_OR_MARK.cel).message(rules::LISTENERS_OR_MARK.message),
    validation = Rule::new(rules::DISTINCT_LISTENERS.cel).message(rules::DISTINCT_LISTENERS.message),
    validation = Rule::new(rules::ALL_PORTS_NEED_PERSISTENCE.cel)
        .message(rules::ALL_PORTS_NEED_PERSISTENCE.message),
    validation = Rule::new(rules::ONE_PACKET_IS_UDP.cel).message(rules::ONE_PACKET_IS_UDP.message),
    validation = Rule::new(rules::GROUP_NEEDS_LISTENERS.cel).message(rules::GROUP_NEEDS_LISTENERS.message)
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceSpec {
    /// The VIPs, IPv4 and IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 2, max = 45)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(rules::ADDRESSES_ARE_IPS.cel).message(rules::ADDRESSES_ARE_IPS.message)
    )]
    pub addresses: Option<Vec<String>>,
    /// The pool the VIPs come from, instead of `addresses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_pool_ref: Option<AddressPoolRef>,
    /// What clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub listeners: Option<Vec<Listener>>,
    /// A firewall mark that somebody else's rules set, instead of `listeners`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_mark: Option<FirewallMark>,
    /// Whether all listeners are one virtual service, so that a client's connections to several ports reach the
    /// same real server. Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_listeners: Option<bool>,
    /// How a real server is picked for a new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// Whether and how a client stays with its real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// How packets get to the real servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// Where the real servers come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub backends: Option<Vec<Backend>>,
    /// The sorry server: who answers while no destination is usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// How real servers are checked. Defaults to a TCP connection; endpoints of Services use their readiness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// What becomes of a real server that fails its check. Defaults to Remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_unhealthy: Option<WhenUnhealthy>,
    /// How long connections may end by themselves when a real server leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Draining>,
    /// Which nodes may be director. Defaults to the group named default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub director_group_ref: Option<DirectorGroupRef>,
}

/// Names an AddressPool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Names a DirectorGroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A protocol and a port, or a range of ports, that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(rules::PORT_RANGE.cel).message(rules::PORT_RANGE.message))]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Tells the listeners of one virtual service apart.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port; 0 is every port and needs persistence.
    #[schemars(range(min = 0, max = 65535))]
    pub port: i32,
    /// The last port of a range that starts at `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<i32>,
}

/// Transport protocols of IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Transmission Control Protocol.
    #[serde(rename = "TCP")]
    Tcp,
    /// User Datagram Protocol.
    #[serde(rename = "UDP")]
    Udp,
    /// Stream Control Transmission Protocol.
    #[serde(rename = "SCTP")]
    Sctp,
}

/// A firewall mark that somebody else's rules set on the packets to balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirewallMark {
    /// The mark.
    #[schemars(range(min = 1, max = 4294967295u32))]
    pub mark: i64,
    /// The family of the packets.
    pub family: IpFamily,
}

/// Address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IpFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// How a real server is picked for a new connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(rules::SCHEDULER_FLAGS.cel).message(rules::SCHEDULER_FLAGS.message))]
#[serde(rename_all = "camelCase")]
pub struct Scheduler {
    /// The kernel's name of the scheduler. Defaults to wlc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<SchedulerAlgorithm>,
    /// Options of the scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub flags: Option<Vec<SchedulerFlag>>,
    /// Whether each packet is scheduled on its own, for UDP. Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_packet: Option<bool>,
}

/// Schedulers, by the kernel's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(
    description = "rr round robin, wrr weighted round robin, lc least connections, wlc weighted least \
    connections, lblc and lblcr locality-based least connections without and with replication, dh destination \
    hash, sh source hash, sed shortest expected delay, nq never queue, fo fail-over, ovf overflow, mh Maglev hash, \
    twos power of two choices."
)]
#[allow(
    missing_docs,
    reason = "each is a name of the kernel's; the type's description says what they mean"
)]
pub enum SchedulerAlgorithm {
    Rr,
    Wrr,
    Lc,
    Wlc,
    Lblc,
    Lblcr,
    Dh,
    Sh,
    Sed,
    Nq,
    Fo,
    Ovf,
    Mh,
    Twos,
}

/// Options of a scheduler (`ipvsadm -b`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(
    description = "sh-fallback, mh-fallback: pick another real server when the hashed one cannot take \
    connections. sh-port, mh-port: hash the client's port too. flag-1 to flag-3: the same bits by number."
)]
#[allow(
    missing_docs,
    reason = "each is a name of ipvsadm's; the type's description says what they mean"
)]
pub enum SchedulerFlag {
    ShFallback,
    ShPort,
    MhFallback,
    MhPort,
    #[serde(rename = "flag-1")]
    Flag1,
    #[serde(rename = "flag-2")]
    Flag2,
    #[serde(rename = "flag-3")]
    Flag3,
}

/// Whether and how a client stays with its real server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(rules::PERSISTENCE_TIMEOUT.cel).message(rules::PERSISTENCE_TIMEOUT.message))]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// How long the assignment outlives the client's last connection, 1s to 744h. Defaults to 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Which IPv4 clients count as one. Defaults to 255.255.255.255: each is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 7, max = 15))]
    #[x_kube(validation = Rule::new(rules::NETMASK_IS_V4.cel).message(rules::NETMASK_IS_V4.message))]
    pub netmask_v4: Option<String>,
    /// Length of the prefix whose IPv6 clients count as one. Defaults to 128: each is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub prefix_v6: Option<i32>,
    /// What else identifies a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<PersistenceEngine>,
}

/// Persistence engines of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PersistenceEngine {
    /// By SIP call id.
    Sip,
}

/// One source of real servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(rules::ONE_BACKEND_SOURCE.cel).message(rules::ONE_BACKEND_SOURCE.message))]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Tells the backends of one virtual service apart.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// RealServers of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_servers: Option<RealServerSelection>,
    /// The endpoints of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_ref: Option<ServiceRef>,
    /// Multiplies the weight of each real server from here. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub weight: Option<i32>,
    /// Where these real servers listen, unless one says its own port. Defaults to the port clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<i32>,
}

/// RealServers by their labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerSelection {
    /// Which RealServers of the virtual service's namespace.
    pub selector: LabelSelector,
}

/// A Service whose endpoints are the real servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The Service's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The Service's namespace. Defaults to the virtual service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The Service's port, by number or name.
    #[schemars(length(min = 1, max = 63))]
    pub port: String,
}

/// Who answers while no destination is usable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Its address.
    #[schemars(length(min = 2, max = 45))]
    #[x_kube(validation = Rule::new(rules::ADDRESS_IS_IP.cel).message(rules::ADDRESS_IS_IP.message))]
    pub address: String,
    /// Its port. Defaults to the port clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// What becomes of a real server that fails its check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnhealthy {
    /// Weight 0: connections it has stay.
    Quiesce,
    /// It is taken out of the table.
    Remove,
}

/// How long connections may end by themselves when a real server leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Draining {
    /// The time they have. Defaults to 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What becomes of those that are left then. Defaults to Drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnDrainTimeout>,
}

/// What becomes of connections that outlive the draining timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDrainTimeout {
    /// The destination is removed, and they with it.
    Drop,
    /// The destination stays without new connections until they are gone.
    Keep,
}

/// What Weir says of a virtual service. Only the controller writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceStatus {
    /// The generation that the conditions speak of; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The first VIP, and how many more there are: `10.0.0.200 +1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub address_summary: Option<String>,
    /// What clients connect to: `80/TCP,443/TCP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub port_summary: Option<String>,
    /// The active director, and how many more there are: `d1`, `d1 +2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 264))]
    pub active_node: Option<String>,
    /// How many destinations take new connections, of how many: `3/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub backend_summary: Option<String>,
    /// Conditions by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}
