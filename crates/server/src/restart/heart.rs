//! Signs of life while main has no time for any: adding what a large file declares takes seconds.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};

use proxy_control::restart::message::Heartbeat;
use proxy_control::restart::{Body, Channel};

use super::HEARTBEAT;

/// A thread that says heartbeats until this is dropped. It stops with the process, so one that hangs is noticed.
pub(super) struct Heart(#[expect(dead_code, reason = "its end is the message")] Sender<()>);

impl Heart {
    pub(super) fn start(channel: &Channel) -> io::Result<Heart> {
        let side = channel.side()?;
        let (alive, ended) = mpsc::channel();
        std::thread::Builder::new().name("heart".to_owned()).spawn(move || {
            while ended.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                side.say(Body::Heartbeat(Heartbeat {}));
            }
        })?;
        Ok(Heart(alive))
    }
}
