//! The path of every row, live or replayed:
//!
//! ```text
//! rows ─► order ─► gaps ─► features ─► seconds ─► score ─► rules ─► outcomes
//! ```

use foreshock_operators::features::FeatureWindows;
use foreshock_operators::gaps::Gaps;
use foreshock_operators::order::Order;
use foreshock_operators::row::Row;
use foreshock_operators::rules::Rules;
use foreshock_operators::score::Score;
use foreshock_operators::seconds::Seconds;
use foreshock_operators::stages::Outcome;
use timely::dataflow::StreamVec;

use crate::batch::Batch;
use crate::instruments::Instruments;
use crate::keyed::keyed;
use crate::meter::Meter;
use crate::settings::Settings;

/// Builds the graph on this worker. Batches must hold the rows of this worker's instruments, in log order.
pub fn market<'scope>(
    rows: StreamVec<'scope, u64, Batch<Row>>,
    settings: &Settings,
    instruments: &Instruments,
    meter: &Meter,
) -> StreamVec<'scope, u64, Batch<Outcome>> {
    let ordered = keyed::<Order>(rows, settings.order, instruments.clone(), meter);
    let live = keyed::<Gaps>(ordered, settings.windows(), instruments.clone(), meter);
    let measured = keyed::<FeatureWindows>(live, settings.features.clone(), instruments.clone(), meter);
    let sampled = keyed::<Seconds>(measured, settings.seconds, instruments.clone(), meter);
    let scored = keyed::<Score>(sampled, settings.model.clone(), instruments.clone(), meter);
    keyed::<Rules>(scored, settings.rules.clone(), instruments.clone(), meter)
}
