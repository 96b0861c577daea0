//! Flags that say how what is restored differs from what was saved.

use clap::Args;
use kubectl_backup::rules::adapt::AdaptOptions;
use kubectl_backup::rules::modifiers::Modifiers;
use std::fs::File;
use std::io::Read as _;

/// Bytes of a file of modifiers. It travels in the Job's task, which holds 100 KiB.
const MODIFIERS_LIMIT: u64 = 64 * 1024;

/// What is to be different from what was saved, namespaces aside.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What is restored differently")]
pub(crate) struct AdaptArgs {
    /// Claims and volumes of storage class OLD get class NEW; can be repeated
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',', value_parser = pair)]
    map_storage_class: Vec<String>,
    /// Images whose names begin with OLD (whole parts: a registry, a folder, an image) begin with NEW; can be repeated
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',', value_parser = pair)]
    map_image: Vec<String>,
    /// Host OLD and those below it are NEW in Ingresses, Gateway API and OpenShift routes; can be repeated
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',', value_parser = pair)]
    map_host: Vec<String>,
    /// Restore CronJobs suspended
    #[arg(long)]
    suspend_cronjobs: bool,
    /// Restore Deployments, StatefulSets and the like with no replicas; an annotation keeps their number
    #[arg(long)]
    scale_to_zero: bool,
    /// Restore the status of custom resources too
    #[arg(long)]
    with_status: bool,
    /// Keep node ports that nobody chose, too
    #[arg(long)]
    keep_node_ports: bool,
    /// Rules that change objects, in the format of Velero's resource modifiers
    // read where it is parsed, once: the plan and what is carried out must mean the same
    #[arg(long, value_name = "FILE", value_parser = modifiers)]
    modifiers: Option<String>,
}

impl AdaptArgs {
    /// The options that these flags mean.
    pub(crate) fn options(&self) -> AdaptOptions {
        AdaptOptions {
            map_storage_class: self.map_storage_class.clone(),
            map_image: self.map_image.clone(),
            map_host: self.map_host.clone(),
            suspend_cronjobs: self.suspend_cronjobs,
            scale_to_zero: self.scale_to_zero,
            with_status: self.with_status,
            keep_node_ports: self.keep_node_ports,
            modifiers: self.modifiers.clone(),
        }
    }
}

/// Checks one `OLD=NEW`.
fn pair(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok(text.to_owned()),
        _ => Err("write OLD=NEW".to_owned()),
    }
}

/// Reads and checks a file of modifiers.
fn modifiers(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MODIFIERS_LIMIT + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MODIFIERS_LIMIT {
        return Err("it is larger than 64 KiB, which is what a Job can be given".to_owned());
    }
    Modifiers::parse(&text).map_err(|error| error.to_string())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use crate::args::{Verb, parse};
    use kubectl_backup::rules::adapt::AdaptOptions;

    fn options(words: &[&str]) -> Result<AdaptOptions, clap::Error> {
        let words = ["kubectl-backup", "restore", "latest"].iter().chain(words).map(Into::into);
        let Verb::Restore(args) = parse(words)?.verb else { panic!("not `restore`") };
        Ok(args.adapt.options())
    }

    #[test]
    fn flags_become_options() {
        assert_eq!(options(&[]).unwrap(), AdaptOptions::default());
        let found = options(&["--map-image", "a=b,c=d", "--map-image=e=f", "--scale-to-zero"]).unwrap();
        let map_image = ["a=b", "c=d", "e=f"].map(str::to_owned).to_vec();
        assert_eq!(found, AdaptOptions { map_image, scale_to_zero: true, ..AdaptOptions::default() });
        for bad in [&["--map-host", "a"][..], &["--map-storage-class", "=b"], &["--modifiers", "/nowhere"]] {
            assert_eq!(options(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn a_file_of_modifiers_is_read_and_checked() {
        let write = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            file
        };
        let rule = "version: v1\nresourceModifierRules:\n- conditions: {groupResource: pods}\n  mergePatches: [{patchData: '{}'}]\n";
        let file = write(rule);
        let path = file.path().to_str().unwrap();
        assert_eq!(options(&["--modifiers", path]).unwrap().modifiers.as_deref(), Some(rule));
        for (text, says) in [("version: v2\nresourceModifierRules: []", "`version`"), (&"#".repeat(70_000), "64 KiB")] {
            let file = write(text);
            let error = options(&["--modifiers", file.path().to_str().unwrap()]).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(says), "{error}");
        }
    }
}
