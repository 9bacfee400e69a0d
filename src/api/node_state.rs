//! NodeState: what one node's agent has programmed. Its name is the node's; only that agent writes it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nothing is asked of a NodeState: all it says is in its status.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "NodeState",
    plural = "nodestates",
    shortname = "ipvsnode",
    category = "weir",
    category = "ipvs",
    derive = "PartialEq",
    status = "NodeStateStatus",
    doc = "What one node's agent has programmed. Only that agent writes it.",
    printcolumn(json_path = ".status.desired.services", name = "Desired", type_ = "integer"),
    printcolumn(
        json_path = ".status.programmed.services",
        name = "Programmed",
        type_ = "integer"
    ),
    printcolumn(
        json_path = ".status.programmed.destinations",
        name = "Destinations",
        type_ = "integer"
    ),
    printcolumn(json_path = ".status.failureCount", name = "Failures", type_ = "integer"),
    printcolumn(json_path = ".status.findingCount", name = "Findings", type_ = "integer"),
    printcolumn(
        json_path = ".status.agentVersion",
        name = "Agent",
        type_ = "string",
        priority = 1
    ),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeStateSpec {}

/// What the agent has done, and what kept it from doing more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStateStatus {
    /// The agent's version.
    #[schemars(length(max = 64))]
    pub agent_version: String,
    /// The node's part in each director group that its labels put it in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub roles: Vec<RoleReport>,
    /// What the node should have.
    pub desired: Programmed,
    /// What it has, of what is Weir's.
    pub programmed: Programmed,
    /// A digest of the virtual services, with their generations, of which this node is active director and has
    /// everything. The controller compares it with its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub programmed_virtual_services: Option<String>,
    /// Virtual services in the kernel that are not Weir's, and left alone.
    pub foreign_services: i32,
    /// Destinations that are not wanted any more and go when their connections have ended.
    #[serde(default)]
    pub leaving_destinations: i32,
    /// RealServers that drain or are deleted, as far as this agent knows, and how much of each is still in this node's
    /// table. A deleted one is held until every director says 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub leaving_real_servers: Vec<LeavingRealServer>,
    /// How this node is kept from answering ARP for VIPs of which it is a real server and not the director.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub arp_suppression: Vec<ArpSuppressionMethod>,
    /// How many changes the kernel refuses.
    pub failure_count: i32,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub failures: Vec<FailureReport>,
    /// What about the node stands in the way of what it should have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub preflight: Vec<PreflightReport>,
    /// How many findings there are on objects that this node concerns itself with.
    pub finding_count: i32,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub findings: Vec<FindingReport>,
}

/// Something that could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureReport {
    /// The virtual service that lacks it, as namespace/name; otherwise it may be any, or all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub virtual_service: Option<String>,
    /// What, and why.
    #[schemars(length(max = 512))]
    pub message: String,
}

/// A RealServer that drains or is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeavingRealServer {
    /// Its namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The destinations that it still is.
    pub destinations: i32,
}

/// A way to keep a node from answering ARP for a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ArpSuppressionMethod {
    /// By rules of nftables' arp family.
    Nftables,
    /// By `arp_ignore` and `arp_announce`.
    Sysctl,
}

/// Something about the node that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightReport {
    /// What was looked at, such as a setting's name.
    #[schemars(length(max = 253))]
    pub subject: String,
    /// What is wrong, in one sentence, and the way out.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A configuration in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Programmed {
    /// Equal digests mean equal configurations.
    #[schemars(length(max = 64))]
    pub digest: String,
    /// Virtual services of the kernel's table.
    pub services: i32,
    /// Destinations.
    pub destinations: i32,
}

/// The node's part in one director group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleReport {
    /// The group's name.
    #[schemars(length(max = 253))]
    pub director_group: String,
    /// The part.
    pub role: DirectorRole,
}

/// A node's part in a director group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DirectorRole {
    /// It balances.
    Active,
    /// It stands by.
    Standby,
}

/// What is wrong with an object, or not as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindingReport {
    /// The object: kind, namespace and name.
    #[schemars(length(max = 400))]
    pub object: String,
    /// The field, as a path from the object's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub field: Option<String>,
    /// Why, in one word.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, in one sentence, and the next step.
    #[schemars(length(max = 1024))]
    pub message: String,
}
