//! JSON read strictly: every member is known, none comes twice, and what is wrong is named by its path. And JSON written
//! as CometBFT writes it.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lockstep_types::text::is_hidden;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

/// How much of an offending value an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 100;

/// A field of a file that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} is {value}: {rule}")]
pub struct FieldError {
    /// Path of the field from the top of the file, as in `validators[2].power`; `file` for the file as a whole.
    pub field: String,
    /// What stands there, cut when it is long; `missing` when nothing does; never a secret.
    pub value: String,
    /// What is asked of it, and why.
    pub rule: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, value: impl fmt::Display, rule: impl Into<String>) -> Self {
        Self { field: field.into(), value: shown(&value.to_string()), rule: rule.into() }
    }
}

/// Text for a message: one line, not longer than a person reads, nothing that moves a terminal's cursor.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN_CHARS_MAX).map(|c| if is_hidden(c) { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    path: String,
    raw: &'a RawValue,
    secret: bool,
}

impl<'a> Field<'a> {
    /// The only value of a file.
    pub(crate) fn root(bytes: &'a [u8], bytes_max: usize) -> Result<Self, FieldError> {
        if bytes.len() > bytes_max {
            return Err(FieldError::new("file", format!("{} bytes", bytes.len()), format!("at most {bytes_max} bytes")));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| FieldError::new("file", format!("not UTF-8 at byte {}", error.valid_up_to()), "JSON is UTF-8"))?;
        // Everything below is found well-formed here: what follows only looks at shapes.
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| FieldError::new("file", "not JSON", format!("must be JSON, but {error}")))?;
        Ok(Self { path: String::new(), raw, secret: false })
    }

    /// The same value, which no error will repeat.
    pub(crate) fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    fn name(&self) -> &str {
        if self.path.is_empty() { "file" } else { &self.path }
    }

    fn child(&self, path: String, raw: &'a RawValue) -> Self {
        Self { path, raw, secret: self.secret }
    }

    fn is_null(&self) -> bool {
        self.raw.get() == "null"
    }

    /// The text of the value as it stands in the file.
    pub(crate) fn text(&self) -> &'a str {
        self.raw.get()
    }

    /// That this value breaks a rule.
    pub(crate) fn fail(&self, rule: impl Into<String>) -> FieldError {
        let value = if self.secret { "(secret)" } else { self.raw.get() };
        FieldError::new(self.name(), value, rule)
    }

    /// Its members.
    pub(crate) fn object(&self) -> Result<Object<'a>, FieldError> {
        let members =
            serde_json::Deserializer::from_str(self.raw.get()).deserialize_map(Members).map_err(|_| self.fail("must be an object: {…}"))?;
        let mut names = BTreeSet::new();
        for (name, raw) in &members {
            if !names.insert(name) {
                return Err(self.child(join(&self.path, name), raw).fail("must not be given twice"));
            }
        }
        Ok(Object { of: self.clone(), members, known: Vec::new() })
    }

    /// Its elements.
    pub(crate) fn list(&self) -> Result<Vec<Self>, FieldError> {
        let elements =
            serde_json::Deserializer::from_str(self.raw.get()).deserialize_seq(Elements).map_err(|_| self.fail("must be a list: […]"))?;
        Ok(elements.into_iter().enumerate().map(|(place, raw)| self.child(format!("{}[{place}]", self.path), raw)).collect())
    }

    /// Its text.
    pub(crate) fn string(&self) -> Result<String, FieldError> {
        serde_json::from_str(self.raw.get()).map_err(|_| self.fail("must be a text: \"…\""))
    }

    /// Its number: decimal digits in quotes, as CometBFT writes 64-bit numbers, or bare.
    pub(crate) fn integer<T: TryFrom<i128>>(&self, rule: &str) -> Result<T, FieldError> {
        let fail = || self.fail(format!("must be a whole number in decimal digits, {rule}"));
        let quoted = self.raw.get().starts_with('"');
        let text = if quoted { self.string()? } else { self.raw.get().to_owned() };
        let digits = text.strip_prefix('-').unwrap_or(&text);
        // One spelling for each number: no sign but a minus, no leading zero, no minus zero.
        let plain = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
        let canonical = digits == "0" && text == "0" || !digits.starts_with('0');
        if !plain || !canonical {
            return Err(fail());
        }
        text.parse::<i128>().ok().and_then(|number| T::try_from(number).ok()).ok_or_else(fail)
    }

    /// Its bytes, from standard base64 with padding, as many as asked.
    pub(crate) fn base64<const N: usize>(&self) -> Result<zeroize::Zeroizing<[u8; N]>, FieldError> {
        let text = zeroize::Zeroizing::new(self.string()?);
        let bytes = BASE64.decode(text.as_bytes()).map(zeroize::Zeroizing::new);
        let exact = bytes.ok().and_then(|bytes| <[u8; N]>::try_from(bytes.as_slice()).ok());
        exact.map(zeroize::Zeroizing::new).ok_or_else(|| self.fail(format!("must be {N} bytes in standard base64")))
    }

    /// Its bytes, from hexadecimal digits of either case.
    pub(crate) fn hex(&self) -> Result<Vec<u8>, FieldError> {
        hex::decode(self.string()?).map_err(|_| self.fail("must be hexadecimal digits, two for each byte"))
    }
}

