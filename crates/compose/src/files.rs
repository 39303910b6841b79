//! `configs` and `secrets`: files that travel with the order, sealed, and are put into containers.
//! At the top each says where its content comes from; a service says which it gets, and where.

use std::collections::BTreeMap;

use actions::spec::{FileSpec, SealedText, SecretName, Text, TextEncoding};
use data_encoding::BASE64;
use ids::ServiceName;
use zeroize::Zeroizing;

use crate::{
    assemble::file_path,
    limits::TEXT_BYTES_MAX,
    paths,
    problem::excerpt,
    reading::{Field, Reading, is_extension},
    sources::Found,
    units,
};

/// The two kinds, which differ in where they go and what they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    Config,
    Secret,
}

impl Grant {
    const fn section(self) -> &'static str {
        match self {
            Self::Config => "configs",
            Self::Secret => "secrets",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Secret => "secret",
        }
    }

    /// Where files with a relative target go.
    const fn folder(self) -> &'static str {
        match self {
            Self::Config => "",
            Self::Secret => "/run/secrets",
        }
    }
}

pub(crate) const KEYS: &[&str] = &["file", "environment", "content", "external", "name", "labels"];
const LATER: &[(&str, &str)] = &[
    ("driver", "leave it out: it serves swarms only"),
    ("driver_opts", "leave it out: it serves swarms only"),
    ("template_driver", "put the variables into `content`, or the finished text into a file"),
];
pub(crate) const GRANT_KEYS: &[&str] = &["source", "target", "uid", "gid", "mode"];

/// The path in the container that a target means.
pub(crate) fn target(grant: Grant, text: &str) -> Result<String, &'static str> {
    if text.starts_with('/') {
        paths::mount_target(text)
    } else {
        paths::mount_target(&format!("{}/{text}", grant.folder()))
    }
}

