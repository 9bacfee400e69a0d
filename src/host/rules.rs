//! What virtual services need of a node → rules of nftables.
//!
//! ```text
//! arp  input        who has a quiet VIP?                        drop
//!      output       a quiet VIP as the sender                   the link's own address instead
//! ip   mark         to grouped listeners                        a mark, by which IPVS knows them
//! ip6  redirect     to a VIP that is no address of this node    to the real server's address
//!      masquerade   to a destination that answers past us       from this node's address
//!      clamp        a SYN from a VIP behind a tunnel            a segment size that fits
//! ```
//!
//! A chain is there only while something is in it: the first one that translates addresses makes the kernel track every
//! connection of the node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::ipvs::Protocol;
use crate::nft::{
    Base, Chain, ChainKind, Element, Expression, Family, Field, Hook, MetaKey, Register, Rule, Ruleset, Set,
    Table, Verdict,
};

use super::around::Listened;
use super::network::Network;

/// What rules are made of: what all virtual services need, together.
#[derive(Debug, Clone, Default)]
pub(super) struct RuleParts {
    pub(super) quiet: Vec<IpAddr>,
    pub(super) redirected: BTreeMap<Listened, IpAddr>,
    pub(super) marked: BTreeMap<Listened, u32>,
    pub(super) masqueraded: BTreeMap<Listened, ()>,
    pub(super) clamped: BTreeMap<IpAddr, u16>,
}

/// Priority of a chain of family `arp`, which knows no other (`NF_ARP_PRI_FILTER`).
const ARP_FILTER: i32 = 0;
/// `NF_IP_PRI_MANGLE`: before addresses are translated and before IPVS.
const MANGLE: i32 = -150;
/// `NF_IP_PRI_NAT_DST`.
const NAT_DESTINATION: i32 = -100;
/// `NF_IP_PRI_NAT_SRC`.
const NAT_SOURCE: i32 = 100;
/// Behind [`NAT_SOURCE`], where the answers of redirected connections have the VIP as source again.
const AFTER_NAT_SOURCE: i32 = 150;

/// Where a value is looked up, or loaded to be compared.
const KEY: Register = Register(0);
/// Where a map puts what it leads to: beyond the longest key, an IPv6 address, a protocol and a port.
const VALUE: Register = Register(8);

/// The tables named `weir`.
pub(super) fn ruleset(parts: &RuleParts, network: &Network) -> Ruleset {
    let mut ruleset = Ruleset::new();
    if !parts.quiet.is_empty() {
        ruleset.insert(Family::Arp, quiet(&parts.quiet, network));
    }
    for layout in [&IPV4, &IPV6] {
        let mut table = Table::default();
        layout.mark(&mut table, &parts.marked);
        layout.redirect(&mut table, &parts.redirected);
        layout.masquerade(&mut table, &parts.masqueraded);
        layout.clamp(&mut table, &parts.clamped);
        if table != Table::default() {
            ruleset.insert(layout.family, table);
        }
    }
    ruleset
}

/// Offsets into an ARP packet of IPv4 over Ethernet (RFC 826).
mod arp {
    pub(super) const OPERATION: u32 = 6;
    pub(super) const SENDER: u32 = 14;
    pub(super) const TARGET: u32 = 24;
    pub(super) const REQUEST: [u8; 2] = [0, 1];
}

/// Questions about the VIPs are not heard, and what this node asks itself it asks in its own name.
fn quiet(vips: &[IpAddr], network: &Network) -> Table {
    let field = |offset, length| Expression::Payload {
        base: Base::Network,
        offset,
        length,
        register: KEY,
    };
    let is_quiet = || Expression::Lookup {
        set: "vips".into(),
        register: KEY,
        into: None,
    };
    let unheard = vec![
        field(arp::OPERATION, 2),
        equals(&arp::REQUEST),
        field(arp::TARGET, 4),
        is_quiet(),
        Expression::Verdict(Verdict::Drop),
    ];
    let mut unsaid: Vec<Rule> = Vec::new();
    for link in &network.links {
        let own = link.primary_address(false);
        if let Some(own) = own.filter(|_| link.resolves && !link.ours && !link.loopback) {
            unsaid.push(vec![
                Expression::Meta {
                    key: MetaKey::OutputInterface,
                    register: KEY,
                },
                equals(&interface_name(&link.name)),
                field(arp::SENDER, 4),
                is_quiet(),
                Expression::Immediate {
                    register: KEY,
                    value: octets(own),
                },
                Expression::PayloadWrite {
                    base: Base::Network,
                    offset: arp::SENDER,
                    length: 4,
                    register: KEY,
                },
            ]);
        }
    }
    // A link without an address of its own has no name to ask in.
    unsaid.push(vec![
        field(arp::SENDER, 4),
        is_quiet(),
        Expression::Verdict(Verdict::Drop),
    ]);
    let set = Set {
        key: vec![Field::Ipv4Address],
        data: None,
        ranges: false,
        elements: vips.iter().map(|vip| (single(octets(*vip)), None)).collect(),
    };
    let chain = |hook, rules| Chain {
        kind: ChainKind::Filter,
        hook,
        priority: ARP_FILTER,
        rules,
    };
    Table {
        sets: [("vips".into(), set)].into(),
        chains: [
            ("input".into(), chain(Hook::Input, vec![unheard])),
            ("output".into(), chain(Hook::Output, unsaid)),
        ]
        .into(),
    }
}

