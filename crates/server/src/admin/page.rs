//! Pages for a browser: every path with its parameters as a form, and stats. No script, nothing loaded from elsewhere.

use std::fmt::Write as _;

use super::routes::{Parameter, Route};

pub(super) fn home(routes: &[Route]) -> String {
    let mut page = HEAD.to_owned();
    for route in routes.iter().filter(|route| route.path != "/") {
        // Writing to a string cannot fail.
        let _ = row(&mut page, route);
    }
    page.push_str("</table>\n</body>\n</html>\n");
    page
}

/// What stands above the stats: a form for their parameters.
pub(super) fn stats_head(route: &Route, reloads: bool) -> String {
    let mut page = HEAD.to_owned();
    if reloads {
        page.push_str("<meta http-equiv='refresh' content='5'>\n");
    }
    // Writing to a string cannot fail.
    let _ = row(&mut page, route);
    page.push_str("</table>\n<pre>\n");
    page
}

fn row(page: &mut String, route: &Route) -> std::fmt::Result {
    let name = &route.path[1..];
    let method = if route.changes { "post" } else { "get" };
    writeln!(page, "<tr><td><form action='{name}' method='{method}'>")?;
    writeln!(page, "  <button>{name}</button>")?;
    // A form sends a POST's fields in the body, where no handler looks: only GET forms have fields.
    for parameter in route.parameters.iter().filter(|_| !route.changes) {
        field(page, parameter)?;
    }
    writeln!(page, "</form></td><td>{}</td></tr>", escape(route.help))
}

fn field(page: &mut String, parameter: &Parameter) -> std::fmt::Result {
    let (name, help) = (parameter.name, escape(parameter.help));
    let flag = matches!(name, "usedonly" | "invert_filter" | "text_readouts");
    match parameter.choices {
        [] if flag => {
            writeln!(page, "  <label title='{help}'><input type='checkbox' name='{name}'>{name}</label>")
        }
        [] => writeln!(page, "  <label title='{help}'>{name} <input name='{name}'></label>"),
        choices => {
            write!(page, "  <label title='{help}'>{name} <select name='{name}'>")?;
            choices.iter().try_for_each(|choice| write!(page, "<option>{choice}</option>"))?;
            writeln!(page, "</select></label>")
        }
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

const HEAD: &str = "<!DOCTYPE html>
<html lang='en'>
<head>
<meta charset='utf-8'>
<title>proxyd admin</title>
<style>
body { font-family: sans-serif; }
td { padding: 4px 12px 4px 0; vertical-align: top; }
form { margin: 0; }
label { margin-left: 8px; font-size: small; }
</style>
</head>
<body>
<table>
";
