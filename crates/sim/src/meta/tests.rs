use planted::Bug;

use super::run;

/// One test, because a planted bug is planted in the whole process.
#[test]
fn crashes_lose_nothing_and_planted_bugs_are_caught() {
    let report = run(1, 1000);
    assert_eq!(report.violations(), &[], "seeds from 1");
    assert!(report.points() >= 1000 && report.pairs().len() >= 4, "{:?}", report.pairs());
    for bug in [Bug::PurgePastSynced, Bug::EioIsEndOfLog, Bug::NoCrc] {
        planted::plant(Some(bug));
        let report = run(1, 3000);
        planted::plant(None);
        assert!(report.violations_seen() > 0, "{bug:?} was not caught in {} points", report.points());
    }
}
