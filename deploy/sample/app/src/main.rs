//! The sample app: a web server small enough to read in one sitting, used to try ServerFlow and to
//! test it. It is one static program in an otherwise empty image.
//!
//! `sample serve` answers `/` with a page and `/health` with 200 or 503; `sample check` is the health
//! probe run inside the container; `sample once [code] [message]` prints a line and ends, as a
//! migration would. `FAIL` makes it misbehave on purpose (see [`fault`]).

mod fault;
mod http;
mod page;

use std::{env, process::ExitCode};

/// Port served when `PORT` says nothing else.
const PORT_DEFAULT: u16 = 8080;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let end = match args.first().map(String::as_str) {
        Some("serve") => serve(),
        Some("check") => check(),
        Some("once") => once(&args[1..]),
        _ => Err("usage: sample serve | check | once [code] [message]".to_owned()),
    };
    end.unwrap_or_else(|message| {
        eprintln!("sample: {message}");
        ExitCode::FAILURE
    })
}

fn port() -> Result<u16, String> {
    match env::var("PORT") {
        Err(_) => Ok(PORT_DEFAULT),
        Ok(text) => text.parse().map_err(|_| format!("PORT is {text:?}; set it to a number from 1 to 65535")),
    }
}

fn serve() -> Result<ExitCode, String> {
    let fault = match env::var("FAIL") {
        Err(_) => None,
        Ok(text) if text.is_empty() => None,
        Ok(text) => Some(text.parse::<fault::Fault>()?),
    };
    if let Some(fault::Fault::Exit(code)) = fault {
        eprintln!("sample: ending at once with {code}, as FAIL says");
        return Ok(ExitCode::from(code));
    }
    http::serve(port()?, fault, &page::render(&page::Facts::from_environment()))
}

fn check() -> Result<ExitCode, String> {
    let status = http::probe(port()?)?;
    if status == 200 {
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!("/health answered {status}"))
}

fn once(args: &[String]) -> Result<ExitCode, String> {
    let code = match args.first() {
        None => 0,
        Some(text) => text.parse::<u8>().map_err(|_| format!("exit code is {text:?}; give a number from 0 to 255"))?,
    };
    println!("{}", args.get(1).map_or("prepared", String::as_str));
    Ok(ExitCode::from(code))
}
