//! The client: the methods a program of ours calls, over several endpoints.
//!
//! A call goes to the endpoint that answered last, and to the others in turn when that one cannot be reached or does not
//! speak JSON-RPC. An error that a node answers with is an answer: no other node is asked. What a node says is believed
//! here; [`verify`] believes nothing.

pub mod verify;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonrpsee_core::client::{ClientT as _, Error as CallError};
use jsonrpsee_core::params::{BatchRequestBuilder, ObjectParams};
use jsonrpsee_http_client::{HttpClient, HttpClientBuilder};
use lockstep_types::block::BODY_BYTES_MAX;
use lockstep_types::{Hash, Height};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::json;

/// Largest answer that is read: the largest block in base64, and its header, commit and evidence.
const ANSWER_BYTES_MAX: u32 = 160 * 1024 * 1024;
const _: () = assert!(ANSWER_BYTES_MAX as usize > BODY_BYTES_MAX / 3 * 4 + 16 * 1024 * 1024);

/// How long an answer may take: `broadcast_tx_commit` waits up to 10 s for its block.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// How long connecting may take before the next endpoint is tried.
const CONNECT_WAIT: Duration = Duration::from_secs(3);

/// What a node answers when it has the transaction already.
const IN_CACHE: &str = "tx already exists in cache";

/// A client of one or more nodes of one chain.
pub struct Client {
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
}

struct Endpoint {
    url: String,
    http: HttpClient,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.endpoints.iter().map(|endpoint| &endpoint.url)).finish()
    }
}

/// Why a call gave nothing.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No endpoint was given.
    #[error("no RPC endpoint is given")]
    NoEndpoint,
    /// What was given is not the address of an endpoint.
    #[error("{url:?} is not an RPC endpoint (one looks like http://127.0.0.1:26657): {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No endpoint answered.
    #[error("no RPC endpoint answered: {}", .0.iter().map(|(url, why)| format!("{url}: {why}")).collect::<Vec<_>>().join("; "))]
    Unreachable(Vec<(String, String)>),
    /// The node answered with an error.
    #[error("{url} answers: {message}{}{data} (code {code})", if .data.is_empty() { "" } else { ": " })]
    Answered {
        /// Who.
        url: String,
        /// Code of the error.
        code: i32,
        /// Its fixed text.
        message: String,
        /// The reason; may be empty.
        data: String,
    },
}

impl ClientError {
    /// The reason that the node gave, when it answered with an error.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Answered { data, .. } => Some(data),
            _ => None,
        }
    }
}

impl Client {
    /// A client of these endpoints: `http://host:port`, `tcp://host:port` or `host:port`.
    ///
    /// # Errors
    /// [`ClientError::NoEndpoint`] or [`ClientError::Url`].
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, ClientError> {
        let endpoints = urls.into_iter().map(|url| endpoint(url.into())).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() { Err(ClientError::NoEndpoint) } else { Ok(Self { endpoints, preferred: AtomicUsize::new(0) }) }
    }

    /// The endpoint that is asked first.
    pub fn endpoint(&self) -> &str {
        &self.endpoints[self.preferred.load(Ordering::Relaxed)].url
    }

    /// Number of endpoints, at least one.
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Asks another endpoint first from now on, for one whose answers are wrong.
    fn leave_endpoint(&self) {
        let next = (self.preferred.load(Ordering::Relaxed) + 1) % self.endpoints.len();
        self.preferred.store(next, Ordering::Relaxed);
    }

    /// `status`
    ///
    /// # Errors
    /// See [`ClientError`]; so for all methods.
    pub async fn status(&self) -> Result<json::Status, ClientError> {
        self.call("status", ObjectParams::new()).await
    }

