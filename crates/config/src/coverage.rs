//! How much of the v3 API is supported, message by message.

use crate::schema;
use crate::supported::FieldSupport;

/// What is supported of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// Its full name.
    pub message: String,
    pub supported: Vec<String>,
    /// Valid in the v3 API, and refused here.
    pub missing: Vec<String>,
}

/// Every message of which something is supported, by name.
pub fn coverage() -> Vec<Coverage> {
    let mut names: Vec<&String> = schema::type_names().iter().collect();
    names.sort_unstable();
    let messages = names.into_iter().filter_map(|name| schema::message(name));
    let covered = messages.filter_map(|message| {
        let support = message.support?;
        let names = message.fields.iter().map(|field| field.name.clone());
        let (missing, supported) = names.partition(|name| matches!(support.field(name), FieldSupport::No));
        Some(Coverage { message: message.name.clone(), supported, missing })
    });
    covered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_supported_or_missing() {
        let all = coverage();
        let bootstrap =
            all.iter().find(|covered| covered.message == "envoy.config.bootstrap.v3.Bootstrap").unwrap();
        assert!(bootstrap.supported.contains(&"static_resources".to_owned()));
        assert!(bootstrap.missing.contains(&"perf_tracing_file_path".to_owned()));
    }
}
