//! The README's list of what is supported is the table that the configuration reader goes by.

use std::fmt::Write as _;
use std::fs;

use proxy_tests::workspace_root;

const BEGIN: &str = "<!-- supported: begin -->\n";
const END: &str = "<!-- supported: end -->\n";

/// One line per section of the table, with the names of its messages but nested ones.
fn supported(table: &str) -> String {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in table.lines() {
        if let Some(title) = line.strip_prefix("# --- ") {
            sections.push((title.trim(), Vec::new()));
        } else if let (Some((_, names)), Some((message, _))) = (sections.last_mut(), line.split_once(':'))
            && !line.starts_with('#')
        {
            let name = short(message);
            if !name.contains('.') && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    sections.iter().fold(String::new(), |mut list, (title, names)| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        writeln!(list, "- **{title}**: {}", names.join(", ")).unwrap();
        list
    })
}

/// A message's name without its package: all before the first part that begins with a capital letter.
fn short(message: &str) -> &str {
    let capital = message.split('.').position(|part| part.starts_with(char::is_uppercase)).unwrap_or(0);
    message.splitn(capital + 1, '.').last().unwrap_or(message)
}

#[test]
fn the_readme_lists_what_is_supported() {
    let table = fs::read_to_string(workspace_root().join("crates/config/supported.txt")).unwrap();
    let path = workspace_root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (current, after) = rest.split_once(END).unwrap();
    let wanted = supported(&table);
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert_eq!(current, wanted, "run UPDATE_README=1 cargo test -p proxy-tests readme");
    }
}
