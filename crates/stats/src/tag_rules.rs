//! Envoy 1.40's default tags. The order of a table is the order in which tags of one name are shown.

use regex::Regex;

use crate::tags::TagRule;

pub(crate) fn default_rules() -> Vec<TagRule> {
    let codes = [
        TagRule::response_code("envoy.response_code"),
        TagRule::response_code_class("envoy.response_code_class"),
    ];
    let expressions = EXPRESSIONS
        .iter()
        .map(|(tag, expression, needs, never)| TagRule::regex_where(tag, compile(expression), needs, never));
    let parts = PARTS.iter().map(|(tag, pattern)| TagRule::parts(tag, pattern));
    codes.into_iter().chain(expressions).chain(parts).collect()
}

/// `<word>` stands for an expression that several rules have.
fn compile(expression: &str) -> Regex {
    let expanded =
        SHORTHANDS.iter().fold(expression.to_owned(), |text, (word, meaning)| text.replace(word, meaning));
    Regex::new(&expanded).expect("a test compiles every expression of the table")
}

const SHORTHANDS: &[(&str, &str)] = &[
    ("<address>", r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[a-fA-F_0-9]+\])_[0-9]+"),
    ("<listener or cluster>", r"(?:listener|cluster)\..*?"),
    ("<part>", r"[^.]+"),
    ("<cipher>", r"[\w-]+"),
];

/// Tag, expression, what a name must contain to be looked at, a value that does not count.
const EXPRESSIONS: &[(&str, &str, &str, &str)] = &[
    (
        "envoy.dynamo_partition_id",
        r"^http\.<part>\.dynamodb\.table\.<part>\.capacity\.<part>(\.__partition_id=(\w{7}))$",
        ".dynamodb.table.",
        "",
    ),
    (
        "envoy.dynamo_operation",
        r"^http\.<part>\.dynamodb\.(?:operation|table\.<part>\.capacity)(\.(<part>))(?:\.|$)",
        ".dynamodb.",
        "",
    ),
    ("envoy.dynamo_table", r"^http\.<part>\.dynamodb\.(?:table|error)\.((<part>)\.)", ".dynamodb.", ""),
    ("envoy.ssl_cipher", r"^listener\..*?\.ssl\.ciphers(\.(<cipher>))$", ".ssl.ciphers.", ""),
    ("envoy.ssl_curve", r"^<listener or cluster>\.ssl\.curves(\.(<cipher>))$", ".ssl.curves.", ""),
    ("envoy.ssl_sigalg", r"^<listener or cluster>\.ssl\.sigalgs(\.(<cipher>))$", ".ssl.sigalgs.", ""),
    ("envoy.ssl_version", r"^<listener or cluster>\.ssl\.versions(\.(TLSv\d\.\d))$", ".ssl.versions.", ""),
    (
        "envoy.tls_certificate",
        r"^<listener or cluster>\.ssl\.certificate\.((<part>)\.).*$",
        ".ssl.certificate.",
        "",
    ),
    ("envoy.ssl_cipher_suite", r"^cluster\.<part>\.ssl\.ciphers(\.(<cipher>))$", ".ssl.ciphers.", ""),
    ("envoy.http_conn_manager_prefix", r"^listener\..*?\.http\.((<part>)\.)", ".http.", ""),
    (
        "envoy.worker_id",
        r"^(?:listener\.(?:<address>|<part>)|server|listener_manager|thread_local_cluster_manager)\.worker_((\d+)\.)",
        ".worker_",
        "",
    ),
    ("envoy.listener_address", r"^listener\.((<address>|<part>)\.)", "", "admin"),
    ("envoy.rds_route_config", r"^http\.<part>\.rds\.(([\w.-]+)\.)\w+?$", ".rds.", ""),
    ("envoy.scoped_rds_config", r"^http\.<part>\.scoped_rds\.(([\w./-]+)\.)\w+?$", ".scoped_rds.", ""),
    (
        "envoy.rbac_policy_name",
        r"^http\.<part>\.rbac\.(?:<part>\.)?policy\.((<part>)\.)(?:allowed|shadow_allowed|denied|shadow_denied)$",
        ".rbac.",
        "",
    ),
    ("envoy.rbac_http_prefix", r"^http\.<part>\.rbac\.((<part>)\.)", ".rbac.", "policy"),
    ("envoy.proxy_protocol_prefix", r"^proxy_proto\.((<part>)\.).+$", "", "versions"),
    ("envoy.proxy_protocol_version", r"^proxy_proto\.((?:<part>\.)?versions\.v(\d)\.)\w+$", ".v", ""),
    ("envoy.xds_resource_name", r"^sds\.((<part>)\.).+", "", ""),
    (
        "envoy.health_check_name",
        r"^cluster\.<part>\.health_check(\.name\.(<part>))\..+",
        ".health_check.",
        "",
    ),
];

const PARTS: &[(&str, &str)] = &[
    ("envoy.mongo_callsite", "mongo.*.collection.*.callsite.$.query.**"),
    ("envoy.mongo_collection", "mongo.*.collection.$.**.query.*"),
    ("envoy.mongo_cmd", "mongo.*.cmd.$.**"),
    ("envoy.grpc_bridge_method", "cluster.*.grpc.*.$.**"),
    ("envoy.http_user_agent", "http.*.user_agent.$.**"),
    ("envoy.virtual_cluster", "vhost.*.vcluster.$.**"),
    ("envoy.fault_downstream_cluster", "http.*.fault.$.**"),
    ("envoy.grpc_bridge_service", "cluster.*.grpc.$.**"),
    ("envoy.tcp_prefix", "tcp.$.**"),
    ("envoy.udp_prefix", "udp.$.**"),
    ("envoy.clientssl_prefix", "auth.clientssl.$.**"),
    ("envoy.ratelimit_prefix", "ratelimit.$.**"),
    ("envoy.cluster_name", "cluster.$.**"),
    ("envoy.ext_authz_prefix", "cluster.*.ext_authz.$.**"),
    ("envoy.ext_authz_prefix", "http.*.ext_authz.$.**"),
    ("envoy.http_conn_manager_prefix", "http.$.**"),
    ("envoy.virtual_host", "vhost.$.**"),
    ("envoy.mongo_prefix", "mongo.$.**"),
    ("envoy.route", "vhost.*.route.$.**"),
    ("envoy.thrift_prefix", "thrift.$.**"),
    ("envoy.redis_prefix", "redis.$.**"),
    ("envoy.local_http_ratelimit_prefix", "$.http_local_rate_limit.**"),
    ("envoy.local_network_ratelimit_prefix", "local_rate_limit.$.**"),
    ("envoy.local_listener_ratelimit_prefix", "listener_local_ratelimit.$.**"),
    ("envoy.dns_filter_prefix", "dns_filter.$.**"),
    ("envoy.connection_limit_prefix", "connection_limit.$.**"),
    ("envoy.rbac_prefix", "$.rbac.**"),
];
