//! Netlink: messages, attributes and one connection, shared by every kernel family Weir speaks to.
//!
//! | file | what |
//! | --- | --- |
//! | `message` | headers and attributes as bytes, written and read; pure |
//! | `connection` | the socket: batches, transactions, single requests, dumps |
//! | `packet` | frames out of a link, without netlink |
//! | `generic` | generic netlink: from a family's name to its number |
//!
//! The connection blocks. The kernel executes a request inside the `send` system call and has queued the answer
//! by the time the call returns, so waiting asynchronously would wait for nothing; whoever must not be held up
//! by the kernel's own work runs a pass on a blocking thread.
//!
//! Source: `netlink(7)`, kernel `Documentation/userspace-api/netlink/intro.rst`.

mod connection;
mod generic;
mod message;
mod packet;

pub use connection::{Connection, NetlinkError, Refused};
pub use generic::Family;
pub use message::{
    Attributes, Batch, Body, MessageWriter, Messages, align, flags, read_u8, read_u16, read_u16_be, read_u32,
    read_u32_be, read_u64, read_u64_be,
};
pub use packet::PacketSocket;
