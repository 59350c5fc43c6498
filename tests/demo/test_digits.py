"""How the digits are split."""

import numpy as np
import pytest

from folkmoot.demo import digits


@pytest.fixture(scope="module")
def examples():
    return digits.load_digits()


def in_order(*parts):
    """All rows of images and labels, sorted, so that two sets of examples can be compared."""
    rows = np.concatenate([np.column_stack([part.images, part.labels]) for part in parts])
    return rows[np.lexsort(rows.T)]


def test_there_are_1797_real_images_of_ten_digits(examples):
    assert examples.images.shape == (1797, 64)
    assert set(examples.labels) == set(range(10))
    assert examples.images.min() == 0
    assert examples.images.max() == 1


@pytest.mark.parametrize("participants", [2, 3, 7, digits.MAX_PARTICIPANTS])
def test_every_image_is_either_held_out_or_in_exactly_one_share(examples, participants):
    split = digits.split(examples, participants)

    assert len(split.shares) == participants
    np.testing.assert_array_equal(in_order(split.held_out, *split.shares), in_order(examples))


@pytest.mark.parametrize("participants", [2, 3, 7, digits.MAX_PARTICIPANTS])
def test_the_largest_share_is_at_least_three_times_the_smallest_which_is_still_of_use(examples, participants):
    sizes = [len(share) for share in digits.split(examples, participants).shares]

    assert max(sizes) >= 3 * min(sizes)
    assert min(sizes) >= 20


def test_no_held_out_image_is_in_a_share(examples):
    split = digits.split(examples, 3)
    held_out = {image.tobytes() for image in split.held_out.images}

    assert not any(image.tobytes() in held_out for share in split.shares for image in share.images)


def test_a_fifth_of_every_digit_is_held_out(examples):
    held_out = digits.split(examples, 3).held_out

    for label in range(10):
        assert np.sum(held_out.labels == label) == round(np.sum(examples.labels == label) / 5)


def test_the_same_seed_gives_the_same_split_and_another_seed_another(examples):
    first, again, other = (digits.split(examples, 3, seed=seed) for seed in (5, 5, 1000))

    for share, same in zip(first.shares, again.shares, strict=True):
        np.testing.assert_array_equal(share.images, same.images)
    assert [len(share) for share in first.shares] != [len(share) for share in other.shares]
