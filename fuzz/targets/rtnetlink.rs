//! What the kernel answers about a node's links, addresses and routes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::host::rtnetlink;
use weir::netlink::{Body, Messages};

fuzz_target!(|datagram: &[u8]| {
    for message in Messages::new(datagram) {
        if let Body::Reply { payload, .. } = message.body {
            let _ = rtnetlink::read_link(payload);
            let _ = rtnetlink::read_address(payload);
            let _ = rtnetlink::read_route(payload);
        }
    }
});
