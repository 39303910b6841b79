//! The Compose files of an app and what they name: read from the disk here, understood by `compose`.
//!
//! `compose` never sees the disk. It says which files it needs; they are read if they lie below the
//! folder of the first Compose file, links followed, or if the person named them. Then it is asked
//! again, a bounded number of times.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use compose::{Bundle, Composed, Needed, Options, Refused, limits::BUNDLE_ROUNDS_MAX};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    arguments::AppFiles,
    exit::{Failure, Kind},
    files, limits,
};

/// What standard input is called in messages.
const STDIN: &str = "<stdin>";

/// Files by their plain path; `None`: not there.
type Contents = BTreeMap<String, Option<Zeroizing<Vec<u8>>>>;

/// Reads the files, their variables and all they name.
pub(crate) fn read(files: &AppFiles) -> Result<Composed, Failure> {
    let folder = files.files.first().map_or_else(|| PathBuf::from("."), |file| folder_of(file));
    let mut contents = Contents::new();
    let mut order = Vec::with_capacity(files.files.len());
    for file in &files.files {
        let key = if is_stdin(file) { STDIN.to_owned() } else { compose::plain_path(&file.display().to_string()) };
        if !contents.contains_key(&key) {
            contents.insert(key.clone(), Some(files::read(file, compose::limits::FILE_BYTES_MAX)?));
        }
        order.push(key);
    }
    for file in &files.with_files {
        let key = compose::plain_path(&as_seen_from(&folder, file)?.display().to_string());
        contents.insert(key, Some(files::read(file, compose::limits::FILE_BYTES_MAX)?));
    }
    let mut variables = variables(&files.env_files, &folder)?;
    let composed = read_rounds(files, &folder, order, contents, &variables);
    // Any of them may be a secret.
    variables.values_mut().for_each(|value| value.zeroize());
    composed
}

fn read_rounds(
    files: &AppFiles,
    folder: &Path,
    order: Vec<String>,
    mut contents: Contents,
    variables: &BTreeMap<String, String>,
) -> Result<Composed, Failure> {
    let fallback = folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let options = Options {
        variables,
        app_name: files.name.clone(),
        fallback_name: fallback.as_deref(),
        profiles: &files.profiles,
    };
    for _ in 0..BUNDLE_ROUNDS_MAX {
        let bundle = Bundle {
            files: contents
                .iter()
                .map(|(path, bytes)| (path.clone(), bytes.as_ref().map(|bytes| bytes.as_slice())))
                .collect(),
            order: order.clone(),
            complete: false,
        };
        let needed = match compose::read(&bundle, &options) {
            Ok(composed) => return Ok(composed),
            Err(Refused::Problems(problems)) => return Err(refused(problems, &order)),
            Err(Refused::Needs(needed)) => needed,
        };
        for needed in needed {
            let bytes = read_below(folder, &needed)?;
            contents.insert(needed.path, bytes);
        }
    }
    Err(Failure::invalid(format!("the files name others, which name others, more than {BUNDLE_ROUNDS_MAX} times over"))
        .hint("put some of them into one"))
}

fn refused(problems: compose::Problems, order: &[String]) -> Failure {
    let count = problems.list.len() + problems.omitted;
    let things = if count == 1 { "1 problem".to_owned() } else { format!("{count} problems") };
    let whole = match order {
        [file] => format!("{file} has {things}; nothing was sent"),
        _ => format!("the files have {things}; nothing was sent"),
    };
    Failure::places(problems, whole)
}

