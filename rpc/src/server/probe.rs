//! What the server reads of clients, by itself, for those who attack it without a socket: fuzzing, and measuring what it
//! allocates. The server uses none of it.

use super::envelope::{ErrorObject, Message, Refusal, Transport, URI_ID, failure, parse, success};
use super::methods;
use super::params::{Args, Bytes};
use super::target;

/// A call that was read and not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The text of its id.
    pub id: String,
    /// Its method.
    pub method: String,
    /// The reply: why the call is refused, or its arguments, each read in every way that a method may read it.
    pub reply: String,
}

/// The calls of a body of `POST /` or of a WebSocket frame; notifications are left out.
///
/// # Errors
/// Why it is no request and no batch of requests.
pub fn body(bytes: &[u8]) -> Result<Vec<Asked>, String> {
    let requests = match parse(bytes)? {
        Message::One(request) => vec![request],
        Message::Batch(requests) => requests,
    };
    let asked = requests.into_iter().filter_map(|request| {
        let id = String::from(request.id?);
        let read = methods::find(&request.method)
            .ok_or(Refusal::UnknownMethod)
            .and_then(|method| Ok(read(&Args::from_json(method.params, request.params.as_deref())?, method.params)));
        let reply = answer(&id, read, Transport::Post);
        Some(Asked { id, method: request.method, reply })
    });
    Ok(asked.collect())
}

/// The call of `GET /<method>?<query>`; none for a method that there is not.
pub fn query(method: &str, query: &str) -> Option<Asked> {
    let found = methods::find(method)?;
    let read = read(&Args::from_query(found.params, query), found.params);
    Some(Asked { id: URI_ID.to_owned(), method: method.to_owned(), reply: answer(URI_ID, Ok(read), Transport::Uri) })
}

/// What the HTTP library sees of the bytes of a connection: in request targets, bytes that no URI may hold are escaped.
pub fn escaped<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    target::escape(pieces)
}

/// Every argument in every way: by name, what was read or why it was not.
fn read(args: &Args, names: &'static [&'static str]) -> Vec<String> {
    let mut said = Vec::new();
    for name in names {
        said.push(args.integer(name).map_or_else(tell, |number| format!("{name}: {number:?}")));
        said.push(args.boolean(name).map_or_else(tell, |truth| format!("{name}: {truth}")));
        said.push(args.text(name).map_or_else(tell, |text| format!("{name}: {text}")));
        for spelling in [Bytes::Base64, Bytes::Hex] {
            said.push(args.bytes(name, spelling).map_or_else(tell, |bytes| format!("{name}: {}", hex::encode(bytes))));
        }
    }
    said
}

fn tell(refusal: Refusal) -> String {
    format!("{refusal:?}")
}

fn answer(id: &str, read: Result<Vec<String>, Refusal>, transport: Transport) -> String {
    let read = read.and_then(|read| methods::reply(&read));
    match read {
        Ok(result) => success(id, &result),
        Err(refusal) => failure(Some(id), &ErrorObject::of(refusal, transport)),
    }
}
