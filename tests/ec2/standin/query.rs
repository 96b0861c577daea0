//! The Query protocol: `Filter.1.Value.2=x`, and what calls have in common of it.

use super::{Refusal, refuse};
use std::collections::BTreeMap;

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether a parameter has this value.
    pub(crate) fn names(&self, value: &str) -> bool {
        self.0.values().any(|of| of == value)
    }

    pub(crate) fn required(&self, key: &str) -> Result<&str, Refusal> {
        match self.get(key) {
            Some(value) => Ok(value),
            None => refuse("MissingParameter", format!("The request must contain the parameter {key}")),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(key) else { return Ok(None) };
        text.parse().map(Some).or_else(|_| refuse("InvalidParameterValue", format!("Invalid value '{text}' for {key}")))
    }

    /// `Name.1`, `Name.2`, …
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|number| self.get(&format!("{name}.{number}"))).collect()
    }

    /// Names and values of the filters.
    pub(crate) fn filters(&self) -> Vec<(&str, Vec<&str>)> {
        let filter = |number: u32| {
            let name = self.get(&format!("Filter.{number}.Name"))?;
            Some((name, self.list(&format!("Filter.{number}.Value"))))
        };
        (1..).map_while(filter).collect()
    }

    /// The tags for a type of resource.
    pub(crate) fn tags(&self, resource: &str) -> BTreeMap<String, String> {
        let specification =
            (1..).map_while(|n| self.get(&format!("TagSpecification.{n}.ResourceType")).map(|of| (n, of)));
        let mut tags = BTreeMap::new();
        for (number, _) in specification.filter(|(_, of)| *of == resource) {
            tags.extend(self.pairs(&format!("TagSpecification.{number}.Tag")));
        }
        tags
    }

    /// `Prefix.1.Key` and `Prefix.1.Value`, …
    pub(crate) fn pairs(&self, prefix: &str) -> BTreeMap<String, String> {
        let pair = |number: u32| {
            let key = self.get(&format!("{prefix}.{number}.Key"))?;
            Some((key.to_owned(), self.get(&format!("{prefix}.{number}.Value")).unwrap_or_default().to_owned()))
        };
        (1..).map_while(pair).collect()
    }

    /// One page of what a Describe call found: `MaxResults` and `NextToken`. Ids and `MaxResults` exclude each other.
    pub(crate) fn page<T>(&self, ids: &str, found: Vec<T>) -> Result<(Vec<T>, String), Refusal> {
        let Some(most) = self.number("MaxResults")? else { return Ok((found, String::new())) };
        if !self.list(ids).is_empty() {
            return refuse(
                "InvalidParameterCombination",
                "The parameter MaxResults cannot be used with the parameter ids",
            );
        }
        if !(5..=1000).contains(&most) {
            return refuse(
                "InvalidParameterValue",
                format!("Value ( {most} ) for parameter maxResults is invalid. Expecting a value between 5 and 1000."),
            );
        }
        let from: usize = self.get("NextToken").map_or(Ok(0), str::parse).unwrap_or(usize::MAX);
        let total = found.len();
        let most = usize::try_from(most).expect("a small number");
        let page: Vec<T> = found.into_iter().skip(from).take(most).collect();
        let next = from + page.len();
        let token = if next < total { format!("<nextToken>{next}</nextToken>") } else { String::new() };
        Ok((page, token))
    }
}

/// Whether a resource passes all filters. `field` gives the values that a filter's name stands for, `None` for a name that
/// the call doesn't know.
pub(crate) fn passes(
    query: &Query,
    tags: &BTreeMap<String, String>,
    field: impl Fn(&str) -> Option<Vec<String>>,
) -> Result<bool, Refusal> {
    for (name, wanted) in query.filters() {
        if wanted.len() > 200 {
            return refuse(
                "FilterLimitExceeded",
                "The maximum number of filter values specified on a single call is 200",
            );
        }
        let has: Vec<String> = match name.split_once(':') {
            Some(("tag", key)) => tags.get(key).cloned().into_iter().collect(),
            _ if name == "tag-key" => tags.keys().cloned().collect(),
            _ => match field(name) {
                Some(values) => values,
                None => return refuse("InvalidParameterValue", format!("The filter '{name}' is invalid")),
            },
        };
        if !has.iter().any(|value| wanted.contains(&value.as_str())) {
            return Ok(false);
        }
    }
    Ok(true)
}
