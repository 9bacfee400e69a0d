//! What the kernel answers about its nftables rules: Weir's tables, and other programs' chains. Of whatever they are taken to be,
//! the difference to nothing and back can be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::netlink::{Body, Messages};
use weir::nft::wire::{self, Assembly};
use weir::nft::{Ruleset, transaction};

fuzz_target!(|datagram: &[u8]| {
    let mut assembly = Assembly::default();
    let mut foreign = Vec::new();
    for message in Messages::new(datagram) {
        let Body::Reply { kind, payload } = message.body else {
            continue;
        };
        assembly.take(kind, payload);
        let _ = wire::read_generation(payload);
        foreign.extend(wire::read_foreign_chain(payload));
        wire::read_foreign_rule(payload, &mut foreign);
    }
    let ruleset = assembly.into_ruleset();
    let nothing = Ruleset::default();
    for (from, to) in [(&ruleset, &nothing), (&nothing, &ruleset)] {
        let _ = wire::write_transaction(&transaction(from, to), 1);
    }
});
