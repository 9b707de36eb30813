//! What callers write down while they run: outcomes, latencies, acknowledgements.

use orchestrix::core::CommandId;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

use super::Window;
use super::caller::Answer;
use crate::histogram::Latencies;

/// A promise of the runtime that the check holds it to: this command's event is in the log, at this place, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ack {
    /// The command.
    pub(crate) id: CommandId,
    /// The number of the aggregate.
    pub(crate) aggregate: u32,
    /// The version that the answer told.
    pub(crate) version: u32,
}

/// How operations that were due in the measured time ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outcomes {
    /// Commands and reads that were answered with success.
    pub(crate) done: u64,
    /// Commands that the domain refused. The scenario has no refusal, so the compiler knows that these are none.
    pub(crate) refused: u64,
    /// Commands of which nobody knows.
    pub(crate) unknown: u64,
    /// Operations turned away because a bound was hit.
    pub(crate) overloaded: u64,
    /// Operations that were not attempted for another reason.
    pub(crate) failed: u64,
}

impl Outcomes {
    /// Returns how many operations there were.
    pub(crate) fn all(&self) -> u64 {
        self.done + self.refused + self.unknown + self.overloaded + self.failed
    }

    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.overloaded += other.overloaded;
        self.failed += other.failed;
    }
}

/// When an operation was due, sent and answered, as far as records care.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// From the due time to the answer.
    pub(crate) since_due: Duration,
    /// From sending to the answer.
    pub(crate) since_sent: Duration,
    /// Whether it was due in the measured time.
    pub(crate) counts: bool,
    /// Whether it was answered in the measured time.
    pub(crate) answered_in_window: bool,
}

impl Timing {
    /// Of an operation of a closed loop, which is due when it is sent.
    pub(crate) fn closed(sent: Instant, answered: Instant, window: Window) -> Self {
        let took = answered - sent;
        let (counts, answered_in_window) = (window.contains(sent), window.contains(answered));
        Self { since_due: took, since_sent: took, counts, answered_in_window }
    }
}

/// Acknowledgements on one page of a book. A full page is put aside and never moved: a book that grew by copying would
/// touch three times the memory, on the time of what is measured.
const ACKS_PAGE: usize = 512;

/// One caller's book, or all of them merged.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// From due to done, for commands and reads.
    pub(crate) latency: Latencies,
    /// From sending to the refusal, for operations turned away.
    pub(crate) refusal: Latencies,
    /// From due to sent, in an open loop: what the driver itself was late.
    pub(crate) lateness: Latencies,
    /// By outcome.
    pub(crate) outcomes: Outcomes,
    /// Operations of an open loop that were due and that the driver did not come to send.
    pub(crate) unsent: u64,
    /// Commands done in the measured time, whenever they were due.
    pub(crate) commands_in_window: u64,
    /// Reads done in the measured time, whenever they were due.
    pub(crate) reads_in_window: u64,
    /// Everything that was acknowledged, also outside the measured time.
    pub(crate) acks: Vec<Ack>,
    /// Full pages of a caller's own book; a merged one has them all in `acks`.
    full: Vec<Vec<Ack>>,
    /// Replies that do not fit the version they came with, or that claim to repeat an earlier answer.
    pub(crate) wrong_replies: u64,
    /// Why the first operation failed that failed.
    pub(crate) first_failure: Option<String>,
}

impl Record {
    /// Opens the book of one of `callers` callers.
    pub(crate) fn new(callers: usize) -> Self {
        let latencies = Latencies::new(callers);
        Self {
            latency: latencies.clone(),
            refusal: latencies.clone(),
            lateness: latencies,
            outcomes: Outcomes::default(),
            unsent: 0,
            commands_in_window: 0,
            reads_in_window: 0,
            acks: Vec::with_capacity(ACKS_PAGE),
            full: Vec::new(),
            wrong_replies: 0,
            first_failure: None,
        }
    }

    fn note(&mut self, ack: Ack) {
        if self.acks.len() >= ACKS_PAGE {
            self.full.push(std::mem::replace(&mut self.acks, Vec::with_capacity(ACKS_PAGE)));
        }
        self.acks.push(ack);
    }

