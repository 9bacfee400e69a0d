//! What takes time: machines that are told what happened and what time it is. Pure.
//!
//! Each of them says when it wants to be asked again, and whoever drives it keeps that in one [`Agenda`].
//!
//! | file | what |
//! | --- | --- |
//! | `agenda` | what is due when |
//! | `drain` | destinations that leave the table when their connections have ended |
//! | `linger` | what a node keeps of being a real server while directors drain it |
//! | `announce` | VIPs of which neighbours are told more than once |
//! | `retry` | what failed, and when it is tried again |
//! | `contest` | what somebody else keeps undoing |

pub mod agenda;
pub mod announce;
pub mod contest;
pub mod drain;
pub mod linger;
pub mod retry;

pub use agenda::Agenda;