/// What differs between the families.
struct Layout {
    family: Family,
    address: Field,
    /// Bytes of an address.
    width: u32,
    /// Offsets of the addresses in the header.
    source: u32,
    destination: u32,
    /// Bytes of the smallest headers of the family and of TCP.
    headers: u16,
}

const IPV4: Layout = Layout {
    family: Family::Ipv4,
    address: Field::Ipv4Address,
    width: 4,
    source: 12,
    destination: 16,
    headers: 40,
};

const IPV6: Layout = Layout {
    family: Family::Ipv6,
    address: Field::Ipv6Address,
    width: 16,
    source: 8,
    destination: 24,
    headers: 60,
};

impl Layout {
    fn has(&self, address: IpAddr) -> bool {
        address.is_ipv4() == (self.family == Family::Ipv4)
    }

    fn mark(&self, table: &mut Table, marked: &BTreeMap<Listened, u32>) {
        let data = |mark: &u32| Some(mark.to_ne_bytes().to_vec());
        let act = vec![Expression::SetMark { register: VALUE }];
        self.by_listened(
            table,
            "mark",
            "marked",
            Some(Field::Mark),
            marked,
            data,
            act,
            |rules| Chain {
                kind: ChainKind::Filter,
                hook: Hook::Prerouting,
                priority: MANGLE,
                rules,
            },
        );
    }

    fn redirect(&self, table: &mut Table, redirected: &BTreeMap<Listened, IpAddr>) {
        let data = |server: &IpAddr| Some(octets(*server));
        let act = vec![Expression::DestinationNat {
            family: self.family,
            address: VALUE,
        }];
        let leads_to = Some(self.address);
        self.by_listened(
            table,
            "redirect",
            "redirected",
            leads_to,
            redirected,
            data,
            act,
            |rules| Chain {
                kind: ChainKind::Nat,
                hook: Hook::Prerouting,
                priority: NAT_DESTINATION,
                rules,
            },
        );
    }

    fn masquerade(&self, table: &mut Table, masqueraded: &BTreeMap<Listened, ()>) {
        let act = vec![Expression::Masquerade];
        self.by_listened(
            table,
            "masquerade",
            "masqueraded",
            None,
            masqueraded,
            |()| None,
            act,
            |rules| Chain {
                kind: ChainKind::Nat,
                hook: Hook::Postrouting,
                priority: NAT_SOURCE,
                rules,
            },
        );
    }

