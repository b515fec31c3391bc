//! Numbers as people read them.

use std::time::Duration;

/// `1.5 GiB`, `250.0 MiB`, `12 B`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `850 ms`, `12.3 s`, `4 m 05 s`, `2 h 03 m`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} m {:02} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {:02} m", s as u64 / 3600, s as u64 / 60 % 60),
    }
}

/// `1 node`, `2 nodes`.
pub(crate) fn plural(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {noun}{s}", count(number as u64))
}

/// A whole number in a JSON text that no 64 bits hold.
pub(crate) fn long_integer(json: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let (mut rest, mut in_text) = (json, false);
    while let Some(at) =
        rest.find(|c: char| c == '"' || c == '\\' && in_text || !in_text && (c == '-' || c.is_ascii_digit()))
    {
        let found = &rest[at..];
        match found.as_bytes()[0] {
            b'"' => {
                in_text = !in_text;
                rest = &found[1..];
            }
            b'\\' => rest = found.get(2..).unwrap_or_default(),
            _ => {
                let number = &found[..found.find(|c| !is_part(c)).unwrap_or(found.len())];
                let is_whole = !number.contains(['.', 'e', 'E']);
                if is_whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                rest = &found[number.len()..];
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!((bytes(12), bytes(262_144_000)), ("12 B".into(), "250.0 MiB".into()));
        assert_eq!((count(63_436), count(999)), ("63,436".into(), "999".into()));
        let texts = [850, 12_300, 245_000, 7_380_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(texts, ["850 ms", "12.3 s", "4 m 05 s", "2 h 03 m"]);
        assert_eq!((plural(1, "node"), plural(2, "node")), ("1 node".into(), "2 nodes".into()));
    }
}
