//! Settings as they are written: in TOML, in the environment, on the command line.

use std::net::SocketAddr;
use std::time::Duration;

use lockstep_network::PeerAddr;
use tracing_subscriber::EnvFilter;

use super::{ExternalAddress, LogFilter, LogFormat, Origin};

/// Smallest and largest value, in the setting's own unit: a count, bytes, milliseconds, characters, or elements of a list.
pub(super) type Bounds = (u64, u64);

/// What was given for a setting.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given<'a> {
    /// In the file.
    Toml(&'a toml::Value),
    /// In the environment or on the command line.
    Text(&'a str),
}

/// A kind of setting: how it is read and written.
pub(super) trait Setting: Sized {
    /// The value; none when it is not of this kind or out of bounds.
    fn read(given: Given<'_>, bounds: Bounds) -> Option<Self>;
    /// The rule, as it is told to people: "must be …".
    fn rule(bounds: Bounds) -> String;
    /// As TOML.
    fn show(&self) -> String;
}

/// A duration with its unit: `250ms`, `5s`, `10m`, `2h`. Whole numbers only.
///
/// # Errors
/// A sentence that says how one is written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const HOW: &str = "a duration is a whole number and its unit, ms, s, m or h, as in 250ms or 10s";
    let wrong = || format!("{text:?}: {HOW}");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..unit_at].parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match &text[unit_at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// A duration in the largest unit that divides it.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, unit_ms) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms != 0 && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn text<'a>(given: Given<'a>) -> Option<&'a str> {
    match given {
        Given::Toml(value) => value.as_str(),
        Given::Text(text) => Some(text),
    }
}

fn within(value: u64, (min, max): Bounds) -> bool {
    (min..=max).contains(&value)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Setting for u64 {
    fn read(given: Given<'_>, bounds: Bounds) -> Option<Self> {
        let number = match given {
            Given::Toml(value) => u64::try_from(value.as_integer()?).ok()?,
            Given::Text(text) => text.parse().ok()?,
        };
        within(number, bounds).then_some(number)
    }

    fn rule((min, max): Bounds) -> String {
        format!("a whole number from {min} to {max}")
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for usize {
    fn read(given: Given<'_>, bounds: Bounds) -> Option<Self> {
        u64::read(given, bounds).and_then(|number| Self::try_from(number).ok())
    }

    fn rule(bounds: Bounds) -> String {
        u64::rule(bounds)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    fn read(given: Given<'_>, _: Bounds) -> Option<Self> {
        match given {
            Given::Toml(value) => value.as_bool(),
            Given::Text(text) => text.parse().ok(),
        }
    }

    fn rule(_: Bounds) -> String {
        "true or false".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for Duration {
    fn read(given: Given<'_>, bounds: Bounds) -> Option<Self> {
        let duration = parse_duration(text(given)?).ok()?;
        within(u64::try_from(duration.as_millis()).ok()?, bounds).then_some(duration)
    }

    fn rule((min, max): Bounds) -> String {
        let [min, max] = [min, max].map(|ms| show_duration(Duration::from_millis(ms)));
        format!("a duration from {min} to {max}, written with its unit (ms, s, m, h)")
    }

    fn show(&self) -> String {
        quoted(&show_duration(*self))
    }
}

impl Setting for String {
    fn read(given: Given<'_>, bounds: Bounds) -> Option<Self> {
        let text = text(given)?;
        let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        (printable && within(count(text.len()), bounds)).then(|| text.to_owned())
    }

    fn rule((min, max): Bounds) -> String {
        format!("text of {min} to {max} printable ASCII characters")
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for SocketAddr {
    fn read(given: Given<'_>, _: Bounds) -> Option<Self> {
        let text = text(given)?;
        // CometBFT writes tcp:// in front.
        let address: Self = text.strip_prefix("tcp://").unwrap_or(text).parse().ok()?;
        (address.port() != 0).then_some(address)
    }

    fn rule(_: Bounds) -> String {
        "an IP address and a port of 1 to 65535, as in \"127.0.0.1:26657\" or \"[::]:26656\"".to_owned()
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Setting for ExternalAddress {
    fn read(given: Given<'_>, bounds: Bounds) -> Option<Self> {
        let text = text(given)?;
        if text.is_empty() {
            return Some(Self(None));
        }
        // The network's own rule for host and port, with any node id in front.
        let known = format!("{}@{text}", "0".repeat(40)).parse::<PeerAddr>().is_ok();
        (known && within(count(text.len()), bounds)).then(|| Self(Some(text.to_owned())))
    }

    fn rule(_: Bounds) -> String {
        "empty, or host:port with a port of 1 to 65535".to_owned()
    }

    fn show(&self) -> String {
        quoted(self.0.as_deref().unwrap_or_default())
    }
}

impl Setting for LogFilter {
    fn read(given: Given<'_>, bounds: Bounds) -> Option<Self> {
        let text = text(given)?;
        let known = !text.trim().is_empty() && EnvFilter::try_new(text).is_ok() && text.split(',').all(is_directive);
        (known && within(count(text.len()), bounds)).then(|| Self(text.to_owned()))
    }

    fn rule(_: Bounds) -> String {
        "error, warn, info, debug, trace or off, alone or per module, as in \"info,lockstep_network=debug\"".to_owned()
    }

    fn show(&self) -> String {
        quoted(&self.0)
    }
}

/// A level, or `module=level`. The library takes any word for a module and would log nothing of it.
fn is_directive(directive: &str) -> bool {
    let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
    ["error", "warn", "info", "debug", "trace", "off"].contains(&level)
}

impl Setting for LogFormat {
    fn read(given: Given<'_>, _: Bounds) -> Option<Self> {
        match text(given)? {
            "plain" => Some(Self::Plain),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn rule(_: Bounds) -> String {
        "\"plain\" or \"json\"".to_owned()
    }

    fn show(&self) -> String {
        quoted(match self {
            Self::Plain => "plain",
            Self::Json => "json",
        })
    }
}

/// One element of a list.
trait Element: Sized {
    const RULE: &'static str;
    fn parse(text: &str) -> Option<Self>;
    fn text(&self) -> String;
}

impl Element for PeerAddr {
    const RULE: &'static str = "\"nodeid@host:port\"; lockstep keys show prints the node id";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Element for String {
    const RULE: &'static str = "a host name without port";

    fn parse(text: &str) -> Option<Self> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        (!text.is_empty() && text.len() <= 255 && text.bytes().all(known)).then(|| text.to_owned())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl Element for Origin {
    const RULE: &'static str = "\"*\", or a page's scheme and host, as in \"https://wallet.example\"";

    fn parse(text: &str) -> Option<Self> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' ', '*']));
        ((text == "*" || is_origin) && text.len() <= 255 && text.is_ascii()).then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl<T: Element> Setting for Vec<T> {
    fn read(given: Given<'_>, (_, most): Bounds) -> Option<Self> {
        let list: Self = match given {
            Given::Toml(value) => value.as_array()?.iter().map(|element| T::parse(element.as_str()?)).collect::<Option<_>>()?,
            // As in the file.
            Given::Text(text) if text.trim_start().starts_with('[') => {
                let table: toml::Table = toml::from_str(&format!("list = {text}")).ok()?;
                return Self::read(Given::Toml(table.get("list").filter(|_| table.len() == 1)?), (0, most));
            }
            Given::Text(text) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(T::parse).collect::<Option<_>>()?,
        };
        (count(list.len()) <= most).then_some(list)
    }

    fn rule((_, most): Bounds) -> String {
        format!("a list of at most {most}, separated by commas, each {}", T::RULE)
    }

    fn show(&self) -> String {
        let elements: Vec<String> = self.iter().map(|element| quoted(&element.text())).collect();
        match elements.as_slice() {
            [] => "[]".to_owned(),
            [one] => format!("[{one}]"),
            many => format!("[\n    {},\n]", many.join(",\n    ")),
        }
    }
}
