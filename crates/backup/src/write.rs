//! Writing a backup, piece after piece.

use std::io::{Read, Write};

use ids::sha256;

use crate::{
    BackupError,
    head::{Head, Lock},
    io_at, limits,
    name::is_name,
    stream::{Chunks, MAGIC},
};

/// A backup that is being written. Without [`Self::finish`] what was written opens nowhere.
pub struct Writer<W> {
    out: W,
    chunks: Chunks,
    /// Content of the chunk that is not full yet.
    waiting: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    ///
    /// # Errors
    /// When there is no way to open it, or nothing can be written.
    pub fn new(mut out: W, lock: &Lock) -> Result<Self, BackupError> {
        let (head, key) = Head::new(lock)?;
        let head = head.to_bytes();
        let length = u32::try_from(head.len()).ok().filter(|_| head.len() <= limits::HEAD_BYTES_MAX);
        let length = length.ok_or(BackupError::TooManyLocks)?;
        let head = [MAGIC.as_slice(), &length.to_be_bytes(), &head].concat();
        out.write_all(&head).map_err(io_at("writing the backup"))?;
        let waiting = Vec::with_capacity(limits::CHUNK_BYTES);
        Ok(Self { out, chunks: Chunks::new(&key, sha256(&head)), waiting })
    }

    /// A piece of exactly so many bytes.
    ///
    /// # Errors
    /// When its name is none, there are fewer bytes, or nothing can be written.
    pub fn piece(&mut self, name: &str, length: u64, content: &mut dyn Read) -> Result<(), BackupError> {
        if !is_name(name) {
            return Err(BackupError::Name { name: name.to_owned() });
        }
        self.put(&[u8::try_from(name.len()).expect("invariant: names are shorter")])?;
        self.put(name.as_bytes())?;
        self.put(&length.to_be_bytes())?;
        let mut left = length;
        // What goes through it may be a key.
        let mut buffer = zeroize::Zeroizing::new(vec![0; limits::CHUNK_BYTES]);
        while left > 0 {
            let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let read = content.read(&mut buffer[..want]).map_err(io_at("reading what is backed up"))?;
            if read == 0 {
                return Err(BackupError::Length { name: name.to_owned() });
            }
            self.put(&buffer[..read])?;
            left -= read as u64;
        }
        Ok(())
    }

    /// Ends it. What is returned has everything written to it; making that durable is the caller's.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn finish(mut self) -> Result<W, BackupError> {
        // No name: no piece follows.
        self.put(&[0])?;
        self.flush(true)?;
        self.out.flush().map_err(io_at("writing the backup"))?;
        Ok(self.out)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            // A full one goes when more comes: the last one must say that it is the last.
            if self.waiting.len() == limits::CHUNK_BYTES {
                self.flush(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(limits::CHUNK_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn flush(&mut self, is_last: bool) -> Result<(), BackupError> {
        let sealed = self.chunks.seal(&self.waiting, is_last);
        // What is in it may be a key.
        zeroize::Zeroize::zeroize(&mut self.waiting);
        self.out.write_all(&sealed).map_err(io_at("writing the backup"))
    }
}
