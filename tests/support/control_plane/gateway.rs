//! Something between a program and the API server, as companies and clouds have it: it answers in the API server's place,
//! or lets connections stand of which nothing comes any more.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::access;

/// What a program has asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
}

impl Asked {
    /// Whether it is for what changes, and not for what is.
    pub(crate) fn is_watch(&self) -> bool {
        self.path.contains("watch=true")
    }
}

/// An answer that is not the API server's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// This status, and in how many seconds to come again.
    Refusal(u16, Option<u32>),
    /// A watch that begins, and then says that what it should go on from is too old.
    TooOld,
}

type Rule = Box<dyn Fn(&Asked) -> Option<Answer> + Send>;
type Answered = Response<UnsyncBoxBody<Bytes, kube::Error>>;

/// A gateway that lets everything through until it is told otherwise. It ends with the value.
pub(crate) struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

struct Shared {
    client: Client,
    rule: Mutex<Rule>,
    asked: Mutex<Vec<Asked>>,
    /// Connections made when this was less say nothing any more.
    age: AtomicUsize,
    cut: Notify,
}

impl Gateway {
    /// Starts one that asks the API server with the rights of this kubeconfig, whoever asks it.
    pub(crate) async fn start(kubeconfig: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared {
            client: access::client(kubeconfig).await,
            rule: Mutex::new(Box::new(|_| None)),
            asked: Mutex::default(),
            age: AtomicUsize::new(0),
            cut: Notify::new(),
        });
        let listening = tokio::spawn(listen(listener, shared.clone())).abort_handle();
        Self {
            address,
            shared,
            listening,
        }
    }

    /// A kubeconfig of which this is the server.
    pub(crate) fn kubeconfig(&self) -> String {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "test", "user": {} }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        format!("{kubeconfig:#}\n")
    }

    /// From now on requests get the answer of this rule; where it has none, the API server's.
    pub(crate) fn answer(&self, rule: impl Fn(&Asked) -> Option<Answer> + Send + 'static) {
        *self.shared.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// From now on nothing comes on the connections that there are, and nobody says that they are at an end.
    pub(crate) fn silence(&self) {
        self.shared.age.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the connections that there are.
    pub(crate) fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    /// What was asked so far, the first first.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = self.shared.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, shared.clone()));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let age = shared.age.load(Ordering::Relaxed);
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.respond(request, age).await) }
    });
    tokio::select! {
        // Whoever asks may go away at any time.
        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
        () = shared.cut.notified() => {}
    }
}

impl Shared {
    fn is_silent(&self, age: usize) -> bool {
        age < self.age.load(Ordering::Relaxed)
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>, age: usize) -> Answered {
        if self.is_silent(age) {
            return std::future::pending().await;
        }
        let asked = Asked {
            at: Instant::now(),
            method: request.method().clone(),
            path: request.uri().to_string(),
        };
        let answer = (self.rule.lock().unwrap_or_else(PoisonError::into_inner))(&asked);
        let all = self.asked.lock();
        all.unwrap_or_else(PoisonError::into_inner).push(asked);
        match answer {
            Some(answer) => answer.response(),
            None => self.forward(request, age).await,
        }
    }

    async fn forward(self: Arc<Self>, request: Request<Incoming>, age: usize) -> Answered {
        let (mut head, body) = request.into_parts();
        for name in [HOST, AUTHORIZATION, CONTENT_LENGTH] {
            head.headers.remove(name);
        }
        let body = match body.collect().await {
            Ok(body) => body.to_bytes().to_vec(),
            Err(_) => return Answer::Refusal(400, None).response(),
        };
        match self.client.send(Request::from_parts(head, body.into())).await {
            Ok(response) => response.map(|body| {
                let body = Box::pin(body);
                let shared = self.clone();
                Passed { body, age, shared }.boxed_unsync()
            }),
            Err(_) => Answer::Refusal(502, None).response(),
        }
    }
}

impl Answer {
    fn response(self) -> Answered {
        let failure = |code: u16| {
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
                "reason": StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()),
                "message": "the gateway says so",
            })
        };
        let (code, wait, body) = match self {
            Self::Refusal(code, wait) => (code, wait, failure(code)),
            Self::TooOld => (200, None, json!({ "type": "ERROR", "object": failure(410) })),
        };
        let mut response = Response::builder().status(code);
        if let Some(wait) = wait {
            response = response.header(RETRY_AFTER, wait);
        }
        let body = Full::from(format!("{body}\n")).map_err(|never| match never {});
        response
            .body(body.boxed_unsync())
            .expect("status and header are good")
    }
}

/// What the API server answers, while the connection is not silent.
struct Passed {
    body: Pin<Box<kube::client::Body>>,
    age: usize,
    shared: Arc<Shared>,
}

impl Body for Passed {
    type Data = Bytes;
    type Error = kube::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, kube::Error>>> {
        let frame = self.body.as_mut().poll_frame(context);
        if self.shared.is_silent(self.age) {
            Poll::Pending
        } else {
            frame
        }
    }
}
