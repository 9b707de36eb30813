//! What the runs that share the database see of each other: who joined, the view, targets, and shards that are given back.

use std::time::Duration;

use orchestrix_core::store::{
    ClusterView, Member, NodeRecord, PlanOutcome, Renewed, Report, ShardOwner, Target,
};
use orchestrix_core::{Epoch, Incarnation, ShardId};
use sqlx::postgres::PgRow;

use super::Inner;
use super::append::{number, ownership, shard_number};
use super::arguments::Args;
use super::error::Failed;
use super::rows::{Elements, Malformed, Value, get, maybe};
use super::statements::{DRAIN, JOIN, LEAVE, OWNERSHIP, RELEASE_SHARDS, RENEW, SET_TARGETS, VIEW};

/// How long the row of a run stays whose lease has ended and that owns nothing: long enough to be told by its next
/// renewal that it was succeeded, and for people to see what became of it.
const LEFTOVER_KEPT: Duration = Duration::from_mins(10);

impl Inner {
    /// Announces a run, and clears away what runs left behind that never came back.
    pub(super) async fn join(&self, node: &NodeRecord, lease: Duration) -> Result<(), Failed> {
        // The run comes first: the server cuts long names, and the run is what tells whose a session is.
        self.target.rename(&format!("orchestrix {} {}", node.incarnation, node.name));
        let arguments = Args::default()
            .add(node.incarnation)
            .add(&*node.name)
            .add(&*node.host)
            .add(&*node.boot_id)
            .add(&*node.pid_namespace)
            .add(i64::from(node.pid))
            .add(number(node.pid_started))
            .add(&*node.application_version)
            .add(node.address.as_deref())
            .add(micros(lease))
            .add(micros(LEFTOVER_KEPT));
        self.pool.run(JOIN, arguments).await.map(|_| ())
    }

    pub(super) async fn renew(
        &self,
        owner: Incarnation,
        lease: Duration,
        report: Report,
    ) -> Result<Renewed, Failed> {
        let arguments =
            Args::default().add(owner).add(micros(lease)).add(number(report.load)).add(report.draining);
        let row = self.pool.run_one(RENEW, arguments).await?;
        Ok(Renewed { holds: get(&row, 0)?, view: unsigned(&row, 1)? })
    }

    pub(super) async fn leave(&self, owner: Incarnation) -> Result<(), Failed> {
        self.pool.run(LEAVE, Args::default().add(owner)).await.map(|_| ())
    }

    pub(super) async fn drain(&self, run: Incarnation) -> Result<bool, Failed> {
        Ok(!self.pool.run(DRAIN, Args::default().add(run)).await?.is_empty())
    }

    /// Reads everything in one statement, and so of one moment: the shards in the first row, a member in each other one.
    pub(super) async fn view(&self) -> Result<ClusterView, Failed> {
        let rows = self.pool.run(VIEW, Args::default()).await?;
        let Some((first, members)) = rows.split_first() else {
            return Err(Malformed("the row of the cluster's view is missing".to_owned()).into());
        };
        let members: Result<Vec<Member>, Malformed> = members.iter().map(member).collect();
        let shards = owners(first)?;
        let (count, found) = (self.book.shard_count.get(), shards.len());
        if found != count as usize {
            return Err(Malformed(format!("the log has {count} shards, and {found} rows for them")).into());
        }
        Ok(ClusterView { version: unsigned(first, 0)?, members: members?, shards })
    }

    pub(super) async fn set_targets(
        &self,
        planner: Incarnation,
        view: u64,
        targets: &[Target],
    ) -> Result<PlanOutcome, Failed> {
        let count = targets.len();
        let arguments = Args::default()
            .add(planner)
            .add(number(view))
            .array(count, || targets.iter().map(|target| shard_number(target.shard)))
            .array(count, || targets.iter().map(|target| target.owner))
            .array(count, || targets.iter().map(|target| number(target.epoch.get())))
            .array(count, || targets.iter().map(|target| target.target));
        let row = self.pool.run_one(SET_TARGETS, arguments).await?;
        match get::<i32>(&row, 0)? {
            0 => Ok(PlanOutcome::Set { view: unsigned(&row, 1)? }),
            1 => Ok(PlanOutcome::Busy),
            2 => Ok(PlanOutcome::Stale),
            other => Err(Malformed(format!("targets were answered with {other}")).into()),
        }
    }

