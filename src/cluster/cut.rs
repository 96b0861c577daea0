//! Cuts the items out of a list's JSON while it streams in, so that memory follows the largest object and not the page.
//!
//! The cutter finds where values begin and end and nothing more; serde judges what is in them. It takes `metadata`
//! before or after `items`, any white space, `"items": null`, and chunks that end anywhere.

use memchr::memchr2;

/// Bytes that one item, or one other field of a list, may have. The API server refuses objects that are far smaller.
pub const ITEM_LIMIT: usize = 64 * 1024 * 1024;

/// Why a list can't be cut.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CutError {
    /// It is not the JSON of a list.
    #[error("it is not a list: {0} at byte {1}")]
    Syntax(&'static str, u64),
    /// It ended in the middle.
    #[error("it broke off after {0} bytes")]
    Truncated(u64),
    /// A value is too large.
    #[error("an object has more than {} MiB", ITEM_LIMIT / 1024 / 1024)]
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the list's `{`.
    Start,
    /// Before a field's name, or the list's `}`.
    Key,
    /// After a field's name, before its `:`.
    Colon,
    /// Before a field's value.
    Value,
    /// After a field's value: `,` or `}`.
    AfterValue,
    /// Before an item, or the array's `]`.
    Item,
    /// After an item: `,` or `]`.
    AfterItem,
    /// After the list's `}`.
    End,
}

/// Where a value is being looked for the end of.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// A number, `true`, `false` or `null`: ends where something else begins.
    scalar: bool,
}

/// A field of the list other than `items`: its name with quotes, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// One item.
    Item(&'a [u8]),
    /// Another field of the list.
    Field {
        /// Its name, with quotes.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
}

/// Cuts one list.
pub struct Cutter {
    buffer: Vec<u8>,
    /// Where in the buffer to go on.
    position: usize,
    /// Bytes dropped from the buffer's front so far.
    dropped: u64,
    state: State,
    key: Vec<u8>,
    scan: Option<Scan>,
    /// Where in the buffer the value that is scanned begins.
    value_start: usize,
}

impl Default for Cutter {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            position: 0,
            dropped: 0,
            state: State::Start,
            key: Vec::new(),
            scan: None,
            value_start: 0,
        }
    }
}

impl Cutter {
    /// Takes a chunk and gives every part that ends in it to `each`.
    ///
    /// # Errors
    /// [`CutError`], and whatever `each` returns.
    pub fn push<E: From<CutError>>(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.buffer.extend_from_slice(chunk);
        while self.step(&mut each)? {}
        let keep_from = if self.scan.is_some() { self.value_start } else { self.position };
        self.buffer.drain(..keep_from);
        self.dropped += keep_from as u64;
        self.position -= keep_from;
        self.value_start = 0;
        if self.buffer.len() > ITEM_LIMIT {
            return Err(CutError::TooLarge.into());
        }
        Ok(())
    }

    /// Checks that the list ended.
    ///
    /// # Errors
    /// [`CutError::Truncated`] when it didn't.
    pub fn finish(&self) -> Result<(), CutError> {
        if self.state == State::End {
            Ok(())
        } else {
            Err(CutError::Truncated(self.dropped + self.buffer.len() as u64))
        }
    }

