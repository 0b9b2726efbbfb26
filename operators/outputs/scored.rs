//! `scored`: features and prediction of each tick in one row, the data set for training and evaluation.

use super::features::{self, TickRow};
use super::field::OutputField;
use super::predictions::score;
use super::{INSTRUMENT, Output};
use crate::time::Nanos;

pub const OUTPUT: Output = Output {
    name: "scored",
    topic: None,
    has_file: true,
    key: INSTRUMENT,
    one_for: "each tick: all features and the prediction, the data set for training",
};

/// The fields of a job with these return horizons.
pub fn fields(horizons: &[Nanos]) -> Vec<OutputField<TickRow>> {
    features::fields(horizons).into_iter().chain(score()).collect()
}
