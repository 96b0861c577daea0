//! The configuration as YAML. Parsing is strict: a misspelt field would otherwise be a setting that silently isn't.

use super::{Config, Error, JobSettings, LONGEST_RUN, Location, Place, address, check};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The YAML's top.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    #[serde(skip_serializing_if = "Option::is_none")]
    default_location: Option<String>,
    locations: BTreeMap<String, Entry>,
    #[serde(skip_serializing_if = "is_default")]
    job: JobSettings,
}

/// A location in the YAML.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role_arn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credentials_secret: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
}

fn is_default(job: &JobSettings) -> bool {
    *job == JobSettings::default()
}

impl Config {
    /// Reads and checks the configuration. Unknown fields and fields given twice are refused.
    pub fn parse(yaml: &str) -> Result<Self, Error> {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let file: File =
            serde_saphyr::from_str_with_options(yaml, options).map_err(|error| Error::Yaml(told(yaml, &error)))?;
        let locations = file
            .locations
            .into_iter()
            .map(|(name, entry)| location(&name, entry).map(|location| (name, location)))
            .collect::<Result<BTreeMap<_, _>, Error>>()?;
        let config = Self { locations, default_location: file.default_location, job: file.job };
        config.check()?;
        Ok(config)
    }

    /// Writes the configuration as [`Config::parse`] reads it. What doesn't pass the checks isn't written.
    pub fn to_yaml(&self) -> Result<String, Error> {
        self.check()?;
        let entry = |location: &Location| Entry {
            url: location.url(),
            role_arn: location.role_arn.clone(),
            credentials_secret: location.credentials_secret.clone(),
            read_only: location.read_only,
        };
        let file = File {
            default_location: self.default_location.clone(),
            locations: self.locations.iter().map(|(name, location)| (name.clone(), entry(location))).collect(),
            job: self.job.clone(),
        };
        serde_saphyr::to_string(&file).map_err(|error| Error::Yaml(error.to_string()))
    }

    /// Checks what the types don't say by themselves: names, URLs, ARNs, and how fields go together.
    pub fn check(&self) -> Result<(), Error> {
        for (name, location) in &self.locations {
            check::location_name(name).map_err(|message| Error::value("locations", message))?;
            check_location(location)
                .map_err(|(field, message)| Error::value(format!("locations.{name}{field}"), message))?;
        }
        if let Some(name) = &self.default_location
            && !self.locations.contains_key(name)
        {
            let message = format!("`{name}` is not a location: {}", self.known_locations());
            return Err(Error::value("defaultLocation", message));
        }
        self.job.check()
    }
}

fn location(name: &str, entry: Entry) -> Result<Location, Error> {
    let place = address::place(&entry.url).map_err(|message| Error::value(format!("locations.{name}.url"), message))?;
    Ok(Location {
        name: Some(name.to_owned()),
        place,
        role_arn: entry.role_arn,
        credentials_secret: entry.credentials_secret,
        read_only: entry.read_only,
    })
}

/// Checks one configured location; the error names the field within it.
fn check_location(location: &Location) -> Result<(), (&'static str, String)> {
    if let Place::Folder(_) = location.place {
        let hint = "hint: use it as `--local --location file:///FOLDER`";
        return Err((".url", format!("a folder can't be configured, a Job's pod doesn't have it\n{hint}")));
    }
    if address::place(&location.url()).map_err(|message| (".url", message))? != location.place {
        return Err((".url", format!("`{location}` can't be written as a URL")));
    }
    if location.role_arn.is_some() && location.credentials_secret.is_some() {
        let message = "`roleArn` and `credentialsSecret` exclude each other\nhint: remove one of them";
        return Err(("", message.to_owned()));
    }
    location.role_arn.as_deref().map_or(Ok(()), check::role_arn).map_err(|message| (".roleArn", message))?;
    let secret = location.credentials_secret.as_deref().map_or(Ok(()), check::subdomain);
    secret.map_err(|message| (".credentialsSecret", message))
}

/// What the parser found: line, column and the field on whose line it stopped come first. Values are left out, they may
/// be anything.
fn told(yaml: &str, error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
    let Some(location) = error.location() else { return text };
    let place = format!("line {}, column {}", location.line(), location.column());
    let text = text.strip_suffix(&format!(" at {place}")).unwrap_or(&text);
    let line = usize::try_from(location.line()).ok().and_then(|line| yaml.lines().nth(line.checked_sub(1)?));
    match line.and_then(field_of) {
        Some(field) => format!("{place}, `{field}`: {text}"),
        None => format!("{place}: {text}"),
    }
}

/// The key with which a line begins.
fn field_of(line: &str) -> Option<&str> {
    let (field, _) = line.split_once(':')?;
    let field = field.trim().trim_start_matches("- ").trim_matches(['"', '\'']);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    (!field.is_empty() && field.bytes().all(plain)).then_some(field)
}

impl JobSettings {
    fn check(&self) -> Result<(), Error> {
        let at = |field: &str| {
            let field = format!("job.{field}");
            move |message: String| Error::value(field.clone(), message)
        };
        let words = [("image", &self.image), ("audience", &self.audience)];
        for (field, value) in words {
            value.as_deref().map_or(Ok(()), check::word).map_err(at(field))?;
        }
        self.image_pull_policy.as_deref().map_or(Ok(()), check::pull_policy).map_err(at("imagePullPolicy"))?;
        self.priority_class_name.as_deref().map_or(Ok(()), check::subdomain).map_err(at("priorityClassName"))?;
        self.image_pull_secrets.iter().try_for_each(|name| check::subdomain(name)).map_err(at("imagePullSecrets"))?;
        self.resources.as_ref().map_or(Ok(()), check::resources).map_err(at("resources"))?;
        self.tolerations.iter().try_for_each(check::toleration).map_err(at("tolerations"))?;
        for (field, map) in [("nodeSelector", &self.node_selector), ("labels", &self.labels)] {
            map.iter().try_for_each(|(k, v)| check::qualified_key(k).and(check::label_value(v))).map_err(at(field))?;
        }
        self.annotations.keys().try_for_each(|key| check::qualified_key(key)).map_err(at("annotations"))?;
        self.env.keys().try_for_each(|name| check::env_name(name)).map_err(at("env"))?;
        let seconds = self.ttl_seconds_after_finished.map(i64::from);
        check::seconds(seconds, 0, i64::MAX).map_err(at("ttlSecondsAfterFinished"))?;
        check::seconds(self.active_deadline_seconds, 1, LONGEST_RUN).map_err(at("activeDeadlineSeconds"))
    }
}

#[cfg(test)]
mod tests;
