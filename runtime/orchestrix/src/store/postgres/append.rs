//! Appends: one statement for a usual batch, and an honest answer when it does not go as usual.
//!
//! A batch holds its shards and a lane, so that seqs are given in order. The ledger plans it; what it needs to know is
//! read first; the function `orchestrix.append` checks the fence and stores everything or nothing. When that tells
//! that the plan was wrong, what was wrong is read, and the rest is planned anew.

use std::sync::Arc;

use orchestrix_core::store::{Batch, Commit, CommitOutcome, NewEvent};
use orchestrix_core::{Incarnation, ShardId, Version};
use sqlx::postgres::PgRow;

use super::arguments::Args;
use super::book::Book;
use super::error::{Effect, Failed, code};
use super::key::StreamKey;
use super::lanes::Lane;
use super::ledger::{Asked, ByKey, Found, Need, Ownership, Placed, Plan};
use super::moment::Moment;
use super::rows::{get, maybe};
use super::statements::{APPEND, HEADS, OWNERSHIP, VERSIONS};

/// How often a batch is planned anew before it is given up: each round knows more than the one before, unless somebody
/// else keeps changing what it knows.
const ROUNDS_MAX: usize = 16;

/// A batch on its way.
pub(super) struct Work {
    book: Arc<Book>,
    durable: bool,
    lane: Lane,
    owner: Incarnation,
    commits: Vec<Commit>,
    keys: Vec<StreamKey>,
    outcomes: Vec<Option<CommitOutcome>>,
}

/// What the round on a part of the batch came to.
enum Step {
    /// Everything in it has an answer.
    Answered,
    /// Something must be read before the next round.
    Read(Need),
    /// The same again.
    Again,
    /// One of the values cannot be stored: in two parts, please.
    Split(String),
}

