//! Text as Go's standard library reads and writes it.
//!
//! Scripts compare output with etcd's, so quoting, durations and sizes follow
//! `strconv`, `time` and the SI rounding that etcd's table uses.

use std::fmt::Write as _;
use std::time::Duration;

/// `strconv.Quote`: a double-quoted string that keeps printable text and escapes the rest.
pub fn quote(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_quoted(&mut out, c);
        }
        for byte in chunk.invalid() {
            push(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String does not fail");
}

fn push_quoted(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if printable(c) => out.push(c),
        c if c < ' ' || c == '\x7f' => push(out, format_args!("\\x{:02x}", c as u32)),
        c if (c as u32) < 0x10000 => push(out, format_args!("\\u{:04x}", c as u32)),
        c => push(out, format_args!("\\U{:08x}", c as u32)),
    }
}

/// Whether Go prints the character as it is. A combining mark is printable, but
/// `escape_debug` escapes it at the start of a string: hence the letter before it.
fn printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let mut probe = String::from("a");
    probe.push(c);
    probe.escape_debug().nth(1) == Some(c)
}

/// `strconv.Unquote` for a double-quoted or back-quoted string; `None` when it is malformed.
pub fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = text.split_first()?;
    let (last, body) = rest.split_last()?;
    match (first, last) {
        (b'`', b'`') if !body.contains(&b'`') => Some(body.iter().copied().filter(|b| *b != b'\r').collect()),
        (b'"', b'"') => unescape(body),
        _ => None,
    }
}

fn unescape(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' | b'\n' => return None,
            b'\\' => {
                let (&kind, tail) = rest.split_first()?;
                rest = tail;
                let digits = match kind {
                    b'x' => 2,
                    b'u' => 4,
                    b'U' => 8,
                    b'0'..=b'7' => {
                        let octal = std::str::from_utf8(tail.get(..2)?).ok()?;
                        let value = u32::from(kind - b'0') * 64 + u32::from_str_radix(octal, 8).ok()?;
                        out.push(u8::try_from(value).ok()?);
                        rest = tail.get(2..)?;
                        continue;
                    }
                    _ => {
                        out.push(simple_escape(kind)?);
                        continue;
                    }
                };
                let hex = tail.get(..digits)?;
                if !hex.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                let value = u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
                rest = tail.get(digits..)?;
                if digits == 2 {
                    out.push(u8::try_from(value).ok()?);
                } else {
                    let mut buffer = [0; 4];
                    out.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut buffer).as_bytes());
                }
            }
            other => out.push(other),
        }
    }
    Some(out)
}

fn simple_escape(kind: u8) -> Option<u8> {
    Some(match kind {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'\\' => b'\\',
        b'"' => b'"',
        _ => return None,
    })
}

/// `Duration.String`: `4.271137ms`, `1.5s`, `1m0s`.
pub fn duration(value: Duration) -> String {
    let nanos = value.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    let (unit, name) = match nanos {
        0..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => {
            let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
            let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
            return match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            };
        }
    };
    decimal(nanos, unit) + name
}

fn decimal(nanos: u128, unit: u128) -> String {
    let whole = nanos / unit;
    let fraction = nanos % unit;
    if fraction == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// `time.ParseDuration`; a negative duration becomes zero, which is over at once all the same.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let invalid = || format!("time: invalid duration {}", quote(text.as_bytes()));
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit =
            rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len() - number);
        let (figure, tail) = rest.split_at(number);
        let (name, tail) = tail.split_at(unit);
        if name.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text.as_bytes())));
        }
        let seconds = match name {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => {
                let (name, text) = (quote(name.as_bytes()), quote(text.as_bytes()));
                return Err(format!("time: unknown unit {name} in duration {text}"));
            }
        };
        total += figure.parse::<f64>().map_err(|_| invalid())? * seconds;
        rest = tail;
    }
    if text.starts_with('-') {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64((total * 1e9).round() / 1e9).map_err(|_| invalid())
}

/// `strconv.ParseInt(text, 0, 64)`, as numeric flags are read.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    signed(text, digits, base)
}

