//! What a night shift needs: backups of a log and their way back, and an archive for what is old.
//!
//! | module | what |
//! |---|---|
//! | [`backup`] | an online export of any store, its verification, and a restore up to a moment |
//! | [`archive`] | moves old events of a PostgreSQL database aside, and back |
//! | `shard_check` ◇ | what the events of a shard must look like, one after the other |

pub mod archive;
pub mod backup;
pub(crate) mod shard_check;
