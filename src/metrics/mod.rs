//! Survival metrics: pure functions on slices.
