//! `--json`: what the panes show, with numbers as they are. Keys and units are those of the manual page.

use serde_json::{Map, Value, json};

use crate::app::App;
use crate::columns::Pane;
use crate::panes;

/// One look.
pub(crate) fn of(app: &App) -> Value {
    let mut value = json!({
        "at_ms": app.now.at_ms,
        "origin": app.now.origin,
        "state": app.now.standing.name(),
        "version": app.asked.version,
    });
    let flag = |flag: &crate::panes::overview::Flag| {
        (flag.flag.to_owned(), json!({ "per_second": flag.rate, "total": flag.total }))
    };
    value["errors_by_flag"] = app.flags.iter().map(flag).collect::<Map<_, _>>().into();
    for pane in
        [Pane::Overview, Pane::Clusters, Pane::Listeners, Pane::Workers, Pane::Generations, Pane::Events]
    {
        let table = app.with_facts(|facts| panes::table(pane, facts));
        let rows = table.rows.iter().map(|row| {
            let cells = table.columns.iter().zip(&row.cells);
            let object: Map<_, _> =
                cells.map(|(column, cell)| (column.key.to_owned(), cell.json())).collect();
            Value::Object(object)
        });
        let key = if pane == Pane::Overview { "http" } else { pane.name() };
        value[key] = rows.collect();
    }
    value
}
