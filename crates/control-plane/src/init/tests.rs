use super::*;

fn args() -> InitArgs {
    InitArgs {
        agent_address: vec!["127.0.0.1:7443".to_owned()],
        admin: "admin".parse().expect("a user name"),
        http_name: Vec::new(),
        root_keys: None,
        finish: None,
        json: true,
    }
}

fn config(data_dir: &Path) -> Config {
    let config = crate::config::load(None, std::iter::empty(), Default::default()).expect("the defaults");
    Config { data_dir: data_dir.to_owned(), ..config }
}

fn next() -> Next {
    Next::new(Default::default(), &config(Path::new("unused")))
}

/// A new fleet below a directory: its data directory.
pub(crate) async fn made(directory: &Path) -> PathBuf {
    made_and_shown(directory).await.0
}

/// The same, and the document that `init` printed.
pub(crate) async fn made_and_shown(directory: &Path) -> (PathBuf, serde_json::Value) {
    let (data_dir, mut shown) = (directory.join("fleet"), Vec::new());
    init_and_show(&config(&data_dir), &args(), &next(), &mut shown).await.expect("made");
    (data_dir, serde_json::from_slice(&shown).expect("one document"))
}

struct Full;

impl io::Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_fleet_that_nobody_saw_is_not_kept() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data_dir = directory.path().join("fleet");
    let error = init_and_show(&config(&data_dir), &args(), &next(), &mut Full).await.expect_err("not printed");
    assert!(matches!(error, InitError::Print { .. }), "{error}");
    assert!(!data_dir.exists());
    let mut shown = Vec::new();
    init_and_show(&config(&data_dir), &InitArgs { json: false, ..args() }, &next(), &mut shown).await.expect("made");
    let shown = String::from_utf8(shown).expect("text");
    let root = data_dir.join("root.pub");
    let last = format!("\n  serverflow login http://127.0.0.1:8080 --user admin --root {}\n", root.display());
    assert!(root.exists() && shown.ends_with(&last), "{shown}");
    assert!(Files::new(&data_dir).database().exists());
    let error = init_and_show(&config(&data_dir), &args(), &next(), &mut Vec::new()).await.expect_err("there is one");
    assert!(matches!(error, InitError::Exists { .. }), "{error}");
    assert!(Files::new(&data_dir).database().exists(), "the first one stays");
}

#[tokio::test]
async fn a_directory_that_cannot_be_replaced_leaves_no_keys_behind() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (data_dir, elsewhere) = (directory.path().join("fleet"), directory.path().join("elsewhere"));
    fs::create_dir(&elsewhere).expect("made");
    // A link cannot be replaced by a directory; a mount point cannot either.
    std::os::unix::fs::symlink(&elsewhere, &data_dir).expect("linked");
    let error = init_and_show(&config(&data_dir), &args(), &next(), &mut Vec::new()).await.expect_err("not moved");
    assert!(matches!(error, InitError::Move { .. }), "{error}");
    assert!(!directory.path().join("fleet.initialising").exists());
}

fn elsewhere(directory: &Path, root_keys: Option<&str>, finish: Option<&str>) -> InitArgs {
    let path = |name: &str| directory.join(name);
    InitArgs { root_keys: root_keys.map(path), finish: finish.map(path), ..args() }
}

#[tokio::test]
async fn a_fleet_whose_root_keys_are_elsewhere_waits_for_their_signatures() {
    use envelope::root::RootFile;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (folder, data_dir) = (directory.path(), directory.path().join("fleet"));
    let key = |n: u8| SigningKey::<role::Root>::from_seed(&[n; 32]);
    let keys = RootKeys { threshold: 2, keys: [1, 2, 3].map(|n| key(n).public()).to_vec() };
    fs::write(folder.join("keys.json"), keys.write().expect("text")).expect("written");
    let run = |args: InitArgs| run(config(&data_dir), args, Box::leak(Box::new(next())));

    let early = run(elsewhere(folder, None, Some("signed.json"))).await.expect_err("nothing was begun");
    assert!(early.to_string().contains("begin with `serverflow-control-plane init --root-keys FILE`"), "{early}");
    run(elsewhere(folder, Some("keys.json"), None)).await.expect("begun");
    let files = Files::new(&data_dir);
    assert!(files.signer().trust().exists() && !files.root_key().exists() && !files.database().exists());
    let again = run(elsewhere(folder, Some("keys.json"), None)).await.expect_err("begun already");
    assert!(matches!(again, InitError::Exists { .. }), "{again}");

    let mut file = RootFile::read(&fs::read(files.root_proposal()).expect("there")).expect("whole");
    for (signer, left) in [(1, Some("1 more of its root keys")), (3, None)] {
        file.proposed.add_signature(None, &key(signer)).expect("a root key");
        fs::write(folder.join("signed.json"), file.write().expect("text")).expect("written");
        let Some(left) = left else { break };
        let refused = run(elsewhere(folder, None, Some("signed.json"))).await.expect_err("not enough");
        assert!(refused.to_string().contains(left), "{refused}");
    }
    // Signed well, and another control plane's.
    let mut foreign = file.proposed.metadata().clone();
    foreign.fleet = FleetId::from_bytes([9; 16]);
    let envelope = sign_root(&[&key(1), &key(2)], &foreign);
    let other = RootFile { chain: None, proposed: envelope::root::Proposal::parse(&envelope).expect("whole") };
    fs::write(folder.join("other.json"), other.write().expect("text")).expect("written");
    let refused = run(elsewhere(folder, None, Some("other.json"))).await.expect_err("another fleet's");
    assert!(refused.to_string().contains("is not the root metadata that this control plane wrote"), "{refused}");

    // What an interrupted attempt left does not stand in the way.
    fs::create_dir(files.finishing()).expect("made");
    fs::write(files.finishing().join("serverflow.db"), "half").expect("written");
    run(elsewhere(folder, None, Some("signed.json"))).await.expect("finished");
    assert!(files.database().exists() && !files.root_proposal().exists() && !files.finishing().exists());
    let public = fs::read_to_string(files.root_public()).expect("there");
    assert_eq!(public.trim(), key(1).public().to_string(), "a key that signed version 1");
    let data_key = crate::keys::load(&files).expect("its keys").data;
    let store = SqliteStore::open(StoreConfig { path: files.database(), data_key }).await.expect("its database");
    let chain = store.root_chain().await.expect("a chain");
    assert_eq!(chain, [file.proposed.envelope()]);
    store.close().await;
    let done = run(elsewhere(folder, None, Some("signed.json"))).await.expect_err("done before");
    assert!(matches!(done, InitError::Exists { .. }), "{done}");
}
