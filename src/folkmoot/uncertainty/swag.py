"""Models drawn from a normal distribution around a training's mean: diagonal SWAG, with moments from participants.

Source: Maddox et al. 2019, section 3.2 and Algorithm 1, https://arxiv.org/abs/1902.02476. There the moments are those
of one optimizer's steps; here each participant's, merged as means weighted by sample size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidValue, NonFinite
from folkmoot.uncertainty.outputs import Float64s


def deviation(first_moment: npt.ArrayLike, second_moment: npt.ArrayLike) -> Float64s:
    """The standard deviation of every parameter, (parameters,), in the parameters' units.

    The moments are the means of the parameters and of their squares, flat and in parameter order. A variance that
    rounding has made negative is 0; where moments are float32, rounding alone can make a deviation of some 3e-4 of the
    parameter's magnitude. Raises InvalidValue, NonFinite. Source: Maddox et al. 2019, section 3.2.
    """
    first, second = _checked("first_moment", first_moment), _checked("second_moment", second_moment)
    if first.shape != second.shape:
        raise InvalidValue(f"second_moment has {second.size} values, first_moment {first.size}")
    return np.sqrt(np.maximum(second - first**2, 0))


def draw(first_moment: npt.ArrayLike, second_moment: npt.ArrayLike, *, members: int, seed: int) -> Iterator[Float64s]:
    """So many independent sets of parameters, one after another, each float64 of shape (parameters,).

    A seed gives the same members again, and more of them begins with the same. Raises InvalidValue, NonFinite, at
    once. Source: Maddox et al. 2019, Algorithm 1, with the diagonal covariance alone.
    """
    if members < 1:
        raise InvalidValue(f"members is {members}; expected at least 1")
    deviations = deviation(first_moment, second_moment)
    mean = _checked("first_moment", first_moment)
    seeds = np.random.SeedSequence(seed).spawn(members)
    return (mean + deviations * np.random.default_rng(each).standard_normal(mean.size) for each in seeds)


def _checked(name: str, moment: npt.ArrayLike) -> Float64s:
    checked = np.asarray(moment, dtype=np.float64)
    if checked.ndim != 1:
        raise InvalidValue(f"{name} has the shape {checked.shape}; expected one flat vector")
    if not np.isfinite(checked).all():
        raise NonFinite(f"{name} holds NaN or infinity")
    return checked
