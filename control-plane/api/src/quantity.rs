//! Resource quantities (`resource.Quantity`): a decimal number with an SI,
//! binary or exponent suffix, in the canonical form of the stock server.

use std::cmp::Ordering;
use std::fmt;

const NANO: i128 = 1_000_000_000;
/// Values are capped here, as the server caps at the range of an int64.
const LIMIT: i128 = i64::MAX as i128 * NANO;

/// How a quantity was written, which decides how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// A parsed quantity, exact to a billionth.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity; the texts are the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a suffix.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// A whole number of units.
    pub fn from_units(units: i64) -> Self {
        Quantity {
            nanos: i128::from(units) * NANO,
            format: Format::Decimal,
        }
    }

    /// A number of thousandths, as CPU is counted.
    pub fn from_milli(milli: i64) -> Self {
        Quantity {
            nanos: i128::from(milli) * (NANO / 1000),
            format: Format::Decimal,
        }
    }

    /// Parses a quantity as it stands in a manifest.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (number, suffix) = split(text)?;
        let (base, power, format) = scale(suffix)?;
        let nanos = to_nanos(number, base, power).ok_or(QuantityError::Format)?;
        Ok(Quantity { nanos, format })
    }

    /// Parses the JSON forms: a string or a number.
    pub fn from_value(value: &serde_json::Value) -> Result<Self, QuantityError> {
        match value {
            serde_json::Value::String(text) => Self::parse(text),
            serde_json::Value::Number(number) => Self::parse(&number.to_string()),
            _ => Err(QuantityError::Format),
        }
    }

    /// In units, rounded up.
    pub fn value(&self) -> i128 {
        div_up(self.nanos, NANO)
    }

    /// In thousandths, rounded up.
    pub fn milli_value(&self) -> i128 {
        div_up(self.nanos, NANO / 1000)
    }

    /// Rounded up to a whole thousandth.
    pub fn rounded_to_milli(&self) -> Quantity {
        Quantity {
            nanos: div_up(self.nanos, NANO / 1000) * (NANO / 1000),
            format: self.format,
        }
    }

    /// Whether it is a whole number of units.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// The sum, written in the way of the left side.
    pub fn plus(&self, other: &Quantity) -> Quantity {
        Quantity {
            nanos: (self.nanos + other.nanos).clamp(-LIMIT, LIMIT),
            format: if self.is_zero() {
                other.format
            } else {
                self.format
            },
        }
    }

    /// The difference, written in the way of the left side.
    pub fn minus(&self, other: &Quantity) -> Quantity {
        Quantity {
            nanos: (self.nanos - other.nanos).clamp(-LIMIT, LIMIT),
            format: if self.is_zero() {
                other.format
            } else {
                self.format
            },
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical form: no fraction, the largest suffix that keeps it exact.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::Binary && !small && self.is_integer() {
            let mut number = self.nanos / NANO;
            let mut power = 0;
            while number % 1024 == 0 && power < 6 {
                number /= 1024;
                power += 1;
            }
            return write!(
                f,
                "{number}{}",
                ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]
            );
        }
        let (mut number, mut exponent) = (self.nanos, -9i32);
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        if self.format == Format::Exponent {
            return match exponent {
                0 => write!(f, "{number}"),
                _ => write!(f, "{number}e{exponent}"),
            };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{number}{suffix}")
    }
}

fn split(text: &str) -> Result<(&str, &str), QuantityError> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let number = &unsigned[..digits];
    if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
        return Err(QuantityError::Format);
    }
    let end = text.len() - unsigned.len() + digits;
    let suffix = &text[end..];
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok((&text[..end], suffix))
}

fn scale(suffix: &str) -> Result<(i128, i32, Format), QuantityError> {
    let found = match suffix {
        "" => (10, 0, Format::Decimal),
        "n" => (10, -9, Format::Decimal),
        "u" => (10, -6, Format::Decimal),
        "m" => (10, -3, Format::Decimal),
        "k" => (10, 3, Format::Decimal),
        "M" => (10, 6, Format::Decimal),
        "G" => (10, 9, Format::Decimal),
        "T" => (10, 12, Format::Decimal),
        "P" => (10, 15, Format::Decimal),
        "E" => (10, 18, Format::Decimal),
        "Ki" => (1024, 1, Format::Binary),
        "Mi" => (1024, 2, Format::Binary),
        "Gi" => (1024, 3, Format::Binary),
        "Ti" => (1024, 4, Format::Binary),
        "Pi" => (1024, 5, Format::Binary),
        "Ei" => (1024, 6, Format::Binary),
        _ => {
            let exponent = suffix
                .strip_prefix(['e', 'E'])
                .and_then(|e| e.parse().ok())
                .ok_or(QuantityError::Suffix)?;
            (10, exponent, Format::Exponent)
        }
    };
    Ok(found)
}

