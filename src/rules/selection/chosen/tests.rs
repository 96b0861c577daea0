use super::*;
use crate::rules::testing::kind;

const KINDS: &[(&str, &str)] = &[
    ("namespaces", "Namespace"),
    ("configmaps", "ConfigMap"),
    ("secrets", "Secret"),
    ("pods", "Pod"),
    ("events", "Event"),
    ("persistentvolumes", "PersistentVolume"),
    ("deployments.apps", "Deployment"),
    ("orders.shop.example.com", "Order"),
    ("carts.shop.example.com", "Cart"),
];

fn served() -> Vec<Served> {
    let verbs = vec!["list".to_owned()];
    KINDS.iter().map(|(key, name)| Served { verbs: verbs.clone(), ..Served::of(kind(key, name)) }).collect()
}

/// A selection from the words of a command line.
fn selection(words: &[&str]) -> Selection {
    let mut selection = Selection::default();
    for word in words {
        let (flag, value) = word.split_once(' ').unwrap_or(("", word));
        match flag {
            "ns" => selection.namespaces = Some(vec![value.to_owned()]),
            "--include" => selection.include.push(KindPattern::parse(value).unwrap()),
            "--exclude" => selection.exclude.push(KindPattern::parse(value).unwrap()),
            "--exclude-namespace" => selection.exclude_namespaces.push(value.to_owned()),
            "-l" => selection.selectors.push(Selector::parse(value).unwrap()),
            _ => selection.objects.push(ObjectArg::parse(value).unwrap()),
        }
    }
    selection
}

fn chosen(words: &[&str]) -> Chosen {
    Chosen::resolve(&selection(words), &served()).unwrap()
}

/// Whether `KEY NAMESPACE/NAME LABELS` is taken.
fn takes(chosen: &Chosen, object: &str) -> bool {
    let fields: Vec<&str> = object.split(' ').collect();
    let kind = served().into_iter().find(|served| served.kind.is(fields[0])).unwrap().kind;
    let (namespace, name) = match fields[1].split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, fields[1]),
    };
    let labels = fields.get(2).copied().unwrap_or("{}");
    chosen.excluded(&kind).is_none()
        && chosen.lists(&kind)
        && chosen.takes(&kind, namespace, name, &serde_json::from_str(labels).unwrap())
}

