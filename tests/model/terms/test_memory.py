"""The source memory compared with its twin, which checks and writes one vector at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.terms.borders import BORDER_COLOUR
from model.terms.memory import Gather, RingBuffers, SourceMemory, correct_labels, predicted_labels, recognised
from tests.twins import memory as twin
from tests.twins.cases import SIZES, Case, random_case, split_of

# ---------------------------------------------------------------- correct labels


@pytest.mark.parametrize(
    ("size_in", "size_out"),
    [
        ((1, 1), (1, 1)),
        ((7, 5), (7, 5)),
        ((72, 128), (10, 17)),
        ((100, 3), (13, 3)),
        ((9, 9), (13, 20)),
        ((33, 64), (5, 8)),
    ],
)
def test_labels_are_resized_as_interpolate_rounds_and_lose_what_is_predicted_wrongly(
    size_in: tuple[int, int], size_out: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2, *size_in), generator=generator)
    labels[labels == 2] = 255
    logits = torch.randn(2, 3, *size_out, generator=generator)
    expected = [twin.correct_labels(scores, label) for scores, label in zip(logits, labels)]
    assert correct_labels(logits, labels).tolist() == expected
    assert correct_labels(logits, labels.to(torch.uint8)).tolist() == expected


@pytest.mark.parametrize(
    ("size_in", "size_out"), [(720, 91), (1280, 161), (512, 65), (1024, 129), (320, 41), (180, 24)]
)
def test_the_sizes_of_training_are_resized_as_interpolate_rounds(size_in: int, size_out: int) -> None:
    labels = torch.arange(size_in) % 250
    logits = torch.zeros(1, 250, 1, size_out)
    expected = twin.resized([labels.tolist()], 1, size_out)[0]
    logits.scatter_(1, torch.tensor(expected)[None, None, None], 1.0)
    assert correct_labels(logits, labels[None, None]).tolist() == [[expected]]


def test_correct_labels_by_hand() -> None:
    labels = torch.tensor([[[0, 1, 1, 1], [0, 0, 0, 0]]])
    logits = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # predicts 0 on the left, 1 on the right
    assert correct_labels(logits, labels).tolist() == [[[0, 1]]]
    assert correct_labels(-logits, labels).tolist() == [[[255, 255]]]


def test_predicted_labels_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0, 0.0]], [[1.0, 3.0, 4.0]]])[None]
    images = torch.zeros(1, 3, 2, 6, dtype=torch.uint8)
    assert predicted_labels(logits, images).tolist() == [[[0, 1, 1]]]
    images[..., 4:] = torch.tensor(BORDER_COLOUR, dtype=torch.uint8)[:, None, None]
    assert predicted_labels(logits, images).tolist() == [[[0, 1, 255]]]


# ---------------------------------------------------------------- ring buffers


def write_one_by_one(rings: list[twin.Ring], vectors: Tensor, accepted: Tensor) -> None:
    for ring, row, flags in zip(rings, vectors, accepted.tolist()):
        for vector, flag in zip(row, flags):
            if flag:
                ring.write(vector)


def assert_same(buffers: RingBuffers, rings: list[twin.Ring], tolerance: float = 0.0) -> None:
    assert buffers.count.tolist() == [ring.count for ring in rings]
    assert buffers.ready.tolist() == [ring.ready for ring in rings]
    for entries, ring in zip(buffers.entries, rings):
        torch.testing.assert_close(entries.double(), torch.stack(ring.slots), rtol=tolerance, atol=tolerance)
    for mean, ring in zip(buffers.mean(), rings):
        torch.testing.assert_close(mean.double(), ring.mean(), rtol=1e-5, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 7), st.integers(0, 3), st.lists(st.integers(0, 20), min_size=1, max_size=5), st.integers(0, 2**31)
)
def test_writing_at_once_equals_writing_one_by_one(size: int, number: int, calls: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    buffers, rings = RingBuffers(number, size, 2), [twin.Ring(size, 2) for _ in range(number)]
    for length in calls:
        vectors = torch.randn(number, length, 2, generator=generator)
        accepted = torch.rand(number, length, generator=generator) < 0.7
        buffers.write(vectors, accepted)
        write_one_by_one(rings, vectors, accepted)
        assert_same(buffers, rings)


@pytest.mark.parametrize(
    ("writes", "ready"), [(0, False), (3, False), (4, False), (5, True), (8, True), (9, True), (13, True)]
)
@pytest.mark.parametrize("at_once", [False, True])
def test_a_buffer_of_four_is_ready_from_the_fifth_write_on(writes: int, ready: bool, at_once: bool) -> None:
    buffers, ring = RingBuffers(1, 4, 1), twin.Ring(4, 1)
    vectors = torch.arange(1.0, writes + 1).view(1, writes, 1)
    for part in [vectors] if at_once else vectors.split(1, 1):
        buffers.write(part, torch.ones(part.shape[:2], dtype=torch.bool))
    write_one_by_one([ring], vectors, torch.ones(1, writes, dtype=torch.bool))
    assert_same(buffers, [ring])
    assert buffers.ready.tolist() == [ready]


def test_the_ring_by_hand() -> None:
    buffers = RingBuffers(2, 3, 1)
    vectors = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]])[..., None]
    buffers.write(vectors, torch.tensor([[True, True, False, True, True], [False, True, False, False, False]]))
    assert buffers.entries[..., 0].tolist() == [[5.0, 2.0, 4.0], [7.0, 0.0, 0.0]]
    assert buffers.count.tolist() == [4, 1] and buffers.ready.tolist() == [True, False]


def test_entries_are_detached_float32_copies() -> None:
    buffers = RingBuffers(1, 2, 3)
    vectors = torch.rand(1, 1, 3, dtype=torch.float64, requires_grad=True)
    buffers.write(vectors, torch.ones(1, 1, dtype=torch.bool))
    kept = buffers.entries[0, 0].clone()
    vectors.data.zero_()
    assert buffers.entries.dtype == torch.float32 and not buffers.entries.requires_grad
    assert torch.equal(buffers.entries[0, 0], kept) and kept.any()


# ---------------------------------------------------------------- update


def rings_of(memory: twin.Memory, ids: tuple[int, ...]) -> list[twin.Ring]:
    return [memory.rings[c] for c in ids]


def assert_same_memory(ours: SourceMemory, expected: twin.Memory) -> None:
    assert_same(ours.stuff, rings_of(expected, ours.split.stuff), 1e-5)
    assert_same(ours.things, rings_of(expected, ours.split.things), 1e-5)
    means, ready = ours.centroids()
    for c in range(ours.split.num_classes):
        if c not in expected.rings:
            assert not ready[c]
            continue
        assert bool(ready[c]) == expected.rings[c].ready
        torch.testing.assert_close(means[c].double(), expected.rings[c].mean(), rtol=1e-5, atol=1e-6)


def update_both(case: Case, ours: SourceMemory, expected: twin.Memory) -> None:
    ours.update(case.features, case.correct(), case.classify)
    expected.update(case.features, case.logits, case.labels, case.classifier)
    assert_same_memory(ours, expected)


@pytest.mark.parametrize("num_prototype", [1, 3])
@pytest.mark.parametrize(("batch", "classes", "height", "width"), SIZES)
def test_updates_equal_the_twin(batch: int, classes: int, height: int, width: int, num_prototype: int) -> None:
    first = random_case(0, batch, classes, height, width)
    ours, expected = first.memories(num_prototype)
    for seed in range(5):
        update_both(random_case(seed, batch, classes, height, width), ours, expected)


def test_rejected_regions_and_several_wraps_occur_in_these_cases() -> None:
    case = random_case(0, 2, 19, 11, 20, noise=2.0)
    ours, expected = case.memories(1)
    offered = 0
    for seed in range(5):
        case = random_case(seed, 2, 19, 11, 20, noise=2.0)
        update_both(case, ours, expected)
        for scores, label in zip(case.logits, case.labels):
            right = twin.correct_labels(scores, label)
            offered += sum(any(c in row for row in right) for c in case.split.stuff)
    assert 0 < ours.stuff.count.sum() < offered
    assert ours.stuff.count.max() > 2


def test_more_instances_in_a_call_than_slots_keep_the_last() -> None:
    """Four images of ten instances each, in a memory of ten."""
    split = split_of(2)
    labels = torch.zeros(4, 3, 21, dtype=torch.int64)
    labels[:, 1, 1::2] = 1
    features = torch.rand(4, 2, 3, 21)
    logits = torch.nn.functional.one_hot(labels, 2).permute(0, 3, 1, 2).float()
    case = Case(split, features, labels, logits, labels, torch.zeros(2, 2), torch.tensor([0.0, 1.0]))
    ours, expected = case.memories(1)
    update_both(case, ours, expected)
    assert ours.things.count.tolist() == [40] and ours.stuff.count.tolist() == [0]
    first_to_tenth = features[3, :, 1, 1:20:2].T  # equal sizes, so they come in raster order
    torch.testing.assert_close(ours.things.entries[0], first_to_tenth)


def test_a_full_size_map_equals_the_twin() -> None:
    case = random_case(1, 1, 19, 91, 161, dim=4)
    ours, expected = case.memories(2)
    update_both(case, ours, expected)


def test_labels_at_image_size_are_resized_first() -> None:
    case = random_case(2, 2, 7, 9, 12)
    case.labels = case.labels.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :70, :95]
    ours, expected = case.memories(2)
    update_both(case, ours, expected)
    assert ours.stuff.count.sum() > 0


@pytest.mark.parametrize("what", ["ignored", "all wrong"])
def test_an_image_without_a_right_pixel_writes_nothing(what: str) -> None:
    case = random_case(3, 2, 5, 6, 7)
    if what == "ignored":
        case.labels = torch.full_like(case.labels, 255)
    else:
        case.labels = (case.logits.argmax(1) + 1) % 5
    ours, _ = case.memories(2)
    ours.update(case.features, case.correct(), case.classify)
    assert not ours.stuff.count.any() and not ours.things.count.any()
    assert not ours.stuff.entries.any() and not ours.things.entries.any()


def test_zero_features_are_judged_by_the_bias() -> None:
    case = random_case(4, 1, 4, 8, 8)
    case.features = torch.zeros_like(case.features)
    case.labels = case.logits.argmax(1)
    case.bias = torch.tensor([0.0, 0.0, 1.0, 0.0])
    ours, expected = case.memories(2)
    update_both(case, ours, expected)
    assert ours.stuff.count.tolist() == [0, 1] and not ours.things.count.any()


def test_an_acceptance_tie_goes_to_the_lower_class() -> None:
    vectors, ids = torch.ones(2, 1, 3), torch.tensor([0, 1])
    accepted = recognised(vectors, ids, lambda x: torch.zeros(len(x), 2))
    assert accepted.tolist() == [[True], [False]]


def test_an_update_under_autocast_equals_one_in_float32_on_the_same_features() -> None:
    case = random_case(5, 2, 5, 8, 9)
    features = case.features.bfloat16()
    low, _ = case.memories(2)
    high, _ = case.memories(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low.update(features, case.correct(), case.classify)
    high.update(features.float(), case.correct(), case.classify)
    assert low.stuff.entries.dtype == torch.float32
    assert torch.equal(low.stuff.entries, high.stuff.entries) and torch.equal(low.things.entries, high.things.entries)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_memory_may_lack_things_or_stuff(classes: int) -> None:
    case = random_case(6, 2, classes, 6, 6)
    for stuff, things in (((), (1, 0)), ((1,), ())):
        case.split = type(case.split)(classes, stuff, things)
        ours, expected = case.memories(1)
        update_both(case, ours, expected)


def test_a_memory_that_gathers_from_two_processes_equals_one_that_sees_both_images() -> None:
    case = random_case(9, 2, 19, 11, 20)
    sent: list[list[Tensor]] = []

    def note(tensors: list[Tensor]) -> list[Tensor]:
        sent.append(tensors)
        return tensors

    def memory_of(gather: Gather | None, images: slice) -> SourceMemory:
        memory = SourceMemory(case.split, case.features.shape[1], 1, gather=gather)
        memory.update(case.features[images], case.correct(images), case.classify)
        return memory

    for image in (slice(0, 1), slice(1, 2)):
        memory_of(note, image)
    assert [t.shape for t in sent[0]] == [t.shape for t in sent[1]]
    ours = memory_of(lambda _: [torch.cat(pair, 1) for pair in zip(*sent)], slice(0, 1))
    whole = memory_of(None, slice(0, 2))
    for mine, expected in ((ours.stuff, whole.stuff), (ours.things, whole.things)):
        assert mine.count.tolist() == expected.count.tolist() and expected.count.max() > 1
        torch.testing.assert_close(mine.entries, expected.entries)


def test_things_have_ten_times_the_slots() -> None:
    memory = SourceMemory(split_of(5), 3, num_prototype=4)
    assert memory.stuff.entries.shape == (3, 4, 3) and memory.things.entries.shape == (2, 40, 3)


def test_a_restored_memory_continues_as_the_saved_one() -> None:
    case, later = random_case(7, 2, 5, 8, 9), random_case(8, 2, 5, 8, 9)
    saved, expected = case.memories(1)
    update_both(case, saved, expected)
    restored, _ = case.memories(1)
    state = saved.state_dict()
    saved.update(later.features, later.correct(), later.classify)
    restored.load_state_dict(state)
    update_both(later, restored, expected)
    assert torch.equal(saved.stuff.entries, restored.stuff.entries)
    assert torch.equal(saved.things.entries, restored.things.entries)


def test_a_memory_of_another_size_is_refused() -> None:
    state = SourceMemory(split_of(5), 3, 2).state_dict()
    with pytest.raises(ValueError, match=r"\(3, 2, 3\), expected \(3, 4, 3\)"):
        SourceMemory(split_of(5), 3, 4).load_state_dict(state)


def test_entries_are_contiguous_so_that_the_search_for_the_nearest_copies_nothing() -> None:
    buffers = RingBuffers(3, 5, 2)
    assert buffers.entries.is_contiguous() and buffers.entries.shape == (3, 5, 2)
