use expect_test::{expect, expect_file};

use super::*;

/// The table as it was decided, by hand, apart from the function: what is not listed is refused.
fn decided(from: CommandStatus, event: CommandEvent) -> Option<CommandStatus> {
    use CommandEvent as E;
    use CommandStatus as S;
    let reported = |status: ReportStatus| match status {
        ReportStatus::Succeeded => S::Succeeded,
        ReportStatus::Failed => S::Failed,
        ReportStatus::RolledBack => S::RolledBack,
        ReportStatus::Cancelled => S::Cancelled,
        ReportStatus::Rejected => S::Rejected,
        ReportStatus::Expired => S::Expired,
        ReportStatus::Revoked => S::Rejected,
        ReportStatus::Unknown => S::Unknown,
    };
    let rows: &[(S, E, S)] = &[
        (S::Held, E::Approved, S::Queued),
        (S::Held, E::Denied, S::Cancelled),
        (S::Held, E::CancelledBeforeSealing, S::Cancelled),
        (S::Held, E::ExpiredUndelivered, S::Expired),
        (S::Held, E::HostRevoked, S::Cancelled),
        (S::Queued, E::Sealed, S::Delivered),
        (S::Queued, E::CancelledBeforeSealing, S::Cancelled),
        (S::Queued, E::ExpiredUndelivered, S::Expired),
        (S::Queued, E::HostRevoked, S::Cancelled),
        (S::Delivered, E::Resealed, S::Delivered),
        (S::Delivered, E::StageAccepted, S::Accepted),
        (S::Delivered, E::StageStarted, S::Running),
        (S::Delivered, E::ExpiredUndelivered, S::Expired),
        (S::Delivered, E::HostRevoked, S::Unknown),
        (S::Accepted, E::StageAccepted, S::Accepted),
        (S::Queued, E::RefusedBySigner, S::Rejected),
        (S::Accepted, E::StageStarted, S::Running),
        (S::Accepted, E::HostRevoked, S::Unknown),
        (S::Running, E::StageAccepted, S::Running),
        (S::Running, E::StageStarted, S::Running),
        (S::Running, E::HostRevoked, S::Unknown),
    ];
    match (from, event) {
        (S::Delivered | S::Accepted | S::Running, E::Report(status)) => Some(reported(status)),
        (
            S::Succeeded | S::Failed | S::RolledBack | S::Rejected | S::Expired | S::Unknown | S::Cancelled,
            E::StageAccepted | E::StageStarted,
        ) => Some(from),
        _ => rows.iter().find(|row| (row.0, row.1) == (from, event)).map(|row| row.2),
    }
}

#[test]
fn every_pair_of_status_and_event_is_as_decided() {
    let rows = transitions();
    assert_eq!(rows.len(), CommandStatus::ALL.len() * CommandEvent::ALL.len());
    for row in rows {
        assert_eq!(row.to, decided(row.from, row.event), "{} + {}", row.from, row.event);
        assert_eq!(row.from.after(row.event).ok(), row.to, "the table is the function");
    }
}

#[test]
fn nothing_moves_backwards_and_ends_are_final() {
    let rank = |status: CommandStatus| match status {
        CommandStatus::Held | CommandStatus::Queued => 0,
        CommandStatus::Delivered => 1,
        CommandStatus::Accepted => 2,
        CommandStatus::Running => 3,
        _ => 4,
    };
    for row in transitions() {
        let Some(to) = row.to else { continue };
        assert!(rank(to) >= rank(row.from), "{} + {} → {to}", row.from, row.event);
        if row.from.is_end() {
            assert_eq!(to, row.from, "{} + {}", row.from, row.event);
        }
    }
}

#[test]
fn all_ends_have_the_same_rows() {
    let ends = CommandStatus::ALL.into_iter().filter(|status| status.is_end());
    for end in ends {
        for event in CommandEvent::ALL {
            assert_eq!(end.after(event).is_ok(), CommandStatus::Succeeded.after(event).is_ok(), "{end} + {event}");
        }
    }
}

#[test]
fn words_round_trip() {
    for status in CommandStatus::ALL {
        assert_eq!(status.to_string().parse(), Ok(status));
    }
    expect![[r#""done" is not a command status: use one of held, queued, delivered, accepted, running, succeeded, failed, rolled_back, rejected, expired, unknown, cancelled"#]]
        .assert_eq(&"done".parse::<CommandStatus>().unwrap_err().to_string());
    expect!["a command that is succeeded cannot be sealed: its end is final"]
        .assert_eq(&CommandStatus::Succeeded.after(CommandEvent::Sealed).unwrap_err().to_string());
}

#[test]
fn the_published_table() {
    expect_file!["table.md"].assert_eq(&transitions_markdown());
}

/// `docs/PROTOCOL.md` says what the code does: blessed with `UPDATE_EXPECT=1`, like the table itself.
#[test]
fn the_table_in_the_protocols_document() {
    let document = include_str!("../../../../docs/PROTOCOL.md");
    let (head, rest) = document.split_once("<!-- command-states -->\n").expect("the block begins with its marker");
    let (_, tail) = rest.split_once("<!-- /command-states -->\n").expect("the block ends with its marker");
    let table = transitions_markdown();
    let expected = format!("{head}<!-- command-states -->\n{table}<!-- /command-states -->\n{tail}");
    expect_file!["../../../../docs/PROTOCOL.md"].assert_eq(&expected);
}
