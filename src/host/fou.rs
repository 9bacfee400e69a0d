//! UDP ports on which encapsulated packets are taken: the generic netlink family `fou`.
//!
//! Source: kernel `include/uapi/linux/fou.h`, `net/ipv4/fou_nl.c`.

use neli::consts::genl::{Cmd, NlAttrType};
use neli::consts::nl::NlmF;
use neli::consts::rtnl::Af;
use neli::neli_enum;
use thiserror::Error;

use crate::netlink::{
    self, Attributes, Connection, Errno, MessageWriter, NetlinkError, Word, read_u8, read_u16_be,
};

use super::state::GuePort;

const FAMILY: &str = "fou";
const VERSION: u8 = 1;

/// Commands (`FOU_CMD_*`).
#[neli_enum(serialized_type = "u8")]
enum Command {
    Add = 1,
    Delete = 2,
    Get = 3,
}

impl Cmd for Command {}

/// Attributes of a port (`FOU_ATTR_*`).
#[neli_enum(serialized_type = "u16")]
enum PortAttribute {
    Port = 1,
    Family = 2,
    Type = 4,
}

impl NlAttrType for PortAttribute {}

/// `FOU_ENCAP_GUE`.
const GUE: u8 = 2;

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
        match error.refusal() {
            Some(Errno::NOENT | Errno::AFNOSUPPORT) => Self::NoModule,
            Some(Errno::ADDRINUSE) => Self::InUse,
            Some(Errno::PERM) => Self::NotPermitted,
            _ => Self::Netlink(error),
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
        self.request(Command::Get, NlmF::DUMP, |_| {}, |port| ports.extend(read(port)))?;
        Ok(ports)
    }

    pub(super) fn add(&mut self, port: GuePort) -> Result<(), FouError> {
        let write = |message: &mut MessageWriter<'_, PortAttribute>| {
            message.words(words(port));
            message.u8(PortAttribute::Type, GUE);
        };
        self.request(Command::Add, NlmF::empty(), write, |_| {})
    }

    pub(super) fn delete(&mut self, port: GuePort) -> Result<(), FouError> {
        let write = |message: &mut MessageWriter<'_, PortAttribute>| message.words(words(port));
        self.request(Command::Delete, NlmF::empty(), write, |_| {})
    }

    fn request(
        &mut self,
        command: Command,
        flags: NlmF,
        write: impl Fn(&mut MessageWriter<'_, PortAttribute>),
        mut on_reply: impl FnMut(Attributes<'_, PortAttribute>),
    ) -> Result<(), FouError> {
        let family = self.family;
        let body = family.command(command, write);
        self.connection
            .request(family.number, flags, &body, |_, payload| {
                on_reply(netlink::Family::attributes(payload))
            })?;
        Ok(())
    }
}

fn words(GuePort { ipv6, port }: GuePort) -> [Word<PortAttribute>; 2] {
    let family = if ipv6 { Af::Inet6 } else { Af::Inet };
    [
        Word::u16_be(PortAttribute::Port, port.get()),
        Word::u8(PortAttribute::Family, family.into()),
    ]
}

fn read(attributes: Attributes<'_, PortAttribute>) -> Option<GuePort> {
    let (mut port, mut family, mut kind) = (None, None, None);
    for (attribute, value) in attributes {
        match attribute {
            PortAttribute::Port => port = read_u16_be(value),
            PortAttribute::Family => family = read_u8(value).map(Af::from),
            PortAttribute::Type => kind = read_u8(value),
            PortAttribute::UnrecognizedConst(_) => {}
        }
    }
    let port = port?.try_into().ok()?;
    (kind == Some(GUE)).then_some(GuePort {
        ipv6: family == Some(Af::Inet6),
        port,
    })
}
