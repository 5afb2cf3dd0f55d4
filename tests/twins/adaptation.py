"""Twin of `model.methods.bafft.category_terms`: stuff matching, instance matching and ISIA of one target image."""

from __future__ import annotations

import torch
from torch import Tensor

from model.methods.bafft import Forms
from tests.twins import aim, isia, matching
from tests.twins.memory import Classifier, Memory
from tests.twins.regions import Features, Labels


def category_terms(
    features: Features, prediction: Labels, memory: Memory, classifier: Classifier, forms: Forms
) -> dict[str, Tensor]:
    split, rings = memory.split, memory.rings
    stuff = {}
    for c in split.stuff:
        x = features.centroid(prediction, c)
        if x is None and forms.absent_stuff:
            x = torch.zeros(memory.dim, dtype=torch.float64)
        if x is not None and rings[c].ready and classifier.says(x) == c:
            stuff[c] = x
    things = {c: features.instances(prediction, c) for c in split.things if rings[c].ready}

    stuff_d = {c: matching.distance(x, rings[c].slots) for c, x in stuff.items()}
    things_d = {c: [matching.distance(x, rings[c].slots) for x in xs] for c, xs in things.items()}
    stuff_a, things_a = aim.weights(stuff_d, things_d, forms.aim, forms.aim_beta)
    if forms.isia == "paper":
        centroids = {c: features.centroid(prediction, c) for c in sorted(rings)}
        present = {c: x for c, x in centroids.items() if x is not None}
        category = isia.isia(present, {c: ring.mean() for c, ring in rings.items() if ring.ready})
    else:
        category = isia.released_gap(stuff, things, memory.num_prototype)
    return {
        "adv_cls": matching.stuff_matching(stuff_d, stuff_a),
        "adv_ins": matching.instance_matching(things_d, things_a),
        "adv_cate": category,
    }
