//! The small words of a manifest: the nearest right one, durations.

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

#[cfg(test)]
mod tests {
    use super::*;

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
