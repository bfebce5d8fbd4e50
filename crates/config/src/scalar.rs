//! What an unquoted scalar means: the types that Envoy's YAML reader (yaml-cpp) gives it.

use crate::tree::{Kind, Node};

/// A scalar with its type decided as Envoy decides it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'t> {
    Bool(bool),
    Integer(i64),
    /// Any other number; the text is kept, since 64-bit unsigned values do not fit an f64.
    Number(&'t str),
    Text(&'t str),
}

impl<'t> Scalar<'t> {
    /// The type of a scalar node; `Text` with an empty text for anything else.
    pub(crate) fn of(node: Node<'t>) -> Scalar<'t> {
        let text = node.text();
        if node.kind() != Kind::Plain {
            return Scalar::Text(text);
        }
        if let Some(value) = boolean(text) {
            return Scalar::Bool(value);
        }
        if let Some(value) = integer(text) {
            return Scalar::Integer(value);
        }
        if number(text).is_some() { Scalar::Number(text) } else { Scalar::Text(text) }
    }
}

/// YAML 1.1 booleans in the three spellings `on`, `On`, `ON`.
fn boolean(text: &str) -> Option<bool> {
    const WORDS: [(&str, &str, bool); 4] =
        [("true", "false", true), ("yes", "no", true), ("on", "off", true), ("y", "n", true)];
    if text.len() > 5 {
        return None;
    }
    let rest = text.get(1..)?;
    let one_case = !rest.bytes().any(|byte| byte.is_ascii_uppercase())
        || !text.bytes().any(|byte| byte.is_ascii_lowercase());
    if !one_case {
        return None;
    }
    WORDS.iter().find_map(|(yes, no, value)| {
        if text.eq_ignore_ascii_case(yes) {
            Some(*value)
        } else {
            text.eq_ignore_ascii_case(no).then_some(!*value)
        }
    })
}

/// The words that protobuf's JSON reader takes in quotes.
pub(crate) fn quoted_boolean(text: &str) -> Option<bool> {
    let is = |words: [&str; 5]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["true", "t", "yes", "y", "1"]) {
        return Some(true);
    }
    is(["false", "f", "no", "n", "0"]).then_some(false)
}

/// A decimal, hexadecimal (0x) or octal (leading 0) integer.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let magnitude = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        unsigned(hex, 16)?
    } else if digits.len() > 1 && digits.starts_with('0') {
        unsigned(digits, 8)?
    } else {
        unsigned(digits, 10)?
    };
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

fn unsigned(digits: &str, radix: u32) -> Option<u64> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| u64::from_str_radix(digits, radix).ok())?
}

/// A floating-point number as protobuf's JSON form writes it, without the words for infinity.
pub(crate) fn number(text: &str) -> Option<f64> {
    let starts = text.trim_start_matches(['-', '+']).as_bytes().first()?;
    if !starts.is_ascii_digit() && *starts != b'.' {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_yaml_1_1() {
        for yes in ["true", "True", "TRUE", "y", "Y", "yes", "On"] {
            assert_eq!(boolean(yes), Some(true), "{yes}");
        }
        for no in ["false", "n", "NO", "Off"] {
            assert_eq!(boolean(no), Some(false), "{no}");
        }
        for text in ["tRue", "yES", "1", "", "yeah", "é", "trué"] {
            assert_eq!(boolean(text), None, "{text}");
        }
    }

    #[test]
    fn integers_may_be_octal_or_hexadecimal() {
        assert_eq!(integer("0x1F"), Some(31));
        assert_eq!(integer("010"), Some(8));
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer("9223372036854775808"), None);
        assert_eq!(integer("089"), None);
        assert_eq!(integer("0x+1"), None);
        assert_eq!(integer("1.5"), None);
    }
}