    /// `broadcast_tx_async`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn broadcast_tx_async(&self, tx: &[u8]) -> Result<json::Broadcast, ClientError> {
        self.broadcast("broadcast_tx_async", tx).await
    }

    /// `broadcast_tx_sync`. A transaction that fails its check is an answer with a code, not an error.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn broadcast_tx_sync(&self, tx: &[u8]) -> Result<json::Broadcast, ClientError> {
        self.broadcast("broadcast_tx_sync", tx).await
    }

    /// `broadcast_tx_commit`. When an endpoint breaks off and another one has the transaction already, the error says so:
    /// [`Client::tx`] then tells what became of it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn broadcast_tx_commit(&self, tx: &[u8]) -> Result<json::BroadcastCommit, ClientError> {
        self.call("broadcast_tx_commit", params([("tx", STANDARD.encode(tx))])).await
    }

    /// `broadcast_tx_sync` for many transactions in one request; one outcome for each, in order. A server takes 100 at a time
    /// by default.
    ///
    /// # Errors
    /// When the request as a whole has no answer.
    pub async fn broadcast_batch(&self, txs: &[Vec<u8>]) -> Result<Vec<Result<json::Broadcast, String>>, ClientError> {
        // A batch of one is answered by a bare object, which is no answer to a batch for a JSON-RPC client.
        if let [tx] = txs {
            return match self.broadcast_tx_sync(tx).await {
                Ok(answer) => Ok(vec![Ok(answer)]),
                Err(ClientError::Answered { message, data, .. }) => Ok(vec![Err(if data.is_empty() { message } else { data })]),
                Err(error) => Err(error),
            };
        }
        if txs.is_empty() {
            return Ok(Vec::new());
        }
        let batch = || {
            let mut batch = BatchRequestBuilder::new();
            for tx in txs {
                batch.insert("broadcast_tx_sync", params([("tx", STANDARD.encode(tx))])).expect("a string is JSON");
            }
            batch
        };
        let (_, answers) = self.try_each(|http| http.batch_request::<json::Broadcast>(batch())).await?;
        Ok(answers
            .into_iter()
            .map(|answer| answer.map_err(|error| error_data(error.data()).unwrap_or_else(|| error.message().to_owned())))
            .collect())
    }

    /// `tx`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tx(&self, hash: &Hash, prove: bool) -> Result<json::TxAnswer, ClientError> {
        let mut params = params([("hash", STANDARD.encode(hash.0))]);
        insert(&mut params, "prove", prove);
        self.call("tx", params).await
    }

    /// `block`; without a height the last one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn block(&self, height: Option<Height>) -> Result<json::BlockAnswer, ClientError> {
        self.call("block", at(height)).await
    }

    /// `block_results`; without a height those of the last block.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn block_results(&self, height: Option<Height>) -> Result<json::BlockResults, ClientError> {
        self.call("block_results", at(height)).await
    }

    /// `commit`; without a height that of the last block. None before the first block.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn commit(&self, height: Option<Height>) -> Result<Option<json::CommitAnswer>, ClientError> {
        self.call("commit", at(height)).await
    }

    /// `header`; without a height the last one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn header(&self, height: Option<Height>) -> Result<json::HeaderAnswer, ClientError> {
        self.call("header", at(height)).await
    }

    /// `validators`, one page of a hundred; without a height those of the height that is being decided.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn validators(&self, height: Option<Height>, page: usize) -> Result<json::Validators, ClientError> {
        let mut params = at(height);
        insert(&mut params, "page", page.to_string());
        insert(&mut params, "per_page", "100");
        self.call("validators", params).await
    }

    /// `abci_query`; height zero for the latest.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn abci_query(&self, path: &str, data: &[u8], height: Height, prove: bool) -> Result<json::AbciQuery, ClientError> {
        let mut params = params([("path", path.to_owned()), ("data", hex::encode(data)), ("height", height.to_string())]);
        insert(&mut params, "prove", prove);
        let answer: json::Response<_> = self.call("abci_query", params).await?;
        Ok(answer.response)
    }

    /// Handing a transaction in again is harmless: the second node has it from the first, or takes it.
    async fn broadcast(&self, method: &'static str, tx: &[u8]) -> Result<json::Broadcast, ClientError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let answer = self.call(method, params([("tx", STANDARD.encode(tx))])).await;
        let failed_over = self.preferred.load(Ordering::Relaxed) != first;
        match answer {
            Err(error) if failed_over && error.reason() == Some(IN_CACHE) => {
                Ok(json::Broadcast::new(Hash::of(tx), &lockstep_types::TxResult::default()))
            }
            answer => answer,
        }
    }

    async fn call<T: DeserializeOwned>(&self, method: &'static str, params: ObjectParams) -> Result<T, ClientError> {
        self.try_each(|http| http.request::<T, _>(method, params.clone())).await.map(|(_, answer)| answer)
    }

    /// The first answer of the endpoints, asked in turn from the preferred one, and whose it is.
    async fn try_each<'a, T, F>(&'a self, mut ask: impl FnMut(&'a HttpClient) -> F) -> Result<(&'a str, T), ClientError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for place in (0..self.endpoints.len()).map(|step| (first + step) % self.endpoints.len()) {
            let endpoint = &self.endpoints[place];
            match ask(&endpoint.http).await {
                Ok(answer) => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return Ok((&endpoint.url, answer));
                }
                Err(CallError::Call(error)) => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return Err(ClientError::Answered {
                        url: endpoint.url.clone(),
                        code: error.code(),
                        message: error.message().to_owned(),
                        data: error_data(error.data()).unwrap_or_default(),
                    });
                }
                Err(error) => failures.push((endpoint.url.clone(), describe(&error))),
            }
        }
        Err(ClientError::Unreachable(failures))
    }
}

/// An error with its causes: transport errors say little at the top.
fn describe(error: &CallError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let further = error.to_string();
        if !text.contains(&further) {
            text = format!("{text}: {further}");
        }
        cause = error.source();
    }
    text
}

fn error_data(data: Option<&serde_json::value::RawValue>) -> Option<String> {
    data.map(|data| serde_json::from_str(data.get()).unwrap_or_else(|_| data.get().to_owned()))
}

fn params<const N: usize>(members: [(&str, String); N]) -> ObjectParams {
    let mut params = ObjectParams::new();
    for (name, value) in members {
        insert(&mut params, name, value);
    }
    params
}

fn insert(params: &mut ObjectParams, name: &str, value: impl Serialize) {
    params.insert(name, value).expect("strings and booleans are JSON");
}

fn at(height: Option<Height>) -> ObjectParams {
    let mut params = ObjectParams::new();
    if let Some(height) = height {
        insert(&mut params, "height", height);
    }
    params
}

fn endpoint(given: String) -> Result<Endpoint, ClientError> {
    let rest = given.strip_prefix("tcp://").or_else(|| given.strip_prefix("http://")).unwrap_or(&given);
    let url = format!("http://{}", rest.trim_end_matches('/'));
    if rest.contains("://") {
        return Err(ClientError::Url { url: given, reason: "only http is spoken here; put TLS in front of the node".to_owned() });
    }
    let http = HttpClientBuilder::default()
        .max_request_size(ANSWER_BYTES_MAX)
        .max_response_size(ANSWER_BYTES_MAX)
        .request_timeout(ANSWER_WAIT)
        .connect_timeout(CONNECT_WAIT)
        .build(&url)
        .map_err(|error| ClientError::Url { url: given, reason: describe(&error) })?;
    Ok(Endpoint { url, http })
}
