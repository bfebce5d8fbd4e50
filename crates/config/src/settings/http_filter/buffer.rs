/// `envoy.extensions.filters.http.buffer.v3.Buffer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// `max_request_bytes`, greater than 0.
    pub max_request_bytes: u32,
}

/// `envoy.extensions.filters.http.buffer.v3.BufferPerRoute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferPerRoute {
    Disabled,
    Buffer(Buffer),
}
