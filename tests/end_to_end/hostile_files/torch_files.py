"""torch: pickles that would run something, tensors that lie, TorchScript that does more than compute."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
import zipfile
from functools import partial

import numpy as np

from hostile_files.archives import CENTRAL, LOCAL, archive, patched
from hostile_files.row import CANARY, MARKER, Row, accepted, either, refused

STORAGES = {"F16": "HalfStorage", "BF16": "BFloat16Storage", "F32": "FloatStorage", "F64": "DoubleStorage"}
START = b"\x80\x02"
TOUCH = f"touch {MARKER}"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<L", len(value.encode())) + value.encode()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return bytes((ord("K"), value))
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def group(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + group(*arguments) + b"R"


def storage(key: str = "0", kind: str = "FloatStorage", size: int = 6, place: str = "cpu") -> bytes:
    return group(text("storage"), named("torch", kind), text(key), text(place), number(size)) + b"Q"


EMPTY = call("collections", "OrderedDict")


def tensor(
    shape=(2, 3), strides=(3, 1), offset: int = 0, stored: bytes | None = None, end: bytes = b"\x89" + EMPTY
) -> bytes:
    sizes, steps = (group(*map(number, each)) for each in (shape, strides))
    return call("torch._utils", "_rebuild_tensor_v2", stored or storage(), number(offset), sizes, steps, end)


def entry(name: str, value: bytes) -> bytes:
    return text(name) + value + b"s"


def state_dict(*entries: bytes) -> bytes:
    return START + b"}" + b"".join(entries) + b"."


GOOD_DICT = state_dict(entry("w", tensor()))
VALUES = np.arange(6, dtype="f4").tobytes()


def torch_file(data: bytes = GOOD_DICT, *members: tuple[str, bytes], values: bytes = VALUES) -> bytes:
    """A file as torch.save writes it, with this pickle and these values."""
    usual = [("m/data.pkl", data), ("m/byteorder", b"little"), ("m/data/0", values), ("m/version", b"3\n")]
    return archive(*usual, *members)


def of_values(array: np.ndarray, dtype: str) -> bytes:
    """A state_dict of the tensor w."""
    stored = storage(kind=STORAGES[dtype], size=array.size)
    return torch_file(state_dict(entry("w", tensor(array.shape, (1,), stored=stored))), values=array.tobytes())


def before(run: bytes) -> bytes:
    """A state_dict in which `run` makes a value, before any tensor."""
    return torch_file(state_dict(entry("x", run), entry("w", tensor())))


def within(run: bytes) -> bytes:
    """A state_dict with one more entry, which `run` makes."""
    return torch_file(state_dict(entry("w", tensor()), entry("x", run)))


def module(name: str, state: bytes, *, of: str = "torch.nn.modules.linear") -> bytes:
    return torch_file(START + named(of, name) + b")\x81" + state + b"b.")


def doubling(level: int) -> bytes:
    """A module that has the one below it twice, and remembers itself at its level."""
    children = entry("a", doubling(level - 1)) + entry("b", b"h" + bytes([level - 1])) if level else b""
    made = named("torch.nn.modules.container", "Sequential") + b")\x81"
    return made + state(entry("_modules", b"}" + children)) + b"bq" + bytes([level])


def state(*entries: bytes) -> bytes:
    empty = [entry(key, b"}") for key in ("_parameters", "_buffers", "_modules")]
    return b"}" + b"".join([*empty, *entries])


def script(source: str, data: bytes | None = None, *, name: str = "M") -> bytes:
    """TorchScript with one parameter, whose code is `source`."""
    head = f'class {name}(Module):\n  __parameters__ = ["w", ]\n  __buffers__ = []\n  w : Tensor\n'
    made = START + named("__torch__", "M") + b")\x81}" + entry("w", tensor()) + b"b."
    return archive(
        ("m/data.pkl", data or made),
        ("m/data/0", VALUES),
        ("m/code/__torch__.py", (head + source).encode()),
        ("m/constants.pkl", START + b")."),
        ("m/version", b"3\n"),
    )


def of_reduce(function, *arguments, protocol: int = 2) -> bytes:
    """What Python's own pickle makes of an object that calls `function` when it is loaded."""

    class Payload:
        def __reduce__(self):
            return function, arguments

    return pickle.dumps({"w": Payload()}, protocol)


