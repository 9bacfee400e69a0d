//! The catalog: all objects that a source has reported, as indexed values. Pure: no clock, no socket.
//!
//! ```text
//! api::VirtualService … ─► validate ─► Update ─► Catalog ─► which virtual services it concerns
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `names` | kinds of objects, and their names |
//! | `validate` | resources as written → validated, or issues |
//! | `validated` | what planning needs of a resource |
//! | `index`, `namespace` | all objects, and which virtual services a change concerns |
//! | `queries` | what is asked of them |
//! | `scope` | a set of virtual services |
//! | `endpoints` | Services, their endpoints, and who may refer to them |
//! | `claims`, `marks` | who has which address, port and mark |
//! | `generations` | which virtual services in which generations, as a digest |
//! | `finding` | what is to be said about objects |
//! | `shared_text` | texts that many objects have in common, kept once |
//! | `small_set` | a set that mostly holds one thing |

mod claims;
mod endpoints;
mod finding;
mod generations;
mod index;
mod marks;
mod names;
mod namespace;
mod queries;
mod scope;
mod shared_text;
mod small_set;
pub mod validate;
pub mod validated;

pub(crate) use claims::Claimed;
pub(crate) use endpoints::{Part, Referred, Unresolved};
pub use finding::{Finding, Reason};
pub use generations::{Generation, Generations};
pub use index::{Catalog, Form, Update};
pub use marks::{MarkMask, MarkMaskError};
pub use names::{Kind, NamespacedName, ObjectRef};
pub use scope::Scope;
pub use small_set::SmallSet;
