"""ImageNet feature distance by hand."""

from __future__ import annotations

import pytest
import torch

from model.terms.feature_distance import feature_distance


def test_only_patches_that_one_thing_covers_count() -> None:
    features = torch.zeros(1, 2, 2, 2)
    features[0, :, 0, 0] = torch.tensor([3.0, 4.0])
    features[0, :, 0, 1] = 100.0  # half road
    features[0, :, 1, 0] = torch.tensor([0.0, 1.0])
    features[0, :, 1, 1] = 100.0  # half of one thing and half of another
    labels = torch.zeros(1, 4, 8)
    labels[0, :2, :4] = 5  # all of the first patch
    labels[0, :2, 4:6] = 5
    labels[0, 2:, 1:4] = 6  # three quarters
    labels[0, 2:, 4:6], labels[0, 2:, 6:] = 5, 6
    features.requires_grad_()
    loss = feature_distance(features, torch.zeros(1, 2, 2, 2), labels, (5, 6))
    assert loss.item() == pytest.approx((5 + 1) / 2)
    (gradient,) = torch.autograd.grad(loss, features)
    torch.testing.assert_close(gradient[0, :, 0, 0], torch.tensor([0.3, 0.4]))
    assert not gradient[0, :, :, 1].any()


@pytest.mark.parametrize("things", [(), (5,)])
def test_without_things_or_at_no_distance_loss_and_gradient_are_zero(things: tuple[int, ...]) -> None:
    features = torch.ones(1, 2, 2, 2, requires_grad=True)
    loss = feature_distance(features, torch.ones(1, 2, 2, 2), torch.full((1, 4, 4), 5), things)
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss == 0 and not gradient.any()
