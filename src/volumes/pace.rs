//! Keeps calls within EC2's token buckets ("Request throttling for the Amazon EC2 API"): 100 calls of one mutating action at
//! once, then 5 a second, for the whole account in a region. Others use the same buckets, and so `RequestLimitExceeded`
//! still happens.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Calls at once.
const MOST: u32 = 100;
/// Calls a second after that.
const REFILL: u32 = 5;

/// One bucket.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the bucket will be, or was, full but for the tokens that were taken by then.
    full_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { full_at: Mutex::new(None) }
    }

    /// Waits for a token.
    pub(super) async fn take(&self) {
        let due = {
            let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
            let (at, due) = next(Instant::now(), *full_at);
            *full_at = Some(at);
            due
        };
        sleep_until(due).await;
    }
}

/// Takes a token: when the bucket is full after it, and when it may be used.
fn next(now: Instant, full_at: Option<Instant>) -> (Instant, Instant) {
    let interval = Duration::from_secs(1) / REFILL;
    let full_at = full_at.unwrap_or(now).max(now) + interval;
    let due = full_at.checked_sub(interval * MOST).unwrap_or(now).max(now);
    (full_at, due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_go_at_once_and_then_five_a_second() {
        let (pace, begun) = (Pace::new(), Instant::now());
        for _ in 0..MOST {
            pace.take().await;
        }
        assert_eq!(begun.elapsed().as_millis() / 10, 0);
        for _ in 0..100 {
            pace.take().await;
        }
        let took = begun.elapsed();
        assert!((19..=21).contains(&took.as_secs()), "{took:?}");
    }
}
