use std::fs;
use std::io::Write;

use super::{Note, Target, age, last, note};
use metadata::{Head, Position};
use types::Nanos;

fn head() -> Head {
    Head { cluster: [1; 16], position: Position { term: 1, index: 9 }, made: Nanos(7_000_000_000) }
}

#[test]
fn only_a_whole_backup_gets_its_name_and_nothing_else_is_replaced() {
    let tmp = tempfile::tempdir().expect("a folder");
    let file = tmp.path().join("backup");
    let target = Target::check(&file).expect("nothing is there");
    target.write(|out| Ok(out.write_all(b"HFMBKP01 and then nothing")?)).expect("written");
    let why = format!("{:#}", target.finish().expect_err("it is not whole"));
    assert!(why.contains("cut off"), "{why}");
    drop(target);
    assert_eq!(fs::read_dir(tmp.path()).expect("listed").count(), 0, "nothing is left of it");

    fs::write(&file, "a thesis").expect("written");
    let refused = |path| match Target::check(path) {
        Err(error) => format!("{error:#}"),
        Ok(_) => panic!("must be refused"),
    };
    assert!(refused(&file).contains("is not a backup"));
    assert!(refused(tmp.path()).contains("is a directory"));
    assert!(refused(&tmp.path().join("no/where")).contains("make it first"));
    assert_eq!(fs::read(&file).expect("there"), b"a thesis");
}

#[test]
fn the_note_tells_of_the_last_backup() {
    let tmp = tempfile::tempdir().expect("a folder");
    assert_eq!(last(tmp.path()), None);
    note(tmp.path(), &head(), "/far/away".as_ref()).expect("noted");
    let found = last(tmp.path()).expect("it is there");
    assert_eq!(found, Note { made: 7, entry: 9, file: "/far/away".into() });
    assert_eq!(age(&found, Nanos(67_500_000_000)), 60);
    assert_eq!(age(&found, Nanos(0)), 0, "a clock that was set back");
    fs::write(tmp.path().join("last-backup.json"), "{").expect("written");
    assert_eq!(last(tmp.path()), None);
}