#[test]
fn what_is_taken() {
    const WEB: &str = r#"deployments.apps shop/web {"app":"web"}"#;
    const DB: &str = r#"secrets shop/db {"app":"db"}"#;
    const VOLUME: &str = "persistentvolumes volume-1";
    for (words, yes, no) in [
        (&[][..], &[WEB, DB, VOLUME][..], &[][..]),
        (&["--include deploy"], &[WEB], &[DB, VOLUME]),
        (&["--include Deployments.v1.apps", "--include secret"], &[WEB, DB], &[VOLUME]),
        (&["--exclude secrets"], &[WEB, VOLUME], &[DB]),
        (&["--include *", "--exclude secrets"], &[WEB, VOLUME], &[DB]),
        (&["--include *.example.com"], &["orders.shop.example.com shop/o", "carts.shop.example.com shop/c"], &[WEB]),
        (&["-l app=web"], &[WEB], &[DB, VOLUME]),
        (&["-l app=web", "-l app in (db)"], &[WEB, DB], &[VOLUME]),
        (&["-l !app"], &[VOLUME], &[WEB, DB]),
        (&["-l app", "--include secrets"], &[DB], &[WEB, VOLUME, "secrets shop/plain"]),
        (&["deploy/web"], &[WEB], &[DB, VOLUME, "deployments.apps shop/web-2"]),
        (&["deploy/web", "-l app=db"], &[WEB, DB], &[VOLUME]),
        (&["deploy/web", "--include secrets"], &[WEB, DB], &["deployments.apps shop/other"]),
        (&["deploy/web", "-l app=none"], &[r#"deployments.apps shop/web {"app":"web"}"#], &[DB]),
        (
            &["--exclude-namespace shop*"],
            &[VOLUME, "secrets blog/db", "namespaces blog"],
            &[WEB, DB, "namespaces shop"],
        ),
    ] {
        let chosen = chosen(words);
        yes.iter().for_each(|object| assert!(takes(&chosen, object), "{words:?} takes {object}"));
        no.iter().for_each(|object| assert!(!takes(&chosen, object), "{words:?} doesn't take {object}"));
    }
}

#[test]
fn what_the_api_server_can_pick() {
    let of = |words: &[&str], key: &str| match chosen(words).reach(&kind(key, "X")) {
        Reach::Whole => "whole".to_owned(),
        Reach::Matching(selector) => selector.to_string(),
        Reach::Named(names) => names.iter().cloned().collect::<Vec<_>>().join(" "),
    };
    assert_eq!(of(&[], "secrets"), "whole");
    assert_eq!(of(&["-l app=web"], "secrets"), "app=web");
    assert_eq!(of(&["-l app=web", "-l app=db"], "secrets"), "whole");
    assert_eq!(of(&["secret/db", "secret/web"], "secrets"), "db web");
    assert_eq!(of(&["secret/db", "-l app=web"], "secrets"), "whole", "what is named is taken besides");
    assert_eq!(of(&["secret/db", "-l app=web"], "configmaps"), "app=web");
    assert_eq!(of(&["secret/db", "--include cm", "-l app=web"], "secrets"), "db");
}

#[test]
fn what_cannot_be_meant() {
    for (words, said) in [
        (&["--include deplyo"][..], "did you mean `deployments.apps`?"),
        (&["--exclude secerts"], "did you mean `secrets`?"),
        (&["ordres/x"], "did you mean `orders.shop.example.com`?"),
        (&["--include *.nowhere"], "there is no kind `*.nowhere`"),
        (&["--include cm", "--exclude configmap"], "leave no kind"),
        (&["secret/db", "--exclude secrets"], "`secret/db` is named, and `--exclude secrets` leaves it out"),
        (&["--exclude-namespace Shop"], "not a namespace"),
    ] {
        let error = Chosen::resolve(&selection(words), &served()).unwrap_err().to_string();
        assert!(error.contains(said), "{words:?}: {error}");
    }
    for (words, said) in [
        (&["--include events"][..], "no backup holds `events`: events tell"),
        (&["ns shop", "--include pv"], "`pv` lives in no namespace"),
        (&["ns shop", "pv/volume-1"], "kubectl backup cluster --include pv"),
    ] {
        let error = chosen(words).check_for_backup(&served()).unwrap_err().to_string();
        assert!(error.contains(said), "{words:?}: {error}");
    }
    for words in
        [&["--include pv"][..], &["ns shop", "--include *"], &["ns shop", "--include ns"], &["ns shop", "cm/a"]]
    {
        assert_eq!(chosen(words).check_for_backup(&served()), Ok(()), "{words:?}");
    }
}

#[test]
fn what_is_left_out_is_said_in_the_words_of_the_flags() {
    let kinds = |words: &[&str]| chosen(words).other_kinds();
    assert_eq!(kinds(&["--exclude secrets"]), None);
    assert_eq!(chosen(&["--exclude secret"]).excluded(&kind("secrets", "X")).as_deref(), Some("--exclude secret"));
    assert_eq!(kinds(&["--include cm", "--include po"]).as_deref(), Some("--include cm,po"));
    assert_eq!(kinds(&["-l a"]), None);
    assert_eq!(kinds(&["cm/a"]).as_deref(), Some("only cm/a is named"));
    let objects = |words: &[&str], key| chosen(words).other_objects(&kind(key, "X"));
    assert_eq!(objects(&["-l a", "-l b=c"], "pods"), "-l 'a' or -l 'b=c'");
    assert_eq!(objects(&["cm/a", "-l a"], "configmaps"), "-l 'a'");
    assert_eq!(objects(&["cm/a", "--include po", "-l a"], "configmaps"), "only cm/a is named");
    let all = ["cm/a", "--include po", "--exclude secrets", "-l a", "--exclude-namespace kube-*"];
    let flags = "cm/a --include po --exclude secrets -l 'a' --exclude-namespace kube-*";
    assert_eq!(selection(&all).flags().as_deref(), Some(flags));
    assert_eq!(selection(&["ns shop"]).flags(), None);
    let reason = |words: &[&str], key| chosen(words).reason(&kind(key, "X"));
    assert_eq!(reason(&["cm/a", "-l a"], "configmaps").as_deref(), Some("named, or -l 'a'"));
    assert_eq!(reason(&["--include cm", "-l a"], "configmaps").as_deref(), Some("--include cm -l 'a'"));
    assert_eq!(reason(&["--exclude cm"], "pods"), None);
}

#[test]
fn kinds_that_come_later() {
    let late = |words: &[&str]| chosen(words).passes_over("bills.shop.example.com");
    assert!(!late(&[]) && !late(&["--include *.shop.example.com"]) && !late(&["-l a"]));
    assert!(late(&["--include cm"]) && late(&["--exclude *.shop.example.com"]) && late(&["cm/a"]));
}

#[test]
fn it_travels_as_texts_and_is_checked_on_arrival() {
    let asked = selection(&["ns shop", "cm/a", "--include po", "-l a in (b)", "--exclude-namespace kube-*"]);
    let json = serde_json::to_string(&asked).unwrap();
    assert_eq!(serde_json::from_str::<Selection>(&json).unwrap(), asked);
    assert_eq!(serde_json::to_string(&Selection::default()).unwrap(), r#"{"namespaces":null}"#);
    for bad in [r#"{"selectors":["a=b=c"]}"#, r#"{"include":["a b"]}"#, r#"{"objects":["x"]}"#] {
        assert!(serde_json::from_str::<Selection>(bad).is_err(), "{bad}");
    }
}