impl Work {
    /// Appends a batch whose shards are held and answers for each commit.
    pub(super) async fn run(book: Arc<Book>, durable: bool, lane: Lane, batch: Batch) -> Vec<CommitOutcome> {
        let Batch { owner, commits } = batch;
        let keys: Vec<StreamKey> = commits.iter().map(|commit| book.key(&commit.stream)).collect();
        let outcomes: Vec<_> = commits.iter().map(|commit| book.refusal(commit)).collect();
        let mut work = Self { book, durable, lane, owner, commits, keys, outcomes };
        let mut parts = vec![work.open(0..work.commits.len())];
        while let Some(part) = parts.pop() {
            if let Some((first, second)) = work.settle(part).await {
                // The last one is taken first: the order of a stream's commits stays.
                parts.push(second);
                parts.push(first);
            }
        }
        work.outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| unavailable("it was not attempted")))
            .collect()
    }

    fn open(&self, part: impl IntoIterator<Item = usize>) -> Vec<usize> {
        part.into_iter().filter(|at| self.outcomes[*at].is_none()).collect()
    }

    /// Answers for a part of the batch, or returns it in two halves.
    async fn settle(&mut self, part: Vec<usize>) -> Option<(Vec<usize>, Vec<usize>)> {
        let mut open = part;
        let mut versions = None;
        let mut is_fresh = false;
        for _ in 0..ROUNDS_MAX {
            open = self.open(open);
            if open.is_empty() {
                return None;
            }
            let need = match self.round(&open, versions.as_ref(), is_fresh).await {
                Step::Answered => return None,
                Step::Again => continue,
                Step::Split(reason) if open.len() == 1 => {
                    self.answer(&open, &unavailable(reason));
                    return None;
                }
                Step::Split(_) => {
                    let second = open.split_off(open.len() / 2);
                    return Some((open, second));
                }
                Step::Read(need) => need,
            };
            let read = match need {
                Need::Ownership => self.read_ownership().await.map(|owns| {
                    is_fresh = true;
                    if !owns {
                        self.answer(&open, &CommitOutcome::Fenced);
                    }
                }),
                Need::Heads(shards) => self.read_heads(&shards).await,
                Need::Versions => self.read_versions(&open).await.map(|found| versions = Some(found)),
            };
            if let Err(failed) = read {
                self.answer(&open, &unavailable(failed.to_string()));
                return None;
            }
        }
        self.answer(&open, &unavailable("owners or other writers kept changing what it builds on"));
        None
    }

    async fn round(&mut self, open: &[usize], versions: Option<&ByKey<Found>>, is_fresh: bool) -> Step {
        let planned = self.book.ledger().plan(&self.asked(open, versions, is_fresh));
        let plan = match planned {
            Ok(plan) => plan,
            Err(need) => return Step::Read(need),
        };
        for (at, refused) in &plan.refused {
            self.outcomes[*at] = Some(refused.clone());
        }
        if plan.placed.is_empty() {
            return Step::Answered;
        }
        match self.send(&plan).await {
            Ok(0) => {
                self.book.ledger().stored(&self.asked(open, versions, is_fresh), &plan);
                for placed in &plan.placed {
                    let first_seq = placed.first_seq;
                    self.outcomes[placed.commit] = Some(CommitOutcome::Committed { first_seq });
                }
                Step::Answered
            }
            Ok(1 | 2) => Step::Read(Need::Ownership),
            Ok(_) => Step::Read(Need::Versions),
            Err(failed) => self.failed(&plan, &failed),
        }
    }

    fn asked<'a>(
        &'a self,
        open: &'a [usize],
        versions: Option<&'a ByKey<Found>>,
        is_fresh: bool,
    ) -> Asked<'a> {
        Asked { owner: self.owner, commits: &self.commits, keys: &self.keys, open, versions, is_fresh }
    }

    /// Decides what to do about an append that ended in an error.
    fn failed(&mut self, plan: &Plan, failed: &Failed) -> Step {
        let placed: Vec<usize> = plan.placed.iter().map(|placed| placed.commit).collect();
        let shards = placed.iter().map(|at| self.commits[*at].shard);
        match (failed.effect(), failed.code()) {
            (Effect::None, Some(code::UNIQUE_VIOLATION)) => {
                // A version is taken, or a seq by another handle of the same run.
                self.book.ledger().forget_heads(self.owner, shards);
                Step::Read(Need::Versions)
            }
            (Effect::None, _) if failed.is_worth_repeating() => Step::Again,
            (Effect::None, _) if failed.is_about_values() => Step::Split(failed.to_string()),
            (Effect::None, _) => {
                self.answer(&placed, &unavailable(failed.to_string()));
                Step::Answered
            }
            (Effect::Unknown, _) => {
                self.book.ledger().forget_heads(self.owner, shards);
                self.answer(&placed, &CommitOutcome::Unknown { reason: failed.to_string().into() });
                Step::Answered
            }
        }
    }

    fn answer(&mut self, part: &[usize], outcome: &CommitOutcome) {
        for at in part {
            self.outcomes[*at].get_or_insert_with(|| outcome.clone());
        }
    }

    /// Sends what was planned and returns what the function says.
    async fn send(&mut self, plan: &Plan) -> Result<i32, Failed> {
        let arguments = self.arguments(plan);
        let row = self.lane.session().await?.run_one(APPEND, arguments).await?;
        Ok(get(&row, 0)?)
    }

    fn arguments(&self, plan: &Plan) -> Args {
        let rows = Rows { commits: &self.commits, keys: &self.keys, placed: &plan.placed };
        let before = &plan.before;
        let args = Args::with_capacity(23, rows.bytes())
            .add(self.owner)
            .add(self.lane.number())
            .add(plan.generation)
            .add(plan.server)
            .add(self.durable)
            .array(before.len(), || before.iter().map(|before| before.stream))
            .array(before.len(), || before.iter().map(|before| number(before.version.get())))
            .array(before.len(), || before.iter().map(|before| shard_number(before.shard)));
        rows.bind(args)
    }

    /// Reads what the run owns; `false` when that is nothing, so that every commit is fenced.
    async fn read_ownership(&mut self) -> Result<bool, Failed> {
        let rows = self.lane.session().await?.run(OWNERSHIP, Args::default().add(self.owner)).await?;
        let Some(ownership) = ownership(&rows)? else { return Ok(false) };
        self.book.install(self.owner, &ownership);
        Ok(true)
    }

    async fn read_heads(&mut self, shards: &[ShardId]) -> Result<(), Failed> {
        let asked = Args::default().array(shards.len(), || shards.iter().map(|shard| shard_number(*shard)));
        let rows = self.lane.session().await?.run(HEADS, asked).await?;
        let heads: Result<Vec<_>, _> =
            rows.iter().map(|row| Ok::<_, Failed>((get(row, 0)?, get(row, 1)?))).collect();
        self.book.learn_heads(self.owner, &heads?);
        Ok(())
    }

    async fn read_versions(&mut self, open: &[usize]) -> Result<ByKey<Found>, Failed> {
        let asked = Args::default()
            .array(open.len(), || open.iter().map(|at| shard_number(self.commits[*at].shard)))
            .array(open.len(), || open.iter().map(|at| self.keys[*at]));
        let mut found = ByKey::default();
        for row in &self.lane.session().await?.run(VERSIONS, asked).await? {
            let place: i32 = get(row, 0)?;
            let Some(at) = open.get((place - 1) as usize) else { continue };
            let stream = &self.commits[*at].stream;
            let same = get::<&str>(row, 2)? == stream.aggregate_type && get::<&str>(row, 3)? == &*stream.id;
            let end = if same { Found::Version(get::<Version>(row, 1)?) } else { Found::Stranger };
            found.insert(self.keys[*at], end);
        }
        Ok(found)
    }
}

