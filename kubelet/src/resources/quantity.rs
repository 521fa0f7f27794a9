//! Resource quantities (`100m`, `1.5Gi`, `2e3`) as integers.
//!
//! Grammar: Kubernetes API conventions, `resource.Quantity`. Values round up, as there.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The quantity in whole units (bytes, devices, pods), rounded up.
#[must_use]
pub fn value(text: &str) -> Option<i64> {
    scaled(text, 0)
}

/// The quantity in thousandths (millicores), rounded up.
#[must_use]
pub fn milli(text: &str) -> Option<i64> {
    scaled(text, 3)
}

/// `name`'s amount in a resource list, in whole units; 0 when absent or malformed.
#[must_use]
pub fn value_of(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> i64 {
    list.and_then(|l| l.get(name))
        .and_then(|q| value(&q.0))
        .unwrap_or(0)
}

/// `name`'s amount in a resource list, in thousandths; 0 when absent or malformed.
#[must_use]
pub fn milli_of(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> i64 {
    list.and_then(|l| l.get(name))
        .and_then(|q| milli(&q.0))
        .unwrap_or(0)
}

/// `amount` with the largest binary suffix that leaves it whole, as quantities in binary
/// format are written: `104857600` is `100Mi`.
#[must_use]
pub fn binary(amount: u64) -> String {
    let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut amount, mut power) = (amount, 0);
    while amount > 0 && amount.is_multiple_of(1024) {
        amount /= 1024;
        power += 1;
    }
    format!("{amount}{}", suffixes[power])
}

/// Parses `text` and multiplies by ten to the power of `digits`, rounding up.
fn scaled(text: &str, digits: u32) -> Option<i64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (sign, number) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let mut exponent = i32::try_from(digits).ok()? - i32::try_from(fraction.len()).ok()?;
    match suffix_of(suffix)? {
        Suffix::Binary(bits) => mantissa = mantissa.checked_mul(1_i128 << bits)?,
        Suffix::Decimal(power) => exponent += power,
    }
    let result = if exponent >= 0 {
        mantissa.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)?
    } else {
        let divisor = 10_i128.checked_pow(exponent.unsigned_abs())?;
        (mantissa + divisor - 1) / divisor
    };
    i64::try_from(result * sign).ok()
}

enum Suffix {
    Binary(u32),
    Decimal(i32),
}

fn suffix_of(text: &str) -> Option<Suffix> {
    Some(match text {
        "" => Suffix::Decimal(0),
        "n" => Suffix::Decimal(-9),
        "u" => Suffix::Decimal(-6),
        "m" => Suffix::Decimal(-3),
        "k" => Suffix::Decimal(3),
        "M" => Suffix::Decimal(6),
        "G" => Suffix::Decimal(9),
        "T" => Suffix::Decimal(12),
        "P" => Suffix::Decimal(15),
        "E" => Suffix::Decimal(18),
        "Ki" => Suffix::Binary(10),
        "Mi" => Suffix::Binary(20),
        "Gi" => Suffix::Binary(30),
        "Ti" => Suffix::Binary(40),
        "Pi" => Suffix::Binary(50),
        "Ei" => Suffix::Binary(60),
        other => {
            let power = other.strip_prefix(['e', 'E'])?;
            Suffix::Decimal(power.parse().ok()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_parse_as_the_api_conventions_say() {
        for (text, whole, thousandths) in [
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1500m", 2, 1500),
            ("0.5", 1, 500),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("64Mi", 67_108_864, 67_108_864_000),
            ("2k", 2000, 2_000_000),
            ("2e3", 2000, 2_000_000),
            ("1E", 1_000_000_000_000_000_000, 0),
            ("1u", 1, 1),
            ("-1", -1, -1000),
        ] {
            assert_eq!(value(text), Some(whole), "{text}");
            if thousandths != 0 {
                assert_eq!(milli(text), Some(thousandths), "{text}");
            }
        }
        for text in ["", "x", "1Q", "1.2.3", "."] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    #[test]
    fn binary_suffixes_leave_whole_numbers() {
        for (amount, text) in [
            (0, "0"),
            (1023, "1023"),
            (2048, "2Ki"),
            (100 << 20, "100Mi"),
            ((100 << 20) + 1024, "102401Ki"),
            (1 << 60, "1Ei"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(binary(amount), text);
        }
    }
}
