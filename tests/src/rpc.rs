//! A client that shares no code with the program: HTTP/1.1 over one connection that is kept, and JSON.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

/// How long an answer may take: beyond what the node itself waits for a commit.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Why a call has no result.
#[derive(Debug)]
pub enum CallError {
    /// There was no whole answer: whether the call had an effect is not known.
    Lost(io::Error),
    /// The node answered with an error.
    Refused(Value),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => write!(f, "no answer: {}", error.kind()),
            Self::Refused(error) => write!(f, "refused: {error}"),
        }
    }
}

/// Where a transaction is in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Of the block.
    pub height: u64,
    /// In the block.
    pub index: u64,
}

/// Where a node serves clients.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// The network namespace in which the address means something; none for our own.
    pub namespace: Option<String>,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, namespace: None }
    }
}

impl Endpoint {
    /// Connects. Reads and writes fail after 30 s: longer than a node itself waits for a commit.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let stream = match &self.namespace {
            None => TcpStream::connect(self.address)?,
            Some(name) => connect_in(name, self.address)?,
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        Ok(stream)
    }
}

/// A socket belongs to the namespace in which it was made, wherever it is used. So a thread of its own goes there and makes it.
fn connect_in(namespace: &str, address: SocketAddr) -> io::Result<TcpStream> {
    let namespace = File::open(Path::new("/run/netns").join(namespace))?;
    let maker = std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpStream::connect(address)
    });
    maker.join().expect("connecting does not panic")
}

/// A client of one node.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// Of the node that serves clients there. Nothing is connected before the first call, and again after each that failed.
    pub fn new(endpoint: impl Into<Endpoint>) -> Self {
        Self { endpoint: endpoint.into(), stream: None }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, CallError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut answer: Value = match self.post(request.as_bytes()) {
            Ok((_, body)) => serde_json::from_slice(&body).map_err(|error| CallError::Lost(error.into()))?,
            Err(error) => return Err(CallError::Lost(error)),
        };
        match answer.get("error") {
            Some(error) => Err(CallError::Refused(error.clone())),
            None => Ok(answer["result"].take()),
        }
    }

    /// Posts these bytes as they are: the status and the body of the answer.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn post(&mut self, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let answer = self.exchange(body);
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    /// A number that the node shows at `/metrics`, by its whole name.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn metric(&mut self, name: &str) -> io::Result<u64> {
        let mut stream = BufReader::new(self.endpoint.connect()?);
        write!(stream.get_mut(), "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.endpoint.address)?;
        let (_, body) = read_answer(&mut stream)?;
        let text = String::from_utf8_lossy(&body);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} is not shown")))
    }

    fn exchange(&mut self, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(BufReader::new(self.endpoint.connect()?)),
        };
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.endpoint.address,
            body.len()
        );
        let sent = stream.get_mut().write_all(&[head.as_bytes(), body].concat());
        // A server that refuses early may close before it has read everything: its answer counts.
        let (status, body) = read_answer(stream).or_else(|error| sent.and(Err(error)))?;
        Ok((status, body))
    }

    /// The height of the newest block that the node committed and executed; zero before the first.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn height(&mut self) -> Result<u64, CallError> {
        Ok(number(&self.call("status", json!({}))?["sync_info"]["latest_block_height"]))
    }

    /// The lowest height that the node has.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn base(&mut self) -> Result<u64, CallError> {
        Ok(number(&self.call("status", json!({}))?["sync_info"]["earliest_block_height"]))
    }

    /// Block hash and application hash at a height.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn hashes(&mut self, height: u64) -> Result<(String, String), CallError> {
        let commit = self.call("commit", json!({"height": height.to_string()}))?;
        let text = |value: &Value| value.as_str().expect("a hash").to_owned();
        let signed = &commit["signed_header"];
        Ok((text(&signed["commit"]["block_id"]["hash"]), text(&signed["header"]["app_hash"])))
    }

    /// Addresses of the validators whose precommits for the block are in its commit.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn signers(&mut self, height: u64) -> Result<Vec<String>, CallError> {
        const FOR_THE_BLOCK: u64 = 2;
        let commit = self.call("commit", json!({"height": height.to_string()}))?;
        let signatures = commit["signed_header"]["commit"]["signatures"].as_array().expect("signatures");
        let signed = signatures.iter().filter(|signature| signature["block_id_flag"] == FOR_THE_BLOCK);
        Ok(signed.map(|signature| signature["validator_address"].as_str().expect("an address").to_owned()).collect())
    }

    /// Submits a transaction and waits until it is committed: its hash and the height of its block.
    ///
    /// # Errors
    /// See [`CallError`]. A refusal by the application counts as one.
    pub fn commit_tx(&mut self, tx: &str) -> Result<(String, u64), CallError> {
        let answer = self.call("broadcast_tx_commit", json!({"tx": STANDARD.encode(tx)}))?;
        if answer["check_tx"]["code"] != 0 || answer["tx_result"]["code"] != 0 {
            return Err(CallError::Refused(answer));
        }
        Ok((answer["hash"].as_str().expect("a hash").to_owned(), number(&answer["height"])))
    }

    /// Submits a transaction and waits until it is checked.
    ///
    /// # Errors
    /// As [`Client::commit_tx`].
    pub fn send_tx(&mut self, tx: &str) -> Result<String, CallError> {
        let answer = self.call("broadcast_tx_sync", json!({"tx": STANDARD.encode(tx)}))?;
        if answer["code"] != 0 {
            return Err(CallError::Refused(answer));
        }
        Ok(answer["hash"].as_str().expect("a hash").to_owned())
    }

    /// Where a committed transaction is.
    ///
    /// # Errors
    /// See [`CallError`]. One that is not in the chain is refused.
    pub fn place(&mut self, hash: &str) -> Result<Place, CallError> {
        let hash = STANDARD.encode(hex::decode(hash).expect("a hash"));
        let answer = self.call("tx", json!({"hash": hash, "prove": false}))?;
        Ok(Place { height: number(&answer["height"]), index: answer["index"].as_u64().expect("an index") })
    }
}

/// A number that JSON carries as text.
pub fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is not a number in text"))
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, Vec<u8>)> {
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let first = read_line(stream)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| malformed("no status line"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        let line = read_line(stream)?.to_ascii_lowercase();
        match line.split_once(':') {
            None => break,
            Some(("content-length", value)) => length = value.trim().parse::<usize>().ok(),
            Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
            Some(_) => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let size = usize::from_str_radix(&read_line(stream)?, 16).map_err(|_| malformed("a chunk without a size"))?;
            let from = body.len();
            body.resize(from + size, 0);
            stream.read_exact(&mut body[from..])?;
            read_line(stream)?;
            if size == 0 {
                return Ok((status, body));
            }
        }
    }
    body.resize(length.ok_or_else(|| malformed("an answer without a length"))?, 0);
    stream.read_exact(&mut body)?;
    Ok((status, body))
}

fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
