//! The types a flag can have, read as Go's `flag` package reads them.
//!
//! A refusal is the text Go puts after `invalid value "x" for flag -f: `.

use std::time::Duration;

use serde_norway::Value as Yaml;

/// What a flag's type has to know.
pub trait Value: Sized {
    /// `--flag` alone means `--flag=true`.
    const BOOLEAN: bool = false;

    /// Reads the text given on the command line or in the environment.
    fn parse(text: &str) -> Result<Self, String>;

    /// Takes another setting of the same flag: as a rule the last one wins.
    fn merge(&mut self, text: &str) -> Result<(), String> {
        *self = Self::parse(text)?;
        Ok(())
    }

    /// Reads the value of a key in the configuration file.
    fn from_yaml(value: &Yaml) -> Result<Self, String> {
        match value {
            Yaml::Null => Self::parse(""),
            Yaml::String(text) => Self::parse(text),
            other => Err(format!("cannot unmarshal {} into a string", kind(other))),
        }
    }
}

/// What a YAML value is, for a refusal.
pub fn kind(value: &Yaml) -> &'static str {
    match value {
        Yaml::Null => "null",
        Yaml::Bool(_) => "bool",
        Yaml::Number(_) => "number",
        Yaml::String(_) => "string",
        Yaml::Sequence(_) => "array",
        Yaml::Mapping(_) | Yaml::Tagged(_) => "object",
    }
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }
}

impl Value for bool {
    const BOOLEAN: bool = true;

    fn parse(text: &str) -> Result<bool, String> {
        parse_bool(text).ok_or_else(|| "parse error".to_owned())
    }

    fn from_yaml(value: &Yaml) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| format!("cannot unmarshal {} into a bool", kind(value)))
    }
}

/// Go's integer literals with base 0: a sign, a base prefix, underscores between digits.
fn parse_integer(text: &str) -> Result<i128, String> {
    let parse_error = || "parse error".to_owned();
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    let prefixed = radix != 10;
    if digits.is_empty()
        || digits.ends_with('_')
        || digits.contains("__")
        || (!prefixed && digits.starts_with('_'))
    {
        return Err(parse_error());
    }
    let digits = digits.replace('_', "");
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(parse_error());
    }
    let value = i128::from_str_radix(&digits, radix).map_err(|_| "value out of range".to_owned())?;
    Ok(if negative { -value } else { value })
}

macro_rules! integer {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            fn parse(text: &str) -> Result<$kind, String> {
                if <$kind>::MIN == 0 && text.starts_with(['-', '+']) {
                    return Err("parse error".to_owned());
                }
                <$kind>::try_from(parse_integer(text)?).map_err(|_| "value out of range".to_owned())
            }

            fn from_yaml(value: &Yaml) -> Result<$kind, String> {
                value
                    .as_i64()
                    .map(i128::from)
                    .or_else(|| value.as_u64().map(i128::from))
                    .and_then(|number| <$kind>::try_from(number).ok())
                    .ok_or_else(|| format!("cannot unmarshal {} into an integer", kind(value)))
            }
        }
    )*};
}
integer!(u64, i64);

/// etcd reads the one flag of this width by `strconv` itself, whose refusals are longer.
impl Value for u32 {
    fn parse(text: &str) -> Result<u32, String> {
        u64::parse(text)
            .and_then(|number| u32::try_from(number).map_err(|_| "value out of range".to_owned()))
            .map_err(|reason| {
                let reason = if reason == "parse error" { "invalid syntax" } else { &reason };
                format!("strconv.ParseUint: parsing {text:?}: {reason}")
            })
    }

    fn from_yaml(value: &Yaml) -> Result<u32, String> {
        u32::try_from(u64::from_yaml(value)?).map_err(|_| "number out of range".to_owned())
    }
}

/// A duration as Go writes it: `300ms`, `1h30m`, `-1.5s`, `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(i64);

impl GoDuration {
    /// The length in nanoseconds; may be negative.
    pub fn nanoseconds(self) -> i64 {
        self.0
    }

    /// The length, nothing below zero.
    pub fn get(self) -> Duration {
        Duration::from_nanos(self.0.max(0).unsigned_abs())
    }

    /// Go's `time.ParseDuration`; `None` when it is not one.
    pub fn read(text: &str) -> Option<GoDuration> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(GoDuration(0));
        }
        let mut total: f64 = 0.0;
        let mut exact: i128 = 0;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(number_end);
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let scale: i128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return None,
            };
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
                return None;
            }
            if !whole.is_empty() {
                exact += whole.parse::<i128>().ok()?.checked_mul(scale)?;
            }
            if !fraction.is_empty() {
                total += format!("0.{fraction}").parse::<f64>().ok()? * scale as f64;
            }
            rest = tail;
        }
        let nanoseconds = exact + total as i128;
        i64::try_from(if negative { -nanoseconds } else { nanoseconds }).ok().map(GoDuration)
    }
}

