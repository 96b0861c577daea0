use super::*;

fn parsed(words: &[&str]) -> Result<Cli, clap::Error> {
    parse(["kubectl-backup"].iter().chain(words).map(Into::into))
}

fn help(words: &[&str]) -> String {
    let error = parsed(words).unwrap_err();
    assert_eq!(error.exit_code(), 0, "{error}");
    error.to_string()
}

#[test]
fn the_commands_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_names_the_invocation_and_only_what_there_is() {
    let text = help(&["--help"]);
    assert!(text.contains("Usage: kubectl backup "), "{text}");
    assert!(!text.contains("worker"), "{text}");
    for verb in ["init", "ns", "cluster", "list", "describe", "show", "logs", "restore", "version"] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))), "{verb} in\n{text}");
        let text = help(&[verb, "--help"]);
        assert!(text.contains(&format!("Usage: kubectl backup {verb}")), "{text}");
    }
    let error = parse(["/usr/bin/kb", "ns", "--help"].map(Into::into)).unwrap_err().to_string();
    assert!(error.contains("Usage: kb ns") && error.contains("  kb ns shop"), "{error}");
    assert!(!error.contains("kubectl backup"), "{error}");
}

#[test]
fn wrong_usage_exits_with_2() {
    for words in [
        &[][..],
        &["ns"],
        &["nsx", "shop"],
        &["describe"],
        &["describe", "a/b"],
        &["list", "-o", "xml"],
        &["list", "--install-namespace", "A_b"],
        &["ns", "a", "--local", "--wait=false"],
        &["ns", "a", "--timeout", "soon"],
        &["ns", "a", "--volume-timeout", "17h"],
        &["restore", "latest", "--dry-run", "maybe"],
    ] {
        let error = parsed(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}: {error}");
    }
}

#[test]
fn flags_are_kubectls() {
    let words = ["--context", "prod", "list", "--as", "ann", "--as-group", "a", "--as-group=b", "--request-timeout=5"];
    let cli = parsed(&words).unwrap();
    let options = cli.common.connect_options();
    assert_eq!((options.context.as_deref(), options.impersonate.as_deref()), (Some("prod"), Some("ann")));
    assert_eq!(
        (options.impersonate_groups, options.request_timeout),
        (vec!["a".into(), "b".into()], Some(Duration::from_secs(5)))
    );
    assert_eq!(parsed(&["list", "--request-timeout=0"]).unwrap().common.connect_options().request_timeout, None);
    assert_eq!(cli.common.install_namespace, "kubectl-backup");
    // behind the verb too
    assert_eq!(parsed(&["list", "--context=x"]).unwrap().common.context.as_deref(), Some("x"));
}

#[test]
fn waiting_is_the_default() {
    let wait = |words: &[&str]| {
        let Verb::Ns(args) = parsed(words).unwrap().verb else { panic!("not `ns`") };
        (args.names, args.shared.wait.wait, args.shared.wait.timeout.timeout)
    };
    let a = || vec!["a".to_owned()];
    assert_eq!(wait(&["ns", "a"]), (a(), true, None));
    assert_eq!(wait(&["ns", "a", "--wait=false"]), (a(), false, None));
    // `--wait` takes its value behind `=` only, so that a name may follow
    assert_eq!(wait(&["ns", "--wait", "a", "--timeout", "10m"]), (a(), true, Some(Duration::from_secs(600))));
}

#[test]
fn backups_are_named_in_all_ways() {
    for (text, query) in [
        ("latest", BackupQuery::Latest),
        ("latest:shop", BackupQuery::LatestOf("shop".into())),
        ("shop-2026", BackupQuery::Prefix("shop-2026".into())),
    ] {
        let Verb::Describe(args) = parsed(&["describe", text]).unwrap().verb else { panic!("not `describe`") };
        assert_eq!(args.backup, query);
    }
}

#[test]
fn colour_is_known_before_the_arguments_are_read() {
    let color = |words: &[&str]| color_of(&words.iter().map(Into::into).collect::<Vec<_>>());
    assert_eq!(color(&["x", "--color=never", "--help"]), clap::ColorChoice::Never);
    assert_eq!(color(&["x", "--color", "always"]), clap::ColorChoice::Always);
    assert_eq!(color(&["x", "--", "--color=never"]), clap::ColorChoice::Auto);
}
