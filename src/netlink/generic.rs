//! Generic netlink: families are known by name and get their message type when they register.
//!
//! Source: kernel `include/uapi/linux/genetlink.h`.

use rustix::net::netlink;

use super::connection::{Connection, NetlinkError};
use super::message::{Attributes, MessageWriter, read_u16};

/// `GENL_ID_CTRL`: the family that knows the others.
const CONTROLLER: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`.
const ATTRIBUTE_FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`.
const ATTRIBUTE_FAMILY_NAME: u16 = 2;
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
        let mut connection = Connection::open(netlink::GENERIC)?;
        let mut number = None;
        connection.request(
            CONTROLLER,
            0,
            |message| {
                message.header(&[GET_FAMILY, 1, 0, 0]);
                message.string(ATTRIBUTE_FAMILY_NAME, name);
            },
            |_, payload| {
                number = Attributes::after_header(payload, HEADER)
                    .find(|(kind, _)| *kind == ATTRIBUTE_FAMILY_ID)
                    .and_then(|(_, id)| read_u16(id));
            },
        )?;
        let number = number.ok_or(NetlinkError::OutcomeUnknown)?;
        Ok((connection, Self { number, version }))
    }

    /// Writes the generic-netlink header of a command.
    pub fn command(self, message: &mut MessageWriter<'_>, command: u8) {
        message.header(&[command, self.version, 0, 0]);
    }

    /// The attributes of a reply.
    pub fn attributes(payload: &[u8]) -> Attributes<'_> {
        Attributes::after_header(payload, HEADER)
    }
}
