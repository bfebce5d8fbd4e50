//! Virtual hosts by domain: exact beats the longest suffix, which beats the longest prefix, which beats `*`.

use hashbrown::HashMap;
use proxy_config::settings::{Domain, RouteConfiguration};
use smallvec::SmallVec;

/// The domains of a route configuration, each with the index of its virtual host.
pub(super) struct Domains {
    exact: HashMap<Box<[u8]>, u32>,
    suffixes: ByLength,
    prefixes: ByLength,
    any: Option<u32>,
    /// `ignore_port_in_host_matching`: the port of the request is left out of account, never that of a domain.
    ignore_port: bool,
}

/// Wildcards by the length of their text, longest first.
type ByLength = Vec<(usize, HashMap<Box<[u8]>, u32>)>;

impl Domains {
    pub(super) fn new(configuration: &RouteConfiguration) -> Domains {
        let mut domains = Domains {
            exact: HashMap::new(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
            any: None,
            ignore_port: configuration.ignore_port,
        };
        for (index, host) in configuration.virtual_hosts.iter().enumerate() {
            let index = index as u32;
            for domain in &host.domains {
                match domain {
                    Domain::Exact(text) => _ = domains.exact.entry(text.as_bytes().into()).or_insert(index),
                    Domain::Suffix(text) => insert(&mut domains.suffixes, text, index),
                    Domain::Prefix(text) => insert(&mut domains.prefixes, text, index),
                    Domain::Any => _ = domains.any.get_or_insert(index),
                }
            }
        }
        domains
    }

    /// The virtual host for an authority, in whatever case it was sent.
    pub(super) fn find(&self, authority: &[u8]) -> Option<u32> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any;
        }
        let host = self.compared(authority);
        if let Some(&index) = self.exact.get(&host[..]) {
            return Some(index);
        }
        longest(&self.suffixes, &host, |host, length| &host[host.len() - length..])
            .or_else(|| longest(&self.prefixes, &host, |host, length| &host[..length]))
            .or(self.any)
    }

    /// What of an authority is compared with domains.
    pub(super) fn compared(&self, authority: &[u8]) -> SmallVec<[u8; 128]> {
        let host = if self.ignore_port { without_port(authority) } else { authority };
        let mut host: SmallVec<[u8; 128]> = SmallVec::from_slice(host);
        host.make_ascii_lowercase();
        host
    }
}

/// How well `domain` fits an authority as [`Domains::compared`] gives it: the greatest wins; `None`: not at all.
pub(super) fn fit(domain: &Domain, host: &[u8]) -> Option<(u8, usize)> {
    let longer = |text: &str| text.len() < host.len();
    match domain {
        Domain::Exact(text) => (text.as_bytes() == host).then_some((3, text.len())),
        Domain::Suffix(text) => (longer(text) && host.ends_with(text.as_bytes())).then_some((2, text.len())),
        Domain::Prefix(text) => {
            (longer(text) && host.starts_with(text.as_bytes())).then_some((1, text.len()))
        }
        Domain::Any => Some((0, 0)),
    }
}

fn insert(wildcards: &mut ByLength, text: &str, index: u32) {
    let at = match wildcards.binary_search_by(|(length, _)| text.len().cmp(length)) {
        Ok(at) => at,
        Err(at) => {
            wildcards.insert(at, (text.len(), HashMap::new()));
            at
        }
    };
    wildcards[at].1.entry(text.as_bytes().into()).or_insert(index);
}

/// `*` stands for at least one byte.
fn longest(wildcards: &ByLength, host: &[u8], cut: impl Fn(&[u8], usize) -> &[u8]) -> Option<u32> {
    wildcards
        .iter()
        .filter(|(length, _)| *length < host.len())
        .find_map(|(length, domains)| domains.get(cut(host, *length)).copied())
}

