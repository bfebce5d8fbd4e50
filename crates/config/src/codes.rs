//! Every kind of finding: its stable code, and what `proxyctl explain` says of it.
//!
//! A new kind gets its line here and its file in `config-examples/bad`; tests look for both.

use std::fmt;

/// The stable short name of a kind of finding, such as `unknown-field`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub &'static str);

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

impl Code {
    /// All of them, in the order of this file.
    pub fn all() -> impl Iterator<Item = Code> {
        TABLE.iter().map(|(code, _)| *code)
    }

    /// The code with this name.
    pub fn named(name: &str) -> Option<Code> {
        Self::all().find(|code| code.0 == name)
    }

    /// What it means and what to do about it; the first sentence is a summary.
    pub fn explanation(self) -> &'static str {
        TABLE.iter().find(|(code, _)| *code == self).map_or("", |(_, text)| text)
    }

    /// The first sentence of the explanation.
    pub fn summary(self) -> &'static str {
        let text = self.explanation();
        text.split_inclusive(". ").next().unwrap_or(text).trim_end()
    }

    /// The text is no document at all, so that there is no message to go on with.
    pub(crate) fn is_hopeless(self) -> bool {
        matches!(
            self,
            Code::SYNTAX
                | Code::TAB
                | Code::UNREADABLE
                | Code::NOT_UTF8
                | Code::EMPTY_DOCUMENT
                | Code::SECOND_DOCUMENT
                | Code::TOO_DEEP
                | Code::TOO_LARGE
                | Code::UNKNOWN_ANCHOR
        )
    }
}

