//! Carries out what was planned: one hand-over to SQLite for a usual batch, and an honest answer when it fails.

use orchestrix_core::StreamId;
use orchestrix_core::store::{Batch, Commit, CommitOutcome};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Executor, Row};

use super::error::{code, primary_code};
use super::place::number;
use super::plan::{Placed, Plan, Slots, unavailable};
use super::rows::{bind, bind_event, bind_stream};
use super::slices::bind_entries;
use super::statements::{
    Along, ROWS_MAX, STREAM_COLUMN_COUNT, entries_for, insert_events, insert_streams, insert_together,
    size_for,
};
use super::tail::{Late, Slice};
use super::writer::{Writer, is_certainly_undone};

/// How an attempt on a batch ended.
enum Attempt {
    /// Every commit has its answer.
    Answered(Vec<CommitOutcome>),
    /// Nothing was stored, since what the writer knew was wrong or one of the rows cannot be stored. By now the writer
    /// has read afresh.
    Refuted(String),
}

impl Writer {
    /// Appends a batch and answers for each of its commits.
    pub(super) async fn append(&mut self, batch: Batch) -> Vec<CommitOutcome> {
        match self.attempt(&batch).await {
            Attempt::Answered(outcomes) => outcomes,
            Attempt::Refuted(_) => self.append_one_by_one(batch).await,
        }
    }

    /// Gives each commit a transaction of its own, so that a bad one cannot fail its neighbours.
    async fn append_one_by_one(&mut self, batch: Batch) -> Vec<CommitOutcome> {
        let mut outcomes = Vec::with_capacity(batch.commits.len());
        for commit in batch.commits {
            let alone = Batch { owner: batch.owner, commits: vec![commit] };
            match self.attempt(&alone).await {
                Attempt::Answered(answers) => outcomes.extend(answers),
                Attempt::Refuted(reason) => outcomes.push(unavailable(reason)),
            }
        }
        outcomes
    }

    async fn attempt(&mut self, batch: &Batch) -> Attempt {
        let not_attempted = |error: sqlx::Error| {
            let refused = unavailable(error.to_string());
            Attempt::Answered(vec![refused; batch.commits.len()])
        };
        if let Err(error) = self.begin().await {
            return not_attempted(error);
        }
        let mut slots = Slots::gather(&batch.commits, &mut self.ledger);
        if let Err(error) = self.find_heads(&mut slots).await {
            return not_attempted(error);
        }
        let plan = Plan::make(batch, &slots, &self.ledger);
        if plan.placed.is_empty() {
            self.done();
            return Attempt::Answered(plan.outcomes);
        }
        let slice = self.tail().slice(plan.events, entries_for(size_for(plan.events)));
        match self.store(batch, &plan, &slice).await {
            Ok(stored) if stored.events == plan.events as u64 => {
                let outcomes = plan.outcomes.clone();
                self.take_in(batch, plan, slots, slice, stored.entries).await;
                self.done();
                Attempt::Answered(outcomes)
            }
            Ok(stored) => self.resolve_guard(plan, stored.events).await,
            Err(error) => self.resolve_error(batch, plan, error).await,
        }
    }

    /// Knows from here on what was stored, before anybody is answered: whoever reads after an answer finds it.
    async fn take_in(&mut self, batch: &Batch, plan: Plan, slots: Slots, slice: Slice, entries: u64) {
        if entries < slice.rows.len() as u64 {
            self.explain_entries(&slice.rows).await;
        }
        let late: Vec<Late> = event_rows(batch, &plan).map(|row| row.late()).collect();
        self.ledger.take_in(plan, slots.streams);
        let heads = self.ledger.heads();
        self.tail().take_in(late.into_iter(), &heads, slice);
    }

    /// The guard kept the rows out: ownership changed behind the writer's back.
    async fn resolve_guard(&mut self, plan: Plan, stored: u64) -> Attempt {
        let reason = format!(
            "{stored} of {} events were stored: the ownership of the shards has changed",
            plan.events
        );
        tracing::warn!(reason, "another process changed the ownership of this database");
        match self.settle().await {
            Ok(()) => Attempt::Refuted(reason),
            Err(error) => Attempt::Answered(plan.answer_placed(&unavailable(format!("{reason}; {error}")))),
        }
    }

    /// Finds out what became of a failed write, by asking the database where the error itself does not tell.
    async fn resolve_error(&mut self, batch: &Batch, plan: Plan, error: sqlx::Error) -> Attempt {
        let reason = error.to_string();
        tracing::warn!(reason, commits = plan.placed.len(), "an append failed");
        let settled = self.settle().await;
        if matches!(primary_code(&error), Some(code::CONSTRAINT | code::TOOBIG)) && settled.is_ok() {
            return Attempt::Refuted(reason);
        }
        if is_certainly_undone(&error) {
            return Attempt::Answered(plan.answer_placed(&unavailable(reason)));
        }
        let stored = match settled {
            Ok(()) => self.is_stored(batch, plan.placed[0]).await,
            Err(error) => Err(error),
        };
        Attempt::Answered(match stored {
            Ok(true) => plan.outcomes,
            Ok(false) => plan.answer_placed(&unavailable(reason)),
            Err(_) => plan.answer_placed(&CommitOutcome::Unknown { reason: reason.into() }),
        })
    }

