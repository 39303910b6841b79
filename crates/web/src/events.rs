//! Server-sent events about one operation or one command.
//!
//! State is in the store; announcements in this process are only a reason to look. A stream
//! subscribes first and reads then, so nothing falls between; when it lags behind, it reads again.
//! Statuses never go backwards on a stream, whatever order announcements come in.

use core::convert::Infallible;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, MutexGuard, PoisonError},
};

use api::Event as Shown;
use axum::response::{
    IntoResponse as _, Response,
    sse::{Event as Frame, KeepAlive, Sse},
};
use fleet::{
    model::{Command, CommandStatus, Credential, Principal},
    ports::{Event, StoreError},
};
use futures_util::stream;
use ids::{CommandId, HostName, OperationId, UserId};
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, watch},
    time::{Instant, sleep_until},
};

use crate::{
    access, limits,
    problem::{ApiError, Kind},
    state::{Shared, asked_to_end},
    view,
};

/// What a stream is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    Operation(OperationId),
    Command(CommandId),
}

/// What a stream has said of a command.
struct Said {
    host: HostName,
    action: String,
    status: CommandStatus,
    message: String,
}

impl Said {
    /// Whether that is news: it leads further, or more people have approved it.
    fn is_news(&self, status: CommandStatus, message: &str) -> bool {
        let held = status == CommandStatus::Held && self.status == status && self.message != message;
        rank(status) > rank(self.status) || held
    }
}

struct Watch {
    shared: Arc<Shared>,
    subject: Subject,
    credential: Credential,
    announcements: broadcast::Receiver<Event>,
    closing: watch::Receiver<bool>,
    said: BTreeMap<CommandId, Said>,
    /// How many of them have not ended.
    open: usize,
    out: VecDeque<Shown>,
    ended: bool,
    end_by: Instant,
    reread_at: Instant,
    place: Place,
}

/// One of the streams that may be open at once.
pub(crate) struct Place {
    shared: Arc<Shared>,
    pub(crate) user: UserId,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Streams in all are bounded, and those of each account: nobody keeps all others from watching.
    pub(crate) fn take(shared: &Arc<Shared>, user: UserId) -> Result<Self, ApiError> {
        let busy = |most: usize, whose: &str| {
            let detail = format!("{most} event streams {whose} are open already; try again later");
            ApiError::new(Kind::Busy, detail).retry_after(10)
        };
        let permit = shared.event_streams.clone().try_acquire_owned();
        let permit = permit.map_err(|_| busy(limits::EVENT_STREAMS_MAX, "in all"))?;
        let mut streams = streams_of(shared);
        let own = streams.entry(user).or_default();
        if *own >= limits::EVENT_STREAMS_PER_ACCOUNT_MAX {
            return Err(busy(limits::EVENT_STREAMS_PER_ACCOUNT_MAX, "of this account"));
        }
        *own += 1;
        drop(streams);
        shared.metrics.event_streams.inc();
        Ok(Self { shared: shared.clone(), user, _permit: permit })
    }
}

fn streams_of(shared: &Shared) -> MutexGuard<'_, HashMap<UserId, usize>> {
    // A panic elsewhere leaves the numbers right: each changes in one step.
    shared.event_streams_of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = streams_of(&self.shared);
        if let Some(own) = streams.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                streams.remove(&self.user);
            }
        }
        drop(streams);
        self.shared.metrics.event_streams.dec();
    }
}

/// Answers with a stream about a subject that exists.
pub(crate) async fn open(shared: &Arc<Shared>, subject: Subject, actor: &Principal) -> Result<Response, ApiError> {
    let place = Place::take(shared, actor.user)?;
    let mut watch = Watch {
        shared: shared.clone(),
        subject,
        credential: actor.credential,
        announcements: shared.events.subscribe(),
        closing: shared.closing.clone(),
        said: BTreeMap::new(),
        open: 0,
        out: VecDeque::new(),
        ended: false,
        end_by: Instant::now() + limits::EVENT_STREAM_AGE_MAX,
        reread_at: Instant::now() + limits::EVENT_REREAD,
        place,
    };
    watch.read().await?;
    let frames = stream::unfold(watch, |mut watch| async move {
        let shown = watch.next().await?;
        Some((Ok::<_, Infallible>(frame(&shown)), watch))
    });
    let heartbeat = KeepAlive::new().interval(limits::EVENT_HEARTBEAT).text("still here");
    Ok(Sse::new(frames).keep_alive(heartbeat).into_response())
}

fn frame(shown: &Shown) -> Frame {
    let name = match shown {
        Shown::Command { .. } => "command",
        Shown::Progress { .. } => "progress",
        Shown::Output { .. } => "output",
        Shown::Operation { .. } => "operation",
    };
    // One line: JSON text has no line breaks.
    Frame::default().event(name).data(view::value(shown).to_string())
}

