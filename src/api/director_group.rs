//! DirectorGroup: which nodes balance, and how they share the work.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ArpSuppression, Condition, Duration, LabelSelector, rules};

/// Nodes that may be director of a virtual service, and how it is decided which of them is.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "DirectorGroup",
    plural = "directorgroups",
    shortname = "dirgrp",
    category = "weir",
    category = "ipvs",
    derive = "PartialEq",
    status = "DirectorGroupStatus",
    doc = "Nodes that may be director of a virtual service, and how it is decided which of them is.",
    printcolumn(json_path = ".spec.failover.type", name = "Failover", type_ = "string"),
    printcolumn(json_path = ".status.nodes", name = "Nodes", type_ = "integer"),
    printcolumn(json_path = ".status.activeNode", name = "Active", type_ = "string"),
    printcolumn(
        json_path = ".status.virtualServices",
        name = "Virtual Services",
        type_ = "integer"
    ),
    printcolumn(
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        name = "Ready",
        type_ = "string"
    ),
    printcolumn(
        json_path = ".spec.interface",
        name = "Interface",
        type_ = "string",
        priority = 1
    ),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupSpec {
    /// The nodes, by their labels.
    pub node_selector: LabelSelector,
    /// The interface that carries the VIPs on an active director. Defaults to the one whose network they are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[^/\s]+$"))]
    pub interface: Option<String>,
    /// How it is decided which node is active.
    pub failover: Failover,
    /// Whether and how connections are passed to the standby directors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_sync: Option<ConnectionSync>,
    /// How long the kernel keeps connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<IpvsTimeouts>,
    /// IPVS's sysctls that this group owns, by full name: net.ipv4.vs.…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 64}))]
    #[x_kube(validation = Rule::new(rules::SYSCTL_NAMES.cel).message(rules::SYSCTL_NAMES.message))]
    pub sysctls: Option<BTreeMap<String, String>>,
    /// How real servers of this group's virtual services keep quiet about the VIP. Defaults to Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arp_suppression: Option<ArpSuppression>,
}

/// How it is decided which node is the active director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new(rules::STATIC_MEMBER.cel).message(rules::STATIC_MEMBER.message),
    validation = Rule::new(rules::FAILOVER_MEMBER.cel).message(rules::FAILOVER_MEMBER.message)
)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// The way.
    pub r#type: FailoverType,
    /// Options of type VRRP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrrp: Option<VrrpFailover>,
    /// Options of type Lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseFailover>,
    /// Options of type Static.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#static: Option<StaticFailover>,
    /// Options of type Routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<RoutedFailover>,
}

/// Ways to decide which node is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailoverType {
    /// The directors agree among themselves (RFC 9568).
    #[serde(rename = "VRRP")]
    Vrrp,
    /// A Lease of the Kubernetes API decides.
    Lease,
    /// One node is named.
    Static,
    /// All are active, and a routing daemon announces the VIPs.
    Routed,
}

/// Options of VRRP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VrrpFailover {
    /// The virtual router's number on its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub virtual_router_id: Option<i32>,
    /// Time from one advertisement to the next. Defaults to 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertisement_interval: Option<Duration>,
}

/// Options of a Lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseFailover {
    /// How long a node stays active that does not renew. Defaults to 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// Which node is active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticFailover {
    /// The node's name.
    #[schemars(length(min = 1, max = 253))]
    pub active_node: String,
}

/// Options of Routed; there are none yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutedFailover {}

/// How connections are passed to the standby directors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSync {
    /// Tells groups on one network apart. Defaults to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub sync_id: Option<i32>,
    /// The interface over which the directors see each other. Defaults to the group's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[^/\s]+$"))]
    pub interface: Option<String>,
}

/// How long the kernel keeps connections (`ipvsadm --set`); what is not given stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(rules::TIMEOUTS.cel).message(rules::TIMEOUTS.message))]
#[serde(rename_all = "camelCase")]
pub struct IpvsTimeouts {
    /// Established TCP connections, in whole seconds, 1s to 596h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Duration>,
    /// TCP connections after a FIN, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_fin: Option<Duration>,
    /// UDP, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<Duration>,
}

/// What Weir says of a director group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectorGroupStatus {
    /// The generation that the conditions speak of; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many nodes it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<i32>,
    /// The active director, and how many more there are: `d1`, `d1 +2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 264))]
    pub active_node: Option<String>,
    /// How many virtual services it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_services: Option<i32>,
    /// Conditions by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}
