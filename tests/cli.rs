//! The program as a user meets it: commands, files, exit codes and sentences.

#[path = "cli/study.rs"]
mod study;

#[path = "cli/attend.rs"]
mod attend;

#[path = "cli/commands.rs"]
mod commands;

#[path = "cli/cohorts.rs"]
mod cohorts;

#[path = "cli/inspect.rs"]
mod inspect;

#[path = "cli/settings.rs"]
mod settings;

#[path = "cli/models.rs"]
mod models;

#[path = "cli/places.rs"]
mod places;

#[path = "cli/drives.rs"]
mod drives;

#[path = "cli/kills.rs"]
mod kills;

#[path = "cli/limits.rs"]
mod limits;

#[path = "cli/pack.rs"]
mod pack;

#[path = "cli/threads.rs"]
mod threads;

#[path = "cli/device.rs"]
mod device;

#[path = "cli/tables.rs"]
mod tables;

#[path = "cli/studies.rs"]
mod studies;

#[path = "cli/studies_report.rs"]
mod studies_report;
