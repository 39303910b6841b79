//! Programs that end at a chosen door, and what an engine holds afterwards.
//!
//! The points are not listed anywhere: a first run of an order writes down which ones it passed
//! ([`Points`]), and then the order is given once for each of them, to a program that ends there. What a
//! test forgot cannot be missing.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    docker::Docker,
    fleet::{Environment, Host},
    program::Program,
    wait::wait_within,
};

/// See the room `crash-points`.
const TRACE: &str = "SERVERFLOW_CRASH_TRACE";
const AT: &str = "SERVERFLOW_CRASH_AT";
const HOLD: &str = "SERVERFLOW_CRASH_HOLD";

/// A point that a run did not pass is tried again so often. What comes at its own time (an acknowledgement, a
/// signed head) may come in another order, or together with another.
const TRIES_MAX: u32 = 6;
/// The same for what may not come at all: then it need not be visited.
const CHANCES_MAX: u32 = 2;
/// An order that has ended may still have something to write: an acknowledgement.
const AFTERMATH: Duration = Duration::from_secs(4);

/// Writes down what is passed.
#[must_use]
pub fn tracing_to(trace: &Path) -> Environment {
    vec![(TRACE, trace.to_owned())]
}

/// Ends there.
#[must_use]
pub fn ending_at(point: &str) -> Environment {
    vec![(AT, PathBuf::from(point))]
}

/// Stands still there, until told to go on.
#[must_use]
pub fn holding_at(point: &str, hold: &Hold) -> Environment {
    vec![(AT, PathBuf::from(point)), (HOLD, hold.0.clone())]
}

/// Where a program that stands still says so.
pub struct Hold(PathBuf);

impl Hold {
    /// Nothing has been reached.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let hold = Self(path);
        for mark in ["reached", "go"] {
            // Absent at first.
            let _ = fs::remove_file(hold.0.with_extension(mark));
        }
        hold
    }

    /// Whether the program stands at its point.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.0.with_extension("reached").exists()
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When the mark cannot be made.
    pub fn go(&self) {
        fs::write(self.0.with_extension("go"), b"").expect("a mark");
    }
}

/// The points that a trace names, each once, in order. Of audit heads and the agent's clock the first stands for
/// all: how many come depends on the time.
///
/// # Panics
/// When there is no trace.
#[must_use]
pub fn points_of(trace: &Path) -> Vec<String> {
    let text = fs::read_to_string(trace).expect("a trace");
    let by_time = |line: &&str| {
        let is_timed = ["journal AuditHead #", "journal Clock #", "store AuditHead #", "store HostLeft #"];
        is_timed.iter().any(|kind| line.contains(kind)) && !line.ends_with("#1")
    };
    let mut seen = BTreeSet::new();
    let new = |line: &&str| seen.insert((*line).to_owned());
    text.lines().filter(|line| !by_time(line)).filter(new).map(str::to_owned).collect()
}

/// Where to end a program so that it ends at all of these points. After an effect and before what comes next are one
/// moment: the host is the same, nothing was written and nothing but progress was sent, so the one visit is both. After a write of
/// the journal or the store something may be sent, so there they are two.
#[must_use]
pub fn moments(points: &[String]) -> Vec<String> {
    let is_visited_by_the_one_before =
        |at: usize| at > 0 && points[at].starts_with("before ") && points[at - 1].starts_with("after effect ");
    let at = (0..points.len()).filter(|at| !is_visited_by_the_one_before(*at));
    at.map(|at| points[at].clone()).collect()
}

/// Points yet to be visited, shared by those who visit them.
pub struct Points {
    waiting: Mutex<VecDeque<(String, u32)>>,
    missed: Mutex<Vec<String>>,
    all: usize,
}

impl Points {
    /// To be visited: these.
    ///
    /// # Panics
    /// When there are hardly any: then nothing was counted.
    #[must_use]
    pub fn new(points: Vec<String>) -> Self {
        assert!(points.len() >= 4, "only these points were passed: {points:#?}");
        let all = points.len();
        let waiting = points.into_iter().map(|point| (point, 1)).collect();
        Self { waiting: Mutex::new(waiting), missed: Mutex::new(Vec::new()), all }
    }

