//! What goes over the signer's socket. A frame is a length (32 bits, big-endian, without itself), a number that pairs an
//! answer with its request (64 bits), a kind (8 bits), and the kind's content in one fixed form. Nothing is optional,
//! nothing may be left over, and messages have the one encoding that would be signed: what is not exactly right is
//! refused, and the connection with it.

use envelope::{
    DecodeError,
    messages::{Command, GuardReset, PublicKeyBytes, SessionOpen, StandingOrder},
    signer_port::{HeldKey, SignError, SignedCommand, SignerKeys, payload_bytes, payload_from_bytes},
};
use ids::{KeyId, RootVersion, Sequence, Sha256, UnixMs};

use crate::limits;

/// Length of the number before a frame.
pub(crate) const LENGTH_BYTES: usize = 4;
/// Number and kind.
const HEAD_BYTES: usize = 9;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// With its approvals. Without any its frame is that of a signer of before.
    Command(Box<Command>, Vec<Vec<u8>>),
    Open(Box<SessionOpen>),
    AdvanceRoot(Vec<Vec<u8>>),
    Keys,
    PrepareKey,
    ActivateKey(KeyId),
    DropKey(KeyId),
    Reset(Box<GuardReset>),
    Standing(Box<StandingOrder>),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Not(SignError),
    Signed(SignedCommand),
    Envelope(Vec<u8>),
    Version(RootVersion),
    Keys(SignerKeys),
    Public(PublicKeyBytes),
    Done,
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {length} bytes; {} to {} are possible", HEAD_BYTES, limits::FRAME_BYTES_MAX)]
    Length { length: usize },
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    #[error("a frame that ends too early, or says more than its kind has")]
    Content,
    #[error("a message that is not acceptable: {0}")]
    Message(#[from] DecodeError),
}

/// The length of the frame that these bytes announce.
pub(crate) fn frame_length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    let is_possible = (HEAD_BYTES..=limits::FRAME_BYTES_MAX).contains(&length);
    is_possible.then_some(length).ok_or(FrameError::Length { length })
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(number: u64, kind: u8) -> Self {
        let mut writer = Self(vec![0; LENGTH_BYTES]);
        writer.number(number);
        writer.0.push(kind);
        writer
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes behind their length.
    fn counted(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let length = u32::try_from(bytes.len()).map_err(|_| FrameError::Content)?;
        self.bytes(&length.to_be_bytes());
        self.bytes(bytes);
        Ok(())
    }

    /// With its length before it.
    fn finish(mut self) -> Result<Vec<u8>, FrameError> {
        let length = self.0.len() - LENGTH_BYTES;
        if length > limits::FRAME_BYTES_MAX {
            return Err(FrameError::Length { length });
        }
        let announced = u32::try_from(length).map_err(|_| FrameError::Length { length })?;
        self.0[..LENGTH_BYTES].copy_from_slice(&announced.to_be_bytes());
        Ok(self.0)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Content)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_be_bytes)
    }

    fn byte(&mut self) -> Result<u8, FrameError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    fn text(&mut self) -> Result<String, FrameError> {
        core::str::from_utf8(self.rest()).map(str::to_owned).map_err(|_| FrameError::Content)
    }

    fn counted(&mut self) -> Result<Vec<u8>, FrameError> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| FrameError::Content)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(FrameError::Content)?;
        self.0 = rest;
        Ok(taken.to_vec())
    }

    fn counted_to_end(&mut self) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(self.counted()?);
        }
        Ok(all)
    }
}

/// Number and kind of a frame, without its length, and the reader behind them.
fn head(frame: &[u8]) -> Result<(u64, u8, Reader<'_>), FrameError> {
    let mut reader = Reader(frame);
    Ok((reader.number()?, reader.byte()?, reader))
}

fn ended<T>(reader: &Reader<'_>, value: T) -> Result<T, FrameError> {
    if reader.0.is_empty() { Ok(value) } else { Err(FrameError::Content) }
}

impl Asked {
    pub(crate) fn to_frame(&self, number: u64) -> Result<Vec<u8>, FrameError> {
        let kind = match self {
            Self::Command(_, approvals) if approvals.is_empty() => 1,
            Self::Open(_) => 2,
            Self::AdvanceRoot(_) => 3,
            Self::Keys => 4,
            Self::PrepareKey => 5,
            Self::ActivateKey(_) => 6,
            Self::DropKey(_) => 7,
            Self::Reset(_) => 8,
            Self::Command(..) => 9,
            Self::Standing(_) => 10,
        };
        let mut writer = Writer::new(number, kind);
        match self {
            Self::Command(command, approvals) if approvals.is_empty() => writer.bytes(&payload_bytes(&**command)),
            Self::Command(command, approvals) => {
                writer.counted(&payload_bytes(&**command))?;
                approvals.iter().try_for_each(|envelope| writer.counted(envelope))?;
            }
            Self::Open(open) => writer.bytes(&payload_bytes(&**open)),
            Self::Reset(reset) => writer.bytes(&payload_bytes(&**reset)),
            Self::Standing(order) => writer.bytes(&payload_bytes(&**order)),
            Self::AdvanceRoot(chain) => {
                chain.iter().try_for_each(|envelope| writer.counted(envelope))?;
            }
            Self::Keys | Self::PrepareKey => {}
            Self::ActivateKey(key) | Self::DropKey(key) => writer.bytes(key.as_bytes()),
        }
        writer.finish()
    }

