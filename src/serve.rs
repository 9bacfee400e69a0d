//! A small HTTP server for those who watch a process: `/metrics`, `/healthz`, `/readyz`.
//!
//! It promises to cost little whoever asks: so many connections at a time, one request on each, short headers, and an end
//! to each after a while. Who wants more waits in the kernel's queue.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::{Exposition, Format};

/// Connections at a time.
const CONNECTIONS: usize = 32;
/// The whole life of a connection, the answer included. Prometheus gives up after 10 s if not told otherwise.
const LIFETIME: Duration = Duration::from_secs(30);
/// How long a request's head may take, so that whoever only connects does not keep others out.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Its size in bytes.
const HEAD: usize = 16 * 1024;
/// How long nothing is accepted after the kernel refused a connection, for want of file descriptors for example.
const PAUSE: Duration = Duration::from_secs(1);

/// Signs of life of a loop: that it turns, and that it has done its work once. Clones share them.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Mutex<Signs>>);

#[derive(Debug)]
struct Signs {
    beat: Instant,
    ready: bool,
}

impl Vitals {
    /// How often a loop that has nothing to do should [beat](Self::beat).
    pub const INTERVAL: Duration = Duration::from_secs(10);
    /// Time without a beat after which a loop counts as dead. The longest pass takes seconds; a kernel that has not
    /// answered for this long does not answer any more.
    pub const LIMIT: Duration = Duration::from_secs(300);

    /// A loop that begins now.
    pub fn new() -> Self {
        let beat = Instant::now();
        Self(Arc::new(Mutex::new(Signs { beat, ready: false })))
    }

    /// The loop turns.
    pub fn beat(&self) {
        self.with(|signs| signs.beat = Instant::now());
    }

    /// The loop has done its work once.
    pub fn ready(&self) {
        self.with(|signs| signs.ready = true);
    }

    /// Whether the loop has turned of late.
    pub fn is_alive(&self) -> bool {
        self.with(|signs| signs.beat.elapsed() < Self::LIMIT)
    }

    /// Whether the loop has done its work once.
    pub fn is_ready(&self) -> bool {
        self.with(|signs| signs.ready)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Signs) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Vitals {
    fn default() -> Self {
        Self::new()
    }
}

/// Begins to listen. `[::]` takes IPv4 as well, unless `net.ipv6.bindv6only` is set.
///
/// # Errors
///
/// Somebody else has the port, or the host has no such address.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot serve metrics on {address}: free port {} or name another address with --listen (WEIR_LISTEN)",
            address.port()
        )
    })
}

/// Answers until the token is cancelled.
pub async fn serve(
    listener: TcpListener,
    vitals: Vitals,
    exposition: Exposition,
    shutdown: CancellationToken,
) {
    let exposition = Arc::new(exposition);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accept = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (vitals, exposition) = (vitals.clone(), exposition.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    converse(stream, &vitals, &exposition).await;
                });
            }
            Err(error) => {
                warn!("cannot take a connection to the metrics: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, vitals: &Vitals, exposition: &Exposition) {
    let answer = service_fn(async |request| Ok::<_, Infallible>(respond(&request, vitals, exposition).await));
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(LIFETIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a request for metrics broke off: {error}"),
        Err(_) => debug!("a request for metrics took longer than {LIFETIME:?}"),
    }
}

async fn respond(
    request: &Request<Incoming>,
    vitals: &Vitals,
    exposition: &Exposition,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !["/metrics", "/healthz", "/readyz"].contains(&path) {
        return plain(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n",
        );
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/healthz" => sign(vitals.is_alive(), "the loop has not turned for minutes\n"),
        "/readyz" => sign(
            vitals.is_alive() && vitals.is_ready(),
            "not ready: waiting for the first full sync\n",
        ),
        _ => metrics(request, exposition).await,
    }
}

async fn metrics(request: &Request<Incoming>, exposition: &Exposition) -> Response<Full<Bytes>> {
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    match exposition.text(format).await {
        Some(text) => response(StatusCode::OK, format.media_type(), text),
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

fn sign(good: bool, otherwise: &'static str) -> Response<Full<Bytes>> {
    match good {
        true => plain(StatusCode::OK, "ok\n"),
        false => plain(StatusCode::SERVICE_UNAVAILABLE, otherwise),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text.into())
}

fn response(status: StatusCode, media_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests;
