//! A node's network from text, and what it should have around its table as text.
//!
//! ```text
//! eth0 1500 10.0.0.1/24 fd00::1/64      a link, its MTU, its addresses; routes to their networks follow from them
//! default via eth1                      a route through a gateway
//! ```

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir::host::{Address, HostState, Link, Network, Route};
use weir::nft::{Element, Family, Field};

/// Reads a network.
pub fn network(text: &str) -> Network {
    let (mut links, mut routes) = (Vec::<Link>::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["default", "via", link] = words[..] {
            let link = links.iter().find(|other| *other.name == *link);
            let link = link.expect("a link of a line before").index;
            routes.push(Route {
                network: Ipv4Addr::UNSPECIFIED.into(),
                prefix: 0,
                link,
                gateway: true,
                metric: 0,
            });
            continue;
        }
        let addresses: Vec<Address> = words[2..].iter().map(|word| address(word)).collect();
        routes.extend(addresses.iter().map(|own| Route {
            network: own.address,
            prefix: own.prefix,
            link: number,
            gateway: false,
            metric: 0,
        }));
        links.push(Link {
            index: number,
            name: words[0].into(),
            up: true,
            loopback: words[0] == "lo",
            resolves: words[0] != "lo",
            mtu: words[1].parse().expect("an MTU"),
            mac: Some([2, 0, 0, 0, 0, number as u8]),
            addresses,
            ..Link::default()
        });
    }
    Network::new(links, routes)
}

fn address(word: &str) -> Address {
    let (address, prefix) = word.split_once('/').expect("ADDRESS/PREFIX");
    Address {
        address: address.parse().expect("an address"),
        prefix: prefix.parse().expect("a length"),
        ours: false,
    }
}

/// Prints what a node should have, a line each.
pub fn print(state: &HostState) -> String {
    let mut text = String::new();
    for (name, kind) in &state.links {
        writeln!(text, "link {name}: {kind}").unwrap();
    }
    for bound in &state.addresses {
        writeln!(text, "address {bound}").unwrap();
    }
    for (name, value) in &state.sysctls {
        writeln!(text, "{name} = {value}").unwrap();
    }
    for port in &state.gue_ports {
        writeln!(text, "{port}").unwrap();
    }
    for (family, table) in &state.rules {
        let family = match family {
            Family::Arp => "arp",
            Family::Ipv4 => "ip",
            Family::Ipv6 => "ip6",
        };
        for (name, chain) in &table.chains {
            writeln!(text, "{family} {name}: {} rules", chain.rules.len()).unwrap();
        }
        for (name, set) in &table.sets {
            for (element, data) in &set.elements {
                write!(text, "{family} {name}: {}", key(element, &set.key)).unwrap();
                if let (Some(data), Some(field)) = (data, set.data) {
                    write!(text, " -> {}", value(data, field)).unwrap();
                }
                text.push('\n');
            }
        }
    }
    text
}

fn key(element: &Element, fields: &[Field]) -> String {
    let part = |offset: usize, field: Field| {
        let first = value(&element.first[offset..], field);
        let last = element.last.as_ref().map(|last| value(&last[offset..], field));
        match last {
            Some(last) if last != first => format!("{first}-{last}"),
            _ => first,
        }
    };
    let mut offset = 0;
    let mut parts = Vec::new();
    for field in fields {
        parts.push(part(offset, *field));
        offset += if *field == Field::Ipv6Address { 16 } else { 4 };
    }
    parts.join(" ")
}

fn value(bytes: &[u8], field: Field) -> String {
    match field {
        Field::Ipv4Address => IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>().unwrap())).to_string(),
        Field::Ipv6Address => IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>().unwrap())).to_string(),
        Field::Protocol => match bytes[0] {
            6 => "TCP".to_owned(),
            17 => "UDP".to_owned(),
            132 => "SCTP".to_owned(),
            other => other.to_string(),
        },
        Field::Port => u16::from_be_bytes(*bytes.first_chunk().unwrap()).to_string(),
        Field::Mark => format!("{:#x}", u32::from_ne_bytes(*bytes.first_chunk().unwrap())),
    }
}
