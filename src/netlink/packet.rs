//! Frames as they are, out of a link: a packet socket (packet(7)).
//!
//! The only unsafe code of Weir: rustix has no type for a link-layer socket address, and lets others bring theirs by an
//! unsafe trait.
#![allow(
    unsafe_code,
    reason = "rustix takes an address type of ours by an unsafe trait only"
)]

use std::mem::size_of;
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

/// A socket that sends frames and hears none.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

/// A link as where frames go: `struct sockaddr_ll` of `include/uapi/linux/if_packet.h`. Of its fields, sending a raw
/// frame takes the family and the link's number only.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    link: i32,
    hardware_type: u16,
    packet_type: u8,
    address_length: u8,
    address: [u8; 8],
}

// SAFETY: the trait asks that `f` gets a pointer to a socket address that is valid for reads of the length beside it
// while `f` runs. `self` is one, laid out by `repr(C)` as the kernel's structure and without padding, and is borrowed for
// as long.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

impl PacketSocket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_RAW`.
    pub fn open() -> Result<Self, Errno> {
        // Without a protocol nothing that arrives is handed to the socket.
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket })
    }

    /// Sends a whole frame out of a link, by the link's number.
    ///
    /// # Errors
    ///
    /// `ENXIO` or `ENODEV` where there is no such link, `ENETDOWN` where it is down.
    pub fn send(&self, link: u32, frame: &[u8]) -> Result<(), Errno> {
        let address = LinkAddress {
            family: AddressFamily::PACKET.as_raw(),
            protocol: 0,
            link: i32::try_from(link).map_err(|_| Errno::NODEV)?,
            hardware_type: 0,
            packet_type: 0,
            address_length: 0,
            address: [0; 8],
        };
        sendto(&self.socket, frame, SendFlags::empty(), &address)?;
        Ok(())
    }
}
