//! Reading files a person named, never more than a bound says.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use zeroize::Zeroizing;

use crate::exit::Failure;

/// What a file holds, or, for `-`, standard input. At most `max` bytes; the buffer is wiped when
/// dropped, since it may hold secrets.
pub(crate) fn read(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error: io::Error| Failure::file("read", path, &error);
    let source = source(path)?;
    let mut bytes = Zeroizing::new(Vec::new());
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    source.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > max {
        return Err(Failure::invalid(format!("{} has more than {max} bytes, which is the most", path.display())));
    }
    Ok(bytes)
}

fn source(path: &Path) -> Result<Box<dyn io::Read>, Failure> {
    let failed = |error: io::Error| Failure::file("read", path, &error);
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(Failure::invalid(format!("cannot read {}: it is a folder", path.display())));
    }
    Ok(Box::new(file))
}

/// The same piece by piece, for what may be large. After `max` bytes it ends.
pub(crate) fn open(path: &Path, max: u64) -> Result<impl io::Read, Failure> {
    Ok(io::BufReader::with_capacity(1 << 20, source(path)?.take(max)))
}

/// [`read`], as text.
pub(crate) fn read_text(path: &Path, max: usize) -> Result<Zeroizing<String>, Failure> {
    let bytes = read(path, max)?;
    let text = core::str::from_utf8(&bytes)
        .map_err(|e| Failure::invalid(format!("{} is not UTF-8 at byte {}", path.display(), e.valid_up_to())))?;
    Ok(Zeroizing::new(text.to_owned()))
}
