//! Forwarding: how packets get from a director to a real server, and what that needs on both.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// How packets get from the director to the real servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new(rules::TUNNEL_NEEDS_METHOD.cel).message(rules::TUNNEL_NEEDS_METHOD.message),
    validation = Rule::new(rules::SNAT_NEEDS_MASQUERADE.cel).message(rules::SNAT_NEEDS_MASQUERADE.message),
    validation = Rule::new(rules::BINDING_NEEDS_DIRECT_RETURN.cel)
        .message(rules::BINDING_NEEDS_DIRECT_RETURN.message)
)]
#[serde(rename_all = "camelCase")]
pub struct Forwarding {
    /// The forwarding method. Defaults to Masquerade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<ForwardingMethod>,
    /// The encapsulation for method Tunnel. Defaults to IPIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Whether masqueraded packets also get the director's address as source, which hides the client's. Auto does
    /// so for real servers whose way back does not lead through the director. Defaults to Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat: Option<Snat>,
    /// How a real server takes packets to the VIP. Defaults to Address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_server_binding: Option<RealServerBinding>,
    /// How a real server keeps quiet about the VIP. Defaults to the DirectorGroup's, and that to Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arp_suppression: Option<ArpSuppression>,
}

/// A forwarding method that can be asked for. A destination that is the director itself is local by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ForwardingMethod {
    /// Direct routing: to the real server's MAC, which answers the client directly. Needs one network for both.
    DirectRoute,
    /// Encapsulated to the real server, which answers the client directly.
    Tunnel,
    /// Address translation; replies come back through the director.
    Masquerade,
}

/// An encapsulation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new(rules::TUNNEL_PORT.cel).message(rules::TUNNEL_PORT.message),
    validation = Rule::new(rules::TUNNEL_CHECKSUM.cel).message(rules::TUNNEL_CHECKSUM.message)
)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// Which encapsulation.
    pub r#type: TunnelType,
    /// The real server's UDP port, for GUE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The outer checksum, for GUE and GRE. Defaults to None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<TunnelChecksum>,
}

/// Encapsulations of the kernel's IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TunnelType {
    /// IP in IP.
    #[serde(rename = "IPIP")]
    Ipip,
    /// Generic UDP encapsulation.
    #[serde(rename = "GUE")]
    Gue,
    /// Generic routing encapsulation.
    #[serde(rename = "GRE")]
    Gre,
}

/// Outer checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TunnelChecksum {
    /// No checksum.
    None,
    /// Over the whole packet.
    Full,
    /// Remote checksum offload.
    Remote,
}

/// When masqueraded packets get the director's address as source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Snat {
    /// Where the way back needs it.
    Auto,
    /// Never.
    Never,
    /// Always.
    Always,
}

/// How a real server takes packets to the VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RealServerBinding {
    /// The VIP is an address of the real server that nothing announces.
    Address,
    /// Packets to the VIP are redirected to the real server's own address.
    Redirect,
    /// Somebody else sees to it.
    None,
}

/// How a real server keeps from answering ARP for the VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ArpSuppression {
    /// By nftables where the kernel can, else by sysctls.
    Auto,
    /// By rules of nftables' arp family.
    Nftables,
    /// By `arp_ignore` and `arp_announce`.
    Sysctl,
    /// Not at all: somebody else sees to it.
    None,
}
