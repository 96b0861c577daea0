//! Whether anybody wrote an object after a restore did, as the API server notes it in `managedFields`.

use jiff::Timestamp;
use serde_json::Value;

/// Who wrote an object after a restore that ended at `ended`, of which the object may hold the traces under `manager`.
/// Subresources, such as status and scale, are the business of controllers and count for nothing. Times are in whole
/// seconds: what was written in the second of the restore's own write counts as written before.
pub fn written_since(live: &Value, manager: &str, ended: Timestamp) -> Option<String> {
    let fields = live.pointer("/metadata/managedFields").and_then(Value::as_array)?;
    let writes: Vec<(&str, Timestamp)> = fields
        .iter()
        .filter(|entry| entry["subresource"].as_str().unwrap_or("").is_empty())
        .filter_map(|entry| Some((entry["manager"].as_str()?, entry["time"].as_str()?.parse().ok()?)))
        .collect();
    let own = writes.iter().filter(|(name, time)| *name == manager && *time <= ended).map(|(_, time)| *time).max();
    let last = own.unwrap_or(ended);
    writes.into_iter().filter(|(_, time)| *time > last).max_by_key(|(_, time)| *time).map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_wrote_after_the_restore() {
        let at = |second: u8| format!("2026-11-20T10:00:{second:02}Z");
        let write = |manager: &str, second| json!({"manager": manager, "operation": "Update", "time": at(second)});
        let status = json!({"manager": "kcm", "subresource": "status", "time": at(50)});
        for (fields, who) in [
            (vec![write("kubectl", 1), write("us", 5), status.clone()], None),
            (vec![write("us", 5), write("kubectl-edit", 6)], Some("kubectl-edit")),
            (vec![write("us", 5), write("helm", 7), write("kubectl-edit", 6)], Some("helm")),
            // a later restore, and one whose trace is gone
            (vec![write("us", 30)], Some("us")),
            (vec![write("kubectl", 9)], None),
            (vec![write("kubectl", 11)], Some("kubectl")),
            (vec![], None),
        ] {
            let live = json!({"metadata": {"managedFields": fields}});
            let found = written_since(&live, "us", at(10).parse().unwrap());
            assert_eq!(found.as_deref(), who, "{live}");
        }
        assert_eq!(written_since(&json!({}), "us", at(10).parse().unwrap()), None);
    }
}
