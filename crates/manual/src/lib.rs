//! What a program says about itself to shells and to `man`: completions for bash, zsh and fish, and a
//! man page for each command, made from the very definition that reads its arguments, so that neither
//! can name a flag that is not there. The three programs share it, and each offers it as `generate`.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Command, CommandFactory, FromArgMatches, Subcommand, ValueEnum};
use clap_complete::aot;
use clap_mangen::Man;

/// Name of the manual in the pages' footers.
const MANUAL: &str = "ServerFlow";

/// `generate`'s verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Generate {
    /// Write completions for shells: what the Tab key offers
    Completions(Completions),
    /// Write the man pages, one for each command
    Man {
        /// Directory to write to; made if it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Which completions, and where to.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Completions {
    /// Print those of this shell to standard output
    #[arg(long, value_name = "SHELL", value_enum)]
    shell: Option<Shell>,
    /// Directory to write those of every shell to; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Shells that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    const ALL: [Self; 3] = [Self::Bash, Self::Zsh, Self::Fish];

    const fn generator(self) -> aot::Shell {
        match self {
            Self::Bash => aot::Shell::Bash,
            Self::Zsh => aot::Shell::Zsh,
            Self::Fish => aot::Shell::Fish,
        }
    }
}

/// Section of the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// 1: for everyone.
    User,
    /// 8: for whoever runs the machine.
    System,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "1",
            Self::System => "8",
        })
    }
}

/// Why something could not be written.
#[derive(Debug)]
pub struct GenerateError {
    place: String,
    source: io::Error,
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write {}: {}; choose another place, or free it", self.place, self.source)
    }
}

impl std::error::Error for GenerateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A program's definition, with examples of its own at `generate`.
#[must_use]
pub fn command<P: CommandFactory>(section: Section) -> Command {
    let program = P::command();
    let name = program.get_name().to_owned();
    let completions = format!("Example:\n  {name} generate completions --shell bash >/etc/bash_completion.d/{name}");
    let man = format!("Example:\n  {name} generate man --out /usr/local/share/man/man{section}");
    program.mut_subcommand("generate", |generate| {
        generate
            .mut_subcommand("completions", |verb| verb.after_help(completions))
            .mut_subcommand("man", |verb| verb.after_help(man))
    })
}

/// Reads a program's arguments by [`command`].
///
/// # Errors
/// What is wrong with them; also help and version, where they are asked for.
pub fn parse<P: CommandFactory + FromArgMatches>(
    section: Section,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<P, clap::Error> {
    let mut command = command::<P>(section);
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Writes what is asked for, and names the files that were written (none for standard output).
///
/// # Errors
/// When a directory or file cannot be written.
pub fn generate(program: &Command, section: Section, what: &Generate) -> Result<Vec<PathBuf>, GenerateError> {
    match what {
        Generate::Completions(Completions { shell: Some(shell), .. }) => {
            let mut output = io::stdout().lock();
            let written = output.write_all(&completions(program, *shell)).and_then(|()| output.flush());
            written.map_err(|source| GenerateError { place: "to standard output".to_owned(), source })?;
            Ok(Vec::new())
        }
        Generate::Completions(Completions { out, .. }) => {
            let directory = out.as_deref().unwrap_or(Path::new("."));
            Shell::ALL.iter().map(|shell| completions_file(program, *shell, directory)).collect()
        }
        Generate::Man { out } => man_pages(program, section, out),
    }
}

fn completions(program: &Command, shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    aot::generate(shell.generator(), &mut program.clone(), program.get_name(), &mut text);
    text
}

fn completions_file(program: &Command, shell: Shell, directory: &Path) -> Result<PathBuf, GenerateError> {
    use clap_complete::Generator as _;
    let path = directory.join(shell.generator().file_name(program.get_name()));
    write(path, &completions(program, shell))
}

fn man_pages(program: &Command, section: Section, directory: &Path) -> Result<Vec<PathBuf>, GenerateError> {
    let mut program = program.clone().disable_help_subcommand(true);
    // Gives each command its whole name: serverflow-host-list.
    program.build();
    let source = format!("{} {}", program.get_name(), program.get_version().unwrap_or_default());
    let mut paths = Vec::new();
    let mut waiting = vec![program];
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        let man = Man::new(command).section(section.to_string()).source(&source).manual(MANUAL);
        let mut page = Vec::new();
        let path = directory.join(man.get_filename());
        man.render(&mut page).map_err(|source| GenerateError { place: path.display().to_string(), source })?;
        paths.push(write(path, &page)?);
    }
    paths.sort();
    Ok(paths)
}

fn write(path: PathBuf, content: &[u8]) -> Result<PathBuf, GenerateError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, content));
    written.map_err(|source| GenerateError { place: path.display().to_string(), source })?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn program() -> Command {
        let list = Command::new("list").about("List things").arg(Arg::new("label").long("label").help("Only these"));
        let secret = Command::new("secret").hide(true);
        let thing = Command::new("thing").about("Work with things").subcommand(list).subcommand(secret);
        Command::new("prog").version("1.2").about("Does things").subcommand(thing)
    }

    fn names(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[derive(Debug, clap::Parser)]
    #[command(name = "prog-agent")]
    struct Arguments {
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(Debug, Subcommand)]
    enum Verb {
        #[command(subcommand)]
        Generate(Generate),
    }

    #[test]
    fn the_examples_are_of_the_program_itself() {
        let help = |verb: &str| {
            let line = ["prog-agent", "generate", verb, "--help"].map(OsString::from);
            parse::<Arguments>(Section::System, line).expect_err("help").to_string()
        };
        assert!(help("man").contains("prog-agent generate man --out /usr/local/share/man/man8"), "{}", help("man"));
        assert!(help("completions").contains("/etc/bash_completion.d/prog-agent"));
        let line = ["prog-agent", "generate", "man", "--out", "d"].map(OsString::from);
        let Verb::Generate(what) = parse::<Arguments>(Section::System, line).expect("understood").verb;
        assert!(matches!(what, Generate::Man { .. }));
    }

    #[test]
    fn each_shell_gets_a_file_under_the_name_it_looks_for() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("new/folder");
        let what = Generate::Completions(Completions { shell: None, out: Some(out) });
        let paths = generate(&program(), Section::User, &what).unwrap();
        assert_eq!(names(&paths), ["prog.bash", "_prog", "prog.fish"]);
        for path in paths {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("thing") && text.contains("label"), "{}", path.display());
        }
    }

    #[test]
    fn each_command_that_is_shown_gets_a_page_in_its_section() {
        let directory = tempfile::tempdir().unwrap();
        let what = Generate::Man { out: directory.path().to_owned() };
        let paths = generate(&program(), Section::System, &what).unwrap();
        assert_eq!(names(&paths), ["prog-thing-list.8", "prog-thing.8", "prog.8"]);
        let page = std::fs::read_to_string(&paths[0]).unwrap();
        assert!(page.contains(".TH prog-thing-list 8") && page.contains("ServerFlow"), "{page}");
        assert!(page.contains("Only these"), "{page}");
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = generate(&program(), Section::User, &Generate::Man { out: file.join("below") }).unwrap_err();
        assert!(error.to_string().contains("file/below"), "{error}");
    }
}
