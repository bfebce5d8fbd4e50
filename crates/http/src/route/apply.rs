//! What a route does to the messages that take it: header mutations, path and host rewrites.

use proxy_config::settings::{HeaderMutations, Router};

use super::rewrite::rewrite_host;
use super::{ChosenRoute, Text};
use crate::forwarding::{Timeouts, remove_router_headers, take_timeouts};
use crate::headers::Headers;
use crate::message::{Request, Response};
use crate::mutation::{ContextSource, mutate_request, mutate_response};
use crate::name::HeaderId;

impl ChosenRoute<'_> {
    /// Makes the request ready to go to a host of its cluster: time limits taken out of it, what is said to the router
    /// removed, the route applied. `weighted` as for [`ChosenRoute::apply_request`]. Gives the limits of a route that forwards.
    pub fn prepare_upstream(
        self,
        weighted: Option<u32>,
        request: &mut Request,
        router: &Router,
        source: ContextSource<'_>,
    ) -> Timeouts {
        let timeouts = take_timeouts(request, self.forward().and_then(|forward| forward.timeout), router);
        remove_router_headers(&mut request.headers);
        self.apply_request(weighted, request, !router.suppress_envoy_headers, source);
        timeouts
    }

    /// Makes the request what the route wants to go upstream. `weighted` comes from
    /// [`Selected`](super::Selected); `keep_originals` notes what was replaced in `x-envoy-original-path` and
    /// `x-envoy-original-host`, which the router's `suppress_envoy_headers` turns off.
    pub fn apply_request(
        self,
        weighted: Option<u32>,
        request: &mut Request,
        keep_originals: bool,
        source: ContextSource<'_>,
    ) {
        let configuration = &self.table.configuration;
        let weighted = self.weighted_cluster(weighted);
        if let Some(cluster) = weighted {
            mutate_request(&cluster.request_headers, request, source);
            if let Some(host) = cluster.host_rewrite.as_ref().filter(|host| !host.is_empty()) {
                request.set_authority(host);
            }
        }
        for level in self.levels([
            &self.route().request_headers,
            &self.virtual_host().request_headers,
            &configuration.request_headers,
        ]) {
            mutate_request(level, request, source);
        }
        let Some(forward) = self.forward() else {
            return;
        };
        if let Some(host) = forward.host_rewrite.as_ref().and_then(|rewrite| rewrite_host(request, rewrite)) {
            replace_host(request, &host, forward.append_x_forwarded_host, keep_originals);
        }
        if let Some(path) =
            forward.path_rewrite.as_ref().and_then(|rewrite| self.rewrite_path(request, rewrite))
        {
            if keep_originals {
                let original = Text::from_slice(request.path());
                request.headers.set(HeaderId::X_ENVOY_ORIGINAL_PATH, &original);
            }
            request.set_path(&path);
        }
    }

    /// Makes the response what the route wants to go downstream; also for redirects and direct responses.
    pub fn apply_response(
        self,
        weighted: Option<u32>,
        response: &mut Response,
        request: Option<&Request>,
        source: ContextSource<'_>,
    ) {
        if let Some(cluster) = self.weighted_cluster(weighted) {
            mutate_response(&cluster.response_headers, response, request, source);
        }
        for level in self.levels([
            &self.route().response_headers,
            &self.virtual_host().response_headers,
            &self.table.configuration.response_headers,
        ]) {
            mutate_response(level, response, request, source);
        }
    }

    /// Names of headers that [`apply_response`](ChosenRoute::apply_response) removes where they are.
    pub(crate) fn removed_from_responses(self, weighted: Option<u32>) -> Vec<String> {
        let weighted = self.weighted_cluster(weighted).map(|cluster| &cluster.response_headers);
        let levels = self.levels([
            &self.route().response_headers,
            &self.virtual_host().response_headers,
            &self.table.configuration.response_headers,
        ]);
        let names = weighted.into_iter().chain(levels).flat_map(|level| &level.remove);
        names.map(|name| name.to_string()).collect()
    }

    /// Route, virtual host, route configuration - or the other way round, so that what comes last wins.
    fn levels(self, mut levels: [&HeaderMutations; 3]) -> [&HeaderMutations; 3] {
        if self.table.configuration.most_specific_wins {
            levels.reverse();
        }
        levels
    }
}

/// Replaces the host, as `auto_host_rewrite` also has to once the upstream host is known.
pub fn replace_host(request: &mut Request, host: &[u8], append_forwarded: bool, keep_original: bool) {
    let original = Text::from_slice(request.authority());
    if keep_original && !original.is_empty() {
        request.headers.set("x-envoy-original-host", &original);
    }
    if append_forwarded && !original.is_empty() {
        append_forwarded_host(&mut request.headers, &original);
    }
    request.set_authority(host);
}

/// Appends to `x-forwarded-host`, unless its last entry is this host already.
fn append_forwarded_host(headers: &mut Headers, host: &[u8]) {
    let mut all = headers.joined(HeaderId::X_FORWARDED_HOST).unwrap_or_default().into_owned();
    let last = all.rsplit(|&b| b == b',').next().map(<[u8]>::trim_ascii);
    if last == Some(host) {
        return;
    }
    if !all.is_empty() {
        all.push(b',');
    }
    all.extend_from_slice(host);
    headers.set(HeaderId::X_FORWARDED_HOST, &all);
}
