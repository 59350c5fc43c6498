"""What the pickles in a torch file may name, and what stands for it here.

Source: torch/_utils.py, torch/storage.py, and for TorchScript torch/csrc/jit/serialization/unpickler.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace

from folkmoot.errors import InvalidFile, UnknownClass
from folkmoot.tensors.formats.pickle_values import Class, Dictionary, Function, Opaque, texts
from folkmoot.tensors.formats.torch.classes import FUNCTIONS, MODULE_CLASSES
from folkmoot.tensors.formats.torch.views import ElementType, Storage, TensorView, check_view
from folkmoot.tensors.formats.zip_archive import Member

# torch's names of its dtypes, and ours where there are any.
_ELEMENTS = {
    "bool": ElementType("BOOL", 1),
    "uint8": ElementType("U8", 1),
    "int8": ElementType("I8", 1),
    "int16": ElementType("I16", 2),
    "uint16": ElementType("U16", 2),
    "float16": ElementType("F16", 2),
    "bfloat16": ElementType("BF16", 2),
    "int32": ElementType("I32", 4),
    "uint32": ElementType("U32", 4),
    "float32": ElementType("F32", 4),
    "float64": ElementType("F64", 8),
    "int64": ElementType("I64", 8),
    "uint64": ElementType("U64", 8),
    "complex32": ElementType("complex32", 4),
    "complex64": ElementType("complex64", 8),
    "complex128": ElementType("complex128", 16),
    "float8_e4m3fn": ElementType("float8_e4m3fn", 1),
    "float8_e4m3fnuz": ElementType("float8_e4m3fnuz", 1),
    "float8_e5m2": ElementType("float8_e5m2", 1),
    "float8_e5m2fnuz": ElementType("float8_e5m2fnuz", 1),
    "float8_e8m0fnu": ElementType("float8_e8m0fnu", 1),
    "qint8": ElementType("qint8", 1),
    "quint8": ElementType("quint8", 1),
    "qint32": ElementType("qint32", 4),
}
_STORAGES = {
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    # These only TorchScript writes; torch.save leaves them to UntypedStorage.
    "UInt16Storage": "uint16",
    "UInt32Storage": "uint32",
    "UInt64Storage": "uint64",
    "ComplexHalfStorage": "complex32",
    "Float8_e4m3fnStorage": "float8_e4m3fn",
    "Float8_e4m3fnuzStorage": "float8_e4m3fnuz",
    "Float8_e5m2Storage": "float8_e5m2",
    "Float8_e5m2fnuzStorage": "float8_e5m2fnuz",
    "Float8_e8m0fnuStorage": "float8_e8m0fnu",
}


_Builder = Callable[[tuple[object, ...]], object]


class StorageClass(ElementType):
    """The element type of a storage, as the class of the storage tells it."""

    __slots__ = ()


_UNTYPED = StorageClass("U8", 1)


def _unexpected(function: str) -> InvalidFile:
    return InvalidFile(f"the pickle calls {function} with arguments that torch does not write")


def _tensor(arguments: tuple[object, ...]) -> TensorView:
    match arguments:
        case (Storage() as storage, *place, bool(requires_grad), Dictionary()):
            return _view("_rebuild_tensor_v2", storage, storage.element, place, requires_grad)
        case (Storage() as storage, *place, bool(requires_grad), Dictionary(), metadata):
            _check_plain(metadata)
            return _view("_rebuild_tensor_v2", storage, storage.element, place, requires_grad)
    raise _unexpected("_rebuild_tensor_v2")


def _tensor_with_dtype(arguments: tuple[object, ...]) -> TensorView:
    match arguments:
        case (Storage() as storage, *place, bool(requires_grad), Dictionary(), ElementType() as element):
            return _view("_rebuild_tensor_v3", storage, element, place, requires_grad)
        case (Storage() as storage, *place, bool(requires_grad), Dictionary(), ElementType() as element, metadata):
            _check_plain(metadata)
            return _view("_rebuild_tensor_v3", storage, element, place, requires_grad)
    raise _unexpected("_rebuild_tensor_v3")


def _check_plain(metadata: object) -> None:
    if metadata is not None and metadata != {}:
        raise InvalidFile("a tensor is stored as a conjugate or negative view; save tensor.resolve_neg() instead")


def _view(
    function: str, storage: Storage, element: ElementType, place: list[object], requires_grad: bool
) -> TensorView:
    match place:
        case [int(offset), tuple(shape), tuple(strides)] if {int}.issuperset(map(type, (offset, *shape, *strides))):
            view = TensorView(storage, ElementType(*element), offset, shape, strides, requires_grad)
            check_view(view)
            return view
    raise _unexpected(function)


def _parameter(arguments: tuple[object, ...]) -> TensorView:
    match arguments:
        case (TensorView() as view, bool(requires_grad), Dictionary()):
            return replace(view, requires_grad=requires_grad)
    raise _unexpected("_rebuild_parameter")


def _parameter_with_state(arguments: tuple[object, ...]) -> TensorView:
    if len(arguments) != 4:
        raise _unexpected("_rebuild_parameter_with_state")
    return _parameter(arguments[:3])


def _tensor_with_state(arguments: tuple[object, ...]) -> object:
    match arguments:
        case (Function() as function, Class(name="torch.Tensor" | "torch.nn.parameter.Parameter"), tuple(inner), _):
            if function.build in (_tensor, _tensor_with_dtype, _parameter):
                return function.build(inner)
    raise InvalidFile("the file holds a tensor of a class of its own; only plain tensors are taken")


def _refuse(kind: str) -> _Builder:
    def build(arguments: tuple[object, ...]) -> object:
        raise InvalidFile(f"the file holds {kind}; only dense tensors of plain numbers are taken")

    return build


def _set(arguments: tuple[object, ...]) -> object:
    match arguments:
        case (list(items),):
            return texts(items)
    raise _unexpected("set")


def _empty_dictionary(arguments: tuple[object, ...]) -> object:
    if arguments:
        raise _unexpected("OrderedDict")
    return Dictionary()


def _size(arguments: tuple[object, ...]) -> object:
    match arguments:
        case (tuple(sizes),):
            return sizes
    raise _unexpected("torch.Size")


def _first(arguments: tuple[object, ...]) -> object:
    if not arguments:
        raise _unexpected("torch.jit._pickle")
    return arguments[0]


def _opaque(kind: str) -> _Builder:
    return lambda arguments: Opaque(kind)


_BUILDERS: dict[tuple[str, str], _Builder] = {
    ("collections", "OrderedDict"): _empty_dictionary,
    ("torch", "device"): _opaque("a device"),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_with_dtype,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter_with_state,
    ("torch._utils", "_rebuild_qtensor"): _refuse("a quantised tensor"),
    ("torch._utils", "_rebuild_sparse_tensor"): _refuse("a sparse tensor"),
    ("torch._utils", "_rebuild_nested_tensor"): _refuse("a nested tensor"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _refuse("a tensor on the meta device, without values"),
    ("torch._utils", "_rebuild_wrapper_subclass"): _refuse("a tensor of a class of its own"),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _refuse("a tensor of a special device"),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _refuse("a tensor of a special device"),
}

_SAVED_BUILDERS: dict[tuple[str, str], _Builder] = {
    ("torch", "Size"): _size,
    ("torch._tensor", "_rebuild_from_type_v2"): _tensor_with_state,
    ("torch.serialization", "_get_layout"): _opaque("a layout"),
    **{(module, name): _set for module in ("__builtin__", "builtins") for name in ("set", "frozenset")},
}

_SCRIPT_BUILDERS: dict[tuple[str, str], _Builder] = {
    ("builtins", "complex"): _opaque("a complex number"),
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{("torch.jit._pickle", f"build_{kind}list"): _first for kind in ("int", "bool", "double", "tensor")},
}

_CONSTANTS: dict[tuple[str, str], object] = {
    **{("torch", name): StorageClass(*_ELEMENTS[dtype]) for name, dtype in _STORAGES.items()},
    ("torch.storage", "UntypedStorage"): _UNTYPED,
}

_SAVED_CONSTANTS: dict[tuple[str, str], object] = {
    **{("torch", name): element for name, element in _ELEMENTS.items()},
    ("torch", "Tensor"): Class("torch.Tensor"),
    ("torch.nn.parameter", "Parameter"): Class("torch.nn.parameter.Parameter"),
    **{
        ("torch", f"per_{scheme}"): Opaque("a scheme of quantisation")
        for scheme in ("tensor_affine", "channel_affine", "tensor_symmetric", "channel_symmetric")
    },
    **{(module, name): Opaque("a function") for module, name in FUNCTIONS},
}

_COMPILED = ("torch._dynamo.eval_frame", "OptimizedModule")
_SCRIPT_PREFIX = "__torch__"


def _functions(
    builders: Mapping[tuple[str, str], Callable[[tuple[object, ...]], object]],
) -> dict[tuple[str, str], object]:
    return {key: Function(".".join(key), build) for key, build in builders.items()}


_SAVED = _functions(_BUILDERS | _SAVED_BUILDERS) | _CONSTANTS | _SAVED_CONSTANTS
_SCRIPT = _functions(_BUILDERS | _SCRIPT_BUILDERS) | _CONSTANTS


class Storages:
    """What a pickle may load from the archive around it."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members

    def load(self, persistent_id: object) -> object:
        match persistent_id:
            case ("storage", StorageClass() as element, str(key), str(), int(count)):
                return Storage(key, element, self._checked_size(key, count * element.itemsize))
        raise InvalidFile("the pickle refers to something that is no storage")

    def _checked_size(self, key: str, claimed: int) -> int:
        member = self._members.get(key)
        if member is None:
            raise InvalidFile(f"the file lacks the storage data/{ascii(key)[1:-1]}")
        if member.num_bytes != claimed:
            raise InvalidFile(f"the storage data/{key} should have {claimed} bytes and has {member.num_bytes}")
        return claimed


class SavedVocabulary(Storages):
    """What torch.save writes: tensors, state_dicts, modules of torch.nn and of the operator's own classes."""

    def __init__(self, members: Mapping[str, Member], classes: Container[str]) -> None:
        super().__init__(members)
        self._classes = classes

    def find(self, module: str, name: str) -> object | None:
        known = _SAVED.get((module, name))
        if known is not None:
            return known
        if (module, name) == _COMPILED:
            raise UnknownClass(
                "the file holds what torch.compile makes of a model, which only runs where it was made; save "
                "model._orig_mod.state_dict() instead"
            )
        full = f"{module}.{name}"
        is_class = (module, name) in MODULE_CLASSES or ("." not in name and full in self._classes)
        return Class(full) if is_class else None


class ScriptVocabulary(Storages):
    """What torch.jit.save writes: tensors, and objects of classes whose code lies in the archive."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        super().__init__(members)
        self.classes: set[str] = set()

    def find(self, module: str, name: str) -> object | None:
        known = _SCRIPT.get((module, name))
        if known is not None:
            return known
        if module.split(".", 1)[0] != _SCRIPT_PREFIX or "." in name:
            return None
        self.classes.add(f"{module}.{name}")
        return Class(f"{module}.{name}")