    /// Looks whether a commit is stored at its place; its batch is one transaction, so this tells for all of it.
    async fn is_stored(&mut self, batch: &Batch, placed: Placed) -> Result<bool, sqlx::Error> {
        let commit = &batch.commits[placed.commit];
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, placed.position);
        bind(&mut arguments, placed.stream);
        bind(&mut arguments, number(commit.expected.next().get()));
        bind(&mut arguments, &commit.command_id.as_uuid().as_bytes()[..]);
        let text =
            "SELECT count(*) FROM events WHERE pos = ? AND stream = ? AND version = ? AND command_id = ?";
        let count: i64 = sqlx::query_scalar_with(text, arguments).fetch_one(&mut self.connection).await?;
        Ok(count == 1)
    }

    /// Stores what was planned, and a slice of the index, in one transaction, and returns how much: all, or none.
    async fn store(&mut self, batch: &Batch, plan: &Plan, slice: &Slice) -> Result<Stored, sqlx::Error> {
        let rows: Vec<EventRow<'_>> = event_rows(batch, plan).collect();
        let size = size_for(rows.len());
        // A new stream has an event, so there are never more new streams than rows.
        if rows.len() > ROWS_MAX || slice.completes.is_some() || slice.rows.len() > entries_for(size) {
            return self.store_in_parts(plan, &rows, slice).await;
        }
        let generation = self.ledger.generation;
        let along = match (plan.new_streams.is_empty(), slice.rows.is_empty()) {
            (true, true) => return self.store_alone(&rows).await,
            (false, true) => Along::Streams,
            (true, false) => Along::Entries,
            (false, false) => Along::StreamsAndEntries,
        };
        let mut arguments = SqliteArguments::default();
        if along != Along::Entries {
            bind_streams(&mut arguments, generation, &plan.new_streams, size);
        }
        if along != Along::Streams {
            bind_entries(&mut arguments, generation, &slice.rows, entries_for(size));
        }
        bind_events(&mut arguments, generation, &rows);
        let query = sqlx::query_with(insert_together(along, size), arguments);
        let answers = query.fetch_all(&mut self.connection).await?;
        let count = |answer: Option<&SqliteRow>| {
            answer.ok_or(sqlx::Error::RowNotFound)?.try_get::<i64, _>(0).map(|count| count as u64)
        };
        let entries = if along == Along::Streams { 0 } else { count(answers.first())? };
        Ok(Stored { events: count(answers.last())?, entries })
    }

    /// Stores events alone: one statement is a transaction by itself.
    async fn store_alone(&mut self, rows: &[EventRow<'_>]) -> Result<Stored, sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        bind_events(&mut arguments, self.ledger.generation, rows);
        let query = sqlx::query_with(insert_events(rows.len()), arguments);
        let events = query.execute(&mut self.connection).await?.rows_affected();
        Ok(Stored { events, entries: 0 })
    }

    /// Stores more than one statement takes, or the end of a generation.
    async fn store_in_parts(
        &mut self,
        plan: &Plan,
        rows: &[EventRow<'_>],
        slice: &Slice,
    ) -> Result<Stored, sqlx::Error> {
        self.connection.execute("BEGIN IMMEDIATE").await?;
        for part in plan.new_streams.chunks(ROWS_MAX) {
            let mut arguments = SqliteArguments::default();
            bind_streams(&mut arguments, self.ledger.generation, part, part.len());
            sqlx::query_with(insert_streams(part.len()), arguments).execute(&mut self.connection).await?;
        }
        let entries = self.write_slice(slice).await?;
        let mut events = 0;
        for part in rows.chunks(ROWS_MAX) {
            let mut arguments = SqliteArguments::default();
            bind_events(&mut arguments, self.ledger.generation, part);
            let query = sqlx::query_with(insert_events(part.len()), arguments);
            events += query.execute(&mut self.connection).await?.rows_affected();
        }
        self.connection.execute("COMMIT").await?;
        Ok(Stored { events, entries })
    }
}

/// How many rows were stored.
struct Stored {
    events: u64,
    entries: u64,
}

/// One event of a batch on its way into a row.
struct EventRow<'a> {
    placed: &'a Placed,
    commit: &'a Commit,
    /// Its place in its commit.
    at: usize,
}

impl EventRow<'_> {
    fn late(&self) -> Late {
        let Self { placed, commit, at } = self;
        let version = number(commit.expected.get() + *at as u64 + 1);
        Late { stream: placed.stream, version, position: placed.position + *at as i64 }
    }
}

/// Goes through the events that a plan stores, in the order of their rows.
fn event_rows<'a>(batch: &'a Batch, plan: &'a Plan) -> impl Iterator<Item = EventRow<'a>> {
    plan.placed.iter().flat_map(|placed| {
        let commit = &batch.commits[placed.commit];
        (0..commit.events.len()).map(move |at| EventRow { placed, commit, at })
    })
}

/// Binds the guard and the rows of an insert of events; the rows that it could also take stay unbound.
fn bind_events(arguments: &mut SqliteArguments, generation: i64, rows: &[EventRow<'_>]) {
    bind(arguments, generation);
    for row in rows {
        bind_event(arguments, row.placed, row.commit, row.at);
    }
}

/// Binds the guard and `size` rows of an insert of streams, those that are not needed as NULL.
fn bind_streams(arguments: &mut SqliteArguments, generation: i64, streams: &[(i64, StreamId)], size: usize) {
    bind(arguments, generation);
    for (number, stream) in streams {
        bind_stream(arguments, *number, stream);
    }
    for _ in streams.len()..size {
        (0..STREAM_COLUMN_COUNT).for_each(|_| bind(arguments, None::<i64>));
    }
}
