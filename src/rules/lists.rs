//! Whether objects of some namespaces are listed namespace by namespace, or picked out of one list of all.

/// Objects that cost as much as a request of its own does: of 1 KB, 28 to 63 were measured, at an empty namespace's list in
/// 0.4 to 1.2 ms and 2,000 objects in 20 to 50 ms.
const OBJECTS_A_REQUEST: u64 = 50;
/// Namespaces up to which each is listed where nobody says how many objects there are: an API that doesn't count, or a list
/// of all that isn't allowed.
const UNCOUNTED: u64 = 16;
/// Objects in a page.
const PAGE: u64 = 2000;

/// Whether to list each of `wanted` namespaces. `objects` is how many of the kind there are in all namespaces, `all` how
/// many namespaces; `None` where that isn't known.
///
/// A list of each namespace is a request at least; one of all is the requests of its pages, and besides what is read and
/// thrown away, as if objects were spread evenly. One namespace is always listed by itself: that is never more work.
pub fn one_by_one(wanted: usize, objects: Option<u64>, all: Option<u64>) -> bool {
    let wanted = wanted as u64;
    let Some(objects) = objects else { return wanted <= UNCOUNTED };
    let thrown_away = match all {
        Some(all) if all >= wanted && all > 0 => objects.saturating_mul(all - wanted) / all,
        _ => objects,
    };
    wanted <= 1 || wanted <= objects.div_ceil(PAGE) + thrown_away / OBJECTS_A_REQUEST
}

#[cfg(test)]
mod tests {
    use super::one_by_one;

    #[test]
    fn the_list_that_is_less_work() {
        let (some, none) = (Some, None);
        for (wanted, objects, all, each) in [
            // one namespace
            (1, some(0), some(100), true),
            (1, some(1_000_000), some(1), true),
            (1, none, none, true),
            // nobody knows how many
            (16, none, some(2500), true),
            (17, none, some(2500), false),
            // next to nothing of the kind: most kinds of most clusters
            (2, some(1), some(100), false),
            (16, some(40), some(2500), false),
            (3, some(99), none, false),
            // much of it, and elsewhere
            (3, some(100), none, true),
            (16, some(20_000), some(2500), true),
            (300, some(100_000), some(2500), true),
            (2000, some(100_000), some(2500), false),
            // much of it, and nearly all is wanted
            (19, some(5_000), some(20), false),
            (10, some(5_000), some(20), true),
            // fewer namespaces are counted than are wanted: somebody deletes them
            (30, some(20_000), some(20), true),
            (0, some(0), some(0), true),
        ] {
            assert_eq!(one_by_one(wanted, objects, all), each, "{wanted} of {all:?} with {objects:?}");
        }
    }
}
