//! The logistic regression of a model file.

use foreshock_operators::model::logistic::TERMS_MAX;
use foreshock_operators::model::{Logistic, NullPolicy, Term, Transform};
use foreshock_operators::time::Nanos;

use super::{features, null_policy, reference};
use crate::documents::kind::NumberRange;
use crate::documents::section::Section;

/// Reads the keys of this kind.
pub fn read(section: &mut Section, horizons: &[Nanos]) -> Logistic {
    let intercept = section.number("intercept", NumberRange::Any);
    let mut terms: Vec<Term> = Vec::new();
    for mut feature in features(section, TERMS_MAX) {
        if let Some(term) = term(&mut feature, horizons) {
            if terms.iter().any(|other| other.feature == term.feature && other.transform == term.transform) {
                feature.refuse("name", "found a second time with the same transform");
            }
            terms.push(term);
        }
        feature.finish();
    }
    Logistic { intercept, terms }
}

fn term(section: &mut Section, horizons: &[Nanos]) -> Option<Term> {
    let feature = reference(section, horizons);
    let weight = section.number("weight", NumberRange::Any);
    let null = null_policy(section);
    const TRANSFORMS: [&str; Transform::ALL.len()] = {
        let mut names = [""; Transform::ALL.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = Transform::ALL[at].name();
            at += 1;
        }
        names
    };
    let word = section.choice("transform", &TRANSFORMS);
    let transform =
        Transform::ALL.into_iter().find(|transform| Some(transform.name()) == word).unwrap_or_default();
    if let (Transform::Log, NullPolicy::Value(v)) = (transform, null)
        && v <= 0.0
    {
        section.refuse(
            "null",
            format!("found {v}, expected a number above 0 or refuse, since its logarithm is taken"),
        );
    }
    let mean = section.optional_number("mean", NumberRange::Any);
    let scale = section.optional_number("scale", NumberRange::Positive);
    let given = |key| section.keys().any(|name| name == key);
    if given("mean") != given("scale") {
        let (there, missing) = if given("mean") { ("mean", "scale") } else { ("scale", "mean") };
        section.refuse(there, format!("found without {missing}, expected both or neither"));
    }
    Some(Term { feature: feature?, null, transform, standardise: mean.zip(scale), weight })
}
