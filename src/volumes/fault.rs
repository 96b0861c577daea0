//! What EC2's codes mean for another attempt. The SDK knows the throttling ones only, and not those of snapshots
//! ("Error codes for the Amazon EC2 API"; "Amazon EBS quotas").

use std::time::Duration;

/// Whether and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// EC2 did nothing, for now: pauses that double.
    Throttled,
    /// EC2 makes one snapshot of a volume in 15 s.
    Spacing,
    /// The volume has as many pending snapshots as it may, others' perhaps: one must complete first.
    Full,
    /// Nobody knows what EC2 did.
    Unsure,
    /// A permission is missing.
    Forbidden,
    /// The credentials aren't accepted.
    Credentials,
    /// It would fail again.
    Final,
}

/// Between two snapshots of one volume, and a little.
pub(super) const SPACING: Duration = Duration::from_secs(16);
/// How often a place among a volume's pending snapshots is asked for.
pub(super) const FULL: Duration = Duration::from_secs(30);
/// The longest first pause; each further one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause there is.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Judges an answer by status and code.
pub(super) fn class(status: u16, code: &str) -> Class {
    match code {
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "EC2ThrottledException"
        | "ResourceLimitExceeded"
        | "RequestThrottled" => Class::Throttled,
        "SnapshotCreationPerVolumeRateExceeded" => Class::Spacing,
        "ConcurrentSnapshotLimitExceeded" | "PendingSnapshotLimitExceeded" => Class::Full,
        "UnauthorizedOperation" | "AccessDenied" | "OptInRequired" => Class::Forbidden,
        "AuthFailure"
        | "InvalidClientTokenId"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "ExpiredToken"
        | "MissingAuthenticationToken"
        | "InvalidAccessKeyId" => Class::Credentials,
        // 5xx may come from something in front of EC2 that lost the answer
        "InternalError" | "InternalFailure" | "Unavailable" | "ServiceUnavailable" | "RequestTimeout" => Class::Unsure,
        _ if status >= 500 || status == 408 => Class::Unsure,
        _ if status == 429 => Class::Throttled,
        _ => Class::Final,
    }
}

impl Class {
    /// How long to wait before another attempt; of random length where many workers may wait for the same.
    pub(super) fn pause(self, attempts: u32) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1))).min(LONGEST_PAUSE);
        match self {
            Self::Spacing => SPACING + doubled.mul_f64(fastrand::f64()),
            Self::Full => FULL.mul_f64(0.75 + fastrand::f64() / 2.0),
            _ => doubled.mul_f64(0.5 + fastrand::f64() / 2.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_the_sdk_does_not_know_have_their_class() {
        let cases = [
            (503, "RequestLimitExceeded", Class::Throttled),
            (400, "SnapshotCreationPerVolumeRateExceeded", Class::Spacing),
            (400, "ConcurrentSnapshotLimitExceeded", Class::Full),
            (400, "PendingSnapshotLimitExceeded", Class::Full),
            (400, "InvalidVolume.NotFound", Class::Final),
            (403, "UnauthorizedOperation", Class::Forbidden),
            (401, "AuthFailure", Class::Credentials),
            (500, "InternalError", Class::Unsure),
            (502, "", Class::Unsure),
            (400, "SnapshotLimitExceeded", Class::Final),
            (400, "IncorrectState", Class::Final),
            (400, "InvalidSnapshot.InUse", Class::Final),
            (400, "OperationNotPermitted", Class::Final),
        ];
        for (status, code, expected) in cases {
            assert_eq!(class(status, code), expected, "{status} {code}");
        }
    }

    #[test]
    fn a_volume_is_left_alone_for_its_15_seconds() {
        for attempts in 1..20 {
            assert!(Class::Spacing.pause(attempts) >= Duration::from_secs(15));
            assert!(Class::Throttled.pause(attempts) <= LONGEST_PAUSE);
        }
    }
}
