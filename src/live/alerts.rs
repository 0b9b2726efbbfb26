//! Which alerts are active now: status, made from the changes that the job tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshock_operators::operator::Instrument;
use foreshock_operators::stages::{Alert, AlertState, Priority};

use serde::{Deserialize, Serialize};

use crate::metrics::JobMetrics;
use crate::status::AlertChange;

/// The alerts that are active, by id.
#[derive(Debug, Default)]
pub struct Alerts {
    active: BTreeMap<Arc<str>, Active>,
    /// The last change.
    pub last: Option<AlertChange>,
}

/// One alert that is active.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Active {
    exchange: Arc<str>,
    instrument: Arc<str>,
    priority: Priority,
    /// Of a rule and shard: set when it is taken up.
    #[serde(skip)]
    shard: u32,
}

impl Alerts {
    /// Takes up what was active when a shard's state was saved.
    pub fn restore(&mut self, shard: u32, active: BTreeMap<String, Active>, metrics: &JobMetrics) {
        for (id, active) in active {
            let (exchange, instrument) = (active.exchange.clone(), active.instrument.clone());
            self.active.insert(id.into(), Active { shard, ..active });
            self.gauge(&exchange, &instrument, metrics);
        }
    }

    /// Those of one shard.
    pub fn of_shard(&self, shard: u32) -> BTreeMap<String, Active> {
        let own = self.active.iter().filter(|(_, active)| active.shard == shard);
        own.map(|(id, active)| (id.to_string(), active.clone())).collect()
    }

    /// Takes a change into account.
    pub fn note(&mut self, shard: u32, instrument: &Instrument, alert: Alert, metrics: &JobMetrics) {
        match alert.state {
            AlertState::Active | AlertState::Escalated => {
                let active = Active {
                    exchange: instrument.exchange.clone(),
                    instrument: instrument.name.clone(),
                    priority: alert.priority,
                    shard,
                };
                self.active.insert(alert.id.clone(), active);
            }
            // A suppressed alert says nothing of the market until it goes on.
            AlertState::Suppressed | AlertState::Resolved => {
                self.active.remove(&alert.id);
            }
        }
        self.gauge(&instrument.exchange, &instrument.name, metrics);
        self.last = Some(AlertChange {
            exchange: instrument.exchange.clone(),
            instrument: instrument.name.clone(),
            rule: alert.rule,
            priority: alert.priority.name(),
            state: alert.state.name(),
            time: alert.time,
        });
    }

    fn gauge(&self, exchange: &str, instrument: &str, metrics: &JobMetrics) {
        for priority in [Priority::P1, Priority::P2, Priority::P3] {
            let count = self.active.values().filter(|active| active.priority == priority).count();
            metrics.active_alerts.with_label_values(&[priority.name()]).set(count as i64);
        }
        let of_instrument = self
            .active
            .values()
            .filter(|active| *active.exchange == *exchange && *active.instrument == *instrument);
        let regime = match of_instrument.map(|active| active.priority).min() {
            None => 0,
            Some(Priority::P1) => 2,
            Some(Priority::P2 | Priority::P3) => 1,
        };
        metrics.regime.with_label_values(&[exchange, instrument]).set(regime);
    }

    /// How many are active.
    pub fn active(&self) -> usize {
        self.active.len()
    }
}