def legacy(payload: bytes, *, first: bool) -> bytes:
    """The file of torch before 1.6: five pickles, one after the other."""
    magic = START + b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    rest = START + b"M\xe9\x03." + START + b"}." + GOOD_DICT + START + b"]."
    return (START + payload + b"." + magic + rest) if first else (magic + rest + START + payload + b".")


def opcodes() -> dict[str, Row]:
    """Each opcode by itself, with bytes behind it that any of them takes for its argument."""
    codes = (None, "unsafe_pickle", "unknown_class", "invalid_file", "too_large")
    arguments = b"\x01\n\x01\n" + bytes(8)
    return {
        f"U1 the opcode {opcode.name}": Row(codes, partial(before, opcode.code.encode("latin-1") + arguments))
        for opcode in pickletools.opcodes
    }


RUN = call("os", "system", text(TOUCH))
LINEAR = state(entry("in_features", number(3)))

FILES = {
    "U1 os.system": refused("unsafe_pickle", before(RUN)),
    "U1 os.system as a tensor": refused("unsafe_pickle", within(RUN)),
    "U1 os.system as the name of a tensor": refused("unsafe_pickle", torch_file(START + b"}" + RUN + tensor() + b"s.")),
    "U1 os.system as a shape": refused(
        "unsafe_pickle", within(call("torch._utils", "_rebuild_tensor_v2", storage(), number(0), RUN, group()))
    ),
    "U1 os.system as a storage": refused("unsafe_pickle", within(tensor(stored=RUN))),
    "U1 os.system as what a tensor keeps of its hooks": refused("unsafe_pickle", within(tensor(end=b"\x89" + RUN))),
    "U1 os.system by the name of the platform": refused("unsafe_pickle", before(call("posix", "system", text(TOUCH)))),
    "U1 os.system from the stack": refused(
        "unsafe_pickle", before(text("os") + text("system") + b"\x93" + group(text(TOUCH)) + b"R")
    ),
    "U1 os.system through a memo": refused(
        "unsafe_pickle", before(text("os") + b"q\0" + text("system") + b"q\x01" + b"0" + b"h\x01\x93" + group() + b"R")
    ),
    "U1 os.system as an instance": refused("unsafe_pickle", before(b"(" + text(TOUCH) + b"ios\nsystem\n")),
    "U1 os.system as an object": refused("unsafe_pickle", before(b"(" + named("os", "system") + text(TOUCH) + b"o")),
    "U1 os.system, named and not called": refused("unsafe_pickle", before(named("os", "system"))),
    "U1 subprocess.Popen": refused("unsafe_pickle", before(call("subprocess", "Popen", text(TOUCH)))),
    "U1 subprocess.Popen as a new object": refused(
        "unsafe_pickle", before(named("subprocess", "Popen") + group(text(TOUCH)) + b"\x81")
    ),
    "U1 subprocess.Popen as a new object with keywords": refused(
        "unsafe_pickle", before(named("subprocess", "Popen") + group(text(TOUCH)) + b"}\x92")
    ),
    "U1 eval": refused("unsafe_pickle", before(call("builtins", "eval", text(f"open({str(MARKER)!r}, 'w')")))),
    "U1 exec by Python 2's name": refused("unsafe_pickle", before(call("__builtin__", "exec", text("1")))),
    "U1 open": refused("unsafe_pickle", before(call("builtins", "open", text(str(MARKER)), text("w")))),
    "U1 getattr": refused("unsafe_pickle", before(call("builtins", "getattr", EMPTY, text("__class__")))),
    "U1 __import__": refused("unsafe_pickle", before(call("builtins", "__import__", text("os")))),
    "U1 a name with dots": refused("unsafe_pickle", before(named("torch", "serialization.os.system"))),
    "U1 a name with dots, from the stack": refused(
        "unsafe_pickle", before(text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93")
    ),
    "U1 importlib": refused("unsafe_pickle", before(call("importlib", "import_module", text("antigravity")))),
    "U1 runpy": refused("unsafe_pickle", before(call("runpy", "_run_code", text("1"), b"}"))),
    "U1 functools.partial": refused("unsafe_pickle", before(call("functools", "partial", named("os", "system")))),
    "U1 operator.methodcaller": refused("unsafe_pickle", before(call("operator", "methodcaller", text("system")))),
    "U1 types.CodeType": refused("unsafe_pickle", before(call("types", "CodeType"))),
    "U1 types.FunctionType": refused("unsafe_pickle", before(call("types", "FunctionType"))),
    "U1 marshal.loads": refused("unsafe_pickle", before(call("marshal", "loads", text("")))),
    "U1 pickle.loads": refused("unsafe_pickle", before(call("pickle", "loads", text("")))),
    "U1 shutil.rmtree": refused("unsafe_pickle", before(call("shutil", "rmtree", text(str(MARKER))))),
    "U1 socket.create_connection": refused("unsafe_pickle", before(call("socket", "create_connection", group()))),
    "U1 webbrowser.open": refused("unsafe_pickle", before(call("webbrowser", "open", text("http://127.0.0.1:1/")))),
    "U1 ctypes": refused("unsafe_pickle", before(call("ctypes", "CDLL", text("libc.so.6")))),
    "U1 torch.load": refused("unsafe_pickle", before(call("torch", "load", text(str(CANARY))))),
    "U1 torch.hub.load": refused("unsafe_pickle", before(call("torch.hub", "load", text("a/b")))),
    "U1 torch.jit.load": refused("unsafe_pickle", before(call("torch.jit", "load", text(str(CANARY))))),
    "U1 torch.storage._load_from_bytes": refused(
        "unsafe_pickle", before(call("torch.storage", "_load_from_bytes", text("")))
    ),
    "U1 torch.from_file": refused("unsafe_pickle", before(call("torch", "from_file", text(str(CANARY))))),
    "U1 numpy.load": refused("unsafe_pickle", before(call("numpy", "load", text(str(CANARY))))),
    "U1 numpy.core.multiarray._reconstruct": refused(
        "unsafe_pickle", before(call("numpy.core.multiarray", "_reconstruct"))
    ),
    "U1 codecs.encode": refused("unsafe_pickle", before(call("_codecs", "encode", text("a"), text("latin1")))),
    "U1 a code that only an extension knows": refused("unsafe_pickle", before(b"\x82\x01")),
    "U1 a code of two bytes that only an extension knows": refused("unsafe_pickle", before(b"\x83\x01\x01")),
    "U1 a code of four bytes that only an extension knows": refused("unsafe_pickle", before(b"\x84\x01\x01\x01\x01")),
    "U1 a persistent id as text": refused("unsafe_pickle", before(b"Pstorage\n")),
    "U1 a persistent id that is no storage": refused("invalid_file", before(text("os.system") + b"Q")),
    "U1 a buffer from outside": refused("unsafe_pickle", before(b"\x97")),
    "U1 a buffer that may be written": refused("unsafe_pickle", before(b"\x96" + struct.pack("<Q", 1) + b"x\x98")),
    "U1 state for something that runs it": refused(
        "unknown_class", before(named("torch._C", "Generator") + b")\x81" + b"}" + RUN + b"sb")
    ),
    "U1 what Python's own pickle makes of a call, protocol 0": refused(
        "unsafe_pickle", lambda: torch_file(of_reduce(os.system, TOUCH, protocol=0))
    ),
    "U1 what Python's own pickle makes of a call, protocol 4": refused(
        "unsafe_pickle", lambda: torch_file(of_reduce(os.system, TOUCH, protocol=4))
    ),
    "U1 a name of two megabytes": refused("unsafe_pickle", lambda: before(named("a" * 2_000_000, "b"))),
    "U1 a name that a terminal would obey": refused("unsafe_pickle", before(named("\x1b[2J\x07os", "system"))),
    "U1 a known name in another case": refused("unsafe_pickle", before(named("Torch._utils", "_rebuild_tensor_v2"))),
    "U1 a known name with a space behind it": refused("unsafe_pickle", before(named("collections", "OrderedDict "))),
    "U1 a function that the table knows, with a code object": refused(
        "invalid_file", within(call("torch._utils", "_rebuild_tensor_v2", text("x")))
    ),
    "U2 runs, and then fails": refused("unsafe_pickle", torch_file(START + RUN + b"\xff")),
    "U2 runs, and then ends": refused("unsafe_pickle", torch_file(START + RUN)),
    "U2 fails before it runs": refused("invalid_file", torch_file(START + b"t" + RUN + b".")),
    "U2 behind 6 MB that do nothing": refused(
        "too_large", lambda: torch_file(START + b"](" + b"N" * 6_000_000 + RUN + b"e.")
    ),
    "U2 behind one MB that does nothing": refused(
        "unsafe_pickle", lambda: torch_file(START + b"](" + number(1) * 500_000 + RUN + b"e.")
    ),
    "U2 behind the end": refused("invalid_file", torch_file(GOOD_DICT + RUN + b".")),
    "U2 in the first of five old pickles": refused("unsupported_container", legacy(RUN, first=True)),
    "U2 in the last of the old pickles": refused("unsupported_container", legacy(RUN, first=False)),
    "U2 two pickles, by case": refused("invalid_file", torch_file(GOOD_DICT, ("m/DATA.PKL", START + RUN + b"."))),
    "U2 two pickles, by folder": refused("invalid_file", torch_file(GOOD_DICT, ("n/data.pkl", START + RUN + b"."))),
    "U3 a pickle": refused("unsupported_container", START + RUN + b"."),
    "U3 a pickle of protocol 5": refused("unsupported_container", pickle.dumps({"w": 1}, 5)),
    "U3 the magic number of old torch alone": refused(
        "unsupported_container", START + b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    ),
    "U3 an archive without data.pkl": refused("unsupported_container", archive(("m/data/0", VALUES))),
    "U3 a torch package": refused(
        "unsupported_container", archive(("m/.data/version", b"6"), ("m/a.py", b"import os"))
    ),
    "U3 an exported program": refused(
        "unsupported_container", archive(("m/models/model.json", b"{}"), ("m/version", b"1"))
    ),
    "U3 saved on a big-endian machine": refused("invalid_file", torch_file().replace(b"little", b"BIGend")),
    "U4 TorchScript that saves": accepted(
        lambda: script(f'  def forward(self, x: Tensor) -> Tensor:\n    torch.save(x, "{MARKER}")\n    return x\n')
    ),
    "U4 TorchScript that reads a file": accepted(
        lambda: script(
            f'  def forward(self, x: Tensor) -> Tensor:\n    return torch.from_file("{CANARY}", False, 43)\n'
        )
    ),
    "U4 TorchScript that runs as its state is set": accepted(
        lambda: script(f'  def __setstate__(self, s: Tensor) -> None:\n    torch.save(s, "{MARKER}")\n')
    ),
    "U4 TorchScript that is Python": accepted(lambda: script(f"import os\nos.system({TOUCH!r})\n")),
    "U4 TorchScript that is no text": accepted(lambda: script("\x00\x01\x02")),
    "U4 TorchScript whose pickle runs": refused("unsafe_pickle", lambda: script("", START + RUN + b".")),
    "U4 TorchScript whose pickle is a text": refused("invalid_file", lambda: script("", START + text("M") + b".")),
    "U4 TorchScript of no declared class": refused("invalid_file", lambda: script("", name="N")),
    "U5 a class of its author's": refused("unknown_class", module("Net", LINEAR, of="__main__")),
    "U5 a class of a package": refused("unknown_class", module("ResNet", LINEAR, of="torchvision.models.resnet")),
    "U5 a class of torch that runs source code": refused(
        "unknown_class", module("GraphModule", LINEAR, of="torch.fx.graph_module")
    ),
    "U5 a class of the standard library": refused("unsafe_pickle", module("Popen", LINEAR, of="subprocess")),
    "U5 a class that torch.nn does not have": refused("unknown_class", module("Evil", LINEAR)),
    "U5 a class of torch.nn is taken": accepted(
        module(
            "Linear",
            b"}"
            + entry("_buffers", b"}")
            + entry("_modules", b"}")
            + entry(
                "_parameters", b"}" + entry("w", call("torch._utils", "_rebuild_parameter", tensor(), b"\x89", EMPTY))
            ),
        )
    ),
    "U5 a module whose parameters are a text": refused(
        "invalid_file",
        module("Linear", b"}" + entry("_parameters", text("w")) + entry("_buffers", b"}") + entry("_modules", b"}")),
    ),
    "U5 a module that is in itself": refused(
        "too_large",
        torch_file(
            START
            + named("torch.nn.modules.container", "Sequential")
            + b")\x81q\0}"
            + entry("_parameters", b"}")
            + entry("_buffers", b"}")
            + entry("_modules", b"}" + entry("a", b"h\0"))
            + b"b."
        ),
    ),
    "U5 modules that double at each of thirty levels": refused("too_large", torch_file(START + doubling(30) + b".")),
    "U6 a stride beyond the storage": refused("invalid_file", within(tensor(strides=(300, 1)))),
    "U6 a negative stride": refused("invalid_file", within(tensor(strides=(-3, 1)))),
    "U6 a stride of zero": refused("invalid_file", within(tensor(strides=(0, 1)))),
    "U6 elements twice": refused("invalid_file", within(tensor(strides=(1, 1)))),
    "U6 an offset beyond the storage": refused("invalid_file", within(tensor(offset=6))),
    "U6 a negative offset": refused("invalid_file", within(tensor(offset=-1))),
    "U6 an offset of 2^62": refused("invalid_file", within(tensor(offset=2**62))),
    "U6 a negative size": refused("invalid_file", within(tensor(shape=(-2, 3)))),
    "U6 a terabyte that is not there": refused("invalid_file", within(tensor(shape=(2**38, 1)))),
    "U6 sizes that overflow": refused("invalid_file", within(tensor(shape=(2**33, 2**33), strides=(2**33, 1)))),
    "U6 a huge size beside zero": refused("invalid_file", within(tensor(shape=(0, 2**63), strides=(1, 1)))),
    "U6 a thousand dimensions": refused("invalid_file", within(tensor(shape=(1,) * 1000, strides=(1,) * 1000))),
    "U6 fewer strides than sizes": refused("invalid_file", within(tensor(strides=(1,)))),
    "U6 a storage that says it is larger": refused("invalid_file", within(tensor(stored=storage(size=2**40)))),
    "U6 a storage that says it is smaller": refused("invalid_file", within(tensor(stored=storage(size=1)))),
    "U6 a storage that is not there": refused("invalid_file", within(tensor(stored=storage("9")))),
    "U6 a storage that is a path": refused("invalid_file", within(tensor(stored=storage("../../../etc/passwd")))),
    "U6 two kinds of one storage": refused("invalid_file", within(tensor(stored=storage(kind="DoubleStorage")))),
    "U6 tensors that share a part": refused("invalid_file", within(tensor(shape=(3,), strides=(1,), offset=1))),
    "U6 20,000 views across one another": refused(
        "invalid_file",
        lambda: torch_file(
            state_dict(
                *(
                    entry(f"w{place}", tensor(shape=(2, 10), strides=(20_001, 1), offset=place))
                    for place in range(5_000)
                )
            ).replace(storage(), storage(size=60_000)),
            values=bytes(240_000),
        ),
    ),
    "U6 one storage under 1,000 names": refused(
        "too_large",
        lambda: torch_file(
            state_dict(
                *(entry(f"w{each}", tensor((60_000,), (1,), stored=storage(size=60_000))) for each in range(1000))
            ),
            values=bytes(240_000),
        ),
    ),
    "U6 a sparse tensor": refused(
        "invalid_file", within(call("torch._utils", "_rebuild_sparse_tensor", number(0), group()))
    ),
    "U6 a tensor without values": refused(
        "invalid_file", within(call("torch._utils", "_rebuild_meta_tensor_no_storage", number(0)))
    ),
    "U6 a quantised tensor": refused("invalid_file", within(call("torch._utils", "_rebuild_qtensor", storage()))),
    "U6 a nested tensor": refused("invalid_file", within(call("torch._utils", "_rebuild_nested_tensor", storage()))),
    "U6 complex numbers": refused(
        "invalid_file", within(tensor((3,), (1,), stored=storage(kind="ComplexFloatStorage", size=3)))
    ),
    "U6 a conjugate view": refused(
        "invalid_file", within(tensor(end=b"\x89" + EMPTY + b"}" + text("conj") + b"\x88s"))
    ),
    "U11 two million opcodes and more": refused(
        "too_large", lambda: torch_file(START + b"](" + b"N" * 2_100_000 + b"e.")
    ),
    "U11 a tower of a million marks": refused("too_large", lambda: torch_file(START + b"(" * 1_000_000 + b".")),
    "U11 a tower of a million lists": refused(
        "too_large", lambda: torch_file(START + b"]" * 1_000_000 + b"a" * 999_999 + b".")
    ),
    "U11 lists that double": refused(
        "invalid_file",
        torch_file(
            START
            + b"]q\0"
            + b"".join(b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(200))
            + b"."
        ),
    ),
    "U11 a list of itself": refused("invalid_file", torch_file(START + b"]q\0h\0a.")),
    "U11 a dictionary of itself": refused("invalid_file", torch_file(START + b"}q\0" + text("a") + b"h\0s.")),
    "U11 a text of 4 GB, so it says": refused("invalid_file", torch_file(START + b"X\xff\xff\xff\xff.")),
    "U11 bytes of 2^63, so they say": refused(
        "invalid_file", torch_file(START + b"\x8e" + struct.pack("<Q", 2**63) + b".")
    ),
    "U11 a frame of 2^63, so it says": either(torch_file(START + b"\x95" + struct.pack("<Q", 2**63) + GOOD_DICT[2:])),
    "U11 an integer of 250 bytes": refused("too_large", torch_file(START + b"\x8a\xfa" + b"\xff" * 250 + b".")),
    "U11 an integer of 2^31 bytes, so it says": refused("unsafe_pickle", torch_file(START + b"\x8b\xff\xff\xff\x7f.")),
    "U11 a memo at 2^32": refused("invalid_file", torch_file(START + b"Nr\xff\xff\xff\xff.")),
    "U11 a memo that is not there": refused("invalid_file", torch_file(START + b"h\x07.")),
    "U11 a pickle of 17 MB": refused("too_large", lambda: torch_file(START + b"C\0" + bytes(17 << 20))),
    "U11 a pickle that is a bomb": refused(
        "too_large",
        lambda: archive(("m/data.pkl", START + bytes(15 << 20)), ("m/data/0", VALUES), method=zipfile.ZIP_DEFLATED),
    ),
    "U11 a compressed storage": refused(
        "invalid_file", lambda: archive(("m/data.pkl", GOOD_DICT), ("m/data/0", VALUES), method=zipfile.ZIP_DEFLATED)
    ),
    "U11 100,001 names of one tensor": refused(
        "too_large",
        lambda: torch_file(
            state_dict(entry("first", tensor((), ()) + b"q\0"), *(entry(str(each), b"h\0") for each in range(100_000)))
        ),
    ),
    "U14 a member ../data.pkl": refused("invalid_file", torch_file(GOOD_DICT, ("../data.pkl", b""))),
    "U14 a member m/../../x": refused("invalid_file", torch_file(GOOD_DICT, ("m/../../x", b""))),
    "U14 two storages of one name": refused(
        "invalid_file", torch_file(GOOD_DICT, ("m/data/1", VALUES)).replace(b"m/data/1", b"m/data/0")
    ),
    "U14 a storage whose checksum is wrong": refused(
        "invalid_file",
        patched(torch_file(GOOD_DICT, ("m/data/1", VALUES)), (LOCAL, 14, "<L", 1), (CENTRAL, 16, "<L", 1))
        .replace(b"m/data/0", b"m/data/2")
        .replace(b"m/data/1", b"m/data/0"),
    ),
    "U15 a name of 600 letters": refused("too_large", torch_file(state_dict(entry("w" * 600, tensor())))),
    "U15 a name of a megabyte": refused("invalid_file", lambda: torch_file(state_dict(entry("w" * 2**20, tensor())))),
    "U15 a name that is a number": refused("invalid_file", torch_file(START + b"}" + number(1) + tensor() + b"s.")),
    "U18 a checkpoint with an optimizer": refused(
        "invalid_file", torch_file(state_dict(entry("model", b"}"), entry("epoch", number(3))))
    ),
    "U18 a number": refused("invalid_file", torch_file(START + number(7) + b".")),
    "U18 protocol 9": refused("invalid_file", torch_file(b"\x80\x09" + GOOD_DICT[2:])),
    "U18 an empty pickle": refused("invalid_file", torch_file(b"")),
    "U19 a name with a line break": refused("invalid_file", torch_file(state_dict(entry("a\r\nb", tensor())))),
    "U19 a name with NUL": refused("invalid_file", torch_file(state_dict(entry("a\0b", tensor())))),
    "U20 a pickle in front of the archive": refused("unsupported_container", START + RUN + b"." + torch_file()),
    "U20 a pickle behind the archive": refused("invalid_file", torch_file() + START + RUN + b"."),
    "U20 both an npz and a torch file": refused(
        "invalid_file", archive(("a.npy", b""), ("m/data.pkl", START + RUN + b"."), ("m/data/0", VALUES))
    ),
} | opcodes()
