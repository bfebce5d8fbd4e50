//! Levels and components: Envoy's names, and which of our modules they stand for.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Envoy's log levels. Nothing is logged as critical, so `Critical` shows as little as `Off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    Trace,
    Debug,
    #[default]
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

impl Level {
    pub const ALL: [Self; 7] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical, Self::Off];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }

    /// What h2 warns about is what peers do, a line for every connection that floods: counters say that, and debug does.
    fn filter_of(self, target: &str) -> LevelFilter {
        match self {
            Self::Info | Self::Warning if target == "h2" => LevelFilter::ERROR,
            _ => self.filter(),
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warning => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
            Self::Critical | Self::Off => LevelFilter::OFF,
        }
    }
}

/// Not one of [`Level::ALL`]; `warn` is accepted for `warning`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log level {0:?}, expected one of: trace, debug, info, warning, error, critical, off")]
pub struct UnknownLevel(String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = if text == "warn" { "warning" } else { text };
        Self::ALL.into_iter().find(|level| level.name() == name).ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A name by which levels are set, and the modules that log under it.
#[derive(Debug, PartialEq, Eq)]
pub struct Component {
    pub name: &'static str,
    /// Path prefixes of `tracing` targets.
    targets: &'static [&'static str],
}

/// All components, by name. `misc` is whatever no other covers.
pub const COMPONENTS: &[Component] = &[
    Component { name: "admin", targets: &["proxy_server::admin", "proxy_server::control_socket"] },
    Component { name: "config", targets: &["proxy_config", "proxy_server::config"] },
    Component { name: "conn_handler", targets: &["proxy_server::listeners", "proxy_net::listener"] },
    Component { name: "connection", targets: &["proxy_net"] },
    Component {
        name: "dns",
        targets: &["proxy_upstream::dns", "hickory_resolver", "hickory_net", "hickory_proto"],
    },
    Component { name: "filter", targets: &["proxy_filters"] },
    Component { name: "http", targets: &["proxy_http"] },
    Component { name: "http2", targets: &["proxy_http::h2", "h2"] },
    Component { name: "main", targets: &["proxy_server", "proxyd"] },
    Component { name: "misc", targets: &[] },
    Component { name: "pool", targets: &["proxy_upstream::pool"] },
    Component { name: "router", targets: &["proxy_filters::router"] },
    Component { name: "runtime", targets: &["proxy_runtime"] },
    Component { name: "stats", targets: &["proxy_stats"] },
    Component { name: "tcp", targets: &["proxy_filters::tcp_proxy"] },
    Component { name: "upstream", targets: &["proxy_upstream", "proxy_server::clusters"] },
];

/// The component that `target` logs under: the one of that name, or the one with the longest prefix of whole path segments.
pub(super) fn component_of(target: &str) -> &'static str {
    if let Some(named) = COMPONENTS.iter().find(|component| component.name == target) {
        return named.name;
    }
    let covers = |prefix: &str| {
        target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let all = COMPONENTS
        .iter()
        .flat_map(|component| component.targets.iter().map(move |prefix| (prefix, component)));
    all.filter(|(prefix, _)| covers(prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .map_or(MISC, |(_, found)| found.name)
}

/// `name:level,name:level`, as `--component-log-level` and `/logging?paths=` take it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComponentLevels(Vec<(&'static str, Level)>);

/// What is wrong with a list of components.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownComponent {
    #[error("expected NAME:LEVEL, got {0:?}")]
    Form(String),
    #[error("unknown component {0:?}, expected one of: {names}", names = component_names())]
    Name(String),
    #[error(transparent)]
    Level(#[from] UnknownLevel),
}

impl ComponentLevels {
    /// One component.
    ///
    /// # Errors
    /// The name or the level is not known.
    pub fn one(name: &str, level: &str) -> Result<Self, UnknownComponent> {
        let level = level.parse()?;
        let found = COMPONENTS.iter().find(|component| component.name == name);
        let component = found.ok_or_else(|| UnknownComponent::Name(name.to_owned()))?;
        Ok(Self(vec![(component.name, level)]))
    }
}

impl FromStr for ComponentLevels {
    type Err = UnknownComponent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let pair = item.split_once(':').filter(|(name, level)| !name.is_empty() && !level.is_empty());
            let (name, level) = pair.ok_or_else(|| UnknownComponent::Form(item.to_owned()))?;
            all.0.extend(Self::one(name, level)?.0);
        }
        Ok(all)
    }
}