/// Where the content of one comes from.
enum Origin<'n> {
    File(Field<'n>),
    Environment(Field<'n>),
    Content(Field<'n>),
    /// It was refused.
    Wrong,
}

/// The configs and secrets at the top, by name.
pub(crate) struct Offered<'n> {
    configs: BTreeMap<ServiceName, Origin<'n>>,
    secrets: BTreeMap<ServiceName, Origin<'n>>,
}

impl<'n> Offered<'n> {
    pub(crate) fn read(reading: &mut Reading<'_>, root: &Field<'n>) -> Self {
        let mut read = |grant: Grant| {
            let mut named = BTreeMap::new();
            let Some(field) = root.find(grant.section()) else { return named };
            for entry in reading.named_entries(&field) {
                let origin = origin(reading, grant, &entry);
                if let Some(name) = reading.key_name(&entry) {
                    named.insert(name, origin);
                }
            }
            named
        };
        Self { configs: read(Grant::Config), secrets: read(Grant::Secret) }
    }
}

fn origin<'n>(reading: &mut Reading<'_>, grant: Grant, field: &Field<'n>) -> Origin<'n> {
    let mut origins = Vec::new();
    let mut wrong = false;
    for entry in reading.mapping(field).unwrap_or_default() {
        match entry.key {
            "file" => origins.push(Origin::File(entry)),
            "environment" => origins.push(Origin::Environment(entry)),
            "content" if grant == Grant::Secret => {
                let hint =
                    "write it into a file and name that with `file`, or take it from a variable with `environment`";
                reading.refuse_with(&entry, "a secret does not stand in the Compose file itself", hint);
                wrong = true;
            }
            "content" => origins.push(Origin::Content(entry)),
            "external" => {
                if entry.is_mapping() || reading.parsed(&entry, units::switch) != Some(false) {
                    let message = format!("an external {}, which a swarm keeps, is not supported here", grant.word());
                    let hint = "name its content with `file` or `environment`: it travels sealed to the host";
                    reading.refuse_with(&entry, message, hint);
                    wrong = true;
                }
            }
            // Names and labels that only a swarm's store would have.
            "name" | "labels" => {
                reading.note_plain(&entry, format!("`{}` has no effect: no swarm keeps it", entry.key))
            }
            key if is_extension(key) => {}
            _ => reading.unknown_key(&entry, &format!("a {}", grant.word()), KEYS, LATER),
        }
    }
    match (origins.pop(), origins.is_empty(), wrong) {
        (Some(origin), true, false) => origin,
        (_, _, true) => Origin::Wrong,
        (Some(_), false, _) => {
            reading.refuse_with(
                field,
                "its content comes from more than one place",
                "keep one of `file`, `environment`, `content`",
            );
            Origin::Wrong
        }
        (None, ..) => {
            let hint = if grant == Grant::Secret {
                "name it: `file: path` or `environment: VARIABLE`"
            } else {
                "name it: `file: path`, `environment: VARIABLE` or `content: |`"
            };
            reading.refuse_with(field, format!("the {} has no content", grant.word()), hint);
            Origin::Wrong
        }
    }
}

/// What a service gets: its `configs` or `secrets`.
pub(crate) fn granted(
    reading: &mut Reading<'_>,
    service: &str,
    field: &Field<'_>,
    grant: Grant,
    offered: &Offered<'_>,
) -> Vec<FileSpec> {
    let mut files = Vec::new();
    for item in reading.list(field).unwrap_or_default() {
        files.extend(one(reading, service, &item, grant, offered));
    }
    files
}

fn one(
    reading: &mut Reading<'_>,
    service: &str,
    item: &Field<'_>,
    grant: Grant,
    offered: &Offered<'_>,
) -> Option<FileSpec> {
    let mut source: Option<(ServiceName, Field<'_>)> = None;
    let (mut path, mut uid, mut gid, mut mode) = (None, None, None, None);
    if item.is_mapping() {
        for entry in reading.mapping(item)? {
            match entry.key {
                "source" => {
                    let value = reading.value(&entry)?;
                    source = Some((reading.name(&entry, &value, &value.text)?, entry));
                }
                "target" => {
                    let value = reading.value(&entry)?;
                    match target(grant, &value.text) {
                        Ok(target) => path = Some(target),
                        Err(reason) => {
                            reading.refuse_value(&entry, &value, reason);
                            return None;
                        }
                    }
                }
                "uid" => uid = Some(reading.parsed(&entry, units::whole)?),
                "gid" => gid = Some(reading.parsed(&entry, units::whole)?),
                "mode" => mode = Some(reading.parsed(&entry, units::mode)?),
                key if is_extension(key) => {}
                _ => reading.unknown_key(&entry, &format!("a {} of a service", grant.word()), GRANT_KEYS, &[]),
            }
        }
        if source.is_none() {
            reading.refuse_with(item, "it has no `source`", format!("name one of `{}` at the top", grant.section()));
        }
    } else {
        let value = reading.value(item)?;
        source = Some((reading.name(item, &value, &value.text)?, item.clone()));
    }
    let (name, at) = source?;
    let path = match path {
        Some(path) => path,
        None => target(grant, name.as_str()).ok()?,
    };
    let (content, encoding) = content(reading, service, &name, &at, grant, offered)?;
    Some(FileSpec { target: path, content, encoding, uid, gid, mode })
}

/// The sealed content of one, read where a service first asks for it.
fn content(
    reading: &mut Reading<'_>,
    service: &str,
    name: &ServiceName,
    at: &Field<'_>,
    grant: Grant,
    offered: &Offered<'_>,
) -> Option<(SealedText, TextEncoding)> {
    let section = match grant {
        Grant::Config => &offered.configs,
        Grant::Secret => &offered.secrets,
    };
    let Some(origin) = section.get(name) else {
        let known: Vec<&str> = section.keys().map(ServiceName::as_str).collect();
        crate::relations::unknown(reading, at, grant.word(), name, &known);
        return None;
    };
    let (text, encoding) = match origin {
        Origin::File(field) => file_content(reading, field)?,
        Origin::Environment(field) => (variable_content(reading, field)?, TextEncoding::Plain),
        Origin::Content(field) => (reading.value(field)?.text, TextEncoding::Plain),
        Origin::Wrong => return None,
    };
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("{} has more than {TEXT_BYTES_MAX} bytes as it travels", excerpt(name.as_str()));
        reading.refuse_with(at, message, "put large files into the image, or into a volume");
        return None;
    }
    let sealed = format!("{service}/{}/{name}", grant.section());
    match reading.sealed(sealed.clone(), text) {
        Text::Sealed(sealed) => Some((sealed, encoding)),
        Text::Plain(_) => Some((SealedText { sealed: SecretName(sealed) }, encoding)),
    }
}

fn file_content(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<(Zeroizing<String>, TextEncoding)> {
    let (path, value) = file_path(reading, field)?;
    match reading.sources.find(&path, TEXT_BYTES_MAX) {
        Found::Here(bytes) => match core::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Some((text.to_owned().into(), TextEncoding::Plain)),
            _ => Some((BASE64.encode(bytes).into(), TextEncoding::Base64)),
        },
        found => {
            reading.refuse_file(field, &path, value.reached, &found);
            // So that what follows is read all the same.
            matches!(found, Found::Needed).then(|| (Zeroizing::default(), TextEncoding::Plain))
        }
    }
}

fn variable_content(reading: &mut Reading<'_>, field: &Field<'_>) -> Option<Zeroizing<String>> {
    let value = reading.value(field)?;
    let found = reading.variable(field, &value.text).map(|text| Zeroizing::new(text.to_owned()));
    if found.is_none() {
        let shown = if value.reached { "it names".to_owned() } else { excerpt(&value.text) };
        reading.refuse_with(
            field,
            format!("the variable {shown} is not set"),
            "set it in the environment or in `.env` beside the file",
        );
    }
    found
}
