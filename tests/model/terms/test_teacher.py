"""The mean teacher: the moving average, and what pseudo-labels and their quality are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.terms.teacher import (
    averaging,
    labels_by_class,
    labels_by_image,
    teacher_of,
    update_teacher,
)
from model.terms.thresholds import ClassThresholds
from tests.twins import plus


def test_the_teacher_is_the_moving_average_of_the_twin() -> None:
    g = torch.Generator().manual_seed(0)
    student = nn.Linear(3, 2, bias=False)
    teacher = teacher_of(student)
    history = []
    for step in range(8):
        student.weight.data = torch.randn(2, 3, generator=g)
        history.append(student.weight.flatten().tolist())
        update_teacher(teacher, student, averaging(step, 0.6))
        assert teacher.weight.flatten().tolist() == pytest.approx(plus.teacher(history, 0.6), abs=1e-6)


def test_the_first_step_copies_the_student_and_late_ones_keep_all_but_a_thousandth() -> None:
    assert [averaging(step, 0.999) for step in (0, 1, 3)] == [0.0, 0.5, 0.75]
    assert averaging(10_000, 0.999) == 0.999


def test_buffers_are_copied_and_the_teacher_learns_no_gradient() -> None:
    student = nn.BatchNorm1d(2)
    teacher = teacher_of(student)
    student(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    update_teacher(teacher, student, 0.999)
    own, given = dict(teacher.named_buffers()), dict(student.named_buffers())
    assert own["running_mean"].tolist() == given["running_mean"].tolist() != [0, 0]
    assert int(own["num_batches_tracked"]) == 1
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_quality_is_the_share_of_pixels_above_the_threshold_by_hand() -> None:
    # Soft-max 0.9, 0.5, 0.8, 0.75 of the first image; all 1/2 in the second.
    odds = torch.tensor([[[9.0, 1.0], [1 / 4, 1 / 3]], [[1.0, 1.0], [1.0, 1.0]]])
    logits = torch.stack([odds.log(), torch.zeros_like(odds)], 1)
    found = labels_by_image(logits, torch.ones(2, 2, 2, dtype=torch.bool), 0.78)
    assert found.labels.tolist() == [[[0, 0], [1, 1]], [[0, 0], [0, 0]]] and found.labels.dtype == torch.uint8
    assert found.sure.tolist() == [[[True, False], [True, False]], [[False, False], [False, False]]]
    assert found.quality.tolist() == [0.5, 0.0]


def test_labels_that_are_not_sure_for_their_class_are_ignored() -> None:
    odds = torch.tensor([[[9.0, 1.5], [1 / 4, 1 / 3]]])  # class 0 at 0.9 and 0.6, class 1 at 0.8 and 0.75
    logits = torch.stack([odds.log(), torch.zeros_like(odds)], 1)
    thresholds, shown = ClassThresholds(2, logits.device), torch.ones(1, 2, 2, dtype=torch.bool)
    found = labels_by_class(logits, shown, thresholds, 255, learn=False)
    assert found.labels.tolist() == [[[0, 0], [1, 1]]] and not thresholds.counts.any()
    found = labels_by_class(logits, shown, thresholds, 255)
    assert found.labels.tolist() == [[[0, 255], [1, 255]]] and found.labels.dtype == torch.uint8
    assert torch.equal(found.sure, found.labels != 255) and found.quality.tolist() == [1.0]


def test_pseudo_labels_are_those_of_the_up_sampled_soft_max() -> None:
    logits = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    up = nn.functional.interpolate(logits, (9, 17), mode="bilinear", align_corners=True).softmax(1)
    found = labels_by_image(logits, torch.ones(2, 9, 17, dtype=torch.bool), 0.5)
    assert torch.equal(found.sure, up.amax(1) > 0.5)
    assert torch.equal(found.labels.long(), up.argmax(1))
    torch.testing.assert_close(found.quality, (up.amax(1) > 0.5).float().mean((1, 2)))


def test_a_border_has_no_labels_and_does_not_count() -> None:
    odds = torch.tensor([[[9.0, 9.0], [1 / 4, 1 / 3]]])  # class 0 at 0.9, class 1 at 0.8 and 0.75
    logits = torch.stack([odds.log(), torch.zeros_like(odds)], 1)
    shown = torch.tensor([[[True, False], [True, True]]])
    found = labels_by_image(logits, shown, 0.78)
    assert found.labels.tolist() == [[[0, 255], [1, 1]]]
    assert found.sure.tolist() == [[[True, False], [True, False]]]
    assert found.quality.tolist() == [pytest.approx(2 / 3)]
    thresholds = ClassThresholds(2, logits.device)
    found = labels_by_class(logits, shown, thresholds)
    assert found.labels.tolist() == [[[0, 255], [1, 255]]] and not found.sure[0, 0, 1]
    assert thresholds.counts.sum(1).tolist() == [1, 2]
