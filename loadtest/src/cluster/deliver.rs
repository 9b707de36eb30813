//! One command until it is done: sent to a node, and sent again with the same id to another one for as long as it takes,
//! as a client behind a load balancer would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use orchestrix::core::CommandId;
use tokio::time::{Instant, sleep, timeout};

use super::faults::Faults;
use super::fleet::{Fleet, Way};
use super::frame::{Answer, Ask, Kind};
use super::line::NoAnswer;
use crate::driver::{self, Ack};
use crate::scenario::Random;

/// How long a client tries before it gives a command up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How long it waits for one node before it turns to another one.
pub(crate) const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// The first wait before another attempt; each further one is twice as long, up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// The longest wait before another attempt.
const BACKOFF_MAX: Duration = Duration::from_millis(100);

/// What all clients of a run share.
pub(super) struct Course {
    /// The nodes.
    pub(super) fleet: Fleet,
    /// What is being done to them.
    pub(super) faults: Faults,
    /// The shard of each counter, by its number.
    pub(super) shards: Vec<u32>,
    /// The highest version that was acknowledged so far, by counter: what is asked for afterwards must be beyond it.
    pub(super) floors: Vec<AtomicU64>,
    /// Which node a command is sent to.
    pub(super) way: Way,
    /// Operations answered so far.
    pub(super) live: Arc<AtomicU64>,
    /// No operation is begun any more.
    pub(super) stopped: AtomicBool,
}

/// What is to be done, and to which counter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Adds an amount.
    Add {
        /// Stays the same in every attempt.
        id: CommandId,
        /// The counter.
        aggregate: u32,
        /// How much.
        amount: u64,
    },
    /// Reads strongly.
    Read {
        /// The counter.
        aggregate: u32,
    },
}

/// What came of an order.
#[derive(Debug)]
pub(super) struct Delivered {
    /// How it ended.
    pub(super) answer: driver::Answer,
    /// Attempts besides the first.
    pub(super) retries: u64,
    /// Errors that a client heard and that no fault excuses.
    pub(super) failures: u64,
    /// Errors that a client heard while a fault lasted.
    pub(super) excused: u64,
    /// Whether the answer is older than one that was given before the order was.
    pub(super) stale: bool,
    /// Whether the command was recognised as one that was done before.
    pub(super) recognised: bool,
    /// The first failure that nothing excuses.
    pub(super) why: Option<String>,
}

/// How one attempt ended without being the end.
enum Missed {
    /// Nothing was sent.
    NotSent,
    /// A client hears an error, and may try again.
    Failed(driver::Answer),
    /// A client hears an error that will not get better.
    Final(driver::Answer),
}

impl Order {
    /// Returns the number of the counter.
    pub(super) fn aggregate(self) -> u32 {
        match self {
            Self::Add { aggregate, .. } | Self::Read { aggregate } => aggregate,
        }
    }

    fn ask(self) -> Ask {
        match self {
            Self::Add { id, aggregate, amount } => {
                Ask::Add { command: *id.as_uuid().as_bytes(), aggregate, amount }
            }
            Self::Read { aggregate } => Ask::Read { aggregate },
        }
    }
}

