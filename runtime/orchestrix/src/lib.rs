//! A runtime in which every aggregate is an actor that makes its events durable before it replies.

pub mod store;
