//! Whether two values are the same, by what serde sees of them: an aggregate's state need not be `PartialEq`.

use orchestrix_core::codec::bincode;
use serde::Serialize;
use serde_json::Value;

/// Tells whether two values are the same. Hash maps and hash sets have no order, so lists count as bags.
///
/// A value without a JSON form (a map whose keys are no texts) is compared by the bytes of its bincode, as a bag.
pub(super) fn same<T: Serialize>(expected: &T, actual: &T) -> bool {
    match (serde_json::to_value(expected), serde_json::to_value(actual)) {
        (Ok(expected), Ok(actual)) => expected == actual || unordered(expected) == unordered(actual),
        _ => bag_of_bytes(expected) == bag_of_bytes(actual),
    }
}

/// Tells whether two stored forms are the same: equal bytes, or the same JSON with maps in another order.
pub(super) fn same_bytes(expected: &[u8], actual: &[u8]) -> bool {
    expected == actual
        || match (serde_json::from_slice(expected), serde_json::from_slice(actual)) {
            (Ok(expected), Ok(actual)) => unordered(expected) == unordered(actual),
            _ => sorted(expected.to_vec()) == sorted(actual.to_vec()),
        }
}

/// Shows a value to a person.
pub(super) fn show<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string_pretty(value);
    text.unwrap_or_else(|error| {
        format!("(no JSON form: {error}; {} bytes of bincode)", bincode::size_of(value))
    })
}

/// Shows what was expected and what was found.
pub(super) fn difference<T: Serialize>(expected: &T, actual: &T) -> String {
    format!("expected: {}\n  actual: {}", show(expected), show(actual))
}

fn unordered(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(unordered).collect();
            items.sort_by_cached_key(Value::to_string);
            Value::Array(items)
        }
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, unordered(value))).collect())
        }
        plain => plain,
    }
}

fn bag_of_bytes<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    bincode::encode("state", value).ok().map(sorted)
}

fn sorted(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.sort_unstable();
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn a_hash_set_is_the_same_in_any_order() {
        let set = || (0..50).map(|number| number.to_string()).collect::<HashSet<_>>();
        assert!(same(&set(), &set()));
        let mut other = set();
        other.remove("7");
        assert!(!same(&set(), &other));
    }

    #[test]
    fn fields_do_not_swap_values() {
        assert!(!same(&serde_json::json!({"a": 1, "b": 2}), &serde_json::json!({"a": 2, "b": 1})));
        assert!(!same_bytes(br#"{"a":1,"b":2}"#, br#"{"a":2,"b":1}"#));
    }

    #[test]
    fn a_map_without_text_keys_is_compared_too() {
        let map = |value: u8| BTreeMap::from([((1_u8, 2_u8), value)]);
        assert!(same(&map(3), &map(3)));
        assert!(!same(&map(3), &map(4)));
        assert!(show(&map(3)).contains("no JSON form"));
    }
}
