//! A buffer per thread to encode into, so that what is kept of it has its exact size.
//!
//! A `Vec` that grows while a value is written ends with up to twice the bytes that it holds, and moves them on the
//! way. In a log that keeps every event, that is half of the memory and a tenth of a command.

use std::cell::Cell;

/// A larger buffer is given back after use.
const BYTES_KEPT: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends an empty buffer. It is taken out of its place meanwhile, since a user's `Serialize` may encode something
/// itself; that then gets a buffer of its own.
pub(crate) fn with<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = BUFFER.take();
    buffer.clear();
    let written = write(&mut buffer);
    if buffer.capacity() <= BYTES_KEPT {
        BUFFER.set(buffer);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_within_something_else_has_a_buffer_of_its_own() {
        let outer = with(|outer| {
            outer.extend_from_slice(b"out");
            assert_eq!(with(|inner| (inner.len(), inner.extend_from_slice(b"in"))).0, 0);
            outer.extend_from_slice(b"er");
            outer.as_slice().to_vec()
        });
        assert_eq!((outer.as_slice(), outer.capacity()), (&b"outer"[..], 5));
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        with(|buffer| buffer.resize(BYTES_KEPT + 1, 0));
        assert!(with(|buffer| buffer.capacity()) <= BYTES_KEPT);
    }
}
