//! The last good objects on disk: damaged in any way, and written by anybody. What is read is written as it was read, and
//! each object in it is read as one of its kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::durable;
use weir::source::cache::{decode, encode};
use weir::source::kinds::form_of;

const VERSION: &str = "weir cache 1";
const NODE: &str = "d1";

fuzz_target!(|content: &[u8]| {
    let _ = decode(content, NODE);
    // No fuzzer finds a checksum.
    let Ok(body) = std::str::from_utf8(content) else {
        return;
    };
    if let Ok(cache) = decode(durable::document(VERSION, body).as_bytes(), NODE) {
        for (object, json) in &cache.objects {
            let _ = form_of(object.kind, json);
        }
        let written = encode(&cache).expect("it is no larger than what was read");
        assert_eq!(decode(written.as_bytes(), NODE), Ok(cache));
    }
});
