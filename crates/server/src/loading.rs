//! Where the configuration comes from, and reading it: at the start, and again for a reload.

use jiff::tz::TimeZone;
use proxy_config::lower::LowerOptions;
use proxy_config::lower::format::FormatFacts;
use proxy_config::{Configuration, Finding, LoadInputs, LoadOptions};
use proxy_filters::Extensions;

use crate::options::{ConfigSource, Options};

/// Can be read again and again, on any thread.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    inputs: LoadInputs,
    lowering: LowerOptions,
}

impl Source {
    pub(crate) fn new(options: &Options, extensions: &Extensions) -> Source {
        let (file, yaml_override) = match &options.config {
            ConfigSource::File { path, overlay } => (Some(path.clone()), overlay.clone()),
            ConfigSource::Inline { yaml } | ConfigSource::Built { yaml } => (None, Some(yaml.clone())),
        };
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let lowering = LowerOptions {
            service_node: given(&options.node.id),
            service_cluster: given(&options.node.cluster),
            service_zone: given(&options.node.zone),
            facts: FormatFacts {
                hostname: nix::unistd::gethostname()
                    .map_or_else(|_| "-".into(), |name| name.to_string_lossy().into()),
                environment: |name| std::env::var(name).ok(),
                time_zone: TimeZone::system(),
            },
            ..LowerOptions::default()
        };
        let options = LoadOptions {
            allow_unsupported: options.allow_unsupported,
            extensions: extensions.types(),
            environment: options.environment.clone(),
            lint: None,
        };
        Source { inputs: LoadInputs { file, yaml_override, options }, lowering }
    }

    /// Reads it, and the files that it names.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn load(&self) -> Result<Configuration, Vec<Finding>> {
        proxy_config::load(&self.inputs, &self.lowering)
    }
}
