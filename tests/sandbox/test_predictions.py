"""What a model in the sandbox answers is what it answers outside."""

from __future__ import annotations

import io

import numpy as np
import pytest

from folkmoot.errors import InvalidValue, ModelFailed, SchemaMismatch
from folkmoot.sandbox import Sampling

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def network():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3), nn.Softmax(-1)).eval()


def rows(count=5, width=4, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(count, width)).astype(dtype)


def outside(module, inputs):
    with torch.no_grad():
        return module(torch.from_numpy(inputs)).numpy()


def arrays_of(module):
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def exported(module):
    pytest.importorskip("onnxruntime")
    buffer = io.BytesIO()
    torch.onnx.export(
        module, (torch.zeros(1, 4),), buffer, dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"]
    )
    return buffer.getvalue()


KINDS = {"module": lambda each: each, "TorchScript": torch.jit.script, "ONNX": exported}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_answers_as_it_does_outside(kind, sandbox, model_of):
    model = model_of(KINDS[kind](network_of(1)))

    answer = sandbox.predict(model, rows())

    assert (answer.dtype, answer.shape) == (np.float32, (1, 5, 3))
    np.testing.assert_allclose(answer[0], outside(network_of(1), rows()), rtol=1e-5)


def network_of(seed):
    torch.manual_seed(seed)
    return network()


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_each_member_take_the_place_of_the_templates_own(kind, sandbox, model_of, part):
    members = [network_of(2), network_of(3)]
    weights = tuple(part(arrays_of(each)) for each in members)
    model = model_of(KINDS[kind](network_of(1)), weights=weights)

    for _ in range(2):  # the second time, other weights are in the model than the first
        answer = sandbox.predict(model, rows(), Sampling("ENSEMBLE"))
        np.testing.assert_allclose(answer, [outside(each, rows()) for each in members], rtol=1e-5)


def test_weights_of_another_model_are_refused(sandbox, model_of, part):
    other = part(arrays_of(nn.Linear(2, 2)))

    with pytest.raises(SchemaMismatch, match="bias is not in it"):
        sandbox.predict(model_of(network(), weights=(other,)), rows())


def test_weights_of_another_shape_are_refused(sandbox, model_of, part):
    other = part({"weight": np.zeros((1, 2), np.float32)})

    with pytest.raises(SchemaMismatch, match=r"weight is \(1, 2\), expected \(3, 2\)"):
        sandbox.predict(model_of(nn.Linear(2, 3), weights=(other,)), rows())


def test_bfloat16_weights_and_float64_inputs_meet(sandbox, model_of):
    module = nn.Linear(4, 2).bfloat16()

    answer = sandbox.predict(model_of(module), rows(dtype=np.float64))

    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer[0], module.float()(torch.from_numpy(rows())).detach(), rtol=0.05, atol=0.05)


def test_a_module_is_in_evaluation_mode_and_its_first_tensor_counts(sandbox, model_of):
    module = nn.Sequential(nn.BatchNorm1d(4), nn.LSTM(4, 2)).train()

    answer = sandbox.predict(model_of(module), rows())

    np.testing.assert_allclose(answer[0], module.eval()(torch.from_numpy(rows()))[0].detach(), rtol=1e-5)


def test_whole_numbers_come_back_as_float64(sandbox, model_of):
    assert sandbox.predict(model_of(nn.Flatten()), np.array([[1, 2]])).dtype == np.float64


def test_an_input_that_does_not_fit_is_named(sandbox, model_of):
    with pytest.raises(ModelFailed, match=r"raised RuntimeError for its input, float32 of shape \(5, 3\)"):
        sandbox.predict(model_of(network()), rows(width=3))


# Monte Carlo dropout


@pytest.mark.parametrize("kind", ["module", "TorchScript"])
def test_dropout_samples_have_the_mean_and_variance_that_the_masks_have(kind, sandbox, model_of):
    """One unit, kept with probability 0.75 and then scaled: mean 2, variance 4 * 0.25 / 0.75."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    model = model_of(KINDS[kind](nn.Sequential(layer, nn.Dropout(0.25))))

    samples = sandbox.predict(model, np.ones((3, 1), np.float32), Sampling("MC_DROPOUT", samples=4000))

    assert samples.shape == (4000, 3, 1)
    assert set(np.unique(samples.round(3))) == {0, np.float32(2.667)}
    np.testing.assert_allclose(samples.mean(axis=0), 2, atol=0.1)
    np.testing.assert_allclose(samples.var(axis=0), 4 / 3, atol=0.15)


def test_dropout_samples_of_one_row_are_not_those_of_another(sandbox, model_of):
    model = model_of(nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5)))

    first, second = sandbox.predict(model, np.ones((2, 4), np.float32), Sampling("MC_DROPOUT"))[0]

    assert (first != second).any()


def test_a_seed_gives_the_same_samples_and_another_seed_others(sandbox, model_of):
    model = model_of(network())
    first, again, other = (sandbox.predict(model, rows(), Sampling("MC_DROPOUT", 20, seed)) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_only_dropout_is_switched_to_sampling_and_only_for_the_samples(sandbox, model_of):
    normalised = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(1e-9)).eval()
    model = model_of(normalised)

    samples = sandbox.predict(model, rows(), Sampling("MC_DROPOUT", samples=3))

    np.testing.assert_allclose(samples, [outside(normalised, rows())] * 3, rtol=1e-5)
    np.testing.assert_allclose(sandbox.predict(model, rows())[0], outside(normalised, rows()), rtol=1e-5)


@pytest.mark.parametrize("kind", ["module", "TorchScript"])
def test_the_dropout_of_a_transformer_is_sampled(kind, sandbox, model_of):
    """In evaluation mode it takes a fast path that has none."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True)
    inputs = rows(6).reshape(2, 3, 4)

    samples = sandbox.predict(model_of(KINDS[kind](layer.eval())), inputs, Sampling("MC_DROPOUT", samples=8))

    assert samples.std(axis=0).min() > 0.01


