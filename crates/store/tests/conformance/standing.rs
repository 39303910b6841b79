//! Standing orders: what is kept of them, and what their commands' ends make of it.

use envelope::audit::AuditKind;
use fleet::{
    model::{CommandStatus, Host, NewCommand, OperationKind},
    ports::{NewStanding, Settlement, SignedStanding, StandingProposal, Store, Write, Written},
    standing::{StandingRecord, StandingSeal, StandingState, StepKind},
};
use ids::{DurationMs, Epoch, HostEpoch, KeyId, Revision, StandingOrderId};

use super::fixtures::*;

fn seal_of(revision: u64) -> StandingSeal {
    let key = KeyId::from_bytes([6; 16]);
    StandingSeal { revision: Revision(revision), key, host_epoch: HostEpoch(1), epoch: Epoch(3) }
}

/// What brings or ends it, and the command in it.
fn proposal(host: &Host, order: StandingOrderId, kind: StepKind, revision: u64) -> (StandingProposal, NewCommand) {
    let operation = operation(OperationKind::Single);
    let mut command = new_command(&operation, host, "standing.install");
    command.app = None;
    let sealed = (kind != StepKind::Drop)
        .then(|| SignedStanding { seal: seal_of(revision), envelope: vec![0xa5; 40 + revision as usize] });
    let new = (kind == StepKind::Install).then(|| NewStanding {
        action: "app.restart".parse().unwrap(),
        action_version: 2,
        schedule: "0 3 * * *".to_owned(),
        zone: "UTC".to_owned(),
        valid_until: NOW.plus(DurationMs::from_days(9)),
        alone_for: DurationMs::from_days(3),
    });
    let audit = entry(AuditKind::StandingOrder, "signed");
    let proposal = StandingProposal {
        host: host.id,
        order,
        kind,
        new,
        sealed,
        last: Revision(revision),
        operation,
        commands: vec![command.clone()],
        at: NOW,
        audit,
    };
    (proposal, command)
}

fn write(proposal: &StandingProposal) -> Write {
    Write::StandingPropose(Box::new(proposal.clone()))
}

async fn one(store: &dyn Store, order: StandingOrderId) -> StandingRecord {
    store.standing_orders(None).await.unwrap().into_iter().find(|record| record.order == order).expect("it is there")
}

/// Its command is sealed, started, and ends so.
async fn ends(store: &dyn Store, command: &NewCommand, number: u64, status: CommandStatus) {
    done(store, seal_write(command, number - 1, number)).await;
    done(store, stage_write(command, number, session::frames::Stage::Accepted)).await;
    let settlement = Settlement { status, message: "as it said".to_owned(), ..settlement(command, number, number) };
    done(store, Write::CommandSettle(Box::new(settlement))).await;
}

pub(crate) async fn a_standing_order_follows_its_commands(store: &dyn Store) {
    let host = enrolled(store, "alpha").await;
    let order = StandingOrderId::from_bytes(fresh());
    let (install, command) = proposal(&host, order, StepKind::Install, 1);
    done(store, write(&install)).await;
    assert_eq!(store.write(write(&install)).await, Ok(Written::AlreadyProposed), "the same again");
    let record = one(store, order).await;
    assert_eq!((record.state(), record.held(), record.host), (StandingState::Installing, None, host.id));
    assert_eq!((record.action.as_str(), record.action_version, record.zone.as_str()), ("app.restart", 2, "UTC"));
    assert_eq!((record.valid_until, record.alone_for), (NOW.plus(DurationMs::from_days(9)), DurationMs::from_days(3)));
    assert!(record.steps[0].is_under_way);
    assert_eq!(store.standing_envelope(order).await, Ok(Some(vec![0xa5; 41])));

    ends(store, &command, 1, CommandStatus::Succeeded).await;
    assert_eq!(one(store, order).await.held(), Some(seal_of(1)));
    let (renew, renewal) = proposal(&host, order, StepKind::Renew, 5);
    done(store, write(&renew)).await;
    assert_eq!((one(store, order).await.held(), one(store, order).await.is_open()), (Some(seal_of(1)), true));
    ends(store, &renewal, 2, CommandStatus::Rejected).await;
    let refused = one(store, order).await;
    assert_eq!((refused.state(), refused.held()), (StandingState::Installed, Some(seal_of(1))));
    assert_eq!(refused.problem(), Some("as it said"));
    let (again, renewal) = proposal(&host, order, StepKind::Renew, 6);
    done(store, write(&again)).await;
    ends(store, &renewal, 3, CommandStatus::Succeeded).await;
    assert_eq!(store.standing_envelope(order).await, Ok(Some(vec![0xa5; 46])));

    // Its end covers all that was signed of it, and nothing more is signed of it then.
    conflicts(store, write(&proposal(&host, order, StepKind::Drop, 5).0), "signed anew meanwhile").await;
    let (end, last) = proposal(&host, order, StepKind::Drop, 6);
    done(store, write(&end)).await;
    let dropping = one(store, order).await;
    assert_eq!((dropping.state(), dropping.steps.len()), (StandingState::Dropping, 2), "what is past is forgotten");
    conflicts(store, write(&proposal(&host, order, StepKind::Renew, 7).0), "is being dropped").await;
    ends(store, &last, 4, CommandStatus::Succeeded).await;
    conflicts(store, write(&proposal(&host, order, StepKind::Renew, 7).0), "is being dropped").await;
    assert_eq!(one(store, order).await.state(), StandingState::Dropped);
}

pub(crate) async fn a_revision_is_given_out_once_and_a_refused_one_leaves_nothing(store: &dyn Store) {
    let (alpha, beta) = (enrolled(store, "alpha").await, enrolled(store, "beta").await);
    let first = StandingOrderId::from_bytes(fresh());
    assert_eq!(store.standing_revision(alpha.id).await, Ok(Revision(0)));
    done(store, write(&proposal(&alpha, first, StepKind::Install, 3).0)).await;
    assert_eq!(store.standing_revision(alpha.id).await, Ok(Revision(3)));
    assert_eq!(store.standing_revision(beta.id).await, Ok(Revision(0)));

    let leaves = store.audit(0, 100).await.unwrap().len();
    for taken in [1, 3] {
        let (late, command) = proposal(&alpha, StandingOrderId::from_bytes(fresh()), StepKind::Install, taken);
        conflicts(store, write(&late), "was given out meanwhile").await;
        assert_eq!(store.command(command.order.command).await, Ok(None));
        assert_eq!(store.operation(late.operation.id).await, Ok(None));
    }
    // A renewal of what is not on record, or is another host's.
    conflicts(store, write(&proposal(&alpha, StandingOrderId::from_bytes(fresh()), StepKind::Renew, 4).0), "not known")
        .await;
    conflicts(store, write(&proposal(&beta, first, StepKind::Renew, 4).0), "not known").await;
    assert_eq!(store.audit(0, 100).await.unwrap().len(), leaves, "what is refused leaves nothing");
    assert_eq!(store.standing_revision(alpha.id).await, Ok(Revision(3)));
    assert_eq!(store.standing_revision(beta.id).await, Ok(Revision(0)));
    assert_eq!(store.standing_orders(Some(alpha.id)).await.unwrap().len(), 1);

    // The end of one that only its host knows of is ordered all the same.
    let (end, command) = proposal(&beta, StandingOrderId::from_bytes(fresh()), StepKind::Drop, 0);
    done(store, write(&end)).await;
    assert!(store.command(command.order.command).await.unwrap().is_some());
    assert!(store.standing_orders(Some(beta.id)).await.unwrap().is_empty());
}
