//! An HTTP/1.1 server of plain threads that says its name in every answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// Serves until the test ends.
pub(crate) struct Backend {
    pub(crate) port: u16,
}

impl Backend {
    pub(crate) fn start(name: &'static str) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.unwrap();
                std::thread::spawn(move || serve(connection, name));
            }
        });
        Backend { port }
    }
}

/// Answers requests without a body until the proxy closes. The answer comes in pieces, so that it is often under way
/// when something changes.
fn serve(connection: TcpStream, name: &str) {
    connection.set_nodelay(true).unwrap();
    let mut writer = connection.try_clone().unwrap();
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    while read_head(&mut reader, &mut line) {
        let head = format!(
            "HTTP/1.1 200 OK\r\nx-backend: {name}\r\ncontent-length: {}\r\n\r\n",
            PIECES * PIECE.len()
        );
        // The proxy may close at any time.
        if writer.write_all(head.as_bytes()).is_err() {
            return;
        }
        for _ in 0..PIECES {
            std::thread::yield_now();
            if writer.write_all(PIECE).is_err() {
                return;
            }
        }
    }
}

fn read_head(reader: &mut impl BufRead, line: &mut String) -> bool {
    loop {
        line.clear();
        match reader.read_line(line) {
            Ok(0) | Err(_) => return false,
            Ok(_) if line == "\r\n" => return true,
            Ok(_) => {}
        }
    }
}

const PIECES: usize = 4;
const PIECE: &[u8] = &[b'x'; 1024];