impl fmt::Display for ComponentLevels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<_> = self.0.iter().map(|(name, level)| format!("{name}:{level}")).collect();
        formatter.write_str(&items.join(","))
    }
}

/// The level of each component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels(Vec<(&'static str, Level)>);

impl Levels {
    pub(super) fn new(level: Level, components: &ComponentLevels) -> Self {
        let mut levels = Self(COMPONENTS.iter().map(|component| (component.name, level)).collect());
        levels.set(components);
        levels
    }

    /// Components and their levels, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Level)> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn set_all(&mut self, level: Level) {
        self.0.iter_mut().for_each(|(_, now)| *now = level);
    }

    pub(super) fn set(&mut self, components: &ComponentLevels) {
        for (name, level) in &components.0 {
            self.0.iter_mut().filter(|(known, _)| known == name).for_each(|(_, now)| *now = *level);
        }
    }

    pub(super) fn targets(&self) -> Targets {
        // An event may also name its component as target.
        let named = self.0.iter().map(|(name, level)| (*name, level.filter()));
        let mut targets = Targets::new().with_targets(named);
        for (component, (_, level)) in COMPONENTS.iter().zip(&self.0) {
            match component.name {
                MISC => targets = targets.with_default(level.filter()),
                _ => {
                    let filters = component.targets.iter().map(|target| (*target, level.filter_of(target)));
                    targets = targets.with_targets(filters);
                }
            }
        }
        targets
    }
}

fn component_names() -> String {
    COMPONENTS.iter().map(|component| component.name).collect::<Vec<_>>().join(", ")
}

const MISC: &str = "misc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_belongs_to_its_most_specific_component() {
        for (target, component) in [
            ("proxy_upstream::dns", "dns"),
            ("proxy_upstream::dns::cache", "dns"),
            ("proxy_upstream::dnssec", "upstream"),
            ("proxy_server::admin::stats", "admin"),
            ("proxy_server", "main"),
            ("h2::codec", "http2"),
            ("h2o", "misc"),
            ("main", "main"),
            ("mio::poll", "misc"),
        ] {
            assert_eq!(component_of(target), component, "{target}");
        }
    }

    #[test]
    fn component_lists_say_what_is_wrong_with_them() {
        assert_eq!(
            "dns:trace,http:warn".parse::<ComponentLevels>().unwrap().to_string(),
            "dns:trace,http:warning"
        );
        assert_eq!("".parse::<ComponentLevels>().unwrap(), ComponentLevels::default());
        let error = |text: &str| text.parse::<ComponentLevels>().unwrap_err().to_string();
        assert_eq!(error("dns"), "expected NAME:LEVEL, got \"dns\"");
        assert!(error("dsn:info").starts_with("unknown component \"dsn\", expected one of: admin, config,"));
        assert!(error("dns:loud").starts_with("unknown log level \"loud\""));
    }

    #[test]
    fn components_are_sorted_and_filters_follow_them() {
        assert!(COMPONENTS.is_sorted_by_key(|component| component.name));
        let levels = Levels::new(Level::Warning, &"dns:trace,misc:off".parse().unwrap());
        let targets = levels.targets();
        assert!(targets.would_enable("proxy_upstream::dns", &tracing::Level::TRACE));
        assert!(targets.would_enable("proxy_upstream", &tracing::Level::WARN));
        assert!(!targets.would_enable("proxy_upstream", &tracing::Level::INFO));
        assert!(!targets.would_enable("mio", &tracing::Level::ERROR));
        assert!(targets.would_enable("dns", &tracing::Level::TRACE));
        assert!(!targets.would_enable("main", &tracing::Level::INFO));
    }

    #[test]
    fn peers_that_flood_do_not_fill_the_log() {
        let h2 = |level: Level| level.filter_of("h2");
        assert_eq!((h2(Level::Info), h2(Level::Warning)), (LevelFilter::ERROR, LevelFilter::ERROR));
        assert_eq!((h2(Level::Debug), h2(Level::Off)), (LevelFilter::DEBUG, LevelFilter::OFF));
        assert_eq!(Level::Info.filter_of("proxy_http::h2"), LevelFilter::INFO);
    }
}