    /// Goes on by one token or value; false when more bytes are needed.
    fn step<E: From<CutError>>(&mut self, each: &mut impl FnMut(Part<'_>) -> Result<(), E>) -> Result<bool, E> {
        if self.scan.is_some() {
            return self.value(each);
        }
        while self.buffer.get(self.position).is_some_and(u8::is_ascii_whitespace) {
            self.position += 1;
        }
        let Some(&byte) = self.buffer.get(self.position) else { return Ok(false) };
        let is_items = self.key == b"\"items\"";
        match (self.state, byte) {
            (State::Start, b'{') => self.to(State::Key),
            (State::Key, b'"') | (State::Item, b'{') => self.begin_value(byte),
            (State::Key, b'}') | (State::AfterValue, b'}') => self.to(State::End),
            (State::Colon, b':') => self.to(State::Value),
            (State::Value, b'[') if is_items => self.to(State::Item),
            (State::Value, _) => self.begin_value(byte),
            (State::AfterValue, b',') => self.to(State::Key),
            (State::Item | State::AfterItem, b']') => self.to(State::AfterValue),
            (State::AfterItem, b',') => self.to(State::Item),
            (State::End, _) => return Err(self.syntax("something follows the list").into()),
            _ => return Err(self.syntax("unexpected character").into()),
        }
        Ok(true)
    }

    fn to(&mut self, state: State) {
        self.state = state;
        self.position += 1;
    }

    fn begin_value(&mut self, first: u8) {
        self.value_start = self.position;
        self.scan = Some(Scan { scalar: !matches!(first, b'{' | b'[' | b'"'), ..Scan::default() });
    }

    /// Looks for the end of the current value; false when it is not here yet.
    fn value<E: From<CutError>>(&mut self, each: &mut impl FnMut(Part<'_>) -> Result<(), E>) -> Result<bool, E> {
        let Some(mut scan) = self.scan else { return Ok(true) };
        let end = scan.find_end(&self.buffer, &mut self.position);
        let Some(end) = end else {
            self.scan = Some(scan);
            return Ok(false);
        };
        self.scan = None;
        let value = &self.buffer[self.value_start..end];
        match self.state {
            State::Key => {
                self.key = value.to_vec();
                self.state = State::Colon;
            }
            State::Item => {
                each(Part::Item(value))?;
                self.state = State::AfterItem;
            }
            _ => {
                each(Part::Field { key: &self.key, value })?;
                self.state = State::AfterValue;
            }
        }
        Ok(true)
    }

    fn syntax(&self, why: &'static str) -> CutError {
        CutError::Syntax(why, self.dropped + self.position as u64)
    }
}

impl Scan {
    /// Moves `position` to the value's end and returns it; `None` when the buffer ends before.
    fn find_end(&mut self, buffer: &[u8], position: &mut usize) -> Option<usize> {
        while let Some(&byte) = buffer.get(*position) {
            if self.in_string {
                if self.escaped {
                    self.escaped = false;
                    *position += 1;
                    continue;
                }
                match memchr2(b'"', b'\\', &buffer[*position..]) {
                    None => *position = buffer.len(),
                    Some(found) => {
                        *position += found + 1;
                        if buffer[*position - 1] == b'\\' {
                            self.escaped = true;
                        } else {
                            self.in_string = false;
                            if self.depth == 0 {
                                return Some(*position);
                            }
                        }
                    }
                }
                continue;
            }
            if self.scalar {
                if matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace() {
                    return Some(*position);
                }
                *position += 1;
                continue;
            }
            *position += 1;
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(*position);
                    }
                }
                _ => (),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(chunks: &[&[u8]]) -> Result<Vec<String>, CutError> {
        let mut cutter = Cutter::default();
        let mut parts = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for chunk in chunks {
            cutter.push(chunk, |part| {
                parts.push(match part {
                    Part::Item(item) => text(item),
                    Part::Field { key, value } => format!("{}={}", text(key), text(value)),
                });
                Ok::<_, CutError>(())
            })?;
        }
        cutter.finish().map(|()| parts)
    }

    #[test]
    fn items_and_fields_in_any_order() {
        let list = br#" { "kind":"PodList","metadata" : {"continue":"","resourceVersion":"7"}, "items":[ {"a":"]}\"{"} , {"b":[{}]} ] } "#;
        let parts = [
            r#""kind"="PodList""#,
            r#""metadata"={"continue":"","resourceVersion":"7"}"#,
            r#"{"a":"]}\"{"}"#,
            r#"{"b":[{}]}"#,
        ];
        assert_eq!(cut(&[list]).unwrap(), parts);
        assert_eq!(
            cut(&[br#"{"items":[{"x":1}],"metadata":{},"n":12,"t":true}"#]).unwrap(),
            [r#"{"x":1}"#, r#""metadata"={}"#, r#""n"=12"#, r#""t"=true"#]
        );
        assert_eq!(cut(&[br#"{"items":null,"metadata":{}}"#]).unwrap(), [r#""items"=null"#, r#""metadata"={}"#]);
        assert_eq!(cut(&[br#"{"items":[]}"#]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [&b"[]"[..], b"{]", b"{\"items\":[1]}", b"{\"a\" 1}", b"{} x", b"{\"items\":[{}{}]}", b"<html>"] {
            assert!(matches!(cut(&[bad]), Err(CutError::Syntax(..))), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_list_that_breaks_off_is_noticed_wherever_it_does() {
        let list = br#"{"metadata":{"resourceVersion":"7"},"items":[{"a":"b\\"},{"c":[1,2]}]}"#;
        for end in 0..list.len() {
            assert!(matches!(cut(&[&list[..end]]), Err(CutError::Truncated(_))), "cut at {end}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[a-z\"\\\\{}\\[\\],: \\n\u{e9}]{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map("[a-z\"\\\\{}]{0,6}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn items_come_out_whole_however_the_bytes_arrive(items in prop::collection::vec(prop::collection::hash_map("[a-z]{1,4}", json(), 0..4), 0..5), size in 1usize..40, pretty: bool) {
            let list = serde_json::json!({"metadata": {"resourceVersion": "7"}, "items": items});
            let text = if pretty { serde_json::to_string_pretty(&list).unwrap() } else { list.to_string() };
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let parts = cut(&chunks).unwrap();
            let found: Vec<serde_json::Value> = parts.iter().filter(|part| part.starts_with('{')).map(|part| serde_json::from_str(part).unwrap()).collect();
            let expected: Vec<serde_json::Value> = items.into_iter().map(|item| serde_json::Value::Object(item.into_iter().collect())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
