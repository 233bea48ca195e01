//! Planted bugs are caught. A bug is planted in the whole process, so this binary has one test and no other beside it.

use planted::Bug;

#[test]
fn bugs_planted_in_the_partition_are_caught() {
    for bug in [Bug::PurgePastSynced, Bug::EioIsEndOfLog, Bug::NoCrc] {
        planted::plant(Some(bug));
        let report = sim::meta::run(1, 3000);
        planted::plant(None);
        assert!(report.violations_seen() > 0, "{bug:?} was not caught in {} points", report.points());
    }
    let report = sim::meta::run(1, 100);
    assert_eq!(report.violations(), &[], "nothing is planted");
}
