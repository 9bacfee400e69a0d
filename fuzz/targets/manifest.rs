//! Manifests: whatever somebody saves as a file is read, and what is wrong with it is shown at a place that it has.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weir::source::manifest;

fuzz_target!(|content: &[u8]| {
    for name in ["web.yaml", "web.json"] {
        let read = manifest::read(&Arc::from(name), content);
        for diagnostic in &read.diagnostics {
            diagnostic.draw(false);
        }
    }
});
