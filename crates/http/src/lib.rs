#![doc = include_str!("../DESIGN.md")]

pub mod access_log;
pub mod body;
pub mod explain;
pub mod filter;
pub mod forwarding;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod joined;
pub mod local_reply;
pub mod message;
pub mod mutation;
pub mod name;
pub mod path;
pub mod proxy_status;
pub mod query;
pub mod reply;
pub mod response_headers;
pub mod route;
pub mod stream;
pub mod tunnel;
pub mod websocket;

pub use body::{Body, BodyError, BodyStream, Frame};
pub use headers::Headers;
pub use joined::Direction;
pub use message::{Interim, LocalAnswer, Method, Request, Response, Scheme, Version};
pub use name::HeaderId;
pub use stream::{ResponseFlags, StreamInfo, StreamTimer};
pub use tunnel::{Tunnel, Tunnelling};
