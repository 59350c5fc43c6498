"""A few dozen models, each saved in the three forms that torch knows: what we read is torch's own state_dict()."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from folkmoot.aggregation import Strategy, Update, aggregate_files
from folkmoot.aggregation.mean import WeightedMean
from folkmoot.aggregation.optimizers import SGD
from folkmoot.tensors import Limits, TensorFile, open_tensors, write_tensors
from folkmoot.tensors.formats.torch import format as torch_format
from folkmoot.tensors.schema import BFLOAT16, is_float

pytestmark = pytest.mark.filterwarnings("ignore")  # torch finds much to say about scripts and traces

FEDAVG = Strategy(WeightedMean(), SGD())


class TiedLanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.decoder = nn.Linear(4, 11, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens):
        return self.decoder(self.embedding(tokens))


class SharedBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.again = self.block
        self.blocks = nn.ModuleList([self.block, nn.Tanh(), self.block])

    def forward(self, x):
        x = self.again(self.block(x))
        for block in self.blocks:
            x = block(x)
        return x


class HiddenBuffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(4))
        self.register_buffer("cache", torch.full((4,), 2.0), persistent=False)
        self.register_buffer("absent", None)
        self.register_parameter("missing", None)
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.plain = torch.ones(4)

    def forward(self, x):
        return x * self.mask + self.cache.numel() * self.frozen + self.plain


class EveryType(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("double_", torch.randn(3, dtype=torch.float64))
        self.register_buffer("half_", torch.randn(3).half())
        self.register_buffer("brain_", torch.randn(2, 3).bfloat16())
        for bits in (8, 16, 32, 64):
            self.register_buffer(f"signed{bits}", torch.arange(-3, 4).to(getattr(torch, f"int{bits}")))
            self.register_buffer(f"unsigned{bits}", torch.arange(7).to(getattr(torch, f"uint{bits}")))
        self.register_buffer("truth", torch.tensor([True, False, True]))

    def forward(self, x):
        return x + self.half_.float() + self.brain_.float() + self.double_.float()


class OddShapes(nn.Module):
    def __init__(self):
        super().__init__()
        self.scalar = nn.Parameter(torch.tensor(1.5))
        self.single = nn.Parameter(torch.randn(1))
        self.ones = nn.Parameter(torch.randn(1, 5, 1, 1))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x):
        return x * self.scalar + self.single + self.ones.sum() + self.empty.sum()


class Views(nn.Module):
    """Parameters that lie in memory as torch's own functions leave them: transposed, sliced, side by side."""

    def __init__(self):
        super().__init__()
        both = torch.randn(6, 8)
        self.left = nn.Parameter(both[:, :3])
        self.right = nn.Parameter(both[:, 3:])
        self.transposed = nn.Parameter(torch.randn(5, 4).t())
        self.permuted = nn.Parameter(torch.randn(2, 3, 4).permute(2, 0, 1))
        self.every_second = nn.Parameter(torch.randn(9)[1::2])
        self.channels_last = nn.Parameter(torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last))

    def forward(self, x):
        x = x @ torch.cat([self.left, self.right], 1)[:4, :4] + self.transposed[:, 0]
        return x + self.permuted.sum() + self.every_second.sum() + self.channels_last.mean()


class Parameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.listed = nn.ParameterList([nn.Parameter(torch.randn(4)) for _ in range(12)])
        self.named = nn.ParameterDict({"b": nn.Parameter(torch.randn(4)), "a": nn.Parameter(torch.randn(4))})

    def forward(self, x):
        for parameter in self.listed:
            x = x + parameter
        return x * self.named["b"] - self.named["a"]


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **options)

    def forward(self, query, key, value):
        return self.attention(query, key, value)[0]


class Recurrent(nn.Module):
    def __init__(self, cells):
        super().__init__()
        self.cells = cells

    def forward(self, x):
        return self.cells(x)[0]


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.downsample = None

    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x)))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.paths = nn.ModuleDict(OrderedDict(z=nn.Linear(4, 2), a=nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))))
        self.extra = nn.ModuleList([nn.ModuleList([nn.Linear(2, 2)]), nn.ModuleList()])

    def forward(self, x):
        return self.paths["z"](x) + self.paths["a"](x)


def deep(levels):
    module = nn.Linear(3, 3)
    for _ in range(levels):
        module = nn.Sequential(module)
    return module


def normal(*shape):
    return lambda: (torch.randn(*shape, generator=torch.Generator().manual_seed(1)),)


def tokens(*shape):
    return lambda: (torch.randint(0, 11, shape, generator=torch.Generator().manual_seed(1)),)


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    inputs: Callable[[], tuple[torch.Tensor, ...]]
    traced: bool = False


