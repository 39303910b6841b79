//! What can happen by itself: frames arrive, writes become durable, actions get on, time passes.

use fleet::dispatch;
use ids::{CommandId, DurationMs, TlsExporter};
use session::agent::io::Input;

use crate::{
    agent,
    control::{self, DiskFault},
    network::{Link, LinkId},
    world::World,
};

/// Something that can happen now.
#[derive(Clone, Copy)]
enum Event {
    Up(LinkId),
    Down(LinkId),
    EndOfLink(LinkId),
    Answer(LinkId),
    Persist(usize),
    Work(usize, CommandId),
    Dial(usize),
    Start(usize),
    StartControl,
}

impl World {
    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, link) in &self.links {
            let peer = self.control.peers.get(id);
            if !link.up.is_empty() && peer.is_some_and(control::Peer::reads) {
                events.push(Event::Up(*id));
            }
            if !link.down.is_empty() {
                events.push(Event::Down(*id));
            } else if link.is_closing || (peer.is_none() && self.is_control_up) {
                events.push(Event::EndOfLink(*id));
            }
            if peer.is_some_and(control::Peer::waits) {
                events.push(Event::Answer(*id));
            }
        }
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else {
                if !host.has_left {
                    events.push(Event::Start(index));
                }
                continue;
            };
            if !process.unsynced.is_empty() {
                events.push(Event::Persist(index));
            }
            events.extend(process.runs.keys().map(|command| Event::Work(index, *command)));
            if process.link.is_none() && !process.stays_away && self.is_control_up {
                events.push(Event::Dial(index));
            }
        }
        if !self.is_control_up {
            events.push(Event::StartControl);
        }
        events
    }

    pub(crate) fn happen(&mut self, with_faults: bool) {
        let events = self.events();
        let idle = events.is_empty();
        if idle || self.random.chance(if with_faults { 200 } else { 20 }) {
            self.pass_time(idle, with_faults);
        }
        if self.is_control_up && self.random.chance(60) {
            self.control.sign_head(self.control_now());
        }
        let Some(event) = self.random.pick(&events).copied() else { return };
        match event {
            Event::Up(link) => self.deliver_up(link),
            Event::Down(link) => self.deliver_down(link),
            Event::EndOfLink(link) => self.cut(link),
            Event::Answer(link) => {
                let fault = match self.random.below(1000) {
                    0..20 if with_faults => DiskFault::Refused,
                    20..40 if with_faults => DiskFault::AnswerLost,
                    _ => DiskFault::None,
                };
                let said = self.control.answer(link, fault, self.control_now(), &mut self.random, &mut self.ledger);
                self.control_says(said);
            }
            Event::Persist(host) => {
                let said = self.hosts[host].persist(self.now, &mut self.ledger);
                self.host_says(host, said);
            }
            Event::Work(host, command) if agent::is_poison(command) => {
                self.summary.kills += 1;
                if let Some(link) = self.hosts[host].kill(0) {
                    self.cut(link);
                }
            }
            Event::Work(host, command) => {
                let said = self.hosts[host].work(command, self.now, &mut self.random, &mut self.ledger);
                self.host_says(host, said);
            }
            Event::Dial(host) => self.dial(host),
            Event::Start(host) => self.hosts[host].start(self.now, &mut self.ledger),
            Event::StartControl => self.is_control_up = true,
        }
    }

    /// Time goes on, a little or a lot, and whoever asked to be woken is.
    pub(crate) fn pass_time(&mut self, idle: bool, with_faults: bool) {
        let span = if idle {
            self.next_wake().map_or(1_000, |span| span.0 + 1)
        } else if with_faults && self.random.chance(20) {
            self.random.below(900_000)
        } else {
            self.random.below(300)
        };
        self.now = self.now.plus(DurationMs(span));
        for host in 0..self.hosts.len() {
            if self.hosts[host].wakes_in(self.now) == Some(DurationMs(0)) {
                let said = self.hosts[host].input(Input::Tick, self.now, &mut self.ledger);
                self.host_says(host, said);
            }
        }
        let control_now = self.control_now();
        let due = |peer: &control::Peer| peer.wake_at().is_some_and(|at| at <= control_now);
        let links: Vec<_> = self.control.peers.iter().filter(|(_, peer)| due(peer)).map(|(link, _)| *link).collect();
        for link in links {
            let tick = dispatch::Input::Tick;
            let said = self.control.input(link, tick, control_now, &mut self.random, &mut self.ledger);
            self.control_says(said);
        }
        if self.is_control_up {
            self.control.expire(control_now, &mut self.ledger);
        }
    }

    fn next_wake(&self) -> Option<DurationMs> {
        let hosts = self.hosts.iter().filter_map(|host| host.wakes_in(self.now));
        let peers =
            self.control.peers.values().filter_map(control::Peer::wake_at).map(|at| at.since(self.control_now()));
        hosts.chain(peers).filter(|span| span.0 > 0).min()
    }

    fn dial(&mut self, host: usize) {
        self.last_link += 1;
        let (link, exporter) = (LinkId(self.last_link), TlsExporter(self.random.bytes()));
        self.links.insert(link, Link::new(self.hosts[host].id, exporter));
        let ends = &self.links[&link];
        self.control.accept(link, ends.control_exporter);
        let exporter = ends.agent_exporter;
        let (now, id) = (self.now.0, self.hosts[host].id);
        self.ledger.note(|| format!("{now} agent {id}: dials, {link:?}"));
        let said = self.hosts[host].connected(link, exporter, self.now, &mut self.random, &mut self.ledger);
        self.host_says(host, said);
    }

    fn deliver_up(&mut self, link: LinkId) {
        let Some(frame) = self.links.get_mut(&link).and_then(|link| link.up.pop_front()) else { return };
        let said = self.control.receive(link, frame, self.control_now(), &mut self.random, &mut self.ledger);
        self.control_says(said);
    }

    fn deliver_down(&mut self, link: LinkId) {
        let Some(of_link) = self.links.get_mut(&link) else { return };
        let Some(frame) = of_link.down.pop_front() else { return };
        let Some(host) = self.hosts.iter().position(|host| host.id == of_link.host) else { return };
        let is_current = self.hosts[host].process.as_ref().is_some_and(|process| process.link == Some(link));
        if is_current {
            let said = self.hosts[host].input(Input::Received(frame), self.now, &mut self.ledger);
            self.host_says(host, said);
        }
    }

    fn host_says(&mut self, host: usize, said: Vec<agent::Said>) {
        for said in said {
            let Some(process) = &mut self.hosts[host].process else { return };
            let Some(link) = process.link else { continue };
            match said {
                agent::Said::Frame(frame) => {
                    if let Some(link) = self.links.get_mut(&link) {
                        link.up.push_back(frame);
                    }
                }
                agent::Said::Close => {
                    process.link = None;
                    self.links.remove(&link);
                    self.control.peers.remove(&link);
                }
            }
        }
    }

    pub(crate) fn control_says(&mut self, said: Vec<(LinkId, control::Said)>) {
        for (link, said) in said {
            let Some(link) = self.links.get_mut(&link) else { continue };
            match said {
                control::Said::Frame(frame) => link.down.push_back(frame),
                control::Said::Close => link.is_closing = true,
            }
        }
    }

    /// The connection is gone for both ends, with all that was under way on it.
    pub(crate) fn cut(&mut self, link: LinkId) {
        let Some(gone) = self.links.remove(&link) else { return };
        self.control.peers.remove(&link);
        let Some(host) = self.hosts.iter().position(|host| host.id == gone.host) else { return };
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.link == Some(link) {
            process.link = None;
            let said = self.hosts[host].input(Input::Disconnected, self.now, &mut self.ledger);
            self.host_says(host, said);
        }
    }
}
