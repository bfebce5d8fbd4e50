//! A listener filter that wants a word from each client before anything else, and takes it out of the stream.

use std::error::Error;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use proxy_filters::extensions::ConnectionContext;
use proxy_net::{Connection, ListenerFilter, LocalBoxFuture, Refuse};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    word: String,
}

struct Knock(Arc<Settings>);

pub(crate) fn plan(
    settings: Arc<Settings>,
    _: &ConnectionContext<'_>,
) -> Result<impl Fn() -> Rc<dyn ListenerFilter> + use<>, Box<dyn Error + Send + Sync>> {
    Ok(move || -> Rc<dyn ListenerFilter> { Rc::new(Knock(Arc::clone(&settings))) })
}

impl ListenerFilter for Knock {
    fn inspect<'a>(&'a self, connection: &'a mut Connection) -> LocalBoxFuture<'a, Result<(), Refuse>> {
        Box::pin(async move {
            let word = self.0.word.as_bytes();
            let Connection { io, prefix, .. } = connection;
            while prefix.len() < word.len() {
                if poll_fn(|context| prefix.poll_fill(io, context, false)).await? == 0 {
                    return Err(Refuse::RemoteClose);
                }
            }
            if !prefix.data().starts_with(word) {
                return Err(Refuse::Protocol("another word"));
            }
            prefix.consume(word.len());
            Ok(())
        })
    }
}
