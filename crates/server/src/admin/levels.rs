//! `/logging`: shows and changes log levels.

use std::fmt::Write as _;

use http::StatusCode;

use super::answer::Answer;
use super::query::Query;
use super::routes::Context;
use crate::logging::{ComponentLevels, Level, UnknownComponent};

pub(super) fn logging(context: &Context, query: &Query) -> Answer {
    let mut text = String::new();
    let status = match change(context, query) {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            let levels = Level::ALL.map(Level::name).join(" ");
            // Writing to a string cannot fail.
            let _ = write!(text, "error: {error}\n\n{USAGE}levels: {levels} \n");
            StatusCode::BAD_REQUEST
        }
    };
    text.push_str("active loggers:\n");
    for (name, level) in context.log.levels().iter() {
        let _ = writeln!(text, "  {name}: {level}");
    }
    text.push('\n');
    Answer::text(text).with_status(status)
}

/// Errors are Envoy's texts.
fn change(context: &Context, query: &Query) -> Result<(), &'static str> {
    let Context { log, state, .. } = context;
    let (name, value) = match query.all() {
        [] => return Ok(()),
        [(name, value)] => (name.as_str(), value.as_str()),
        _ => return Err("invalid number of parameters"),
    };
    match name {
        "level" | "paths" if value.is_empty() => Ok(()),
        "level" => {
            let level: Level = value.parse().map_err(|_| "unknown logger level")?;
            log.set_all(level);
            state.log_levels_changed(level.name());
            Ok(())
        }
        "group" => Err("group parameter requires fine-grain logging to be enabled"),
        "paths" => {
            log.set(&value.parse().map_err(|error| what(&error))?);
            state.log_levels_changed(value);
            Ok(())
        }
        _ => {
            log.set(&ComponentLevels::one(name, value).map_err(|error| what(&error))?);
            state.log_levels_changed(&format!("{name}:{value}"));
            Ok(())
        }
    }
}

fn what(error: &UnknownComponent) -> &'static str {
    match error {
        UnknownComponent::Form(_) => "empty logger name or empty logger level",
        UnknownComponent::Name(_) => "unknown logger name",
        UnknownComponent::Level(_) => "unknown logger level",
    }
}

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
usage: /logging?group=<group_name>:<level> (change group of loggers)
";
