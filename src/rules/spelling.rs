//! Near spellings, for errors that name what was probably meant.

/// The candidates that are spelled nearly as the text, nearest first, at most three.
pub fn similar<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| distance_within(text, candidate).map(|distance| (distance, candidate)))
        .collect();
    near.sort_unstable();
    near.dedup_by_key(|(_, candidate)| *candidate);
    near.into_iter().take(3).map(|(_, candidate)| candidate.to_owned()).collect()
}

/// How many letters must change to make one text of the other, where that is a typing error and not another word: at
/// most one in three, and at most three.
pub(super) fn distance_within(a: &str, b: &str) -> Option<usize> {
    let limit = (a.chars().count() / 3).clamp(1, 3);
    let distance = distance(a, b);
    (distance <= limit).then_some(distance)
}

/// Letters to insert, delete, replace, or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, far) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("deplyo", "deploy", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (far, far), "{a} {b}");
        }
    }

    #[test]
    fn near_ones_first_and_far_ones_never() {
        let namespaces = ["shop", "shop-dev", "chop", "kube-system"];
        assert_eq!(similar("shpo", namespaces), ["shop"]);
        assert_eq!(similar("shop", namespaces), ["shop", "chop"]);
        assert_eq!(similar("web", namespaces), [""; 0]);
    }
}
