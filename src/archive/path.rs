//! The paths of objects in an archive. They are for people and stock tools; no reader takes identity from them.

use crate::id::Digest;
use crate::resource::Kind;

/// Bytes a file name may have on the file systems that people unpack to.
const NAME_LIMIT: usize = 255;
/// Bytes kept of a name that is too long; leaves room for a hash and `.json`.
const NAME_KEPT: usize = 230;

/// The path of an object, as `docs/format.md` states it.
pub fn object_path(kind: &Kind, namespace: Option<&str>, name: &str) -> String {
    let file = file_name(name);
    match namespace {
        Some(namespace) => format!("resources/{}/namespaces/{namespace}/{file}", kind.key()),
        None => format!("resources/{}/cluster/{file}", kind.key()),
    }
}

/// `<name>.json`, cut where it is too long, and with a hash where a name could be taken for another one on a file
/// system that ignores case.
fn file_name(name: &str) -> String {
    let too_long = name.len() + ".json".len() > NAME_LIMIT;
    if !too_long && !name.bytes().any(|b| b.is_ascii_uppercase()) {
        return format!("{name}.json");
    }
    let mut end = name.len().min(NAME_KEPT);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let hash = Digest::of(name.as_bytes()).to_string();
    format!("{}-{}.json", &name[..end], &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles() -> Kind {
        Kind {
            group: "rbac.authorization.k8s.io".into(),
            version: "v1".into(),
            kind: "ClusterRole".into(),
            resource: "clusterroles".into(),
            namespaced: false,
        }
    }

    #[test]
    fn paths_are_readable() {
        let pods = Kind {
            group: String::new(),
            version: "v1".into(),
            kind: "Pod".into(),
            resource: "pods".into(),
            namespaced: true,
        };
        assert_eq!(object_path(&pods, Some("shop"), "web-0"), "resources/pods/namespaces/shop/web-0.json");
        assert_eq!(
            object_path(&roles(), None, "system:node"),
            "resources/clusterroles.rbac.authorization.k8s.io/cluster/system:node.json"
        );
    }

    #[test]
    fn names_that_differ_only_in_case_or_at_their_end_get_different_paths() {
        let lower = |name: &str| object_path(&roles(), None, name).to_lowercase();
        assert_ne!(lower("Admin"), lower("aDmin"));
        assert_ne!(lower("Admin"), lower("admin"));
        let long = "x".repeat(252);
        assert_ne!(lower(&format!("{long}a")), lower(&format!("{long}b")));
        for name in [format!("{long}a"), "é".repeat(126)] {
            let path = object_path(&roles(), None, &name);
            assert!(path.rsplit('/').next().unwrap().len() <= NAME_LIMIT, "{path}");
        }
    }
}
