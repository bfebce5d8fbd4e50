//! `${VAR}` and `${VAR:-default}` in the text of one scalar.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use crate::codes::Code;

/// What `${VAR}` may stand for, from all that a process has (`std::env::vars_os`): names and values that are no text cannot be
/// filled in.
pub fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Arc<HashMap<String, String>> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    Arc::new(environment.into_iter().filter_map(text).collect())
}

/// The text with all variables filled in; `$${` stands for `${`. Shows names only, never what is filled in.
pub(crate) fn substitute(
    text: &str,
    environment: &HashMap<String, String>,
) -> Result<String, (Code, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let end = after.find('}').ok_or_else(|| (Code::BAD_VARIABLE, "`${` without `}`".to_owned()))?;
        let (name, default) = match after[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&after[..end], None),
        };
        if !is_name(name) {
            let message = "letters, digits and underscores are expected between `${` and `}`";
            return Err((Code::BAD_VARIABLE, message.to_owned()));
        }
        // As in a shell, an empty variable takes the default as well.
        let value = environment.get(name).map(String::as_str);
        let value = match default {
            Some(default) => value.filter(|value| !value.is_empty()).or(Some(default)),
            None => value,
        };
        let unset = || (Code::UNSET_VARIABLE, format!("the environment has no variable {name}"));
        out.push_str(value.ok_or_else(unset)?);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(plain) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_no_variable() {
        use std::os::unix::ffi::OsStringExt;
        let broken = || OsString::from_vec(vec![0xff]);
        let all = [("A".into(), "1".into()), ("B".into(), broken()), (broken(), "2".into())];
        assert_eq!(*variables(all), HashMap::from([("A".to_owned(), "1".to_owned())]));
    }

    #[test]
    fn variables_are_filled_in_once() {
        let environment = [("A", "1"), ("B", "${A}"), ("EMPTY", "")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for (text, expected) in [
            ("plain $ {A}", "plain $ {A}"),
            ("x${A}y${A}", "x1y1"),
            ("${B}", "${A}"),
            ("${EMPTY}", ""),
            ("${EMPTY:-d}", "d"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("$${A} ${A}", "${A} 1"),
        ] {
            assert_eq!(substitute(text, &environment).as_deref(), Ok(expected), "{text}");
        }
        for (text, code) in [
            ("${NONE}", Code::UNSET_VARIABLE),
            ("${A", Code::BAD_VARIABLE),
            ("${a b}", Code::BAD_VARIABLE),
            ("${}", Code::BAD_VARIABLE),
        ] {
            assert_eq!(substitute(text, &environment).map_err(|(code, _)| code), Err(code), "{text}");
        }
    }
}
