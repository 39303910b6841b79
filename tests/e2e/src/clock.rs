//! A wall clock of a program's own, which a test sets while the program runs. The machine's clock is not touched.
//!
//! A few lines of C, preloaded, stand before the C library's `clock_gettime` and add to the wall clock what a file
//! says. Every other clock stays as it is, as when a person or a time server sets one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::fleet::Environment;

const SOURCE: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long seconds(void) {
  const char *path = getenv("E2E_CLOCK");
  char text[24] = {0};
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return 0;
  long length = read(file, text, sizeof text - 1);
  close(file);
  return length > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t id, struct timespec *time) {
  int failed = (int)syscall(SYS_clock_gettime, id, time);
  if (!failed && id == CLOCK_REALTIME) time->tv_sec += seconds();
  return failed;
}
"#;

/// A clock that can be set.
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// One that is right.
    ///
    /// # Panics
    /// When it cannot be made: this needs a C compiler, as the build does.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let (source, library, offset) = (folder.join("clock.c"), folder.join("clock.so"), folder.join("clock"));
        fs::write(&source, SOURCE).expect("a source file");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).status();
        assert!(built.expect("a C compiler").success(), "the clock does not compile");
        let clock = Self { library, offset };
        clock.set(0);
        clock
    }

    /// What a program needs in its environment to go by it.
    #[must_use]
    pub fn environment(&self) -> Environment {
        vec![("LD_PRELOAD", self.library.clone()), ("E2E_CLOCK", self.offset.clone())]
    }

    /// Sets it so many seconds from the machine's.
    ///
    /// # Panics
    /// When that cannot be said.
    pub fn set(&self, seconds: i64) {
        let next = self.offset.with_extension("next");
        fs::write(&next, seconds.to_string()).and_then(|()| fs::rename(&next, &self.offset)).expect("the clock is set");
    }
}
