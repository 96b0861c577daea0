//! How many objects of a kind to ask for at once. A page more is a round trip more; a page of large objects costs the API
//! server and etcd its size in memory (before Kubernetes 1.34 a list at a revision comes out of etcd in one piece), and the API
//! server breaks it off after 60 s, which a slow bucket makes us take. Memory here doesn't follow the page.

/// Objects in a first page, of which nothing is known yet.
const FIRST: u32 = 500;
/// Objects in a page at least. Of the largest there are, 1.5 MiB, these are 150 MiB.
const LEAST: u32 = 100;
/// Objects in a page at most. Measured best between 250 and this.
const MOST: u32 = 2000;
/// Bytes of a page, about.
const BYTES: u64 = 16 * 1024 * 1024;

/// The size of one list's pages.
#[derive(Debug, Default)]
pub(super) struct PageSize {
    /// Whether it may change from page to page. Kubernetes' own lists take any; the API's documentation asks for the same
    /// parameters on each page, and an aggregated API may count its pages.
    adapts: bool,
    objects: u64,
    bytes: u64,
    /// Bytes of an object of the last page, on average.
    last: u64,
}

impl PageSize {
    /// Of a list at a revision that Kubernetes' own store has, or of any other.
    pub(super) fn new(pinned: bool) -> Self {
        Self { adapts: pinned, ..Self::default() }
    }

    /// Notes what a page came to.
    pub(super) fn note(&mut self, objects: u64, bytes: u64) {
        self.objects += objects;
        self.bytes += bytes;
        self.last = bytes.checked_div(objects).unwrap_or(0);
    }

    /// Objects to ask for next.
    pub(super) fn next(&self) -> u32 {
        let each = self.bytes.checked_div(self.objects).unwrap_or(0).max(self.last);
        match BYTES.checked_div(each) {
            Some(many) if self.adapts => u32::try_from(many).unwrap_or(MOST).clamp(LEAST, MOST),
            _ => FIRST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_size_of_objects() {
        const MIB: u64 = 1024 * 1024;
        for (pages, next) in [
            (&[][..], 500),
            (&[(0, 0)], 500),
            (&[(500, 500 * 1500)], 2000),
            (&[(500, 500 * MIB)], 100),
            (&[(500, 500 * 64 * 1024)], 256),
            // small ones, and then large ones: the last page counts; the other way round all of them do
            (&[(500, 500_000), (2000, 2000 * 128 * 1024)], 128),
            (&[(500, 500 * MIB), (100, 100_000)], 100),
        ] {
            let (mut pinned, mut other) = (PageSize::new(true), PageSize::new(false));
            for (objects, bytes) in pages {
                pinned.note(*objects, *bytes);
                other.note(*objects, *bytes);
            }
            assert_eq!((pinned.next(), other.next()), (next, 500), "{pages:?}");
        }
    }
}
