//! Hosts, join tokens, apps.

use envelope::messages::{PublicKeyBytes, ReportPosition, SealingKeyBytes};
use fleet::{
    model::{AppInstance, FormerKey, Host, HostQuarantine, HostStanding, JoinTokenRecord, QuarantineSeen},
    ports::StoreError,
};
use ids::{AppName, HostEpoch, HostId, HostName, ReportSequence, RootVersion, Sequence, TokenId, UnixMs};
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};

use crate::{
    cipher::Place,
    codes, limits,
    rows::{Fields, pieces},
    sqlite::Reader,
    write::Statement,
};

/// Labels come as one text, a line each.
macro_rules! select_hosts {
    ($rest:literal) => {
        concat!(
            "SELECT h.number, h.id, h.name, h.roles, \
             (SELECT group_concat(key || '=' || value, char(10)) FROM host_labels WHERE host = h.number), \
             h.identity_key, h.sealing_key, h.host_epoch, h.quarantine_why, h.revoked_at, \
             s.allocated, s.acknowledged, s.report_sequence, s.report_sha256, s.head_log, s.head_size, s.head_root, \
             h.boots, h.actions, h.agent_version, h.root_version, h.enrolled_at, h.last_seen, h.receipt, \
             h.quarantined_at, h.quarantine_is_alarm, h.quarantine_is_told, h.quarantine_release, h.clock_skew_ms, \
             h.is_retired \
             FROM hosts h JOIN host_state s ON s.host = h.number ",
            $rest
        )
    };
}

const SELECT_INSTANCES: &str = "SELECT a.number, a.app, h.id, h.name, a.release, a.deployed_at, a.state, a.result \
     FROM app_instances a JOIN hosts h ON h.number = a.host WHERE h.revoked_at IS NULL";

pub(super) const SELECT_HOSTS: &str = select_hosts!("");

/// The host of a row, and the row's number.
pub(super) fn host(row: &SqliteRow) -> Result<(Host, u64), StoreError> {
    let mut fields = Fields::of(row, "the hosts");
    let number = fields.number()?;
    let mut host = Host {
        id: fields.id()?,
        name: fields.word()?,
        roles: fields.roles()?,
        labels: codes::labels(fields.get()?)?,
        identity_key: PublicKeyBytes(fields.bytes()?),
        sealing_key: SealingKeyBytes(fields.bytes()?),
        host_epoch: HostEpoch(fields.number()?),
        standing: standing(fields.get()?, fields.time_maybe()?),
        quarantine: HostQuarantine::default(),
        allocated: Sequence(fields.number()?),
        acknowledged: Sequence(fields.number()?),
        last_report: ReportPosition { sequence: ReportSequence(fields.number()?), sha256: fields.hash()? },
        audit_head: fields.log_position_maybe()?,
        boots: codes::boots(fields.get()?)?,
        actions: codes::actions(fields.get()?)?,
        agent_version: fields.get()?,
        root_version: RootVersion(fields.number()?),
        enrolled_at: fields.time()?,
        clock_skew_ms: None,
        last_seen: fields.time_maybe()?,
        receipt: fields.get()?,
    };
    let since = fields.time_maybe()?;
    host.quarantine =
        HostQuarantine { since, is_alarm: fields.get()?, is_told: fields.get()?, release: fields.id_maybe()? };
    host.clock_skew_ms = fields.get()?;
    let has_left: bool = fields.get()?;
    if let HostStanding::Revoked { is_retired, .. } = &mut host.standing {
        *is_retired = has_left;
    }
    Ok((host, number))
}

fn standing(quarantine_why: Option<String>, revoked_at: Option<UnixMs>) -> HostStanding {
    match (revoked_at, quarantine_why) {
        (Some(at), _) => HostStanding::Revoked { at, is_retired: false },
        (None, Some(why)) => HostStanding::Quarantined { why },
        (None, None) => HostStanding::Active,
    }
}

impl Reader {
    async fn one_host(&self, select: Statement<'_>) -> Result<Option<Host>, StoreError> {
        Ok(self.row("reading a host", select).await?.as_ref().map(host).transpose()?.map(|(host, _)| host))
    }

    pub(crate) async fn host_by_name(&self, name: HostName) -> Result<Option<Host>, StoreError> {
        let select = sqlx::query(select_hosts!("WHERE h.name = $1 AND h.revoked_at IS NULL"));
        self.one_host(select.bind(name.as_str())).await
    }

    pub(crate) async fn host_ever(&self, name: HostName) -> Result<Option<Host>, StoreError> {
        let select = sqlx::query(select_hosts!(
            "WHERE h.name = $1 ORDER BY h.revoked_at IS NOT NULL, h.revoked_at DESC LIMIT 1"
        ));
        self.one_host(select.bind(name.as_str())).await
    }

    pub(crate) async fn hosts(&self) -> Result<Vec<Host>, StoreError> {
        let select = sqlx::query(select_hosts!("ORDER BY h.revoked_at IS NOT NULL, h.name, h.number"));
        let rows = self.rows("reading the hosts", select).await?;
        rows.iter().map(|row| host(row).map(|(host, _)| host)).collect()
    }

