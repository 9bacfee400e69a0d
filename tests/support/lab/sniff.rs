//! Frames as they arrive at an interface, and who answers for an address.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use super::netns::Netns;
use super::route::Route;
use super::topology::FRONT;
use crate::poll::scaled;

/// How long an answer may take under emulation.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long others may still answer after the first: the answers of one question come within microseconds.
const LINGER: Duration = Duration::from_millis(30);

/// A link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What to listen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtherType {
    /// Everything, also what the node itself sends.
    All = 0x0003,
    /// IPv4, arriving.
    Ipv4 = 0x0800,
    /// ARP, arriving.
    Arp = 0x0806,
    /// IPv6, arriving.
    Ipv6 = 0x86dd,
}

/// One Ethernet frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When we read it.
    pub seen: Instant,
    /// All bytes, from the destination's link-layer address on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The sender's link-layer address.
    pub fn source(&self) -> Mac {
        Mac(self.field(6))
    }

    /// The receiver's link-layer address.
    pub fn destination(&self) -> Mac {
        Mac(self.field(0))
    }

    /// The protocol of the payload.
    pub fn ether_type(&self) -> u16 {
        u16::from_be_bytes(self.field(12))
    }

    /// `N` bytes at an offset from the frame's start, zeros where it is shorter.
    pub fn field<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.bytes
            .get(offset..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    /// Who this frame says has `address`: the sender of an ARP reply or of a neighbour advertisement for it.
    pub fn claims(&self, address: IpAddr) -> Option<Mac> {
        const REPLY: [u8; 2] = [0, 2];
        const ICMPV6: u8 = 58;
        const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
        let claims = match address {
            IpAddr::V4(address) => {
                self.ether_type() == EtherType::Arp as u16
                    && self.field(20) == REPLY
                    && Ipv4Addr::from(self.field::<4>(28)) == address
            }
            IpAddr::V6(address) => {
                self.ether_type() == EtherType::Ipv6 as u16
                    && self.field(20) == [ICMPV6]
                    && self.field(54) == [NEIGHBOUR_ADVERTISEMENT]
                    && Ipv6Addr::from(self.field::<16>(62)) == address
            }
        };
        claims.then(|| self.source())
    }
}

/// A packet socket on all interfaces of a namespace.
#[derive(Debug)]
pub struct Sniffer {
    socket: OwnedFd,
}

impl Sniffer {
    /// Listens from now on.
    pub fn open(netns: &Netns, what: EtherType) -> Self {
        let protocol = NonZeroU32::new(u32::from((what as u16).to_be())).map(Protocol::from_raw);
        let open = || {
            socket_with(
                AddressFamily::PACKET,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                protocol,
            )
        };
        Self {
            socket: netns.run(open).expect("root may open a packet socket"),
        }
    }

    /// The next frame, if one comes before `deadline`.
    pub fn next(&self, deadline: Instant) -> Option<Frame> {
        let mut bytes = vec![0; 2048];
        loop {
            // A timeout of zero would mean for ever.
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_micros(1));
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left)).unwrap();
            match recv(&self.socket, &mut *bytes, RecvFlags::empty()) {
                Ok((length, _)) => {
                    bytes.truncate(length);
                    return Some(Frame {
                        seen: Instant::now(),
                        bytes,
                    });
                }
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                Err(error) => panic!("packet socket: {error}"),
            }
        }
    }

    /// Frames that have arrived and wait to be read.
    pub fn waiting(&self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next(Instant::now())).collect()
    }
}

/// Asks `asks` times who has `address` on the front segment, from a namespace, and counts who answered. One question may
/// have several answers: then the last wins in real life, which is the fault to look for.
///
/// The kernel asks, as it does for any packet: its neighbour entry is forgotten before each one.
pub fn who_answers(netns: &Netns, address: IpAddr, asks: usize) -> BTreeMap<Mac, usize> {
    let kind = if address.is_ipv4() {
        EtherType::Arp
    } else {
        EtherType::Ipv6
    };
    let sniffer = Sniffer::open(netns, kind);
    let mut route = Route::open(netns);
    let mut answers = BTreeMap::new();
    for _ in 0..asks {
        route.forget_neighbour(FRONT, address);
        netns.run(|| send_anything(address)).unwrap();
        let mut deadline = Instant::now() + scaled(ANSWER_TIMEOUT);
        while let Some(frame) = sniffer.next(deadline) {
            // What is told to everybody is no answer.
            if let Some(mac) = frame
                .claims(address)
                .filter(|_| frame.destination().0[0] & 1 == 0)
            {
                *answers.entry(mac).or_default() += 1;
                deadline = deadline.min(Instant::now() + LINGER);
            }
        }
    }
    answers
}

fn send_anything(to: IpAddr) -> io::Result<usize> {
    const DISCARD: u16 = 9;
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // A new socket each time: refusals of earlier packets would be reported on an old one.
    UdpSocket::bind((any, 0))?.send_to(&[], (to, DISCARD))
}