impl Course {
    /// Carries an order out, whatever it takes.
    pub(super) async fn deliver(&self, order: Order, random: &mut Random) -> Delivered {
        let floor = self.floors[order.aggregate() as usize].load(Ordering::Acquire);
        let deadline = Instant::now() + DEADLINE;
        let mut delivered = Delivered::new();
        let mut backoff = BACKOFF_MIN;
        loop {
            let before = self.faults.now();
            match self.attempt(order, random).await {
                Ok(answer) => return self.arrived(order, floor, answer, delivered),
                Err(Missed::NotSent) => {}
                Err(Missed::Failed(answer)) => delivered.missed(answer, self.faults.any_since(before)),
                Err(Missed::Final(answer)) => {
                    delivered.missed(answer, self.faults.any_since(before));
                    return delivered;
                }
            }
            if Instant::now() + backoff > deadline {
                delivered.give_up();
                return delivered;
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            delivered.retries += 1;
        }
    }

    async fn attempt(&self, order: Order, random: &mut Random) -> Result<Answer, Missed> {
        let shard = self.shards[order.aggregate() as usize];
        let line = self.fleet.choose(self.way, shard, random).ok_or(Missed::NotSent)?;
        let unknown = |why: &str| Missed::Failed(driver::Answer::Unknown(why.to_owned()));
        let answer = timeout(ATTEMPT_MAX, line.ask(order.ask())).await;
        let answer = answer.map_err(|_| unknown("a node did not answer in time"))?;
        match answer {
            Err(NoAnswer::NotSent) => Err(Missed::NotSent),
            Err(NoAnswer::CutOff) => Err(unknown("a connection ended under a command")),
            Ok(Answer::Unknown(why)) => Err(unknown(&why)),
            Ok(Answer::NotAttempted { kind, reason }) => Err(match kind {
                Kind::Overloaded => Missed::Failed(driver::Answer::Overloaded),
                Kind::Passing => Missed::Failed(driver::Answer::Failed(reason)),
                Kind::Final => Missed::Final(driver::Answer::Failed(reason)),
            }),
            Ok(answer @ (Answer::Added { .. } | Answer::Read { .. } | Answer::Owned(_))) => Ok(answer),
        }
    }

    fn arrived(&self, order: Order, floor: u64, answer: Answer, mut delivered: Delivered) -> Delivered {
        delivered.answer = match (order, answer) {
            (Order::Add { id, aggregate, .. }, Answer::Added { count, version, duplicate }) => {
                delivered.recognised = duplicate;
                delivered.stale = version <= floor;
                self.floors[aggregate as usize].fetch_max(version, Ordering::AcqRel);
                let ack = Ack { id, aggregate, version: version as u32 };
                // That it was done before is no fault: a client sends it again, and so does a node that sends it on.
                // The log tells whether it was done once.
                driver::Answer::Added { ack, reply: count, duplicate: false }
            }
            (Order::Read { .. }, Answer::Read { count }) => {
                delivered.stale = count < floor;
                driver::Answer::Read
            }
            (_, other) => driver::Answer::Failed(format!("a node answered something else: {other:?}")),
        };
        delivered
    }
}

impl Delivered {
    fn new() -> Self {
        let answer = driver::Answer::Failed("no node was ready".to_owned());
        Self { answer, retries: 0, failures: 0, excused: 0, stale: false, recognised: false, why: None }
    }

    fn missed(&mut self, answer: driver::Answer, excused: bool) {
        if excused {
            self.excused += 1;
        } else {
            self.failures += 1;
            self.why.get_or_insert_with(|| format!("{answer:?}"));
        }
        self.answer = answer;
    }

    /// A client that gives up has failed, whatever the reason.
    fn give_up(&mut self) {
        self.failures += 1;
        self.why.get_or_insert_with(|| format!("given up after {} s: {:?}", DEADLINE.as_secs(), self.answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course() -> Course {
        Course {
            fleet: Fleet::new(2, 1),
            faults: Faults::default(),
            shards: vec![0],
            floors: vec![AtomicU64::new(5)],
            way: Way::Any,
            live: Arc::default(),
            stopped: AtomicBool::new(false),
        }
    }

    fn arrived(order: Order, answer: Answer) -> Delivered {
        course().arrived(order, 5, answer, Delivered::new())
    }

    fn add() -> Order {
        Order::Add { id: CommandId::fresh(), aggregate: 0, amount: 1 }
    }

    fn added(version: u64, duplicate: bool) -> Answer {
        Answer::Added { count: version, version, duplicate }
    }

    #[test]
    fn an_answer_from_before_an_earlier_one_is_stale() {
        assert!(!arrived(add(), added(6, false)).stale);
        assert!(arrived(add(), added(5, false)).stale, "another command has that version");
        assert!(!arrived(Order::Read { aggregate: 0 }, Answer::Read { count: 5 }).stale);
        assert!(arrived(Order::Read { aggregate: 0 }, Answer::Read { count: 4 }).stale);
    }

    #[test]
    fn a_command_that_a_node_sent_on_twice_is_no_wrong_reply() {
        let delivered = arrived(add(), added(6, true));
        assert!(delivered.recognised);
        assert!(matches!(delivered.answer, driver::Answer::Added { reply: 6, duplicate: false, .. }));
    }

    #[test]
    fn an_error_counts_unless_a_fault_excuses_it() {
        let mut delivered = Delivered::new();
        delivered.missed(driver::Answer::Overloaded, true);
        assert_eq!((delivered.failures, delivered.excused), (0, 1));
        delivered.missed(driver::Answer::Overloaded, false);
        assert_eq!((delivered.failures, delivered.excused), (1, 1));
        delivered.give_up();
        assert_eq!(delivered.failures, 2);
    }
}
