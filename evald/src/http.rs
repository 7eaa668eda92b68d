//! The daemon over HTTP: `POST /run_code` as SandboxFusion has it, which trainers call, and `POST /v1/run` with evald's own jobs
//! and results.
//!
//! This is a client of the daemon like any other, in its process: each job goes over a connection of its own, so that the
//! daemon's queues, budgets and limits hold here too, and who hangs up has its job cancelled. One thread serves all sockets.

mod access;
mod asking;
mod run_code;

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use evald::server::Server;
use evald_proto::{Job, MAX_LINE_BYTES};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

pub use access::{Access, Address};
use asking::Asking;

/// Connections at a time; whoever comes then is hung up on.
const MOST_CONNECTIONS: usize = 1024;
/// Bytes of requests that are being read or wait, altogether.
const MOST_HELD: usize = 32 << 20;
/// A request's head must be there within this time, its body within as much again, and some of a reply must be taken in.
const PATIENCE: Duration = Duration::from_secs(30);
/// Jobs that wait for a connection to the daemon.
const MOST_WAITING: usize = 2048;

type Reply = Response<Full<Bytes>>;

/// What all requests share.
struct Front {
    access: Access,
    asking: Asking,
    /// Bytes of requests held.
    held: AtomicUsize,
}

/// Why a request gets no result: a status and a sentence.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    detail: String,
}

impl Refusal {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

/// Serves the listener from a thread of its own, for ever.
///
/// # Errors
/// No thread or no event loop can be had.
pub fn start(listener: TcpListener, server: Arc<Server>, access: Access) -> anyhow::Result<()> {
    listener.set_nonblocking(true).context("cannot listen without blocking")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make an event loop for HTTP")?;
    let front = Arc::new(Front { access, asking: Asking::new(server), held: AtomicUsize::new(0) });
    std::thread::Builder::new()
        .name("http".into())
        .spawn(move || runtime.block_on(accept(listener, front)))
        .context("cannot start a thread")?;
    Ok(())
}

async fn accept(listener: TcpListener, front: Arc<Front>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(error = error.to_string(), "cannot serve HTTP"),
    };
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = error.to_string(), "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::info!("turned an HTTP connection away: too many");
            continue;
        };
        let front = Arc::clone(&front);
        tokio::spawn(async move {
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(PATIENCE));
            let service = service_fn(|request| answer(&front, request));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(Box::pin(stream) as Pin<Box<_>>), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(error = error.to_string(), "an HTTP connection ended");
            }
            drop(place);
        });
    }
}

async fn answer(front: &Front, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let reply = route(front, request).await.unwrap_or_else(|refusal| {
        let body = serde_json::json!({ "detail": refusal.detail });
        let mut reply = json(refusal.status, &body);
        match refusal.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                let allowed = if is_post(&path) { "POST" } else { "GET" };
                reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            }
            _ => {}
        }
        reply
    });
    tracing::debug!(%method, path, status = reply.status().as_u16(), "HTTP");
    Ok(reply)
}

fn is_post(path: &str) -> bool {
    matches!(path, "/run_code" | "/v1/run")
}

async fn route(front: &Front, request: Request<Incoming>) -> Result<Reply, Refusal> {
    let path = request.uri().path().to_owned();
    front.access.admit(&path, request.headers())?;
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    match path.as_str() {
        "/run_code" | "/v1/run" if request.method() != Method::POST => {
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes POST")))
        }
        "/run_code" => {
            let (asked, _held) = read::<run_code::Asked>(front, request).await?;
            let (job, shape) = asked.job()?;
            let result = front.asking.run(job).await?;
            Ok(json(StatusCode::OK, &run_code::said(result, shape)))
        }
        "/v1/run" => {
            let (job, _held) = read::<JobWithoutId>(front, request).await?;
            Ok(json(StatusCode::OK, &front.asking.run(job.0).await?))
        }
        "/" | "/health" | "/v1/ping" | "/metrics" if !get => {
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes GET")))
        }
        "/health" => Ok(json(StatusCode::OK, &front.asking.health())),
        "/v1/ping" => Ok(json(StatusCode::OK, &"pong")),
        "/metrics" => {
            let mut reply = Response::new(Full::from(front.asking.metrics()));
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
            Ok(reply)
        }
        "/" => Ok(json(
            StatusCode::OK,
            &serde_json::json!({
                "evald": env!("CARGO_PKG_VERSION"),
                "POST": ["/run_code", "/v1/run"],
                "GET": ["/health", "/v1/ping", "/metrics"],
            }),
        )),
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("no {path} here: POST /run_code or /v1/run, GET /health, /v1/ping or /metrics"),
        )),
    }
}

/// A job as on the socket, but that it needs no id.
struct JobWithoutId(Job);

impl<'de> serde::Deserialize<'de> for JobWithoutId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut object = serde_json::Map::deserialize(from)?;
        object.entry("id").or_insert_with(|| "".into());
        serde_json::from_value(object.into()).map(Self).map_err(D::Error::custom)
    }
}

/// Bytes of a request, counted for as long as this lives.
struct Held<'a> {
    front: &'a Front,
    bytes: usize,
}

impl Held<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.front.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > MOST_HELD {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are being read"));
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.front.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request's body, of JSON.
async fn read<T: DeserializeOwned>(
    front: &Front,
    request: Request<Incoming>,
) -> Result<(T, Held<'_>), Refusal> {
    let too_large = || {
        let detail = format!("the request is larger than {MAX_LINE_BYTES} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let mut body = request.into_body();
    if body.size_hint().lower() > MAX_LINE_BYTES as u64 {
        return Err(too_large());
    }
    let mut held = Held { front, bytes: 0 };
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Refusal::new(StatusCode::BAD_REQUEST, format!("the request broke off: {error}"))
            })?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > MAX_LINE_BYTES {
                    return Err(too_large());
                }
                held.grow(data.len())?;
                bytes.extend_from_slice(data);
            }
        }
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(read) => read?,
        Err(_) => {
            let detail = format!("the request did not come within {} s", PATIENCE.as_secs());
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, detail));
        }
    }
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok((value, held)),
        Err(error) => {
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, format!("not such a request: {error}")))
        }
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut reply = Response::new(Full::from(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::UNAUTHORIZED {
        let ask = hyper::header::WWW_AUTHENTICATE;
        reply.headers_mut().insert(ask, HeaderValue::from_static("Bearer"));
    }
    reply
}
