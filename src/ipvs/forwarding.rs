//! Forwarding methods: how a packet gets from the director to a real server.

use std::fmt;
use std::num::NonZeroU16;

/// How a director passes packets on to a destination.
///
/// Source: `IP_VS_CONN_F_FWD_MASK` in `include/uapi/linux/ip_vs.h`, `ipvsadm(8)` `-g`, `-i`, `-m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForwardingMethod {
    /// Network address translation; the reply comes back through the director (`ipvsadm -m`).
    Masquerade,
    /// The director itself answers.
    Local,
    /// Encapsulated; the real server answers the client directly (`ipvsadm -i`).
    Tunnel(Tunnel),
    /// Sent unchanged to the real server's MAC; it answers the client directly (`ipvsadm -g`).
    DirectRoute,
    /// Sent on to where the packet was going, for transparent caches.
    Bypass,
}

/// The encapsulation of a tunnelled destination (`ipvsadm --tun-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// IP in IP, without a header of its own and so without options.
    Ipip,
    /// Generic UDP encapsulation to this port.
    Gue {
        /// The port on which the real server receives.
        port: NonZeroU16,
        /// The outer checksum.
        checksum: TunnelChecksum,
    },
    /// Generic routing encapsulation.
    Gre {
        /// The outer checksum.
        checksum: TunnelChecksum,
    },
}

/// The outer checksum of GUE and GRE (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelChecksum {
    /// None, the kernel's default (`--tun-nocsum`).
    #[default]
    None,
    /// Full (`--tun-csum`).
    Full,
    /// Remote checksum offload, GUE only (`--tun-remcsum`).
    Remote,
}

impl ForwardingMethod {
    /// The word of ipvsadm's listing: `Masq`, `Local`, `Tunnel`, `Route`, `Bypass`.
    pub fn listing_word(self) -> &'static str {
        match self {
            Self::Masquerade => "Masq",
            Self::Local => "Local",
            Self::Tunnel(_) => "Tunnel",
            Self::DirectRoute => "Route",
            Self::Bypass => "Bypass",
        }
    }
}

impl fmt::Display for ForwardingMethod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade => formatter.write_str("Masquerade"),
            Self::Local => formatter.write_str("Local"),
            Self::DirectRoute => formatter.write_str("DirectRoute"),
            Self::Bypass => formatter.write_str("Bypass"),
            Self::Tunnel(tunnel) => write!(formatter, "Tunnel {tunnel}"),
        }
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checksum = match self {
            Self::Ipip => return formatter.write_str("IPIP"),
            Self::Gue { port, checksum } => {
                write!(formatter, "GUE port {port}")?;
                checksum
            }
            Self::Gre { checksum } => {
                formatter.write_str("GRE")?;
                checksum
            }
        };
        match checksum {
            TunnelChecksum::None => Ok(()),
            TunnelChecksum::Full => formatter.write_str(" checksum"),
            TunnelChecksum::Remote => formatter.write_str(" remote checksum"),
        }
    }
}
