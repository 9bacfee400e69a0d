//! ReferenceGrant of the Gateway API: what a namespace permits others to refer to. Weir reads it and does not define it.
//!
//! Source: `apis/v1beta1/referencegrant_types.go` of kubernetes-sigs/gateway-api.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Who may refer from where to what in its namespace.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1beta1",
    kind = "ReferenceGrant",
    namespaced,
    schema = "disabled"
)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    #[serde(default)]
    pub from: Vec<ReferenceGrantFrom>,
    /// To what.
    #[serde(default)]
    pub to: Vec<ReferenceGrantTo>,
}

/// Objects of a kind in another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceGrantFrom {
    /// Their API group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
}

/// Objects of a kind in the grant's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceGrantTo {
    /// Their API group; empty for Kubernetes' own core.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// The only one; without a name all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