impl std::fmt::Display for GoDuration {
    /// Go's `Duration.String`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let nanoseconds = self.0.unsigned_abs();
        let trimmed = |value: f64| {
            let text = format!("{value:.9}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        match nanoseconds {
            0..1_000 => write!(f, "{nanoseconds}ns"),
            1_000..1_000_000 => write!(f, "{}µs", trimmed(nanoseconds as f64 / 1e3)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", trimmed(nanoseconds as f64 / 1e6)),
            _ => {
                let seconds = nanoseconds / 1_000_000_000;
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                write!(f, "{}s", trimmed((nanoseconds % 60_000_000_000) as f64 / 1e9))
            }
        }
    }
}

impl Value for GoDuration {
    fn parse(text: &str) -> Result<GoDuration, String> {
        GoDuration::read(text).ok_or_else(|| "parse error".to_owned())
    }

    /// In the file a duration is a number of nanoseconds: Go cannot read anything else there.
    fn from_yaml(value: &Yaml) -> Result<GoDuration, String> {
        i64::from_yaml(value).map(GoDuration)
    }
}

/// A comma-separated list, kept in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings(pub Vec<String>);

impl Value for Strings {
    fn parse(text: &str) -> Result<Strings, String> {
        if text.is_empty() {
            return Ok(Strings::default());
        }
        let mut items = Vec::new();
        for item in text.split(',') {
            if !items.iter().any(|known| known == item) {
                items.push(item.to_owned());
            }
        }
        Ok(Strings(items))
    }

    fn from_yaml(value: &Yaml) -> Result<Strings, String> {
        match value {
            Yaml::Sequence(items) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .map(Strings)
                .ok_or_else(|| "cannot unmarshal into a list of strings".to_owned()),
            Yaml::Null => Ok(Strings::default()),
            Yaml::String(text) => Strings::parse(text),
            other => Err(format!("cannot unmarshal {} into a list of strings", kind(other))),
        }
    }
}

/// A type with a few named values.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $refusal:expr, { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl Value for $name {
            fn parse(text: &str) -> Result<$name, String> {
                match text {
                    $($text => Ok($name::$variant),)*
                    _ => Err($refusal(text)),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$variant => $text,)* })
            }
        }
    };
}

fn plainly(_text: &str) -> String {
    "invalid value".to_owned()
}

choice! {
    /// Whether the initial cluster is founded or joined.
    ClusterState, plainly, {
        /// Found it.
        New = "new",
        /// Join it.
        Existing = "existing",
    }
}

choice! {
    /// What to do when discovery fails.
    DiscoveryFallback, plainly, {
        /// Stop.
        Exit = "exit",
        /// The v2 proxy, which is gone.
        Proxy = "proxy",
    }
}

choice! {
    /// Phase of the v2 store's removal; only checked.
    V2Deprecation, |text| format!("invalid value {text:?}"), {
        /// Write, do not read.
        WriteOnly = "write-only",
        /// As before, and drop what is there.
        WriteOnlyDropData = "write-only-drop-data",
        /// Nothing left.
        Gone = "gone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_as_go_reads_them() {
        assert_eq!(u64::parse("100"), Ok(100));
        assert_eq!(u64::parse("0x10"), Ok(16));
        assert_eq!(u64::parse("1_000"), Ok(1000));
        assert_eq!(u64::parse("017"), Ok(15));
        assert_eq!(i64::parse("-5"), Ok(-5));
        assert_eq!(u64::parse("-5"), Err("parse error".into()));
        assert_eq!(u64::parse(""), Err("parse error".into()));
        assert_eq!(u64::parse("1.5"), Err("parse error".into()));
        assert_eq!(u64::parse("99999999999999999999"), Err("value out of range".into()));
        assert_eq!(u32::parse("4294967295"), Ok(u32::MAX));
        assert_eq!(
            u32::parse("4294967296"),
            Err("strconv.ParseUint: parsing \"4294967296\": value out of range".into())
        );
    }

    #[test]
    fn durations_as_go_reads_and_writes_them() {
        for (text, nanoseconds, written) in [
            ("0", 0, "0s"),
            ("5s", 5_000_000_000, "5s"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("-300ms", -300_000_000, "-300ms"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("10m", 600_000_000_000, "10m0s"),
            ("1500us", 1_500_000, "1.5ms"),
        ] {
            let duration = GoDuration::read(text).expect(text);
            assert_eq!(duration.nanoseconds(), nanoseconds, "{text}");
            assert_eq!(duration.to_string(), written, "{text}");
        }
        for text in ["", "5", "s", "1x", "1h30", ".s", "1..5s", "-"] {
            assert_eq!(GoDuration::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn file_durations_are_nanoseconds() {
        assert_eq!(
            GoDuration::from_yaml(&serde_norway::from_str("600000000000").unwrap()).unwrap().to_string(),
            "10m0s"
        );
        assert!(GoDuration::from_yaml(&serde_norway::from_str("10m").unwrap()).is_err());
    }
}
