//! Wall time as blocks and votes carry it, and durations as the protocol counts them.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::proto::Message;

/// Seconds of 0001-01-01T00:00:00Z, the zero time of an absent signature.
const ZERO_SECONDS: i64 = -62_135_596_800;
/// Seconds of 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST_SECONDS: i64 = 253_402_300_799;
const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// A moment, to the nanosecond, between the years 1 and 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    seconds: i64,
    nanos: u32,
}

impl Time {
    /// 0001-01-01T00:00:00Z: the time of an absent signature.
    pub const ZERO: Self = Self { seconds: ZERO_SECONDS, nanos: 0 };
    /// The last moment that can be written.
    pub const MAX: Self = Self { seconds: LAST_SECONDS, nanos: 999_999_999 };

    /// From seconds since 1970 and nanoseconds; none outside the years 1 to 9999 or with a whole second of nanoseconds.
    pub const fn new(seconds: i64, nanos: u32) -> Option<Self> {
        if seconds < ZERO_SECONDS || seconds > LAST_SECONDS || nanos > 999_999_999 { None } else { Some(Self { seconds, nanos }) }
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    pub const fn nanos(self) -> u32 {
        self.nanos
    }

    /// Nanoseconds since 1970.
    pub const fn unix_nanos(self) -> i128 {
        self.seconds as i128 * NANOS_PER_SECOND + self.nanos as i128
    }

    /// From nanoseconds since 1970, capped at the years 1 and 9999.
    pub fn from_unix_nanos(nanos: i128) -> Self {
        let seconds = nanos.div_euclid(NANOS_PER_SECOND);
        let rest = nanos.rem_euclid(NANOS_PER_SECOND);
        match (i64::try_from(seconds), u32::try_from(rest)) {
            (Ok(seconds), Ok(rest)) if seconds < ZERO_SECONDS => {
                let _ = rest;
                Self::ZERO
            }
            (Ok(seconds), Ok(rest)) => Self::new(seconds, rest).unwrap_or(Self::MAX),
            _ if nanos < 0 => Self::ZERO,
            _ => Self::MAX,
        }
    }

    /// This moment and a duration later, capped at the year 9999.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self::from_unix_nanos(self.unix_nanos().saturating_add(i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)))
    }

    /// This moment and a duration earlier, capped at the year 1.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self::from_unix_nanos(self.unix_nanos().saturating_sub(i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)))
    }

    /// How long after `earlier` this moment is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = self.unix_nanos() - earlier.unix_nanos();
        if nanos <= 0 {
            return Duration::ZERO;
        }
        let seconds = u64::try_from(nanos / NANOS_PER_SECOND).expect("the years 1 to 9999 fit");
        let rest = u32::try_from(nanos % NANOS_PER_SECOND).expect("below a second");
        Duration::new(seconds, rest)
    }

    /// `Timestamp = int(1, seconds) + int(2, nanos)`.
    pub fn to_proto(self) -> Message {
        Message::new().int(1, self.seconds).int(2, i64::from(self.nanos))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(self.unix_nanos()).map_err(|_| fmt::Error)?;
        // The library writes up to nine digits and cuts trailing zeros, which is what RFC 3339 readers of Go expect.
        f.write_str(&moment.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The library cuts digits past the ninth; two texts would then be one time.
        let digits = text.split_once('.').map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
        // It also reads a leap second, as the last nanosecond before it.
        let leap = text.get(17..19) == Some("60");
        // And a blank for the T, and small letters. Go reads none of these.
        let letters = text.as_bytes().get(10) == Some(&b'T') && !text.ends_with('z');
        let moment = OffsetDateTime::parse(text, &Rfc3339)
            .ok()
            .filter(|_| digits <= 9 && !leap && letters)
            .ok_or_else(|| format!("{text:?} is not a time like 2026-01-02T03:04:05.123456789Z"))?;
        Self::new(moment.unix_timestamp(), moment.nanosecond()).ok_or_else(|| format!("{text:?} is not within the years 1 to 9999"))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str> as Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl BorshSerialize for Time {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        BorshSerialize::serialize(&self.seconds, writer)?;
        BorshSerialize::serialize(&self.nanos, writer)
    }
}

impl BorshDeserialize for Time {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let seconds = i64::deserialize_reader(reader)?;
        let nanos = u32::deserialize_reader(reader)?;
        Self::new(seconds, nanos).ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "a time outside the years 1 to 9999"))
    }
}
