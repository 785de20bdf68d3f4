//! The same seed gives the same bits on any number of threads, with everything random switched on.

use crate::study::{Study, TRAIN};

const MODEL: &str = r#"
[model]
name = "fusion"
gene_dropout = 0.3
patch_dropout = 0.2
head_dropout = 0.3
head_hidden = 8
heads = 2
[model.sdir.genes]
p = 0.2
gain = { gaussian = { gamma = 1.0, k = 1.0 } }
[model.sdir.patches]
p = 0.3
[model.cade]
p_aug = 0.8
kappa = 0.5
bandwidth = { relative = 0.5 }
[train]
epochs = 2
batch = 16
patches_per_batch = 600
modality_dropout = 0.2
"#;

fn same_on_any_number_of_threads(settings: &str) {
    let study = Study::new();
    study.write("run.toml", format!("{MODEL}{settings}"));
    let train = |out: &str, more: &str| {
        study.run(&format!("{TRAIN} --config run.toml --seed 11 {more} --out {out}")).succeeded();
    };
    for threads in [1, 2, 5] {
        train(&format!("run{threads}"), &format!("--threads {threads}"));
        assert_eq!(study.json(&format!("run{threads}/manifest.json"))["threads"], threads);
    }
    for file in ["model.safetensors", "risks/north.csv", "risks/south.csv", "figures/south.json", "split.csv"] {
        let of = |threads| study.read(&format!("run{threads}/{file}"));
        assert!(of(1) == of(2) && of(1) == of(5), "{file} depends on the number of threads");
    }
    let evaluate = |threads| {
        study.run(&format!("evaluate run1 south.toml --replicates 20 --threads {threads} --json")).succeeded().out
    };
    assert_eq!(evaluate(1), evaluate(2));
    study.run(&format!("{TRAIN} --config run.toml --seed 12 --threads 1 --out other")).succeeded();
    assert_ne!(study.read("run1/model.safetensors"), study.read("other/model.safetensors"), "the seed matters");
}

#[test]
fn batches_of_the_cox_loss() {
    same_on_any_number_of_threads("sampling = \"event_balanced\"\n");
}

#[test]
fn risk_sets_of_the_whole_cohort() {
    same_on_any_number_of_threads("risk_set = \"cohort\"\nties = \"breslow\"\n");
}

#[test]
fn the_discrete_time_loss() {
    same_on_any_number_of_threads(
        "loss = \"nll\"\nbins = 3\nnll_alpha = 0.3\nsampling = \"bin_balanced\"\nselect = \"validation_concordance\"\n",
    );
}
