//! The JSON-RPC envelope, as the contract has it (sections 1 and 2): what a request is, and how answers are written.
//!
//! An id goes back exactly as it came, as the text that the client wrote: clients send UUIDs and integers above 2^32, and
//! both compare. Three errors carry no id, because none was read.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Deepest nesting of a body. Requests need three levels; parsers of others need none of it to be deep.
pub const DEPTH_MAX: usize = 32;

/// The id of URI calls, which have none of their own.
pub(super) const URI_ID: &str = "-1";

/// Where a call came from. It decides codes and wording of some errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Post,
    Uri,
    WebSocket,
}

/// A call, not yet understood.
#[derive(Debug)]
pub(super) struct Request {
    /// The id as JSON text; none for a notification, which is neither executed nor answered.
    pub(super) id: Option<Box<str>>,
    pub(super) method: String,
    pub(super) params: Option<Box<RawValue>>,
}

/// What a body holds.
#[derive(Debug)]
pub(super) enum Message {
    One(Request),
    Batch(Vec<Request>),
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    UnknownMethod,
    /// A parameter does not convert.
    Params(String),
    /// The method's own reason.
    Failed(String),
}

impl Refusal {
    pub(super) fn failed(reason: impl ToString) -> Self {
        Self::Failed(reason.to_string())
    }
}

/// The `error` member.
#[derive(Debug, Serialize)]
pub(super) struct ErrorObject {
    code: i32,
    message: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
}

impl ErrorObject {
    pub(super) fn parse(data: String) -> Self {
        Self { code: -32700, message: "Parse error. Invalid JSON", data }
    }

    pub(super) fn invalid_request(data: String) -> Self {
        Self { code: -32600, message: "Invalid Request", data }
    }

    /// What the server itself cannot do now.
    pub(super) fn server(data: String) -> Self {
        Self { code: -32000, message: "Server error", data }
    }

    pub(super) fn of(refusal: Refusal, transport: Transport) -> Self {
        let internal = |data| Self { code: -32603, message: "Internal error", data };
        let params = |data| Self { code: -32602, message: "Invalid params", data };
        match (refusal, transport) {
            (Refusal::UnknownMethod, _) => Self { code: -32601, message: "Method not found", data: String::new() },
            (Refusal::Failed(reason), _) => internal(reason),
            (Refusal::Params(reason), Transport::Uri) => params(format!("error converting http params to arguments: {reason}")),
            (Refusal::Params(reason), Transport::Post) => params(format!("error converting json params to arguments: {reason}")),
            (Refusal::Params(reason), Transport::WebSocket) => internal(format!("error converting json params to arguments: {reason}")),
        }
    }
}

/// A reply with a result.
pub(super) fn success(id: &str, result: &RawValue) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#, result.get())
}

/// A reply with an error; without an id where none was read.
pub(super) fn failure(id: Option<&str>, error: &ErrorObject) -> String {
    let error = serde_json::to_string(error).expect("a number and two strings");
    match id {
        Some(id) => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#),
        None => format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#),
    }
}

/// What a body asks for.
///
/// # Errors
/// Why it is not a request, or not a batch of nothing but requests.
pub(super) fn parse(body: &[u8]) -> Result<Message, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    check_depth(text)?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !whole.get().starts_with('[') {
        return request(whole).map(Message::One);
    }
    let elements: Vec<&RawValue> = serde_json::from_str(whole.get()).map_err(|error| error.to_string())?;
    elements.into_iter().map(request).collect::<Result<_, _>>().map(Message::Batch)
}

/// One request. `null` counts as one without members, as it does in Go.
fn request(raw: &RawValue) -> Result<Request, String> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
        #[serde(borrow)]
        method: Option<Cow<'a, str>>,
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }
    let text = raw.get();
    if text == "null" {
        return Ok(Request { id: None, method: String::new(), params: None });
    }
    if !text.starts_with('{') {
        return Err("a request is an object".to_owned());
    }
    let members: Members<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let id = members.id.map(RawValue::get);
    if id.is_some_and(|id| !id.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())) {
        return Err("an id is a string or a number".to_owned());
    }
    Ok(Request {
        id: id.map(Box::from),
        method: members.method.unwrap_or_default().into_owned(),
        params: members.params.map(ToOwned::to_owned),
    })
}

/// Refuses deep nesting before any parser sees it. Brackets within strings do not count.
fn check_depth(text: &str) -> Result<(), String> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(format!("nested more than {DEPTH_MAX} levels deep"));
                }
            }
            // What does not balance is refused by the parser.
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}
