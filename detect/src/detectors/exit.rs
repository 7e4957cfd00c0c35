//! How a process ended, read leniently from the detail of a `process_exit` event.

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With code 0, or nothing told.
    Clean,
    /// With another code, by itself.
    Failed,
    /// By a signal of this number.
    Signal(u8),
}

/// Names launchers write; a number is taken as it is.
const SIGNALS: [(&str, u8); 14] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("TERM", 15),
];
/// Shells report a signal as this plus its number.
const SHELL_OFFSET: i64 = 128;
/// Signals of Linux, the real-time ones left out: a code of 255 is -1, not a signal.
const SIGNAL_MAX: i64 = 31;

/// Reads `{"code": 137, "signal": "SIGKILL"}`, in any order and quoting; what cannot be read is a clean exit.
pub(crate) fn exit_of(detail: Option<&str>) -> Exit {
    let detail = detail.unwrap_or("");
    if let Some(signal) = field(detail, "signal").and_then(signal_number) {
        return Exit::Signal(signal);
    }
    let code = ["code", "exit_code", "exitcode"].into_iter().find_map(|name| field(detail, name)?.parse::<i64>().ok());
    let as_signal = |number: i64| u8::try_from(number).ok().filter(|_| (1..=SIGNAL_MAX).contains(&number));
    match code {
        None | Some(0) => Exit::Clean,
        Some(code) => as_signal(code.saturating_neg())
            .or_else(|| as_signal(code.saturating_sub(SHELL_OFFSET)))
            .map_or(Exit::Failed, Exit::Signal),
    }
}

fn signal_number(text: &str) -> Option<u8> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let number =
        name.parse::<u8>().ok().or_else(|| SIGNALS.iter().find(|(known, _)| *known == name).map(|known| known.1));
    number.filter(|number| *number > 0)
}

/// The value after a name, without quotes; the name must stand by itself.
pub(crate) fn field<'a>(detail: &'a str, name: &str) -> Option<&'a str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let found = detail.match_indices(name).find(|(at, _)| {
        let before = detail[..*at].chars().next_back();
        let after = detail[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    });
    let rest = &detail[found?.0 + name.len()..];
    let rest = rest.trim_start_matches(['"', '\'']).trim_start().strip_prefix([':', '='])?;
    let value = rest.split([',', '}', ' ', '\n']).find(|part| !part.trim().is_empty())?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty() && value != "null").then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_from_its_name_its_number_and_both_kinds_of_code() {
        for detail in [
            r#"{"code": null, "signal": 9}"#,
            r#"{"signal":"SIGKILL","code":-9}"#,
            r#"{"code": 137}"#,
            r#"{"exit_code":-9}"#,
            "signal=kill",
        ] {
            assert_eq!(exit_of(Some(detail)), Exit::Signal(9), "{detail}");
        }
    }

    #[test]
    fn other_codes_are_failures_and_what_cannot_be_read_is_clean() {
        assert_eq!(exit_of(Some(r#"{"code": 1, "signal": null}"#)), Exit::Failed);
        assert_eq!(exit_of(Some(r#"{"code": 255}"#)), Exit::Failed);
        for detail in [r#"{"code": 0}"#, r#"{"code": 0, "signal": 0}"#, "", "{", r#"{"signal"#, r#"{"code":"x"}"#] {
            assert_eq!(exit_of(Some(detail)), Exit::Clean, "{detail}");
        }
        assert_eq!(exit_of(None), Exit::Clean);
    }
}
