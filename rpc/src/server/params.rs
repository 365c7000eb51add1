//! Parameters: from JSON (by name or by position) and from the arguments of a URI (contract section 2).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::envelope::Refusal;

/// The parameters of one call, in the order of the method's names; what was not given is none.
pub(super) struct Args {
    names: &'static [&'static str],
    values: Vec<Option<Arg>>,
}

/// A parameter as it came.
#[derive(Clone)]
enum Arg {
    /// JSON text, not null.
    Json(Box<str>),
    /// The decoded value of a URI argument, not empty.
    Uri(Box<str>),
}

/// How bytes are written in JSON. In a URI they are `0x` and hex, or text in quotes, for both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bytes {
    Base64,
    Hex,
}

impl Args {
    /// From the `params` of a request.
    pub(super) fn from_json(names: &'static [&'static str], params: Option<&RawValue>) -> Result<Self, Refusal> {
        let mut values = vec![None; names.len()];
        let given = |raw: &RawValue| (raw.get() != "null").then(|| Arg::Json(raw.get().into()));
        match params.map(|raw| (raw.get().as_bytes().first(), raw.get())) {
            None => {}
            Some((Some(b'{'), text)) => {
                let members: Members<'_> = serde_json::from_str(text).map_err(|error| Refusal::Params(error.to_string()))?;
                for (name, raw) in members.0 {
                    let Some(place) = names.iter().position(|known| *known == name) else { continue };
                    if values[place].is_some() {
                        return Err(Refusal::Params(format!("{name} is given twice")));
                    }
                    values[place] = given(raw);
                }
            }
            Some((Some(b'['), text)) => {
                let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| Refusal::Params(error.to_string()))?;
                if elements.len() != names.len() {
                    return Err(Refusal::Params(format!("expected {} parameters ({names:?}), got {}", names.len(), elements.len())));
                }
                values = elements.into_iter().map(given).collect();
            }
            Some(_) => return Err(Refusal::Params("params are an object, an array or null".to_owned())),
        }
        Ok(Self { names, values })
    }

    /// From the query of a URI. Empty values count as not given, of repeated ones the first counts.
    pub(super) fn from_query(names: &'static [&'static str], query: &str) -> Self {
        let mut values = vec![None; names.len()];
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if let Some(place) = names.iter().position(|known| *known == name)
                && values[place].is_none()
                && !value.is_empty()
            {
                values[place] = Some(Arg::Uri(value.into()));
            }
        }
        Self { names, values }
    }

    fn get(&self, name: &'static str) -> Option<&Arg> {
        let place = self.names.iter().position(|known| *known == name).expect("a method asks for its own parameters");
        self.values[place].as_ref()
    }

    /// An integer: a decimal string, or a number. No sign but minus, no leading zero, no fraction, no exponent.
    pub(super) fn integer(&self, name: &'static str) -> Result<Option<i64>, Refusal> {
        let Some(arg) = self.get(name) else { return Ok(None) };
        let text = match arg {
            Arg::Json(text) | Arg::Uri(text) if text.starts_with('"') => string(name, text)?,
            Arg::Json(text) | Arg::Uri(text) => text.clone().into(),
        };
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let plain = digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()));
        match text.parse() {
            Ok(number) if plain => Ok(Some(number)),
            _ => Err(Refusal::Params(format!("{name} is not a decimal integer of 64 bits"))),
        }
    }

    /// A boolean, false when not given.
    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, Refusal> {
        match self.get(name) {
            None => Ok(false),
            Some(Arg::Json(text) | Arg::Uri(text)) => match &**text {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Refusal::Params(format!("{name} is neither true nor false"))),
            },
        }
    }

    /// Text, empty when not given.
    pub(super) fn text(&self, name: &'static str) -> Result<String, Refusal> {
        match self.get(name) {
            None => Ok(String::new()),
            Some(Arg::Json(text) | Arg::Uri(text)) => string(name, text),
        }
    }

    /// Any JSON value, as it stands; none when not given.
    pub(super) fn value(&self, name: &'static str) -> Result<Option<serde_json::Value>, Refusal> {
        let Some(Arg::Json(text) | Arg::Uri(text)) = self.get(name) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| Refusal::Params(format!("{name} is no JSON value: {error}")))
    }

    /// Bytes, empty when not given.
    pub(super) fn bytes(&self, name: &'static str, spelling: Bytes) -> Result<Vec<u8>, Refusal> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Arg::Uri(text)) => match text.strip_prefix("0x") {
                Some(digits) => hex::decode(digits).map_err(|error| Refusal::Params(format!("{name} is not hex: {error}"))),
                None => string(name, text).map(String::into_bytes),
            },
            Some(Arg::Json(text)) => {
                let text = string(name, text)?;
                match spelling {
                    Bytes::Hex => hex::decode(text).map_err(|error| Refusal::Params(format!("{name} is not hex: {error}"))),
                    Bytes::Base64 => STANDARD.decode(text).map_err(|error| Refusal::Params(format!("{name} is not base64: {error}"))),
                }
            }
        }
    }
}

/// The string that a JSON text in double quotes stands for.
fn string(name: &'static str, text: &str) -> Result<String, Refusal> {
    serde_json::from_str(text).map_err(|_| Refusal::Params(format!("{name} is not a string in double quotes")))
}

/// The members of an object in their order, so that none can hide behind another of the same name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(InOrder).map(Members)
    }
}
