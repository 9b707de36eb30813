//! The test kit tested: what it lets pass, what it catches, and where it points.
#![allow(missing_docs, reason = "nobody uses a test binary as a library")]

mod broken;
mod given;
