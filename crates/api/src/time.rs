//! Points in time as people and scripts read them.

use core::fmt;

use ids::UnixMs;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time, written as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub UnixMs);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(milliseconds) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{milliseconds} ms after 1970"),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        let milliseconds = u64::try_from(time.as_millisecond()).map_err(|_| de::Error::custom("time before 1970"))?;
        Ok(Self(UnixMs(milliseconds)))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let description = "A point in time, RFC 3339. Answers are in UTC, with milliseconds.";
        schemars::json_schema!({ "type": "string", "format": "date-time", "description": description })
    }
}

impl From<UnixMs> for Timestamp {
    fn from(time: UnixMs) -> Self {
        Self(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let time = Timestamp(UnixMs(1_700_000_000_120));
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.120Z");
        let json = serde_json::to_string(&time).expect("a timestamp is a JSON string");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).expect("and reads back"), time);
    }
}
