//! The conformance suite: a check for each obligation of [`EventStore`], in its words.
//!
//! [`store_conformance!`](crate::store_conformance) turns the checks into tests of your crate. A check that fails
//! names the obligation in its path, for instance `memory::append::one_bad_commit_does_not_fail_its_neighbours`.
//! What the suite cannot see is what a power cut does: for that, kill the process or the machine.

mod bench;

pub mod append;
pub mod checkpoint;
pub mod cluster;
pub mod fence;
pub mod fidelity;
pub mod handover;
pub mod import;
pub mod lease;
pub mod life;
pub mod load;
pub mod order;
pub mod quarantine;
pub mod read;
pub mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use orchestrix_core::store::{BoxFuture, EventStore};

pub use bench::{Bench, Writer};

/// How long a check may take before it counts as hanging. Far above what any check needs on a slow machine.
const CHECK_TIME_MAX: Duration = Duration::from_mins(3);

/// Opens the store under test. Each check gets a factory, and so data, of its own.
pub trait StoreFactory: Send + Sync + 'static {
    /// Opens the store: empty at the first call, and with all that is stored at later ones.
    ///
    /// The store has at least two shards; eight are plenty. The suite closes one handle before it asks for the next. A store that cannot be opened panics with the reason.
    fn open(&self) -> BoxFuture<'_, Arc<dyn EventStore>>;
}

/// Runs one check on a runtime of its own with two threads. Called by what the macro writes.
///
/// # Panics
/// When the store breaks the obligation, or the check comes to no end.
pub fn run(factory: impl StoreFactory, check: impl AsyncFnOnce(Bench)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime of two threads starts");
    runtime.block_on(async {
        let whole = async { check(Bench::open(factory).await).await };
        tokio::time::timeout(CHECK_TIME_MAX, whole).await.expect("the check came to no end: the store hangs");
    });
}

