//! The server with real sockets.

use std::net::Ipv4Addr;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

struct Served {
    address: SocketAddr,
    vitals: Vitals,
    shutdown: CancellationToken,
}

impl Served {
    async fn start() -> Self {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut registry = Registry::default();
        registry.register("passes", "Passes", Counter::<u64>::default());
        let (vitals, shutdown) = (Vitals::new(), CancellationToken::new());
        let (signs, stop) = (vitals.clone(), shutdown.clone());
        tokio::spawn(serve(listener, signs, Exposition::new(registry), stop));
        Self {
            address,
            vitals,
            shutdown,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The whole answer to a request with these first lines.
    async fn ask(&self, head: &str) -> String {
        let mut stream = self.connect().await;
        stream
            .write_all(format!("{head}\r\nHost: d1\r\n\r\n").as_bytes())
            .await
            .unwrap();
        read(&mut stream).await
    }

    async fn status(&self, head: &str) -> String {
        let answer = self.ask(head).await;
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

/// What comes until the server closes.
async fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_process_is_ready_once_its_work_is_done() {
    let served = Served::start().await;
    assert_eq!(served.status("GET /healthz HTTP/1.1").await, "200");
    assert_eq!(served.status("GET /readyz HTTP/1.1").await, "503");
    served.vitals.ready();
    assert_eq!(served.status("GET /readyz HTTP/1.1").await, "200");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_does_not_turn_is_dead_until_it_turns_again() {
    let vitals = Vitals::new();
    tokio::time::advance(Vitals::LIMIT).await;
    assert!(!vitals.is_alive());
    vitals.beat();
    assert!(vitals.is_alive());
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let served = Served::start().await;
    let plain = served.ask("GET /metrics HTTP/1.1").await;
    assert!(
        plain.contains("content-type: text/plain; version=0.0.4"),
        "{plain}"
    );
    assert!(
        plain.contains("# TYPE passes_total counter\npasses_total 0\n"),
        "{plain}"
    );
    let head = "GET /metrics?x=y HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0";
    let open = served.ask(head).await;
    assert!(
        open.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{open}"
    );
    assert!(open.ends_with("passes_total 0\n# EOF\n"), "{open}");
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_a_question_are_told_apart() {
    let served = Served::start().await;
    assert_eq!(served.status("GET / HTTP/1.1").await, "404");
    assert_eq!(served.status("POST /nothing HTTP/1.1").await, "404");
    let refused = served.ask("DELETE /metrics HTTP/1.1").await;
    assert!(
        refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD"),
        "{refused}"
    );
    let headers = served.ask("HEAD /metrics HTTP/1.1").await;
    assert!(
        headers.starts_with("HTTP/1.1 200 ") && headers.ends_with("\r\n\r\n"),
        "{headers}"
    );
}

#[tokio::test]
async fn a_head_that_does_not_end_is_refused_when_it_is_too_long() {
    let served = Served::start().await;
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(HEAD));
    assert_eq!(served.status(&long).await, "431");
}

/// Whoever connects and says nothing, as many as there may be, keeps others waiting for a while and not for ever.
#[tokio::test]
async fn silent_connections_are_closed_so_that_others_get_their_turn() {
    let served = Served::start().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(served.connect().await);
    }
    let patience = HEAD_TIMEOUT * 6;
    let answer = timeout(patience, served.status("GET /healthz HTTP/1.1")).await;
    assert_eq!(answer.as_deref(), Ok("200"));
    for mut stream in silent {
        assert_eq!(timeout(patience, read(&mut stream)).await.as_deref(), Ok(""));
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_the_option_that_asked_for_it() {
    let served = Served::start().await;
    let error = format!("{:#}", bind(served.address).await.unwrap_err());
    let port = served.address.port();
    assert!(
        error.contains(&format!("127.0.0.1:{port}")) && error.contains("--listen"),
        "{error}"
    );
    assert!(error.contains("in use"), "{error}");
}

#[tokio::test]
async fn the_port_is_given_up_at_the_end() {
    let served = Served::start().await;
    served.shutdown.cancel();
    let closed = async {
        while TcpStream::connect(served.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(timeout(Duration::from_secs(10), closed).await, Ok(()));
}

#[tokio::test]
async fn one_socket_serves_both_families() {
    let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for address in ["127.0.0.1", "::1"] {
        let address: std::net::IpAddr = address.parse().unwrap();
        assert!(TcpStream::connect((address, port)).await.is_ok(), "{address}");
    }
}
