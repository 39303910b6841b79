//! `generate …`

use clap::CommandFactory as _;
use manual::{Generate, Section};
use serde::Serialize;

use crate::{
    arguments::Arguments,
    exit::{Ended, Failure},
    output::Output,
};

/// What `generate … --out` prints as JSON.
#[derive(Serialize)]
struct Written {
    files: Vec<String>,
}

pub(crate) fn run(output: &Output, what: &Generate) -> Result<Ended, Failure> {
    let written = manual::generate(&Arguments::command(), Section::User, what);
    let files = written.map_err(|error| Failure::invalid(error.to_string()))?;
    // Completions on standard output are all there is to say.
    if !files.is_empty() {
        let files = files.iter().map(|file| file.display().to_string()).collect();
        output
            .result(&Written { files }, |written, _| written.files.iter().map(|file| format!("{file}\n")).collect())?;
    }
    Ok(Ended::Well)
}
