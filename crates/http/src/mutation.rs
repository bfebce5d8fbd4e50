//! Header mutations as configurations list them: what is removed, and what is added under which condition and with which
//! value. Routes have them on four levels, filters have lists of their own.
//!
//! A level is applied in Envoy's order: removals; then all values are filled in and all conditions decided, on what
//! is left; then replacements before additions. A constant value costs no look at the stream.

use proxy_config::settings::{AppendAction, Format, HeaderAddition, HeaderMutations, HeaderValue};
use smallvec::SmallVec;

use crate::access_log::{FormatContext, write_text};
use crate::headers::Headers;
use crate::joined::{self, Direction};
use crate::message::{Request, Response};

/// Gives what formats tell of besides the messages at hand; asked only where there is a format to fill in.
pub type ContextSource<'a> = &'a dyn Fn() -> FormatContext<'a>;

/// Mutates the headers of `request`.
pub fn mutate_request(mutations: &HeaderMutations, request: &mut Request, source: ContextSource<'_>) {
    mutations.remove.iter().for_each(|name| _ = request.headers.remove(&**name));
    if !mutations.add.is_empty() {
        let filled = fill(&mutations.add, |format, out| {
            let context = FormatContext { request: Some(request), ..source() };
            write_text(format, true, &context, out);
        });
        add(&mutations.add, &filled, &mut request.headers, Direction::Request);
    }
}

/// Mutates the headers of `response`, the answer to `request` as far as that is at hand.
pub fn mutate_response(
    mutations: &HeaderMutations,
    response: &mut Response,
    request: Option<&Request>,
    source: ContextSource<'_>,
) {
    mutations.remove.iter().for_each(|name| _ = response.headers.remove(&**name));
    if !mutations.add.is_empty() {
        let filled = fill(&mutations.add, |format, out| {
            let context = FormatContext {
                request,
                response: Some(&response.headers),
                response_status: response.status,
                ..source()
            };
            write_text(format, true, &context, out);
        });
        add(&mutations.add, &filled, &mut response.headers, Direction::Response);
    }
}

/// Mutates the trailers of a request, of which only `source` tells.
pub fn mutate_request_trailers(
    mutations: &HeaderMutations,
    trailers: &mut Headers,
    source: ContextSource<'_>,
) {
    mutations.remove.iter().for_each(|name| _ = trailers.remove(&**name));
    if !mutations.add.is_empty() {
        let filled = fill(&mutations.add, |format, out| write_text(format, true, &source(), out));
        add(&mutations.add, &filled, trailers, Direction::RequestTrailers);
    }
}

/// Mutates the trailers of a response; values may tell of them besides what `source` tells.
pub fn mutate_response_trailers(
    mutations: &HeaderMutations,
    trailers: &mut Headers,
    source: ContextSource<'_>,
) {
    mutations.remove.iter().for_each(|name| _ = trailers.remove(&**name));
    if !mutations.add.is_empty() {
        let filled = fill(&mutations.add, |format, out| {
            let context = FormatContext { trailers: Some(trailers), ..source() };
            write_text(format, true, &context, out);
        });
        add(&mutations.add, &filled, trailers, Direction::ResponseTrailers);
    }
}

/// Values of the additions that have a format, in their order.
type Filled = SmallVec<[Vec<u8>; 4]>;

fn fill(additions: &[HeaderAddition], mut write: impl FnMut(&Format, &mut Vec<u8>)) -> Filled {
    let formats = additions.iter().filter_map(|addition| match &addition.value {
        HeaderValue::Constant(_) => None,
        HeaderValue::Format(format) => Some(format),
    });
    let filled = formats.map(|format| {
        let mut value = Vec::new();
        write(format, &mut value);
        // A decoded query, or a conversion of a time, may hold what would end the line.
        value.retain(|byte| !matches!(byte, b'\0' | b'\r' | b'\n'));
        value
    });
    filled.collect()
}

/// One addition that is to be made.
struct Wanted<'a> {
    addition: &'a HeaderAddition,
    value: &'a [u8],
}

fn add(additions: &[HeaderAddition], filled: &Filled, headers: &mut Headers, direction: Direction) {
    let mut filled = filled.iter();
    let wanted = additions.iter().filter_map(|addition| {
        let value = match &addition.value {
            HeaderValue::Constant(value) => &value[..],
            HeaderValue::Format(_) => filled.next().map_or(&[][..], Vec::as_slice),
        };
        is_wanted(addition, value, headers).then_some(Wanted { addition, value })
    });
    let wanted: SmallVec<[Wanted<'_>; 8]> = wanted.collect();
    let chosen =
        |replaces: bool| wanted.iter().filter(move |w| replaces == is_replacement(w.addition.action));
    for Wanted { addition, value } in chosen(true) {
        headers.set(&*addition.name, value);
    }
    for Wanted { addition, value } in chosen(false) {
        let name = &*addition.name;
        if joined::is_joined(name.as_bytes(), direction) && headers.contains(name) {
            let all = joined::join(headers.values(name).chain([*value]));
            headers.set(name, &all);
        } else {
            headers.append(name, value);
        }
    }
}

fn is_wanted(addition: &HeaderAddition, value: &[u8], headers: &Headers) -> bool {
    if value.is_empty() && !addition.keep_empty {
        return false;
    }
    match addition.action {
        AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => true,
        AppendAction::AddIfAbsent => !headers.contains(&*addition.name),
        AppendAction::OverwriteIfExists => headers.contains(&*addition.name),
    }
}

fn is_replacement(action: AppendAction) -> bool {
    match action {
        AppendAction::OverwriteIfExistsOrAdd | AppendAction::OverwriteIfExists => true,
        AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => false,
    }
}
