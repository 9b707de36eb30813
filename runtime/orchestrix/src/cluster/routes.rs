//! Where a command goes. A decision file: it learns from views of the store and from what peers say of shards that
//! moved, and of two words about one shard the one with the higher epoch holds.
//!
//! A route may be wrong: the owner checks what it gets, and says where the shard went. So a command that follows such
//! words moves forward in epochs, and [`HOPS_MAX`] ends it where they lead nowhere.

use std::collections::BTreeMap;

use orchestrix_core::store::{ClusterView, ShardOwner};
use orchestrix_core::{Epoch, Incarnation, ShardId};

/// How often a command is sent on: to the owner that is believed in, from there to the one that it names, and once more
/// while that one hands over. Whoever needs more comes back with the same id.
pub(crate) const HOPS_MAX: u8 = 3;

/// Where a shard's command goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To this node's own aggregates.
    Own,
    /// To another node, which has the shard at this epoch or will have it.
    Peer { run: Incarnation, address: String, epoch: Epoch },
    /// Nobody is known who has it.
    Unknown,
}

/// What a peer says of a shard that it does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) shard: ShardId,
    pub(crate) owner: Incarnation,
    pub(crate) epoch: Epoch,
    /// Where that owner is, when the peer knows.
    pub(crate) address: Option<String>,
}

/// Who has a shard, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The owner, or the run that is about to claim the shard.
    run: Option<Incarnation>,
    /// The last epoch that is known.
    epoch: Epoch,
    is_coming: bool,
}

/// What one node knows about who has which shard.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    me: Incarnation,
    version: Option<u64>,
    owners: BTreeMap<ShardId, Entry>,
    /// The addresses of the view's members and of those who were named since.
    addresses: BTreeMap<Incarnation, String>,
}

