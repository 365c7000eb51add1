//! HTTP/1.1 written by hand, so that what the server says is seen as it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

pub(crate) struct Http {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

impl Http {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(addr).await.unwrap()) }
    }

    /// Sends bytes as they are and reads one reply; none when the server hangs up instead.
    pub(crate) async fn exchange(&mut self, bytes: &[u8]) -> Option<Reply> {
        self.write(bytes).await;
        self.read().await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // The server may answer and close before all is written: what it said is still there to read.
        let _ = self.stream.get_mut().write_all(bytes).await;
    }

    pub(crate) async fn read(&mut self) -> Option<Reply> {
        let line = self.line().await?;
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Reply { status, headers, body: String::from_utf8(body).unwrap() })
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    }

    pub(crate) async fn post(&mut self, body: &[u8]) -> Reply {
        let head = format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        self.exchange(&[head.as_bytes(), body].concat()).await.expect("a POST is always answered")
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.exchange(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.expect("a GET is always answered")
    }

    /// The result of a call with an id; panics on an error.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        let request = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let reply = self.post(request.to_string().as_bytes()).await;
        assert_eq!(reply.status, 200);
        let mut json = reply.json();
        assert_eq!(json.get("error"), None, "{method}");
        json["result"].take()
    }
}
