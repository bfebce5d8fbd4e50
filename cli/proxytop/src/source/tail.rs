//! The end of a file that others write to, also when it is replaced or cut.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Follows a file.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    open: Option<(File, u64)>,
    /// Of a line that has not ended yet.
    begun: Vec<u8>,
}

impl Tail {
    pub(crate) fn new(path: PathBuf) -> Tail {
        Tail { path, open: None, begun: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lines that were written since; at first the last ones. At most `MOST_BYTES` of them: the newest.
    pub(crate) fn lines(&mut self) -> io::Result<Vec<String>> {
        let metadata = std::fs::metadata(&self.path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let number = metadata.ino();
        if self.open.as_ref().is_none_or(|(_, known)| *known != number) {
            self.open = Some((File::open(&self.path)?, number));
            self.begun.clear();
        }
        let Some((file, _)) = &mut self.open else { return Ok(Vec::new()) };
        let (mut at, length) = (file.stream_position()?, file.metadata()?.len());
        if length < at {
            at = file.seek(SeekFrom::Start(0))?;
            self.begun.clear();
        }
        let mut cut = false;
        if length - at > MOST_BYTES {
            file.seek(SeekFrom::Start(length - MOST_BYTES))?;
            self.begun.clear();
            cut = true;
        }
        file.take(MOST_BYTES).read_to_end(&mut self.begun)?;
        let end = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.begun.split_off(end);
        let text = std::mem::replace(&mut self.begun, rest);
        if self.begun.len() as u64 > MOST_BYTES {
            self.begun.clear();
        }
        let lines = String::from_utf8_lossy(&text);
        // Of a line that was cut there is only the end.
        Ok(lines.lines().skip(usize::from(cut)).map(str::to_owned).collect())
    }
}

const MOST_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_once_and_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "a\nb\nc").unwrap();
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.lines().unwrap(), ["a", "b"]);
        File::options().append(true).open(&path).unwrap().write_all(b"d\n").unwrap();
        assert_eq!(tail.lines().unwrap(), ["cd"]);
        assert_eq!(tail.lines().unwrap(), [""; 0]);
        fs::write(&path, "x\n").unwrap();
        assert_eq!(tail.lines().unwrap(), ["x"], "it was cut");
        fs::rename(&path, directory.path().join("log.1")).unwrap();
        fs::write(&path, "new\n").unwrap();
        assert_eq!(tail.lines().unwrap(), ["new"], "it was replaced");
        fs::write(&path, vec![b'y'; 1 << 20]).unwrap();
        assert_eq!(tail.lines().unwrap(), [""; 0]);
        fs::remove_file(&path).unwrap();
        assert!(tail.lines().is_err());
    }
}
