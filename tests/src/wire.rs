//! One end of a byte stream, for clients and backends alike: exact bytes out, HTTP/1 messages or raw bytes in,
//! every wait bounded by [`PATIENCE`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;

use crate::{Headers, Message, PATIENCE};

/// Why a message could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The peer closed or reset before the first byte.
    BeforeHead,
    /// The peer closed or reset within the head.
    InHead,
    /// The peer closed or reset within the body; the number of body bytes that did arrive.
    InBody(usize),
}

trait Socket: Read + Write + Send {
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
    fn duplicate(&self) -> io::Result<Box<dyn Socket>>;
    fn set_write_patience(&self, patience: Duration) -> io::Result<()>;
    fn reset_on_close(&self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn set_write_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(patience))
    }
    fn reset_on_close(&self) -> io::Result<()> {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        Ok(setsockopt(self, Linger, &at_once)?)
    }
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        TcpStream::shutdown(self, how)
    }
    fn duplicate(&self) -> io::Result<Box<dyn Socket>> {
        Ok(Box::new(self.try_clone()?))
    }
}

impl Socket for UnixStream {
    fn set_write_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(patience))
    }
    fn reset_on_close(&self) -> io::Result<()> {
        Ok(())
    }
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        UnixStream::shutdown(self, how)
    }
    fn duplicate(&self) -> io::Result<Box<dyn Socket>> {
        Ok(Box::new(self.try_clone()?))
    }
}

/// A connection and the bytes read from it that no one has asked for yet.
pub struct Wire {
    socket: Box<dyn Socket>,
    unread: Vec<u8>,
    local: Option<SocketAddr>,
}

