//! What a request asks for: query parameters (`name=value&name`, percent-decoded), and in which form.

use super::accept::Accept;

/// Parameters in order; one without `=` has an empty value.
#[derive(Debug, Default)]
pub(super) struct Query {
    parameters: Vec<(String, String)>,
    accept: Accept,
}

impl Query {
    pub(super) fn parse(query: Option<&str>, accept: Accept) -> Self {
        let items = query.unwrap_or_default().split('&').filter(|item| !item.is_empty());
        let pairs = items.map(|item| item.split_once('=').unwrap_or((item, "")));
        let parameters = pairs.map(|(name, value)| (decode(name), decode(value))).collect();
        Self { parameters, accept }
    }

    /// What the client can read.
    pub(super) fn accept(&self) -> Accept {
        self.accept
    }

    /// The first value of `name`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(super) fn all(&self) -> &[(String, String)] {
        &self.parameters
    }
}

/// What is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        let escaped = match (first, rest) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(*first));
        bytes = if escaped.is_some() { &rest[2..] } else { rest };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_split_and_decoded() {
        let query = Query::parse(
            Some("filter=a%5B.%2B&usedonly&&x=1=2&x=3&bad=%4&worse=%zz&%61=%ff"),
            Accept::default(),
        );
        assert_eq!(query.value("filter"), Some("a[.+"));
        assert!(query.has("usedonly") && !query.has("used"));
        assert_eq!(query.value("x"), Some("1=2"));
        assert_eq!(query.value("bad"), Some("%4"));
        assert_eq!(query.value("worse"), Some("%zz"));
        assert_eq!(query.value("a"), Some("\u{fffd}"));
        assert!(Query::parse(None, Accept::default()).all().is_empty());
    }
}
