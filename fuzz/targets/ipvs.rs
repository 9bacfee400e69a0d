//! What the kernel answers about its IPVS table.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::ipvs::{Family, wire};
use weir::netlink::{Attributes, Body, Messages};

/// Of the generic netlink header.
const HEADER: usize = 4;

fuzz_target!(|datagram: &[u8]| {
    for message in Messages::new(datagram) {
        let Body::Reply { payload, .. } = message.body else {
            continue;
        };
        let attributes = Attributes::after_header(payload, HEADER);
        let _ = wire::read_service(attributes.clone());
        let _ = wire::read_destination(attributes.clone(), Family::V4);
        let _ = wire::read_destination(attributes.clone(), Family::V6);
        let _ = wire::read_daemon(attributes.clone());
        let _ = wire::read_timeouts(attributes);
    }
});
