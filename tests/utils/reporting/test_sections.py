"""What the sections of a report say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.messages import says
from tests.utils.reporting.samples import full, picture, points, stage
from utils.reporting import sections
from utils.reporting.features import Points
from utils.reporting.page import render
from utils.reporting.run import RunData

EMPTY = RunData("step1", [])


def test_what_was_run():
    body = sections.what(full()).body
    for part in (
        "<code>python train_step2.py --preset builtin</code>",
        "<code>--num-steps 40</code> <code>--input-size 96,64</code> <code>--cpu on</code>",
        "source: gta5:data/&lt;mine&gt;, 6 images",
        "8 images per step of each domain in 2 processes",
        "<dd>1:02:05</dd>",
        "1.5 GiB, on the GPU 4.0 GiB",
        "abc1234",
        "19, class table cityscapes",
        "<dt>Seed</dt><dd>7</dd>",
    ):
        assert part in body


def test_scores_of_three_stages_side_by_side():
    run = full()
    body = sections.scores([*run.beside, run]).body
    assert "<td>road</td><td>25.0</td><td>37.5</td><td>50.0</td>" in body
    assert "<td>train</td><td>–</td><td>–</td><td>–</td>" in body
    assert "<td>mean of 16</td><td>12.5</td><td>18.8</td><td>25.0</td>" in body
    assert body.count("<figure>") == 2 + 18  # two means, and every class but the absent one
    assert "road, stage 1: 37.5 %" in body and "no checkpoint was chosen by them" in body


def test_means_over_one_class_set_stand_side_by_side_whichever_set_is_the_main_one_of_a_run():
    a, b = stage("a", 0.5), stage("b", 0.375)
    scored = [{"step": 40, "miou": 0.3, "classes": "16", "miou_19": 0.11, "iou": a.last_table("iou")}]
    b = replace(b, records=scored)
    body = sections.scores([a, b]).body
    assert "<td>mean of 19</td><td>50.0</td><td>11.0</td>" in body
    assert "<td>mean of 16</td><td>25.0</td><td>30.0</td>" in body
    assert "a: 25 at step 40" in body and "b: 11 at step 40" in body
    overview = sections.overview([a, b]).body
    assert "<td>50.0 (19 classes)</td>" in overview and "<td>30.0 (16 classes)</td>" in overview


def test_a_mean_over_fewer_classes_than_its_set_says_so():
    a, b = stage("a", 0.5), stage("b", 0.375)
    b = replace(b, records=[*b.records, {**b.last_score, "step": 60, "averaged": {"19": 18}}])
    assert "<td>mean of 19</td><td>50.0</td><td>37.5 (over 18)</td>" in sections.scores([a, b]).body
    assert "<td>mean of 16</td><td>25.0</td><td>18.8</td>" in sections.scores([a, b]).body
    body = sections.overview([a, b, EMPTY]).body
    assert "<td>50.0 (19 classes)</td>" in body and "<td>37.5 (18 of 19 classes)</td>" in body and "<td>–</td>" in body
    assert "<small>18 of 19 classes</small>" in render(b)


def test_a_run_that_chose_by_target_labels_says_so():
    run = replace(stage("step1", 0.5), options={"select_on_target_labels": True})
    assert says(sections.scores([run]).body, "best.pth of stage 1 ... chosen")


def test_curves_are_grouped():
    body = sections.curves([full()], ["red"]).body
    order = [body.index(part) for part in ("Terms, unweighted", "<b>seg</b>", "<b>adv_cls</b>", "<b>D_output</b>")]
    assert order == sorted(order)
    assert "stage 2: 0.5 at step 40" in body
    assert "thinned" not in body


def test_the_share_of_each_terms_gradient_is_drawn():
    run = RunData("step1", [{"step": step, "seg": 1.0, "grad_seg": 2.0, "grad_adv_cls": 0.25} for step in (10, 20)])
    body = sections.curves([run], ["red"]).body
    order = [body.index(part) for part in ("<h3>Gradients", "<b>grad_seg</b>", "<b>grad_adv_cls</b>")]
    assert order == sorted(order) and "stage 1: 0.25 at step 20" in body


def test_a_picture_alone_is_named_once():
    body = sections.pictures([("style", picture("style", "style"))], {}).body
    assert body.count("style</") == 0 and "<h3>style" in body and "<figcaption>" not in body


def test_pictures_of_a_group_have_a_slider_that_starts_with_image_and_prediction():
    found = [(p.name, p) for p in full().pictures]
    body = sections.pictures(found, full().classes).body
    assert body.count('class="slider"') == 1 and body.count("data:image/png;base64,") == 3
    assert "<option value=0 selected>image</option>" in body and "<option value=2 selected>prediction</option>" in body
    assert "aspect-ratio:8/4" in body and "at step 40" in body
    assert 'class="slider"' not in sections.pictures([("one", picture("one", "one"))], {}).body


def test_pseudo_labels_by_class():
    body = sections.pseudo_labels(full()).body
    assert "50.0 % of all pixels have a pseudo-label. Never predicted: train." in body
    assert body.count("0.750</text>") == 2 and body.count(">50.0 %</text>") == 4
    assert body.count(">–</text>") == 3  # the class that is never predicted, in each chart


def test_the_memory_says_which_classes_wait():
    body = sections.source_memory(full(), "red").body
    assert "Not ready: car." in body and "road, filled: 100.0 %" in body and "car, filled: 50.0 %" in body
    assert "ready_things" in body


def test_the_confusion_matrix_is_of_rows():
    body = sections.confusion(full()).body
    assert "road → sidewalk: 10.0 %" in body and "<li>10.0 % of road is taken for sidewalk</li>" in body
    assert sections.row_shares([[1, 2], [0, 0]], [1, 0]) == [[0.25, 0.5], [None, None]]
    shares: list[list[float | None]] = [[0.5, 0.04, 0.46], [None, None, None], [0.05, 0.2, 0.75]]
    expected = [("a", "c", 0.46), ("c", "b", 0.2), ("c", "a", 0.05)]
    assert sections.largest_confusions(shares, ["a", "b", "c"]) == expected
    assert sections.largest_confusions(shares, ["a", "b", "c"], most=1) == expected[:1]


def test_label_free_scores_stand_beside_the_target_score():
    body = sections.label_free([full()], ["red"]).body
    assert [body.count(f"<b>{name}</b>") for name in ("snd", "infomax", "agreement", "miou")] == [1, 1, 1, 1]


def test_the_feature_map_shows_both_domains_before_and_after():
    body = sections.feature_map(full()).body
    assert body.count("before training") == body.count("after training") == 1
    assert (
        body.count("<title>road, centroid, source</title>") == body.count("<title>car, instance, target</title>") == 2
    )


def test_a_map_that_is_still_to_come_is_announced():
    run = full()
    assert run.after is not None
    body = sections.feature_map(replace(run, after=replace(run.after, layout=None))).body
    assert "before training" in body and says(body, "at the end ... python -m utils.report")
    assert "<b>after training</b>" not in body and "python -m utils.report" not in sections.feature_map(run).body


def test_the_domain_gap_is_relative_to_the_distance_between_classes():
    classes, target = np.array([0, 1, 0, 1], np.uint8), np.array([False, False, True, True])
    vectors = np.array([[0, 0], [10, 0], [0, 2], [10, 4]], np.float32)
    found = Points(vectors, classes, target, np.zeros(4, bool))
    assert sections.domain_gap(found) == pytest.approx(3 / 10)
    assert sections.domain_gap(replace(found, classes=np.zeros(4, np.uint8))) is None
    assert sections.domain_gap(replace(found, instance=np.ones(4, bool))) is None


@pytest.mark.parametrize(
    ("section", "word"),
    [
        (sections.what(EMPTY), "run.json"),
        (sections.scores([EMPTY]), "no labelled target images"),
        (sections.curves([EMPTY], ["red"]), "no numbers"),
        (sections.pictures([], {}), "panels/"),
        (sections.pseudo_labels(EMPTY), "pseudo-labels"),
        (sections.source_memory(EMPTY, "red"), "none"),
        (sections.confusion(EMPTY), "scores.json"),
        (sections.label_free([EMPTY], ["red"]), "none in log.jsonl"),
        (sections.feature_map(EMPTY), "no features"),
        (sections.feature_map(replace(EMPTY, after=replace(points(), layout=None))), "pip install scikit-learn"),
    ],
)
def test_a_section_without_data_says_why(section, word):
    assert not section.body and word in section.missing


def test_runs_that_differ_are_told_apart():
    a = replace(stage("a", 0.5), options={"learning_rate": 0.1, "cpu": True, "log_dir": "a"})
    b = replace(stage("b", 0.25), options={"learning_rate": 0.2, "cpu": True, "new": None})
    body = sections.overview([a, b]).body
    assert "<td><code>--learning-rate</code></td><td>0.1</td><td>0.2</td>" in body
    assert "--cpu" not in body and "--log-dir" not in body
    folders = [replace(a, options={"preset": name, "snapshot_dir": f"{name}/step1"}) for name in "xy"]
    body = sections.overview(folders).body
    assert "<td><code>--snapshot-dir</code></td><td>x/step1</td><td>y/step1</td>" in body
    assert "<td><code>--preset</code></td><td>x</td><td>y</td>" in body
    body = sections.overview([replace(a, options={"crop": [64, 32]}), replace(b, options={"crop": None})]).body
    assert "<td><code>--crop</code></td><td>64,32</td><td>none</td>" in body
    assert "<td>40</td><td>50.0</td>" in body and "<td>40</td><td>25.0</td>" in body
