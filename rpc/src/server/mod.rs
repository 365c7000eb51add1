//! The server: JSON-RPC by POST, URI calls by GET and the WebSocket, all on one port.
//!
//! ```text
//! listener -> Steady (drops who does not read) -> Lenient (quotes in URIs) -> hyper -> access (Host, Origin)
//!          -> POST /           envelope::parse -+
//!          -> GET /<method>    params           +-> Service -> Read:  pool of blocking threads -> Backend
//!          -> GET /websocket   websocket::talk -+           -> Write: Backend's future
//! ```
//!
//! Everything that a client can make grow has a bound in [`Limits`]: connections, bodies, batches, nesting, reads at a
//! time, calls under way on a WebSocket, bytes of a reply, and the time anything may take. Beyond a bound the client is
//! told so; what is large shares one room with the requests, or the replies, of all other clients. Nothing that a request said is repeated in HTML or plain text.

mod access;
mod envelope;
mod frames;
mod genesis;
mod guest;
mod methods;
mod params;
pub mod probe;
mod reply;
mod room;
mod service;
mod steady;
mod target;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower_service::Service as _;
use tracing::{debug, warn};

use self::access::Access;
use self::envelope::{ErrorObject, Message, Transport, URI_ID, failure, success};
use self::frames::SMALL_BYTES;
use self::genesis::Genesis;
use self::guest::{Guest, Places};
use self::methods::{Context, METHODS, WEBSOCKET_ONLY};
use self::params::Args;
use self::room::{Held, Room};
use self::service::Service;
use self::steady::{Steady, hear_out};
use self::target::Lenient;
use crate::backend::Backend;

pub use self::envelope::DEPTH_MAX;

/// Every bound on what clients may ask for. The defaults are the contract's, or say why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a POST body and of a WebSocket frame.
    pub body_bytes: usize,
    /// Requests in a batch.
    pub batch: usize,
    /// Connections of all kinds.
    pub connections: usize,
    /// Of these, connections from one address, or one /64 network of IPv6. Loopback is not counted: proxies come from there.
    pub per_ip: usize,
    /// Reads that run at a time. Few: reads share cores with consensus, and more of them do not finish sooner.
    pub readers: usize,
    /// How long a read waits for its turn before the client is told that the node is overloaded.
    pub read_wait: Duration,
    /// Bytes of answers in one batch after which no further read of it is made. The last one may exceed it.
    pub reply_bytes: usize,
    /// Bytes of all large requests, above 16 KiB each, that are being received or answered. One of [`Limits::body_bytes`]
    /// always fits.
    pub requests_bytes: usize,
    /// Bytes of all large replies by HTTP that wait for their readers.
    pub replies_bytes: usize,
    /// Calls under way on one WebSocket; further frames wait in the socket.
    pub websocket_calls: usize,
    /// Between pings: clients give up when they hear nothing for 30 s.
    pub websocket_ping: Duration,
    /// Silence after which a WebSocket is dropped.
    pub websocket_silence: Duration,
    /// How long `broadcast_tx_commit` waits.
    pub commit_wait: Duration,
    /// How long a request's headers may take, and how long a connection may idle between requests.
    pub header_wait: Duration,
    /// How long a body may take.
    pub body_wait: Duration,
    /// How long a client may leave a reply untaken.
    pub write_wait: Duration,
    /// How long running calls may take once the server stops.
    pub stop_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1_000_000,
            batch: 100,
            connections: 900,
            // A third: one address alone does not keep all others out.
            per_ip: 300,
            readers: 4,
            read_wait: Duration::from_secs(5),
            reply_bytes: 32 * 1024 * 1024,
            requests_bytes: 64 * 1024 * 1024,
            replies_bytes: 128 * 1024 * 1024,
            websocket_calls: 16,
            websocket_ping: Duration::from_secs(27),
            websocket_silence: Duration::from_secs(30),
            commit_wait: Duration::from_secs(10),
            header_wait: Duration::from_secs(60),
            body_wait: Duration::from_secs(10),
            write_wait: Duration::from_secs(30),
            stop_wait: Duration::from_secs(5),
        }
    }
}

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// Host names, without port, by which a server on a loopback address may be called beside loopback ones. A server on
    /// another address answers to every name.
    pub hosts: Vec<String>,
    /// Origins of web pages that may call, as in `https://wallet.example`; `*` allows all. Listing any turns CORS on.
    pub origins: Vec<String>,
    /// Further routes on the same port, behind the same checks of host and origin, such as `GET /metrics`. They may not
    /// claim `/` or `/websocket`; a claimed `/<name>` hides the method of that name.
    pub routes: Router,
}

