//! What the answers of Envoy's admin handlers have in common.

use serde_json::Value;

/// A `envoy.config.core.v3.Address` in JSON, as it is typed.
#[must_use]
pub fn address(message: &Value) -> String {
    let (socket, pipe) = (&message["socket_address"], &message["pipe"]["path"]);
    match (socket["address"].as_str(), pipe.as_str()) {
        (Some(ip), _) if ip.contains(':') => format!("[{ip}]:{}", socket["port_value"]),
        (Some(ip), _) => format!("{ip}:{}", socket["port_value"]),
        (None, Some(path)) => path.to_owned(),
        (None, None) => message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_read_as_they_are_typed() {
        let socket = |ip: &str| json!({ "socket_address": { "address": ip, "port_value": 80 } });
        assert_eq!(address(&socket("127.0.0.1")), "127.0.0.1:80");
        assert_eq!(address(&socket("::1")), "[::1]:80");
        assert_eq!(address(&json!({ "pipe": { "path": "/run/x" } })), "/run/x");
    }
}
