//! The figures of tables that can be calculated by hand.

use onkos::config::Loss;
use onkos::data::BinRule;
use onkos::evaluate::{Evaluation, Figure, Figures};
use onkos::model::Recipe;

use crate::study;

fn figures(time: &[f64], event: &[bool], risk: &[f64], cut: f64) -> Figures {
    Evaluation { cohort: "table", time, event, risk, survival: None, cut, seed: 1, replicates: 20 }.figures().unwrap()
}

#[test]
fn four_deaths_have_the_figures_of_the_table() {
    let figures = figures(&[1.0, 2.0, 3.0, 4.0], &[true; 4], &[4.0, 3.0, 1.0, 2.0], 2.5);
    let c = figures.harrell.value().unwrap();
    // Six pairs, of which the last two patients are in the wrong order.
    assert_eq!((c.concordant, c.discordant, c.tied_risk, c.tied_time, c.index), (5, 1, 0, 0, 5.0 / 6.0));
    assert!(c.lower <= c.index && c.index <= c.upper);
    let groups = &figures.groups;
    assert_eq!((groups.patients, groups.events), ([2, 2], [2, 2]));
    // Deaths of the high group: 2 observed; expected 2/4 + 1/3 = 5/6; variance 1/4 + 2/9 = 17/36; 49/36 / (17/36).
    let test = groups.log_rank.value().unwrap();
    assert!((test.chi2 - 49.0 / 17.0).abs() < 16.0 * f64::EPSILON, "{}", test.chi2);
    assert!(matches!(figures.brier, Figure::Undefined { .. }));
    assert_eq!(figures.median_follow_up, None);
}

#[test]
fn censored_patients_are_compared_up_to_their_censoring() {
    // Censored at 2: comparable with the death at 1 only. Equal risks at 3 and 4.
    let figures = figures(&[1.0, 2.0, 3.0, 4.0], &[true, false, true, false], &[0.0, 1.0, 2.0, 2.0], 9.0);
    let c = figures.harrell.value().unwrap();
    // 1 against 2, 3, 4: wrong each. 3 against 4: tied.
    assert_eq!((c.concordant, c.discordant, c.tied_risk, c.index), (0, 3, 1, 0.5 / 4.0));
    assert_eq!((figures.patients, figures.events), (4, 2));
}

#[test]
fn a_cohort_all_on_one_side_of_the_cut_has_figures_but_no_log_rank_test() {
    for (cut, patients) in [(9.0, [0, 3]), (-9.0, [3, 0])] {
        let figures = figures(&[1.0, 2.0, 3.0], &[true, true, false], &[2.0, 1.0, 0.0], cut);
        assert_eq!(figures.harrell.value().unwrap().index, 1.0);
        assert_eq!(figures.groups.patients, patients);
        assert!(matches!(figures.groups.log_rank, Figure::Undefined { .. }));
    }
}

#[test]
fn a_risk_at_the_cut_is_low() {
    let figures = figures(&[1.0, 2.0], &[true, true], &[1.0, 0.0], 1.0);
    assert_eq!(figures.groups.patients, [0, 2]);
}

#[test]
fn risks_and_times_that_are_no_numbers_are_refused() {
    for (time, risk) in [([1.0, f64::NAN], [0.0, 1.0]), ([1.0, 2.0], [0.0, f64::NAN])] {
        let survival = None;
        let evaluation = Evaluation {
            cohort: "table",
            time: &time,
            event: &[true, false],
            risk: &risk,
            survival,
            cut: 0.0,
            seed: 1,
            replicates: 5,
        };
        assert!(evaluation.figures().is_err());
    }
}

#[test]
fn survival_of_bins_is_that_of_the_bins_that_have_ended() {
    let study = study::Study::new(12);
    let cohort = study.north();
    for rule in [BinRule::Survpath, BinRule::Mmp] {
        let mut config = study::config(1);
        (config.train.loss, config.train.bins, config.train.bin_rule) = (Loss::Nll, 3, rule);
        let recipe = Recipe::fit(&config, &cohort, &(0..12).collect::<Vec<_>>()).unwrap();
        let edges = recipe.bins.as_ref().unwrap().edges().to_vec();
        // Hazards of one half: each bin that is lived through halves the probability, exactly.
        let at = |time| recipe.survival(&[0.0; 3], time).unwrap();
        assert_eq!([at(edges[0]), at((edges[0] + edges[1]) / 2.0)], [1.0; 2], "{rule:?}");
        assert_eq!([at(edges[1]), at((edges[1] + edges[2]) / 2.0)], [0.5; 2], "{rule:?}");
        assert_eq!([at(edges[2]), at((edges[2] + edges[3]) / 2.0)], [0.25; 2], "{rule:?}");
        assert_eq!([at(edges[3]), at(2.0 * edges[3])], [0.125; 2], "{rule:?}");
        assert_eq!(recipe.risk(&[0.0; 3]), -0.875);
    }
}
