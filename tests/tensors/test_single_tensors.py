"""Files of one tensor by itself, as torch saves it and loads it, and modules without any tensor."""

from __future__ import annotations

import numpy as np
import pytest

from folkmoot.errors import InvalidFile
from folkmoot.tensors import write_tensors
from folkmoot.tensors.formats import open_tensor
from folkmoot.tensors.formats.torch import format as torch_format
from folkmoot.tensors.limits import Limits

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_torch_loads_the_tensor_that_was_written(tmp_path, dtype, shape):
    tensor = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)

    torch_format.export_tensor(tensor, tmp_path / "tensor.pt")

    loaded = torch.load(tmp_path / "tensor.pt", weights_only=True)
    assert (loaded.shape, loaded.numpy().dtype) == (shape, tensor.dtype)
    np.testing.assert_array_equal(loaded.numpy(), tensor)


def test_the_same_tensor_makes_the_same_file(tmp_path):
    written = [torch_format.export_tensor(np.ones(3), tmp_path / name).sha256 for name in ("one", "other")]

    assert written[0] == written[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_torch_saved_is_read(tmp_path, dtype):
    torch.save(torch.tensor([1.0, 2.0], dtype=dtype), tmp_path / "tensor.pt")

    assert open_tensor(tmp_path / "tensor.pt").astype("f4").tolist() == [1, 2]


def test_a_tensor_of_another_format_is_read(tmp_path):
    write_tensors(tmp_path / "tensor", {"any": np.array([1.0, 2.0])})

    assert open_tensor(tmp_path / "tensor").tolist() == [1, 2]


@pytest.mark.parametrize("saved", [{"w": torch.zeros(1)}, [torch.zeros(1)], 1, torch.nn.Linear(1, 1)])
def test_what_is_no_tensor_by_itself_is_refused(tmp_path, saved):
    torch.save(saved, tmp_path / "file.pt")

    with pytest.raises(InvalidFile, match="expected one tensor by itself"):
        open_tensor(tmp_path / "file.pt")


def test_a_module_needs_no_tensor_to_be_one(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Flatten()), tmp_path / "module.pt")

    torch_format.check_module(tmp_path / "module.pt", Limits())


def test_parameters_are_told_from_buffers_though_they_are_frozen(tmp_path):
    model = torch.nn.BatchNorm1d(2)
    model.weight.requires_grad_(False)
    torch.save(model, tmp_path / "module.pt")
    torch.save(model.state_dict(), tmp_path / "state.pt")

    assert torch_format.read(tmp_path / "module.pt", Limits()).parameters == ("weight", "bias")
    assert torch_format.read(tmp_path / "state.pt", Limits()).parameters is None