/// Why the server does not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The node's genesis document is not JSON.
    #[error("the genesis document is not JSON")]
    Genesis(#[from] serde_json::Error),
    /// The listener has no address.
    #[error("the RPC listener has no local address")]
    Listener(#[from] std::io::Error),
}

/// A running server. Dropping it stops it without waiting for anyone.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    places: Arc<Places>,
    limits: Limits,
}

/// What handlers share.
#[derive(Clone)]
struct Shared {
    service: Arc<Service>,
    access: Arc<Access>,
    limits: Limits,
    requests: Room,
    replies: Room,
    stop: watch::Receiver<bool>,
}

/// Held as long as a connection lives, by its WebSocket too.
type Lease = Arc<Guest>;

/// Starts a server on a listener. Must run within a tokio runtime.
///
/// # Errors
/// See [`ServeError`].
///
/// # Panics
/// When [`Options::routes`] claims a path that is not its own.
pub fn serve(listener: TcpListener, backend: Arc<dyn Backend>, options: Options) -> Result<Server, ServeError> {
    let local_addr = listener.local_addr()?;
    let Options { limits, hosts, origins, routes } = options;
    let context = Context { genesis: Genesis::new(backend.genesis())?, backend, commit_wait: limits.commit_wait };
    let (stop, stopping) = watch::channel(false);
    let shared = Shared {
        service: Arc::new(Service::new(context, limits.clone())),
        access: Arc::new(Access { loopback: local_addr.ip().is_loopback(), hosts, origins }),
        limits: limits.clone(),
        requests: Room::new(limits.requests_bytes.max(limits.body_bytes)),
        replies: Room::new(limits.replies_bytes),
        stop: stopping.clone(),
    };
    let places = Arc::new(Places::new(limits.connections, limits.per_ip));
    tokio::spawn(accept(listener, shared, routes, Arc::clone(&places), stopping));
    Ok(Server { local_addr, stop, places, limits })
}

impl Server {
    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops: no new connections, WebSockets are closed, running calls get [`Limits::stop_wait`] to end.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        // Connections that outlast the wait are cut when the process ends.
        let _ = tokio::time::timeout(self.limits.stop_wait, self.places.empty(self.limits.connections)).await;
    }
}

/// Waits until the server stops or its handle is dropped.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Takes connections until the server stops or its handle is dropped.
async fn accept(listener: TcpListener, shared: Shared, routes: Router, places: Arc<Places>, mut stop: watch::Receiver<bool>) {
    /// Clients told at a time that there is no room; others are dropped untold.
    const REFUSALS_MAX: usize = 32;
    /// Out of file descriptors is the usual reason why accepting fails: wait for some to be closed.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let (limits, requests) = (shared.limits.clone(), shared.requests.clone());
    let router = router(shared, routes);
    loop {
        let (stream, from) = tokio::select! {
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "RPC cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if let Some(place) = places.take(from.ip()) {
            let guest = Guest::new(place, requests.clone(), limits.body_bytes);
            tokio::spawn(connection(stream, router.clone(), Arc::new(guest), limits.clone(), stop.clone()));
        } else if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
            tokio::spawn(async move {
                refuse(stream).await;
                drop(permit);
            });
        }
    }
}

/// Says that there is no room, and waits a moment for the client to read it.
async fn refuse(mut stream: TcpStream) {
    const WRITE_WAIT: Duration = Duration::from_secs(1);
    let body = failure(None, &ErrorObject::server("too many connections, try again later".to_owned()));
    let length = body.len();
    let reply = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    if let Ok(Ok(())) = tokio::time::timeout(WRITE_WAIT, stream.write_all(reply.as_bytes())).await {
        hear_out(stream).await;
    }
}

