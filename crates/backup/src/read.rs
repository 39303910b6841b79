//! Reading a backup, piece after piece. Only [`Reader::piece`] answering `None` says that it was whole.

use std::io::{self, Read, Write};

use ids::sha256;
use zeroize::Zeroizing;

use crate::{
    BackupError,
    head::{Head, Opener, Way},
    io_at, limits,
    name::is_name,
    stream::{Chunks, MAGIC, TAG_BYTES},
};

const SEALED_BYTES: usize = limits::CHUNK_BYTES + TAG_BYTES;

/// A backup that is being read.
pub struct Reader<R> {
    input: R,
    chunks: Chunks,
    /// Where in the file the next chunk begins.
    at: u64,
    /// Read ahead by one byte, because only the end of the file says which chunk is the last.
    ahead: Option<u8>,
    content: Zeroizing<Vec<u8>>,
    used: usize,
    is_over: bool,
    pieces: usize,
    /// Bytes of the present piece that nobody has taken.
    left: u64,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// See [`is_name`].
    pub name: String,
    /// Bytes.
    pub length: u64,
}

impl<R: Read> Reader<R> {
    /// How a backup can be opened, as its head says; nothing of it is verified.
    ///
    /// # Errors
    /// When it is no backup.
    pub fn ways(input: &mut R) -> Result<Vec<Way>, BackupError> {
        Ok(head(input)?.0.ways())
    }

    /// Opens one.
    ///
    /// # Errors
    /// When it is no backup, or does not open so.
    pub fn open(mut input: R, opener: &Opener) -> Result<Self, BackupError> {
        let (head, bytes) = head(&mut input)?;
        let key = head.open(opener)?;
        let at = bytes.len() as u64;
        let mut reader = Self {
            chunks: Chunks::new(&key, sha256(&bytes)),
            input,
            at,
            ahead: None,
            content: Zeroizing::new(Vec::new()),
            used: 0,
            is_over: false,
            pieces: 0,
            left: 0,
        };
        reader.ahead = reader.byte()?;
        Ok(reader)
    }

    /// The next piece; what is left of the one before is passed over. `None` at the end, when all of it was whole.
    ///
    /// # Errors
    /// When the file was changed or cut, or holds what no backup does.
    pub fn piece(&mut self) -> Result<Option<Piece>, BackupError> {
        self.copy(&mut io::sink())?;
        let [length] = self.array()?;
        if length == 0 {
            return if self.used == self.content.len() && self.is_over {
                Ok(None)
            } else {
                Err(BackupError::Content { why: "something follows its end".to_owned() })
            };
        }
        self.pieces += 1;
        if self.pieces > limits::PIECES_MAX {
            return Err(BackupError::Content { why: format!("more than {} pieces", limits::PIECES_MAX) });
        }
        let mut name = vec![0; usize::from(length)];
        self.fill(&mut name)?;
        let name = String::from_utf8(name).ok().filter(|name| is_name(name));
        let name = name.ok_or_else(|| BackupError::Content { why: "a piece has no proper name".to_owned() })?;
        self.left = u64::from_be_bytes(self.array()?);
        Ok(Some(Piece { name, length: self.left }))
    }

    /// Copies what is left of the present piece.
    ///
    /// # Errors
    /// As [`Self::piece`], and when it cannot be written.
    pub fn copy(&mut self, out: &mut dyn Write) -> Result<(), BackupError> {
        while self.left > 0 {
            self.more()?;
            let content = &self.content[self.used..];
            let take = usize::try_from(self.left).map_or(content.len(), |left| left.min(content.len()));
            out.write_all(&content[..take]).map_err(io_at("writing what was backed up"))?;
            self.used += take;
            self.left -= take as u64;
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut bytes: &mut [u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            self.more()?;
            let content = &self.content[self.used..];
            let take = content.len().min(bytes.len());
            bytes[..take].copy_from_slice(&content[..take]);
            self.used += take;
            bytes = &mut bytes[take..];
        }
        Ok(())
    }

    /// Sees to it that content is there to be taken.
    fn more(&mut self) -> Result<(), BackupError> {
        while self.used == self.content.len() {
            if self.is_over {
                return Err(BackupError::Content { why: "it ends in the middle of a piece".to_owned() });
            }
            self.next_chunk()?;
        }
        Ok(())
    }

    fn next_chunk(&mut self) -> Result<(), BackupError> {
        let damaged = BackupError::Damaged { chunk: self.chunks.next(), at: self.at };
        let Some(first) = self.ahead.take() else { return Err(damaged) };
        let mut sealed = vec![first];
        let rest = (SEALED_BYTES - 1) as u64;
        self.input.by_ref().take(rest).read_to_end(&mut sealed).map_err(io_at("reading the backup"))?;
        self.ahead = if sealed.len() == SEALED_BYTES { self.byte()? } else { None };
        self.is_over = self.ahead.is_none();
        let content = self.chunks.open(&sealed, self.is_over).ok_or(damaged)?;
        (self.content, self.used) = (Zeroizing::new(content), 0);
        self.at += sealed.len() as u64;
        Ok(())
    }

    fn byte(&mut self) -> Result<Option<u8>, BackupError> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_at("reading the backup")(error)),
            }
        }
    }
}

/// The head, and all bytes up to its end.
fn head(input: &mut impl Read) -> Result<(Head, Vec<u8>), BackupError> {
    let mut read = |bytes: &mut [u8]| {
        input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::NotABackup,
            _ => io_at("reading the backup")(error),
        })
    };
    let mut begin = [0; 12];
    read(&mut begin)?;
    let (magic, length) = begin.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(BackupError::NotABackup);
    }
    let length = u32::from_be_bytes(length.try_into().expect("invariant: four bytes are left"));
    let length = usize::try_from(length).ok().filter(|length| *length <= limits::HEAD_BYTES_MAX);
    let length = length.ok_or_else(|| BackupError::Head { why: "it is too long".to_owned() })?;
    let mut bytes = begin.to_vec();
    bytes.resize(begin.len() + length, 0);
    read(&mut bytes[begin.len()..])?;
    Ok((Head::from_bytes(&bytes[begin.len()..])?, bytes))
}
