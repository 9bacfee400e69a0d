//! Netlink: messages, attributes and one connection, shared by every kernel family Weir speaks to.
//!
//! | file | what |
//! | --- | --- |
//! | `attribute` | attributes as bytes, written and read; pure |
//! | `message` | messages as bytes, one after another; pure |
//! | `refused` | a refusal: the errno and the kernel's own sentence; pure |
//! | `connection` | batches, transactions, single requests, dumps |
//! | `monitor` | what others change in the kernel, as it tells whoever listens |
//! | `socket` | neli's socket, opened with the options that it takes |
//! | `packet` | frames out of a link, without netlink |
//! | `generic` | generic netlink: from a family's name to its number |
//!
//! # What is neli's and what is not
//!
//! [neli](https://docs.rs/neli) is the socket, the vocabulary and the error model: its [`NlSocket`] sets what other crates have
//! no safe words for (extended acknowledgements, multicast groups); its enums and flags name what `libc` has of netlink, and
//! `neli_enum` makes those of IPVS, nf_tables and fou of the same kind; its reader takes refusals apart, so that the kernel's
//! own sentence comes to whoever asked; what is sent is anything that its [`ToBytes`] writes. Generic netlink's controller is
//! asked with its types both ways.
//!
//! What comes in thousands (destinations, addresses, routes, elements of sets) is written and read by this module's own
//! [`MessageWriter`] and [`Attributes`], over neli's types of attributes. neli keeps each attribute as a block of memory of its
//! own, and a nested one as a block of copies; here it is a few bytes at the end of the buffer that is sent. What that is worth,
//! `make bench` says (docs/benchmarks.md, "encoding").
//!
//! neli's reader of messages trusts their lengths, and its routers lose the kernel's sentences. So datagrams are cut
//! into messages here, where every length is looked at, and neither routers nor any other feature is compiled.
//!
//! [`NlSocket`]: neli::socket::NlSocket
//! [`ToBytes`]: neli::ToBytes
//!
//! # Blocking
//!
//! The connection blocks. The kernel executes a request inside the `send` system call and has queued the answer
//! by the time the call returns, so waiting asynchronously would wait for nothing; whoever must not be held up
//! by the kernel's own work runs a pass on a blocking thread. What others change comes when it comes: a [`Monitor`] waits for
//! it as everything asynchronous does.
//!
//! Source: `netlink(7)`, kernel `Documentation/userspace-api/netlink/intro.rst`.

mod attribute;
mod connection;
mod generic;
mod message;
mod monitor;
mod packet;
mod refused;
mod socket;

pub use attribute::{
    AttributeType, Attributes, Fixed, MessageWriter, Word, read_string, read_u8, read_u16, read_u16_be,
    read_u32, read_u32_be, read_u64, read_u64_be, written,
};
pub use connection::{Connection, NetlinkError};
pub use generic::Family;
pub use message::{Batch, Body, Messages, Received, align};
pub use monitor::{Event, Heard, Monitor, Program, Source, read_events};
pub use packet::PacketSocket;
pub use refused::Refused;
pub use rustix::io::Errno;
