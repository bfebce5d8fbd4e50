use super::*;

/// The name without tags, then its tags as Envoy 1.40's `/stats/prometheus` showed them.
fn taken_apart(name: &str) -> String {
    let extractor = TagExtractor::default();
    shown(&extractor.extract(name))
}

fn shown(extracted: &Extracted<'_>) -> String {
    let tags: Vec<_> = extracted.tags.iter().map(|tag| format!("{}={}", tag.name, tag.value)).collect();
    format!("{} {}", extracted.name, tags.join(","))
}

#[test]
fn names_of_envoy_are_taken_apart_as_envoy_does() {
    for (name, expected) in [
        ("server.live", "server.live "),
        ("cluster.one.upstream_rq_200", "cluster.upstream_rq envoy.response_code=200,envoy.cluster_name=one"),
        (
            "cluster.one.external.upstream_rq_4xx",
            "cluster.external.upstream_rq_xx envoy.response_code_class=4,envoy.cluster_name=one",
        ),
        ("cluster.one.upstream_rq_total", "cluster.upstream_rq_total envoy.cluster_name=one"),
        (
            "cluster.one.circuit_breakers.high.cx_open",
            "cluster.circuit_breakers.high.cx_open envoy.cluster_name=one",
        ),
        ("cluster.one", "cluster.one "),
        (
            "http.in.downstream_rq_2xx",
            "http.downstream_rq_xx envoy.response_code_class=2,envoy.http_conn_manager_prefix=in",
        ),
        ("http.in.fault.active_faults", "http.fault.active_faults envoy.http_conn_manager_prefix=in"),
        (
            "http.in.rds.a.b.update_attempt",
            "http.rds.update_attempt envoy.rds_route_config=a.b,envoy.http_conn_manager_prefix=in",
        ),
        (
            "http.in.rbac.rules.policy.p.allowed",
            "http.rbac.policy.allowed envoy.rbac_policy_name=p,envoy.rbac_http_prefix=rules,envoy.http_conn_manager_prefix=in",
        ),
        ("net.rbac.allowed", "rbac.allowed envoy.rbac_prefix=net"),
        (
            "listener.127.0.0.1_80.worker_1.downstream_cx_total",
            "listener.worker_downstream_cx_total envoy.worker_id=1,envoy.listener_address=127.0.0.1_80",
        ),
        (
            "listener.[__1]_80.http.in.downstream_rq_5xx",
            "listener.http.downstream_rq_xx envoy.response_code_class=5,envoy.http_conn_manager_prefix=in,\
             envoy.listener_address=[__1]_80",
        ),
        (
            "listener.my.own.worker_1.downstream_cx_total",
            "listener.own.worker_1.downstream_cx_total envoy.listener_address=my",
        ),
        (
            "listener.admin.http.admin.downstream_rq_1xx",
            "listener.admin.http.downstream_rq_xx envoy.response_code_class=1,envoy.http_conn_manager_prefix=admin",
        ),
        (
            "listener.0.0.0.0_80.ssl.versions.TLSv1.3",
            "listener.ssl.versions envoy.ssl_version=TLSv1.3,envoy.listener_address=0.0.0.0_80",
        ),
        ("server.worker_0.watchdog_miss", "server.worker_watchdog_miss envoy.worker_id=0"),
        (
            "vhost.v.vcluster.c.upstream_rq_200",
            "vhost.vcluster.upstream_rq envoy.response_code=200,envoy.virtual_cluster=c,envoy.virtual_host=v",
        ),
        (
            "vhost.v.route.r.upstream_rq_time",
            "vhost.route.upstream_rq_time envoy.virtual_host=v,envoy.route=r",
        ),
        ("tcp.one.downstream_cx_total", "tcp.downstream_cx_total envoy.tcp_prefix=one"),
        (
            "proxy_proto.p.versions.v1.found",
            "proxy_proto.found envoy.proxy_protocol_prefix=p,envoy.proxy_protocol_version=1",
        ),
        ("proxy_proto.versions.v2.error", "proxy_proto.error envoy.proxy_protocol_version=2"),
        (
            "limit.http_local_rate_limit.ok",
            "http_local_rate_limit.ok envoy.local_http_ratelimit_prefix=limit",
        ),
        ("sds.cert.version", "sds.version envoy.xds_resource_name=cert"),
        (
            "mongo.m.collection.c.callsite.s.query.num",
            "mongo.collection.callsite.query.num envoy.mongo_callsite=s,envoy.mongo_collection=c,envoy.mongo_prefix=m",
        ),
        (
            "mongo.m.collection.c.query.num",
            "mongo.collection.query.num envoy.mongo_collection=c,envoy.mongo_prefix=m",
        ),
    ] {
        assert_eq!(taken_apart(name), expected, "{name}");
    }
}

#[test]
fn rules_of_the_configuration_come_where_envoy_has_them() {
    let regex = |text: &str| Regex::new(text).unwrap();
    let own = [
        TagRule::regex("one_group", regex(r"^tcp\.([^.]*\.)")),
        TagRule::fixed("fixed", "constant"),
        TagRule::regex("anywhere", regex("(_(ms))$")),
        TagRule::regex("no_group", regex("one")),
        TagRule::regex("envoy.cluster_name", regex(r"^cluster\.((never)\.)")),
    ];
    let extractor = TagExtractor::new(TagRule::defaults().into_iter().chain(own));
    let shown = |name: &str| shown(&extractor.extract(name));
    assert_eq!(shown("tcp.one.total"), "tcp.total fixed=constant,envoy.tcp_prefix=one,one_group=one");
    assert_eq!(
        shown("cluster.never.connect_ms"),
        "cluster.connect fixed=constant,anywhere=ms,envoy.cluster_name=never"
    );
    assert_eq!(TagExtractor::new([]).extract("tcp.one.total").tags, []);
}

#[test]
fn no_name_is_too_strange() {
    let extractor = TagExtractor::default();
    for name in
        ["", ".", "..", "cluster.", "cluster..", "cluster..x", "_rq_", "_rq_é00", "xx", "tcp.é.ü", "a.rbac."]
    {
        let extracted = extractor.extract(name);
        assert!(extracted.name.len() <= name.len());
    }
}
