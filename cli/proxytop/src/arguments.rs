//! The command line as it is typed. Knows nothing but clap: manual pages and completions are made from it as well.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

/// Shows what a proxy is doing, now
///
/// Reads the counters of proxyd in shared memory, so that it costs the daemon nothing, works while the daemon hangs, and shows
/// the last state of one that was killed. What memory does not hold (hosts, routes) is asked for while it is shown. With --admin
/// it works on a proxyd or an Envoy anywhere.
#[derive(Debug, Parser)]
#[command(name = "proxytop", version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The instance with this base-id [default: the only one there is, or a list to choose from]
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["admin", "replay"])]
    pub(crate) base_id: Option<u32>,

    /// Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["admin", "replay"])]
    pub(crate) run_dir: Option<PathBuf>,

    /// Directory of the counters, in memory
    #[arg(long, value_name = "DIRECTORY", default_value = "/dev/shm")]
    pub(crate) shm_dir: PathBuf,

    /// Asks an admin port instead, such as host:9901: of a proxyd on another host, or of an Envoy
    #[arg(long, value_name = "URL", conflicts_with = "replay")]
    pub(crate) admin: Option<String>,

    /// Time between two looks, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "1")]
    pub(crate) interval: Interval,

    /// Prints one frame as text and ends
    #[arg(long, conflicts_with = "json")]
    pub(crate) once: bool,

    /// Prints one look as JSON and ends
    #[arg(long)]
    pub(crate) json: bool,

    /// The pane to begin with, by its key or its name
    #[arg(long, value_name = "PANE")]
    pub(crate) pane: Option<String>,

    /// Size of the frame that --once prints
    #[arg(long, value_name = "COLUMNSxLINES")]
    pub(crate) size: Option<Size>,

    /// Keeps every look in a file, for --replay
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub(crate) record: Option<PathBuf>,

    /// Shows what was recorded; the keys [ ] { } go through time
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,

    /// The access log to follow [default: the first file that the configuration names]
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,

    /// Allows actions: drain, health checks failed or passed, log levels, hot restart. Each asks before it is done
    #[arg(long, conflicts_with = "replay")]
    pub(crate) allow_actions: bool,

    /// Draws with ASCII characters only
    #[arg(long)]
    pub(crate) ascii: bool,
}

/// Between two looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interval(pub(crate) Duration);

impl FromStr for Interval {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
        seconds
            .map(|seconds| Self(Duration::from_secs_f64(seconds)))
            .ok_or("0.1 to 3600 seconds are expected")
    }
}

/// Of a frame, in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) lines: u16,
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let size = text.split_once('x').and_then(|(columns, lines)| {
            let size = Self { columns: columns.parse().ok()?, lines: lines.parse().ok()? };
            ((80..=1000).contains(&size.columns) && (24..=1000).contains(&size.lines)).then_some(size)
        });
        size.ok_or("expected columns and lines, at least 80x24")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_and_intervals_have_bounds() {
        assert_eq!("120x40".parse(), Ok(Size { columns: 120, lines: 40 }));
        for text in ["", "80", "79x24", "80x23", "x", "99999x40"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert!("0.5".parse::<Interval>().is_ok_and(|interval| interval.0 == Duration::from_millis(500)));
        for text in ["0", "-1", "NaN", "4000", "x"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
