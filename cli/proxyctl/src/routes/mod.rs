//! `proxyctl routes explain`: which connection manager is meant, and what it would do to a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use proxy_config::lower::LowerOptions;
use proxy_config::settings::{self, Bootstrap, HttpConnectionManager, Listener, NetworkFilterConfig};
use proxy_config::{FileReport, LoadInputs};
use proxy_http::explain::{Answer, Asked, Explanation, Outcome, explain as ask};
use proxy_net::Address;

use crate::arguments::{RoutesExplain, TextOrJson};
use crate::output::Output;
use crate::report;
use crate::validate::load_options;
use request::Head;

mod request;
mod show;

/// A request that no route takes is an error.
pub(crate) fn explain(arguments: &RoutesExplain, output: &mut Output) -> anyhow::Result<()> {
    let head = Head::of(&arguments.method, &arguments.url, &arguments.headers)?;
    let bootstrap = load(arguments, output)?;
    let manager = choose(&bootstrap, arguments)?;
    let asked = Asked {
        head: &head.bytes,
        scheme: head.scheme,
        client: SocketAddr::new(arguments.client, 0),
        local: local(manager.listener)?,
        listener: &manager.listener.name,
        filter_chain: &manager.chain,
        random: arguments.random,
        wall: SystemTime::now(),
    };
    let told = ask(manager.settings, &asked).context("no client can make this request")?;
    let shown = show::Shown {
        told: &told,
        listener: &manager.listener.name,
        filter_chain: &manager.chain,
        route_config: &manager.settings.routes.name,
        clusters: &bootstrap.clusters,
    };
    match arguments.format {
        TextOrJson::Text => shown.lines().iter().for_each(|line| output.line(line)),
        TextOrJson::Json => output.json(&shown.json()),
    }
    match &told {
        Explanation {
            route: None, outcome: Outcome::Answered(Answer { status: 400.., why, .. }), ..
        } => {
            bail!("no route takes this request: {why}")
        }
        _ => Ok(()),
    }
}

fn load(arguments: &RoutesExplain, output: &mut Output) -> anyhow::Result<Bootstrap> {
    let options = load_options(&arguments.reading);
    let inputs = LoadInputs { file: Some(arguments.file.clone()), yaml_override: None, options };
    let lowering = LowerOptions { read_files: !arguments.reading.no_files, ..LowerOptions::default() };
    match proxy_config::load(&inputs, &lowering) {
        Ok(configuration) => Ok(configuration.settings),
        Err(findings) => {
            let report = FileReport { path: arguments.file.clone(), findings, unreadable: false };
            report::text(&[report], output);
            bail!("{} has errors", arguments.file.display())
        }
    }
}

/// A connection manager and where it stands.
struct Manager<'b> {
    listener: &'b Listener,
    /// Name of the filter chain, or its number.
    chain: String,
    settings: &'b HttpConnectionManager,
}

/// The only connection manager that fits what was asked for.
fn choose<'b>(bootstrap: &'b Bootstrap, arguments: &RoutesExplain) -> anyhow::Result<Manager<'b>> {
    let all: Vec<Manager<'b>> = bootstrap.listeners.iter().flat_map(managers).collect();
    let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let fits = |manager: &&Manager<'b>| {
        is(&arguments.listener, &manager.listener.name)
            && is(&arguments.filter_chain, &manager.chain)
            && is(&arguments.route_config, &manager.settings.routes.name)
    };
    let fitting: Vec<_> = all.iter().filter(fits).collect();
    let list = |managers: &[&Manager<'_>]| {
        let one = |manager: &&Manager<'_>| {
            let (listener, routes) = (&manager.listener.name, &manager.settings.routes.name);
            format!("\n  --listener {listener} --filter-chain {} --route-config {routes:?}", manager.chain)
        };
        managers.iter().map(one).collect::<String>()
    };
    match fitting[..] {
        [one] => Ok(Manager { chain: one.chain.clone(), ..*one }),
        [] if all.is_empty() => bail!("{} has no HTTP connection manager", arguments.file.display()),
        [] => bail!("no connection manager is named so; there are:{}", list(&all.iter().collect::<Vec<_>>())),
        ref several => bail!("there are several connection managers, say which:{}", list(several)),
    }
}

fn managers(listener: &Arc<Listener>) -> impl Iterator<Item = Manager<'_>> {
    let named = |name: &str, otherwise: String| if name.is_empty() { otherwise } else { name.to_owned() };
    let chains = listener.chains.iter().enumerate();
    let chains = chains.map(move |(index, chain)| (named(&chain.name, format!("#{index}")), chain));
    let default = listener.default_chain.iter();
    let default = default.map(move |chain| (named(&chain.name, "default".to_owned()), chain));
    chains.chain(default).flat_map(move |(name, chain)| {
        chain.filters.iter().filter_map(move |filter| match &filter.config {
            NetworkFilterConfig::HttpConnectionManager(settings) => {
                Some(Manager { listener, chain: name.clone(), settings })
            }
            _ => None,
        })
    })
}

fn local(listener: &Listener) -> anyhow::Result<Address> {
    Ok(match &listener.address.address {
        settings::SocketAddress::Ip(address) => Address::Ip(*address),
        settings::SocketAddress::Pipe { path, .. } => {
            Address::pipe(&path.to_string_lossy()).context("the listener's address")?
        }
    })
}
