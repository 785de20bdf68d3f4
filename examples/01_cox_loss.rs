//! The Cox loss of a batch, its gradient, and what ties, strata and an empty risk set do to it.
//!
//! `cargo run --example 01_cox_loss`

use onkos::ops::cox::{Cox, Outcomes, Plan, Ties};

fn main() -> onkos::Result<()> {
    let (time, event) = ([3.0, 5.0, 5.0, 8.0, 11.0], [true, true, true, false, true]);
    let log_risk = [1.2, 0.4, 0.3, -0.6, -0.9];

    // The plan is the sort: made once, used in every epoch.
    let plan = Plan::new(&Outcomes::new(&time, &event))?;
    for ties in [Ties::Breslow, Ties::Efron] {
        let (loss, gradient) = Cox { ties, ..Cox::default() }.loss_and_gradient(&plan, &log_risk)?;
        println!("{ties:?}: loss {loss:.4} an event, gradient {gradient:.3?}");
    }

    // Strata: patients are compared within their centre only.
    let centres = Outcomes { strata: Some(&[0, 0, 1, 1, 1]), ..Outcomes::new(&time, &event) };
    let (loss, _) = Cox::default().loss_and_gradient(&Plan::new(&centres)?, &log_risk)?;
    println!("within two centres: {loss:.4}");

    // Nobody died: nothing to learn, and no NaN either.
    let censored = Plan::new(&Outcomes::new(&time, &[false; 5]))?;
    let (loss, gradient) = Cox::default().loss_and_gradient(&censored, &log_risk)?;
    println!("without an event: loss {loss}, gradient {gradient:?}, {} events", censored.events());
    Ok(())
}
