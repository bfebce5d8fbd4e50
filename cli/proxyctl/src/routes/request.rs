//! A request as it is typed, and as a client would send it.

use anyhow::bail;
use proxy_http::Scheme;

/// The head of an HTTP/1.1 request.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
    pub(super) scheme: Scheme,
}

impl Head {
    pub(super) fn of(method: &str, url: &str, headers: &[String]) -> anyhow::Result<Head> {
        let (scheme, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some((scheme, rest)) if !scheme.contains(['/', '?']) && !rest.is_empty() => {
                bail!("{scheme} is no scheme of HTTP: http or https is expected")
            }
            _ => (Scheme::Http, url),
        };
        // A fragment is for the client alone.
        let rest = rest.split('#').next().unwrap_or_default();
        let (mut host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let target = match path.chars().next() {
            _ if method == "CONNECT" => host.to_owned(),
            None => "/".to_owned(),
            Some('?') => format!("/{path}"),
            Some(_) => path.to_owned(),
        };
        let mut lines = String::new();
        let host_in_url = !host.is_empty() && method != "CONNECT" && !url.contains("://");
        for header in headers {
            let Some((name, value)) = header.split_once(':').filter(|(name, _)| !name.is_empty()) else {
                bail!("`{header}` is no header: NAME: VALUE is expected");
            };
            if name.eq_ignore_ascii_case("host") {
                if host_in_url {
                    bail!(
                        "`{url}` begins with a host, and -H names another; a path begins with a slash: /{url}"
                    );
                }
                host = value.trim();
            } else {
                lines.push_str(&format!("{name}: {}\r\n", value.trim()));
            }
        }
        if host_in_url && !looks_like_host(host) {
            bail!(
                "is `{host}` the host? then write http://{url}; a path begins with a slash: /{url} with -H 'host: HOST'"
            );
        }
        if host.is_empty() {
            bail!("which host? write http://HOST{target}, or add -H 'host: HOST'");
        }
        let typed = [method, &target, host].into_iter().chain(headers.iter().map(String::as_str));
        if typed.into_iter().any(|text| text.contains(['\r', '\n', '\0'])) {
            bail!("a request holds no line ends");
        }
        if method.contains(' ') || target.contains(' ') {
            bail!("a URL holds no blanks: write %20");
        }
        let bytes = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n").into_bytes();
        Ok(Head { bytes, scheme })
    }
}

/// Whether a name that no scheme stands before can only be meant as a host, and not as the beginning of a path.
fn looks_like_host(name: &str) -> bool {
    name.contains(['.', ':']) || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, url: &str, headers: &[&str]) -> String {
        let headers: Vec<_> = headers.iter().map(|&header| header.to_owned()).collect();
        match Head::of(method, url, &headers) {
            Ok(head) => String::from_utf8(head.bytes).unwrap().replace("\r\n", "|"),
            Err(error) => format!("{error}"),
        }
    }

    #[test]
    fn urls_become_requests() {
        for (method, url, headers, expected) in [
            ("GET", "http://a.com/x?y#z", &[][..], "GET /x?y HTTP/1.1|host: a.com||"),
            ("GET", "https://a.com:80", &[], "GET / HTTP/1.1|host: a.com:80||"),
            ("GET", "a.com?q=http://b/", &[], "GET /?q=http://b/ HTTP/1.1|host: a.com||"),
            ("PUT", "/x", &["Host: b", "x:1"], "PUT /x HTTP/1.1|host: b|x: 1||"),
            ("GET", "http://a/", &["host: b"], "GET / HTTP/1.1|host: b||"),
            ("CONNECT", "a.com:443", &[], "CONNECT a.com:443 HTTP/1.1|host: a.com:443||"),
            ("GET", "/x", &[], "which host? write http://HOST/x, or add -H 'host: HOST'"),
            (
                "GET",
                "api/x",
                &["host: b"],
                "`api/x` begins with a host, and -H names another; a path begins with a slash: /api/x",
            ),
            (
                "GET",
                "api/x",
                &[],
                "is `api` the host? then write http://api/x; a path begins with a slash: /api/x with -H 'host: HOST'",
            ),
            ("GET", "localhost/x", &[], "GET /x HTTP/1.1|host: localhost||"),
            ("GET", "api:80/x", &[], "GET /x HTTP/1.1|host: api:80||"),
            ("GET", "http://api/x", &[], "GET /x HTTP/1.1|host: api||"),
            ("GET", "ftp://a/", &[], "ftp is no scheme of HTTP: http or https is expected"),
            ("GET", "a.b/", &["x"], "`x` is no header: NAME: VALUE is expected"),
            ("GET", "a.b/", &["x: a\r\ny: b"], "a request holds no line ends"),
            ("GET", "a.b/b c", &[], "a URL holds no blanks: write %20"),
        ] {
            assert_eq!(head(method, url, headers), expected, "{method} {url} {headers:?}");
        }
    }
}
