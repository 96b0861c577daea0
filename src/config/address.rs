//! A location as a URL: `s3://bucket/prefix?region=…&endpoint=…&path-style=true`, or `file:///folder`.

use super::{Error, Location, Place, S3, check};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::{Url, form_urlencoded};

/// What a query may hold.
const QUERY_KEYS: &str = "`region`, `endpoint`, `path-style`";

/// What must be escaped in the value of a query; a URL in it stays readable.
const QUERY_VALUE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'<').add(b'>');

impl Location {
    /// Reads a location's URL. The result has no name, role or Secret: these stand in the configuration only.
    pub fn parse_url(text: &str) -> Result<Self, Error> {
        let place = place(text).map_err(|message| Error::value(shown(text), message))?;
        Ok(Self { name: None, place, role_arn: None, credentials_secret: None, read_only: false })
    }

    /// The URL that [`Location::parse_url`] reads as the same place. Holds no credential.
    pub fn url(&self) -> String {
        match &self.place {
            Place::S3(s3) => s3_url(s3),
            Place::Folder(path) => match Url::from_file_path(path) {
                Ok(url) => url.to_string(),
                Err(()) => format!("file://{}", path.display()),
            },
        }
    }
}

/// The field that an error names: the URL itself, unless it may hold a password.
fn shown(text: &str) -> String {
    if text.contains('@') { "location".to_owned() } else { text.to_owned() }
}

/// Reads the place of a URL; the error is the second half of a sentence that begins with the URL.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("it is not a location's URL\n{SHAPES}"));
    };
    match scheme {
        "s3" => bucket_place(rest).map(Place::S3),
        "file" => folder_place(text, rest),
        "http" | "https" => Err(format!(
            "a location's URL begins with `s3://`\nhint: write `s3://BUCKET/PREFIX?endpoint={scheme}://HOST` for an \
             S3-compatible server"
        )),
        _ => Err(format!("`{scheme}` is not a kind of location\n{SHAPES}")),
    }
}

/// The way out where a URL is none of ours.
const SHAPES: &str = "hint: write `s3://BUCKET/PREFIX?region=REGION`, or `file:///FOLDER` with `--local`";

fn bucket_place(rest: &str) -> Result<S3, String> {
    if rest.contains('#') {
        return Err("a location's URL has no `#`".to_owned());
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if bucket.contains(['@', ':']) {
        let hint = check::CREDENTIALS_BELONG;
        return Err(format!("an `s3://` URL begins with the bucket's name, without port or credentials\n{hint}"));
    }
    check::bucket(bucket)?;
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() {
        check::prefix(prefix)?;
    }
    let mut place =
        S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned(), region: None, endpoint: None, path_style: false };
    read_query(query, &mut place)?;
    Ok(place)
}

fn read_query(query: &str, place: &mut S3) -> Result<(), String> {
    let mut path_style = None;
    let mut seen = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if seen.contains(&key) {
            return Err(format!("`{key}` is given twice"));
        }
        if value.is_empty() {
            return Err(format!("`{key}` has no value"));
        }
        match key.as_ref() {
            "region" => place.region = Some(value.into_owned()),
            "endpoint" => {
                check::endpoint(&value)?;
                place.endpoint = Some(value.trim_end_matches('/').to_owned());
            }
            "path-style" => path_style = Some(boolean(&value)?),
            _ => return Err(format!("`{key}` is not known; known: {QUERY_KEYS}")),
        }
        seen.push(key);
    }
    if let Some(region) = &place.region {
        check::region(region, place.endpoint.is_none())?;
    }
    place.path_style = path_style.unwrap_or(place.endpoint.is_some());
    Ok(())
}

fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`path-style` is `true` or `false`, not `{value}`")),
    }
}

fn folder_place(text: &str, rest: &str) -> Result<Place, String> {
    if !rest.starts_with('/') {
        return Err(format!("a folder is given by its whole path, after three slashes\nhint: `file:///{rest}`"));
    }
    if rest.contains(['?', '#']) {
        return Err("a folder's URL has no `?` or `#`\nhint: write them as `%3F` and `%23`".to_owned());
    }
    let path = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
    match path {
        Some(path) if path.to_str().is_some_and(|path| path.contains('\0')) => Err("a path can't hold NUL".to_owned()),
        Some(path) if path.parent().is_none() => Err("a folder of its own is needed, not `/`".to_owned()),
        Some(path) => Ok(Place::Folder(path)),
        None => Err("it is not the path of a folder".to_owned()),
    }
}

fn s3_url(s3: &S3) -> String {
    let mut url = format!("s3://{}", s3.bucket);
    if !s3.prefix.is_empty() {
        url.push('/');
        url.push_str(&s3.prefix);
    }
    let mut separator = '?';
    let mut add = |key: &str, value: &str| {
        url.push(separator);
        url.push_str(key);
        url.push('=');
        url.extend(utf8_percent_encode(value, QUERY_VALUE));
        separator = '&';
    };
    if let Some(region) = &s3.region {
        add("region", region);
    }
    if let Some(endpoint) = &s3.endpoint {
        add("endpoint", endpoint);
    }
    if s3.path_style != s3.endpoint.is_some() {
        add("path-style", if s3.path_style { "true" } else { "false" });
    }
    url
}

#[cfg(test)]
mod tests;
