//! `header_mutation`.

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules_v3;
use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as mutation_v3;
use envoy_types::pb::google::protobuf::value::Kind;

use crate::lower::{Context, header, matcher, value};
use crate::settings::{
    AppendAction, HeaderMutationFilter, HeaderMutations, Mutation, Mutations, QueryMutation,
};
use crate::{Code, Path};

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &mutation_v3::HeaderMutation,
) -> HeaderMutationFilter {
    HeaderMutationFilter {
        mutations: mutations(context, &path.field("mutations"), message.mutations.as_ref()),
        most_specific_wins: message.most_specific_header_mutations_wins,
    }
}

pub(super) fn lower_route(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &mutation_v3::HeaderMutationPerRoute,
) -> Mutations {
    mutations(context, &path.field("mutations"), message.mutations.as_ref())
}

fn mutations(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&mutation_v3::Mutations>,
) -> Mutations {
    let Some(message) = message else { return Mutations::default() };
    let here = path.field("query_parameter_mutations");
    let each = message.query_parameter_mutations.iter().enumerate();
    Mutations {
        request: list(context, &path.field("request_mutations"), &message.request_mutations),
        query: each.filter_map(|(index, message)| query(context, &here.index(index), message)).collect(),
        response: list(context, &path.field("response_mutations"), &message.response_mutations),
        request_trailers: list(
            context,
            &path.field("request_trailers_mutations"),
            &message.request_trailers_mutations,
        ),
        response_trailers: list(
            context,
            &path.field("response_trailers_mutations"),
            &message.response_trailers_mutations,
        ),
    }
}

fn list(context: &mut Context<'_>, path: &Path<'_>, messages: &[rules_v3::HeaderMutation]) -> Vec<Mutation> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| mutation(context, &path.index(index), message)).collect()
}

fn mutation(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &rules_v3::HeaderMutation,
) -> Option<Mutation> {
    use rules_v3::header_mutation::Action;
    match &message.action {
        Some(Action::Remove(name)) => {
            header::modifiable(context, &path.field("remove"), name).map(Mutation::Remove)
        }
        Some(Action::Append(message)) => {
            let addition = header::addition(context, &path.field("append"), message)?;
            Some(Mutation::Append(HeaderMutations { remove: Vec::new(), add: vec![addition] }))
        }
        Some(Action::RemoveOnMatch(message)) => {
            let here = path.field("remove_on_match");
            let here = here.field("key_matcher");
            let Some(message) = &message.key_matcher else {
                context.missing(&here, "a matcher is required");
                return None;
            };
            matcher::string(context, &here, message).map(Mutation::RemoveMatching)
        }
        None => {
            context.missing(path, "remove, append or remove_on_match is required");
            None
        }
    }
}

fn query(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::KeyValueMutation,
) -> Option<QueryMutation> {
    use core_v3::key_value_append::KeyValueAppendAction as Action;
    let Some(append) = &message.append else {
        if message.remove.is_empty() {
            context.missing(path, "append or remove is required");
            return None;
        }
        return Some(QueryMutation::Remove(message.remove.as_str().into()));
    };
    let here = path.field("append");
    let record = here.field("record");
    let Some(pair) = &append.record else {
        context.missing(&record, "a record is required");
        return None;
    };
    let text = match pair.value.as_ref().and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text,
        _ => {
            context.error(&record.field("value"), Code::INVALID, "a string is expected");
            return None;
        }
    };
    let action = match value::enumeration(context, &here.field("action"), append.action) {
        Action::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
        Action::AddIfAbsent => AppendAction::AddIfAbsent,
        Action::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
        Action::OverwriteIfExists => AppendAction::OverwriteIfExists,
    };
    let value = header::formatted(context, &record.field("value"), text)?;
    Some(QueryMutation::Append { key: pair.key.as_str().into(), value, action })
}
