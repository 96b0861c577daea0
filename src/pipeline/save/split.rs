//! A list namespace by namespace, so that one broken object (a Secret that can't be decrypted, a resource whose conversion
//! webhook is dead) costs one namespace.
//!
//! What fails may fail slowly: a webhook that doesn't answer takes up to 30 s each time, and there may be hundreds of
//! namespaces, while etcd forgets the backup's revision within minutes. So lists that fail in the same way are soon tried only
//! once, and together they may take two minutes; which namespaces weren't come to by then is told as one problem.

use super::kind::{Place, Taker, is_forbidden};
use super::list::ListTask;
use super::{LISTS, Saving};
use crate::cluster::call::TRIES;
use crate::pipeline::Error;
use crate::report::Problem;
use futures::{StreamExt, stream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

/// How often a page is asked for when the list of all namespaces has failed already as often as makes sense.
const TRIES_EACH: u32 = 3;
/// Lists that fail in the same way, one after another, before each is tried only once.
const ALIKE: u32 = 3;
/// What lists that fail may take, where one is made at a time; as many times as long where several are made at once.
const PATIENCE: Duration = Duration::from_secs(120);
/// Namespaces of a problem that are named.
const NAMED: usize = 10;

/// How the lists of single namespaces go.
#[derive(Default)]
struct Course {
    /// What lists that failed took.
    lost: Duration,
    /// How the last one failed, and how many before it did so.
    alike: (Option<u16>, u32),
    lists: usize,
    failed: Vec<(ListTask, Error)>,
    /// Namespaces that weren't come to.
    left: Vec<String>,
}

impl Course {
    /// Notes a list that ended.
    fn note(&mut self, task: ListTask, result: Result<(), Error>, taken: Duration) {
        self.lists += 1;
        let Err(error) = result else { return };
        self.lost += taken;
        let code = code(&error);
        self.alike = if self.alike.0 == Some(code) { (Some(code), self.alike.1 + 1) } else { (Some(code), 1) };
        self.failed.push((task, error));
    }
}

/// The sort of a failure; those without an answer are one.
fn code(error: &Error) -> u16 {
    match error {
        Error::Cluster(error) => error.code().unwrap_or_default(),
        _ => 0,
    }
}

/// A list of all namespaces that failed.
struct Broken<'a> {
    task: &'a ListTask,
    error: &'a Error,
    /// The place of the last item that it gave, or empty; what comes before was looked at.
    last: &'a str,
}

impl Saving<'_> {
    /// Waits until one more list may be made.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok() // it is never closed
    }

    /// Lists what is missing of a kind whose list broke off at `last`, several namespaces at a time.
    pub(super) async fn by_namespace(
        &self,
        task: &ListTask,
        taker: Taker<'_>,
        error: &Error,
        last: &str,
    ) -> Result<(), Error> {
        self.events.note(format!("{error}; it is listed namespace by namespace"));
        let namespaces = match self.namespaces().await {
            Ok(namespaces) => namespaces,
            Err(error) if self.ends_run(&error) => return Err(error),
            Err(_) => {
                self.problem(task, error);
                return Ok(());
            }
        };
        let broken = Broken { task, error, last };
        let course = Mutex::new(Course::default());
        let mut lists = stream::iter(namespaces.into_iter().filter(|namespace| broken.misses(namespace)))
            .map(|namespace| self.one_namespace(&broken, namespace, &course, taker))
            .buffer_unordered(LISTS);
        while let Some(result) = lists.next().await {
            result?;
        }
        drop(lists);
        self.tell_course(&broken, course.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Lists one namespace, unless enough was lost by then.
    async fn one_namespace(
        &self,
        broken: &Broken<'_>,
        namespace: String,
        course: &Mutex<Course>,
        taker: Taker<'_>,
    ) -> Result<(), Error> {
        let course = || course.lock().unwrap_or_else(PoisonError::into_inner);
        let _turn = self.turn().await;
        let patience = PATIENCE * u32::try_from(self.request.lists.clamp(1, LISTS)).unwrap_or(1);
        let tries = {
            let mut course = course();
            // what is only forbidden costs no time, and each list is as good as that of all
            match (is_forbidden(broken.error), course.lost < patience) {
                (true, _) => TRIES,
                (false, true) if course.alike.1 < ALIKE => TRIES_EACH,
                (false, true) => 1,
                (false, false) => {
                    course.left.push(namespace);
                    return Ok(());
                }
            }
        };
        let mut place = Place::default();
        if broken.begun() == Some(namespace.as_str()) {
            broken.last.clone_into(&mut place.last);
        }
        let own = ListTask { tries, namespace: Some(namespace), ..broken.task.clone() };
        let begun = Instant::now();
        match self.served(&own, taker, &mut place).await {
            Err(error) if self.ends_run(&error) => Err(error),
            result => {
                course().note(own, result, begun.elapsed());
                Ok(())
            }
        }
    }

    /// Tells what failed and what wasn't come to.
    fn tell_course(&self, broken: &Broken<'_>, mut course: Course) {
        course.failed.sort_by(|(a, _), (b, _)| a.namespace.cmp(&b.namespace));
        course.left.sort();
        // a kind that can be listed nowhere is one problem, however many namespaces there are
        let nowhere = course.failed.len() == course.lists && course.lists > 1;
        let alike = course.failed.iter().all(|(_, error)| code(error) == code(broken.error));
        if nowhere && alike {
            self.problem(broken.task, broken.error);
            return;
        }
        course.failed.iter().for_each(|(own, error)| self.problem(own, error));
        if !course.left.is_empty() {
            let subject = format!("{} in {} more namespaces", broken.task.kind, course.left.len());
            let message = format!(
                "not listed, since what failed took {} minutes: {}\nhint: mend what fails, or leave the kind out with `--exclude`",
                PATIENCE.as_secs() / 60,
                some_of(&course.left)
            );
            self.tell(Problem { subject, message });
        }
    }
}

impl Broken<'_> {
    /// The namespace in which the list broke off.
    fn begun(&self) -> Option<&str> {
        self.last.split_once('/').map(|(namespace, _)| namespace)
    }

    /// Whether a namespace has objects that it can't have given.
    fn misses(&self, namespace: &str) -> bool {
        self.begun().is_none_or(|begun| namespace == begun || format!("{namespace}/") > format!("{begun}/"))
    }
}

/// The first of many names, and how many more there are.
fn some_of(names: &[String]) -> String {
    let named = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_cut_short() {
        let names: Vec<String> = (0..13).map(|number| number.to_string()).collect();
        assert_eq!(some_of(&names[..2]), "`0`, `1`");
        assert_eq!(some_of(&names), "`0`, `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, `9` and 3 more");
    }
}
