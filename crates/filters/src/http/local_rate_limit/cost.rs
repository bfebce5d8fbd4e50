//! How many tokens a text stands for, read as Envoy reads it: as C's `strtod` in its own locale, but for infinity.

use proxy_config::settings::MOST_HITS;

/// `None` where the text is no number up to [`MOST_HITS`]. Parts of a token are not counted. What is said not to be a number
/// costs more than any bucket holds, as it happens to do in Envoy: it does not pass by its limit.
pub(super) fn tokens(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let (negative, unsigned) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let number = match unsigned.get(..2) {
        _ if unsigned.starts_with(['+', '-']) => return None,
        Some("0x" | "0X") => hexadecimal(&unsigned[2..])?,
        _ if is_no_number(unsigned) => return Some(u64::MAX),
        _ => unsigned.parse().ok()?,
    };
    let number = if negative { -number } else { number };
    (0.0..=MOST_HITS as f64).contains(&number).then_some(number as u64)
}

/// `nan`, and `nan(...)` with letters, digits and underscores.
fn is_no_number(text: &str) -> bool {
    let Some((name, rest)) = text.split_at_checked(3) else { return false };
    let inner = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let is_word = |inner: &str| inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    name.eq_ignore_ascii_case("nan") && (rest.is_empty() || inner.is_some_and(is_word))
}

/// What follows `0x`: digits with or without a point, and a power of two.
fn hexadecimal(text: &str) -> Option<f64> {
    let (digits, power) = match text.split_once(['p', 'P']) {
        Some((digits, power)) => (digits, whole(power)?),
        None => (text, 0),
    };
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    if before.is_empty() && after.is_empty() {
        return None;
    }
    let mut number = 0.0;
    for digit in before.chars().chain(after.chars()) {
        number = number * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let power = i64::from(power) - 4 * after.len() as i64;
    let power = power.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    Some(if number == 0.0 { 0.0 } else { number * 2f64.powi(power) })
}

/// A decimal number with a sign or without; what is too large is as large as can be.
fn whole(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let most = if text.starts_with('-') { i32::MIN } else { i32::MAX };
    Some(text.parse().unwrap_or(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_forms_are_read() {
        for (text, count) in [
            ("2", 2),
            ("\t2 ", 2),
            ("+1", 1),
            ("1.9", 1),
            ("5.", 5),
            (".5", 0),
            ("-0", 0),
            ("1e0", 1),
            ("1e-999", 0),
            ("1e9", 1_000_000_000),
            ("0x1f", 31),
            ("0X1e1", 481),
            ("+0x1.", 1),
            ("-0x0", 0),
            ("0x.8p1", 1),
            ("0x1P+0", 1),
            ("0x1.8p4", 24),
            ("0x3b9aca00", 1_000_000_000),
            ("0x1p-99999999999", 0),
            ("0x0p99999999999", 0),
        ] {
            assert_eq!(tokens(text.as_bytes()), Some(count), "{text:?}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "",
            "many",
            "-1",
            "-0x1",
            "++1",
            "+-0",
            "0x+1",
            "1_0",
            ".",
            "1e",
            "0 1",
            "0b1",
            "00x1",
            "1f",
            "0x",
            "0x.",
            "0x1p",
            "0x1p+",
            "0xg",
            "0x1.1.1",
            "inf",
            "infinity",
            "1e999",
            "1000000001",
            "0x3b9aca01",
            "0x1p99999999999",
            "nanx",
            "nan(",
            "nan)",
            "nan(a-b)",
            "\u{a0}1",
        ] {
            assert_eq!(tokens(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(tokens(b"\xff"), None);
    }

    #[test]
    fn what_is_no_number_costs_more_than_there_is() {
        for text in ["nan", "NaN", "-nan", "+nan", "nan()", "nan(a_1)"] {
            assert_eq!(tokens(text.as_bytes()), Some(u64::MAX), "{text:?}");
        }
    }
}