    /// From a frame without its length.
    pub(crate) fn from_frame(frame: &[u8]) -> Result<(u64, Self), FrameError> {
        let (number, kind, mut reader) = head(frame)?;
        let asked = match kind {
            1 => Self::Command(Box::new(payload_from_bytes(reader.rest())?), Vec::new()),
            2 => Self::Open(Box::new(payload_from_bytes(reader.rest())?)),
            3 => Self::AdvanceRoot(reader.counted_to_end()?),
            4 => Self::Keys,
            5 => Self::PrepareKey,
            6 => Self::ActivateKey(KeyId::from_bytes(reader.array()?)),
            7 => Self::DropKey(KeyId::from_bytes(reader.array()?)),
            8 => Self::Reset(Box::new(payload_from_bytes(reader.rest())?)),
            9 => {
                let command = Box::new(payload_from_bytes(&reader.counted()?)?);
                let approvals = reader.counted_to_end()?;
                // One request has one form.
                if approvals.is_empty() {
                    return Err(FrameError::Content);
                }
                Self::Command(command, approvals)
            }
            10 => Self::Standing(Box::new(payload_from_bytes(reader.rest())?)),
            other => return Err(FrameError::Kind(other)),
        };
        ended(&reader, (number, asked))
    }
}

impl Answered {
    pub(crate) fn to_frame(&self, number: u64) -> Result<Vec<u8>, FrameError> {
        let kind = match self {
            Self::Not(SignError::Refused(_)) => 1,
            Self::Not(SignError::SequenceTaken { .. }) => 2,
            Self::Not(SignError::Unavailable(_)) => 3,
            Self::Signed(_) => 4,
            Self::Envelope(_) => 5,
            Self::Version(_) => 6,
            Self::Keys(_) => 7,
            Self::Public(_) => 8,
            Self::Done => 9,
        };
        let mut writer = Writer::new(number, kind);
        match self {
            Self::Not(SignError::Refused(why) | SignError::Unavailable(why)) => writer.bytes(why.as_bytes()),
            Self::Not(SignError::SequenceTaken { high }) => writer.number(high.0),
            Self::Signed(signed) => {
                writer.bytes(signed.payload_sha256.as_bytes());
                writer.bytes(&signed.envelope);
            }
            Self::Envelope(envelope) => writer.bytes(envelope),
            Self::Version(version) => writer.number(version.0),
            Self::Keys(keys) => write_keys(&mut writer, keys),
            Self::Public(public) => writer.bytes(&public.0),
            Self::Done => {}
        }
        writer.finish()
    }

    /// From a frame without its length.
    pub(crate) fn from_frame(frame: &[u8]) -> Result<(u64, Self), FrameError> {
        let (number, kind, mut reader) = head(frame)?;
        let answered = match kind {
            1 => Self::Not(SignError::Refused(reader.text()?)),
            2 => Self::Not(SignError::SequenceTaken { high: Sequence(reader.number()?) }),
            3 => Self::Not(SignError::Unavailable(reader.text()?)),
            4 => {
                let payload_sha256 = Sha256(reader.array()?);
                Self::Signed(SignedCommand { payload_sha256, envelope: reader.rest().to_vec() })
            }
            5 => Self::Envelope(reader.rest().to_vec()),
            6 => Self::Version(RootVersion(reader.number()?)),
            7 => Self::Keys(read_keys(&mut reader)?),
            8 => Self::Public(PublicKeyBytes(reader.array()?)),
            9 => Self::Done,
            other => return Err(FrameError::Kind(other)),
        };
        ended(&reader, (number, answered))
    }
}

const IMPAIRED: u8 = 1;
const HAS_ROOT: u8 = 2;
const ACTIVE: u8 = 1;
const LISTED: u8 = 2;
const VOID: u8 = 4;

/// Flags; version and hash if there are; then 41 bytes for each key.
fn write_keys(writer: &mut Writer, keys: &SignerKeys) {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    writer.0.push(flag(keys.is_impaired, IMPAIRED) | flag(keys.root.is_some(), HAS_ROOT));
    if let Some((version, payload_sha256)) = keys.root {
        writer.number(version.0);
        writer.bytes(payload_sha256.as_bytes());
    }
    for key in &keys.keys {
        writer.bytes(&key.public.0);
        writer.number(key.created_at.0);
        writer.0.push(flag(key.is_active, ACTIVE) | flag(key.is_listed, LISTED) | flag(key.is_void, VOID));
    }
}

fn read_keys(reader: &mut Reader<'_>) -> Result<SignerKeys, FrameError> {
    let flags = |byte: u8, known: u8| if byte & !known == 0 { Ok(byte) } else { Err(FrameError::Content) };
    let said = flags(reader.byte()?, IMPAIRED | HAS_ROOT)?;
    let root = if said & HAS_ROOT == 0 { None } else { Some((RootVersion(reader.number()?), Sha256(reader.array()?))) };
    let mut keys = Vec::new();
    while !reader.0.is_empty() {
        if keys.len() >= limits::KEYS_MAX {
            return Err(FrameError::Content);
        }
        let (public, created_at) = (PublicKeyBytes(reader.array()?), UnixMs(reader.number()?));
        let is = flags(reader.byte()?, ACTIVE | LISTED | VOID)?;
        let [is_active, is_listed, is_void] = [ACTIVE, LISTED, VOID].map(|flag| is & flag != 0);
        keys.push(HeldKey { public, created_at, is_active, is_listed, is_void });
    }
    Ok(SignerKeys { root, is_impaired: said & IMPAIRED != 0, keys })
}

#[cfg(test)]
mod tests;
