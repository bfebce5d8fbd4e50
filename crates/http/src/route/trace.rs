//! A look-up that tells what it passes by, for people who ask why. It decides by the functions that requests are decided by.

use proxy_config::settings::Domain;

use super::domains::fit;
use super::matching::{Mismatch, mismatch};
use super::{LookupContext, RouteTable};
use crate::message::Request;

/// What a look-up saw on its way.
pub struct Trace<'t> {
    pub virtual_host: Option<u32>,
    /// Why the routes before `route`, or all of the virtual host, do not match: one for each.
    pub passed: Vec<Mismatch<'t>>,
    pub route: Option<u32>,
}

impl RouteTable {
    /// As [`find`](RouteTable::find), with reasons.
    pub fn trace(&self, request: &Request, context: &LookupContext) -> Trace<'_> {
        let virtual_host = self.find_virtual_host(request.authority());
        let mut trace = Trace { virtual_host, passed: Vec::new(), route: None };
        let Some(host) = virtual_host else { return trace };
        let path = request.path_without_query();
        let routes = &self.configuration.virtual_hosts[host as usize].routes;
        for (index, route) in routes.iter().enumerate() {
            match mismatch(&route.matches, path, request, context) {
                Some(mismatch) => trace.passed.push(mismatch),
                None => {
                    trace.route = Some(index as u32);
                    break;
                }
            }
        }
        trace
    }

    /// The domain by which a virtual host may be found for `authority`, if others have none that fits better.
    pub fn fitting_domain(&self, virtual_host: u32, authority: &[u8]) -> Option<&Domain> {
        let host = self.domains.compared(authority);
        let domains = self.configuration.virtual_hosts[virtual_host as usize].domains.iter();
        let fitting = domains.filter_map(|domain| Some((fit(domain, &host)?, domain)));
        fitting.max_by_key(|(fit, _)| *fit).map(|(_, domain)| domain)
    }
}
