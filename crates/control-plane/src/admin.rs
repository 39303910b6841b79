//! `admin`: accounts, on the control plane's own machine, for whoever may read its keys. It needs no
//! sign-in, because it is the way back in when nobody can.
//!
//! One process writes a database, so who does it is decided by the database's lock: when it is free,
//! this program takes it and writes; when a running control plane holds it, that one is asked, through
//! a socket in its private directory ([`crate::admin_socket`]).

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use fleet::{
    people,
    ports::{Event, Notifier, Store, StoreError},
};
use ids::{UnixMs, UserName};
use keyfile::KeyFileError;
use serde::{Deserialize, Serialize};
use store::{SqliteStore, StoreConfig};
use zeroize::Zeroizing;

use crate::{admin_socket, clock, files::Files, next::Next};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum AdminCommand {
    /// List the accounts
    ///
    /// Example: serverflow-control-plane admin list --data-dir /var/lib/serverflow
    List {
        /// Print one JSON document on standard output and nothing else
        #[arg(long)]
        json: bool,
    },
    /// Set an account's password and end its sessions; makes one and shows it once, unless a file has it
    ///
    /// Example: serverflow-control-plane admin reset-password ada --data-dir /var/lib/serverflow
    ResetPassword {
        /// Name of the account
        name: UserName,
        /// File whose first line is the new password; `-` reads standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Print one JSON document on standard output and nothing else
        #[arg(long)]
        json: bool,
    },
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("{path} does not hold a control plane: name its directory with --data-dir")]
    NotInitialised { path: PathBuf },
    #[error("{0}")]
    Key(#[from] KeyFileError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Credentials(#[from] web::credentials::CredentialError),
    #[error("cannot read the password from {path}")]
    PasswordFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Socket(#[from] admin_socket::SocketError),
    #[error("the result cannot be printed, but it was done; run the command again for another password")]
    Print(#[source] io::Error),
}

/// What is asked of whoever has the database.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    List,
    /// A password's hash: the password itself stays with whoever asks.
    PasswordSet {
        name: UserName,
        password_hash: String,
    },
}

impl Request {
    /// What it asks, for the log.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::List => "list accounts",
            Self::PasswordSet { .. } => "set a password",
        }
    }
}

/// One account, as `admin list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    name: String,
    role: String,
    disabled: bool,
}

/// The accounts asked for or changed, or why not.
pub(crate) type Answer = Result<Vec<Account>, String>;

/// Does what was asked. `by` is the number of the operating system's user who asks.
pub(crate) async fn perform(
    store: &dyn Store,
    notifier: Option<&dyn Notifier>,
    request: Request,
    by: u32,
    now: UnixMs,
) -> Result<Answer, StoreError> {
    let account = |user: &fleet::model::User| Account {
        name: user.name.to_string(),
        role: user.role.to_string(),
        disabled: user.disabled_at.is_some(),
    };
    match request {
        Request::List => Ok(Ok(store.users().await?.iter().map(account).collect())),
        Request::PasswordSet { name, password_hash } => {
            let Some(user) = store.user_by_name(name.clone()).await? else {
                return Ok(Err(format!("there is no account {name}")));
            };
            let write = people::machine_password_set(user.clone(), password_hash, by, now);
            store.write(write).await?;
            if let Some(notifier) = notifier {
                notifier.publish(Event::Account { user: user.id });
            }
            Ok(Ok(vec![account(&user)]))
        }
    }
}

/// Does it here when the database is free, and asks the control plane that has it otherwise.
async fn ask(data_dir: &Path, request: Request) -> Result<Vec<Account>, AdminError> {
    let files = Files::new(data_dir);
    if !files.database().exists() {
        return Err(AdminError::NotInitialised { path: data_dir.to_owned() });
    }
    let data_key = keyfile::read_symmetric(&files.data_key())?;
    let answer = match SqliteStore::open(StoreConfig { path: files.database(), data_key }).await {
        Ok(store) => {
            let by = rustix::process::getuid().as_raw();
            let answer = perform(&store, None, request, by, clock::now()).await;
            store.close().await;
            answer?
        }
        Err(_) if store::is_in_use(&files.database())? => admin_socket::ask(data_dir, &request).await?,
        Err(error) => return Err(error.into()),
    };
    answer.map_err(AdminError::Refused)
}

