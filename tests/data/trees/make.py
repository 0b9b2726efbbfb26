#!/usr/bin/env python3
"""Trains small XGBoost models of every sort that is read, and writes what XGBoost says of some rows.

    pip install xgboost scikit-learn
    python3 make.py FOLDER

FOLDER gets a NAME.json for each, XGBoost's own without its statistics, and expected.json: the rows (null is missing)
and for each model the 32 bits of its probabilities in hex, by XGBClassifier.predict_proba where there is one (it stops
at the best iteration) and else by Booster.predict.
"""

import json
import pathlib
import sys

import numpy as np
import xgboost as xgb

NAMES = ["ret_std", "return_1s", "spread_z", "trade_intensity"]


def ticks(rng, count):
    rows = rng.normal(size=(count, len(NAMES))).round(4)
    plain = rows.copy()
    rows[rng.random(rows.shape) < 0.05] = np.nan
    pull = plain[:, 0] + 0.5 * plain[:, 1] - 0.3 * plain[:, 2] * plain[:, 3] + rng.normal(0, 1, count)
    return rows, (pull > 0.3).astype(int)


def frame(rows, labels=None):
    return xgb.DMatrix(rows, labels, feature_names=NAMES)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20261128)
    (rows, spikes), (held, held_spikes), (asked, _) = ticks(rng, 400), ticks(rng, 200), ticks(rng, 60)
    models, expected = {}, {}

    def classifier(name, kind=xgb.XGBClassifier, stop=None, **settings):
        model = kind(max_depth=3, random_state=1, n_jobs=1, early_stopping_rounds=stop, **settings)
        if stop:
            model.fit(rows, spikes, eval_set=[(held, held_spikes)], verbose=False)
        else:
            model.fit(rows, spikes)
        models[name] = model.get_booster()
        models[name].feature_names = NAMES
        if settings.get("booster") == "dart":
            # The other way, inplace_predict, rounds the sum of dart differently.
            most = model.best_iteration + 1 if stop else 0
            expected[name] = models[name].predict(frame(asked), iteration_range=(0, most))
        else:
            expected[name] = model.predict_proba(asked)[:, 1]

    classifier("plain", n_estimators=8)
    classifier("stopped", n_estimators=60, learning_rate=0.6, stop=5)
    classifier("stopped-at-once", n_estimators=30, learning_rate=3.0, stop=8)
    classifier("stopped-parallel", n_estimators=40, num_parallel_tree=3, subsample=0.6, learning_rate=0.8, stop=4)
    classifier("parallel", n_estimators=4, num_parallel_tree=3, subsample=0.6)
    classifier("forest", lambda early_stopping_rounds, **other: xgb.XGBRFClassifier(**other), n_estimators=9)
    classifier("base-score", n_estimators=4, base_score=0.125)
    classifier("weighted", n_estimators=4, scale_pos_weight=3.0)
    classifier("logistic", n_estimators=4, objective="reg:logistic")
    classifier("lossguide", n_estimators=4, grow_policy="lossguide", max_leaves=6, tree_method="hist")
    classifier("exact", n_estimators=4, tree_method="exact")
    classifier("monotone", n_estimators=4, monotone_constraints="(1,0,0,0)")
    classifier("dart", booster="dart", n_estimators=12, rate_drop=0.4, learning_rate=0.6)
    classifier("dart-stopped", booster="dart", n_estimators=40, rate_drop=0.2, learning_rate=0.9, stop=4)
    classifier("dart-parallel", booster="dart", n_estimators=5, num_parallel_tree=2, subsample=0.6, rate_drop=0.5)

    # Trained on from where another had stopped: the attribute stays, and predict_proba obeys it.
    more = xgb.train({"objective": "binary:logistic", "max_depth": 3}, frame(rows, spikes), 4, xgb_model=models["stopped"])
    models["continued"] = more
    more.save_model(folder / "continued.json")
    again = xgb.XGBClassifier()
    again.load_model(folder / "continued.json")
    again.n_classes_ = 2
    expected["continued"] = again.predict_proba(asked)[:, 1]
    models["sliced"] = models["stopped"][: models["stopped"].best_iteration + 1]
    expected["sliced"] = models["sliced"].predict(frame(asked))

    for name, model in models.items():
        model.save_model(folder / f"{name}.json")
        saved = json.loads((folder / f"{name}.json").read_text())
        booster = saved["learner"]["gradient_booster"]
        for tree in booster.get("gbtree", booster)["model"]["trees"]:
            for statistic in ["base_weights", "loss_changes", "sum_hessian", "parents"]:
                del tree[statistic]
        (folder / f"{name}.json").write_text(json.dumps(saved, separators=(",", ":")) + "\n")
    bits = {name: [f"{p:08x}" for p in np.asarray(given, np.float32).view(np.uint32)] for name, given in expected.items()}
    told = {
        "version": xgb.__version__,
        "names": NAMES,
        "rows": [[None if np.isnan(value) else float(value) for value in row] for row in asked],
        "probabilities": bits,
    }
    (folder / "expected.json").write_text(json.dumps(told, separators=(",", ":")).replace('"], "', '"],\n"') + "\n")
    for name, model in sorted(models.items()):
        print(name, model.num_boosted_rounds(), model.attributes().get("best_iteration"))


main()
