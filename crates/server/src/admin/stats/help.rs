//! One sentence about a metric, for OpenMetrics' `# HELP`.

/// What is said of the metric that has this name without its tags.
pub(super) fn text(name: &str) -> String {
    let mut rest = Some(name);
    while let Some(ending) = rest {
        if let Ok(found) = TEXTS.binary_search_by_key(&ending, |(known, _)| known) {
            return format!("{} ({name})", TEXTS[found].1);
        }
        rest = ending.split_once('.').map(|(_, rest)| rest);
    }
    format!("Envoy's {}", name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// By name, or by what it ends in after a dot.
const TEXTS: &[(&str, &str)] = &[
    ("active_clusters", "Clusters that are in use"),
    ("bind_errors", "Upstream sockets that could not be bound to their source address"),
    ("circuit_breakers.default.cx_open", "Whether the limit of connections is reached"),
    ("circuit_breakers.default.remaining_cx", "Connections that may still be opened"),
    ("circuit_breakers.default.remaining_pending", "Requests that may still wait for a connection"),
    ("circuit_breakers.default.remaining_retries", "Retries that may still be under way"),
    ("circuit_breakers.default.remaining_rq", "Requests that may still be under way"),
    ("circuit_breakers.default.rq_open", "Whether the limit of requests is reached"),
    ("circuit_breakers.default.rq_pending_open", "Whether the limit of waiting requests is reached"),
    ("circuit_breakers.default.rq_retry_open", "Whether the limit of retries is reached"),
    ("cluster_added", "Clusters added"),
    ("cluster_modified", "Clusters changed"),
    ("cluster_removed", "Clusters removed"),
    ("concurrency", "Worker threads"),
    ("connections_accepted_per_socket_event", "Connections accepted at one wake-up"),
    ("downstream_cx_active", "Open connections from clients"),
    ("downstream_cx_delayed_close_timeout", "Connections whose client did not close in time"),
    ("downstream_cx_destroy", "Closed connections from clients"),
    ("downstream_cx_destroy_active_rq", "Connections closed with a request under way"),
    ("downstream_cx_destroy_local", "Connections that the proxy closed"),
    ("downstream_cx_destroy_local_active_rq", "Connections that the proxy closed with a request under way"),
    ("downstream_cx_destroy_remote", "Connections that the client closed"),
    ("downstream_cx_destroy_remote_active_rq", "Connections that the client closed with a request under way"),
    ("downstream_cx_drain_close", "Connections closed because of draining"),
    ("downstream_cx_http1_active", "Open HTTP/1 connections from clients"),
    ("downstream_cx_http1_total", "HTTP/1 connections from clients"),
    ("downstream_cx_http2_active", "Open HTTP/2 connections from clients"),
    ("downstream_cx_http2_total", "HTTP/2 connections from clients"),
    ("downstream_cx_idle_timeout", "Connections closed because they were idle"),
    ("downstream_cx_length_ms", "How long connections from clients lasted"),
    ("downstream_cx_max_duration_reached", "Connections closed because of their age"),
    ("downstream_cx_max_requests_reached", "Connections closed because of the number of their requests"),
    ("downstream_cx_overflow", "Connections refused because the listener had too many"),
    ("downstream_cx_protocol_error", "Connections with a protocol error of the client"),
    ("downstream_cx_rx_bytes_buffered", "Bytes received from clients and not yet passed on"),
    ("downstream_cx_rx_bytes_total", "Bytes received from clients"),
    ("downstream_cx_total", "Connections from clients"),
    ("downstream_cx_tx_bytes_buffered", "Bytes for clients that are not yet sent"),
    ("downstream_cx_tx_bytes_total", "Bytes sent to clients"),
    ("downstream_pre_cx_active", "Sockets that listener filters look at"),
    ("downstream_pre_cx_timeout", "Sockets closed because listener filters took too long"),
    ("downstream_rq_active", "Requests under way"),
    ("downstream_rq_completed", "Requests that were answered"),
    ("downstream_rq_http1_total", "HTTP/1 requests"),
    ("downstream_rq_http2_total", "HTTP/2 requests"),
    ("downstream_rq_idle_timeout", "Requests ended because nothing moved"),
    ("downstream_rq_response_before_rq_complete", "Responses sent before the request was whole"),
    ("downstream_rq_rx_reset", "Requests that clients reset"),
    ("downstream_rq_time", "From the first byte of a request to the last of its response, in milliseconds"),
    ("downstream_rq_timeout", "Requests that did not come in time"),
    ("downstream_rq_too_large", "Requests whose body was too large"),
    ("downstream_rq_total", "Requests from clients"),
    ("downstream_rq_tx_reset", "Requests that the proxy reset"),
    ("downstream_rq_xx", "Responses by class of their code"),
    ("dropped_headers_with_underscores", "Header lines dropped because of an underscore in their name"),
    ("dropped_stat_flushes", "Flushes of stats that came before the one before was done"),
    ("flushed_by_timer", "Writes of log buffers because time was up"),
    ("hot_restart_epoch", "Number of the process in its line of hot restarts"),
    ("initialization_time_ms", "How long the start took"),
    ("lb_healthy_panic", "Choices among all hosts because too few were healthy"),
    ("listener_added", "Listeners added"),
    ("listener_create_failure", "Listeners that a worker could not take up"),
    ("listener_create_success", "Listeners that workers took up"),
    ("listener_modified", "Listeners changed"),
    ("listener_removed", "Listeners removed"),
    ("live", "Whether the server accepts connections and is not draining"),
    ("membership_change", "Changes of the hosts of a cluster"),
    ("membership_degraded", "Degraded hosts"),
    ("membership_excluded", "Hosts that no choice takes into account"),
    ("membership_healthy", "Healthy hosts"),
    ("membership_total", "Hosts"),
    ("memory_allocated", "Bytes in use by the program"),
    ("memory_heap_size", "Bytes taken from the system"),
    ("memory_physical_size", "Resident bytes"),
    ("no_cluster", "Requests whose route names a cluster that does not exist"),
    ("no_filter_chain_match", "Connections that no filter chain is for"),
    ("no_route", "Requests that no route is for"),
    ("parent_connections", "Open connections of the process before this one"),
    ("reopen_failed", "Log files that could not be opened again"),
    ("retry_or_shadow_abandoned", "Retries given up because the body was too large to keep"),
    ("rq_direct_response", "Requests that a route answered itself"),
    ("rq_redirect", "Requests that a route redirected"),
    ("rq_total", "Requests that reached the router"),
    ("server.state", "0: live, 1: draining, 2: before initialization, 3: initializing"),
    ("server.version", "Number of the build"),
    ("total_connections", "Open connections of all processes"),
    ("total_listeners_active", "Listeners that accept"),
    ("total_listeners_draining", "Listeners that drain"),
    ("total_listeners_warming", "Listeners that wait for what they need"),
    ("update_attempt", "Attempts to learn a new configuration or new hosts"),
    ("update_failure", "Attempts that failed"),
    ("update_no_rebuild", "New lists of hosts that changed nothing"),
    ("update_rejected", "Configurations that could not be used"),
    ("update_success", "Attempts that succeeded"),
    ("upstream_cx_active", "Open connections to hosts"),
    ("upstream_cx_connect_fail", "Connections to hosts that failed"),
    ("upstream_cx_connect_ms", "How long connecting to hosts took"),
    ("upstream_cx_connect_timeout", "Connections to hosts that took too long"),
    ("upstream_cx_destroy", "Closed connections to hosts"),
    ("upstream_cx_destroy_local", "Connections to hosts that the proxy closed"),
    ("upstream_cx_destroy_remote", "Connections that the host closed"),
    ("upstream_cx_http1_total", "HTTP/1 connections to hosts"),
    ("upstream_cx_http2_total", "HTTP/2 connections to hosts"),
    ("upstream_cx_idle_timeout", "Connections to hosts closed because they were idle"),
    ("upstream_cx_length_ms", "How long connections to hosts lasted"),
    ("upstream_cx_max_requests", "Connections to hosts closed because of the number of their requests"),
    ("upstream_cx_none_healthy", "Requests that found no healthy host"),
    ("upstream_cx_overflow", "Times that the limit of connections was reached"),
    ("upstream_cx_pool_overflow", "Times that the limit of connection pools was reached"),
    ("upstream_cx_protocol_error", "Connections with a protocol error of the host"),
    ("upstream_cx_rx_bytes_buffered", "Bytes received from hosts and not yet passed on"),
    ("upstream_cx_rx_bytes_total", "Bytes received from hosts"),
    ("upstream_cx_total", "Connections to hosts"),
    ("upstream_cx_tx_bytes_buffered", "Bytes for hosts that are not yet sent"),
    ("upstream_cx_tx_bytes_total", "Bytes sent to hosts"),
    ("upstream_flush_active", "Upstream connections being emptied after their client left"),
    ("upstream_rq", "Responses of hosts by code"),
    ("upstream_rq_active", "Requests under way to hosts"),
    ("upstream_rq_cancelled", "Requests given up before they got a connection"),
    ("upstream_rq_completed", "Requests that hosts answered"),
    ("upstream_rq_pending_active", "Requests that wait for a connection"),
    ("upstream_rq_pending_failure_eject", "Requests that failed with the connection they waited for"),
    ("upstream_rq_pending_overflow", "Requests refused because too many waited or were under way"),
    ("upstream_rq_pending_total", "Requests that waited for a connection"),
    ("upstream_rq_per_cx", "Requests that a connection carried"),
    ("upstream_rq_per_try_timeout", "Tries that took too long"),
    ("upstream_rq_retry", "Retries"),
    ("upstream_rq_retry_limit_exceeded", "Requests not retried because they had been often enough"),
    ("upstream_rq_retry_overflow", "Requests not retried because too many retries were under way"),
    ("upstream_rq_retry_success", "Retries that succeeded"),
    ("upstream_rq_rx_reset", "Requests that hosts reset"),
    ("upstream_rq_time", "From a request to the end of its response, in milliseconds"),
    ("upstream_rq_timeout", "Requests that hosts did not answer in time"),
    ("upstream_rq_total", "Requests to hosts"),
    ("upstream_rq_tx_reset", "Requests to hosts that the proxy reset"),
    ("upstream_rq_xx", "Responses of hosts by class of their code"),
    ("uptime", "Seconds since the start"),
    ("warming_clusters", "Clusters that wait for their hosts"),
    ("watchdog_mega_miss", "Times that a thread hung for long"),
    ("watchdog_miss", "Times that a thread hung"),
    ("workers_started", "Whether the workers run"),
    ("write_buffered", "Lines put into log buffers"),
    ("write_completed", "Log buffers written"),
    ("write_failed", "Log buffers that could not be written"),
    ("write_total_buffered", "Bytes in log buffers"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(TEXTS.is_sorted_by(|one, other| one.0 < other.0));
    }

    #[test]
    fn names_are_found_by_their_end() {
        assert_eq!(text("cluster.upstream_cx_total"), "Connections to hosts (cluster.upstream_cx_total)");
        assert_eq!(
            text("listener.http.downstream_rq_xx"),
            "Responses by class of their code (listener.http.downstream_rq_xx)"
        );
        assert_eq!(text("a\"b"), "Envoy's a\\\"b");
    }
}
