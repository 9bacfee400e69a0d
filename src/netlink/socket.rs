//! Opening neli's socket, with the options that neli has no words for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use neli::consts::socket::NlFamily;
use neli::socket::NlSocket;
use neli::utils::Groups;
use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;

/// What the kernel may queue for us, where `CAP_NET_ADMIN` lets us ask for it. Without, it is twice what
/// `net.core.rmem_max` says.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// The kernel answers within the `send`; this bounds the wait for an answer that got lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a socket in the network namespace of the calling thread, which stays in it, and joins multicast groups. Refusals come
/// with the kernel's sentences.
pub(super) fn open(family: NlFamily, groups: Groups) -> io::Result<NlSocket> {
    let socket = NlSocket::connect(family, None, groups)?;
    socket.enable_ext_ack(true)?;
    with_descriptor(&socket, |descriptor| {
        sockopt::set_socket_timeout(descriptor, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        if sockopt::set_socket_recv_buffer_size_force(descriptor, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(descriptor, RECEIVE_BUFFER)?;
        }
        Ok(())
    })?;
    Ok(socket)
}

/// Makes room for messages of `length` bytes, which needs `CAP_NET_ADMIN`. Whether it sufficed, the `send` says.
pub(super) fn make_room_to_send(socket: &NlSocket, length: usize) {
    let _ = with_descriptor(socket, |descriptor| {
        Ok(sockopt::set_socket_send_buffer_size_force(descriptor, length)?)
    });
}

/// A socket that somebody else keeps open.
struct Lent<'a>(&'a NlSocket);

impl AsRawFd for Lent<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Does something to neli's socket that takes a [`BorrowedFd`], which neli does not hand out. Tokio makes one of whatever has
/// a raw descriptor, in a runtime: one is made for it, and nothing ever runs in it. That takes some ten microseconds.
fn with_descriptor(socket: &NlSocket, act: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let lent = {
        let _context = runtime.enter();
        watched(Lent(socket))
    };
    let result = lent.and_then(|lent| act(lent.as_fd()));
    // Whoever calls this may be in a runtime, which does not let another one be waited for.
    runtime.shutdown_background();
    result
}

/// A socket as one of those that the runtime in whose context this is called waits for.
pub(super) fn watched<T: AsRawFd>(socket: T) -> io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "sound for what owns its descriptor, as neli's socket does, or borrows it; the function in its place is \
                  unsafe, since a type's word for that it does is not enough"
    )]
    AsyncFd::with_interest(socket, Interest::READABLE)
}
