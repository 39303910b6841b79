//! The network between agents and control plane, in the test's hands: what passes, what is lost, when it is cut,
//! and whom an address leads to. It sees ciphertext only.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

#[derive(Default)]
struct Rules {
    /// New connections end at once.
    refuse: AtomicBool,
    /// What agents say is lost.
    lose_up: AtomicBool,
    /// What the control plane says is lost.
    lose_down: AtomicBool,
    /// Bytes the control plane said, passed on or lost.
    down: AtomicU64,
    /// Bytes agents said.
    up: AtomicU64,
    /// How many more bytes of the control plane pass until connections are cut; absent: all.
    budget: Mutex<Option<u64>>,
    target: Mutex<Option<SocketAddr>>,
    open: Mutex<Vec<TcpStream>>,
}

/// A TCP proxy on loopback. Its port stays open as long as the test runs.
pub struct Proxy {
    address: SocketAddr,
    rules: Arc<Rules>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens; leads to `target`.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let rules = Arc::new(Rules { target: Mutex::new(Some(target)), ..Rules::default() });
        let theirs = rules.clone();
        thread::spawn(move || accept(&listener, &theirs));
        Self { address, rules }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection and lets none through until [`Self::mend`].
    pub fn cut(&self) {
        self.rules.refuse.store(true, Ordering::SeqCst);
        self.drop_connections();
    }

    /// Cuts every connection; new ones may come.
    pub fn drop_connections(&self) {
        for stream in lock(&self.rules.open).drain(..) {
            // Gone already is fine.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on everything passes.
    pub fn mend(&self) {
        for rule in [&self.rules.refuse, &self.rules.lose_up, &self.rules.lose_down] {
            rule.store(false, Ordering::SeqCst);
        }
        *lock(&self.rules.budget) = None;
    }

    /// Loses what agents say, while connections stand.
    pub fn lose_up(&self) {
        self.rules.lose_up.store(true, Ordering::SeqCst);
    }

    /// Loses what the control plane says, while connections stand.
    pub fn lose_down(&self) {
        self.rules.lose_down.store(true, Ordering::SeqCst);
    }

    /// Lets so many more bytes of the control plane pass, and cuts there; [`Self::mend`] ends it.
    pub fn cut_after(&self, bytes: u64) {
        *lock(&self.rules.budget) = Some(bytes);
    }

    /// Bytes the control plane said so far, whether they passed or not.
    #[must_use]
    pub fn bytes_down(&self) -> u64 {
        self.rules.down.load(Ordering::SeqCst)
    }

    /// Bytes agents said so far, whether they passed or not.
    #[must_use]
    pub fn bytes_up(&self) -> u64 {
        self.rules.up.load(Ordering::SeqCst)
    }

    /// New connections lead elsewhere; present ones are cut.
    pub fn lead_to(&self, target: SocketAddr) {
        *lock(&self.rules.target) = Some(target);
        self.drop_connections();
    }
}

fn accept(listener: &TcpListener, rules: &Arc<Rules>) {
    for agent in listener.incoming().flatten() {
        let target = *lock(&rules.target);
        let (false, Some(target)) = (rules.refuse.load(Ordering::SeqCst), target) else { continue };
        let Ok(control) = TcpStream::connect(target) else { continue };
        let handles = [agent.try_clone(), control.try_clone(), agent.try_clone(), control.try_clone()];
        let [Ok(agent_too), Ok(control_too), Ok(agent_open), Ok(control_open)] = handles else { continue };
        lock(&rules.open).extend([agent_open, control_open]);
        let (up, down) = (rules.clone(), rules.clone());
        thread::spawn(move || carry(agent, control, &up.lose_up, &up.up, &Mutex::new(None)));
        thread::spawn(move || carry(control_too, agent_too, &down.lose_down, &down.down, &down.budget));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, lose: &AtomicBool, count: &AtomicU64, budget: &Mutex<Option<u64>>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let passes = take(budget, length);
        let lost = lose.load(Ordering::SeqCst);
        if !lost && to.write_all(&buffer[..passes]).is_err() {
            break;
        }
        count.fetch_add(passes as u64, Ordering::SeqCst);
        if passes < length {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// How many of `length` bytes may still pass.
fn take(budget: &Mutex<Option<u64>>, length: usize) -> usize {
    let mut left = lock(budget);
    let Some(bytes) = left.as_mut() else { return length };
    let passes = usize::try_from(*bytes).unwrap_or(usize::MAX).min(length);
    *bytes -= passes as u64;
    passes
}