impl Wire {
    /// Connects to a TCP listener.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE);
        Self::over_tcp(socket.unwrap_or_else(|error| panic!("connecting to {address}: {error}")))
    }

    /// Connects to a TCP listener from this address of the loopback network; of port 0, from any port.
    #[must_use]
    pub fn connect_from(local: SocketAddr, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self::over_tcp(runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(local).unwrap();
            let socket = socket.connect(address).await.unwrap().into_std().unwrap();
            socket.set_nonblocking(false).unwrap();
            socket
        }))
    }

    /// Connects to a UNIX socket.
    #[must_use]
    pub fn connect_unix(path: &Path) -> Self {
        let socket = UnixStream::connect(path)
            .unwrap_or_else(|error| panic!("connecting to {}: {error}", path.display()));
        Self::over_unix(socket)
    }

    /// Connects to a UNIX socket in the abstract name space.
    #[must_use]
    pub fn connect_abstract(name: &str) -> Self {
        let address = UnixAddress::from_abstract_name(name).unwrap();
        let socket = UnixStream::connect_addr(&address);
        Self::over_unix(socket.unwrap_or_else(|error| panic!("connecting to @{name}: {error}")))
    }

    fn over_unix(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { socket: Box::new(socket), unread: Vec::new(), local: None }
    }

    /// Takes over an open TCP connection.
    #[must_use]
    pub fn over_tcp(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let local = socket.local_addr().ok();
        Self { socket: Box::new(socket), unread: Vec::new(), local }
    }

    /// The address this end has, for TCP.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local.expect("only asked of TCP connections")
    }

    /// Another handle to write through while this one reads (or the other way round).
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { socket: self.socket.duplicate().unwrap(), unread: Vec::new(), local: self.local }
    }

    /// Gives a peer that does not read this long before a write fails.
    #[must_use]
    pub fn write_patience(self, patience: Duration) -> Self {
        self.socket.set_write_patience(patience).unwrap();
        self
    }

    /// Writes all of `bytes`; a peer that is gone is a failed test.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).unwrap_or_else(|error| panic!("writing to the proxy: {error}"));
        self
    }

    /// Writes all of `bytes`, or says why not.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Writes what the proxy may refuse half way: an error is as good as success.
    pub fn send_if_open(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.try_send(bytes);
        self
    }

    /// Ends the connection with a reset (TCP only) as soon as the last handle is gone.
    pub fn reset_on_close(&mut self) -> &mut Self {
        self.socket.reset_on_close().unwrap();
        self
    }

    /// Says end-of-stream while still reading.
    pub fn finish(&mut self) -> &mut Self {
        let _ = self.socket.shutdown(Shutdown::Write);
        self
    }

    /// Reads a message's head only.
    pub fn try_head(&mut self) -> Result<Message, Cut> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Ok(Message::from_head(&head[..end]));
            }
            if !self.fill() {
                return Err(if self.unread.is_empty() { Cut::BeforeHead } else { Cut::InHead });
            }
        }
    }

    /// Reads a message's head only.
    pub fn head(&mut self) -> Message {
        self.try_head()
            .unwrap_or_else(|cut| panic!("no head: {cut:?}, got {:?}", String::from_utf8_lossy(&self.unread)))
    }

    /// Reads one whole request.
    pub fn try_request(&mut self) -> Result<Message, Cut> {
        let mut request = self.try_head()?;
        if request.is_chunked() {
            self.chunked_body(&mut request)?;
        } else if let Some(length) = request.content_length() {
            request.body = self.sized_body(length)?;
        }
        Ok(request)
    }

    /// Reads one whole request.
    pub fn request(&mut self) -> Message {
        self.try_request().unwrap_or_else(|cut| panic!("no whole request: {cut:?}"))
    }

    /// Reads one whole response (interim ones count as one each).
    pub fn try_response(&mut self) -> Result<Message, Cut> {
        let mut response = self.try_head()?;
        let status = response.status();
        if status < 200 || status == 204 || status == 304 {
            return Ok(response);
        }
        if response.is_chunked() {
            self.chunked_body(&mut response)?;
        } else if let Some(length) = response.content_length() {
            response.body = self.sized_body(length)?;
        } else {
            response.body = self.rest();
        }
        Ok(response)
    }

    /// Reads one whole response.
    pub fn response(&mut self) -> Message {
        self.try_response().unwrap_or_else(|cut| panic!("no whole response: {cut:?}"))
    }

    /// Sends `request` and reads its response.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request).response()
    }

    /// Reads exactly `length` raw bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        self.sized_body(length).unwrap_or_else(|cut| panic!("wanted {length} bytes: {cut:?}"))
    }

    /// Reads exactly `length` raw bytes; None if the peer closes or resets first.
    pub fn try_bytes(&mut self, length: usize) -> Option<Vec<u8>> {
        self.sized_body(length).ok()
    }

    /// Reads what has come, or comes next; `None` when the peer closes or resets first.
    pub fn some(&mut self) -> Option<Vec<u8>> {
        (!self.unread.is_empty() || self.fill()).then(|| std::mem::take(&mut self.unread))
    }

    /// Reads raw bytes until the peer closes or resets.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.unread)
    }

    /// Whether the peer has closed or closes without another byte.
    #[must_use]
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && !self.fill()
    }

    /// Reads one chunk as it stands on the wire and returns its content; empty at the last one.
    pub fn chunk(&mut self) -> Result<Vec<u8>, Cut> {
        let line = self.line(0)?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
        let size = size.unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
        if size == 0 {
            return Ok(Vec::new());
        }
        let content = self.sized_body(size)?;
        assert_eq!(self.line(size)?, "", "a chunk ends with CRLF");
        Ok(content)
    }

    fn chunked_body(&mut self, message: &mut Message) -> Result<(), Cut> {
        loop {
            let chunk = self.chunk().map_err(|cut| match cut {
                Cut::InBody(bytes) => Cut::InBody(message.body.len() + bytes),
                other => other,
            })?;
            if chunk.is_empty() {
                break;
            }
            message.body.extend_from_slice(&chunk);
        }
        let mut lines = String::new();
        loop {
            let line = self.line(message.body.len())?;
            if line.is_empty() {
                message.trailers = Headers::parse(&lines);
                return Ok(());
            }
            lines.push_str(&line);
            lines.push_str("\r\n");
        }
    }

    fn sized_body(&mut self, length: usize) -> Result<Vec<u8>, Cut> {
        while self.unread.len() < length {
            if !self.fill() {
                return Err(Cut::InBody(std::mem::take(&mut self.unread).len()));
            }
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn line(&mut self, so_far: usize) -> Result<String, Cut> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.fill() {
                return Err(Cut::InBody(so_far));
            }
        }
    }

    /// Reads more; false at end of stream. Silence for longer than [`PATIENCE`] is a failed test.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 65536];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.unread.extend_from_slice(&buffer[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("silence for {PATIENCE:?}; unread: {:?}", String::from_utf8_lossy(&self.unread))
                }
                Err(_) => return false, // a reset ends the stream as well
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
