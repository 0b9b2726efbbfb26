//! Makes sure that no instrument is owned by shards of two processes, which each see only their own.
//!
//! ```text
//! instruments that a shard owns, of each process ─exchange by name─► one worker for each name ─► conflicts
//! ```

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Operator as _;
use timely::dataflow::operators::generic::operator::source;

use crate::instruments::Instruments;

/// How often new instruments are announced.
const EACH: Duration = Duration::from_millis(100);

/// An instrument, and the shard that owns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owned {
    exchange: String,
    symbol: String,
    shard: u32,
}

/// An instrument that was met in two shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignConflict {
    pub exchange: String,
    pub symbol: String,
    pub owner: u32,
    pub met_in: u32,
}

/// Builds this worker's part. One worker of each process has its `instruments`. Goes on until `has_ended`.
pub fn ownership<'scope>(
    scope: Scope<'scope, u64>,
    instruments: Option<Instruments>,
    has_ended: impl Fn() -> bool + 'static,
    mut conflict: impl FnMut(ForeignConflict) + 'static,
) {
    let owners = source::<_, CapacityContainerBuilder<Vec<Owned>>, _, _>(
        scope,
        "ownership",
        move |capability, info| {
            let activator = scope.activator_for(info.address.clone());
            let (mut capability, mut known) = (Some(capability), 0);
            move |output| {
                let Some(held) = &capability else { return };
                if let Some(instruments) = &instruments {
                    let fresh = instruments.owned_after(known);
                    known += fresh.len();
                    let owned = |(instrument, shard): (std::sync::Arc<_>, u32)| {
                        let instrument: &foreshock_operators::operator::Instrument = &instrument;
                        let (exchange, symbol) =
                            (instrument.exchange.to_string(), instrument.symbol.to_string());
                        Owned { exchange, symbol, shard }
                    };
                    output.session(held).give_iterator(fresh.into_iter().map(owned));
                }
                if has_ended() {
                    capability = None;
                } else {
                    activator.activate_after(EACH);
                }
            }
        },
    );
    let by_name = Exchange::new(|owned: &Owned| {
        let mut hasher = DefaultHasher::new();
        (&owned.exchange, &owned.symbol).hash(&mut hasher);
        hasher.finish()
    });
    owners.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
        by_name,
        "conflicts",
        move |_capability, _info| {
            let mut known: HashMap<(String, String), u32> = HashMap::new();
            move |input, _output| {
                input.for_each(|_capability, owners| {
                    for Owned { exchange, symbol, shard } in owners.drain(..) {
                        let owner = *known.entry((exchange.clone(), symbol.clone())).or_insert(shard);
                        if owner != shard {
                            conflict(ForeignConflict { exchange, symbol, owner, met_in: shard });
                        }
                    }
                });
            }
        },
    );
}
