//! Sources: where objects come from. Each turns what it reads into updates of one [`Catalog`](crate::catalog::Catalog).
//!
//! | file | what |
//! | --- | --- |
//! | `manifest` | the text of a manifest → objects, or errors with their place; pure |
//! | `folder` | a folder of manifests, watched |
//! | `cluster` | the Kubernetes API |
//! | `cache` | the last good objects on disk |
//! | `kinds` | what is watched, and how an object is read |
//! | `watches` | several kinds of it, read as one; pure |
//! | `watch` | one kind of it |
//! | `served` | one object of it, of whatever version |
//! | `decode` | JSON → resource, for both: everything that does not fit its kind; pure |

pub mod cache;
pub mod cluster;
mod decode;
pub mod folder;
pub mod kinds;
pub mod manifest;
pub mod served;
pub mod watch;
pub mod watches;

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::catalog::Update;

/// What a source tells the agent, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceEvent {
    /// Objects appeared, changed or went.
    Updates(Vec<Update>),
    /// Everything that is there has been looked at once. Before that nothing may be planned, since what has not
    /// been reported yet would look as if it were gone.
    Complete {
        /// Whether something is there that could not be read since the start: of the objects in it nothing is
        /// known, not even that they are there, so nothing may be deleted. Comes again when that is over.
        unread: bool,
    },
    /// What was saved earlier has been told, since the source has not been reached: some of it may be out of date, so
    /// nothing may be deleted on its strength. [`SourceEvent::Complete`] follows when the source has been read.
    Remembered {
        /// When it was so.
        saved: SystemTime,
    },
    /// Whether all Services, their endpoints and the ReferenceGrants have been looked at. A source that looks at them
    /// does so while it is asked to.
    Endpoints {
        /// Whether they are known.
        known: bool,
    },
    /// The node's labels.
    NodeLabels(BTreeMap<String, String>),
    /// Everything that is wrong with the source now, each in one paragraph for a person; replaces what was said
    /// before.
    Problems(Vec<String>),
}