def test_rows_that_depend_on_each_other_are_not_repeated_within_a_pass(sandbox, model_of):
    """The first axis of this one is time: repeated along it, later samples would see the earlier ones."""
    recurrent = nn.Sequential(nn.Dropout(1e-9), nn.LSTM(4, 2))

    samples = sandbox.predict(model_of(recurrent), rows(), Sampling("MC_DROPOUT", samples=4))

    np.testing.assert_allclose(samples, [recurrent.eval()(torch.from_numpy(rows()))[0].detach()] * 4, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_dropout_says_so(kind, sandbox, model_of):
    with pytest.raises(InvalidValue, match="no dropout layer"):
        sandbox.predict(model_of(KINDS[kind](nn.Linear(4, 2))), rows(), Sampling("MC_DROPOUT"))


@pytest.mark.parametrize("is_training", [True, False])
def test_a_trace_whose_dropout_cannot_be_switched_says_so(is_training, sandbox, model_of):
    """It would look sure of everything, or be unsure with each answer."""
    module = network().train(is_training)
    traced = torch.jit.trace(module, torch.zeros(1, 4), check_trace=False)

    with pytest.raises(InvalidValue, match=r"torch\.jit\.trace.* MC_DROPOUT needs .* torch\.jit\.script"):
        sandbox.predict(model_of(traced), rows(), Sampling("MC_DROPOUT"))


def test_dropout_of_everything_leaves_nothing(sandbox, model_of):
    samples = sandbox.predict(model_of(nn.Sequential(nn.Linear(4, 4), nn.Dropout(1.0))), rows(), Sampling("MC_DROPOUT"))

    assert not samples.any()


def test_members_and_dropout_go_together(sandbox, model_of, part):
    weights = tuple(part(arrays_of(network_of(seed))) for seed in (1, 2))

    samples = sandbox.predict(model_of(network(), weights=weights), rows(), Sampling("MC_DROPOUT", samples=3))

    assert samples.shape == (6, 5, 3)


# SWAG


def moments(mean, deviation):
    mean = np.asarray(mean, np.float64)
    return {"first_moment": mean, "second_moment": mean**2 + np.asarray(deviation, np.float64) ** 2}


@pytest.mark.parametrize("kind", KINDS)
def test_swag_draws_the_parameters_from_their_moments(kind, sandbox, model_of, part):
    """A weight of 2 +- 0.5 and a bias of -1 +- 0, at 4: a mean of 7 and a deviation of 2."""
    layer = nn.Linear(4, 1)
    in_order = [2, 2, 2, 2, -1] if kind != "ONNX" else [-1, 2, 2, 2, 2]
    deviation = [0.5, 0, 0, 0, 0] if kind != "ONNX" else [0, 0.5, 0, 0, 0]
    model = model_of(KINDS[kind](layer), moments=part(moments(in_order, deviation)))

    samples = sandbox.predict(model, np.array([[4, 0, 0, 0]], np.float32), Sampling("SWAG", samples=300))

    assert samples.shape == (300, 1, 1)
    assert samples.mean() == pytest.approx(7, abs=0.5)
    assert samples.std() == pytest.approx(2, abs=0.4)
    np.testing.assert_allclose(sandbox.predict(model, rows())[0], outside(layer, rows()), rtol=1e-5)


def test_swag_leaves_the_statistics_of_batches_as_they_are(sandbox, model_of, part):
    norm = nn.BatchNorm1d(1).eval()
    norm.running_mean.fill_(3.0)
    model = model_of(norm, moments=part(moments([1, 0], [0, 0])))

    samples = sandbox.predict(model, np.full((1, 1), 5, np.float32), Sampling("SWAG", samples=2))

    np.testing.assert_allclose(samples, 2, rtol=1e-3)


def test_moments_of_another_model_are_refused(sandbox, model_of, part):
    model = model_of(nn.Linear(4, 1), moments=part(moments([0, 0], [0, 0])))

    with pytest.raises(SchemaMismatch, match="the moments have 2 values; the model has 5 parameters"):
        sandbox.predict(model, rows(), Sampling("SWAG"))


def test_a_model_without_moments_says_so(sandbox, model_of):
    with pytest.raises(InvalidValue, match="no moments"):
        sandbox.predict(model_of(nn.Linear(4, 1)), rows(), Sampling("SWAG"))


# Preprocessing


@pytest.mark.parametrize("kind", ["module", "TorchScript"])
def test_a_preprocessing_module_makes_inputs_of_something_else(kind, sandbox, model_of, part):
    model = model_of(nn.Linear(4, 2), preprocessing=part(KINDS[kind](nn.Flatten())))
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)

    prepared = sandbox.preprocess(model, image)

    np.testing.assert_array_equal(prepared, [[0, 1, 2, 3]])
    assert prepared.dtype == np.uint8


def test_a_model_without_preprocessing_says_so(sandbox, model_of):
    with pytest.raises(InvalidValue, match="no preprocessing module"):
        sandbox.preprocess(model_of(nn.Linear(4, 2)), rows())
