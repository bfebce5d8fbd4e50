//! `/listeners`: names and bound addresses.

use serde_json::json;

use super::address;
use super::answer::{Answer, JsonList, PIECE_BYTES, Pieces};
use super::query::Query;
use super::routes::Context;
use super::state::ListenerStatus;

pub(super) fn listeners(context: &Context, query: &Query) -> Answer {
    let left = context.state.listeners().into_iter();
    if query.value("format") == Some("json") {
        Answer::json_pieces(Json { left, list: JsonList { field: "listener_statuses", written: 0 } })
    } else {
        Answer::text_pieces(Text { left })
    }
}

struct Text {
    left: std::vec::IntoIter<ListenerStatus>,
}

impl Pieces for Text {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> bool {
        while piece.len() < PIECE_BYTES {
            let Some(listener) = self.left.next() else { return false };
            for address in std::iter::once(&listener.address).chain(&listener.additional_addresses) {
                piece
                    .extend_from_slice(format!("{}::{}\n", listener.name, address::text(address)).as_bytes());
            }
        }
        true
    }
}

/// `envoy.admin.v3.Listeners`.
struct Json {
    left: std::vec::IntoIter<ListenerStatus>,
    list: JsonList<'static>,
}

impl Pieces for Json {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> bool {
        while piece.len() < PIECE_BYTES {
            let Some(listener) = self.left.next() else {
                self.list.end(piece);
                return false;
            };
            let mut status =
                json!({ "name": &*listener.name, "local_address": address::message(&listener.address) });
            if !listener.additional_addresses.is_empty() {
                let additional = listener.additional_addresses.iter().map(address::message);
                status["additional_local_addresses"] = additional.collect();
            }
            self.list.item(piece, &status);
        }
        true
    }
}
