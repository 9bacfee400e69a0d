//! The last good objects on disk, so that a node that starts without its source has something to program from.
//!
//! ```text
//! watches ─► Recorder ─► Writer ─► STATE/cache ─► at the next start ─► decode ─► Cache ─► source
//! manifest files ─► Copies ─► STATE/manifests/FILE ─► when a file is broken at start ─► its last good objects
//! ```
//!
//! Objects are kept as the API has them, and files as they were written, not as what this version made of them: the
//! next version reads them as it reads everything else. What is damaged counts for nothing, as a whole: a part of the
//! objects would make another table.
//!
//! | file | what |
//! | --- | --- |
//! | `codec` | objects ↔ bytes; pure |
//! | `writer` | what is to be kept, gathered, and written every few seconds |
//! | `copies` | the last good texts of manifest files |

mod codec;
mod copies;
mod writer;

pub use codec::{Cache, DecodeError, MAX_SIZE, TooLarge, decode, encode};
pub use copies::Copies;
pub use writer::{Recorder, Writer, open};
