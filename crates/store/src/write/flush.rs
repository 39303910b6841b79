//! Writing back what a run of hot writes changed and added: few statements, many rows.

use fleet::{
    model::{AppInstance, AppInstanceState, Seal},
    ports::StoreError,
};
use ids::{AppName, Sha256, UnixMs};

use super::{
    Transaction,
    hot::{CommandRow, HostRow},
    take,
};
use crate::{
    cipher::Place,
    fault::Failure,
    rows::{int, pieces},
};

pub(super) async fn commands(t: &mut Transaction<'_>, mut rows: Vec<CommandRow>) -> Result<(), Failure> {
    rows.sort_unstable_by_key(|row| row.number);
    let (ended, open): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.settled_at.is_some());
    moved(t, &open).await?;
    settled(t, &ended).await
}

fn time(at: Option<UnixMs>) -> Result<Option<i64>, StoreError> {
    at.map(|at| int(at.0)).transpose()
}

/// Commands on their way. The engine writes the indexes of every column that is named here anew, changed or
/// not, and most of them hang on `settled_at`: so it is not named.
async fn moved(t: &mut Transaction<'_>, rows: &[CommandRow]) -> Result<(), Failure> {
    for piece in pieces(rows) {
        let mut tuples = Vec::with_capacity(piece.len());
        for row in piece {
            let times = [time(row.delivered_at)?, time(row.accepted_at)?, time(row.started_at)?];
            tuples.push((row.number, row.status, int(row.sealed_last.0)?, times));
        }
        t.room_for(piece.len()).await?;
        let update = t.later(
            "UPDATE commands SET status = v.column2, sealed_last = v.column3, delivered_at = v.column4, \
             accepted_at = v.column5, started_at = v.column6 FROM (",
        );
        update.push_values(tuples, |mut values, (number, status, sealed_last, times)| {
            values.push_bind(number).push_bind(status.as_str()).push_bind(sealed_last);
            for time in times {
                values.push_bind(time);
            }
        });
        update.push(") AS v WHERE commands.number = v.column1");
        t.ended("moving commands", piece.len()).await?;
    }
    Ok(())
}

/// Commands that have come to their end. All of a row, because what moved it on may be in the same batch.
async fn settled(t: &mut Transaction<'_>, rows: &[CommandRow]) -> Result<(), Failure> {
    for piece in pieces(rows) {
        let mut tuples = Vec::with_capacity(piece.len());
        for row in piece {
            let message = row.message.as_ref();
            let message =
                message.map(|text| t.cipher.seal(Place::COMMAND_MESSAGE, row.number, text.as_bytes())).transpose()?;
            let [delivered, accepted, started, ended] =
                [row.delivered_at, row.accepted_at, row.started_at, row.settled_at].map(time);
            let times = [delivered?, accepted?, started?, ended?];
            tuples.push((row.number, row.status, int(row.sealed_last.0)?, times, message));
        }
        t.room_for(piece.len()).await?;
        let update = t.later(
            "UPDATE commands SET status = v.column2, sealed_last = v.column3, delivered_at = v.column4, \
             accepted_at = v.column5, started_at = v.column6, settled_at = v.column7, \
             message = COALESCE(v.column8, message) FROM (",
        );
        update.push_values(tuples, |mut values, (number, status, sealed_last, times, message)| {
            values.push_bind(number).push_bind(status.as_str()).push_bind(sealed_last);
            for time in times {
                values.push_bind(time);
            }
            values.push_bind(message);
        });
        update.push(") AS v WHERE commands.number = v.column1");
        t.ended("ending commands", piece.len()).await?;
    }
    Ok(())
}

