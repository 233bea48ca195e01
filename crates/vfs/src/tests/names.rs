//! Names, references and pins.

use namespace::NewKind;
use types::{Errno, Ino};

use super::bench::Bench;
use crate::Op;

#[tokio::test]
async fn what_was_created_is_found_and_forgotten() {
    let bench = Bench::new().await;
    let dir = bench.make(Ino::ROOT, "dir", NewKind::Directory).await;
    let (ino, handle) = bench.create("file").await;
    assert_eq!(bench.lookup(Ino::ROOT, "file").await.map(|attr| attr.ino), Some(ino));
    assert_eq!(bench.nodes(), 2, "{dir} {ino}");
    bench.run(Op::Release { ino, handle }).await.expect("release");
    bench.run(Op::Forget { ino, count: 1 }).await.expect("forget");
    assert_eq!(bench.nodes(), 2, "one reference is left");
    bench.run(Op::Forget { ino, count: 1 }).await.expect("forget");
    bench.run(Op::Forget { ino: dir, count: 1 }).await.expect("forget");
    assert_eq!(bench.nodes(), 0);
    assert_eq!(bench.unlink(Ino::ROOT, "nothing").await, Err(Errno::ENOENT));
}
