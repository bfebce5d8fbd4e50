//! Who may talk to the admin port: not a web page in the operator's browser.
//!
//! A page of another site can make a browser send requests here, under a name of its own that it lets resolve to this address (DNS
//! rebinding) or from its own origin. The first shows in Host, the second in Origin.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Uri, Version, header};

/// Names by which the admin port may be addressed, besides IP literals and `localhost`.
#[derive(Debug, Clone, Default)]
pub(super) struct Trust {
    allowed: Vec<String>,
}

/// Why a request is refused; the text is for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("one Host header is required\n")]
    HostCount,
    #[error(
        "this Host is not allowed: use an IP address or localhost, or start proxyd with --admin-allowed-host\n"
    )]
    Host,
    #[error("requests from another origin are not allowed\n")]
    Origin,
}

impl Trust {
    pub(super) fn new(allowed_hosts: &[String]) -> Self {
        Self {
            allowed: allowed_hosts
                .iter()
                .map(|host| host.trim_end_matches('.').to_ascii_lowercase())
                .collect(),
        }
    }

    pub(super) fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Distrust> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().map(|host| host.to_str().map_err(|_| Distrust::Host)).transpose()?;
        if hosts.next().is_some() || (host.is_none() && version != Version::HTTP_10) {
            return Err(Distrust::HostCount);
        }
        let target = uri.authority().map(http::uri::Authority::as_str);
        if ![host, target].into_iter().flatten().all(|authority| self.allows(authority)) {
            return Err(Distrust::Host);
        }
        let own = target.or(host).unwrap_or_default();
        let same_origin = |origin: &str| {
            let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
            !authority.is_empty() && authority.eq_ignore_ascii_case(own)
        };
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if !origins.all(|origin| origin.to_str().is_ok_and(same_origin)) {
            return Err(Distrust::Origin);
        }
        Ok(())
    }

    fn allows(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else { return false };
        if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return literal.parse::<Ipv6Addr>().is_ok();
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        host.parse::<Ipv4Addr>().is_ok() || name == "localhost" || self.allowed.contains(&name)
    }
}

/// `authority` without its port; `None` if that is no number.
fn host_of(authority: &str) -> Option<&str> {
    let end = authority.find(']').map_or(0, |bracket| bracket + 1);
    match authority[end..].find(':') {
        None => Some(authority),
        Some(colon) => {
            let (host, port) = authority.split_at(end + colon);
            port[1..].bytes().all(|byte| byte.is_ascii_digit()).then_some(host)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>) -> Result<(), Distrust> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        Trust::new(&["Admin.Example.".to_owned()]).check(
            Version::HTTP_11,
            &Uri::from_static("/ready"),
            &headers,
        )
    }

    #[test]
    fn addresses_localhost_and_allowed_names_are_hosts() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9901",
            "10.1.2.3:1",
            "[::1]:9901",
            "[fe80::1]",
            "localhost:9901",
            "LOCALHOST.",
            "admin.example:80",
        ] {
            assert_eq!(check(host, None), Ok(()), "{host}");
        }
    }

    #[test]
    fn other_names_are_no_hosts() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:9901",
            "evil.example:localhost",
            "",
            ":80",
            "[::1].evil.example",
            "[evil]",
            "::1",
            "localhost@evil.example",
            "127.1",
        ] {
            assert_eq!(check(host, None), Err(Distrust::Host), "{host}");
        }
    }

    #[test]
    fn an_origin_must_be_the_host_itself() {
        assert_eq!(check("127.0.0.1:9901", Some("http://127.0.0.1:9901")), Ok(()));
        for origin in [
            "http://127.0.0.1",
            "http://evil.example",
            "null",
            "127.0.0.1:9901",
            "http://localhost:9901",
            "http://",
        ] {
            assert_eq!(check("127.0.0.1:9901", Some(origin)), Err(Distrust::Origin), "{origin}");
        }
    }

    #[test]
    fn the_target_counts_as_much_as_the_header() {
        let trust = Trust::default();
        let mut headers = HeaderMap::new();
        let evil = Uri::from_static("http://evil.example/ready");
        assert_eq!(trust.check(Version::HTTP_11, &evil, &headers), Err(Distrust::HostCount));
        assert_eq!(trust.check(Version::HTTP_10, &Uri::from_static("/ready"), &headers), Ok(()));
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert_eq!(trust.check(Version::HTTP_11, &evil, &headers), Err(Distrust::Host));
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert_eq!(trust.check(Version::HTTP_11, &Uri::from_static("/"), &headers), Err(Distrust::HostCount));
    }
}
