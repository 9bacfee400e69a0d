//! Why the kernel refused a request: the errno, by which to decide, and the kernel's own sentence, for people.

use std::fmt;
use std::io::{self, Cursor};

use neli::FromBytes;
use neli::attr::Attribute;
use neli::consts::nl::{NlmF, NlmsgerrAttr};
use neli::nl::{NlPayload, Nlmsghdr};
use neli::types::{Buffer, GenlBuffer};
use rustix::io::Errno;
use thiserror::Error;

use super::attribute::{read_string, read_u16, read_u32};
use super::message::{HEADER, align};

/// A refusal of one request. Says the kernel's own sentence, or what the errno means where the kernel has none.
///
/// Decisions are to be made by the errno: sentences differ from one kernel to the next.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Refused {
    /// The errno.
    pub errno: Errno,
    /// The kernel's sentence (`NLMSGERR_ATTR_MSG`): "Invalid prefix length".
    pub why: Option<Box<str>>,
    /// Where in the request the attribute is that the kernel does not like, counted from the message's header
    /// (`NLMSGERR_ATTR_OFFS`).
    pub offset: Option<u32>,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Some(why) => formatter.write_str(why),
            None => self.errno.fmt(formatter),
        }
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self {
            errno,
            why: None,
            offset: None,
        }
    }
}

impl Refused {
    /// Reads a whole `NLMSG_ERROR` or `NLMSG_DONE`, whose payload begins with 0 or a negative errno.
    pub(super) fn read(message: &[u8]) -> Result<(), Self> {
        let code = message.get(HEADER..).and_then(read_u32).map(|code| code as i32);
        if code == Some(0) {
            return Ok(());
        }
        let errno = code
            .and_then(i32::checked_neg)
            .and_then(|number| Errno::from_io_error(&io::Error::from_raw_os_error(number)))
            // No errno at all: whatever this is, it is no success.
            .unwrap_or(Errno::PROTO);
        let mut refused = Self::from(errno);
        if let Some(told) = extended(message) {
            for attribute in told.iter() {
                let value: &[u8] = attribute.payload().as_ref();
                match attribute.nla_type().nla_type() {
                    NlmsgerrAttr::Msg => refused.why = read_string(value).map(Into::into),
                    NlmsgerrAttr::Offset => refused.offset = read_u32(value),
                    _ => {}
                }
            }
        }
        refused.why = refused.why.filter(|why| !why.is_empty());
        Err(refused)
    }
}

/// The attributes of an extended acknowledgement, by neli's reader; `None` where there are none, or none that can be read.
fn extended(message: &[u8]) -> Option<GenlBuffer<NlmsgerrAttr, Buffer>> {
    let flags = NlmF::from_bits_retain(read_u16(message.get(6..)?)?);
    if !flags.contains(NlmF::ACK_TLVS) || !is_whole(message) {
        return None;
    }
    match Nlmsghdr::<u16, Buffer>::from_bytes(&mut Cursor::new(message))
        .ok()?
        .nl_payload()
    {
        NlPayload::Err(refusal) => Some(refusal.ext_ack().clone()),
        NlPayload::DumpExtAck(refusal) => Some(refusal.ext_ack().clone()),
        _ => None,
    }
}

/// Whether a message is as long as it says, and so is the request that it repeats: neli's reader counts on both.
fn is_whole(message: &[u8]) -> bool {
    const REQUEST: usize = HEADER + size_of::<i32>();
    let is_done = read_u16(&message[4..]) == Some(neli::consts::nl::Nlmsg::Done.into());
    let room = message.len().saturating_sub(REQUEST);
    let request = message
        .get(REQUEST..)
        .and_then(read_u32)
        .map(|length| length as usize);
    read_u32(message).map(|length| length as usize) == Some(message.len())
        && (is_done || request.is_some_and(|length| length >= HEADER && align(length) <= room))
}

#[cfg(test)]
mod tests {
    use neli::consts::genl::NlAttrType;
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::{AttributeType, Body, MessageWriter, Messages, written};

    const REQUEST: [u8; HEADER + 4] = [20, 0, 0, 0, 30, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];

    /// A message of a kernel's: header, errno, the repeated request, and what is told beside it.
    fn answer(kind: u16, flags: NlmF, code: i32, rest: &[u8]) -> Vec<u8> {
        let length = (HEADER + 4 + rest.len()) as u32;
        [
            &length.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &flags.bits().to_ne_bytes(),
            &[5, 0, 0, 0, 9, 0, 0, 0],
            &code.to_ne_bytes(),
            rest,
        ]
        .concat()
    }

