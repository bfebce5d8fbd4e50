//! An HTTP/1 message as it was on the wire: what a backend received or a client was answered.

/// Header or trailer lines in wire order, names as received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of the only line called `name`; several lines are a failed test.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// Values of all lines called `name`, in order.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// All names, lower-cased, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
    }

    pub(crate) fn parse(lines: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        };
        Self(lines.split("\r\n").filter(|text| !text.is_empty()).map(line).collect())
    }
}

/// A request or response: start line, headers, decoded body, trailers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The request line or status line.
    pub start: String,
    pub headers: Headers,
    /// Content after transfer decoding.
    pub body: Vec<u8>,
    pub trailers: Headers,
}

impl Message {
    pub(crate) fn from_head(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let (start, lines) = text.split_once("\r\n").unwrap_or((&text, ""));
        Self { start: start.to_owned(), headers: Headers::parse(lines), ..Self::default() }
    }

    /// The status code of a response.
    #[must_use]
    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status line: {:?}", self.start))
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    #[must_use]
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// See [`Headers::find`].
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.find(name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body of a test message is text")
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    pub(crate) fn content_length(&self) -> Option<usize> {
        self.header("content-length").map(|length| length.parse().expect("a content-length is a number"))
    }
}
