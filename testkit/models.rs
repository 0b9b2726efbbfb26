//! What jobs score and alert by.

use std::sync::Arc;

use foreshock_operators::feature::Feature;
use foreshock_operators::model::{Logistic, Model, ModelKind, NullPolicy, Term, Transform};
use foreshock_operators::rules::{Direction, Rule};
use foreshock_operators::stages::{Metric, Priority, Signal};
use foreshock_operators::time::SECOND;

/// A logistic model with five terms.
pub fn logistic() -> Arc<Model> {
    let term = |feature, transform, weight| Term {
        feature,
        null: NullPolicy::Value(0.0),
        transform,
        standardise: None,
        weight,
    };
    let terms = vec![
        term(Feature::RetStd, Transform::None, 800.0),
        term(Feature::Return(1), Transform::Abs, 50.0),
        term(Feature::OrderBookImbalance, Transform::None, 0.3),
        term(Feature::SpreadZ, Transform::None, 0.2),
        term(Feature::TradeIntensity, Transform::None, 0.01),
    ];
    Arc::new(Model {
        name: "spike".into(),
        version: "1".into(),
        kind: ModelKind::Logistic(Logistic { intercept: -2.0, terms }),
        decision_threshold: 0.5,
        horizon: 60 * SECOND,
        sha256: "abc".into(),
    })
}

/// A rule on the probability of each tick, and two on metrics of each second.
pub fn rules() -> Arc<[Rule]> {
    let rule = |name: &str, signal, raise, zscore| Rule {
        name: name.into(),
        signal,
        instruments: vec!["*".to_owned()],
        priority: Priority::P2,
        direction: Direction::Above,
        raise,
        clear: raise / 2.0,
        zscore,
        critical: None,
        hold: 0,
        resolve_for: 10 * SECOND,
        cooldown: 60 * SECOND,
        enabled: true,
    };
    [
        rule("probability", Signal::Probability, 0.8, None),
        rule("spread", Signal::Metric(Metric::SpreadBps), 50.0, None),
        rule("volatility", Signal::Metric(Metric::RealisedVol), 1e-3, Some(3.0)),
    ]
    .into()
}
