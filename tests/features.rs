//! Files of patch features as the tools of the field write them, and every way in which they are damaged.

#[path = "features/fixtures.rs"]
mod fixtures;

#[path = "features/layouts.rs"]
mod layouts;

#[path = "features/refused.rs"]
mod refused;

#[path = "features/cohorts.rs"]
mod cohorts;

#[path = "features/damage.rs"]
mod damage;

#[path = "features/python.rs"]
mod python;
