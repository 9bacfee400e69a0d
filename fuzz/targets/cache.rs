//! The last good objects on disk: damaged in any way, and written by anybody. What is read is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::durable;
use weir::source::cache::{decode, encode};

const VERSION: &str = "weir cache 1";
const NODE: &str = "d1";

fuzz_target!(|content: &[u8]| {
    let _ = decode(content, NODE);
    // No fuzzer finds a checksum.
    let Ok(body) = std::str::from_utf8(content) else {
        return;
    };
    if let Ok(cache) = decode(durable::document(VERSION, body).as_bytes(), NODE) {
        let written = encode(&cache).expect("it is no larger than what was read");
        assert_eq!(decode(written.as_bytes(), NODE), Ok(cache));
    }
});
