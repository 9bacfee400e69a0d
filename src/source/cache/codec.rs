//! A cache as bytes: a [document](durable::document) of lines.
//!
//! ```text
//! weir cache 1 5c0f4b7a90d1e233
//! {"node":"d1","saved":1764150000,"labels":{"weir.dev/role":"director"},"objects":2}
//! RealServer {"metadata":{"name":"rs1","namespace":"shop"},"spec":{"address":"10.0.0.11"}}
//! VirtualService {"metadata":{"name":"web","namespace":"shop"},"spec":{…}}
//! ```
//!
//! A kind that this version does not know is left out, and so are members of the first line that it does not know.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::catalog::{Kind, ObjectRef};
use crate::durable;

const VERSION: &str = "weir cache 1";
/// What the versions of Weir have in common.
const VERSIONS: &str = "weir cache ";
/// The largest cache, in bytes. Ten thousand virtual services of ten real servers each take half of it.
pub const MAX_SIZE: u64 = 64 << 20;

/// What a node knew of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// The node that it is about.
    pub node: String,
    /// When all of it was so, in whole seconds.
    pub saved: SystemTime,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// Objects as JSON of the API, each on a line of its own.
    pub objects: BTreeMap<ObjectRef, Arc<str>>,
}

/// More objects than a cache takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the objects take {size} bytes, and a cache has at most {MAX_SIZE}")]
pub struct TooLarge {
    /// How many bytes they take.
    pub size: u64,
}

/// Why a cache is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
    /// It was written by a version of Weir that writes it in another form.
    #[error("another version of Weir wrote it")]
    Version,
    /// It was made on another node, as a copied disk has it.
    #[error("it is that of node {node}")]
    Node {
        /// The node.
        node: String,
    },
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    node: String,
    /// Seconds since 1970.
    saved: u64,
    labels: BTreeMap<String, String>,
    /// How many follow.
    objects: usize,
}

/// What an object is called.
#[derive(Debug, Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: Box<str>,
    namespace: Option<Box<str>>,
}

/// Writes a cache.
///
/// # Errors
///
/// It would be larger than [`MAX_SIZE`].
pub fn encode(cache: &Cache) -> Result<String, TooLarge> {
    let header = Header {
        node: cache.node.clone(),
        saved: seconds(cache.saved),
        labels: cache.labels.clone(),
        objects: cache.objects.len(),
    };
    // Neither can fail: its keys are strings, and a string takes everything.
    let mut body = serde_json::to_string(&header).unwrap_or_default();
    for (object, json) in &cache.objects {
        let _ = write!(body, "\n{} {json}", object.kind.name());
    }
    let text = durable::document(VERSION, &body);
    let size = text.len() as u64;
    if size > MAX_SIZE {
        return Err(TooLarge { size });
    }
    Ok(text)
}

/// Reads a cache of a node.
///
/// # Errors
///
/// It is of no use, as a whole.
pub fn decode(bytes: &[u8], node: &str) -> Result<Cache, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Damaged)?;
    let Some(body) = durable::body(VERSION, text) else {
        return Err(if is_of_another_version(text) {
            DecodeError::Version
        } else {
            DecodeError::Damaged
        });
    };
    let mut lines = body.split('\n');
    let header = lines.next().unwrap_or_default();
    let header: Header = serde_json::from_str(header).map_err(|_| DecodeError::Damaged)?;
    if header.node != node {
        return Err(DecodeError::Node { node: header.node });
    }
    let since_1970 = Duration::from_secs(header.saved);
    let saved = UNIX_EPOCH.checked_add(since_1970).ok_or(DecodeError::Damaged)?;
    let mut objects = BTreeMap::new();
    let mut count = 0;
    for line in lines {
        count += 1;
        let (kind, json) = line.split_once(' ').ok_or(DecodeError::Damaged)?;
        let Some(kind) = Kind::ALL.into_iter().find(|known| known.name() == kind) else {
            continue;
        };
        let object = name(kind, json).ok_or(DecodeError::Damaged)?;
        objects.insert(object, json.into());
    }
    if count != header.objects {
        return Err(DecodeError::Damaged);
    }
    Ok(Cache {
        node: header.node,
        saved,
        labels: header.labels,
        objects,
    })
}

fn name(kind: Kind, json: &str) -> Option<ObjectRef> {
    let Named { metadata } = serde_json::from_str(json).ok()?;
    let Metadata { name, namespace } = metadata;
    (kind.is_namespaced() == namespace.is_some()).then_some(ObjectRef {
        kind,
        namespace: namespace.map(Arc::from),
        name: name.into(),
    })
}

/// Whether a text begins as those of another version do.
fn is_of_another_version(text: &str) -> bool {
    let version = text.lines().next().and_then(|line| line.strip_prefix(VERSIONS));
    let version = version.and_then(|rest| rest.split(' ').next());
    version.is_some_and(|version| version.parse::<u32>().is_ok() && format!("{VERSIONS}{version}") != VERSION)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
