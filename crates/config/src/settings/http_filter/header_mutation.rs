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
        self.formats(&self.response).next().is_some()
    }

    /// Whether a value tells what is only noted of a stream where somebody wants to know it.
    pub fn tells_of_record(&self) -> bool {
        let formats = self.formats(&self.request).chain(self.formats(&self.response));
        formats.flat_map(Format::operators).any(Operator::tells_of_record)
    }

    fn formats<'m>(&self, list: &'m [Mutation]) -> impl Iterator<Item = &'m Format> + use<'m> {
        let appended = list.iter().flat_map(|mutation| match mutation {
            Mutation::Append(mutations) => mutations.add.as_slice(),
            Mutation::Remove(_) | Mutation::RemoveMatching(_) => &[],
        });
        appended.filter_map(|addition| match &addition.value {
            HeaderValue::Format(format) => Some(format),
            HeaderValue::Constant(_) => None,
        })
    }
}
