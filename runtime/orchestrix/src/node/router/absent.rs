//! Stands in for the router where the feature `cluster` is off: there is none.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::cluster::wire::{Outcome, Work};

/// There is no value of this type.
pub(crate) enum Router {}

impl Router {
    pub(super) async fn carry(&self, _: Work, _: Instant) -> Outcome {
        match *self {}
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match *self {}
    }

    pub(super) async fn drain(&self) {
        match *self {}
    }

    pub(super) async fn shutdown(&self, _: Duration) {
        match *self {}
    }
}
