//! Routes that answer by themselves: redirects and direct responses.

use proxy_config::settings::{DirectResponse, Redirect, RedirectPath, RedirectScheme};

use super::rewrite::replace_in_path;
use super::{ChosenRoute, Text};
use crate::forwarding::only_value;
use crate::message::{Request, Response};
use crate::mutation::ContextSource;
use crate::name::HeaderId;

impl ChosenRoute<'_> {
    /// The response of a redirect, response header mutations of the route done.
    pub fn redirect_response(
        self,
        redirect: &Redirect,
        request: &Request,
        source: ContextSource<'_>,
    ) -> Response {
        let scheme = match &redirect.scheme {
            Some(RedirectScheme::Https) => b"https",
            Some(RedirectScheme::Other(scheme)) => &scheme[..],
            None => request.scheme.as_str().as_bytes(),
        };
        let mut location = scheme_part(scheme);
        match &redirect.host {
            Some(host) => location.extend_from_slice(host),
            None => location.extend_from_slice(kept_host(request, scheme, redirect.port.is_some())),
        }
        if let Some(port) = redirect.port {
            location.push(b':');
            location.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        self.push_path(redirect, request, &mut location);
        let mut response = Response::local(redirect.status, "");
        response.headers.append(HeaderId::LOCATION, &location);
        self.apply_response(None, &mut response, Some(request), source);
        response
    }

    fn push_path(self, redirect: &Redirect, request: &Request, location: &mut Text) {
        let query_at = request.path_without_query().len();
        let query = if redirect.strip_query { &[] } else { &request.path()[query_at..] };
        let rewritten = match &redirect.path {
            Some(RedirectPath::Whole(path)) => {
                location.extend_from_slice(path);
                // A query in the configuration takes the place of the request's and is never stripped.
                if !path.contains(&b'?') {
                    location.extend_from_slice(query);
                }
                return;
            }
            Some(RedirectPath::Prefix(prefix)) => self.rewrite_prefix(request, prefix),
            Some(RedirectPath::Regex { pattern, substitution }) => {
                replace_in_path(request, pattern, substitution)
            }
            None => None,
        };
        let path = rewritten.as_deref().unwrap_or(request.path());
        let end = match redirect.strip_query {
            true => memchr::memchr(b'?', path).unwrap_or(path.len()),
            false => path.len(),
        };
        location.extend_from_slice(&path[..end]);
    }

    /// The configured response, response header mutations of the route done.
    pub fn direct_response(
        self,
        direct: &DirectResponse,
        request: &Request,
        source: ContextSource<'_>,
    ) -> Response {
        let mut response = Response::local(direct.status, direct.body.clone());
        if matches!(direct.status, 201 | 300..400) && !request.path().is_empty() {
            // Envoy takes the request's own URI for what these statuses have to name (RFC 9110, section 10.2.2).
            let scheme = request.scheme.as_str().as_bytes();
            let mut location = scheme_part(scheme);
            location.extend_from_slice(kept_host(request, scheme, false));
            location.extend_from_slice(request.path());
            response.headers.append(HeaderId::LOCATION, &location);
        }
        self.apply_response(None, &mut response, Some(request), source);
        response
    }
}

fn scheme_part(scheme: &[u8]) -> Text {
    let mut text = Text::from_slice(scheme);
    text.extend_from_slice(b"://");
    text
}

/// The redirect of `require_tls`: the host stays as it is, port and all.
pub fn to_https(request: &Request) -> Response {
    let mut response = Response::local(301, "");
    response.headers.append_with(HeaderId::LOCATION, |out| {
        out.extend_from_slice(b"https://");
        out.extend_from_slice(request.authority());
        out.extend_from_slice(request.path());
    });
    response
}

/// The request's host for a new scheme and perhaps port. The port goes when a new one is given, and when it was the
/// old scheme's own and the scheme changes; what the old scheme was says `x-forwarded-proto`.
fn kept_host<'r>(request: &'r Request, scheme: &[u8], new_port: bool) -> &'r [u8] {
    let host = request.authority();
    let colon = match host.first() {
        Some(b'[') => memchr::memmem::rfind(host, b"]:").map(|bracket| bracket + 1),
        _ => memchr::memrchr(b':', host),
    };
    let Some(colon) = colon else {
        return host;
    };
    let old = only_value(&request.headers, HeaderId::X_FORWARDED_PROTO).unwrap_or_default();
    let own_port = match old {
        b"http" => &host[colon..] == b":80",
        b"https" => &host[colon..] == b":443",
        _ => false,
    };
    if new_port || (scheme != old && own_port) { &host[..colon] } else { host }
}