    /// A chain of one rule for what is sent to addresses and ports of a set or map.
    #[allow(
        clippy::too_many_arguments,
        reason = "a chain has that many parts, and three callers name them"
    )]
    fn by_listened<V>(
        &self,
        table: &mut Table,
        chain: &str,
        set: &str,
        leads_to: Option<Field>,
        listened: &BTreeMap<Listened, V>,
        data: impl Fn(&V) -> Option<Vec<u8>>,
        act: Vec<Expression>,
        with: impl FnOnce(Vec<Rule>) -> Chain,
    ) {
        let elements: BTreeMap<Element, Option<Vec<u8>>> = disjoint(listened)
            .into_iter()
            .filter(|(listened, _)| self.has(listened.address))
            .map(|(listened, value)| (range(&listened), data(value)))
            .collect();
        if elements.is_empty() {
            return;
        }
        let after_address = (self.width / 4) as u8;
        let mut rule = vec![
            self.load(self.destination),
            Expression::Meta {
                key: MetaKey::Protocol,
                register: Register(after_address),
            },
            Expression::Payload {
                base: Base::Transport,
                offset: 2,
                length: 2,
                register: Register(after_address + 1),
            },
            Expression::Lookup {
                set: set.into(),
                register: KEY,
                into: leads_to.map(|_| VALUE),
            },
        ];
        rule.extend(act);
        let set_of = Set {
            key: vec![self.address, Field::Protocol, Field::Port],
            data: leads_to,
            ranges: true,
            elements,
        };
        table.sets.insert(set.into(), set_of);
        table.chains.insert(chain.into(), with(vec![rule]));
    }

    /// Clients are told to send segments that still fit into the tunnel, the least of all tunnels: they differ by a few
    /// bytes.
    fn clamp(&self, table: &mut Table, clamped: &BTreeMap<IpAddr, u16>) {
        const TCP: [u8; 1] = [6];
        const FLAGS: u32 = 13;
        const SYN: u8 = 0x02;
        let of_family = || clamped.iter().filter(|(vip, _)| self.has(**vip));
        let Some(fits) = of_family().map(|(_, fits)| *fits).min() else {
            return;
        };
        let rule = vec![
            self.load(self.source),
            Expression::Lookup {
                set: "clamped".into(),
                register: KEY,
                into: None,
            },
            Expression::Meta {
                key: MetaKey::Protocol,
                register: KEY,
            },
            equals(&TCP),
            Expression::Payload {
                base: Base::Transport,
                offset: FLAGS,
                length: 1,
                register: KEY,
            },
            Expression::Mask {
                register: KEY,
                mask: vec![SYN],
            },
            equals(&[SYN]),
            Expression::Immediate {
                register: KEY,
                value: fits.saturating_sub(self.headers).to_be_bytes().to_vec(),
            },
            Expression::ClampSegmentSize { register: KEY },
        ];
        let set = Set {
            key: vec![self.address],
            data: None,
            ranges: false,
            elements: of_family().map(|(vip, _)| (single(octets(*vip)), None)).collect(),
        };
        let chain = Chain {
            kind: ChainKind::Filter,
            hook: Hook::Postrouting,
            priority: AFTER_NAT_SOURCE,
            rules: vec![rule],
        };
        table.sets.insert("clamped".into(), set);
        table.chains.insert("clamp".into(), chain);
    }

    fn load(&self, offset: u32) -> Expression {
        Expression::Payload {
            base: Base::Network,
            offset,
            length: self.width,
            register: KEY,
        }
    }
}

fn equals(value: &[u8]) -> Expression {
    Expression::Compare {
        register: KEY,
        equal: true,
        value: value.to_vec(),
    }
}

/// An interface's name as the kernel compares it: `IFNAMSIZ` bytes.
fn interface_name(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    for (place, byte) in padded.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    padded
}

fn single(first: Vec<u8>) -> Element {
    Element { first, last: None }
}

fn range(listened: &Listened) -> Element {
    let Listened {
        address,
        protocol,
        first,
        last,
    } = listened;
    let key = |port: &u16| {
        let [high, low] = port.to_be_bytes();
        let mut key = octets(*address);
        key.extend([number(*protocol), 0, 0, 0, high, low, 0, 0]);
        key
    };
    Element {
        first: key(first),
        last: Some(key(last)),
    }
}

/// The protocol's number (IANA).
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The same ports with nothing named twice, since the kernel refuses a set whose ranges overlap, and everything that
/// goes with it: of two ranges the one that begins first keeps what both have.
fn disjoint<V>(listened: &BTreeMap<Listened, V>) -> Vec<(Listened, &V)> {
    let mut disjoint: Vec<(Listened, &V)> = Vec::new();
    for (range, value) in listened {
        let mut range = range.clone();
        let before = disjoint
            .last()
            .filter(|(before, _)| (before.address, before.protocol) == (range.address, range.protocol));
        if let Some((before, _)) = before.filter(|(before, _)| before.last >= range.first) {
            if before.last >= range.last {
                continue;
            }
            range.first = before.last + 1;
        }
        disjoint.push((range, value));
    }
    disjoint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_are_cut() {
        let vip = IpAddr::from([10, 0, 0, 200]);
        let listened = |ports, value| (Listened::new(vip, Protocol::Tcp, ports), value);
        let all: BTreeMap<Listened, u32> = [
            listened(21..=21, 1),
            listened(80..=90, 2),
            listened(85..=95, 3),
            listened(86..=88, 4),
            listened(96..=96, 5),
        ]
        .into();
        let cut: Vec<_> = disjoint(&all)
            .into_iter()
            .map(|(listened, value)| (listened.first, listened.last, *value))
            .collect();
        assert_eq!(cut, [(21, 21, 1), (80, 90, 2), (91, 95, 3), (96, 96, 5)]);
    }

    #[test]
    fn nothing_needed_is_no_table() {
        assert_eq!(
            ruleset(&RuleParts::default(), &Network::default()),
            Ruleset::new()
        );
    }
}
