//! What the schema alone cannot say: each rule as CEL for the API server, with the message a person gets.
//!
//! `plan::validate` checks the same rules in Rust and answers with the same messages.

/// One rule of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The condition that must hold, over `self`.
    pub cel: &'static str,
    /// What is wrong where it does not, and the way out.
    pub message: &'static str,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident: $cel:literal => $message:literal;)*) => {
        $($(#[$doc])* pub const $name: Rule = Rule { cel: $cel, message: $message };)*

        /// Every rule with its name.
        pub const ALL: &[(&str, Rule)] = &[$((stringify!($name), $name),)*];
    };
}

rules! {
    /// VirtualService: the VIPs come from one place.
    ADDRESSES_OR_POOL: "!(has(self.addresses) && has(self.addressPoolRef))" =>
        "addresses and addressPoolRef exclude each other: keep one";
    /// VirtualService: there is a VIP, unless somebody else's rules set the mark.
    SOME_ADDRESS: "has(self.addresses) || has(self.addressPoolRef) || has(self.firewallMark)" =>
        "no VIP: give addresses or an addressPoolRef";
    /// VirtualService: what clients connect to is said once.
    LISTENERS_OR_MARK: "has(self.listeners) != has(self.firewallMark)" =>
        "give either listeners or a firewallMark";
    /// VirtualService: every VIP is an address.
    ADDRESSES_ARE_IPS: "self.all(a, isIP(a))" =>
        "not an IP address: write 10.0.0.200 or fd00::200, without a prefix length or a port";
    /// Any single address.
    ADDRESS_IS_IP: "isIP(self)" =>
        "not an IP address: write 10.0.0.11 or fd00::11, without a prefix length or a port";
    /// Listener: a range runs upwards and starts at a real port.
    PORT_RANGE: "!has(self.endPort) || (self.port > 0 && self.endPort >= self.port)" =>
        "endPort must not be below port";
    /// VirtualService: listener keys are unique.
    DISTINCT_LISTENERS:
        "!has(self.listeners) || self.listeners.all(l, self.listeners.exists_one(m, m.protocol == l.protocol && m.port == l.port))" =>
        "two listeners have the same protocol and port: keep one";
    /// VirtualService: the kernel ties the ports of a client together by persistence only.
    ALL_PORTS_NEED_PERSISTENCE:
        "!has(self.listeners) || has(self.persistence) || self.listeners.all(l, l.port != 0)" =>
        "port 0 (all ports) needs persistence";
    /// VirtualService: one-packet scheduling is for datagrams.
    ONE_PACKET_IS_UDP:
        "!has(self.scheduler) || !has(self.scheduler.onePacket) || !self.scheduler.onePacket || !has(self.listeners) || self.listeners.all(l, l.protocol == 'UDP')" =>
        "onePacket is for UDP: every listener must be UDP";
    /// VirtualService: several listeners in one virtual service need listeners.
    GROUP_NEEDS_LISTENERS: "!has(self.groupListeners) || !self.groupListeners || has(self.listeners)" =>
        "groupListeners needs listeners";
    /// Scheduler: options belong to their algorithm.
    SCHEDULER_FLAGS:
        "!has(self.flags) || self.flags.all(f, !(f.startsWith('sh-') || f.startsWith('mh-')) || (has(self.algorithm) && f.startsWith(self.algorithm + '-')))" =>
        "sh-fallback and sh-port need algorithm sh, mh-fallback and mh-port need algorithm mh";
    /// Persistence: the mask is an IPv4 mask.
    NETMASK_IS_V4: "isIP(self) && ip(self).family() == 4" =>
        "not an IPv4 netmask: write 255.255.255.0";
    /// Persistence: what the kernel keeps.
    PERSISTENCE_TIMEOUT: "!has(self.timeout) || (duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('744h'))" =>
        "timeout must be between 1s and 744h (31 days)";
    /// Forwarding: encapsulation belongs to one method.
    TUNNEL_NEEDS_METHOD: "!has(self.tunnel) || (has(self.method) && self.method == 'Tunnel')" =>
        "tunnel needs method Tunnel";
    /// Forwarding: source translation belongs to one method.
    SNAT_NEEDS_MASQUERADE: "!has(self.snat) || !has(self.method) || self.method == 'Masquerade'" =>
        "snat needs method Masquerade";
    /// Forwarding: only real servers that answer clients directly have the VIP.
    BINDING_NEEDS_DIRECT_RETURN:
        "(!has(self.realServerBinding) && !has(self.arpSuppression)) || (has(self.method) && self.method != 'Masquerade')" =>
        "realServerBinding and arpSuppression need method DirectRoute or Tunnel";
    /// Tunnel: only GUE has a port.
    TUNNEL_PORT: "(self.type == 'GUE') == has(self.port)" =>
        "type GUE needs a port, other types have none";
    /// Tunnel: which types have an outer checksum.
    TUNNEL_CHECKSUM:
        "!has(self.checksum) || self.checksum == 'None' || self.type == 'GUE' || (self.type == 'GRE' && self.checksum == 'Full')" =>
        "checksum Full needs type GUE or GRE, checksum Remote needs type GUE";
    /// Backend: exactly one source of destinations.
    ONE_BACKEND_SOURCE: "has(self.realServers) != has(self.serviceRef)" =>
        "give exactly one of realServers and serviceRef";
    /// RealServer: the limits make sense together.
    THRESHOLDS: "!has(self.lowerThreshold) || (has(self.upperThreshold) && self.lowerThreshold <= self.upperThreshold)" =>
        "lowerThreshold must not be above upperThreshold";
    /// HealthCheck: the member belongs to the type.
    HEALTH_CHECK_MEMBER: "(!has(self.tcp) || self.type == 'TCP') && (!has(self.http) || self.type == 'HTTP')" =>
        "tcp needs type TCP, http needs type HTTP";
    /// DirectorGroup: `Static` has to say which node.
    STATIC_MEMBER: "has(self.static) == (self.type == 'Static')" =>
        "type Static needs static.activeNode, other types have no static";
    /// DirectorGroup: the member belongs to the type.
    FAILOVER_MEMBER:
        "(!has(self.vrrp) || self.type == 'VRRP') && (!has(self.lease) || self.type == 'Lease') && (!has(self.routed) || self.type == 'Routed')" =>
        "vrrp needs type VRRP, lease needs type Lease, routed needs type Routed";
    /// DirectorGroup: it owns IPVS's sysctls and no others.
    SYSCTL_NAMES: "self.all(k, k.startsWith('net.ipv4.vs.'))" =>
        "sysctls may only hold names that begin with net.ipv4.vs.";
    /// IpvsTimeouts: what the kernel keeps, whatever its tick.
    TIMEOUTS:
        "(!has(self.tcp) || (duration(self.tcp) >= duration('1s') && duration(self.tcp) <= duration('596h'))) && (!has(self.tcpFin) || (duration(self.tcpFin) >= duration('1s') && duration(self.tcpFin) <= duration('596h'))) && (!has(self.udp) || (duration(self.udp) >= duration('1s') && duration(self.udp) <= duration('596h')))" =>
        "timeouts must be between 1s and 596h";
    /// LabelSelectorRequirement: values belong to two of the operators.
    SELECTOR_VALUES:
        "(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)" =>
        "operators In and NotIn need values, Exists and DoesNotExist have none";
}