pub(crate) async fn run(data_dir: PathBuf, command: AdminCommand, next: &Next) -> Result<(), AdminError> {
    let text = match command {
        AdminCommand::List { json } => list_text(&ask(&data_dir, Request::List).await?, json),
        AdminCommand::ResetPassword { name, password_file, json } => {
            let password = password_file.as_deref().map(password_of).transpose()?;
            let is_given = password.is_some();
            let password = password.map_or_else(keyfile::passphrase, Ok)?;
            web::credentials::password_rule(&password)?;
            let password_hash = web::credentials::password_hash(&password)?;
            let set = ask(&data_dir, Request::PasswordSet { name: name.clone(), password_hash }).await;
            let accounts = set.map_err(|error| match error {
                AdminError::Refused(why) => AdminError::Refused(format!(
                    "{why}; `serverflow-control-plane admin list{}` names the accounts",
                    next.flags()
                )),
                error => error,
            })?;
            let disabled = accounts.iter().any(|account| account.disabled);
            reset_text(&name, (!is_given).then_some(&*password), disabled, json)
        }
    };
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(AdminError::Print)
}

/// The first line of a file.
fn password_of(path: &Path) -> Result<Zeroizing<String>, AdminError> {
    let failed = |source| AdminError::PasswordFile { path: path.to_owned(), source };
    let mut text = Zeroizing::new(String::new());
    let most = web::credentials::PASSWORD_BYTES_MAX as u64 + 2;
    if path == Path::new("-") {
        io::stdin().take(most).read_to_string(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(path).map_err(failed)?.take(most).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn list_text(accounts: &[Account], json: bool) -> Zeroizing<String> {
    if json {
        return Zeroizing::new(format!("{}\n", serde_json::json!(accounts)));
    }
    let width = accounts.iter().map(|account| account.name.len()).max().unwrap_or(0);
    let line = |account: &Account| {
        let disabled = if account.disabled { "  disabled" } else { "" };
        format!("{:width$}  {}{disabled}\n", account.name, account.role)
    };
    Zeroizing::new(accounts.iter().map(line).collect())
}

/// `shown` is the password, if it was made here.
fn reset_text(name: &UserName, shown: Option<&String>, disabled: bool, json: bool) -> Zeroizing<String> {
    if json {
        return Zeroizing::new(format!(
            "{}\n",
            serde_json::json!({ "name": name, "password": shown, "disabled": disabled })
        ));
    }
    let mut text = Zeroizing::new(format!("{name} has a new password, and its sessions have ended.\n"));
    if let Some(password) = shown {
        text.push_str(&format!("Password  {password}   (shown once)\n"));
    }
    if disabled {
        text.push_str(
            "The account is disabled: an admin has to enable it with `serverflow user enable` before it signs in.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::tests::made;

    #[tokio::test]
    async fn a_password_is_reset_while_nothing_runs_and_leaves_an_entry() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data_dir = made(directory.path()).await;
        let listed = ask(&data_dir, Request::List).await.expect("listed");
        assert_eq!(&*list_text(&listed, false), "admin  owner\n");
        let password_hash = web::credentials::password_hash("a long enough one").expect("hashed");
        let set = |name: &str| Request::PasswordSet {
            name: name.parse().expect("a name"),
            password_hash: password_hash.clone(),
        };
        ask(&data_dir, set("admin")).await.expect("set");
        let refused = ask(&data_dir, set("nobody")).await.expect_err("no such account").to_string();
        assert!(refused.contains("there is no account nobody"), "{refused}");

        let files = Files::new(&data_dir);
        let data_key = keyfile::read_symmetric(&files.data_key()).expect("the key");
        let store = SqliteStore::open(StoreConfig { path: files.database(), data_key }).await.expect("closed before");
        let user = store.user_by_name("admin".parse().expect("a name")).await.expect("read").expect("there");
        assert!(web::credentials::password_matches("a long enough one", &user.password_hash));
        let last = store.audit(0, 100).await.expect("read").pop().expect("an entry");
        assert_eq!(last.subject, "user admin: password set");
        assert!(last.actor.starts_with("machine (user "), "{}", last.actor);

        // The lock is held, and nobody answers.
        let error = ask(&data_dir, Request::List).await.expect_err("in use").to_string();
        assert!(error.contains("does not answer"), "{error}");
    }

    #[test]
    fn a_generated_password_is_shown_and_a_given_one_is_not() {
        let name = "ada".parse().expect("a name");
        assert!(reset_text(&name, Some(&"abc".to_owned()), false, false).contains("Password  abc"));
        let text = reset_text(&name, None, true, false);
        assert!(!text.contains("Password  ") && text.contains("disabled"), "{}", &*text);
        assert!(reset_text(&name, None, false, true).contains("\"password\":null"));
    }
}
