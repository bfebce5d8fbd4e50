//! `envoy.filters.network.rbac`: who may connect to what.

use envoy_types::pb::envoy::config::rbac::v3 as rbac_v3;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as filter_v3;

use super::{Context, address, matcher, value};
use crate::settings::{NetworkRbac, RbacAction, RbacPolicy, RbacRule, RbacRules};
use crate::{Code, Path};

pub(super) fn network(context: &mut Context<'_>, path: &Path<'_>, message: &filter_v3::Rbac) -> NetworkRbac {
    let mut rules = |field, message: Option<&rbac_v3::Rbac>| {
        message.map(|message| rules(context, &path.field(field), message))
    };
    NetworkRbac {
        rules: rules("rules", message.rules.as_ref()),
        shadow_rules: rules("shadow_rules", message.shadow_rules.as_ref()),
        stat_prefix: message.stat_prefix.clone(),
        shadow_rules_stat_prefix: message.shadow_rules_stat_prefix.clone(),
        delay_deny: value::limit(context, &path.field("delay_deny"), message.delay_deny.as_ref(), None),
    }
}

fn rules(context: &mut Context<'_>, path: &Path<'_>, message: &rbac_v3::Rbac) -> RbacRules {
    use rbac_v3::rbac::Action;
    let action = match value::enumeration(context, &path.field("action"), message.action) {
        Action::Allow => RbacAction::Allow,
        Action::Deny => RbacAction::Deny,
        Action::Log => RbacAction::Log,
    };
    let here = path.field("policies");
    let mut messages: Vec<_> = message.policies.iter().collect();
    messages.sort_by_key(|(name, _)| *name);
    let policies = messages.into_iter().map(|(name, message)| {
        let here = here.key(name);
        RbacPolicy {
            name: name.as_str().into(),
            permissions: permissions(context, &here.field("permissions"), &message.permissions),
            principals: principals(context, &here.field("principals"), &message.principals),
        }
    });
    RbacRules { action, policies: policies.collect() }
}

fn permissions(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[rbac_v3::Permission],
) -> Vec<RbacRule> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| permission(context, &path.index(index), message)).collect()
}

fn permission(context: &mut Context<'_>, path: &Path<'_>, message: &rbac_v3::Permission) -> Option<RbacRule> {
    use rbac_v3::permission::Rule;
    Some(match message.rule.as_ref() {
        Some(Rule::Any(_)) => RbacRule::Any,
        Some(Rule::AndRules(set)) => {
            RbacRule::All(permissions(context, &path.field("and_rules").field("rules"), &set.rules))
        }
        Some(Rule::OrRules(set)) => {
            RbacRule::OneOf(permissions(context, &path.field("or_rules").field("rules"), &set.rules))
        }
        Some(Rule::NotRule(rule)) => {
            RbacRule::Not(Box::new(permission(context, &path.field("not_rule"), rule)?))
        }
        Some(Rule::DestinationIp(range)) => {
            RbacRule::Destination(address::cidr(context, &path.field("destination_ip"), range)?)
        }
        Some(Rule::DestinationPort(port)) => {
            RbacRule::DestinationPorts { start: *port, end: port.saturating_add(1) }
        }
        Some(Rule::DestinationPortRange(range)) => {
            let here = path.field("destination_port_range");
            let bound = |bound: i32| u32::try_from(bound).ok().filter(|bound| *bound <= PORTS);
            match (bound(range.start), bound(range.end)) {
                (Some(start), Some(end)) if start < end => RbacRule::DestinationPorts { start, end },
                _ => {
                    let message = "from a port to a larger one, of which the last is not part, is expected";
                    context.error(&here, Code::OUT_OF_RANGE, message);
                    return None;
                }
            }
        }
        Some(Rule::RequestedServerName(message)) => {
            RbacRule::ServerName(matcher::string(context, &path.field("requested_server_name"), message)?)
        }
        Some(_) => {
            context.refused_type(path, "such a rule is not supported");
            return None;
        }
        None => {
            context.missing(path, "a rule is required");
            return None;
        }
    })
}

fn principals(context: &mut Context<'_>, path: &Path<'_>, messages: &[rbac_v3::Principal]) -> Vec<RbacRule> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| principal(context, &path.index(index), message)).collect()
}

fn principal(context: &mut Context<'_>, path: &Path<'_>, message: &rbac_v3::Principal) -> Option<RbacRule> {
    use rbac_v3::principal::Identifier;
    #[expect(deprecated, reason = "the older spelling is part of the v3 API")]
    Some(match message.identifier.as_ref() {
        Some(Identifier::Any(_)) => RbacRule::Any,
        Some(Identifier::AndIds(set)) => {
            RbacRule::All(principals(context, &path.field("and_ids").field("ids"), &set.ids))
        }
        Some(Identifier::OrIds(set)) => {
            RbacRule::OneOf(principals(context, &path.field("or_ids").field("ids"), &set.ids))
        }
        Some(Identifier::NotId(id)) => {
            RbacRule::Not(Box::new(principal(context, &path.field("not_id"), id)?))
        }
        Some(Identifier::SourceIp(range)) => {
            RbacRule::Remote(address::cidr(context, &path.field("source_ip"), range)?)
        }
        Some(Identifier::RemoteIp(range)) => {
            RbacRule::Remote(address::cidr(context, &path.field("remote_ip"), range)?)
        }
        Some(Identifier::DirectRemoteIp(range)) => {
            RbacRule::DirectRemote(address::cidr(context, &path.field("direct_remote_ip"), range)?)
        }
        Some(_) => {
            context.refused_type(path, "such an identity is not supported");
            return None;
        }
        None => {
            context.missing(path, "an identity is required");
            return None;
        }
    })
}

/// Envoy's bound for both ends of a range.
const PORTS: u32 = 65_536;