/// Serves one connection until its client leaves, idles too long, or the server stops.
async fn connection(stream: TcpStream, router: Router, lease: Lease, limits: Limits, mut stop: watch::Receiver<bool>) {
    /// Headers, and the chunk in which bodies are read. A URI call carries its transaction in the headers.
    const BUFFER_BYTES: usize = 128 * 1024;
    // Replies are written whole: waiting for more to send only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "RPC connection without TCP_NODELAY");
    }
    let io = TokioIo::new(Lenient::new(Steady::new(stream, Arc::clone(&lease), limits.write_wait), Arc::clone(&lease)));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Lease::clone(&lease));
        router.clone().call(request)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_wait).max_buf_size(BUFFER_BYTES);
    let mut connection = std::pin::pin!(http.serve_connection(io, service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "RPC connection ended");
    }
}

fn router(shared: Shared, routes: Router) -> Router {
    Router::new()
        .route("/", post(rpc).get(index))
        .route("/websocket", get(websocket))
        .route("/{method}", get(uri).fallback(not_found))
        .with_state(shared.clone())
        .merge(routes)
        .fallback(not_found)
        .layer(from_fn_with_state(shared, admit))
}

/// Lets in who may call, and tells browsers who that is.
async fn admit(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if let Err(reason) = shared.access.check(request.headers()) {
        return (StatusCode::FORBIDDEN, reason).into_response();
    }
    let cors = shared.access.cors(request.headers());
    let mut response = if !cors.is_empty() && request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().extend(cors);
    response
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A reply that may be large; an error in its place when too many wait for their readers.
fn kept(room: &Room, status: StatusCode, id: Option<&str>, reply: String) -> Response {
    match reply::keep(room, reply) {
        Some(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        None => {
            let error = ErrorObject::server("the node is overloaded: too many large answers are being read, try again later".to_owned());
            json(StatusCode::SERVICE_UNAVAILABLE, failure(id, &error))
        }
    }
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// The list of methods. It is made of nothing but our own table.
async fn index() -> Response {
    methods_page().into_response()
}

fn methods_page() -> Html<String> {
    let mut page = String::from("<!DOCTYPE html>\n<html><head><title>RPC methods</title></head><body>\n<h1>RPC methods</h1>\n<ul>\n");
    for method in METHODS {
        let (name, arguments) = (method.name, method.params.iter().map(|param| format!("{param}=_")).collect::<Vec<_>>().join("&amp;"));
        let query = if arguments.is_empty() { String::new() } else { format!("?{arguments}") };
        page.push_str(&format!("<li><a href=\"/{name}\">/{name}</a>{query}</li>\n"));
    }
    page.push_str("</ul>\n</body></html>\n");
    Html(page)
}

/// `POST /`
async fn rpc(State(shared): State<Shared>, request: Request) -> Response {
    let guest = request.extensions().get::<Lease>().cloned();
    // The room is held until the answer is made: what was asked is in memory as long.
    let (body, _held) = match read_body(request, &shared).await {
        Ok(read) => read,
        Err(unread) => {
            // What is left of the body would be read as the next request.
            if let Some(guest) = guest {
                guest.dismiss();
            }
            let (status, error) = unread.answer();
            return ([(header::CONNECTION, "close")], json(status, failure(None, &error))).into_response();
        }
    };
    if body.is_empty() {
        return index().await;
    }
    let replies = match envelope::parse(&body) {
        Err(reason) => {
            return json(StatusCode::INTERNAL_SERVER_ERROR, failure(None, &ErrorObject::parse(reason)));
        }
        Ok(Message::Batch(requests)) if requests.len() > shared.limits.batch => {
            let reason = format!("batch of {} requests, at most {} are taken", requests.len(), shared.limits.batch);
            return json(StatusCode::OK, failure(None, &ErrorObject::invalid_request(reason)));
        }
        Ok(Message::One(request)) => shared.service.answer(Transport::Post, vec![request]).await,
        Ok(Message::Batch(requests)) => shared.service.answer(Transport::Post, requests).await,
    };
    match replies.as_slice() {
        [] => StatusCode::OK.into_response(),
        // A batch with one reply is answered by the bare object, as CometBFT does.
        [reply] => kept(&shared.replies, StatusCode::OK, None, reply.clone()),
        replies => kept(&shared.replies, StatusCode::OK, None, format!("[{}]", replies.join(","))),
    }
}

/// Why the body of a request was not read.
enum Unread {
    TooLarge,
    TooSlow,
    Cut,
    NoRoom,
}

impl Unread {
    /// As CometBFT answers, and as an overloaded node does.
    fn answer(self) -> (StatusCode, ErrorObject) {
        let unreadable = |why| (StatusCode::BAD_REQUEST, ErrorObject::invalid_request(format!("error reading request body: {why}")));
        match self {
            Self::TooLarge => unreadable("request body too large"),
            Self::TooSlow => unreadable("the body took too long"),
            Self::Cut => unreadable("the body ended early"),
            Self::NoRoom => {
                let error =
                    ErrorObject::server("the node is overloaded: too many large requests are under way, try again later".to_owned());
                (StatusCode::SERVICE_UNAVAILABLE, error)
            }
        }
    }
}

/// The body of a request, and the room that it takes.
async fn read_body(request: Request, shared: &Shared) -> Result<(Vec<u8>, Held), Unread> {
    let read = tokio::time::timeout(shared.limits.body_wait, collect(request.into_body(), shared.limits.body_bytes, &shared.requests));
    read.await.map_err(|_| Unread::TooSlow)?
}

/// Puts a body together. Its pieces are copied: each, however small, would keep the buffer alive that it was read into.
async fn collect(mut body: Body, bytes_max: usize, room: &Room) -> Result<(Vec<u8>, Held), Unread> {
    let (mut bytes, mut held) = (Vec::new(), Held::default());
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| Unread::Cut)?.into_data() else { continue };
        let needed = bytes.len() + piece.len();
        if needed > bytes_max {
            return Err(Unread::TooLarge);
        }
        if needed > bytes.capacity() {
            // Twice as much as before, so that few copies are made; never what is merely promised.
            let capacity = needed.max(2 * bytes.capacity()).min(bytes_max);
            if capacity > SMALL_BYTES && !room.grow(&mut held, capacity) {
                return Err(Unread::NoRoom);
            }
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, held))
}

/// `GET /<method>?arg=value`
async fn uri(State(shared): State<Shared>, Path(name): Path<String>, RawQuery(query): RawQuery) -> Response {
    let Some(method) = methods::find(&name) else {
        if WEBSOCKET_ONLY.contains(&name.as_str()) {
            let error = ErrorObject::of(envelope::Refusal::UnknownMethod, Transport::Uri);
            return json(StatusCode::NOT_FOUND, failure(Some(URI_ID), &error));
        }
        return not_found().await;
    };
    let args = Args::from_query(method.params, query.as_deref().unwrap_or_default());
    match shared.service.call(method.run, args).await {
        Ok(result) => kept(&shared.replies, StatusCode::OK, Some(URI_ID), success(URI_ID, &result)),
        Err(refusal) => json(StatusCode::INTERNAL_SERVER_ERROR, failure(Some(URI_ID), &ErrorObject::of(refusal, Transport::Uri))),
    }
}

/// `GET /websocket`
async fn websocket(
    State(shared): State<Shared>,
    Extension(guest): Extension<Lease>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    // Grown for what comes: most frames are small, and most connections idle.
    const BUFFER_BYTES: usize = 4 * 1024;
    let limits = shared.limits.clone();
    let upgrade = upgrade.max_message_size(limits.body_bytes).max_frame_size(limits.body_bytes).read_buffer_size(BUFFER_BYTES);
    upgrade.on_upgrade(move |socket| websocket::talk(socket, shared.service, limits, shared.requests, guest, shared.stop))
}
