//! What encoding the requests for a table costs: by Weir's writer, and by the attributes that neli has.

use std::io::Cursor;
use std::net::IpAddr;

use neli::consts::nl::NlmF;
use neli::genl::{AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder};
use neli::nl::{NlPayload, NlmsghdrBuilder};
use neli::types::{Buffer, GenlBuffer};
use neli::{Size, ToBytes};
use weir::ipvs::{Change, Destination, DestinationKey, ServiceKey, wire};
use weir::netlink::{Batch, Family};

const FAMILY: Family = Family {
    number: 0x1d,
    version: wire::FAMILY_VERSION,
};
const AF_INET: u16 = 2;
const TCP: u16 = 6;
const DIRECT_ROUTE: u32 = 3;

/// The changes that add destinations, which nearly all are.
pub fn destinations(changes: &[Change]) -> Vec<Change> {
    let is_destination = |change: &&Change| matches!(change, Change::AddDestination { .. });
    changes.iter().filter(is_destination).cloned().collect()
}

pub fn by_weir(changes: &[Change]) -> Vec<u8> {
    let mut batch = Batch::default();
    for change in changes {
        batch.push(FAMILY.number, NlmF::empty(), &wire::request(FAMILY, change));
    }
    batch.as_bytes().to_vec()
}

/// The same bytes.
pub fn by_neli(changes: &[Change]) -> Vec<u8> {
    let mut bytes = Cursor::default();
    for change in changes {
        if let Change::AddDestination {
            service,
            key,
            destination,
        } = change
        {
            let body = request([
                service_attribute(service),
                destination_attribute(key, destination),
            ]);
            let message = NlmsghdrBuilder::default()
                .nl_type(FAMILY.number)
                .nl_flags(NlmF::REQUEST)
                .nl_payload(NlPayload::Payload(body))
                .build()
                .unwrap();
            message.to_bytes(&mut bytes).unwrap();
        }
    }
    bytes.into_inner()
}

fn request(attributes: [Nlattr<u16, Buffer>; 2]) -> Genlmsghdr<u8, u16> {
    GenlmsghdrBuilder::default()
        .cmd(wire::Command::NewDest.into())
        .version(FAMILY.version)
        .attrs(GenlBuffer::from_iter(attributes))
        .build()
        .unwrap()
}

fn service_attribute(key: &ServiceKey) -> Nlattr<u16, Buffer> {
    let ServiceKey::Address { address, port, .. } = key else {
        unreachable!("the fleet's services have addresses");
    };
    let list = [
        attribute(1, AF_INET, false),
        attribute(2, TCP, false),
        attribute(3, padded(*address), false),
        attribute(4, port.to_be(), false),
    ];
    attribute(1, GenlBuffer::from_iter(list), true)
}

fn destination_attribute(key: &DestinationKey, destination: &Destination) -> Nlattr<u16, Buffer> {
    let list = [
        attribute(1, padded(key.address), false),
        attribute(2, key.port.to_be(), false),
        attribute(11, AF_INET, false),
        attribute(3, DIRECT_ROUTE, false),
        attribute(4, destination.weight.get(), false),
        attribute(5, destination.upper_threshold, false),
        attribute(6, destination.lower_threshold, false),
    ];
    attribute(2, GenlBuffer::from_iter(list), true)
}

fn attribute(kind: u16, payload: impl Size + ToBytes, nested: bool) -> Nlattr<u16, Buffer> {
    let kind = AttrTypeBuilder::default()
        .nla_type(kind)
        .nla_nested(nested)
        .build()
        .unwrap();
    NlattrBuilder::default()
        .nla_type(kind)
        .nla_payload(payload)
        .build()
        .unwrap()
}

fn padded(address: IpAddr) -> Buffer {
    let mut bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.resize(16, 0);
    Buffer::from(bytes)
}
