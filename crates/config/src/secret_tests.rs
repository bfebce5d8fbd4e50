//! Nothing that is said of a message shows what stands in a field marked `udpa.annotations.sensitive`.

use crate::finding::Findings;
use crate::locate::Locator;
use crate::schema::{self, Field, FieldKind, Form, Message};
use crate::{LoadOptions, check, excerpt, reader, redact, yaml};

const MARKER: &str = "MARKER7f3a";

/// Right and wrong ways to fill in a sensitive field.
fn values(field: &Field) -> Vec<String> {
    let mut values = vec![
        MARKER.to_owned(),
        format!("[{MARKER}, {{{MARKER}: 1}}]"),
        format!("{{inline_string: {MARKER}}}"),
        format!("{{inline_strin: {MARKER}, filename: [{MARKER}]}}"),
        format!("|\n  {MARKER}\n  {MARKER}"),
        format!(">\n  {MARKER}\n  {MARKER}"),
        format!("'{MARKER}\n  {MARKER}'"),
    ];
    if let FieldKind::Message(to) = &field.kind
        && to.follow().form == Form::Plain
    {
        values.extend(to.follow().fields.iter().map(|inner| format!("{{{}: {MARKER}}}", inner.name)));
    }
    values
}

/// All that is printed of the message in this text.
fn said(message: &'static Message, text: &str) -> String {
    let (tree, problems) = yaml::parse("f".into(), text);
    let mut findings = Findings::default();
    problems.into_iter().for_each(|problem| findings.push(problem));
    let mut json = String::new();
    if let Some(tree) = tree {
        let options = LoadOptions::default();
        let bytes = reader::read(tree.root(), message, &options.extensions, &mut findings);
        findings.set_locator(Locator::new(vec![tree.into()]));
        check::check(message, &bytes, &crate::Path::root(), &options, &mut findings);
        json = redact::redacted(&message.name, &bytes).to_string();
    }
    let secrets = findings.secrets().to_vec();
    let mut all = findings.into_vec();
    let source = excerpt::SourceText { file: "f".into(), text: text.to_owned() };
    excerpt::attach(&mut all, &[source], &secrets);
    format!("{all:#?}{json}{}", all.iter().map(ToString::to_string).collect::<String>())
}

#[test]
fn no_secret_is_ever_shown() {
    let mut fields = 0;
    for message in schema::type_names().iter().filter_map(|name| schema::message(name)) {
        for field in message.fields.iter().filter(|field| field.sensitive) {
            fields += 1;
            for value in values(field) {
                // The last line makes sure that there is something to say, before and behind the secret.
                for text in [
                    format!("no_such: 1\n{}: {value}\nnor_this: 2\n", field.name),
                    format!("{}x: {value}\n", field.name),
                ] {
                    let said = said(message, &text);
                    assert!(!said.contains(MARKER), "{}\n{text}\n{said}", message.name);
                }
            }
        }
    }
    assert!(fields > 20, "{fields}");
}

#[test]
fn a_text_that_is_no_document_shows_no_secret() {
    let message = schema::message("envoy.config.bootstrap.v3.Bootstrap").unwrap();
    let text = format!("static_resources:\n  secrets: [\n  private_key: {{inline_string: {MARKER}\n");
    let said = said(message, &text);
    assert!(said.contains("private_key") && !said.contains(MARKER), "{said}");
}
