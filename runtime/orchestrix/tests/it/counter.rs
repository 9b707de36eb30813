//! The aggregate that the stories here are about: a counter that can be told to misbehave.

use orchestrix::core::prelude::*;

aggregate_id!(
    /// Names a counter.
    pub struct CounterId, "counter id"
);

/// Makes a counter's id.
pub fn counter(name: &str) -> CounterId {
    CounterId::from_key(name).expect("a good id")
}

#[derive(Clone, Debug, PartialEq, Event)]
pub enum CounterEvent {
    #[event("counter.added")]
    Added { amount: u64 },
    /// `apply` panics on it as often as [`curse`] says.
    #[event("counter.cursed")]
    Cursed { amount: u64 },
}

/// How often `apply` still panics on a cursed event, by its amount: stories use amounts of their own.
static CURSES: std::sync::Mutex<std::collections::BTreeMap<u64, u32>> =
    std::sync::Mutex::new(std::collections::BTreeMap::new());

/// Makes `apply` panic on the next `times` cursed events of an amount.
pub fn curse(amount: u64, times: u32) {
    CURSES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(amount, times);
}

fn suffer_curse(amount: u64) {
    let mut curses = CURSES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(times) = curses.get_mut(&amount).filter(|times| **times > 0) {
        *times -= 1;
        drop(curses);
        panic!("a cursed event");
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    pub total: u64,
    pub events: u64,
}

impl Aggregate for Counter {
    const TYPE: AggregateType = aggregate_type!("counter");
    type Id = CounterId;
    type Event = CounterEvent;

    fn commands(list: &mut impl CommandList<Self>) {
        list.add::<Add>().add::<Peek>().add::<Panic>().add::<Curse>();
    }

    fn apply(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Added { amount } => self.total += amount,
            CounterEvent::Cursed { amount } => {
                // Half applied when it panics, so that a state that went on with it would be wrong.
                self.total += amount;
                suffer_curse(*amount);
            }
        }
        self.events += 1;
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum AddRefusal {
    #[error("{total} is over the limit of {limit}")]
    OverLimit { total: u64, limit: u64 },
}

/// Adds; refused over a limit. Replies with the new total.
#[derive(Clone, Debug, Serialize, Deserialize, Command)]
#[command("counter.add", reply = u64, refusal = AddRefusal)]
pub struct Add {
    pub amount: u64,
    pub limit: u64,
}

impl Add {
    pub fn new(amount: u64) -> Self {
        Self { amount, limit: u64::MAX }
    }
}

impl Handle<Add> for Counter {
    fn handle(&self, command: &Add, _: &Context) -> Decision<Self, Add> {
        let total = self.total + command.amount;
        if total > command.limit {
            return Err(AddRefusal::OverLimit { total: self.total, limit: command.limit });
        }
        emit(CounterEvent::Added { amount: command.amount }).reply(total)
    }
}

/// Stores nothing and replies with the total.
#[derive(Clone, Debug, Serialize, Deserialize, Command)]
#[command("counter.peek", reply = u64)]
pub struct Peek {}

impl Handle<Peek> for Counter {
    fn handle(&self, _: &Peek, _: &Context) -> Decision<Self, Peek> {
        nothing().reply(self.total)
    }
}

/// Panics in `handle` as often as it is told to, counted per name over all counters of the process.
#[derive(Clone, Debug, Serialize, Deserialize, Command)]
#[command("counter.panic", reply = u64)]
pub struct Panic {
    pub name: String,
    pub times: u32,
}

static PANICKED: std::sync::Mutex<std::collections::BTreeMap<String, u32>> =
    std::sync::Mutex::new(std::collections::BTreeMap::new());

impl Handle<Panic> for Counter {
    fn handle(&self, command: &Panic, _: &Context) -> Decision<Self, Panic> {
        let mut panicked = PANICKED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let times = panicked.entry(command.name.clone()).or_default();
        if *times < command.times {
            *times += 1;
            drop(panicked);
            panic!("told to panic");
        }
        emit(CounterEvent::Added { amount: 1 }).reply(self.total + 1)
    }
}

/// Emits a cursed event.
#[derive(Clone, Debug, Serialize, Deserialize, Command)]
#[command("counter.curse", reply = u64)]
pub struct Curse {
    pub amount: u64,
}

impl Handle<Curse> for Counter {
    fn handle(&self, command: &Curse, _: &Context) -> Decision<Self, Curse> {
        emit(CounterEvent::Cursed { amount: command.amount }).reply(self.total + command.amount)
    }
}