macro_rules! codes {
    ($($name:ident = $code:literal: $text:literal;)*) => {
        impl Code {
            $(#[doc = $text] pub const $name: Code = Code($code);)*
        }

        const TABLE: &[(Code, &str)] = &[$((Code::$name, $text)),*];
    };
}

codes! {
    UNREADABLE = "unreadable": "A file cannot be read, is larger than 256 MiB, or has a suffix that names no format. The configuration itself is YAML (.yaml, .yml), JSON (.json) or protobuf binary (.pb); text in protobuf's own format is not read.";
    NOT_UTF8 = "not-utf8": "The file is no UTF-8 text. Save it in UTF-8; a binary message needs the suffix .pb.";
    SYNTAX = "syntax": "The text is no YAML or JSON document, or the bytes are no protobuf message. Nothing after this place was looked at; there may be more to find when it is mended.";
    TAB = "tab": "YAML is indented with blanks, never with tabs. Nothing after this place was looked at.";
    EMPTY_DOCUMENT = "empty-document": "The file holds no document. A configuration without anything is written {}.";
    SECOND_DOCUMENT = "second-document": "A second document starts after a line of ---. A file holds one; the others would be ignored silently.";
    TOO_DEEP = "too-deep": "Lists and mappings are nested more than 100 levels deep. That is protobuf's own limit for messages.";
    TOO_LARGE = "too-large": "The document is too large, or becomes so when its aliases are replaced by what they stand for. Aliases of aliases grow exponentially; write what is needed once.";
    UNKNOWN_ANCHOR = "unknown-anchor": "An alias (*name) stands where no anchor (&name) of that name comes before it, or inside of it.";
    BAD_KEY = "bad-key": "A mapping key must be a scalar. Lists and mappings cannot be keys in a protobuf message.";
    BAD_MERGE = "bad-merge": "A merge key << takes a mapping, an alias to one, or a list of these.";
    MERGE_KEY = "merge-key": "A merge key << is an extension of proxyd's. Envoy refuses such a file: give it the fields written out, or allow this finding.";
    DUPLICATE_KEY = "duplicate-key": "A key stands twice in one mapping. Envoy takes the last one silently; one of the two was meant.";
    UNKNOWN_FIELD = "unknown-field": "The message has no such field. Mostly a typing error, a wrong indentation, or a field of the message around or inside.";
    REMOVED_FIELD = "removed-field": "The field was part of an older API and is spelt otherwise in v3. The hint says how.";
    UNKNOWN_TYPE = "unknown-type": "There is no message of this name in the v3 API. The type URL in @type has the form type.googleapis.com/NAME.";
    REMOVED_TYPE = "removed-type": "A type of the v2 API, which Envoy has removed. The hint names its successor; its fields may have changed as well.";
    BAD_TYPE_URL = "bad-type-url": "A type URL has the form type.googleapis.com/NAME, with a full message name after the last slash.";
    MISSING_TYPE = "missing-type": "A typed config has no @type, so that nobody knows which message its fields belong to.";
    UNKNOWN_ENUM_VALUE = "unknown-enum-value": "The enum has no such value. Names are taken in any case, numbers as well.";
    TYPE_MISMATCH = "type-mismatch": "The value has another type than the field: a list where a mapping is expected, text where a number is.";
    NEEDS_QUOTES = "needs-quotes": "A field takes text, and the value without quotes is a number or a boolean in YAML. yes, no, on, off, y and n are booleans too: put such a value in quotes.";
    BAD_DURATION = "bad-duration": "A duration is a number of seconds followed by s. Write 5s, 0.25s or 90s: there are no other units.";
    BAD_BASE64 = "bad-base64": "Bytes are written in base64. Text can be given with inline_string instead of inline_bytes.";
    OUT_OF_RANGE = "out-of-range": "A number, a time or a sum lies outside of what the field can hold or make use of.";
    CONFLICT = "conflict": "Two fields exclude each other: members of one oneof, one field under two spellings, an old and a new spelling.";
    RULE = "rule": "A message rule of the v3 API is broken (protoc-gen-validate). Envoy refuses such a message as well.";
    REQUIRED = "required": "A field that must be set is missing, or a list that must hold something is empty.";
    UNSUPPORTED_FIELD = "unsupported-field": "The field is valid in Envoy's v3 API and has no effect here yet. It is refused rather than ignored; --allow-unsupported makes it a warning.";
    UNSUPPORTED_VALUE = "unsupported-value": "The value is valid in Envoy's v3 API and not implemented here yet. --allow-unsupported does not help where nothing else could be done instead.";
    UNSUPPORTED_TYPE = "unsupported-type": "The type is valid in Envoy's v3 API and not implemented here yet: mostly a filter. --allow-unsupported leaves it out, which may leave out a protection as well.";
    UNSUPPORTED_FORMATTER = "unsupported-formatter": "A format has an operator that does not exist or is not implemented, or a % without its pair. A single % is written %%.";
    DEPRECATED = "deprecated": "The field is deprecated in the v3 API: it has its effect still, and will be removed from Envoy. The API's documentation of the field names its successor.";
    UNKNOWN_CLUSTER = "unknown-cluster": "No cluster of this file has this name. What refers to it would answer 503, or close its connections.";
    UNKNOWN_FILTER = "unknown-filter": "typed_per_filter_config has settings for a filter name that no connection manager with these routes has. They would be ignored: the key is the filter's name in http_filters.";
    DUPLICATE_NAME = "duplicate-name": "Two resources of one kind have the same name. Stats, logs and references could not tell them apart.";
    DUPLICATE_ADDRESS = "duplicate-address": "Two listeners have the same address. Only one of them could bind it.";
    DUPLICATE_DOMAIN = "duplicate-domain": "A domain is listed twice in one route configuration, so that two virtual hosts claim the same requests.";
    DUPLICATE_MATCH = "duplicate-match": "Two filter chains match the same connections.";
    FILTER_ORDER = "filter-order": "A terminal filter stands before others, which would never see anything. tcp_proxy, http_connection_manager and router come last.";
    NO_TERMINAL_FILTER = "no-terminal-filter": "The last filter of a chain must be a terminal one, or nobody answers. In a connection manager that is envoy.filters.http.router, in a filter chain tcp_proxy or http_connection_manager.";
    BAD_REGEX = "bad-regex": "The regular expression is not valid in RE2 syntax. There are no back references and no look-around.";
    BAD_SUBSTITUTION = "bad-substitution": "The substitution names a group that the pattern does not have, or has a backslash before something else than a digit or a backslash.";
    BAD_ADDRESS = "bad-address": "The address is no IP address where one is needed. Names are resolved for clusters of type STRICT_DNS and LOGICAL_DNS only.";
    BAD_HEADER_NAME = "bad-header-name": "No header can have this name, or it cannot be changed by a configuration: pseudo-headers and host.";
    BAD_HEADER_VALUE = "bad-header-value": "A header value has no NUL, carriage return or line feed. With them, one header would become two.";
    BAD_WEIGHTS = "bad-weights": "The weights of a choice add up to nothing, or to more than 4294967295.";
    MISSING_FILE = "missing-file": "A file that the configuration names cannot be read or written. --no-files skips what needs files, for a validation on another machine.";
    TOO_LONG = "too-long": "The content is longer than what limits it.";
    INVALID = "invalid": "A value or combination that cannot be used; the message says why.";
    NO_EFFECT = "no-effect": "The setting is read and has no effect where it stands. Remove it, or look for the one that was meant.";
    UNREACHABLE_ROUTE = "unreachable-route": "An earlier route takes all requests that this one matches. Routes are tried in their order, the first match wins: put the more specific one first.";
    EMPTY_VIRTUAL_HOST = "empty-virtual-host": "A virtual host has no routes, so that all its requests are answered with 404.";
    DOMAIN_NEVER_MATCHES = "domain-never-matches": "No Host header has this form: a domain has no scheme, no path and no blanks. Ports are part of a domain unless ignore_port_in_host_matching is set.";
    PATH_NEVER_MATCHES = "path-never-matches": "Paths start with a slash and are matched without their query. Query parameters are matched with query_parameters.";
    PLAIN_REGEX = "plain-regex": "The regular expression has no special character: path or exact match the same for less. If a dot was meant, it is written \\.";
    DOUBLE_SLASH = "double-slash": "The matched prefix does not end with a slash and what replaces it does: /api with prefix_rewrite / turns /api/x into //x. Match /api/ as well, or use regex_rewrite.";
    REDIRECT_LOOP = "redirect-loop": "The redirect changes nothing, so that the client comes back with the same request.";
    GRPC_OVER_HTTP1 = "grpc-over-http1": "The route takes gRPC requests and its cluster speaks HTTP/1, which has no trailers to end a call with. Give the cluster explicit_http_config with http2_protocol_options.";
    ZERO_WEIGHT = "zero-weight": "A cluster with weight 0 gets no requests.";
    UNUSED_CLUSTER = "unused-cluster": "Nothing in this file refers to the cluster. It is resolved and kept all the same.";
    EMPTY_CLUSTER = "empty-cluster": "The cluster has no endpoints, so that every request to it is answered with 503.";
    REPEATED_NAME = "repeated-name": "Two virtual hosts of one route configuration, or two filter chains of one listener, have the same name: allowed, but stats and logs do not tell them apart.";
    DUPLICATE_HOST = "duplicate-host": "An endpoint stands twice in one cluster. It gets twice its share; load_balancing_weight says so openly.";
    ENDPOINT_PORT = "endpoint-port": "Nobody can connect to port 0.";
    PROXY_LOOP = "proxy-loop": "An endpoint is the address of a listener of this file: requests would go round until something breaks.";
    NO_CAPACITY = "no-capacity": "A circuit breaker with the limit 0 lets nothing through.";
    TIMEOUT_ORDER = "timeout-order": "One timeout is over before another one can be, which then has no effect.";
    ADMIN_EXPOSED = "admin-exposed": "The admin address is not loopback: whoever reaches it reads the configuration and can stop the process. Bind it to 127.0.0.1, or use the control socket through proxyctl.";
    EDGE_BUFFER = "edge-buffer": "per_connection_buffer_limit_bytes is 1 MiB unless set: that much memory per connection for whoever asks. Envoy recommends 32768 at the edge.";
    EDGE_TIMEOUT = "edge-timeout": "A timeout against slow clients is not set on an edge listener. Envoy recommends request_headers_timeout 10s, common_http_protocol_options.idle_timeout 3600s, stream_idle_timeout 300s, and request_timeout 300s, or 0s where uploads take long.";
    EDGE_HTTP2 = "edge-http2": "HTTP/2 at the edge should have limits of its own. Envoy recommends max_concurrent_streams 100, initial_stream_window_size 65536 and initial_connection_window_size 1048576.";
    EDGE_PATH = "edge-path": "Paths are not normalised on an edge listener, so that a/../b and a//b may pass what was said of b. Set normalize_path and merge_slashes, and path_with_escaped_slashes_action to UNESCAPE_AND_REDIRECT or REJECT_REQUEST.";
    EDGE_UNDERSCORES = "edge-underscores": "Header names with underscores pass on an edge listener, and some servers take them for dashes. Set common_http_protocol_options.headers_with_underscores_action to REJECT_REQUEST.";
    EDGE_REMOTE_ADDRESS = "edge-remote-address": "An edge listener believes what clients say of their address. Set use_remote_address to true, so that x-forwarded-for tells whom it came from.";
    UNKNOWN_ALLOW = "unknown-allow": "A comment allows a code that does not exist.";
    UNUSED_ALLOW = "unused-allow": "A comment allows a finding that there is not, or an error, which cannot be allowed.";
    UNSET_VARIABLE = "unset-variable": "A ${VARIABLE} is not set in the environment and has no default. ${VARIABLE:-text} gives one; $${ stands for ${ itself.";
    BAD_VARIABLE = "bad-variable": "A ${ is not followed by a name of letters, digits and underscores and a closing brace. $${ stands for ${ itself.";
    TOO_MANY = "too-many-findings": "There are more than 1000 findings; the rest is not shown.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_and_an_explanation_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for code in Code::all() {
            assert!(names.insert(code.0), "{code} is there twice");
            assert!(code.explanation().ends_with('.') || code.explanation().ends_with("\\."), "{code}");
            assert!(code.summary().len() < 200, "{code}: {}", code.summary());
        }
        assert_eq!(Code::named("rule"), Some(Code::RULE));
        assert_eq!(Code::named("no-such"), None);
    }
}
