//! Asks one instance one thing over its control socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::run_dir::RunDir;

/// Speaks to one control socket; each question is a connection of its own.
#[derive(Debug)]
pub struct Client {
    run_dir: Arc<RunDir>,
    socket: String,
    deadline: Duration,
}

/// What the instance said.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The instance ended, or is not there.
    #[error("control socket: {0}")]
    Connect(io::Error),
    #[error("the instance did not answer within {0:?}")]
    Deadline(Duration),
    /// The instance broke off or does not speak HTTP.
    #[error("the instance did not answer in full: {0}")]
    Protocol(Box<dyn std::error::Error + Send + Sync>),
    #[error("{0:?} is no path")]
    Path(String),
}

impl Client {
    pub(crate) fn new(run_dir: Arc<RunDir>, socket: String, deadline: Duration) -> Self {
        Self { run_dir, socket, deadline }
    }

    /// Sends a request without a body for `target` (path and query) and reads the answer, whatever its status.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&self, method: Method, target: &str) -> Result<Answer, AskError> {
        let uri: Uri = target.parse().map_err(|_| AskError::Path(target.to_owned()))?;
        match tokio::time::timeout(self.deadline, self.exchange(method, uri, &mut |_, _| {})).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::Deadline(self.deadline)),
        }
    }

    /// As [`Client::ask`], and tells `line` each line of a successful answer as it comes. The answer's text is what has not
    /// been told: all of it, unless it is successful. The deadline is that of the whole answer.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn follow(
        &self,
        method: Method,
        target: &str,
        mut line: impl FnMut(&str),
    ) -> Result<Answer, AskError> {
        let uri: Uri = target.parse().map_err(|_| AskError::Path(target.to_owned()))?;
        let mut told = |status: StatusCode, unread: &mut Vec<u8>| {
            while status.is_success()
                && let Some(end) = unread.iter().position(|byte| *byte == b'\n')
            {
                line(&String::from_utf8_lossy(&unread[..end]));
                unread.drain(..=end);
            }
        };
        match tokio::time::timeout(self.deadline, self.exchange(method, uri, &mut told)).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::Deadline(self.deadline)),
        }
    }

    /// `read` sees the body as it grows, and may take from it; what it leaves is the answer's text.
    async fn exchange(
        &self,
        method: Method,
        uri: Uri,
        read: &mut impl FnMut(StatusCode, &mut Vec<u8>),
    ) -> Result<Answer, AskError> {
        let stream = UnixStream::connect(self.run_dir.socket_address(&self.socket))
            .await
            .map_err(AskError::Connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request
            .headers_mut()
            .insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("localhost"));
        let answer = async {
            let response = sender.send_request(request).await.map_err(protocol)?;
            let status = response.status();
            let mut body = Limited::new(response.into_body(), ANSWER_BYTES);
            let mut bytes = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(AskError::Protocol)?.into_data() else { continue };
                bytes.extend_from_slice(&data);
                read(status, &mut bytes);
            }
            Ok(Answer { status, text: String::from_utf8_lossy(&bytes).into_owned() })
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(protocol(error)),
            },
        }
    }
}

fn protocol(error: hyper::Error) -> AskError {
    AskError::Protocol(error.into())
}

/// Beyond it an answer is an error: 10,000 clusters are 20 MiB.
const ANSWER_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::thread;

    use super::*;
    use crate::{BaseId, Claim, Instance, find_one};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Asks an instance that sends `reply` to whoever connects and then holds the connection until the client ends it.
    fn ask(reply: &'static [u8], deadline: Duration) -> Result<Answer, AskError> {
        let parent = tempfile::tempdir().unwrap();
        let run_dir = Arc::new(RunDir::create(&parent.path().join("run")).unwrap());
        let instance = Instance::claim(run_dir.clone(), BaseId(0), Claim::Alone).unwrap();
        let listener = instance.listen().unwrap();
        listener.set_nonblocking(false).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(reply).unwrap();
            let _ = stream.read(&mut [0; 1]);
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let client = find_one(&run_dir, None).unwrap().client(deadline);
        let answer = runtime().block_on(client.ask(Method::POST, "/logging?level=debug"));
        assert!(
            server.join().unwrap().starts_with("POST /logging?level=debug HTTP/1.1\r\nhost: localhost\r\n")
        );
        answer
    }

    #[test]
    fn an_answer_is_read_whatever_its_status() {
        let answer =
            ask(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nno\n", Duration::from_secs(10))
                .unwrap();
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::BAD_REQUEST, "no\n"));
    }

    #[test]
    fn lines_are_told_and_the_rest_is_the_text() {
        let parent = tempfile::tempdir().unwrap();
        let run_dir = Arc::new(RunDir::create(&parent.path().join("run")).unwrap());
        let instance = Instance::claim(run_dir.clone(), BaseId(0), Claim::Alone).unwrap();
        let listener = instance.listen().unwrap();
        listener.set_nonblocking(false).unwrap();
        let server = thread::spawn(move || {
            for status in ["200 OK", "409 Conflict"] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                let body = "a\nb\nrest";
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        let client = find_one(&run_dir, None).unwrap().client(Duration::from_secs(10));
        let mut told = Vec::new();
        let mut follow = || {
            runtime().block_on(client.follow(Method::POST, "/", |line| told.push(line.to_owned()))).unwrap()
        };
        assert_eq!(follow().text, "rest");
        assert_eq!(follow().text, "a\nb\nrest");
        assert_eq!(told, ["a", "b"]);
        server.join().unwrap();
    }

    #[test]
    fn an_instance_that_says_nothing_is_given_up() {
        assert!(matches!(ask(b"", Duration::from_millis(50)), Err(AskError::Deadline(_))));
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(matches!(ask(b"hello\r\n\r\n", Duration::from_secs(10)), Err(AskError::Protocol(_))));
    }
}
