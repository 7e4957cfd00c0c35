//! Times as people write them: seconds since the start, epoch numbers, and civil time in UTC.

use std::str::FromStr;

use super::ImportError;

const NANOSECONDS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// Digits behind the point that still make a nanosecond.
const FRACTION_DIGITS: usize = 9;

/// Unit of a time column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

impl TimeUnit {
    fn nanoseconds(self) -> i128 {
        match self {
            Self::Seconds => NANOSECONDS_PER_SECOND,
            Self::Milliseconds => 1_000_000,
            Self::Microseconds => 1_000,
            Self::Nanoseconds => 1,
        }
    }

    /// The unit a number most likely has: numbers this large are epoch times of our age in one unit only.
    fn of_magnitude(number: f64) -> Self {
        match number.abs() {
            size if size >= 1e17 => Self::Nanoseconds,
            size if size >= 1e14 => Self::Microseconds,
            size if size >= 1e11 => Self::Milliseconds,
            _ => Self::Seconds,
        }
    }
}

impl FromStr for TimeUnit {
    type Err = ImportError;

    fn from_str(name: &str) -> Result<Self, ImportError> {
        match name {
            "s" => Ok(Self::Seconds),
            "ms" => Ok(Self::Milliseconds),
            "us" => Ok(Self::Microseconds),
            "ns" => Ok(Self::Nanoseconds),
            _ => Err(ImportError::UnknownTimeUnit { name: name.to_owned() }),
        }
    }
}

/// Nanoseconds since the epoch of a time in any form.
///
/// * `text`: a number, or civil time such as `2014-02-14 14:30:00`, `2014-02-14T14:30:00.25Z` or `…+02:00`; civil time
///   without a zone is UTC.
/// * `unit`: of a number; without it numbers from 1e17 are nanoseconds, from 1e14 microseconds, from 1e11
///   milliseconds, and smaller ones seconds.
/// * Returns `None` for what is no time, or no time between the years 1677 and 2262.
pub(super) fn nanoseconds(text: &str, unit: Option<TimeUnit>) -> Option<i64> {
    match text.parse::<f64>() {
        Ok(number) => scaled(text, number, unit.unwrap_or_else(|| TimeUnit::of_magnitude(number))),
        Err(_) => civil_nanoseconds(text),
    }
}

/// Exact for plain decimals: a float of seconds since 1970 would be off by 200 ns.
fn scaled(text: &str, number: f64, unit: TimeUnit) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !is_plain || whole.len() > 20 {
        let nanoseconds = number * unit.nanoseconds() as f64;
        // The bound is 2^63: what is below converts without saturation. A NaN compares false.
        return (nanoseconds.abs() < 9.2e18).then_some(nanoseconds.round() as i64);
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let billionths = whole * NANOSECONDS_PER_SECOND + fraction_billionths(fraction)?;
    let nanoseconds = (billionths * unit.nanoseconds() + NANOSECONDS_PER_SECOND / 2) / NANOSECONDS_PER_SECOND;
    i64::try_from(sign * nanoseconds).ok()
}

fn fraction_billionths(digits: &str) -> Option<i128> {
    let kept = digits.get(..FRACTION_DIGITS.min(digits.len()))?;
    if !kept.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{kept:0<FRACTION_DIGITS$}").parse().ok()
}

fn civil_nanoseconds(text: &str) -> Option<i64> {
    let (clock, offset_seconds) = split_zone(text);
    let offset_seconds = offset_seconds?;
    let (date, time) = match clock.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, time.trim()),
        None => (clock, "00:00:00"),
    };
    let mut parts = date.splitn(3, '-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if date.len() != 10 || !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = time.splitn(3, ':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    // A leap second is written as :60 and falls on the second that follows it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let seconds = days * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second - offset_seconds;
    i64::try_from(i128::from(seconds) * NANOSECONDS_PER_SECOND + fraction_billionths(fraction)?).ok()
}

/// The text before the zone, and the zone's offset in seconds east of UTC (`None` when it is malformed).
fn split_zone(text: &str) -> (&str, Option<i64>) {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return (clock.trim_end(), Some(0));
    }
    let clock = text.strip_suffix("UTC").unwrap_or(text).trim_end();
    // A sign before the tenth character belongs to the date.
    let Some(at) = clock.rfind(['+', '-']).filter(|&at| at > 10) else {
        return (clock, Some(0));
    };
    let (clock, zone) = clock.split_at(at);
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let zone: String = zone.chars().skip(1).filter(|&letter| letter != ':').collect();
    let offset =
        digits(&zone).filter(|_| zone.len() == 4).map(|number| sign * (number / 100 * 3_600 + number % 100 * 60));
    (clock.trim_end(), offset)
}

fn digits(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_time_without_a_zone_is_utc() {
        let expected = Some(1_392_388_200_000_000_000);
        for text in ["2014-02-14 14:30:00", "2014-02-14T14:30:00Z", "2014-02-14 14:30", "2014-02-14T16:30:00+02:00"] {
            assert_eq!(nanoseconds(text, None), expected, "{text}");
        }
        assert_eq!(nanoseconds("1970-01-01T00:00:00.25Z", None), Some(250_000_000));
        assert_eq!(nanoseconds("1969-12-31 23:59:59", None), Some(-1_000_000_000));
        assert_eq!(nanoseconds("2000-02-29", None), Some(951_782_400_000_000_000));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "-",
            "2014-02-30 00:00:00",
            "2014-13-01",
            "14:30",
            "nan",
            "inf",
            "2014-02-14 25:00:00",
            "é",
            "99999-01-01",
        ] {
            assert_eq!(nanoseconds(text, None), None, "{text}");
        }
    }

    #[test]
    fn epoch_numbers_are_exact_and_their_unit_follows_from_their_size() {
        assert_eq!(nanoseconds("1392388200.123456789", None), Some(1_392_388_200_123_456_789));
        assert_eq!(nanoseconds("1392388200123", None), Some(1_392_388_200_123_000_000));
        assert_eq!(nanoseconds("1392388200123456789", None), Some(1_392_388_200_123_456_789));
        assert_eq!(nanoseconds("1.5", Some(TimeUnit::Milliseconds)), Some(1_500_000));
        assert_eq!(nanoseconds("1e3", None), Some(1_000_000_000_000));
        assert_eq!(nanoseconds("-0.5", None), Some(-500_000_000));
    }
}
