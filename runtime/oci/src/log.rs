//! Messages to the caller: standard error, or the file of `--log` in the form engines parse.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use berth_oci::spec::Ignored;

use crate::cli::{Global, LogFormat};

/// Where messages go.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    /// Opens what the command line asks for.
    pub fn open(global: &Global) -> io::Result<Log> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        Ok(Log {
            file: global.log.as_ref().map(open).transpose()?,
            format: global.log_format,
            debug: global.debug,
        })
    }

    /// Why the command failed. Standard error gets it too, for engines show that.
    pub fn error(&self, message: &str) {
        if self.file.is_some() {
            eprintln!("berth-oci: {message}");
        }
        self.line("error", message);
    }

    /// Something that the user should know.
    pub fn warn(&self, message: &str) {
        self.line("warning", message);
    }

    /// What `file` asked for and was ignored or read otherwise; capabilities in runc's words.
    pub fn warn_of_ignored(&self, file: &str, ignored: &Ignored) {
        if !ignored.capabilities.is_empty() {
            let names = ignored.capabilities.join(" ");
            self.warn(&format!("ignoring unknown capabilities: [{names}]"));
        }
        for (what, all) in [
            ("unknown fields", &ignored.fields),
            ("no effect on a bind mount", &ignored.options),
            ("relative paths, taken from `/`", &ignored.relative),
        ] {
            if !all.is_empty() {
                self.warn(&format!("{file}: {what}: {}", all.join(", ")));
            }
        }
    }

    /// What the verb does, with `--debug`.
    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            self.line("debug", &message());
        }
    }

    /// One line to the file; without one to standard error, in words where no format is asked for.
    fn line(&self, level: &str, message: &str) {
        let time = now();
        let line = match (self.format, &self.file) {
            (LogFormat::Json, _) => {
                serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
            }
            (LogFormat::Text, Some(_)) => {
                format!("time=\"{time}\" level={level} msg={message:?}")
            }
            (LogFormat::Text, None) if level == "error" => format!("berth-oci: {message}"),
            (LogFormat::Text, None) => format!("berth-oci: {level}: {message}"),
        };
        // A log that cannot be written must not fail the container.
        let _ = match &self.file {
            Some(file) => writeln!(&*file, "{line}"),
            None => writeln!(io::stderr(), "{line}"),
        };
    }
}

/// The time now, RFC 3339 in UTC.
pub fn now() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    rfc3339(now.tv_sec, now.tv_nsec)
}

/// Seconds since 1970 as a date of the Gregorian calendar (days-from-civil, reversed).
fn rfc3339(seconds: i64, nanoseconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468; // from 0000-03-01 on, so that leap days end a year
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn dates_around_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000000Z"),
            (4_102_444_800, "2100-01-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(seconds, 0), text);
        }
    }
}
