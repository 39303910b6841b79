//! `certificate`: a self-signed certificate for the people's listener, for those who have no
//! certificate authority. It is asked for by name, never made by itself, and people trust it by
//! giving the file to the CLI (`--ca`).

use std::{
    io,
    path::{Path, PathBuf},
};

use ids::{DurationMs, UnixMs};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::ServerName;

use crate::{
    clock, limits,
    next::{Next, in_url},
};

/// Name of the certificate's file in the data directory.
pub(crate) const CERT: &str = "people.cert.pem";
/// Name of its key's file.
pub(crate) const KEY: &str = "people.key.pem";

/// What the certificate is for.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CertificateArgs {
    /// Name or IP address under which people and new machines reach this control plane; may be given more than once
    #[arg(long = "name", value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error(
        "{name:?} is neither a host name nor an IP address: write it without https:// and without a port, such as fleet.example.org or 192.0.2.7"
    )]
    Name { name: String },
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot write {path}: check the owner and the free space of its disk")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Key(#[from] keyfile::KeyFileError),
    #[error("{path} does not exist: run `serverflow-control-plane init` first, or say --data-dir")]
    NoDirectory { path: PathBuf },
}

/// Where a new certificate lies.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes it and says how to use it.
///
/// # Errors
/// See [`MakeError`].
pub(crate) fn run(data_dir: &Path, args: &CertificateArgs, next: &Next) -> Result<(), MakeError> {
    if !data_dir.is_dir() {
        return Err(MakeError::NoDirectory { path: data_dir.to_owned() });
    }
    let made = make(data_dir, &args.names, clock::now())?;
    print!("{}", words(&made, &args.names, &next.serve(&[], Some(&made)), next.https_listen().port()));
    Ok(())
}

/// How a certificate is served, with the command that does so and its port, and how it is trusted.
pub(crate) fn words(made: &Made, names: &[String], serve: &str, port: u16) -> String {
    let (cert, key) = (made.cert.display(), made.key.display());
    let host = in_url(names.first().map_or("NAME", String::as_str));
    format!(
        "Self-signed certificate for {names}, valid for {days} days:\n  {cert}\n  {key}   (private)\n\n\
         Serve with it (a running control plane takes a new one up by itself):\n  \
         {serve}\n\n\
         No authority stands behind it: copy the certificate (not the key) to where you work, by a way you trust, and\n  \
         serverflow login https://{host}:{port} --ca people.cert.pem\n",
        names = names.join(", "),
        days = limits::CERTIFICATE_LIFETIME.0 / DurationMs::from_days(1).0,
    )
}

/// Writes certificate and key into a directory, in place of those made before.
///
/// # Errors
/// See [`MakeError`]; a name that is none changes nothing.
pub(crate) fn make(directory: &Path, names: &[String], now: UnixMs) -> Result<Made, MakeError> {
    if let Some(name) = names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
        return Err(MakeError::Name { name: name.clone() });
    }
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(names.to_vec())?;
    let first = names.first().map_or("ServerFlow", String::as_str);
    parameters
        .distinguished_name
        .push(DnType::CommonName, first.chars().take(limits::COMMON_NAME_MAX).collect::<String>());
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let at = |time: UnixMs| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(time.0 / 1000);
    // Clocks of those who look at it may be behind.
    parameters.not_before = at(now.minus(DurationMs::from_days(1)));
    parameters.not_after = at(now.plus(limits::CERTIFICATE_LIFETIME));
    let certificate = parameters.self_signed(&key)?;

    let made = Made { cert: directory.join(CERT), key: directory.join(KEY) };
    replace(&made.key, zeroize::Zeroizing::new(key.serialize_pem()).as_str())?;
    replace(&made.cert, &certificate.pem())?;
    Ok(made)
}

/// A whole new file (0600) in the place of an old one, if there is one.
fn replace(path: &Path, text: &str) -> Result<(), MakeError> {
    let fail = |source| MakeError::Write { path: path.to_owned(), source };
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    keyfile::write_text(&new, text)?;
    std::fs::rename(&new, path).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none_change_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["", "https://x", "x:8443", "a b", "[::1]"] {
            let error =
                make(directory.path(), &["fine.example".to_owned(), name.to_owned()], UnixMs(0)).expect_err(name);
            assert!(error.to_string().contains("neither a host name nor an IP address"), "{error}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
    }

    #[test]
    fn the_words_name_the_address_as_it_is_written_in_urls() {
        let made = Made { cert: "/d/people.cert.pem".into(), key: "/d/people.key.pem".into() };
        assert!(words(&made, &["::1".to_owned()], "serve", 8443).contains("https://[::1]:8443 --ca"));
        assert!(
            words(&made, &["a.example".to_owned(), "192.0.2.7".to_owned()], "serve", 8443)
                .contains("for a.example, 192.0.2.7, valid for 730 days")
        );
    }
}
