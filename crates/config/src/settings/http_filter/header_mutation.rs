use crate::settings::{AppendAction, Format, HeaderMutations, HeaderValue, Operator, StringMatcher};

/// `envoy.extensions.filters.http.header_mutation.v3.HeaderMutation`.
#[derive(Debug)]
pub struct HeaderMutationFilter {
    pub mutations: Mutations,
    /// `most_specific_header_mutations_wins`: those of routes come last.
    pub most_specific_wins: bool,
}

/// `Mutations`, of the filter or of a route: each list is carried out in order.
#[derive(Debug, Clone, Default)]
pub struct Mutations {
    pub request: Vec<Mutation>,
    pub query: Vec<QueryMutation>,
    pub response: Vec<Mutation>,
    /// `request_trailers_mutations`.
    pub request_trailers: Vec<Mutation>,
    /// `response_trailers_mutations`.
    pub response_trailers: Vec<Mutation>,
}

#[derive(Debug, Clone)]
pub enum Mutation {
    /// Lower-cased.
    Remove(Box<str>),
    /// By name.
    RemoveMatching(StringMatcher),
    /// One addition.
    Append(HeaderMutations),
}

/// `KeyValueMutation`.
#[derive(Debug, Clone)]
pub enum QueryMutation {
    Remove(Box<str>),
    Append { key: Box<str>, value: HeaderValue, action: AppendAction },
}

impl Mutations {
    /// Whether what is done to responses depends on their requests.
    pub fn responses_need_requests(&self) -> bool {
        [&self.response, &self.response_trailers].into_iter().any(|list| has_format(list))
    }

    /// Whether what is done to trailers of requests depends on their heads.
    pub fn trailers_need_requests(&self) -> bool {
        has_format(&self.request_trailers)
    }

    /// Whether what is done to trailers of responses depends on their heads.
    pub fn trailers_need_responses(&self) -> bool {
        has_format(&self.response_trailers)
    }

    /// Whether a value tells what is only noted of a stream where somebody wants to know it.
    pub fn tells_of_record(&self) -> bool {
        let lists = [&self.request, &self.response, &self.request_trailers, &self.response_trailers];
        let formats = lists.into_iter().flat_map(|list| formats(list));
        formats.flat_map(Format::operators).any(Operator::tells_of_record)
    }
}

fn has_format(list: &[Mutation]) -> bool {
    formats(list).next().is_some()
}

fn formats(list: &[Mutation]) -> impl Iterator<Item = &Format> {
    let appended = list.iter().flat_map(|mutation| match mutation {
        Mutation::Append(mutations) => mutations.add.as_slice(),
        Mutation::Remove(_) | Mutation::RemoveMatching(_) => &[],
    });
    appended.filter_map(|addition| match &addition.value {
        HeaderValue::Format(format) => Some(format),
        HeaderValue::Constant(_) => None,
    })
}
