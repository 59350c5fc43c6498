"""The reader of pickles: what it puts together, and that it neither runs, hangs nor swells for any bytes."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import time
import tracemalloc
from contextlib import suppress

import pytest

from folkmoot.errors import FolkmootError, InvalidFile, TooLarge, UnknownClass, UnsafePickle
from folkmoot.tensors.formats.pickle_reader import read_pickle
from folkmoot.tensors.formats.pickle_values import Class, Dictionary, Function, Instance, Opaque, Vocabulary
from folkmoot.tensors.limits import Limits


class Words:
    """Knows one class and one function, which counts its arguments; persistent ids stand for themselves."""

    def find(self, module, name):
        return {
            ("known", "Layer"): Class("known.Layer"),
            ("known", "count"): Function("known.count", len),
            ("known", "dictionary"): Function("known.dictionary", lambda arguments: Dictionary()),
        }.get((module, name))

    def load(self, persistent_id):
        return ("persistent", persistent_id)


WORDS: Vocabulary = Words()


def read(data: bytes, **limits):
    return read_pickle(data, WORDS, Limits(**limits))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        (0, 255, 256, 65536, -1, 2**31, -(2**63), 2**64),
        1.5,
        "a",
        "ÿ€😀",
        [],
        [1, [2, [3]]],
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        {},
        {"a": 1, "b": {"c": (2.0, None)}},
        list(range(5000)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_plain_data_is_read_as_pickle_reads_it(protocol, value):
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [4, 5])
def test_sets_keep_their_texts(protocol):
    assert read(pickle.dumps([{"a", "b", 3}, frozenset({"c"})], protocol)) == [{"a", "b"}, frozenset({"c"})]


def test_entries_of_a_dictionary_whose_keys_are_no_texts_are_only_counted():
    dictionary = read(pickle.dumps({"a": 1, 2: 3, (4,): 5, None: 6}, 2))

    assert dictionary == {"a": 1}
    assert dictionary.num_other_keys == 3


def test_what_was_remembered_is_the_same_object_again():
    inner = ["x"]

    first, second = read(pickle.dumps((inner, inner), 2))

    assert first is second


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("value", [b"ab", bytes(300), bytearray(b"ab")])
def test_bytes_are_stepped_over(protocol, value):
    if isinstance(value, bytearray) and protocol < 5:
        pytest.skip("goes by a call there")
    assert read(pickle.dumps([value, 1], protocol)) == [Opaque("bytes"), 1]


def test_a_long_text_is_stepped_over():
    assert read(pickle.dumps(["a" * 100, 1], 2), max_name_length=20) == [Opaque("a long text"), 1]


def test_an_object_is_its_class_and_its_state():
    instance = read(b"cknown\nLayer\n)\x81}X\x01\0\0\0aK\x01sb.")

    assert isinstance(instance, Instance)
    assert (instance.cls.name, instance.state) == ("known.Layer", {"a": 1})


def test_a_known_function_is_called_with_the_arguments():
    assert read(b"cknown\ncount\n(K\x01K\x02tR.") == 2


def test_a_persistent_id_is_given_to_the_vocabulary():
    assert read(b"K\x07Q.") == ("persistent", 7)


DANGEROUS = {
    "a call": b"cos\nsystem\n(X\x01\0\0\0atR.",
    "a call of a name from the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93(\x8c\x01at\x85R.",
    "a name that is only mentioned": b"cos\nsystem\n0N.",
    "a builtin": b"c__builtin__\neval\n(X\x01\0\0\0atR.",
    "a class of the standard library": b"csubprocess\nPopen\n)\x81.",
    "getattr": b"cbuiltins\ngetattr\n(cknown\nLayer\nX\x01\0\0\0atR.",
    "a dotted name": b"\x80\x04\x8c\x05known\x8c\x0eLayer.__init__\x93.",
    "a name behind a known one": b"(cknown\nLayer\ncposix\nsystem\nt.",
    "a name in the memo": b"cos\nsystem\nq\x000h\x00)R.",
    "INST": b"(X\x01\0\0\0aios\nsystem\n.",
    "OBJ": b"(cknown\nLayer\nX\x01\0\0\0ao.",
    "NEWOBJ_EX": b"cknown\nLayer\n)}\x92.",
    "EXT1": b"\x82\x01.",
    "EXT2": b"\x83\x01\x00.",
    "EXT4": b"\x84\x01\0\0\0.",
    "PERSID": b"Pname\n.",
    "a call of a known class": b"cknown\nLayer\n)R.",
    "an out-of-band buffer": b"\x97.",
    "a text opcode": b"I1\n.",
    "something behind no-ops": b"(" + b"N" * 100_000 + b"tcos\nsystem\n)R.",
}


@pytest.mark.parametrize("data", DANGEROUS.values(), ids=DANGEROUS)
def test_whatever_could_run_something_is_an_unsafe_pickle(data):
    with pytest.raises(UnsafePickle) as caught:
        read(data)

    assert caught.value.code == "unsafe_pickle"


@pytest.mark.parametrize("name", ["a call", "a call of a name from the stack", "INST", "something behind no-ops"])
def test_the_refusal_names_what_the_pickle_names(name):
    with pytest.raises(UnsafePickle, match=r"os\.system"):
        read(DANGEROUS[name])


@pytest.mark.parametrize(
    "data",
    [
        b"c__main__\nNet\n)\x81}b.",
        b"c__main__\nNet\nq\x00)\x81}b.",
        b"c__main__\nNet\nr\0\0\0\0)\x81}b.",
        b"\x80\x04\x8c\x08__main__\x8c\x03Net\x93\x94)\x81}b.",
    ],
)
def test_an_object_of_an_unknown_class_is_told_apart_with_a_hint(data):
    with pytest.raises(UnknownClass, match=r"__main__\.Net.*TorchScript") as caught:
        read(data)

    assert caught.value.code == "unknown_class"


def test_a_name_is_shown_without_what_could_harm_a_terminal():
    with pytest.raises(UnsafePickle) as caught:
        read(b"c\x1b[31mevil\n" + b"x" * 10_000 + b"\n.")

    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 500


DAMAGED = {
    "empty": b"",
    "nothing but the end": b".",
    "no end": b"N",
    "something behind the end": b"N.N.",
    "two values": b"NN.",
    "an open mark": b"(N.",
    "a mark that is not open": b"Nt.",
    "a text that is cut off": b"X\xff\xff\xff\xffa.",
    "a text that is no UTF-8": b"X\x01\0\0\0\xff.",
    "bytes of 8 exabytes": b"\x8e" + b"\xff" * 8 + b".",
    "a frame of 8 exabytes": b"\x95" + b"\xff" * 8 + b"N.",
    "a name without an end": b"cos",
    "a name that is no text": b"K\x01K\x02\x93.",
    "a memo that has nothing": b"h\x00.",
    "a memo that skips": b"Nr\xff\xff\xff\xff.",
    "an empty memo": b"q\x00.",
    "appending to a tuple": b")Na.",
    "appending to nothing": b"Na.",
    "an odd number of items": b"}(Nu.",
    "items for a list": b"](NNu.",
    "adding to a list": b"](N\x90.",
    "a tuple of too few": b"N\x86.",
    "a call of a number": b"K\x01)R.",
    "a call with a list": b"cknown\ncount\n]R.",
    "an object of a number": b"K\x01)\x81.",
    "an object with arguments": b"cknown\nLayer\nN\x85\x81.",
    "a state for a list": b"]}b.",
    "a state for a class": b"cknown\nLayer\n}b.",
    "two states": b"cknown\nLayer\n)\x81}b}b.",
    "an unknown protocol": b"\x80\x06N.",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_pickle_that_pickle_would_not_write_is_an_invalid_file(data):
    with pytest.raises(InvalidFile):
        read(data)


@pytest.mark.parametrize("code", range(256))
def test_every_opcode_alone_is_read_or_refused(code):
    for rest in (b"", b".", b"\0\0\0\0\0\0\0\0.", b"\xff" * 8 + b".", b"a\nb\n."):
        with suppress(FolkmootError):
            read(bytes([code]) + rest)


GOOD = pickle.dumps({"a": [1, 2.5, "text", (1, 2, 3, 4)], "b": {"c": None, "d": {"x", "y"}}, "e": 2**40}, 4)


def test_a_pickle_cut_off_anywhere_is_refused():
    for stop in range(len(GOOD)):
        with pytest.raises(InvalidFile):
            read(GOOD[:stop])


def test_one_byte_changed_is_read_or_refused():
    seeded = random.Random(0)
    for position in range(len(GOOD)):
        for value in seeded.sample(range(256), 16):
            with suppress(FolkmootError):
                read(GOOD[:position] + bytes([value]) + GOOD[position + 1 :])


def test_random_opcodes_are_read_or_refused():
    seeded = random.Random(1)
    codes = [info.code.encode("latin-1") for info in pickletools.opcodes]
    for _ in range(3000):
        data = b"".join(seeded.choice(codes) + seeded.randbytes(seeded.randrange(3)) for _ in range(30))
        with suppress(FolkmootError):
            read(data + b".")


# A list in itself, a dictionary in itself, an object in its own state, and a chain of tuples 100,000 deep.
KNOTS = [
    b"]q\x00h\x00a.",
    b"}q\x00X\x01\0\0\0ah\x00s.",
    b"cknown\nLayer\n)\x81q\x00}X\x01\0\0\0ah\x00sb.",
    b"}q\x00h\x00K\x01s.",
    b"N" + b"\x85" * 100_000 + b".",
    b"]" * 50_000 + b"a" * 49_999 + b".",
]


@pytest.mark.parametrize("data", KNOTS)
def test_knots_and_towers_neither_hang_nor_recurse(data):
    read(data)


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"(" * 30 + b"t" * 30 + b".", {"max_nesting": 5}),
        (b"\x8a\xff" + b"\x7f" * 255 + b".", {}),
        (b"N" * 101 + b".", {"max_pickle_ops": 100}),
    ],
    ids=["marks", "a number of 255 bytes", "opcodes"],
)
def test_a_pickle_over_a_limit_is_too_large(data, limits):
    with pytest.raises(TooLarge):
        read(data, **limits)


# Each fills memory by another object; all of them end at the limit of steps.
GREEDY = {
    "None": b"N",
    "lists": b"]",
    "lists of one": b"]Na",
    "dictionaries": b"}",
    "dictionaries of one": b"}X\x01\0\0\0aNs",
    "sets": b"\x8f",
    "tuples": b"N\x85",
    "numbers": b"J\0\0\0\x01",
    "long numbers": b"\x8a\x10" + b"\x7f" * 16,
    "floats": b"G?\xf1\x99\x99\x99\x99\x99\x9a",
    "texts": b"X\x04\0\0\0\xf0\x9f\x98\x80",
    "longer texts": b"X\xd0\x07\0\0\xf0\x9f\x98\x80" + b"a" * 1996,
    "names": b"cknown\nLayer\n",
    "objects": b"cknown\nLayer\n)\x81",
    "memo": b"N\x94",
    "calls": b"cknown\ndictionary\n)R",
    "frozen sets": b"(X\x01\0\0\0aX\x01\0\0\0b\x91",
}


@pytest.mark.parametrize("piece", GREEDY.values(), ids=GREEDY)
def test_a_quarter_of_the_steps_takes_at_most_ten_megabytes(piece):
    data = piece * ((4 << 20) // len(piece)) + b"."

    tracemalloc.start()
    with pytest.raises(InvalidFile):
        read(data, max_pickle_ops=Limits.max_pickle_ops // 4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 10 << 20


def test_two_million_steps_take_well_under_five_seconds():
    data = b"](" + b"K\x01" * 1_999_000 + b"e."

    started = time.process_time()
    read(data)

    assert time.process_time() - started < 3


def test_numbers_that_collide_as_keys_do_not_slow_the_reader():
    # Multiples of the modulus of Python's hashes all have the hash 0.
    keys = b"".join(b"\x8a\x09" + (k * (2**61 - 1)).to_bytes(9, "little") + b"N" for k in range(60))
    many = b"}(" + keys * 2000 + b"u."

    started = time.process_time()
    assert read(many).num_other_keys == 120_000

    assert time.process_time() - started < 3


def test_a_file_that_pickle_itself_would_run_is_refused_without_running_it(tmp_path):
    marker = tmp_path / "marker"

    class Payload:
        def __reduce__(self):
            return marker.write_text, ("ran",)

    file = io.BytesIO()
    pickle.Pickler(file, 2).dump([Payload()])

    with pytest.raises(UnsafePickle):
        read(file.getvalue())
    assert not marker.exists()
    pickle.loads(file.getvalue())
    assert marker.exists()
