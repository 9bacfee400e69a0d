//! Loopback ports that no other test takes.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

/// Below the kernel's range for outgoing connections (32768 and up): one of those could otherwise hold the port
/// while its server is stopped.
const CANDIDATES: std::ops::Range<u16> = 20_000..32_000;

/// A port on 127.0.0.1 that is this process's until the value is dropped, also while no server listens on it.
///
/// The reservation is an abstract Unix socket named after the port. Such names and ports are both the network
/// namespace's, and the kernel gives the name back when its process ends.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    number: u16,
    _reservation: UnixListener,
}

impl ReservedPort {
    /// Takes the first port that neither a test has reserved nor another program listens on.
    pub(crate) fn take() -> Self {
        CANDIDATES
            .into_iter()
            .find_map(Self::try_take)
            .expect("one loopback port of thousands is free")
    }

    fn try_take(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("weir-test-port-{number}")).ok()?;
        let reservation = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self {
            number,
            _reservation: reservation,
        })
    }

    /// The port's number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