/// Reads what a run owns from the rows of [`OWNERSHIP`]; `None` for a run that has no fence, and so owns nothing.
pub(super) fn ownership(rows: &[PgRow]) -> Result<Option<Ownership>, Failed> {
    let mut ownership: Option<Ownership> = None;
    for row in rows {
        let (generation, server) = (get(row, 2)?, get(row, 3)?);
        let all = ownership.get_or_insert_with(|| Ownership { generation, server, shards: Vec::new() });
        if let Some(shard) = maybe(row, 0)? {
            all.shards.push((shard, get(row, 1)?, None));
        }
    }
    Ok(ownership)
}

/// The rows of what is to be stored, column by column.
struct Rows<'a> {
    commits: &'a [Commit],
    keys: &'a [StreamKey],
    placed: &'a [Placed],
}

/// One row.
#[derive(Clone, Copy)]
struct Row<'a> {
    placed: Placed,
    commit: &'a Commit,
    event: &'a NewEvent,
    /// The event's place in its commit.
    at: usize,
}

impl<'a> Rows<'a> {
    fn rows(&self) -> impl Iterator<Item = Row<'a>> {
        let commits = self.commits;
        self.placed.iter().flat_map(move |placed| {
            let commit = &commits[placed.commit];
            commit.events.iter().enumerate().map(move |(at, event)| Row {
                placed: *placed,
                commit,
                event,
                at,
            })
        })
    }

    fn count(&self) -> usize {
        self.placed.iter().map(|placed| self.commits[placed.commit].events.len()).sum()
    }

    /// Returns about how many bytes they take as arguments.
    fn bytes(&self) -> usize {
        self.placed.iter().map(|placed| self.commits[placed.commit].weight_bytes() + 200).sum()
    }

    fn bind(&self, args: Args) -> Args {
        let count = self.count();
        args.array(count, || self.rows().map(|row| number(row.placed.first_seq.get() + row.at as u64)))
            .array(count, || self.rows().map(|row| number(row.commit.expected.get() + row.at as u64 + 1)))
            .array(count, || self.rows().map(|row| number(row.commit.epoch.get())))
            .array(count, || self.rows().map(|row| Moment::nearest(row.commit.recorded_at)))
            .array(count, || self.rows().map(|row| shard_number(row.commit.shard)))
            .array(count, || self.rows().map(|row| i32::from(row.event.schema_version)))
            .array(count, || self.rows().map(|row| i16::from(row.event.codec.as_u8())))
            .array(count, || self.rows().map(|row| self.keys[row.placed.commit]))
            .array(count, || self.rows().map(|row| row.commit.command_id))
            .array(count, || self.rows().map(|row| &*row.commit.stream.aggregate_type))
            .array(count, || self.rows().map(|row| &*row.commit.stream.id))
            .array(count, || self.rows().map(|row| &*row.event.event_type))
            .array(count, || self.rows().map(|row| row.commit.headers.as_deref()))
            .array(count, || self.rows().map(Row::receipt))
            .array(count, || self.rows().map(|row| &*row.event.payload))
    }
}

impl<'a> Row<'a> {
    /// The receipt stands with the commit's last event.
    fn receipt(self) -> Option<&'a [u8]> {
        self.commit.receipt.as_deref().filter(|_| self.at + 1 == self.commit.events.len())
    }
}

/// Turns a version, an epoch or a seq into what the server takes; what is over its range is over every stored number.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Turns a shard into what the server takes.
pub(super) fn shard_number(shard: ShardId) -> i32 {
    i32::try_from(shard.get()).unwrap_or(i32::MAX)
}

/// Answers that a commit was not attempted, or did certainly not happen.
pub(super) fn unavailable(reason: impl Into<Arc<str>>) -> CommitOutcome {
    CommitOutcome::Unavailable { reason: reason.into() }
}
