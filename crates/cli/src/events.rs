//! Server-sent events (WHATWG HTML, section 9.2): bytes in, the data of whole events out.
//!
//! Only what our own control plane sends is needed: `data` fields. Names and ids are skipped, since
//! the data says itself what it is.

use crate::limits;

/// Collects a stream that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// The data of the event that is not whole yet.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a carriage return: a line feed right after it belongs to it.
    after_return: bool,
}

/// An event is larger than anything the control plane sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane sent an event of more than {} bytes", limits::EVENT_BYTES_MAX)]
pub(crate) struct EventTooLarge;

impl Events {
    /// Takes a piece and returns the data of the events that it completes.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, EventTooLarge> {
        let mut whole = Vec::new();
        for &byte in piece {
            let second_half = core::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if second_half => {}
                b'\r' | b'\n' => whole.extend(self.line_ended()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > limits::EVENT_BYTES_MAX {
                return Err(EventTooLarge);
            }
        }
        Ok(whole)
    }

    fn line_ended(&mut self) -> Option<Vec<u8>> {
        let line = core::mem::take(&mut self.line);
        if line.is_empty() {
            let has_data = core::mem::take(&mut self.has_data);
            let data = core::mem::take(&mut self.data);
            return has_data.then_some(data);
        }
        if let Some(value) = line.strip_prefix(b"data")
            && let Some(value) = value.strip_prefix(b":").or((value.is_empty()).then_some(value))
        {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<String> {
        let mut events = Events::default();
        let pushed = pieces.iter().flat_map(|piece| events.push(piece).unwrap());
        pushed.map(|data| String::from_utf8(data).unwrap()).collect()
    }

    const STREAM: &[u8] =
        b": hello\n\nevent: command\ndata: {\"a\":1}\n\ndata:x\r\ndata\rdata: y\r\n\r\nid: 7\n\ndatax: no\n\ndata: not whole";

    #[test]
    fn data_is_collected_and_everything_else_skipped() {
        assert_eq!(all(&[STREAM]), ["{\"a\":1}", "x\n\ny"]);
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(cuts in proptest::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &STREAM[pair[0]..pair[1]]).collect();
            prop_assert_eq!(all(&pieces), all(&[STREAM]));
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut events = Events::default();
        let piece = vec![b'x'; limits::EVENT_BYTES_MAX / 2 + 1];
        assert_eq!(events.push(&piece), Ok(Vec::new()));
        assert_eq!(events.push(&piece), Err(EventTooLarge));
    }
}