CASES = {
    "one layer": Case(lambda: nn.Linear(3, 2), normal(4, 3)),
    "perceptron": Case(lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2, bias=False)), normal(4, 3)),
    "named layers": Case(
        lambda: nn.Sequential(OrderedDict(first=nn.Linear(3, 5), second=nn.Sequential(nn.Dropout(), nn.Linear(5, 1)))),
        normal(4, 3),
    ),
    "eleven layers": Case(lambda: nn.Sequential(*(nn.Linear(2, 2) for _ in range(11))), normal(4, 2)),
    "convolutions": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1), nn.Flatten()
        ),
        normal(2, 3, 8, 8),
    ),
    "residual": Case(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Residual(4), Residual(4)), normal(2, 3, 5, 5)),
    "one-dimensional": Case(lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3)), normal(2, 2, 9)),
    "three-dimensional": Case(lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2)), normal(2, 1, 4, 4, 4)),
    "grouped": Case(
        lambda: nn.Conv2d(4, 8, 3, groups=2, dilation=2, padding_mode="circular", padding=1), normal(1, 4, 9, 9)
    ),
    "transposed convolution": Case(lambda: nn.ConvTranspose2d(3, 2, 3, stride=2), normal(1, 3, 4, 4)),
    "upsampling": Case(lambda: nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(1, 2, 3)), normal(1, 1, 4, 4)),
    "pixel shuffle": Case(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.PixelShuffle(2)), normal(1, 1, 6, 6)),
    "layer norm": Case(lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU()), normal(2, 4)),
    "RMS norm": Case(lambda: nn.RMSNorm(4), normal(2, 4)),
    "group norm": Case(lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4)), normal(1, 2, 3, 3)),
    "instance norm": Case(lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), normal(2, 3, 4, 4)),
    "norm without statistics": Case(lambda: nn.BatchNorm1d(4, track_running_stats=False), normal(3, 4)),
    "norm without weights": Case(lambda: nn.BatchNorm1d(4, affine=False), normal(3, 4)),
    "PReLU": Case(lambda: nn.Sequential(nn.Linear(3, 3), nn.PReLU(3), nn.PReLU()), normal(2, 3)),
    "embedding": Case(lambda: nn.Sequential(nn.Embedding(11, 4, padding_idx=0), nn.Linear(4, 2)), tokens(2, 5)),
    "embedding bag": Case(lambda: nn.EmbeddingBag(11, 4, mode="sum"), tokens(2, 5)),
    "bilinear": Case(lambda: nn.Bilinear(3, 4, 2), lambda: normal(5, 3)() + normal(5, 4)()),
    "RNN": Case(lambda: Recurrent(nn.RNN(3, 4, num_layers=2)), normal(5, 2, 3)),
    "LSTM": Case(lambda: Recurrent(nn.LSTM(3, 4, num_layers=2, batch_first=True, proj_size=2)), normal(2, 5, 3)),
    "bidirectional GRU": Case(lambda: Recurrent(nn.GRU(3, 4, bidirectional=True)), normal(5, 2, 3)),
    "cell": Case(lambda: nn.LSTMCell(3, 4), normal(2, 3)),
    "attention": Case(Attention, lambda: normal(5, 2, 8)() * 3),
    "attention, other sizes": Case(
        lambda: Attention(kdim=6, vdim=4, add_bias_kv=True),
        lambda: normal(5, 2, 8)() + normal(3, 2, 6)() + normal(3, 2, 4)(),
    ),
    "transformer": Case(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, activation="gelu"), 2, nn.LayerNorm(8)),
        normal(5, 2, 8),
        traced=True,
    ),
    "transformer decoder": Case(
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2),
        lambda: normal(5, 2, 8)() * 2,
        traced=True,
    ),
    "encoder and decoder": Case(
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), lambda: normal(2, 5, 8)() * 2, traced=True
    ),
    "tied": Case(TiedLanguageModel, tokens(2, 5)),
    "shared block": Case(SharedBlock, normal(3, 4)),
    "hidden buffers": Case(HiddenBuffers, normal(3, 4)),
    "every type": Case(EveryType, normal(2, 3)),
    "odd shapes": Case(OddShapes, normal(2, 3)),
    "views": Case(Views, normal(4, 4)),
    "parameter containers": Case(Parameters, normal(2, 4), traced=True),
    "module containers": Case(Branches, normal(2, 4)),
    "deep": Case(lambda: deep(40), normal(2, 3)),
    "in half": Case(lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).half(), lambda: (torch.ones(2, 3).half(),)),
    "in bfloat16": Case(lambda: nn.Linear(3, 4).bfloat16(), lambda: (torch.ones(2, 3).bfloat16(),)),
    "in double": Case(lambda: nn.Linear(3, 4).double(), lambda: (torch.ones(2, 3).double(),)),
    "partly frozen": Case(lambda: nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 1)), normal(2, 3)),
    "parallel": Case(lambda: nn.DataParallel(nn.Linear(3, 2)), normal(2, 3), traced=True),
}
OWN_CLASSES = frozenset(
    f"{cls.__module__}.{cls.__qualname__}"
    for cls in globals().copy().values()
    if isinstance(cls, type) and issubclass(cls, nn.Module)
)
LIMITS = Limits(torch_classes=OWN_CLASSES)


