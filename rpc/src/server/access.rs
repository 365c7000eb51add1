//! Who may talk to the server, as far as a browser can be told apart: `Host` and `Origin`.
//!
//! A web page can make its visitor's browser send requests to 127.0.0.1. It cannot forge `Host`, which names the page's
//! own site once its name is rebound to 127.0.0.1, nor `Origin`.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, header};

/// The names by which a server may be called and the pages that may call it.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// Whether the server listens on a loopback address, so that no name but a loopback one is rightly its own.
    pub(super) loopback: bool,
    /// Further host names, without port.
    pub(super) hosts: Vec<String>,
    /// Allowed origins, as in `https://wallet.example`; `*` allows all.
    pub(super) origins: Vec<String>,
}

impl Access {
    /// Whether a request with these headers is let in.
    ///
    /// # Errors
    /// What is wrong, without repeating what the request said.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        // Tools may leave Host out; browsers never do.
        if self.loopback && headers.get_all(header::HOST).iter().any(|host| !host.to_str().is_ok_and(|host| self.is_own(host))) {
            return Err("this Host is not served here: add it to the RPC host list if it should be\n");
        }
        if headers.get_all(header::ORIGIN).iter().any(|origin| !origin.to_str().is_ok_and(|origin| self.is_allowed(origin))) {
            return Err("this Origin may not call: add it to the RPC origin list if it should\n");
        }
        Ok(())
    }

    fn is_own(&self, host: &str) -> bool {
        let name = without_port(host);
        is_loopback(name) || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    fn is_allowed(&self, origin: &str) -> bool {
        let listed = self.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin));
        listed || origin.split_once("://").is_some_and(|(_, host)| is_loopback(without_port(host)))
    }

    /// The headers that let a page of a listed origin read the answer; none when no origin is listed or none came.
    pub(super) fn cors(&self, headers: &HeaderMap) -> Vec<(HeaderName, axum::http::HeaderValue)> {
        let Some(origin) = headers.get(header::ORIGIN).filter(|_| !self.origins.is_empty()) else { return Vec::new() };
        let fixed = axum::http::HeaderValue::from_static;
        vec![
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
            (header::ACCESS_CONTROL_ALLOW_METHODS, fixed("GET, POST, OPTIONS")),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, fixed("content-type")),
            (header::VARY, fixed("Origin")),
        ]
    }
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(name, _)| name);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