/// Scales a decimal number, rounding away from zero below a billionth.
fn to_nanos(number: &str, base: i128, power: i32) -> Option<i128> {
    let negative = number.starts_with('-');
    let number = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let capped = if negative { -LIMIT } else { LIMIT };
    if digits.is_empty() {
        return Some(0);
    }
    let fraction_len = i32::try_from(fraction.len()).ok()?;
    let exponent = 9 - fraction_len
        + if base == 10 {
            power.clamp(-1000, 1000)
        } else {
            0
        };
    let magnitude = i32::try_from(digits.len()).ok()? + exponent;
    if magnitude > 30 {
        return Some(capped);
    }
    if magnitude < -1 {
        return Some(if negative { -1 } else { 1 });
    }
    let binary = if base == 1024 {
        1024i128.pow(u32::try_from(power).ok()?)
    } else {
        1
    };
    // Only digits beyond what an i128 holds are cut, and cutting rounds up.
    let keep = digits.len().min(36);
    let cut = digits[keep..].bytes().any(|b| b != b'0');
    let exponent = exponent + i32::try_from(digits.len() - keep).ok()?;
    let mut value: i128 = digits[..keep].parse().ok()?;
    if cut {
        value += 1;
    }
    let mut value = match value.checked_mul(binary) {
        Some(value) => value,
        None => return Some(capped),
    };
    if exponent >= 0 {
        value = match value.checked_mul(10i128.pow(u32::try_from(exponent).ok()?)) {
            Some(value) => value,
            None => return Some(capped),
        };
    } else {
        value = div_up(value, 10i128.checked_pow(exponent.unsigned_abs())?);
    }
    let value = value.min(LIMIT);
    Some(if negative { -value } else { value })
}

/// Division rounded away from zero.
fn div_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    match (value % by).signum() {
        1 => quotient + 1,
        -1 => quotient - 1,
        _ => quotient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("100m", "100m"),
            ("1000000", "1M"),
            ("1024", "1024"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e6", "12e6"),
            ("1e-3", "1e-3"),
            ("1E", "1E"),
            ("-5m", "-5m"),
            ("0.0000000001", "1n"),
            ("1n", "1n"),
            ("1.1Ki", "1126400m"),
            // Binary without a binary suffix; read again it is decimal.
            ("742437.5Ki", "760256000"),
            ("760256000", "760256k"),
            ("999999999999999999999999999E", "9223372036854775807"),
        ] {
            assert_eq!(
                Quantity::parse(text).unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn rejects() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1GiB", QuantityError::Format),
            ("1gi", QuantityError::Format),
            ("1iG", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
            ("1m5", QuantityError::Suffix),
        ] {
            assert_eq!(Quantity::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn arithmetic_and_order() {
        let half = Quantity::parse("500m").unwrap();
        assert_eq!(half.value(), 1);
        assert_eq!(half.milli_value(), 500);
        assert!(half < Quantity::from_units(1));
        assert_eq!(half.plus(&half), Quantity::from_units(1));
        assert_eq!(half.minus(&Quantity::from_milli(250)).to_string(), "250m");
        assert!(!half.is_integer());
    }

    proptest::proptest! {
        #[test]
        fn the_canonical_form_is_the_same_amount(
            number in 0i64..10_000_000, point in 0usize..4,
            suffix in "(|n|u|m|k|M|G|Ki|Mi|Gi|e3|e-2)",
        ) {
            let digits = format!("{number:05}");
            let (whole, fraction) = digits.split_at(digits.len() - point);
            let quantity = Quantity::parse(&format!("{whole}.{fraction}{suffix}")).unwrap();
            let text = quantity.to_string();
            let again = Quantity::parse(&text).unwrap();
            proptest::prop_assert_eq!(again, quantity);
            if again.format == quantity.format {
                proptest::prop_assert_eq!(again.to_string(), text);
            }
        }
    }
}