/// Reads a file that a Compose file names, if there is one, and if it lies below `folder` when links are
/// followed.
fn read_below(folder: &Path, needed: &Needed) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let path = Path::new(&needed.path);
    let failed = |error: io::Error| Failure::file("read", path, &error);
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let root = folder.canonicalize().map_err(|error| Failure::file("find", folder, &error))?;
    if !real.starts_with(&root) {
        let why = format!("{} is a link out of the folder of the first Compose file, and was not read", path.display());
        return Err(Failure::invalid(why).hint("name the file with `--with-file` if it shall be read all the same"));
    }
    if !fs::metadata(&real).map_err(failed)?.is_file() {
        return Err(Failure::invalid(format!("{} is not a file", path.display())));
    }
    files::read(&real, needed.bytes_max).map(Some)
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !is_stdin(file) && !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A path in the form that paths of the Compose files have: absolute if their folder is given so, else
/// from where the program runs.
fn as_seen_from(folder: &Path, file: &Path) -> Result<PathBuf, Failure> {
    if folder.is_absolute() == file.is_absolute() {
        return Ok(file.to_path_buf());
    }
    let here = env::current_dir()
        .map_err(|error| Failure::new(Kind::NotWell, format!("cannot find out where this is run: {error}")))?;
    if folder.is_absolute() {
        return Ok(here.join(file));
    }
    Ok(file.strip_prefix(&here).unwrap_or(file).to_path_buf())
}