    fn attributes<T: AttributeType + NlAttrType>(write: impl Fn(&mut MessageWriter<'_, T>)) -> Vec<u8> {
        let mut bytes = Cursor::default();
        neli::ToBytes::to_bytes(&written(write), &mut bytes).unwrap();
        bytes.into_inner()
    }

    fn read(message: &[u8]) -> Body<'_> {
        Messages::new(message).next().unwrap().body
    }

    #[test]
    fn a_refusal_says_the_errno_where_the_kernel_says_no_more() {
        let message = answer(2, NlmF::empty(), -17, &REQUEST);
        let Body::Ended(Err(refused)) = read(&message) else {
            panic!("a refusal");
        };
        assert_eq!(refused, Errno::EXIST.into());
        assert_eq!(refused.to_string(), "File exists (os error 17)");
    }

    #[test]
    fn a_refusal_says_the_kernels_sentence_where_it_has_one() {
        let told = attributes(|told| {
            told.string(NlmsgerrAttr::Msg, "Invalid prefix length");
            told.u32(NlmsgerrAttr::Offset, 17);
        });
        let message = answer(2, NlmF::ACK_TLVS, -22, &[&REQUEST[..], &told].concat());
        let Body::Ended(Err(refused)) = read(&message) else {
            panic!("a refusal");
        };
        let expected = Refused {
            errno: Errno::INVAL,
            why: Some("Invalid prefix length".into()),
            offset: Some(17),
        };
        assert_eq!(refused, expected);
        assert_eq!(refused.to_string(), "Invalid prefix length");
    }

    #[test]
    fn a_dump_that_failed_half_way_says_why() {
        let told = attributes(|told| told.string(NlmsgerrAttr::Msg, "Too far"));
        let message = answer(3, NlmF::MULTI | NlmF::ACK_TLVS, -22, &told);
        let Body::DumpEnded(Err(refused)) = read(&message) else {
            panic!("a refusal");
        };
        assert_eq!(
            (refused.errno, refused.to_string()),
            (Errno::INVAL, "Too far".into())
        );
    }

    /// One that neli's reader cannot make anything of is a refusal all the same, and the message after it is read.
    #[test]
    fn a_broken_refusal_keeps_its_errno() {
        let mut short = REQUEST;
        short[0] = 3;
        let mut long = REQUEST;
        long[0] = 200;
        for rest in [
            &[][..],
            &REQUEST[..7],
            &short,
            &long,
            &[&REQUEST[..], &[9, 0, 1]].concat(),
        ] {
            let mut datagram = answer(2, NlmF::ACK_TLVS, -1, rest);
            datagram.resize(align(datagram.len()), 0);
            let whole = answer(2, NlmF::empty(), 0, &REQUEST);
            let bodies: Vec<_> = [datagram, whole].concat();
            let bodies: Vec<_> = Messages::new(&bodies).map(|message| message.body).collect();
            let expected = [Body::Ended(Err(Errno::PERM.into())), Body::Ended(Ok(()))];
            assert_eq!(bodies, expected, "{rest:?}");
        }
    }

    #[test]
    fn what_is_no_errno_is_no_success() {
        for code in [1, i32::MIN, -70_000] {
            assert_eq!(
                read(&answer(2, NlmF::empty(), code, &REQUEST)),
                Body::Ended(Err(Errno::PROTO.into()))
            );
        }
        let empty = [16, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(&empty), Body::Ended(Err(Errno::PROTO.into())));
    }

    proptest! {
        #[test]
        fn reading_any_refusal_ends_and_never_panics(
            kind in 2..4u16,
            flags: u16,
            code in prop_oneof![Just(-22), any::<i32>()],
            request_length in prop_oneof![0..40u32, any::<u32>()],
            rest in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let rest = [&request_length.to_ne_bytes()[..], &rest].concat();
            for flags in [NlmF::from_bits_retain(flags), NlmF::ACK_TLVS, NlmF::ACK_TLVS | NlmF::MULTI] {
                let message = answer(kind, flags, code, &rest);
                let (Body::Ended(result) | Body::DumpEnded(result)) = read(&message) else {
                    panic!("an end");
                };
                prop_assert_eq!(result.is_err(), code != 0);
            }
        }
    }
}
