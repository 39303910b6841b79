//! Another machine: namespaces for mounts, network and processes, a root of its own in memory, and a cable
//! to this machine. Programs and libraries are this machine's, read-only; everything else is empty.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use tempfile::TempDir;

use crate::{
    cli::{Ran, run},
    docker::{Docker, SAMPLE},
    program::Program,
    wait::{wait_for, wait_until},
};

/// What the machine's own shell finds.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Another machine. It ends with the test, and everything in it.
pub struct Machine {
    holder: Program,
    pid: u32,
    /// This machine's end of the cable.
    pub near: Ipv4Addr,
    search_path: String,
    folder: TempDir,
}

impl Machine {
    /// Starts one that knows this machine under `name`.
    ///
    /// # Panics
    /// When that does not work: it takes root.
    #[must_use]
    pub fn start(name: &str) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        // Tests run in processes of their own, side by side: the process id keeps their cables apart.
        let number = NEXT.fetch_add(4, Ordering::Relaxed);
        let id = std::process::id();
        let net = [10, 213, u8::try_from(id % 251).unwrap_or_default(), number];
        let near = Ipv4Addr::from([net[0], net[1], net[2], net[3] + 1]);
        let far = Ipv4Addr::from([net[0], net[1], net[2], net[3] + 2]);
        let folder = tempfile::Builder::new().prefix("sf-machine").tempdir().expect("a folder");
        let root = folder.path().join("root");
        fs::create_dir(&root).expect("a folder");

        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-s"]);
        unshare.arg(&root).args(["ready", &format!("{near} {name}")]);
        let script = folder.path().join("machine.sh");
        fs::write(&script, include_str!("machine.sh")).expect("a script");
        unshare.stdin(File::open(&script).expect("the script"));
        let holder = Program::start("the machine", unshare, &folder.path().join("log"));
        let pid = wait_for("the machine's first process", || child_of(holder.pid()));
        let machine = Self { holder, pid, near, search_path: SEARCH_PATH.to_owned(), folder };
        wait_until("the machine is up", || machine.path("ready").exists());
        fs::remove_file(machine.path("ready")).expect("removed");
        machine.plug_in(&format!("sf{id}-{number}"), far);
        machine
    }

    fn plug_in(&self, cable: &str, far: Ipv4Addr) {
        let ip = |words: &[&str]| run(command("ip", words)).ok();
        let pid = self.pid.to_string();
        ip(&["link", "add", cable, "type", "veth", "peer", "name", "cable", "netns", &pid]);
        ip(&["address", "add", &format!("{}/30", self.near), "dev", cable]);
        ip(&["link", "set", cable, "up"]);
        let _ = self.run(&["ip", "address", "add", &format!("{far}/30"), "dev", "cable"]).ok();
        let _ = self.run(&["ip", "link", "set", "cable", "up"]).ok();
    }

    /// A path in the machine, seen from here.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// A program in the machine, not started yet.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--mount", "--net", "--pid"]);
        command.args(["env", "-i", "HOME=/root", &format!("PATH={}", self.search_path)]).args(words);
        command
    }

    /// Runs a program in the machine to its end.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Ran {
        run(self.command(words))
    }

    /// Pastes lines into a shell of the machine.
    ///
    /// # Panics
    /// When the disk does not take them.
    #[must_use]
    pub fn paste(&self, lines: &str) -> Ran {
        let path = self.folder.path().join("pasted");
        fs::write(&path, lines).expect("lines");
        let mut shell = self.command(&["sh"]);
        shell.stdin(File::open(&path).expect("the lines"));
        run(shell)
    }

    /// From now on its shell finds these programs and no others.
    ///
    /// # Panics
    /// When they cannot be linked.
    pub fn only_programs(&mut self, names: &[&str]) {
        let folder = self.path("opt/few");
        fs::create_dir(&folder).expect("a folder");
        for name in names {
            std::os::unix::fs::symlink(Path::new("/usr/bin").join(name), folder.join(name)).expect("a link");
        }
        self.search_path = "/opt/few".to_owned();
    }

    /// Starts the machine's own Docker Engine, with the sample image in it.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn docker_start(&self) -> Program {
        let words = ["dockerd", "--bridge", "none", "--iptables=false", "--ip-masq=false"];
        let mut command = self.command(&[]);
        command.arg(format!("PATH={SEARCH_PATH}")).args(words);
        let mut program = Program::start("the machine's dockerd", command, &self.folder.path().join("dockerd.log"));
        wait_until("the machine's engine answers", || {
            assert!(program.is_running(), "the machine's engine ended:\n{}", program.said());
            self.docker(&["info", "--format", "{{.ID}}"]).code == 0
        });
        let archive = self.path("tmp/sample.tar");
        let archive = archive.to_str().expect("a path in UTF-8");
        Docker::default().run(&["save", "--output", archive, SAMPLE]).ok();
        self.docker(&["load", "--input", "/tmp/sample.tar"]).ok();
        fs::remove_file(archive).expect("removed");
        program
    }

    /// `docker` in the machine.
    #[must_use]
    pub fn docker(&self, words: &[&str]) -> Ran {
        self.run(&[&["/usr/bin/docker"], words].concat())
    }

    /// Files of the machine with this in their names, outside of what Docker and the kernel keep.
    #[must_use]
    pub fn files_named(&self, part: &str) -> Vec<String> {
        let name = format!("*{part}*");
        let skip = ["-path", "/proc", "-o", "-path", "/sys", "-o", "-path", "/dev", "-o", "-path", "/var/lib/docker"];
        let words = [
            &["/usr/bin/find", "/", "("][..],
            &skip,
            &["-o", "-path", "/usr/share", "-o", "-path", "/run/docker", "-o", "-path", "/usr/lib"],
            &[")", "-prune", "-o", "-name", &name, "-print"],
        ];
        self.run(&words.concat()).ok().stdout.lines().map(str::to_owned).collect()
    }

    /// Command lines of the machine's processes with this in them; those that have ended are left out.
    #[must_use]
    pub fn processes(&self, part: &str) -> Vec<String> {
        let all = self.run(&["/usr/bin/ps", "-eo", "stat,args"]).ok().stdout;
        let ours =
            all.lines().filter(|line| line.contains(part) && !line.starts_with('Z') && !line.contains("nsenter"));
        ours.map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its processes, its mounts and its cable go with the first process.
        self.holder.kill_9();
    }
}

fn command(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_ascii_whitespace().next()?.parse().ok()
}
