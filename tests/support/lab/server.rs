//! A server that answers every question with its node's name, and the question `peer` with the address that asks.
//!
//! TCP and SCTP: a line is a question; the connection stays open for the next. A line that begins with `GET ` is an HTTP
//! request and ends the connection. UDP: a datagram is a question, answered from the address it was sent to.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use super::netns::Netns;
use super::topology::Node;

/// A running server; it stops, and closes all connections, on drop.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `port` on a node, TCP on all addresses and UDP on those the node has or may come to hold.
    pub fn start(node: &Node, port: u16) -> Self {
        Self::start_named(&node.netns, node.name(), port, &node.addresses())
    }

    /// Serves `port` in any namespace, under any name, UDP on the addresses given.
    pub fn start_named(netns: &Netns, name: &str, port: u16, udp: &[IpAddr]) -> Self {
        let name: &'static str = name.to_owned().leak();
        let udp: Vec<_> = udp
            .iter()
            .map(|address| SocketAddr::new(*address, port))
            .collect();
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        // The sockets belong to the namespace of the thread that opens them.
        let netns = netns.share();
        let thread = thread::spawn(move || {
            netns.enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let opened = open_all(name, port, &udp).await;
                ready.send(opened).unwrap();
                let _ = stopped.await;
            });
        });
        started
            .recv()
            .unwrap()
            .unwrap_or_else(|error| panic!("{name}: port {port}: {error}"));
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Opens all sockets before the first answer, so that a test never asks too early.
async fn open_all(name: &'static str, port: u16, udp: &[SocketAddr]) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    tokio::spawn(accept(listener, name));
    for address in udp {
        tokio::spawn(answer_udp(bind_udp(*address)?, name));
    }
    // Without SCTP in the kernel everything else is still served; a case that asks for it fails there.
    if let Ok(listener) = listen_sctp(port) {
        tokio::spawn(accept(listener, name));
    }
    Ok(())
}

async fn accept(listener: TcpListener, name: &'static str) {
    while let Ok((connection, peer)) = listener.accept().await {
        tokio::spawn(answer(connection, name, peer));
    }
}

/// Who this is; asked `peer`, who it thinks asks.
fn answer_to(question: &str, name: &str, peer: SocketAddr) -> String {
    match question.trim() {
        "peer" => peer.ip().to_canonical().to_string(),
        _ => name.to_owned(),
    }
}

async fn answer(mut connection: TcpStream, name: &'static str, peer: SocketAddr) -> io::Result<()> {
    let (reader, mut writer) = connection.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        if line.starts_with("GET ") {
            // Up to the empty line, or the peer would see a reset for what we have not read.
            while lines.next_line().await?.is_some_and(|header| !header.is_empty()) {}
            let length = name.len() + 1;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            writer.write_all(format!("{head}{name}\n").as_bytes()).await?;
            return writer.shutdown().await;
        }
        let answer = answer_to(&line, name, peer);
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

/// Binds to one address, which the node need not have yet. A socket for all addresses would answer from whichever the
/// route prefers, which for a VIP is another.
fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::DGRAM, flags, None)?;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    net::bind(&socket, &address)?;
    UdpSocket::from_std(socket.into())
}

async fn answer_udp(socket: UdpSocket, name: &'static str) {
    let mut question = [0; 2048];
    loop {
        // An error here is a refusal that some earlier asker sent back; it is no reason to stop.
        if let Ok((length, asker)) = socket.recv_from(&mut question).await {
            let answer = answer_to(&String::from_utf8_lossy(&question[..length]), name, asker);
            let _ = socket.send_to(answer.as_bytes(), asker).await;
        }
    }
}

/// A listening SCTP socket. Accepting, reading and writing are the same system calls as for TCP, so it goes by that type.
fn listen_sctp(port: u16) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(
        AddressFamily::INET6,
        SocketType::STREAM,
        flags,
        Some(ipproto::SCTP),
    )?;
    net::bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))?;
    net::listen(&socket, 128)?;
    TcpListener::from_std(socket.into())
}
