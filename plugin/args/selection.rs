//! The flags by which objects are selected, in a backup or out of one.

use clap::{ArgAction, Args};
use kubectl_backup::rules::kinds::KindPattern;
use kubectl_backup::rules::selection::Selection;
use kubectl_backup::rules::selector::Selector;

/// What to take.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Selection options")]
pub(crate) struct SelectionArgs {
    /// Only these kinds, in any spelling kubectl takes: deploy, deployments.apps, '*.example.com'
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_parser = KindPattern::parse)]
    include: Vec<KindPattern>,
    /// All kinds but these; goes before --include
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_parser = KindPattern::parse)]
    exclude: Vec<KindPattern>,
    /// Only objects with these labels, such as 'app=web,tier in (a,b)'; where it is repeated, one has to match
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR", value_parser = Selector::parse)]
    selectors: Vec<Selector>,
    /// With --include-secrets=false leave Secrets out, as --exclude secrets does
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        hide_possible_values = true
    )]
    include_secrets: bool,
    /// All namespaces but these, names or globs such as 'kube-*'
    #[arg(long = "exclude-namespace", value_name = "NAME,…", value_delimiter = ',')]
    exclude_namespaces: Vec<String>,
}

impl SelectionArgs {
    /// What the flags say; namespaces and names are not theirs.
    pub(crate) fn selection(&self) -> Selection {
        let mut exclude = self.exclude.clone();
        if !self.include_secrets {
            exclude.extend(KindPattern::parse("secrets"));
        }
        Selection {
            namespaces: None,
            exclude_namespaces: self.exclude_namespaces.clone(),
            include: self.include.clone(),
            exclude,
            selectors: self.selectors.clone(),
            objects: Vec::new(),
        }
    }
}
