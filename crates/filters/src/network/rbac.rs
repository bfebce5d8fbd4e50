//! `envoy.filters.network.rbac`: who may connect to what. Decided before anything else happens on a connection, where
//! Envoy waits for its first byte and lets the upstream speak until then.

use std::fmt::Write;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use proxy_config::settings::{self, RbacAction, RbacPolicy, RbacRule, RbacRules};
use proxy_net::{
    Address, CloseReason, Connection, ConnectionInfo, LocalBoxFuture, MovedConnection, NetworkFilter,
    NextNetwork,
};
use proxy_stats::{Counter, Scope, stats_block};

use super::turn_away;

stats_block! {
    /// `<stat_prefix>.rbac.*`.
    struct RbacStats {
        counters: allowed, denied;
    }
}

stats_block! {
    /// `<stat_prefix>.rbac.<shadow_rules_stat_prefix>*`.
    struct ShadowStats {
        counters: shadow_allowed, shadow_denied;
    }
}

/// The filter; clones count together.
#[derive(Clone)]
pub struct Rbac(Arc<Shared>);

struct Shared {
    settings: Arc<settings::NetworkRbac>,
    stats: RbacStats,
    shadow: ShadowStats,
}

/// What rules say of a connection.
struct Verdict<'a> {
    allowed: bool,
    /// The policy that it matches, by name.
    policy: Option<&'a str>,
}

impl Rbac {
    /// `root` is the scope of the whole store, or what the listener restricts it to.
    pub fn new(settings: Arc<settings::NetworkRbac>, root: &Scope) -> Rbac {
        let scope = root.scope(&format!("{}.", settings.stat_prefix)).scope("rbac.");
        let shadow = ShadowStats::new(&scope.scope(&settings.shadow_rules_stat_prefix));
        Rbac(Arc::new(Shared { settings, stats: RbacStats::new(&scope), shadow }))
    }
}

impl Shared {
    /// Judges and counts.
    fn judge(&self, info: &ConnectionInfo) -> Option<Verdict<'_>> {
        let count = |verdict: &Verdict<'_>, allowed: Counter, denied: Counter| {
            if verdict.allowed { allowed.inc() } else { denied.inc() }
        };
        if let Some(rules) = &self.settings.shadow_rules {
            count(&verdict(rules, info), self.shadow.shadow_allowed, self.shadow.shadow_denied);
        }
        let verdict = verdict(self.settings.rules.as_ref()?, info);
        count(&verdict, self.stats.allowed, self.stats.denied);
        Some(verdict)
    }
}

impl NetworkFilter for Rbac {
    fn serve<'a>(
        &'a self,
        connection: Connection,
        next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
        Box::pin(async move {
            // One that comes from another process was judged there, and by `takes`.
            if connection.moved.is_some() {
                return next.serve(connection).await;
            }
            match self.0.judge(&connection.info) {
                Some(verdict) if !verdict.allowed => {
                    tell(&connection.info, &verdict);
                    turn_away(connection, next, self.0.settings.delay_deny, "by RBAC").await
                }
                _ => next.serve(connection).await,
            }
        })
    }

    /// Rules that are stricter than those of the other process hold for its connections as well.
    fn takes(&self, _moved: &MovedConnection, info: &ConnectionInfo) -> bool {
        self.0.settings.rules.as_ref().is_none_or(|rules| verdict(rules, info).allowed)
    }
}

fn tell(info: &ConnectionInfo, verdict: &Verdict<'_>) {
    let Some(record) = &info.record else { return };
    let mut details = String::from("rbac_access_denied_matched_policy[");
    details.extend(verdict.policy.unwrap_or("none").chars().map(|c| if c.is_whitespace() { '_' } else { c }));
    // The formatter of a String does not fail.
    let _ = details.write_char(']');
    record.termination_details.replace(Some(Rc::from(details)));
}

fn verdict<'a>(rules: &'a RbacRules, info: &ConnectionInfo) -> Verdict<'a> {
    let policy = rules.policies.iter().find(|policy| is_of(policy, info));
    let allowed = match rules.action {
        RbacAction::Allow => policy.is_some(),
        RbacAction::Deny => policy.is_none(),
        RbacAction::Log => true,
    };
    Verdict { allowed, policy: policy.map(|policy| &*policy.name) }
}

fn is_of(policy: &RbacPolicy, info: &ConnectionInfo) -> bool {
    let any = |rules: &[RbacRule]| rules.iter().any(|rule| matches(rule, info));
    any(&policy.permissions) && any(&policy.principals)
}

/// As deep as messages nest, which their decoder limits.
fn matches(rule: &RbacRule, info: &ConnectionInfo) -> bool {
    let ip = |address: &Address| address.ip().map(|address| address.ip());
    let within = |range: &settings::Cidr, ip: Option<IpAddr>| ip.is_some_and(|ip| range.contains(ip));
    match rule {
        RbacRule::Any => true,
        RbacRule::All(rules) => rules.iter().all(|rule| matches(rule, info)),
        RbacRule::OneOf(rules) => rules.iter().any(|rule| matches(rule, info)),
        RbacRule::Not(rule) => !matches(rule, info),
        RbacRule::Destination(range) => within(range, ip(&info.local)),
        RbacRule::DestinationPorts { start, end } => {
            info.local.ip().is_some_and(|address| (*start..*end).contains(&u32::from(address.port())))
        }
        RbacRule::ServerName(name) => {
            name.matches(info.server_name.as_deref().unwrap_or_default().as_bytes())
        }
        RbacRule::Remote(range) => within(range, ip(&info.remote)),
        RbacRule::DirectRemote(range) => within(range, ip(&info.direct_remote)),
    }
}
