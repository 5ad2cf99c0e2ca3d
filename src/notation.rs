//! Sizes, times and parts as people write them, in the configuration and in queries: `64MiB`, `1500ms`, `0.01`.

use std::time::Duration;

const SIZE_UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
/// The units of times, from the largest.
pub const TIME_UNITS_MS: [(u64, &str); 5] =
    [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];

/// Digits and what follows them.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// A size: a number of bytes, or one of KiB, MiB or GiB.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let unit_bytes = match unit {
        "" | "B" => 1,
        unit => SIZE_UNITS.iter().find(|(_, name)| *name == unit)?.0,
    };
    number.checked_mul(unit_bytes)
}

/// A time: a number with a unit, which is `ms`, `s`, `m`, `h` or `d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let (unit_ms, _) = TIME_UNITS_MS.iter().find(|(_, name)| *name == unit)?;
    number.checked_mul(*unit_ms).map(Duration::from_millis)
}

/// A part of a whole, from 0 to 1, in millionths.
pub fn parse_millionths(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let part: f64 = text.parse().ok().filter(|_| plain)?;
    // The cast is exact: the range was checked.
    (0.0..=1.0).contains(&part).then(|| (part * 1e6).round() as u32)
}

/// The same as a decimal fraction.
pub fn show_millionths(millionths: u32) -> String {
    (f64::from(millionths) / 1e6).to_string()
}

/// A size in its largest exact unit.
pub fn show_bytes(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// A time in its largest exact unit; a minute reads best as 60 seconds.
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = |unit_ms: u64| ms >= unit_ms && ms.is_multiple_of(unit_ms) && (unit_ms <= 1_000 || ms > 60_000);
    match TIME_UNITS_MS.iter().find(|(unit_ms, _)| fits(*unit_ms)) {
        Some((unit_ms, name)) => format!("{}{name}", ms / unit_ms),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_and_sizes_are_digits_and_a_unit() {
        assert_eq!(parse_duration("1500ms"), Some(Duration::from_millis(1_500)));
        assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
        assert_eq!(show_duration(Duration::from_secs(60)), "60s");
        for bad in [
            "",
            "60",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            "1_000ms",
            "60S",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
        for bad in ["", "KiB", "-1", "1kb", "1 KiB", "99999999999999999999"] {
            assert_eq!(parse_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn parts_are_decimal_fractions() {
        for (text, millionths) in [("0", 0), ("0.01", 10_000), ("1", 1_000_000), ("1.0", 1_000_000), (".5", 500_000)] {
            assert_eq!(parse_millionths(text), Some(millionths), "{text}");
        }
        for bad in ["", ".", "-0.1", "1.1", "1e-3", "1%", "nan", "0,5"] {
            assert_eq!(parse_millionths(bad), None, "{bad:?}");
        }
        assert_eq!(show_millionths(10_000), "0.01");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(number: u32) {
            let duration = Duration::from_millis(number.into());
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
            prop_assert_eq!(parse_bytes(&show_bytes(number.into())), Some(u64::from(number)));
        }
    }
}
