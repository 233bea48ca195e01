use super::run;

#[test]
fn crashes_lose_nothing() {
    let report = run(1, 1000);
    assert_eq!(report.violations(), &[], "seeds from 1");
    assert!(report.points() >= 1000 && report.pairs().len() >= 4, "{:?}", report.pairs());
}