    /// The next point, and which try this is.
    pub fn next(&self) -> Option<(String, u32)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The order ended and the point was not passed.
    pub fn not_reached(&self, point: String, tries: u32) {
        // What the control plane stores or signs once more hangs on its sessions, which come and go: how far a host is, while
        // there is time for it and no report; an order's next seal, when a session took the one before along.
        let is_control_plane = point.contains(" store ") || point.contains(" signer ");
        let is_by_chance = is_control_plane && (!point.ends_with(" #1") || point.contains(" HostLeft "));
        if tries < if is_by_chance { CHANCES_MAX } else { TRIES_MAX } {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back((point, tries + 1));
        } else if !is_by_chance {
            self.missed.lock().unwrap_or_else(PoisonError::into_inner).push(point);
        }
    }

    /// Fails unless every point was visited.
    ///
    /// # Panics
    /// With the points that were not.
    pub fn all_visited(&self, what: &str) {
        let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(missed.is_empty(), "{what}: {} of {} points were not visited: {missed:#?}", missed.len(), self.all);
        println!("{what}: {} points, all visited", self.all);
    }
}

/// Waits until a program ends at its point. False when the order, whose end `has_ended` tells, left it alive.
///
/// # Panics
/// When neither happens, or the program ended otherwise than by the abort at its point.
pub fn dies(program: &mut Program, what: &str, mut has_ended: impl FnMut() -> bool) -> bool {
    let mut ended_at = None;
    wait_within(Duration::from_secs(120), &format!("{what}: the point, or the order's end"), || {
        if let Some(status) = program.ended() {
            use std::os::unix::process::ExitStatusExt as _;
            assert_eq!(status.signal(), Some(6), "{what}: it should have ended at its point: {status}");
            return Some(true);
        }
        if ended_at.is_none() && has_ended() {
            ended_at = Some(std::time::Instant::now());
        }
        ended_at.is_some_and(|at| at.elapsed() > AFTERMATH).then_some(false)
    })
}

/// What a host holds of one app. Two are equal when a person could not tell them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub containers: Vec<Seen>,
    pub networks: Vec<String>,
    pub volumes: Vec<String>,
    /// Those that keep its images.
    pub tags: Vec<String>,
    /// What its files say, of those that the agent keeps for it.
    pub files: Vec<String>,
}

/// What is seen of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    pub is_running: bool,
    /// The restart policy: whether it comes back by itself.
    pub restart: String,
    /// Its variable `VERSION`.
    pub version: String,
}

impl Picture {
    /// As the engine has it now.
    #[must_use]
    pub fn take(docker: &Docker, app: &str) -> Self {
        let containers = docker.containers(app).into_iter().map(|it| Seen {
            version: it.variable("VERSION").unwrap_or_default(),
            name: it.name,
            is_running: it.running,
            restart: it.restart,
        });
        Self {
            containers: containers.collect(),
            networks: docker.things("network", app),
            volumes: docker.things("volume", app),
            tags: docker.tags(app),
            files: Vec::new(),
        }
    }

    /// With the files below `folder`, which is the app's in the agent's state directory.
    ///
    /// # Panics
    /// When something there cannot be read.
    #[must_use]
    pub fn with_files(mut self, folder: &Path) -> Self {
        let directories = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path());
        let files = directories.flat_map(|directory| fs::read_dir(directory).into_iter().flatten());
        // One may go while they are looked at: then it is looked at again.
        self.files = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok()).collect();
        self.files.sort();
        self
    }

    /// The same after a removal: nothing but its volumes.
    #[must_use]
    pub fn only_volumes(&self) -> Self {
        let volumes = self.volumes.clone();
        Self { containers: Vec::new(), networks: Vec::new(), volumes, tags: Vec::new(), files: Vec::new() }
    }
}

impl Host {
    /// Ends the agent, and starts it with this environment.
    pub fn restart_with(&mut self, environment: Environment) {
        self.kill_9();
        self.environment = environment;
        self.start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_an_effect_at_once_is_the_same_moment() {
        let points = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let passed = points(
            "before journal Start #1
             after journal Start #1
             before effect Pull #1
             after effect Pull #1
             before effect Create #1
             before effect Look #1
             after effect Look #1
             after effect Create #1
             before journal Done #1
             after journal Done #1",
        );
        let visited = points(
            "before journal Start #1
             after journal Start #1
             before effect Pull #1
             after effect Pull #1
             before effect Look #1
             after effect Look #1
             after effect Create #1
             after journal Done #1",
        );
        assert_eq!(moments(&passed), visited);
    }
}