impl Routes {
    pub(crate) fn new(me: Incarnation) -> Self {
        Self { me, version: None, owners: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    /// This node goes on as another run.
    pub(crate) fn become_run(&mut self, me: Incarnation) {
        self.me = me;
    }

    /// Says where a command goes that was sent on so many times already.
    pub(crate) fn route(&self, shard: ShardId, hops: u8) -> Route {
        let Some(Entry { run: Some(run), epoch, is_coming }) = self.owners.get(&shard).copied() else {
            return Route::Unknown;
        };
        let epoch = if is_coming { epoch.next() } else { epoch };
        if run == self.me {
            return Route::Own;
        }
        match self.addresses.get(&run) {
            Some(address) if hops < HOPS_MAX => Route::Peer { run, address: address.clone(), epoch },
            Some(_) | None => Route::Unknown,
        }
    }

    /// Returns what this node says of a shard that it does not have.
    pub(crate) fn moved(&self, shard: ShardId) -> Option<Moved> {
        match self.route(shard, 0) {
            Route::Peer { run, address, epoch } => {
                Some(Moved { shard, owner: run, epoch, address: Some(address) })
            }
            Route::Own | Route::Unknown => None,
        }
    }

    /// Takes in a view; one that is older than the last is left out.
    pub(crate) fn on_view(&mut self, view: &ClusterView) {
        if self.version.is_some_and(|version| view.version < version) {
            return;
        }
        self.version = Some(view.version);
        let addresses = view
            .members
            .iter()
            .filter_map(|member| Some((member.incarnation(), member.node.address.clone()?)));
        self.addresses = addresses.collect();
        for row in &view.shards {
            // What a peer said of a later epoch is newer than the view.
            if self.owners.get(&row.shard).is_none_or(|entry| row.epoch >= entry.epoch) {
                self.owners.insert(row.shard, self.entry(view, row));
            }
        }
    }

    fn entry(&self, view: &ClusterView, row: &ShardOwner) -> Entry {
        let epoch = row.epoch;
        // Whoever is not a member has left.
        if let Some(owner) = row.owner.filter(|owner| view.member(*owner).is_some()) {
            return Entry { run: Some(owner), epoch, is_coming: false };
        }
        // This node takes nothing before its claim.
        Entry { run: row.target.filter(|target| *target != self.me), epoch, is_coming: true }
    }

    /// Takes in what a peer says; tells whether it is news.
    pub(crate) fn on_moved(&mut self, moved: Moved) -> bool {
        let Moved { shard, owner, epoch, address } = moved;
        if self.owners.get(&shard).is_some_and(|entry| epoch <= entry.epoch) {
            return false;
        }
        if let Some(address) = address {
            self.addresses.insert(owner, address);
        }
        self.owners.insert(shard, Entry { run: Some(owner), epoch, is_coming: false });
        true
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::store::{Member, NodeRecord};
    use uuid::Uuid;

    use super::*;

    const SHARD: ShardId = ShardId::new(0);

    fn run(number: u128) -> Incarnation {
        Incarnation::from_uuid(Uuid::from_u128(number))
    }

    fn member(number: u128) -> Member {
        let node = NodeRecord {
            incarnation: run(number),
            name: String::new(),
            host: String::new(),
            boot_id: String::new(),
            pid_namespace: String::new(),
            pid: 0,
            pid_started: 0,
            application_version: String::new(),
            address: Some(format!("node-{number}")),
        };
        let lease_left = std::time::Duration::from_secs(1);
        Member { node, lease_left, draining: false, deposed: false, load: 0 }
    }

    fn view(version: u64, owner: Option<u128>, epoch: u64, target: Option<u128>) -> ClusterView {
        let (owner, target) = (owner.map(run), target.map(run));
        let shards = vec![ShardOwner { shard: SHARD, owner, epoch: Epoch::new(epoch), target }];
        ClusterView { version, members: vec![member(1), member(2), member(3)], shards }
    }

    fn peer(number: u128, epoch: u64) -> Route {
        Route::Peer { run: run(number), address: format!("node-{number}"), epoch: Epoch::new(epoch) }
    }

    fn moved(owner: u128, epoch: u64) -> Moved {
        let address = Some(format!("node-{owner}"));
        Moved { shard: SHARD, owner: run(owner), epoch: Epoch::new(epoch), address }
    }

    #[test]
    fn a_view_says_who_has_a_shard_or_is_about_to() {
        let mut routes = Routes::new(run(1));
        assert_eq!(routes.route(SHARD, 0), Route::Unknown);
        for (row, expected) in [
            ((Some(1), 4, None), Route::Own),
            ((Some(2), 5, Some(1)), peer(2, 5)),
            ((None, 5, Some(3)), peer(3, 6)),
            ((None, 6, None), Route::Unknown),
            // Whoever left has nothing any more.
            ((Some(9), 7, None), Route::Unknown),
            ((Some(9), 7, Some(2)), peer(2, 8)),
        ] {
            let version = routes.version.unwrap_or(0) + 1;
            routes.on_view(&view(version, row.0, row.1, row.2));
            assert_eq!(routes.route(SHARD, 0), expected, "{row:?}");
        }
    }

    #[test]
    fn the_higher_epoch_wins() {
        let mut routes = Routes::new(run(1));
        routes.on_view(&view(1, Some(2), 5, None));
        assert!(!routes.on_moved(moved(3, 4)) && !routes.on_moved(moved(3, 5)));
        assert_eq!(routes.route(SHARD, 0), peer(2, 5));
        assert!(routes.on_moved(moved(3, 7)));
        assert_eq!(routes.route(SHARD, 0), peer(3, 7));
        routes.on_view(&view(2, Some(2), 6, None));
        assert_eq!(routes.route(SHARD, 0), peer(3, 7), "that view was read before the move");
        routes.on_view(&view(3, Some(2), 8, None));
        assert_eq!(routes.route(SHARD, 0), peer(2, 8));
        routes.on_view(&view(2, Some(3), 9, None));
        assert_eq!(routes.route(SHARD, 0), peer(2, 8), "a view from before says nothing");
    }

    #[test]
    fn who_was_to_claim_a_shard_and_is_replaced_gets_nothing_more() {
        let mut routes = Routes::new(run(1));
        routes.on_view(&view(1, None, 5, Some(2)));
        assert_eq!(routes.route(SHARD, 0), peer(2, 6));
        routes.on_view(&view(2, None, 5, Some(3)));
        assert_eq!(routes.route(SHARD, 0), peer(3, 6));
        routes.on_view(&view(3, None, 5, Some(1)));
        assert_eq!(routes.route(SHARD, 0), Route::Unknown, "it is about to be claimed here");
    }

    #[test]
    fn a_command_is_sent_on_so_many_times_and_then_comes_back() {
        let mut routes = Routes::new(run(1));
        routes.on_view(&view(1, Some(2), 5, None));
        assert_eq!(routes.route(SHARD, HOPS_MAX - 1), peer(2, 5));
        assert_eq!(routes.route(SHARD, HOPS_MAX), Route::Unknown);
        routes.on_view(&view(2, Some(1), 6, None));
        assert_eq!(routes.route(SHARD, HOPS_MAX), Route::Own, "at home there is no need to send it");
    }

    #[test]
    fn a_node_names_others_and_never_itself() {
        let mut routes = Routes::new(run(1));
        routes.on_view(&view(1, Some(2), 5, None));
        assert_eq!(routes.moved(SHARD), Some(moved(2, 5)));
        routes.on_view(&view(2, Some(1), 6, None));
        assert_eq!(routes.moved(SHARD), None);
        routes.become_run(run(3));
        assert_eq!(routes.moved(SHARD).map(|moved| moved.owner), Some(run(1)));
        assert_eq!(routes.route(SHARD, 0), peer(1, 6));
    }
}
