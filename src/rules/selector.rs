//! Label selectors, as `-l` takes them: the grammar and the meaning of Kubernetes' own parser (`labels.Parse` of
//! `k8s.io/apimachinery/pkg/labels/selector.go`), so that what the API server picks and what is picked here are the same.

use super::{Error, Labels};
use crate::resource::check_label;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Requirements on an object's labels, all of which it meets: `app=web,tier in (front, back),!canary`. Without any
/// requirement every object is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    Exists,
    Absent,
    In(BTreeSet<String>),
    /// Also objects without the label.
    NotIn(BTreeSet<String>),
    Greater(i64),
    Less(i64),
}

impl Requirement {
    fn matches(&self, labels: &Labels<'_>) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Greater(bound) => number().is_some_and(|number| number > *bound),
            Operator::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl Selector {
    /// Reads what a person typed.
    ///
    /// # Errors
    /// [`Error::Selector`] wherever Kubernetes' parser gives one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why| Error::Selector { text: text.to_owned(), why };
        let requirements = tokens(text).and_then(|tokens| Parser { tokens, at: 0 }.requirements()).map_err(invalid)?;
        Ok(Self { text: text.to_owned(), requirements })
    }

    /// What was typed, which is what the API server takes.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an object with these labels is meant.
    pub fn matches(&self, labels: &Labels<'_>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Selector {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.text
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// One of `( ) , ! = == != > <`.
    Sign(&'static str),
}

impl Token {
    fn is(&self, sign: &str) -> bool {
        matches!(self, Self::Sign(one) if *one == sign)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Sign(sign) => write!(f, "`{sign}`"),
        }
    }
}

/// The signs, longer ones before their beginnings.
const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(space);
    while !rest.is_empty() {
        if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else {
            let end = rest.find(|c: char| space(c) || "=!(),><".contains(c)).unwrap_or(rest.len());
            // Go's lexer takes a NUL for the end
            if rest[..end].contains('\0') {
                return Err("it holds a character that no label does".to_owned());
            }
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start_matches(space);
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self) -> Option<Token> {
        self.at += 1;
        self.tokens.get(self.at - 1).cloned()
    }

    fn next_is(&self, sign: &str) -> bool {
        self.peek().is_some_and(|token| token.is(sign))
    }

    /// Whether a requirement ends here.
    fn at_end(&self) -> bool {
        self.peek().is_none_or(|token| token.is(","))
    }

    fn requirements(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        while self.peek().is_some() {
            requirements.push(self.requirement()?);
            match self.take() {
                None => break,
                Some(token) if !token.is(",") => return Err(format!("{token} stands where `,` or the end belongs")),
                Some(_) if self.peek().is_none() => return Err("nothing follows the last `,`".to_owned()),
                Some(_) => (),
            }
        }
        Ok(requirements)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.next_is("!");
        if absent {
            self.take();
        }
        let key = match self.take() {
            Some(Token::Word(word)) => word,
            other => return Err(stands(other, "a label's key")),
        };
        if !is_key(&key) {
            return Err(format!("`{key}` can't be a label's key"));
        }
        let operator = match (absent, self.at_end()) {
            (true, _) => Operator::Absent,
            (false, true) => Operator::Exists,
            (false, false) => self.operator(&key)?,
        };
        Ok(Requirement { key, operator })
    }

    fn operator(&mut self, key: &str) -> Result<Operator, String> {
        match self.take() {
            Some(Token::Word(word)) if word == "in" => Ok(Operator::In(self.values()?)),
            Some(Token::Word(word)) if word == "notin" => Ok(Operator::NotIn(self.values()?)),
            Some(Token::Sign("=" | "==")) => Ok(Operator::In([self.value()?].into())),
            Some(Token::Sign("!=")) => Ok(Operator::NotIn([self.value()?].into())),
            Some(Token::Sign(">")) => Ok(Operator::Greater(self.number(key)?)),
            Some(Token::Sign("<")) => Ok(Operator::Less(self.number(key)?)),
            other => Err(stands(other, "`=`, `==`, `!=`, `in`, `notin`, `>` or `<`")),
        }
    }

    /// One value; nothing at all is the empty one.
    fn value(&mut self) -> Result<String, String> {
        if self.at_end() {
            return Ok(String::new());
        }
        match self.take() {
            Some(Token::Word(word)) => checked(word),
            other => Err(stands(other, "a value")),
        }
    }

    fn number(&mut self, key: &str) -> Result<i64, String> {
        let value = self.value()?;
        value.parse().map_err(|_| format!("`{key}` is compared with `{value}`, which is not a whole number"))
    }

    /// `(a, b)`; a value that is left out is the empty one.
    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        match self.take() {
            Some(token) if token.is("(") => (),
            other => return Err(stands(other, "`(`")),
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(if self.next_is(")") { String::new() } else { self.value()? });
            match self.take() {
                Some(token) if token.is(",") => (),
                Some(token) if token.is(")") => return Ok(values),
                other => return Err(stands(other, "`,` or `)`")),
            }
        }
    }
}

fn stands(token: Option<Token>, expected: &str) -> String {
    match token {
        Some(token) => format!("{token} stands where {expected} belongs"),
        None => format!("it ends where {expected} belongs"),
    }
}

/// Letters and digits, and between them also `-`, `_` and `.`; 63 at most.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()].into_iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric));
    ends && bytes.len() <= 63 && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// A label's value: a name, or nothing.
fn checked(value: String) -> Result<String, String> {
    if value.is_empty() || is_name(&value) {
        return Ok(value);
    }
    Err(format!("`{value}` can't be a label's value: it has at most 63 letters, digits, `-`, `_` and `.`"))
}

/// A label's key: a name, with a DNS domain and `/` before it or not.
fn is_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_domain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(|part| check_label(part, 253).is_ok());
    prefix.is_none_or(is_domain) && is_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(selector: &str, labels: &str) -> bool {
        Selector::parse(selector).unwrap().matches(&serde_json::from_str(labels).unwrap())
    }