    /// Writes down one answer.
    pub(crate) fn write(&mut self, answer: Answer, timing: Timing) {
        if let Answer::Added { ack, reply, duplicate } = answer {
            self.note(ack);
            self.wrong_replies += u64::from(duplicate || reply != u64::from(ack.version));
            self.commands_in_window += u64::from(timing.answered_in_window);
        } else if matches!(answer, Answer::Read) {
            self.reads_in_window += u64::from(timing.answered_in_window);
        }
        if timing.counts {
            self.count(answer, timing);
        }
    }

    fn count(&mut self, answer: Answer, timing: Timing) {
        match answer {
            Answer::Added { .. } | Answer::Read => {
                self.outcomes.done += 1;
                self.latency.record(timing.since_due);
            }
            Answer::Overloaded => {
                self.outcomes.overloaded += 1;
                self.refusal.record(timing.since_sent);
            }
            Answer::Unknown(reason) => {
                self.outcomes.unknown += 1;
                self.first_failure.get_or_insert(reason);
            }
            Answer::Failed(reason) => {
                self.outcomes.failed += 1;
                self.first_failure.get_or_insert(reason);
            }
        }
    }

    /// Adds another book of the same run.
    pub(crate) fn merge(&mut self, other: Self) {
        self.latency.merge(&other.latency);
        self.refusal.merge(&other.refusal);
        self.lateness.merge(&other.lateness);
        self.outcomes.add(other.outcomes);
        self.unsent += other.unsent;
        self.commands_in_window += other.commands_in_window;
        self.reads_in_window += other.reads_in_window;
        self.keep_acks_of(other);
    }

    /// Takes over only what the check needs: what ran before the measured time does not count.
    pub(crate) fn keep_acks_of(&mut self, mut other: Self) {
        self.acks.extend(other.full.drain(..).flatten());
        self.acks.append(&mut other.acks);
        self.wrong_replies += other.wrong_replies;
        if self.first_failure.is_none() {
            self.first_failure = other.first_failure;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn timing(counts: bool, answered_in_window: bool) -> Timing {
        let since_sent = Duration::from_micros(10);
        Timing { since_due: Duration::from_micros(30), since_sent, counts, answered_in_window }
    }

    fn added(version: u32, reply: u64) -> Answer {
        let id = CommandId::from_uuid(Uuid::from_u128(u128::from(version)));
        Answer::Added { ack: Ack { id, aggregate: 0, version }, reply, duplicate: false }
    }

    #[test]
    fn an_answer_outside_the_measured_time_is_kept_for_the_check_and_not_counted() {
        let mut record = Record::new(1);
        record.write(added(1, 1), timing(false, false));
        assert_eq!((record.acks.len(), record.commands_in_window, record.outcomes.all()), (1, 0, 0));
        record.write(added(2, 2), timing(true, true));
        assert_eq!((record.acks.len(), record.commands_in_window, record.outcomes.done), (2, 1, 1));
    }

    #[test]
    fn done_counts_from_the_due_time_and_a_refusal_from_sending() {
        let mut record = Record::new(1);
        record.write(added(1, 1), timing(true, true));
        record.write(Answer::Overloaded, timing(true, true));
        assert!((record.latency.quantile_us(0.5) - 30.0).abs() < 0.1);
        assert!((record.refusal.quantile_us(0.5) - 10.0).abs() < 0.1);
        assert_eq!(record.outcomes, Outcomes { done: 1, overloaded: 1, ..Outcomes::default() });
    }

    #[test]
    fn a_reply_that_does_not_fit_its_version_is_noticed() {
        let mut record = Record::new(1);
        record.write(added(2, 3), timing(true, true));
        assert_eq!(record.wrong_replies, 1);
    }

    #[test]
    fn merging_adds_up_and_keeps_the_first_reason() {
        let mut first = Record::new(1);
        first.write(Answer::Failed("the disk is full".into()), timing(true, true));
        let mut second = Record::new(1);
        second.write(Answer::Unknown("cut off".into()), timing(true, true));
        second.write(added(1, 1), timing(true, true));
        first.merge(second);
        assert_eq!(first.outcomes, Outcomes { done: 1, unknown: 1, failed: 1, ..Outcomes::default() });
        assert_eq!(first.first_failure.as_deref(), Some("the disk is full"));
        assert_eq!(first.acks.len(), 1);
    }
}