/// How far a command is: announcements that do not lead further are old.
const fn rank(status: CommandStatus) -> u8 {
    match status {
        CommandStatus::Held => 0,
        CommandStatus::Queued => 1,
        CommandStatus::Delivered => 2,
        CommandStatus::Accepted => 3,
        CommandStatus::Running => 4,
        _ => 5,
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Shown> {
        loop {
            if let Some(shown) = self.out.pop_front() {
                return Some(shown);
            }
            if self.ended || !self.wait().await {
                return None;
            }
        }
    }

    /// Waits for a reason to say something; false when the stream is to end without a last word.
    async fn wait(&mut self) -> bool {
        let announced = tokio::select! {
            () = asked_to_end(&mut self.closing) => return false,
            () = sleep_until(self.end_by) => return false,
            () = sleep_until(self.reread_at) => None,
            announced = self.announcements.recv() => Some(announced),
        };
        let Some(announced) = announced else {
            self.reread_at = Instant::now() + limits::EVENT_REREAD;
            return self.still_signed_in().await && self.reread().await;
        };
        match announced {
            Ok(Event::Command { command, operation, status, message, .. }) if self.is_about(command, operation) => {
                self.announced(command, status, message).await
            }
            Ok(Event::Progress { command, operation, text, .. }) if self.is_about(command, operation) => {
                if let Some(said) = self.said.get(&command) {
                    let (host, command_id) = (said.host.clone(), command);
                    self.out.push_back(Shown::Progress { command_id, host, text });
                }
                true
            }
            Ok(Event::Account { user }) if user == self.place.user => self.still_signed_in().await,
            Ok(_) => true,
            Err(broadcast::error::RecvError::Lagged(_)) => self.still_signed_in().await && self.reread().await,
            Err(broadcast::error::RecvError::Closed) => false,
        }
    }

    fn is_about(&self, command: CommandId, operation: OperationId) -> bool {
        match self.subject {
            Subject::Operation(id) => operation == id,
            Subject::Command(id) => command == id,
        }
    }

    async fn announced(&mut self, command: CommandId, status: CommandStatus, message: String) -> bool {
        let Some(said) = self.said.get_mut(&command) else {
            // A later stage's command: its host and action are in the store.
            return self.reread().await;
        };
        if said.is_news(status, &message) {
            self.open -= usize::from(!said.status.is_end() && status.is_end());
            said.status = status;
            said.message.clone_from(&message);
            let (host, action) = (said.host.clone(), said.action.clone());
            let status = view::status(status);
            self.out.push_back(Shown::Command { command_id: command, host, action, status, message });
        }
        // Whether more follows is known to the store alone.
        self.open > 0 || self.reread().await
    }

    async fn still_signed_in(&self) -> bool {
        access::is_still_good(&self.shared, self.credential).await
    }

    async fn reread(&mut self) -> bool {
        match self.read().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "an event stream ends because the store did not answer");
                false
            }
        }
    }

    /// Says what the store knows and the stream has not said.
    async fn read(&mut self) -> Result<(), StoreError> {
        let store = self.shared.store.clone();
        let commands = match self.subject {
            Subject::Operation(id) => view::operation_commands(&*store, id).await?,
            Subject::Command(id) => store.command(id).await?.into_iter().collect(),
        };
        for command in &commands {
            self.say(command);
        }
        if !commands.iter().all(|command| command.status.is_end()) {
            return Ok(());
        }
        if let Subject::Operation(id) = self.subject {
            let hosts = view::reporters_of(&*store, &commands).await?;
            let head = store.operation(id).await?;
            self.out.push_back(Shown::Operation { operation: view::operation(id, head, &commands, &hosts) });
        }
        self.ended = true;
        Ok(())
    }

    fn say(&mut self, command: &Command) {
        let id = command.order.command;
        if self.said.get(&id).is_some_and(|said| !said.is_news(command.status, &command.message)) {
            return;
        }
        let (host, action, status) = (command.host_name.clone(), view::action(command), command.status);
        self.out.push_back(Shown::Command {
            command_id: id,
            host: host.clone(),
            action: action.clone(),
            status: view::status(status),
            message: command.message.clone(),
        });
        let before = self.said.insert(id, Said { host, action, status, message: command.message.clone() });
        self.open += usize::from(!status.is_end());
        self.open -= usize::from(before.is_some_and(|said| !said.status.is_end()));
    }
}

/// Counts announcements until the program ends.
pub(crate) async fn count(shared: Arc<Shared>) {
    let mut announcements = shared.events.subscribe();
    loop {
        match announcements.recv().await {
            Ok(Event::Command { status, .. }) => shared.metrics.command_event(status),
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "announcements were missed by the counters");
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
