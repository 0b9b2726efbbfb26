//! The trees of a model file, and the file of XGBoost that it names.

use foreshock_operators::feature::Feature;
use foreshock_operators::model::forest::FEATURES_MAX;
use foreshock_operators::model::{BoostedTrees, NullPolicy, TreeFeature};
use foreshock_operators::time::Nanos;
use sha2::Digest;

use super::{Sources, features, reference, xgboost};
use crate::documents::file::FileRef;
use crate::documents::kind::{NumberRange, Setting, ValueKind};
use crate::documents::section::{Report, Section};

/// The largest file of trees: XGBoost writes about 80 bytes a node.
const MAX_TREES_BYTES: usize = 64 << 20;

/// Trees, and the file of XGBoost that they stand in: `None`, noted, where that can't be read.
pub(super) fn read(section: &mut Section, sources: &mut Sources) -> Option<BoostedTrees> {
    let mut known: Vec<TreeFeature> = Vec::new();
    let entries = features(section, FEATURES_MAX);
    let count = entries.len();
    for mut entry in entries {
        if let Some(feature) = tree_feature(&mut entry, sources.horizons) {
            if known.iter().any(|other| other.feature == feature.feature) {
                entry.refuse("name", "found a second time");
            }
            known.push(feature);
        }
        entry.finish();
    }
    let Some(Setting::Text(file)) = section.required("trees", ValueKind::File) else { return None };
    let file = FileRef::named(&file, &sources.document.folder)
        .and_then(|file| file.read_up_to(MAX_TREES_BYTES))
        .map_err(|problem| section.refuse("trees", problem))
        .ok()?;
    sources.hash.update(&file.bytes);
    // Without all features their number would be blamed, too.
    if known.len() < count || count == 0 {
        return None;
    }
    let names: Vec<Feature> = known.iter().map(|feature| feature.feature).collect();
    match xgboost::read(&file.bytes, &names, sources.horizons) {
        Ok(trees) => Some(BoostedTrees { features: known, trees }),
        Err(problems) => {
            let report = Report::new(file.name);
            problems
                .into_iter()
                .for_each(|xgboost::TreeFileProblem { path, problem }| report.add(0, &path, problem));
            sources.errors.absorb(report.into_errors());
            None
        }
    }
}

fn tree_feature(section: &mut Section, horizons: &[Nanos]) -> Option<TreeFeature> {
    let feature = reference(section, horizons);
    let null = match section.required("null", ValueKind::NumberOr(NumberRange::Any, &["missing", "refuse"])) {
        Some(Setting::Number(v)) => Some(NullPolicy::Value(v)),
        Some(Setting::Word("missing")) => None,
        _ => Some(NullPolicy::Refuse),
    };
    Some(TreeFeature { feature: feature?, null })
}