pub(super) async fn hosts(t: &mut Transaction<'_>, mut rows: Vec<HostRow>) -> Result<(), Failure> {
    rows.sort_unstable_by_key(|row| row.number);
    for piece in pieces(&rows) {
        let mut tuples = Vec::with_capacity(piece.len());
        for row in piece {
            let numbers = [row.allocated.0, row.acknowledged.0, row.last_report.sequence.0].map(int);
            let [allocated, acknowledged, report] = numbers;
            let head_size = row.audit_head.map(|head| int(head.size)).transpose()?;
            tuples.push((row, [allocated?, acknowledged?, report?], head_size));
        }
        t.room_for(piece.len()).await?;
        let update = t.later(
            "UPDATE host_state SET allocated = v.column2, acknowledged = v.column3, report_sequence = v.column4, \
             report_sha256 = v.column5, head_log = v.column6, head_size = v.column7, head_root = v.column8 FROM (",
        );
        update.push_values(tuples, |mut values, (row, numbers, head_size)| {
            values.push_bind(row.number);
            for number in numbers {
                values.push_bind(number);
            }
            values.push_bind(row.last_report.sha256.0.to_vec());
            values.push_bind(row.audit_head.map(|head| head.log.as_bytes().to_vec())).push_bind(head_size);
            values.push_bind(row.audit_head.map(|head| head.root.0.to_vec()));
        });
        update.push(") AS v WHERE host_state.host = v.column1");
        t.ended("moving hosts", piece.len()).await?;
    }
    Ok(())
}

pub(super) async fn seals(t: &mut Transaction<'_>, seals: &[(i64, i64, &Seal)]) -> Result<(), Failure> {
    for piece in pieces(seals) {
        let mut tuples: Vec<(i64, i64, i64, i64, Sha256, Vec<u8>)> = Vec::with_capacity(piece.len());
        for (number, command, seal) in piece {
            let envelope = t.cipher.seal(Place::SEAL, *number, &seal.envelope)?;
            tuples.push((
                *number,
                *command,
                int(seal.sequence.0)?,
                int(seal.expires.0)?,
                seal.payload_sha256,
                envelope,
            ));
        }
        t.room_for(piece.len()).await?;
        let insert =
            t.later("INSERT INTO command_seals (number, command, sequence, expires, payload_sha256, envelope) ");
        insert.push_values(tuples, |mut values, (number, command, sequence, expires, hash, envelope)| {
            values.push_bind(number).push_bind(command).push_bind(sequence).push_bind(expires);
            values.push_bind(hash.0.to_vec()).push_bind(envelope);
        });
        t.ended("storing signed commands", piece.len()).await?;
    }
    Ok(())
}

pub(super) async fn reports(t: &mut Transaction<'_>, reports: &[(i64, &[u8])]) -> Result<(), Failure> {
    for piece in pieces(reports) {
        let mut tuples = Vec::with_capacity(piece.len());
        for (command, envelope) in piece {
            tuples.push((*command, t.cipher.seal(Place::REPORT, *command, envelope)?));
        }
        t.room_for(piece.len()).await?;
        let insert = t.later("INSERT INTO command_reports (command, envelope) ");
        insert.push_values(tuples, |mut values, (command, envelope)| {
            values.push_bind(command).push_bind(envelope);
        });
        t.ended("storing reports", piece.len()).await?;
    }
    Ok(())
}

pub(super) async fn app_put(t: &mut Transaction<'_>, host: i64, instance: &AppInstance) -> Result<(), Failure> {
    // The result is bound to its row, so the row is made anew under a number of its own.
    app_remove(t, host, &instance.app).await?;
    let number = take(&mut t.numbers.app_instance);
    let result = t.cipher.seal(Place::APP_RESULT, number, &instance.result)?;
    let insert = sqlx::query(
        "INSERT INTO app_instances (number, app, host, release, deployed_at, state, result) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(number)
    .bind(instance.app.as_str())
    .bind(host)
    .bind(&instance.release.as_bytes()[..])
    .bind(int(instance.deployed_at.0)?)
    .bind(instance.state.as_str())
    .bind(result);
    t.run("storing an app's release", insert).await?;
    Ok(())
}

pub(super) async fn app_ran(
    t: &mut Transaction<'_>,
    host: i64,
    app: &AppName,
    state: AppInstanceState,
) -> Result<(), Failure> {
    let update = sqlx::query("UPDATE app_instances SET state = $1 WHERE app = $2 AND host = $3");
    let update = update.bind(state.as_str()).bind(app.as_str()).bind(host);
    t.run("storing whether an app runs", update).await?;
    Ok(())
}

pub(super) async fn app_remove(t: &mut Transaction<'_>, host: i64, app: &AppName) -> Result<(), Failure> {
    let delete = sqlx::query("DELETE FROM app_instances WHERE app = $1 AND host = $2").bind(app.as_str()).bind(host);
    t.run("removing an app", delete).await?;
    Ok(())
}
