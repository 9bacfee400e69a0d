//! RealServer: a machine that answers.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Forwarding, HealthCheck, rules};

/// A machine that answers for virtual services of its namespace that select it by its labels.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "RealServer",
    plural = "realservers",
    shortname = "irs",
    category = "weir",
    category = "ipvs",
    namespaced,
    derive = "PartialEq",
    status = "RealServerStatus",
    doc = "A machine that answers for virtual services of its namespace that select it by its labels.",
    printcolumn(json_path = ".spec.address", name = "Address", type_ = "string"),
    printcolumn(json_path = ".spec.port", name = "Port", type_ = "integer"),
    printcolumn(json_path = ".spec.weight", name = "Weight", type_ = "integer"),
    printcolumn(json_path = ".status.state", name = "State", type_ = "string"),
    printcolumn(json_path = ".status.virtualServices", name = "Used By", type_ = "integer"),
    printcolumn(
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        name = "Ready",
        type_ = "string"
    ),
    printcolumn(json_path = ".spec.nodeName", name = "Node", type_ = "string", priority = 1),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[x_kube(validation = Rule::new(rules::THRESHOLDS.cel).message(rules::THRESHOLDS.message))]
#[serde(rename_all = "camelCase")]
pub struct RealServerSpec {
    /// Where the real server is reached.
    #[schemars(length(min = 2, max = 45))]
    #[x_kube(validation = Rule::new(rules::ADDRESS_IS_IP.cel).message(rules::ADDRESS_IS_IP.message))]
    pub address: String,
    /// Where it listens. Defaults to the port clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Its share of new connections; 0 takes none and keeps those it has. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub weight: Option<i32>,
    /// The node it is, so that its agent does the real server's part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: Option<String>,
    /// Whether it takes connections. Defaults to Enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_state: Option<AdminState>,
    /// Forwarding to this real server, where it differs from the virtual service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// Connections above which it gets no new ones. Defaults to no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647))]
    pub upper_threshold: Option<i32>,
    /// Connections below which it gets new ones again. Defaults to three quarters of the upper threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647))]
    pub lower_threshold: Option<i32>,
    /// How it is checked, where that differs from the virtual service's check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
}

/// Whether a real server takes connections, as its administrator wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdminState {
    /// It takes its share.
    Enabled,
    /// It takes no new connections, keeps those it has, and leaves when they have ended or the draining timeout is over.
    Draining,
    /// It is taken out, as if it were deleted.
    Disabled,
}

/// Whether a real server takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RealServerState {
    /// It takes its share.
    Enabled,
    /// It serves the connections it has, on some director.
    Draining,
    /// No director has it any more.
    Drained,
    /// It is taken out.
    Disabled,
}

/// What Weir says of a real server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealServerStatus {
    /// The generation that the conditions speak of; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether it takes connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RealServerState>,
    /// How many virtual services select it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_services: Option<i32>,
    /// Conditions by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}
