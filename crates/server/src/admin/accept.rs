//! What a client says that it can read: `Accept` and `Accept-Encoding` (RFC 9110, sections 12.5.1 and 12.5.3).

use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderName};

/// The forms of answers that are not everybody's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Accept {
    /// OpenMetrics, at least as gladly as plain text.
    pub(super) open_metrics: bool,
    pub(super) gzip: bool,
}

impl Accept {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let open_metrics = quality(headers, &ACCEPT, &["application/openmetrics-text"]).unwrap_or(0);
        let text = quality(headers, &ACCEPT, &["text/plain", "text/*", "*/*"]).unwrap_or(0);
        let gzip = quality(headers, &ACCEPT_ENCODING, &["gzip", "x-gzip", "*"]).unwrap_or(0);
        Self { open_metrics: open_metrics > 0 && open_metrics >= text, gzip: gzip > 0 }
    }
}

/// In thousandths, of the first of `names` that is listed.
fn quality(headers: &HeaderMap, header: &HeaderName, names: &[&str]) -> Option<u32> {
    let items = || {
        let lines = headers.get_all(header).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(str::trim)
    };
    names.iter().find_map(|name| items().find_map(|item| quality_of(item, name)))
}

fn quality_of(item: &str, name: &str) -> Option<u32> {
    let mut parts = item.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(name) {
        return None;
    }
    let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    match quality.map(str::parse::<f32>) {
        None => Some(1000),
        // What is no number is no wish.
        Some(number) => Some((number.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(accept: &str, encoding: &str) -> Accept {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        headers.insert(ACCEPT_ENCODING, encoding.parse().unwrap());
        Accept::of(&headers)
    }

    #[test]
    fn wishes_are_weighed() {
        assert_eq!(Accept::of(&HeaderMap::new()), Accept::default());
        assert_eq!(accept("*/*", "identity"), Accept::default());
        // As Prometheus asks, without its versions of OpenMetrics that are drafts.
        let scraper =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(accept(scraper, "gzip"), Accept { open_metrics: true, gzip: true });
        assert!(!accept("application/openmetrics-text;q=0.1, text/plain", "").open_metrics);
        assert!(!accept("application/openmetrics-text;q=0", "").open_metrics);
        assert!(accept("text/html, Application/OpenMetrics-Text ; version=1.0.0", "").open_metrics);
        for (encoding, gzip) in
            [("gzip;q=0", false), ("*", true), ("br, deflate", false), ("gzip;q=0, *", false)]
        {
            assert_eq!(accept("*/*", encoding).gzip, gzip, "{encoding}");
        }
    }
}
