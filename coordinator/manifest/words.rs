//! The small words of a manifest: the nearest right one, ids, durations, sizes.

use std::time::Duration;

/// The word of `known` that `typed` was probably meant to be.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |word: &str| strsim::damerau_levenshtein(typed, word);
    let best = known.into_iter().min_by_key(|word| score(word))?;
    (score(best) <= (typed.chars().count() / 3).max(1) + 1).then_some(best)
}

/// ` (did you mean "needs"?)`, or nothing.
pub(super) fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, known).map_or(String::new(), |word| format!("; did you mean `{word}`?"))
}

/// Whether a node may have this id.
pub(crate) fn check_id(id: &str) -> Result<(), &'static str> {
    if id.is_empty() || id.len() > 1024 || id.chars().any(char::is_control) {
        return Err("an id is 1 to 1024 bytes of text without control characters");
    }
    Ok(())
}

/// Longer ones would be mistakes, and do not fit the clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86400);

/// Reads `250ms`, `30s`, `1m30s`, `2h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration like 250ms, 30s or 1m30s");
    let too_long = || format!("`{text}` is longer than 10 years");
    let (mut total, mut rest) = (Duration::ZERO, text.trim());
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let unit = match &after[..letters] {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        total +=
            Duration::try_from_secs_f64(number * unit).ok().filter(|d| *d <= LONGEST).ok_or_else(too_long)?;
        rest = after[letters..].trim_start();
    }
    if total > LONGEST { Err(too_long()) } else { Ok(total) }
}

/// Reads `10/s`, `100/m`, `1000/h`, or a plain number for each second.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is not a rate like 10/s, 100/m or 0.5");
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(wrong()),
    };
    let rate = number / seconds;
    if (1e-7..=1e9).contains(&rate) { Ok(rate) } else { Err(wrong()) }
}

/// Reads `512MB` (powers of ten), `4GiB` (powers of two), or a plain number of bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size like 512MB, 4GiB or 1000000");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let number: f64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let unit = match trimmed[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = number * unit as f64;
    if bytes <= (1u64 << 53) as f64 {
        Ok(bytes as u64)
    } else {
        Err(format!("`{text}` is more than any machine has"))
    }
}

/// A size as a manifest says it: text with a unit, or a number of bytes.
pub(super) fn size(value: &serde_json::Value) -> Result<u64, String> {
    match value {
        serde_json::Value::String(text) => parse_size(text),
        number => number.as_u64().ok_or_else(|| format!("`{number}` is not a size like \"512MB\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("512MB", 512_000_000), ("4GiB", 4 << 30), ("1.5 kib", 1536), ("7", 7), ("0", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "MB", "4 bananas", "-1", "1e9", "99999999TB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!((parse_rate("10/s"), parse_rate("90/m"), parse_rate("0.5")), (Ok(10.0), Ok(1.5), Ok(0.5)));
        for wrong in ["", "0", "-1", "1/fortnight", "x/s", "inf"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "5", "s", "5 parsecs", "-1s", "1e99s", "9223372036854775000s", "4000d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["needs", "timeout", "retry"];
        assert_eq!(nearest("need", known), Some("needs"));
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("colour", known), None);
    }
}
