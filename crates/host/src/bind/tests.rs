//! Paths that are followed, and all the ways in which one leads elsewhere.

use std::{
    collections::BTreeSet,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use super::*;

struct Host {
    base: tempfile::TempDir,
    around: Surroundings,
}

impl Host {
    /// `<base>/roots/shop/data`, and a private directory and a socket elsewhere.
    fn new() -> Self {
        let base = tempfile::tempdir().expect("a directory");
        let path = fs::canonicalize(base.path()).expect("a path");
        for directory in ["roots/shop/data", "state/files", "run"] {
            fs::create_dir_all(path.join(directory)).expect("made");
        }
        fs::write(path.join("run/docker.sock"), "").expect("made");
        let around = Surroundings {
            mounted: Vec::new(),
            socket: path.join("run/docker.sock"),
            private: vec![path.join("state")],
        };
        Self { base, around }
    }

    fn path(&self, below: &str) -> String {
        fs::canonicalize(self.base.path()).expect("a path").join(below).display().to_string()
    }

    fn foreign(&self, source: &str, read_only: bool, create: bool) -> Foreign {
        Foreign {
            app: "shop".parse().expect("a name"),
            roots: vec![self.path("roots")],
            docker_socket: false,
            binds: vec![ForeignBind { service: "web".to_owned(), source: source.to_owned(), read_only, create }],
            networks: BTreeSet::new(),
            volumes: BTreeSet::new(),
            containers: BTreeSet::new(),
            make: true,
        }
    }

    fn judged(&self, below: &str) -> Result<(), String> {
        judge(&self.foreign(&self.path(below), false, false), &self.around)
    }

    #[track_caller]
    fn refused(&self, below: &str, words: &str) {
        let error = self.judged(below).expect_err("refused");
        assert!(error.contains(words), "{error}");
    }

    fn mounts(&mut self, below: &str, writable: bool, own: bool) {
        let source = self.path(below);
        self.around.mounted = vec![Mounted { container: "other".to_owned(), source, writable, own }];
    }
}

#[test]
fn only_what_lies_below_root_and_app() {
    let host = Host::new();
    assert_eq!(host.judged("roots/shop/data"), Ok(()));
    assert_eq!(host.judged("roots/shop"), Ok(()));
    fs::create_dir_all(host.path("roots/shopping")).expect("made");
    fs::write(host.path("roots/shop/file"), "").expect("made");
    assert_eq!(host.judged("roots/shop/file"), Ok(()));
    for outside in ["roots", "roots/shopping", "state", "roots/shop/../shopping", ""] {
        host.refused(outside, "allows only what lies below <root>/shop/");
    }
    host.refused("roots/shop/file/below", "neither a directory nor");
    host.refused("roots/shop/none", "does not exist");
}

#[test]
fn no_link_is_followed_wherever_it_stands() {
    let host = Host::new();
    symlink("/etc", host.path("roots/shop/link")).expect("made");
    host.refused("roots/shop/link", "is a symbolic link");
    host.refused("roots/shop/link/ssh", "is a symbolic link");
    // Also one that leads nowhere bad, and one above the root.
    symlink(host.path("roots/shop/data"), host.path("roots/shop/inner")).expect("made");
    host.refused("roots/shop/inner", "is a symbolic link");
    symlink(host.path("roots"), host.path("alias")).expect("made");
    let mut foreign = host.foreign(&host.path("alias/shop/data"), false, false);
    foreign.roots = vec![host.path("alias")];
    assert!(judge(&foreign, &host.around).expect_err("refused").contains("is a symbolic link"));
    // A link in place of the app's own directory.
    fs::rename(host.path("roots/shop"), host.path("roots/moved")).expect("renamed");
    symlink("/", host.path("roots/shop")).expect("made");
    host.refused("roots/shop/etc", "is a symbolic link");
}

#[test]
fn missing_directories_are_made_only_where_asked_for() {
    let host = Host::new();
    let source = host.path("roots/shop/a/b");
    let look = Foreign { make: false, ..host.foreign(&source, false, true) };
    assert_eq!(judge(&look, &host.around), Ok(()));
    assert!(!Path::new(&source).exists(), "looking makes nothing");
    for _ in 0..2 {
        assert_eq!(judge(&host.foreign(&source, false, true), &host.around), Ok(()));
    }
    let mode = fs::metadata(&source).expect("made").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o755);
    // The root itself is its owner's to make.
    let mut foreign = host.foreign(&host.path("none/shop/a"), false, true);
    foreign.roots = vec![host.path("none")];
    assert!(judge(&foreign, &host.around).expect_err("refused").contains("the host's owner makes the root"));
}