/// Writes one test for each obligation of a store, in a module of this name.
///
/// The expression makes a [`StoreFactory`] and is evaluated once for each test.
///
/// ```
/// use std::sync::Arc;
/// use orchestrix_core::{EventStore, store::BoxFuture};
/// use orchestrix_testkit::{StoreFactory, store_conformance};
/// # async fn open_my_store(_: &std::path::Path) -> Arc<dyn EventStore> { unimplemented!() }
///
/// struct OnDisk(std::path::PathBuf);
///
/// impl StoreFactory for OnDisk {
///     fn open(&self) -> BoxFuture<'_, Arc<dyn EventStore>> {
///         Box::pin(open_my_store(&self.0))
///     }
/// }
///
/// store_conformance!(my_store, OnDisk(std::env::temp_dir().join("my-store")));
/// ```
#[macro_export]
macro_rules! store_conformance {
    ($module:ident, $factory:expr) => {
        $crate::store_conformance! { @checks $module, $factory,
            append: [
                a_commit_is_stored_together
                a_refused_commit_stores_nothing
                committed_events_survive_a_reopen
                versions_are_without_a_hole
                a_commit_that_expects_too_much_is_a_conflict
                a_commit_that_expects_too_little_is_a_conflict
                one_bad_commit_does_not_fail_its_neighbours
                commits_that_build_on_a_bad_one_fail_with_it
                commits_of_one_stream_take_effect_in_their_order
                answers_come_in_the_order_of_the_batch
                what_was_refused_never_appears
                an_empty_batch_is_answered_with_nothing
                a_large_batch_is_stored
                a_commit_of_many_events_is_stored
            ]
            order: [
                each_event_gets_the_next_seq_of_its_shard
                seqs_of_shards_are_independent
                a_refused_commit_takes_no_seq
                seqs_go_on_after_a_reopen
                a_reader_sees_seqs_in_order_only
            ]
            fence: [
                an_unclaimed_shard_is_fenced
                an_older_epoch_is_fenced
                a_future_epoch_is_fenced
                another_incarnation_at_the_same_epoch_is_fenced
                a_fenced_commit_does_not_fail_other_shards
                a_claim_raises_each_epoch_by_one
                claims_come_in_the_order_asked_for_with_their_heads
                claims_at_once_get_epochs_of_their_own
                ownership_survives_a_reopen
                confirm_tells_who_holds_a_shard
                after_a_claim_no_older_append_takes_effect
            ]
            lease: [
                a_claim_of_a_leased_shard_is_held_and_changes_nothing
                a_lease_does_not_stop_its_holder_or_what_is_free
                a_run_that_left_holds_nothing
                a_run_whose_lease_ended_is_deposed_by_a_claim
                a_lease_that_nobody_took_over_can_be_renewed
                a_run_that_never_joined_holds_no_lease
                leases_survive_a_reopen
            ]
            cluster: [
                a_view_tells_members_and_shards
                every_change_of_the_view_changes_its_version
                what_changes_nothing_leaves_the_version
                one_version_stands_for_one_view_while_it_changes
                a_run_that_is_draining_stays_so
            ]
            handover: [
                a_target_is_set_where_owner_and_epoch_fit
                a_target_that_is_the_owner_is_none
                targets_are_set_from_the_current_view_only
                one_of_many_planners_sets_its_targets
                a_release_takes_what_was_given_and_nothing_else
                what_nobody_owns_may_be_claimed_by_anybody
                after_a_release_no_append_takes_effect
                what_a_run_keeps_stays_appendable_while_others_come_and_go
            ]
            read: [
                a_read_sees_every_commit_answered_before
                a_read_never_sees_part_of_a_commit
                a_stream_without_events_reads_empty
                a_range_is_cut_at_both_ends
                a_range_is_cut_at_a_moment
                a_range_reads_backwards
                a_limit_cuts_at_the_end_of_the_answer
                a_shard_is_read_after_a_seq_up_to_a_limit
                streams_are_listed_in_the_order_of_their_ids
                streams_are_listed_page_by_page
                only_streams_of_the_type_are_listed
            ]
            load: [
                an_unknown_stream_loads_empty
                load_gives_the_snapshot_and_what_came_after
                load_gives_up_to_its_limit_and_the_true_version
                load_tells_a_quarantine
                load_many_answers_in_the_order_asked_for
            ]
            snapshot: [
                a_snapshot_is_replaced_by_a_newer_one
                a_snapshot_never_replaces_one_of_a_higher_version
                a_snapshot_of_a_deposed_owner_is_fenced
                snapshots_are_answered_one_by_one
                a_deleted_snapshot_is_gone
                snapshots_survive_a_reopen
            ]
            checkpoint: [
                an_unknown_consumer_has_seen_nothing
                a_checkpoint_never_moves_back
                a_checkpoint_of_a_deposed_owner_is_fenced
                consumers_and_shards_do_not_mix
                checkpoints_survive_a_reopen
            ]
            quarantine: [
                the_longest_standing_is_listed_first
                a_second_mark_replaces_the_first
                a_release_lifts_it_once
                it_survives_a_reopen
            ]
            fidelity: [
                every_field_comes_back
                every_byte_of_a_payload_comes_back
                a_payload_of_a_mebibyte_comes_back
                ids_come_back_and_do_not_run_together
                headers_and_receipts_come_back
                the_ends_of_every_range_come_back
            ]
            import: [
                heads_hold_no_effect_without_its_cause
                imported_events_are_stored_as_they_are
                an_import_may_come_event_by_event
                what_does_not_continue_the_log_stores_nothing
                only_an_empty_store_is_imported_into
                an_interrupted_import_is_taken_up_under_its_own_name
                epochs_go_on_above_the_imported_ones
                owners_of_the_former_life_are_fenced
                a_large_step_is_stored
            ]
            life: [
                the_store_describes_itself
                many_tasks_may_append_at_once
                one_of_many_writers_of_a_version_wins
                a_dropped_future_leaves_the_store_usable
                a_ping_is_answered
                stats_count_what_is_stored
                a_closed_store_is_unavailable
            ]
        }
    };
    (@checks $module:ident, $factory:expr, $($group:ident: [$($check:ident)*])*) => {
        mod $module {
            #[allow(unused_imports, reason = "the factory may name anything in scope where the macro is used")]
            use super::*;
            $(mod $group {
                #[allow(unused_imports, reason = "as above")]
                use super::*;
                $(#[test]
                fn $check() {
                    $crate::suite::run($factory, $crate::suite::$group::$check);
                })*
            })*
        }
    };
}

#[cfg(test)]
mod tests {
    /// A check that is written and not listed would be no check.
    #[test]
    fn every_check_is_listed_in_the_macro() {
        let listed = include_str!("mod.rs");
        let groups = [
            include_str!("append.rs"),
            include_str!("checkpoint.rs"),
            include_str!("cluster.rs"),
            include_str!("fence.rs"),
            include_str!("fidelity.rs"),
            include_str!("handover.rs"),
            include_str!("import.rs"),
            include_str!("lease.rs"),
            include_str!("life.rs"),
            include_str!("load.rs"),
            include_str!("order.rs"),
            include_str!("quarantine.rs"),
            include_str!("read.rs"),
            include_str!("snapshot.rs"),
        ];
        let lines = groups.iter().flat_map(|group| group.lines());
        let names = lines.filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next());
        let mut checks = 0;
        for name in names {
            assert!(listed.lines().any(|line| line.trim() == name), "{name} is not in the macro");
            checks += 1;
        }
        assert!(checks > 60, "only {checks} checks were found");
    }
}