/// `strconv.ParseInt(text, base, 64)`.
pub fn parse_int_base(text: &str, base: u32) -> Result<i64, String> {
    signed(text, text.strip_prefix(['+', '-']).unwrap_or(text), base)
}

/// `strconv.ParseUint(text, base, 64)`.
pub fn parse_uint_base(text: &str, base: u32) -> Result<u64, String> {
    magnitude(text, text, base, u64::MAX, "ParseUint")
}

fn signed(text: &str, digits: &str, base: u32) -> Result<i64, String> {
    let limit = if text.starts_with('-') { i64::MIN.unsigned_abs() } else { i64::MAX.unsigned_abs() };
    let value = magnitude(text, digits, base, limit, "ParseInt")?;
    Ok(if text.starts_with('-') { (value as i64).wrapping_neg() } else { value as i64 })
}

fn magnitude(text: &str, digits: &str, base: u32, limit: u64, function: &str) -> Result<u64, String> {
    let text = quote(text.as_bytes());
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err(format!("strconv.{function}: parsing {text}: invalid syntax"));
    }
    match u64::from_str_radix(digits, base) {
        Ok(value) if value <= limit => Ok(value),
        _ => Err(format!("strconv.{function}: parsing {text}: value out of range")),
    }
}

/// `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text.as_bytes()))),
    }
}

/// `%016x` of a signed number: the sign counts among the sixteen.
pub fn hex16(value: i64) -> String {
    if value < 0 { format!("-{:015x}", value.unsigned_abs()) } else { format!("{value:016x}") }
}

/// A size in SI units with two significant figures below ten: `25 kB`, `2.1 GB`.
pub fn size(bytes: u64) -> String {
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let power = (bytes.ilog10() / 3) as usize;
    let value = (bytes as f64 / 1000f64.powi(power as i32) * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {}", units[power]) } else { format!("{value:.0} {}", units[power]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_like_strconv() {
        assert_eq!(quote(b"foo"), r#""foo""#);
        assert_eq!(
            quote("\u{fffd}é\u{301}\x01x\u{a0}\u{1f600}".as_bytes()),
            "\"\u{fffd}é\u{301}\\x01x\\u00a0\u{1f600}\""
        );
        assert_eq!(quote(b"\xff\"\\\n\x7f"), r#""\xff\"\\\n\x7f""#);
    }

    #[test]
    fn unquotes_like_strconv() {
        assert_eq!(unquote(br#""a\x00\u00e9\n\101""#).unwrap(), b"a\0\xc3\xa9\nA");
        assert_eq!(unquote(b"`a\\n`").unwrap(), b"a\\n");
        for bad in [&b"\"a"[..], br#""\q""#, br#""\x4""#, b"\"a\"b\"", b"\"", b""] {
            assert!(unquote(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn durations() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (4_271_137, "4.271137ms"),
            (1_000_000_000, "1s"),
            (61_500_000_000, "1m1.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
            assert_eq!(parse_duration(text).unwrap(), Duration::from_nanos(nanos));
        }
        assert_eq!(parse_duration("-3s").unwrap(), Duration::ZERO);
        assert_eq!(parse_duration("3").unwrap_err(), "time: missing unit in duration \"3\"");
        assert_eq!(parse_duration("x").unwrap_err(), "time: unknown unit \"x\" in duration \"x\"");
    }

    #[test]
    fn numbers_and_sizes() {
        assert_eq!(parse_int("0x10").unwrap(), 16);
        assert_eq!(parse_int("-5").unwrap(), -5);
        assert_eq!(parse_int_base("-8000000000000000", 16).unwrap(), i64::MIN);
        assert_eq!(parse_int("zz").unwrap_err(), "strconv.ParseInt: parsing \"zz\": invalid syntax");
        let over = parse_int("9223372036854775808").unwrap_err();
        assert_eq!(over, "strconv.ParseInt: parsing \"9223372036854775808\": value out of range");
        for (bytes, text) in
            [(0, "0 B"), (12, "12 B"), (20480, "20 kB"), (2_147_483_648, "2.1 GB"), (999_999, "1000 kB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
