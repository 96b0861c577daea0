//! One request to the API server about a Job or what belongs to it: named, bounded in time, its failure put into words.

use super::error::{Error, Rule};
use super::text::line;
use crate::cluster::chain;
use std::fmt;
use std::time::Duration;

/// How long one request may take. kube itself has no limit on reading the answer.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The pauses between them add up to 6 s.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest text of the API server that is passed on. Its list of missing rights is long, and needed.
const MESSAGE_LIMIT: usize = 4000;

/// What a request does, in the words of RBAC, so that a refusal can name the missing rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deed<'a> {
    pub(crate) verb: &'static str,
    pub(crate) resource: &'a str,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: &'a str,
}

impl fmt::Display for Deed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.verb, self.resource)?;
        if !self.name.is_empty() {
            write!(f, " `{}`", self.name)?;
        }
        self.namespace.map_or(Ok(()), |namespace| write!(f, " in namespace `{namespace}`"))
    }
}

impl Deed<'_> {
    /// The rule that is missing. The API server knows the verb best: an apply may need `patch` and `create`.
    fn rule(&self, refusal: &str) -> Rule {
        let verb = refusal.split_once(" cannot ").and_then(|(_, rest)| rest.split_once(" resource "));
        let verb = verb.map_or(self.verb, |(verb, _)| verb).to_owned();
        Rule { verb, resource: self.resource.to_owned(), namespace: self.namespace.map(str::to_owned) }
    }

    /// Puts a failed request into words.
    pub(crate) fn judge(&self, error: kube::Error) -> Error {
        let deed = self.to_string();
        let status = match error {
            kube::Error::Api(status) => status,
            other => return Error::Unreachable { deed, message: line(&chain(&other), MESSAGE_LIMIT) },
        };
        let message = line(&status.message, MESSAGE_LIMIT);
        if status.is_not_found() {
            return Error::NotFound { deed, message };
        }
        if status.is_forbidden() {
            // `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters`: RBAC's refusals say `User "x" cannot …`;
            // quotas, Pod Security and webhooks answer 403 as well
            return match message.as_str() {
                text if text.contains("not currently held") => Error::Escalation { deed, message },
                text if text.contains("User \"") && text.contains(" cannot ") => {
                    Error::Forbidden { deed, rule: self.rule(text), message }
                }
                _ => Error::Refused { deed, message },
            };
        }
        Error::Api { deed, code: status.code, reason: status.reason, message }
    }

    /// Waits for the answer to one request.
    pub(crate) async fn once<T>(self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(|error| self.judge(error)),
            Err(_) => Err(Error::TimedOut { deed: self.to_string(), timeout: REQUEST_TIMEOUT }),
        }
    }

    /// Sends a request again while that may help. Only for requests that may arrive twice.
    pub(crate) async fn again<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.once(request()).await {
                Err(error) if error.is_transient() => tracing::debug!("{error}; trying again"),
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause *= 3;
        }
        self.once(request()).await
    }
}

/// An answer that may say that there is nothing.
pub(crate) fn optional<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    const DEED: Deed<'static> = Deed { verb: "create", resource: "jobs.batch", namespace: Some("kb"), name: "a" };

    fn judged(code: u16, reason: &str, message: &str) -> Error {
        DEED.judge(kube::Error::Api(Status::failure(message, reason).with_code(code).boxed()))
    }

    #[test]
    fn refusals_are_told_apart() {
        let rbac = r#"jobs.batch is forbidden: User "ann" cannot create resource "jobs" in API group "batch""#;
        let error = judged(403, "Forbidden", rbac);
        assert_eq!(
            error.to_string(),
            format!(
                "can't create `jobs.batch` `a` in namespace `kb`: {rbac}\n\
                 hint: needs `create` on `jobs.batch` in namespace `kb`"
            )
        );
        assert_eq!(error.exit_code(), crate::report::ExitCode::Forbidden);
        let quota = r#"jobs.batch "a" is forbidden: exceeded quota: small, requested: count/jobs.batch=1"#;
        assert!(matches!(judged(403, "Forbidden", quota), Error::Refused { .. }));
        let escalation = r#"clusterroles "x" is forbidden: user "ann" (groups=["a"]) is attempting to grant RBAC permissions not currently held: {APIGroups:["*"]}"#;
        assert!(matches!(judged(403, "Forbidden", escalation), Error::Escalation { .. }));
    }

    #[test]
    fn only_what_may_heal_is_transient() {
        for (code, reason, transient) in [
            (429, "TooManyRequests", true),
            (500, "InternalError", true),
            (503, "ServiceUnavailable", true),
            (409, "Conflict", false),
            (422, "Invalid", false),
            (404, "NotFound", false),
        ] {
            assert_eq!(judged(code, reason, "x").is_transient(), transient, "{code}");
        }
        let broken = kube::Error::Service("connection reset".into());
        assert!(DEED.judge(broken).is_transient());
    }
}
