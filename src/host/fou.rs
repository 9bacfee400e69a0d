//! UDP ports on which encapsulated packets are taken: the generic netlink family `fou`.
//!
//! Source: kernel `include/uapi/linux/fou.h`, `net/ipv4/fou_nl.c`.

use thiserror::Error;

use crate::netlink::{self, Connection, MessageWriter, NetlinkError, flags, read_u8, read_u16_be};

use super::state::GuePort;

const FAMILY: &str = "fou";
const VERSION: u8 = 1;

const ADD: u8 = 1;
const DELETE: u8 = 2;
const GET: u8 = 3;

const PORT: u16 = 1;
const ADDRESS_FAMILY: u16 = 2;
const TYPE: u16 = 4;
/// `FOU_ENCAP_GUE`.
const GUE: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const ENOENT: i32 = 2;
const EADDRINUSE: i32 = 98;
const EAFNOSUPPORT: i32 = 97;
const EPERM: i32 = 1;

/// Why ports could not be listed, opened or closed.
#[derive(Debug, Error)]
pub(super) enum FouError {
    #[error("this kernel does not take generic UDP encapsulation: load its modules (modprobe -a fou fou6)")]
    NoModule,
    #[error("the port is in use by another socket: stop that, or choose another port")]
    InUse,
    #[error("not permitted: CAP_NET_ADMIN is needed")]
    NotPermitted,
    #[error(transparent)]
    Netlink(NetlinkError),
}

impl From<NetlinkError> for FouError {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Refused(refused) => match refused.0 {
                ENOENT | EAFNOSUPPORT => Self::NoModule,
                EADDRINUSE => Self::InUse,
                EPERM => Self::NotPermitted,
                _ => Self::Netlink(error),
            },
            error => Self::Netlink(error),
        }
    }
}

/// The ports of a network namespace.
#[derive(Debug)]
pub(super) struct GuePorts {
    connection: Connection,
    family: netlink::Family,
}

impl GuePorts {
    pub(super) fn open() -> Result<Self, FouError> {
        let (connection, family) = netlink::Family::connect(FAMILY, VERSION)?;
        Ok(Self { connection, family })
    }

    pub(super) fn list(&mut self) -> Result<Vec<GuePort>, FouError> {
        let mut ports = Vec::new();
        self.request(GET, flags::DUMP, |_| {}, |payload| ports.extend(read(payload)))?;
        Ok(ports)
    }

    pub(super) fn add(&mut self, port: GuePort) -> Result<(), FouError> {
        let write = |message: &mut MessageWriter<'_>| {
            write_port(message, port);
            message.u8(TYPE, GUE);
        };
        self.request(ADD, 0, write, |_| {})
    }

    pub(super) fn delete(&mut self, port: GuePort) -> Result<(), FouError> {
        self.request(DELETE, 0, |message| write_port(message, port), |_| {})
    }

    fn request(
        &mut self,
        command: u8,
        request_flags: u16,
        write: impl FnOnce(&mut MessageWriter<'_>),
        mut on_reply: impl FnMut(&[u8]),
    ) -> Result<(), FouError> {
        let family = self.family;
        let write = |message: &mut MessageWriter<'_>| {
            family.command(message, command);
            write(message);
        };
        self.connection
            .request(family.number, request_flags, write, |_, payload| {
                on_reply(payload)
            })?;
        Ok(())
    }
}

fn write_port(message: &mut MessageWriter<'_>, GuePort { ipv6, port }: GuePort) {
    message.u16_be(PORT, port.get());
    message.u8(ADDRESS_FAMILY, if ipv6 { AF_INET6 } else { AF_INET });
}

fn read(payload: &[u8]) -> Option<GuePort> {
    let (mut port, mut family, mut kind) = (None, None, None);
    for (attribute, value) in netlink::Family::attributes(payload) {
        match attribute {
            PORT => port = read_u16_be(value),
            ADDRESS_FAMILY => family = read_u8(value),
            TYPE => kind = read_u8(value),
            _ => {}
        }
    }
    let port = port?.try_into().ok()?;
    (kind == Some(GUE)).then_some(GuePort {
        ipv6: family == Some(AF_INET6),
        port,
    })
}