    /// Identity keys before the one on record, latest first.
    pub(crate) async fn host_former_keys(&self, id: HostId) -> Result<Vec<FormerKey>, StoreError> {
        let select = sqlx::query(
            "SELECT host_epoch, identity_key, last_report, replaced_at, rotation FROM host_keys \
             WHERE host = (SELECT number FROM hosts WHERE id = $1) ORDER BY host_epoch DESC LIMIT $2",
        );
        let select = select.bind(&id.as_bytes()[..]).bind(limits::FORMER_KEYS_MAX);
        let rows = self.rows("reading a host's old keys", select).await?;
        let former = |row: &SqliteRow| {
            let mut fields = Fields::of(row, "the hosts' old keys");
            Ok(FormerKey {
                host_epoch: HostEpoch(fields.number()?),
                identity_key: PublicKeyBytes(fields.hash()?.0),
                last_report: fields.number_maybe()?.map(ReportSequence),
                replaced_at: fields.time()?,
                rotation: fields.get::<&[u8]>()?.to_vec(),
            })
        };
        rows.iter().map(former).collect()
    }

    /// Quarantines that its agents said they are in, latest first.
    pub(crate) async fn host_quarantines(&self, id: HostId) -> Result<Vec<QuarantineSeen>, StoreError> {
        let select = sqlx::query(
            "SELECT id, seen_at, boot, host_epoch, protocol, high, report_sequence FROM host_quarantines \
             WHERE host = (SELECT number FROM hosts WHERE id = $1) ORDER BY seen_at DESC, id",
        );
        let rows = self.rows("reading a host's quarantines", select.bind(&id.as_bytes()[..])).await?;
        let seen = |row: &SqliteRow| {
            let mut fields = Fields::of(row, "the hosts' quarantines");
            Ok(QuarantineSeen {
                id: fields.id()?,
                at: fields.time()?,
                boot: fields.id()?,
                host_epoch: HostEpoch(fields.number()?),
                protocol: fields.small()?,
                high: Sequence(fields.number()?),
                last_report: ReportSequence(fields.number()?),
            })
        };
        rows.iter().map(seen).collect()
    }

    pub(crate) async fn join_token(&self, id: TokenId) -> Result<Option<JoinTokenRecord>, StoreError> {
        let select = sqlx::query(
            "SELECT id, secret_sha256, host_name, roles, created_by, created_at, expires, spent_by \
             FROM join_tokens WHERE id = $1",
        )
        .bind(&id.as_bytes()[..]);
        let Some(row) = self.row("reading a join token", select).await? else {
            return Ok(None);
        };
        let mut fields = Fields::of(&row, "the join tokens");
        Ok(Some(JoinTokenRecord {
            id: fields.id()?,
            secret_sha256: fields.hash()?,
            host_name: fields.word()?,
            roles: fields.roles()?,
            created_by: fields.word()?,
            created_at: fields.time()?,
            expires: fields.time()?,
            spent_by: fields.id_maybe()?,
        }))
    }

    /// Of hosts that are not revoked: what a revoked host runs is not known any more.
    pub(crate) async fn apps(&self, app: Option<AppName>) -> Result<Vec<AppInstance>, StoreError> {
        let mut select = QueryBuilder::<Sqlite>::new(SELECT_INSTANCES);
        if let Some(app) = app {
            select.push(" AND a.app = ").push_bind(app.to_string());
        }
        select.push(" ORDER BY a.app, h.name");
        self.instances_of(select).await
    }

    /// Instances of these apps, on one host or on all.
    pub(super) async fn instances(&self, apps: &[AppName], on: Option<HostId>) -> Result<Vec<AppInstance>, StoreError> {
        let mut all = Vec::new();
        for piece in pieces(apps) {
            let mut select = QueryBuilder::<Sqlite>::new(SELECT_INSTANCES);
            if let Some(host) = on {
                select.push(" AND h.id = ").push_bind(host.as_bytes().to_vec());
            }
            select.push(" AND a.app IN (");
            let mut list = select.separated(", ");
            for app in piece {
                list.push_bind(app.to_string());
            }
            select.push(") ORDER BY a.app, h.name");
            all.extend(self.instances_of(select).await?);
        }
        Ok(all)
    }

    async fn instances_of(&self, mut select: QueryBuilder<Sqlite>) -> Result<Vec<AppInstance>, StoreError> {
        let rows = self.rows("reading the apps", select.build()).await?;
        let instance = |row: &SqliteRow| {
            let mut fields = Fields::of(row, "the apps");
            let number: i64 = fields.get()?;
            Ok(AppInstance {
                app: fields.word()?,
                host: fields.id()?,
                host_name: fields.word()?,
                release: fields.id()?,
                deployed_at: fields.time()?,
                state: codes::app_state(fields.get()?)?,
                result: self.cipher.open(Place::APP_RESULT, number, fields.get()?)?,
            })
        };
        rows.iter().map(instance).collect()
    }
}