    /// Gives shards back, and reads anew what the run still owns, so that no append has to find out.
    pub(super) async fn release_shards(
        &self,
        owner: Incarnation,
        shards: &[(ShardId, Epoch)],
    ) -> Result<Vec<bool>, Failed> {
        let count = shards.len();
        let arguments = Args::default()
            .add(owner)
            .array(count, || shards.iter().map(|(shard, _)| shard_number(*shard)))
            .array(count, || shards.iter().map(|(_, epoch)| number(epoch.get())));
        let rows = self.pool.run(RELEASE_SHARDS, arguments).await?;
        let released: Vec<ShardId> = rows.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
        if !released.is_empty()
            && let Err(error) = self.learn_ownership(owner).await
        {
            tracing::debug!(%error, "what the run still owns is read with its next append");
        }
        Ok(shards.iter().map(|(shard, _)| released.contains(shard)).collect())
    }

    async fn learn_ownership(&self, owner: Incarnation) -> Result<(), Failed> {
        let rows = self.pool.run(OWNERSHIP, Args::default().add(owner)).await?;
        if let Some(ownership) = ownership(&rows)? {
            self.book.install(owner, &ownership);
        }
        Ok(())
    }
}

/// Reads the shards from arrays of the same length, in their order.
fn owners(row: &PgRow) -> Result<Vec<ShardOwner>, Malformed> {
    let mut shards = Elements::of(maybe(row, 1)?)?;
    let mut owners = Elements::of(maybe(row, 2)?)?;
    let mut epochs = Elements::of(maybe(row, 3)?)?;
    let mut targets = Elements::of(maybe(row, 4)?)?;
    let mut all = Vec::with_capacity(shards.len());
    while shards.len() > 0 {
        all.push(ShardOwner {
            shard: known(shards.next()?)?,
            owner: element(owners.next()?)?,
            epoch: known(epochs.next()?)?,
            target: element(targets.next()?)?,
        });
    }
    Ok(all)
}

fn element<'r, T: Value<'r>>(bytes: Option<&'r [u8]>) -> Result<Option<T>, Malformed> {
    let read = |bytes| T::read(bytes).ok_or_else(|| Malformed("a shard's row is malformed".to_owned()));
    bytes.map(read).transpose()
}

fn known<'r, T: Value<'r>>(bytes: Option<&'r [u8]>) -> Result<T, Malformed> {
    element(bytes)?.ok_or_else(|| Malformed("a shard's row has a NULL".to_owned()))
}

fn member(row: &PgRow) -> Result<Member, Malformed> {
    let text = |at| get::<&str>(row, at).map(str::to_owned);
    let node = NodeRecord {
        incarnation: get(row, 5)?,
        name: text(6)?,
        host: text(7)?,
        boot_id: text(8)?,
        pid_namespace: text(9)?,
        pid: get::<i64>(row, 10)? as u32,
        pid_started: unsigned(row, 11)?,
        application_version: text(12)?,
        address: maybe::<&str>(row, 13)?.map(str::to_owned),
    };
    Ok(Member {
        node,
        lease_left: Duration::from_micros(unsigned(row, 14)?),
        draining: get(row, 15)?,
        deposed: get(row, 16)?,
        load: unsigned(row, 17)?,
    })
}

/// Reads a number that is never below zero.
fn unsigned(row: &PgRow, at: usize) -> Result<u64, Malformed> {
    let value: i64 = get(row, at)?;
    u64::try_from(value).map_err(|_| Malformed(format!("column {at} of an answer is {value}")))
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2)
}