/// `host` of `host:port`; a colon inside `[...]` belongs to the address.
pub(super) fn without_port(authority: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', authority) {
        Some(colon) if memchr::memrchr(b']', authority).is_none_or(|bracket| bracket < colon) => {
            &authority[..colon]
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::fixtures::{configuration, host};

    const DOMAINS: [(&str, Domain2); 12] = [
        ("exact.com", Domain2::Exact),
        ("upper.com", Domain2::Exact),
        ("port.com:8080", Domain2::Exact),
        (".suf.com", Domain2::Suffix),
        (".b.suf.com", Domain2::Suffix),
        ("-x.suf.com", Domain2::Suffix),
        ("pre.", Domain2::Prefix),
        ("pre.fix.", Domain2::Prefix),
        ("[::1]", Domain2::Exact),
        ("[::2]:80", Domain2::Exact),
        ("", Domain2::Any),
        (".com:90", Domain2::Suffix),
    ];

    #[derive(Clone, Copy)]
    enum Domain2 {
        Exact,
        Suffix,
        Prefix,
        Any,
    }

    fn find(ignore_port: bool, authority: &str) -> &'static str {
        let mut configuration = configuration(Vec::new());
        configuration.ignore_port = ignore_port;
        configuration.virtual_hosts = DOMAINS
            .iter()
            .map(|&(text, kind)| {
                let mut host = host(Vec::new());
                host.domains = vec![match kind {
                    Domain2::Exact => Domain::Exact(text.into()),
                    Domain2::Suffix => Domain::Suffix(text.into()),
                    Domain2::Prefix => Domain::Prefix(text.into()),
                    Domain2::Any => Domain::Any,
                }];
                host
            })
            .collect();
        let domains = Domains::new(&configuration);
        let found = domains.find(authority.as_bytes()).unwrap();
        let hosts = configuration.virtual_hosts.iter().enumerate();
        let compared = domains.compared(authority.as_bytes());
        let best = hosts.max_by_key(|(_, host)| fit(&host.domains[0], &compared)).unwrap();
        assert_eq!(best.0 as u32, found, "{authority}: what fits best is what is found");
        DOMAINS[found as usize].0
    }

    /// What Envoy 1.40 answered for the same domains.
    #[test]
    fn virtual_hosts_are_found_as_envoy_finds_them() {
        for (authority, with_port, ignoring_port) in [
            ("exact.com", "exact.com", "exact.com"),
            ("EXACT.com", "exact.com", "exact.com"),
            ("exact.com:80", "", "exact.com"),
            ("exact.com:", "", "exact.com"),
            ("upper.com", "upper.com", "upper.com"),
            ("port.com", "", ""),
            ("port.com:8080", "port.com:8080", ""),
            ("port.com:81", "", ""),
            ("a.suf.com", ".suf.com", ".suf.com"),
            (".suf.com", "", ""),
            ("suf.com", "", ""),
            ("a.b.suf.com", ".b.suf.com", ".b.suf.com"),
            ("b.suf.com", ".suf.com", ".suf.com"),
            ("a-x.suf.com", "-x.suf.com", "-x.suf.com"),
            ("c.a-x.suf.com", "-x.suf.com", "-x.suf.com"),
            ("a.suf.com:80", "", ".suf.com"),
            ("pre.", "", ""),
            ("pre.a", "pre.", "pre."),
            ("pre.fix.a", "pre.fix.", "pre.fix."),
            ("pre.fix.", "pre.", "pre."),
            ("pre.a:80", "pre.", "pre."),
            ("pre.:80", "pre.", ""),
            ("[::1]", "[::1]", "[::1]"),
            ("[::1]:80", "", "[::1]"),
            ("[::2]", "", ""),
            ("[::2]:80", "[::2]:80", ""),
            ("", "", ""),
            ("a.com:90", ".com:90", ""),
            ("pre.suf.com", ".suf.com", ".suf.com"),
            ("exact.com.", "", ""),
        ] {
            assert_eq!(find(false, authority), with_port, "{authority}");
            assert_eq!(find(true, authority), ignoring_port, "{authority} without port");
        }
    }
}