#[test]
fn nobody_else_may_change_the_way() {
    let host = Host::new();
    let set = |below: &str, mode: u32| {
        fs::set_permissions(host.path(below), fs::Permissions::from_mode(mode)).expect("set");
    };
    set("roots/shop", 0o777);
    host.refused("roots/shop/data", "can be changed by others than root");
    // What is mounted may be anybody's.
    assert_eq!(host.judged("roots/shop"), Ok(()));
    set("roots/shop", 0o755);
    set("roots", 0o775);
    host.refused("roots/shop/data", "can be changed by others than root");
    set("roots", 0o755);
    set("roots/shop/data", 0o777);
    assert_eq!(host.judged("roots/shop/data"), Ok(()));
}

#[test]
fn nothing_lies_below_where_a_container_may_write() {
    let mut host = Host::new();
    for (mount, writable, own, words) in [
        ("roots/shop", true, true, Some("it lies below")),
        ("roots", true, false, Some("it lies below")),
        ("roots/shop", false, true, None),
        // The same place: two services of one app may share it, others may not.
        ("roots/shop/data", true, true, None),
        ("roots/shop/data", true, false, Some("mounts the same")),
        ("roots/shop/data", false, false, Some("mounts the same")),
    ] {
        host.mounts(mount, writable, own);
        match words {
            Some(words) => host.refused("roots/shop/data", words),
            None => assert_eq!(host.judged("roots/shop/data"), Ok(()), "{mount}"),
        }
    }
    host.mounts("roots/shop/data", false, true);
    host.refused("roots/shop", "which lies below");
    assert_eq!(judge(&host.foreign(&host.path("roots/shop"), true, false), &host.around), Ok(()));
    // By another path to the same directory, and one that is not there.
    symlink(host.path("roots"), host.path("alias")).expect("made");
    host.mounts("alias/shop", true, false);
    host.refused("roots/shop/data", "it lies below");
    host.around.mounted[0].source = host.path("roots/shop/gone");
    let inside = judge(&host.foreign(&host.path("roots/shop/gone/x"), false, true), &host.around);
    assert!(inside.expect_err("refused").contains("it lies below"));
}

#[test]
fn the_agents_and_dockers_own_are_never_mounted() {
    let mut host = Host::new();
    // A root that somebody put too high, and an app with an unlucky name.
    let base = host.path("");
    let mut foreign = Foreign {
        app: "state".parse().expect("a name"),
        roots: vec![base.clone()],
        ..host.foreign(&host.path("state"), true, false)
    };
    assert!(judge(&foreign, &host.around).expect_err("refused").contains("is not for apps"));
    foreign.binds[0].source = host.path("state/files");
    assert!(judge(&foreign, &host.around).expect_err("refused").contains("is not for apps"));
    foreign.app = "run".parse().expect("a name");
    foreign.binds[0].source = host.path("run");
    assert!(judge(&foreign, &host.around).expect_err("refused").contains("is not for apps"), "the socket's directory");
    foreign.binds[0].source = host.path("run/docker.sock");
    assert!(judge(&foreign, &host.around).expect_err("refused").contains("Docker's socket"));
    foreign.docker_socket = true;
    assert_eq!(judge(&foreign, &host.around), Ok(()));
    host.around.private = vec![PathBuf::from(host.path("roots/shop/data/inner"))];
    fs::create_dir_all(host.path("roots/shop/data/inner")).expect("made");
    host.refused("roots/shop/data", "is not for apps");
    for system in ["/etc", "/proc", "/dev"] {
        let app = system.trim_start_matches('/').parse().expect("a name");
        let foreign = Foreign { app, roots: vec!["/".to_owned()], ..host.foreign(system, true, false) };
        assert!(judge(&foreign, &host.around).is_err(), "{system}");
    }
}