    /// `TestSelectorMatches` of Kubernetes' `selector_test.go`, and more.
    #[test]
    fn what_is_meant() {
        for (selector, yes, no) in [
            ("x=y", &[r#"{"x":"y"}"#, r#"{"x":"y","z":"w"}"#][..], &[r#"{"x":"z"}"#, r#"{"z":"w"}"#, "{}", "null"][..]),
            ("x=y,z=w", &[r#"{"x":"y","z":"w"}"#], &[r#"{"x":"z","z":"w"}"#, r#"{"x":"y"}"#]),
            ("x!=y,z!=w", &[r#"{"x":"z","z":"a"}"#, "{}"], &[r#"{"x":"y","z":"a"}"#, r#"{"x":"z","z":"w"}"#]),
            ("notin=in", &[r#"{"notin":"in"}"#], &[r#"{"notin":"out"}"#]),
            ("x", &[r#"{"x":"z"}"#, r#"{"x":""}"#], &[r#"{"z":"x"}"#]),
            ("!x", &[r#"{"y":"z"}"#, "null"], &[r#"{"x":"z"}"#, r#"{"x":""}"#]),
            ("x>1", &[r#"{"x":"2"}"#], &[r#"{"x":"0"}"#, r#"{"x":"1"}"#, r#"{"x":"two"}"#, "{}"]),
            ("x<1", &[r#"{"x":"0"}"#], &[r#"{"x":"2"}"#, "{}"]),
            ("foo=bar,foobar=bar", &[r#"{"foo":"bar","foobar":"bar"}"#], &[r#"{"foo":"bar"}"#]),
            ("a in (b, c)", &[r#"{"a":"b"}"#, r#"{"a":"c"}"#], &[r#"{"a":"d"}"#, "{}"]),
            ("a notin (b,c)", &[r#"{"a":"d"}"#, "{}"], &[r#"{"a":"c"}"#]),
            ("a in (,b)", &[r#"{"a":""}"#, r#"{"a":"b"}"#], &[r#"{"a":"c"}"#]),
            ("a in ()", &[r#"{"a":""}"#], &[r#"{"a":"b"}"#, "{}"]),
            ("a in (b,)", &[r#"{"a":""}"#, r#"{"a":"b"}"#], &["{}"]),
            ("a in (b,,c)", &[r#"{"a":""}"#, r#"{"a":"c"}"#], &["{}"]),
            ("x==a", &[r#"{"x":"a"}"#], &[r#"{"x":"b"}"#]),
            ("x=", &[r#"{"x":""}"#], &[r#"{"x":"b"}"#, "{}"]),
            ("x!=", &[r#"{"x":"a"}"#, "{}"], &[r#"{"x":""}"#]),
            ("x=,z", &[r#"{"x":"","z":"1"}"#], &[r#"{"x":""}"#]),
            ("in", &[r#"{"in":"1"}"#], &["{}"]),
            ("x=in", &[r#"{"x":"in"}"#], &["{}"]),
            ("app.kubernetes.io/name=web", &[r#"{"app.kubernetes.io/name":"web"}"#], &["{}"]),
            ("", &["{}", r#"{"x":"y"}"#], &[]),
        ] {
            yes.iter().for_each(|labels| assert!(meant(selector, labels), "{selector} means {labels}"));
            no.iter().for_each(|labels| assert!(!meant(selector, labels), "{selector} doesn't mean {labels}"));
        }
    }

    /// `TestSelectorParse`, `TestParserLookahead` and the good half of `TestSetSelectorParser`.
    #[test]
    fn what_is_a_selector() {
        for good in [
            "",
            " ",
            "\r",
            "x=a,y=b,z=c",
            "x!=a,y=b",
            "x=",
            "x= ",
            "x=,z= ",
            "x= ,z= ",
            "!x",
            "x>1",
            "x<7",
            "x>1,z<5",
            "!x,y",
            "x in (abc,def)",
            "x in (abc),y",
            "x notin (abc,def),y",
            "x in (a,b),y notin (c)",
            "x, y in (a)",
            "x in (,)",
            "x in (a,)",
            "x in (,,)",
            "x in (a,,)",
            "x in ()",
            "x in (a,,b)",
            "x in (,,b)",
            "x in (a,,,b)",
            "x notin (,a)",
            "x in (,a,)",
            "x==a",
            " x = a , ! y ",
            "x in( a ,b )",
            "x\nin\t(a)",
            "in in (in)",
            "notin notin (notin)",
            "x=notin",
            "a/b=c",
            "a.b/C_d=E.f-g",
        ] {
            let selector = Selector::parse(good);
            assert!(selector.is_ok(), "{good:?}: {selector:?}");
        }
    }

    #[test]
    fn what_is_none() {
        for bad in [
            "x=a||y=b",
            "x==a==b",
            "!x=a",
            "x<a",
            "x>",
            "x>1.5",
            "x in",
            "x in (",
            "x in (a",
            "x in a",
            "x in (a b)",
            "x in (a=b)",
            "x=a,",
            ",x=a",
            "x,,y",
            "x a",
            "x=a b",
            "x=!a",
            "(x)",
            "x=(a)",
            "=a",
            "!",
            "!!x",
            "-x=a",
            "x-=a",
            "x/y/z=a",
            "/x=a",
            "X.Y/x=a",
            "x=-a",
            "x=a/b",
            "x in (a/b)",
            "x===a",
            "x=\u{e9}",
            "x=a\0b",
            "x IN (a)",
            "x=<a",
            "foo=bar)",
        ] {
            assert!(matches!(Selector::parse(bad), Err(Error::Selector { .. })), "{bad:?}");
        }
        let (long, fits) = ("a".repeat(64), "a".repeat(63));
        assert!(Selector::parse(&format!("{long}=a")).is_err() && Selector::parse(&format!("a={long}")).is_err());
        assert!(Selector::parse(&format!("{fits}={fits}")).is_ok());
    }

    #[test]
    fn an_error_says_where() {
        let said = |text: &str| Selector::parse(text).unwrap_err().to_string();
        assert!(said("x in").contains("it ends where `(` belongs"), "{}", said("x in"));
        assert!(said("x=a||y=b").contains("`a||y`"), "{}", said("x=a||y=b"));
        assert!(said("!x=a").contains("`=` stands where `,` or the end belongs"));
    }
}
