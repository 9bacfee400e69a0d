//! Generic netlink: families are known by name and get their message type when they register.
//!
//! Source: kernel `include/uapi/linux/genetlink.h`.

use std::io::Cursor;

use neli::consts::genl::{Cmd, CtrlAttr, CtrlCmd};
use neli::consts::nl::{GenlId, NlmF};
use neli::consts::socket::NlFamily;
use neli::err::{BuilderError, SerError};
use neli::genl::{AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, NlattrBuilder};
use neli::types::GenlBuffer;
use neli::{FromBytesWithInput, ToBytes};

use super::attribute::{AttributeType, Attributes, MessageWriter, written};
use super::connection::{Connection, NetlinkError};

/// Bytes of `struct genlmsghdr`: command, version, reserved.
const HEADER: usize = 4;

/// A generic-netlink family of the running kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// The message type to use in requests.
    pub number: u16,
    /// The interface version to say in requests.
    pub version: u8,
}

impl Family {
    /// Opens a generic-netlink connection and looks a family up; asking makes the kernel load its module.
    ///
    /// # Errors
    ///
    /// `ENOENT` as [`NetlinkError::Refused`] where the kernel neither has the family nor can load it.
    pub fn connect(name: &str, version: u8) -> Result<(Connection, Self), NetlinkError> {
        let mut connection = Connection::open(NlFamily::Generic)?;
        let question = question(name).map_err(|error| NetlinkError::Write(SerError::new(error)))?;
        let mut number = None;
        connection.request(GenlId::Ctrl, NlmF::empty(), &question, |_, payload| {
            number = answer(payload).or(number);
        })?;
        let number = number.ok_or(NetlinkError::OutcomeUnknown)?;
        Ok((connection, Self { number, version }))
    }

    /// The body of a command of the family, with the attributes that `write` writes.
    pub fn command<T: AttributeType>(
        self,
        command: impl Cmd,
        write: impl Fn(&mut MessageWriter<'_, T>),
    ) -> impl ToBytes {
        written(move |message| {
            message.header([command.into(), self.version, 0, 0]);
            write(message);
        })
    }

    /// The attributes of a reply.
    pub fn attributes<T: AttributeType>(payload: &[u8]) -> Attributes<'_, T> {
        Attributes::after_header(payload, HEADER)
    }
}

/// Which number has the family of this name?
fn question(name: &str) -> Result<Genlmsghdr<CtrlCmd, CtrlAttr>, BuilderError> {
    let kind = AttrTypeBuilder::default()
        .nla_type(CtrlAttr::FamilyName)
        .build()?;
    let name = NlattrBuilder::default()
        .nla_type(kind)
        .nla_payload(name)
        .build()?;
    let question = GenlmsghdrBuilder::default()
        .cmd(CtrlCmd::Getfamily)
        .version(1)
        .attrs([name].into_iter().collect::<GenlBuffer<_, _>>())
        .build()?;
    Ok(question)
}

fn answer(payload: &[u8]) -> Option<u16> {
    let mut bytes = Cursor::new(payload);
    let answer = Genlmsghdr::<CtrlCmd, CtrlAttr>::from_bytes_with_input(&mut bytes, payload.len()).ok()?;
    answer
        .attrs()
        .get_attr_handle()
        .get_attr_payload_as(CtrlAttr::FamilyId)
        .ok()
}
