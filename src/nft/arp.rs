//! What rules of family `arp` do to a packet, as far as that can be told. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{Base, Expression, ForeignChain, MetaKey, Register, Verdict};

/// An ARP packet on its way in or out.
#[derive(Debug, Clone)]
pub struct ArpPacket {
    /// From the hardware type on (RFC 826).
    bytes: [u8; 28],
    link: Box<str>,
}

impl ArpPacket {
    fn new(operation: u8, sender: Ipv4Addr, target: Ipv4Addr, mac: [u8; 6], link: &str) -> Self {
        let mut bytes = [0; 28];
        bytes[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
        bytes[8..14].copy_from_slice(&mac);
        bytes[14..18].copy_from_slice(&sender.octets());
        bytes[24..].copy_from_slice(&target.octets());
        Self {
            bytes,
            link: link.into(),
        }
    }

    /// Somebody's question who has the VIP. Who asks is unknown, so a rule that goes by that is not recognized.
    pub fn question(vip: Ipv4Addr, link: &str) -> Self {
        Self::new(1, Ipv4Addr::UNSPECIFIED, vip, [0; 6], link)
    }

    /// The answer of whoever has the VIP on a link, and this link-layer address.
    pub fn answer(vip: Ipv4Addr, link: &str, mac: [u8; 6]) -> Self {
        Self::new(2, vip, Ipv4Addr::UNSPECIFIED, mac, link)
    }

    /// What of a chain drops this packet for sure. Where a rule cannot be judged, nothing is said.
    pub fn dropped_by(&self, chain: &ForeignChain) -> Option<String> {
        for rule in &chain.rules {
            match self.meets(&rule.expressions)? {
                Some(Verdict::Drop) => return Some(format!("by the rule with handle {}", rule.handle)),
                Some(Verdict::Accept) => return None,
                None => {}
            }
        }
        (chain.policy == Verdict::Drop).then(|| "by its policy".to_owned())
    }

    /// The rule's verdict on this packet, if it comes to one; `None` where it cannot be judged.
    fn meets(&self, rule: &[Expression]) -> Option<Option<Verdict>> {
        let mut registers: BTreeMap<Register, Vec<u8>> = BTreeMap::new();
        for expression in rule {
            match expression {
                Expression::Payload {
                    base: Base::Network,
                    offset,
                    length,
                    register,
                } => {
                    let (offset, length) = (usize::try_from(*offset).ok()?, usize::try_from(*length).ok()?);
                    let bytes = self.bytes.get(offset..offset.checked_add(length)?)?;
                    registers.insert(*register, bytes.to_vec());
                }
                Expression::Meta {
                    key: MetaKey::InputInterface | MetaKey::OutputInterface,
                    register,
                } => {
                    let mut name = self.link.as_bytes().to_vec();
                    name.resize(16, 0);
                    registers.insert(*register, name);
                }
                Expression::Mask { register, mask } => {
                    let value = registers.get_mut(register)?;
                    value.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
                }
                Expression::Compare {
                    register,
                    equal,
                    value,
                } => {
                    if registers.get(register)?.starts_with(value) != *equal {
                        return Some(None);
                    }
                }
                Expression::Verdict(verdict) => return Some(Some(*verdict)),
                // It counts, and goes on.
                Expression::Unknown(name) if **name == *"counter" => {}
                _ => return None,
            }
        }
        Some(None)
    }
}
