//! Streams of commands: leases go down to what runs, pieces come up, and nothing rests on either.

use envelope::messages::ReportStatus;
use session::agent::io::Input as AgentInput;

use super::{super::Input, world::World};
use crate::{
    model::CommandStatus,
    ports::{StreamLease, StreamPiece},
};

const FOLLOW: (&str, &str) = ("app.logs.follow", r#"{"app":"shop"}"#);

fn say(world: &mut World, command: ids::CommandId, offset: u64, text: &str) {
    let piece = AgentInput::Output { command, offset, text: text.to_owned() };
    let sent = world.agent.input(piece);
    world.to_control.extend(sent);
    world.settle();
}

fn lease(world: &mut World, lease: StreamLease) {
    world.tell(Input::StreamLease(lease));
    world.settle();
}

#[test]
fn a_lease_goes_down_and_pieces_come_up_while_the_command_runs() {
    let mut world = World::new();
    let command = world.order(FOLLOW.0, FOLLOW.1);
    let held = StreamLease { command, until: 100, over: false };
    lease(&mut world, held);
    world.connect();
    assert_eq!(world.agent.leases, [], "nobody was connected when it was said");
    lease(&mut world, held);
    lease(&mut world, StreamLease { until: 100, over: true, ..held });
    assert_eq!(world.agent.leases, [(command, 100, false), (command, 100, true)]);
    say(&mut world, command, 0, "one\n");
    say(&mut world, command, 4, "");
    let of = |offset: u64, text: &str| StreamPiece { host: super::world::HOST, command, offset, text: text.to_owned() };
    assert_eq!(world.output, [of(0, "one\n"), of(4, "")]);
    let stored = world.store.audit.len();
    say(&mut world, command, 4, "two\n");
    assert_eq!(world.store.audit.len(), stored, "nothing of it is stored");

    world.finish(ReportStatus::Succeeded);
    assert_eq!(world.status(command), CommandStatus::Succeeded);
    let (leases, pieces) = (world.agent.leases.len(), world.output.len());
    lease(&mut world, held);
    say(&mut world, command, 8, "late\n");
    assert_eq!((world.agent.leases.len(), world.output.len()), (leases, pieces), "it is over");
}

#[test]
fn a_stream_survives_a_new_session() {
    let mut world = World::new();
    let command = world.order(FOLLOW.0, FOLLOW.1);
    world.connect();
    say(&mut world, command, 0, "one\n");
    world.cut();
    say(&mut world, command, 4, "lost\n");
    assert_eq!(world.output.len(), 1);
    world.connect();
    lease(&mut world, StreamLease { command, until: 100, over: false });
    assert_eq!(world.agent.leases, [(command, 100, false)]);
    say(&mut world, command, 9, "two\n");
    assert_eq!(world.output.last().map(|piece| piece.offset), Some(9), "the gap shows");
}

#[test]
fn other_commands_have_no_stream() {
    let mut world = World::new();
    let command = world.order("app.logs", r#"{"app":"shop"}"#);
    world.connect();
    lease(&mut world, StreamLease { command, until: 100, over: false });
    say(&mut world, command, 0, "one\n");
    assert_eq!((world.agent.leases.len(), world.output.len()), (0, 0));
}