class Form(NamedTuple):
    save: Callable
    load: Callable


def save_script(model, path, case):
    torch.jit.save(
        torch.jit.trace(model, case.inputs(), check_trace=False) if case.traced else torch.jit.script(model), path
    )


def load_weights(path, make):
    model = make()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


FORMS = {
    "state_dict": Form(lambda model, path, case: torch.save(model.state_dict(), path), load_weights),
    "module": Form(
        lambda model, path, case: torch.save(model, path), lambda path, make: torch.load(path, weights_only=False)
    ),
    "TorchScript": Form(save_script, lambda path, make: torch.jit.load(path)),
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return CASES[request.param]


@pytest.fixture(params=FORMS, scope="module")
def form(request):
    return FORMS[request.param]


@pytest.fixture(scope="module")
def saved(case, form, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    form.save(case.make().eval(), path, case)
    return path


def as_numpy(state_dict):
    """In bits that NumPy can show; it has no bfloat16 of its own."""
    return {
        name: tensor.view(torch.int16).numpy().view(BFLOAT16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
        for name, tensor in ((name, tensor.detach().contiguous()) for name, tensor in state_dict.items())
    }


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert (name, actual[name].dtype, actual[name].shape) == (name, array.dtype, array.shape)
        np.testing.assert_array_equal(actual[name], array)


def trained(tensors, step):
    return {
        name: (t + t.dtype.type(step) / 8).astype(t.dtype) if is_float(t.dtype) else t for name, t in tensors.items()
    }


def test_names_order_types_and_values_are_those_of_the_state_dict(case, form, saved):
    tensors = open_tensors(saved, limits=LIMITS)

    assert_same(tensors, as_numpy(form.load(saved, case.make).state_dict()))


def test_three_updates_make_a_model_that_torch_loads_and_runs(case, form, saved, tmp_path):
    base, output, merged = tmp_path / "base", tmp_path / "next.pt", tmp_path / "merged"
    write_tensors(base, open_tensors(saved, limits=LIMITS))
    start = {name: np.array(tensor) for name, tensor in TensorFile.open(base).items()}
    updates = [Update(str(step), tmp_path / str(step), 1) for step in range(3)]
    for step, update in enumerate(updates):
        write_tensors(update.path, trained(start, step))

    aggregate_files(FEDAVG, base, updates, merged)
    torch_format.write(saved, TensorFile.open(merged), output)

    model = form.load(output, case.make)
    expected = as_numpy(model.state_dict())
    assert_same({name: TensorFile.open(merged)[name] for name in expected}, expected)
    for name, array in trained(start, 1).items():
        np.testing.assert_allclose(expected[name].astype("f8"), array.astype("f8"), rtol=0.02, atol=0.02)
    reference = case.make().eval()
    reference.load_state_dict(model.state_dict(), strict=not isinstance(model, torch.jit.ScriptModule))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(*case.inputs()), reference(*case.inputs()))


def test_modules_and_torchscript_tell_parameters_from_buffers(case, form, saved):
    tensors = open_tensors(saved, limits=LIMITS)

    model = form.load(saved, case.make)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters(remove_duplicate=False)}
    expected = {name: trainable.get(name, False) for name in model.state_dict()}
    assert tensors.trainable == ({} if form is FORMS["state_dict"] else expected)


def test_names_of_one_memory_are_tied(case, form, saved):
    state_dict = form.load(saved, case.make).state_dict() if form is not FORMS["state_dict"] else torch.load(saved)
    places = {}
    for name, tensor in state_dict.items():
        if tensor.numel():
            places.setdefault((tensor.data_ptr(), tensor.dtype, tensor.shape), []).append(name)

    tensors = open_tensors(saved, limits=LIMITS)

    assert sorted(tensors.tied) == sorted(tuple(names) for names in places.values() if len(names) > 1)


def test_a_copy_that_torch_needs_no_template_for_is_the_same_state_dict(case, form, saved, tmp_path):
    tensors = open_tensors(saved, limits=LIMITS)

    torch_format.export(tensors, tmp_path / "plain.pt")

    assert_same(as_numpy(torch.load(tmp_path / "plain.pt", weights_only=True)), dict(tensors))