/// The process environment over files of variables: those that were named, which must be there, or
/// `.env` beside the first Compose file, which may.
fn variables(env_files: &[PathBuf], folder: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let environment: BTreeMap<String, String> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let beside = [folder.join(".env")];
    let paths = match env_files {
        [] if beside[0].is_file() => &beside,
        [] => return Ok(environment),
        named => named,
    };
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for path in paths {
        let text = files::read_text(path, limits::ENV_FILE_BYTES_MAX)?;
        // A value may refer to the environment and to the files before its own.
        let mut seen = variables.clone();
        seen.extend(environment.clone());
        let read = compose::dotenv_over(&text, &seen).map_err(|mut problem| {
            problem.file = path.display().to_string();
            Failure::places(problem.into(), format!("{} has a problem; nothing was sent", path.display()))
        })?;
        variables.extend(read);
        seen.values_mut().for_each(|value| value.zeroize());
    }
    variables.extend(environment);
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use clap::Parser as _;

    use super::*;
    use crate::arguments::{App, Arguments, Noun};

    fn files(folder: &Path, more: &[&str]) -> AppFiles {
        let file = folder.join("compose.yaml");
        let line = ["serverflow", "app", "check", "-f", file.to_str().unwrap()];
        let arguments = Arguments::try_parse_from(line.iter().chain(more)).unwrap();
        match arguments.noun {
            Noun::App(App::Check(files)) => files,
            other => panic!("not a check: {other:?}"),
        }
    }

    #[test]
    fn variables_come_from_the_environment_over_the_file_beside() {
        let folder = tempfile::tempdir().unwrap();
        let shop = folder.path().join("Shop");
        fs::create_dir(&shop).unwrap();
        fs::write(
            shop.join("compose.yaml"),
            "services:\n  web:\n    image: x:1\n    environment:\n      A: ${A_OF_TEST}\n      P: ${PATH}\n",
        )
        .unwrap();
        fs::write(shop.join(".env"), "A_OF_TEST=one\nPATH=never\n").unwrap();
        fs::write(shop.join("other.env"), "A_OF_TEST=two\n").unwrap();
        let check = |more: &[&str], value: &str| {
            let composed = read(&files(&shop, more)).unwrap();
            let secret = |name: &str| {
                composed.secrets[&actions::spec::SecretName(format!("web/environment/{name}"))].to_string()
            };
            assert_eq!(secret("A"), value);
            assert_eq!(secret("P"), env::var("PATH").unwrap());
            composed.spec.app.to_string()
        };
        assert_eq!(check(&[], "one"), "shop");
        let other = shop.join("other.env");
        assert_eq!(check(&["--env-file", other.to_str().unwrap(), "--name", "store"], "two"), "store");
        let missing = read(&files(&shop, &["--env-file", "/no/such/file"])).expect_err("must be there");
        assert!(missing.lines().contains("/no/such/file"));
    }

    #[test]
    fn every_problem_of_a_file_is_listed_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("compose.yaml"),
            "services:\n  web:\n    imagee: x\n    ports: [\"8080:80:80:80\"]\n",
        )
        .unwrap();
        let failure = read(&files(folder.path(), &[])).expect_err("refused");
        assert_eq!(failure.kind, Kind::Invalid);
        let lines = failure.lines();
        assert!(lines.contains("compose.yaml:3:5: services.web.imagee: "), "{lines}");
        assert!(lines.contains("compose.yaml:4:"), "{lines}");
        assert!(lines.contains("problems; nothing was sent"), "{lines}");
        fs::write(folder.path().join(".env"), "A=1\n=2\n").unwrap();
        let lines = read(&files(folder.path(), &[])).expect_err("refused").lines();
        assert!(lines.contains("/.env:2:"), "{lines}");
    }

    #[test]
    fn a_file_beyond_the_bound_is_refused_before_it_is_parsed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("compose.yaml"), vec![b'#'; 10 * 1024 * 1024]).unwrap();
        let failure = read(&files(folder.path(), &[])).expect_err("refused");
        assert_eq!(failure.kind, Kind::Invalid);
        assert!(failure.lines().contains("has more than 1048576 bytes"), "{}", failure.lines());
    }

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn what_the_files_name_is_read_round_by_round() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[
                (
                    "app/compose.yaml",
                    "include: [db/compose.yaml]\nservices:\n  web: {image: \"a:${TAG}\", env_file: [{path: none.env, required: false}, ../shared.env]}\n",
                ),
                ("app/over.yaml", "services: {web: {init: true}}"),
                (
                    "app/db/compose.yaml",
                    "services: {db: {image: b, extends: {service: base, file: base.yaml}, profiles: [db]}}",
                ),
                ("app/db/base.yaml", "services: {base: {user: u, secrets: [key]}}"),
                ("shared.env", "SHARED=1\n"),
                ("one.env", "TAG=1\n"),
                ("two.env", "TAG=${TAG}2\n"),
            ],
        );
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (over, shared, one, two) = (path("app/over.yaml"), path("shared.env"), path("one.env"), path("two.env"));
        let app = folder.path().join("app");
        let arguments = ["-f", &over, "--with-file", &shared, "--env-file", &one, "--env-file", &two, "--profile", "x"];
        let composed = read(&files(&app, &arguments)).unwrap();
        let web = &composed.spec.services[&"web".parse().unwrap()];
        assert_eq!((web.init, web.image.as_str()), (Some(true), "a:12"));
        assert_eq!(composed.secrets.values().map(|text| text.as_str()).collect::<Vec<_>>(), ["1"]);
        let outside = read(&files(&app, &[])).expect_err("refused").lines();
        assert!(outside.contains("/shared.env` lies outside of the folder of the first Compose file"), "{outside}");
        let with_profile =
            read(&files(&app, &["--with-file", &shared, "--profile", "db"])).expect_err("refused").lines();
        assert!(
            with_profile.contains("base.yaml:1:38: services.db.secrets[0]: no secret is called `key`"),
            "{with_profile}"
        );
    }

    #[test]
    fn links_out_of_the_folder_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let app = folder.path().join("app");
        write(
            folder.path(),
            &[
                ("app/compose.yaml", "services: {web: {image: a, env_file: web.env}}"),
                ("app/inside.env", "A=1\n"),
                ("outside.env", "A=hunter2\n"),
            ],
        );
        symlink(app.join("inside.env"), app.join("web.env")).unwrap();
        assert_eq!(read(&files(&app, &[])).unwrap().secrets.len(), 1, "a link that stays inside is a file like others");
        fs::remove_file(app.join("web.env")).unwrap();
        symlink(folder.path().join("outside.env"), app.join("web.env")).unwrap();
        let lines = read(&files(&app, &[])).expect_err("refused").lines();
        assert!(lines.contains("web.env is a link out of the folder") && !lines.contains("hunter2"), "{lines}");
        fs::remove_file(app.join("web.env")).unwrap();
        fs::create_dir(app.join("web.env")).unwrap();
        let lines = read(&files(&app, &[])).expect_err("refused").lines();
        assert!(lines.contains("web.env is not a file"), "{lines}");
    }
}