/// The members of an object, handed out by name; what was not asked for is not known.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    of: Field<'a>,
    members: Vec<(String, &'a RawValue)>,
    known: Vec<&'static str>,
}

impl<'a> Object<'a> {
    /// A member, if it is there. `null` is the same as nothing, as it is to CometBFT.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        let place = self.members.iter().position(|(found, _)| found == name)?;
        let (_, raw) = self.members.remove(place);
        Some(self.of.child(join(&self.of.path, name), raw)).filter(|field| !field.is_null())
    }

    /// A member that must be there.
    pub(crate) fn require(&mut self, name: &'static str, rule: &str) -> Result<Field<'a>, FieldError> {
        let path = join(&self.of.path, name);
        self.take(name).ok_or_else(|| FieldError::new(path, "missing", rule))
    }

    /// Every member was asked for.
    pub(crate) fn finish(self) -> Result<(), FieldError> {
        match self.members.first() {
            None => Ok(()),
            Some((name, raw)) => {
                let field = self.of.child(join(&self.of.path, name), raw);
                Err(field.fail(format!("is not known here; known are {}", self.known.join(", "))))
            }
        }
    }
}

fn join(path: &str, name: &str) -> String {
    let name = shown(name);
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(entry) = map.next_entry()? {
            members.push(entry);
        }
        Ok(members)
    }
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(elements)
    }
}

/// Whether text outside of strings, walked byte by byte, is inside one. JSON's structure is ASCII, and no byte of a longer
/// UTF-8 character is.
#[derive(Default)]
struct Strings {
    inside: bool,
    escaped: bool,
}

impl Strings {
    /// Takes the next byte; whether it belongs to a string, quotes included.
    fn take(&mut self, byte: u8) -> bool {
        if !self.inside {
            self.inside = byte == b'"';
            return self.inside;
        }
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.inside = false;
        }
        true
    }
}

/// JSON text without the white space that means nothing. The text of numbers and strings stays as it is.
pub(crate) fn minify(json: &str) -> String {
    let mut strings = Strings::default();
    let mut out = Vec::with_capacity(json.len());
    out.extend(json.bytes().filter(|byte| strings.take(*byte) || !byte.is_ascii_whitespace()));
    String::from_utf8(out).expect("whole characters were left out of whole characters")
}

/// How deep lists and objects stand in each other: 0 for a bare value.
pub(crate) fn depth(json: &str) -> usize {
    let mut strings = Strings::default();
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in json.bytes() {
        match byte {
            _ if strings.take(byte) => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Minified JSON set out in lines with two blanks for each level, as Go's `MarshalIndent` does.
pub(crate) fn pretty(minified: &str) -> String {
    let mut strings = Strings::default();
    let mut out = Vec::with_capacity(minified.len() * 2);
    let mut depth = 0usize;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (place, byte) in minified.bytes().enumerate() {
        let next = minified.as_bytes().get(place + 1);
        match byte {
            _ if strings.take(byte) => out.push(byte),
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                if !matches!(next, Some(b'}' | b']')) {
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).expect("only ASCII was put between whole characters")
}

/// `"text"`, escaped.
pub(crate) fn text(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}

/// A 64-bit number: decimal digits in quotes.
pub(crate) fn number(number: impl fmt::Display) -> String {
    format!("\"{number}\"")
}

/// `"base64"`.
pub(crate) fn base64(bytes: &[u8]) -> String {
    format!("\"{}\"", BASE64.encode(bytes))
}

/// `{"name":value,…}` of values that are JSON already.
pub(crate) fn object<'a>(members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members: Vec<String> = members.into_iter().map(|(name, value)| format!("{}:{value}", text(name))).collect();
    format!("{{{}}}", members.join(","))
}

/// `[value,…]` of values that are JSON already.
pub(crate) fn list(elements: impl IntoIterator<Item = String>) -> String {
    let elements: Vec<String> = elements.into_iter().collect();
    format!("[{}]", elements.join(","))
}

/// `{"type":kind,"value":base64}`: how keys are written.
pub(crate) fn typed(kind: &str, bytes: &[u8]) -> String {
    object([("type", text(kind)), ("value", base64(bytes))])
}

/// The bytes of `{"type":kind,"value":base64}`.
pub(crate) fn read_typed<const N: usize>(field: &Field<'_>, kind: &str) -> Result<zeroize::Zeroizing<[u8; N]>, FieldError> {
    let mut object = field.object()?;
    // The name of a type is no secret, and the likeliest thing to be wrong.
    let mut found = object.require("type", &format!("must be \"{kind}\""))?;
    found.secret = false;
    if found.string()? != kind {
        return Err(found.fail(format!("must be \"{kind}\"")));
    }
    let value = object.require("value", &format!("must be {N} bytes in standard base64"))?.base64()?;
    object.finish()?;
    Ok(value)
}
