//! Telling the neighbours that an address is here: the frames. Pure.
//!
//! IPv4: gratuitous ARP, as a request and as a reply, since some listen to one and some to the other (RFC 5227 section 3,
//! RFC 5944 section 4.6). IPv6: an unsolicited neighbour advertisement that overrides what was known (RFC 4861 section 7.2.6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A link-layer address.
type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// Where frames to `ff02::1`, all nodes of a link, go (RFC 2464 section 7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The Ethernet frames that tell everybody on a link who has an address.
pub(super) fn frames(address: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => vec![gratuitous_arp(1, address, mac), gratuitous_arp(2, address, mac)],
        IpAddr::V6(address) => vec![neighbour_advertisement(address, mac)],
    }
}

fn ethernet(destination: Mac, source: Mac, ether_type: u16) -> Vec<u8> {
    [destination.as_slice(), &source, &ether_type.to_be_bytes()].concat()
}

/// Sender and target are the address itself. In a reply the target's link-layer address is ours as well.
fn gratuitous_arp(operation: u8, address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    const ARP: u16 = 0x0806;
    let mut frame = ethernet(BROADCAST, mac, ARP);
    // Ethernet, IPv4, and the lengths of their addresses.
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend(if operation == 1 { [0; 6] } else { mac });
    frame.extend(address.octets());
    frame
}

fn neighbour_advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    const IPV6: u16 = 0x86dd;
    const ICMPV6: u8 = 58;
    const LENGTH: u8 = 32;
    /// Whoever hears it from farther away must not believe it.
    const HOP_LIMIT: u8 = 255;
    const ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    /// In units of eight bytes.
    const OPTION_LENGTH: u8 = 1;
    let mut body = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    body.extend(address.octets());
    body.extend([TARGET_LINK_LAYER_ADDRESS, OPTION_LENGTH]);
    body.extend(mac);
    let mut summed = [address.octets(), ALL_NODES.octets()].concat();
    // The rest of the pseudo-header (RFC 8200 section 8.1).
    summed.extend([0, 0, 0, LENGTH, 0, 0, 0, ICMPV6]);
    summed.extend(&body);
    let sum = checksum(&summed);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(ALL_NODES_MAC, mac, IPV6);
    frame.extend([0x60, 0, 0, 0, 0, LENGTH, ICMPV6, HOP_LIMIT]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(body);
    frame
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) as u16).wrapping_add((folded >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_ipv4_address_is_announced_as_request_and_reply() {
        let [request, reply] = frames([10, 0, 0, 200].into(), MAC).try_into().unwrap();
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6,
            0, 1, 8, 0, 6, 4, 0, 1,
            2, 0, 0, 0, 0, 1, 10, 0, 0, 200,
            0, 0, 0, 0, 0, 0, 10, 0, 0, 200,
        ];
        assert_eq!(request, expected);
        assert_eq!(reply[..20], expected[..20]);
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!(reply[22..32], expected[22..32]);
        assert_eq!(reply[32..], expected[22..32]);
    }

    #[test]
    fn an_ipv6_address_is_advertised_to_all_nodes() {
        let [frame] = frames("fd00::200".parse().unwrap(), MAC).try_into().unwrap();
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(
            frame[..14],
            [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]
        );
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58], 0x20, "override, neither router nor solicited");
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 1]);
        // Summed up with its checksum a packet comes to zero.
        let pseudo_header = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[&pseudo_header, &frame[54..]].concat()), 0);
    }
}
