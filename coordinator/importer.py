"""Makes a safetensors file, or an .npy, of the arrays in a pickle or in a zip that torch has saved. Nothing in it is run.

    importer.py FROM TO together|apart keep|replace

A pickle is a program for a small machine. What makes it dangerous is one instruction: to import something by its name,
which others then call. Here no name is imported. Each one that is allowed is answered by a stand-in of this file, and any
other ends the import. The stand-ins of arrays keep the bytes where they are and only remember how they lie, so neither
numpy nor torch is needed, and neither of them parses what a stranger wrote.

What is there comes out in four kinds: tensors, keys of the rows of a matrix, notes (text and numbers, for the header)
and what is left out. Exit status: 2 for a mistake in the command, 3 for a file that is refused, 5 for a failed write; with
a JSON object on stdout, which says `made` and `left_out`, or `why` not.
"""

import array
import io
import json
import math
import mmap
import os
import pickle
import resource
import signal
import struct
import sys
import zipfile

CHUNK_BYTES = 4 << 20
LEVELS_MAX = 64         # of dicts and lists in each other, and of dimensions
LISTED_MAX = 20         # lines of one kind in the report
NOTES_MAX_BYTES = 16 << 20
HEADER_MAX_BYTES = 100_000_000  # what the safetensors library reads at most

# What a file can honestly ask for, by its own size: a number of two bytes in a pickle takes eight bytes, in memory and
# in a tensor. Whoever asks for more wants to fill the memory or the disk, or to take for ever.
MEMORY_BYTES, MEMORY_TIMES = 512 << 20, 9
TENSOR_BYTES, TENSOR_TIMES = 1 << 20, 8
CPU_SECONDS, CPU_BYTES_A_SECOND = 30, 1 << 20

SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
         "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8}
NAMES = {"BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "BF16": "bfloat16",
         **{kind + bits: f"{name}{bits}" for kind, name in (("U", "uint"), ("I", "int"), ("F", "float"))
            for bits in ("8", "16", "32", "64") if kind + bits in SIZES}}
OF_NUMPY = {"b1": "BOOL", **{f"{'f' if code[0] == 'F' else code[0].lower()}{size}": code
                             for code, size in SIZES.items() if code[0] + str(8 * size) == code}}
TO_NUMPY = {code: text for text, code in OF_NUMPY.items()}
OF_TORCH = {name: code for code, name in NAMES.items()}
OF_STORAGE = {"Float": "F32", "Double": "F64", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32",
              "Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL", "Untyped": "U8"}
NUMBERS = {"BOOL": "?", "U8": "B", "I8": "b", "U16": "H", "I16": "h", "F16": "e", "U32": "I", "I32": "i", "F32": "f",
           "U64": "Q", "I64": "q", "F64": "d"}
OF_A_MATRIX = {"F16", "BF16", "F32", "F64", "I8", "U8"}  # what vectors consist of


class Refused(Exception):
    """The file is none that can be imported."""


class Mistaken(Exception):
    """The command asks for what cannot be."""


def refuse(why):
    raise Refused(why)


def shown(text, most=200):
    """Text of the file, safe to print."""
    text = text if isinstance(text, str) else repr(text)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:most + 1])
    return text if len(text) <= most else text[:most] + "..."


# ---------------------------------------------------------------------------------------------------------------------
# Stand-ins


class Known:
    """Stands for an allowed name, and does what is needed of it."""

    __slots__ = ("name", "function")

    def __init__(self, name, function):
        self.name, self.function = name, function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __setstate__(self, state):
        refuse(f"it changes {self.name}")


class Kind:
    """Stands for a type of elements, as torch names it; `code` is None for one that safetensors does not have."""

    __slots__ = ("name", "code")

    def __init__(self, name, code):
        self.name, self.code = name, code

    def __setstate__(self, state):
        refuse(f"it changes {self.name}")


class Dtype:
    """Stands for a numpy dtype."""

    __slots__ = ("name", "code", "big_endian")

    def __init__(self, name):
        self.name, self.code = (name.name, name.code) if isinstance(name, Kind) else (name, OF_NUMPY.get(name))
        self.big_endian = False

    def __setstate__(self, state):
        self.big_endian = state[1] == ">"


class Array:
    """Stands for an array: where its elements are. Strides and offset count elements of `data`."""

    __slots__ = ("code", "shape", "strides", "offset", "data", "big_endian", "lack")

    def __init__(self):
        self.code, self.lack = None, "an array without content"

    def __setstate__(self, state):
        shape, dtype, is_fortran, data = state[-4:]
        self.fill(dtype, shape, data, "F" if is_fortran else "C")

    def fill(self, dtype, shape, data, order="C"):
        """Elements that lie one after the other."""
        if not isinstance(dtype, Dtype):
            refuse("an array has no dtype")
        if not dtype.code:
            self.lack = f"an array of {shown(dtype.name)}, which safetensors does not have"
            return self
        data = data.encode("latin1") if isinstance(data, str) else data  # Python 2
        if not isinstance(data, (bytes, bytearray)) or len(data) != count_of(shape) * SIZES[dtype.code]:
            data = data if isinstance(data, (bytes, bytearray)) else b""
            refuse(f"an array says that it is {times(shape)} of {NAMES[dtype.code]}, and has {len(data):,} bytes")
        strides = [math.prod(shape[at + 1:]) if order == "C" else math.prod(shape[:at]) for at in range(len(shape))]
        return self.lay(dtype.code, shape, strides, 0, data, dtype.big_endian)

    def lay(self, code, shape, strides, offset, data, big_endian):
        self.code, self.shape, self.strides, self.offset = code, tuple(shape), tuple(strides), offset
        self.data, self.big_endian, self.lack = data, big_endian, None
        return self

    def vector(self):
        """Itself, if it has one dimension, or its only row."""
        if self.code is None or len(self.shape) not in (1, 2) or self.shape[:-1] not in ((), (1,)) or not self.shape[-1]:
            return None
        parts = self.shape[-1:], self.strides[-1:], self.offset
        return Array().lay(self.code, *parts, self.data, self.big_endian)

    def chunks(self):
        """Its bytes, little-endian and row by row."""
        size = SIZES[self.code]
        holder = self.data if isinstance(self.data, Storage) else self
        view, is_big_endian = memoryview(holder.data).cast("B"), holder.big_endian
        view = view[:len(view) // size * size].cast({1: "B", 2: "H", 4: "I", 8: "Q"}[size])
        for part in rows(view, self.shape, self.strides, self.offset):
            yield swapped(part, size) if is_big_endian and size > 1 else part


class Matrix:
    """Vectors of one length and type, one a row."""

    def __init__(self, vectors):
        self.code, self.vectors = vectors[0].code, vectors
        self.shape = (len(vectors), *vectors[0].shape)

    def chunks(self):
        for vector in self.vectors:
            yield from vector.chunks()


class Storage:
    """Stands for a storage of torch. Its bytes may come after it is named."""

    __slots__ = ("code", "size", "data", "big_endian")

    def __init__(self, code, size, data=b"", big_endian=False):
        self.code, self.size, self.data, self.big_endian = code, size, data, big_endian


class Dict(dict):
    """Stands for an OrderedDict; torch hangs attributes onto them, which say nothing of the tensors."""

    def __setstate__(self, state):
        pass


def times(shape):
    return " x ".join(map(str, shape)) or "one element"


def count_of(shape):
    """How many elements an array of this shape has."""
    if not isinstance(shape, tuple) or len(shape) > LEVELS_MAX or not all(map(is_count, shape)):
        refuse("an array has a shape that is none")
    return math.prod(shape)


def is_count(number):
    return type(number) is int and 0 <= number < 1 << 63


def rows(view, shape, strides, offset):
    """Elements in C order, as bytes-like pieces."""
    if 0 in shape:
        return
    whole = [math.prod(shape[at + 1:]) for at in range(len(shape))]
    if all(length == 1 or stride == step for length, stride, step in zip(shape, strides, whole)):
        end = offset + math.prod(shape)
        for at in range(offset, end, CHUNK_BYTES):
            yield view[at:min(at + CHUNK_BYTES, end)]
    elif len(shape) == 1 and strides[0] == 0:
        yield view[offset:offset + 1].tobytes() * shape[0]
    elif len(shape) == 1:
        yield view[offset:offset + (shape[0] - 1) * strides[0] + 1:strides[0]].tobytes()
    else:
        for row in range(shape[0]):
            yield from rows(view, shape[1:], strides[1:], offset + row * strides[0])


def swapped(part, size):
    given, turned = bytes(part), bytearray(len(part) * getattr(part, "itemsize", 1))
    for at in range(size):
        turned[at::size] = given[size - 1 - at::size]
    return turned


def encode(text, encoding):
    """Bytes, as Python 3 writes them for Python 2 to read."""
    if encoding not in ("latin1", "latin-1"):
        refuse(f"it asks for the encoding {shown(encoding)}")
    return text.encode("latin1")


def scalar(dtype, data=None):
    """A number that numpy computed."""
    if dtype.code not in NUMBERS or isinstance(data, list):
        return Array().fill(dtype, (), data)
    data = data.encode("latin1") if isinstance(data, str) else data
    return struct.unpack((">" if dtype.big_endian else "<") + NUMBERS[dtype.code], data)[0]


def frombuffer(data, dtype, shape, order, axes=None):
    """An array as protocol 5 has it. `axes` says in which order its dimensions came to lie in memory."""
    made = Array().fill(dtype, shape, data, "F" if order == "F" else "C")
    if order == "K" and made.code and axes is not None:
        if sorted(axes) != list(range(len(shape))):
            refuse("an array has dimensions that are none")
        made.shape, made.strides = (tuple(of[axis] for axis in axes) for of in (made.shape, made.strides))
    return made


def rebuild_tensor(storage, offset, shape, strides, _requires_grad=None, _hooks=None, dtype=None, *_):
    """A tensor of torch: a view of a storage. A dtype is given where the storage has none of its own."""
    if not isinstance(storage, Storage):
        refuse("a tensor has no storage")
    code = dtype.code if isinstance(dtype, Kind) else storage.code
    made = Array()
    if code is None:
        made.lack = "a tensor of a type that safetensors does not have"
        return made
    count_of(shape)
    if not all(map(is_count, (offset, *strides))) or len(shape) != len(strides):
        refuse("a tensor has strides that are none")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides))
    if 0 not in shape and last >= storage.size // SIZES[code]:
        refuse(f"a tensor of {times(shape)} reaches past the end of its data")
    return made.lay(code, shape, strides, offset, storage, False)


def known():
    """What stands for each allowed name."""
    table = {}

    def allow(modules, name, stands):
        for module in modules.split():
            table[module, name] = stands

    def function(modules, name, does):
        allow(modules, name, Known(f"{modules.split()[0]}.{name}", does))

    function("_codecs", "encode", encode)
    function("builtins __builtin__", "bytes", lambda: b"")
    function("collections", "OrderedDict", lambda *items: Dict(*items))
    function("numpy numpy.core.multiarray numpy._core.multiarray", "ndarray", lambda *_: Array())
    function("numpy.core.multiarray numpy._core.multiarray", "_reconstruct", lambda *_: Array())
    function("numpy.core.multiarray numpy._core.multiarray", "scalar", scalar)
    function("numpy.core.numeric numpy._core.numeric", "_frombuffer", frombuffer)
    function("numpy", "dtype", lambda name, *_: Dtype(name))
    function("torch._utils", "_rebuild_tensor_v2", rebuild_tensor)
    function("torch._utils", "_rebuild_tensor_v3", rebuild_tensor)
    function("torch._utils", "_rebuild_parameter", lambda tensor, *_: tensor)
    function("torch.storage", "_load_from_bytes", load_from_bytes)
    function("torch", "Size", lambda lengths=(): tuple(lengths))
    for name, code in OF_TORCH.items():
        allow("torch ml_dtypes", name, Kind(name, code))
    for name in ("complex64", "complex128"):
        allow("torch", name, Kind(name, None))
    for name, code in {**OF_STORAGE, "ComplexFloat": None, "ComplexDouble": None}.items():
        allow("torch torch.storage", name + "Storage", Kind(name + "Storage", code))
    return table


# ---------------------------------------------------------------------------------------------------------------------
# Reading


OLD_TORCH = 0x1950A86A20F9469CFC6C  # how a file of torch of before 1.6 begins


class Reader(pickle.Unpickler):
    """Knows the allowed names; `storage` finds what a torch zip has beside the pickle."""

    def __init__(self, file, storage=None):
        super().__init__(file, encoding="latin1")
        self.storage = storage

    def find_class(self, module, name):
        found = KNOWN.get((module, name))
        if found is None:
            raise Refused(f"it asks for {shown(module)}.{shown(name)}: an import never runs code of a file, and takes only "
                          "dicts, lists, text, numbers, numpy arrays and torch tensors; load it where it was made, and save "
                          "these alone")
        return found

    def persistent_load(self, reference):
        if self.storage is None:
            refuse("it refers to something outside of itself (by a persistent id), which no import can find")
        return self.storage(reference)


def read_pickle(file, size):
    root = load(Reader(file))
    if root == OLD_TORCH:
        root = read_old_torch(file)
    if file.tell() < size:
        refuse(f"there is more after its first object, which ends at byte {file.tell():,} of {size:,}; only one can be "
               "imported: load them all and save them as one list or dict")
    return root


def load(reader):
    try:
        return reader.load()
    except (Refused, MemoryError, OSError):
        raise
    except Exception as error:  # whatever the bytes make of the machine that reads them
        why = f"{type(error).__name__}: {shown(str(error))}"
        raise Refused(f"it is no pickle, or not a whole one ({why})") from None


def parts_of(reference):
    """Type, key and number of elements of a storage that torch refers to."""
    word, kind, key, _, count = reference[:5]
    if word != "storage" or not isinstance(kind, Kind) or not isinstance(key, str) or not is_count(count):
        refuse("it refers to something that is no storage of torch")
    return kind, key, count


def read_old_torch(file):
    """What torch wrote before 1.6, after the magic number: three pickles, the keys of the storages, and their bytes, each
    behind a length."""
    storages = {}

    def storage(reference):
        kind, key, count = parts_of(reference)
        if kind.code is None or reference[5:] not in ((), (None,)):
            refuse("it has complex numbers, or views of storages, in a format of torch that is no more")
        return storages.setdefault(key, Storage(kind.code, count * SIZES[kind.code]))

    load(Reader(file))
    about = load(Reader(file))
    root = load(Reader(file, storage))
    keys = load(Reader(file))
    if not isinstance(about, dict) or not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, storages)):
        refuse("its list of storages is not of those that it names")
    for key in keys:
        named = storages[key]
        file.read(8)
        named.data, named.big_endian = file.read(named.size), not about.get("little_endian", True)
        if len(named.data) < named.size:
            refuse("it ends within a storage")
    return root


def load_from_bytes(data):
    """The storage of a tensor that was pickled without torch.save."""
    file = io.BytesIO(data)
    if load(Reader(file)) != OLD_TORCH:
        refuse("it has a tensor in a format that torch does not write")
    return read_old_torch(file)


def read_torch(file):
    """The object in a zip that torch has saved. Its storages stay where they are, as parts of one mapping of the file."""
    try:
        entries = {entry.filename: entry for entry in zipfile.ZipFile(file).infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise Refused(f"it is not a whole zip: {shown(str(error))}") from None
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        refuse("it is a zip that torch has not saved: there is no one data.pkl in it (an .npz: numpy.load, then numpy.save "
               "for each of its arrays)")
    folder = pickles[0][:-len("data.pkl")]
    mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def content(name):
        entry = entries.get(name)
        if entry is None:
            refuse(f"{shown(name)} is missing in it")
        if entry.compress_type != zipfile.ZIP_STORED:
            refuse(f"{shown(name)} is compressed in it, which torch never does")
        header = mapped[entry.header_offset:entry.header_offset + 30].tobytes()
        if len(header) < 30 or header[:4] != b"PK\3\4":
            refuse(f"{shown(name)} is not where the zip says")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        if start + entry.file_size > len(mapped):
            refuse(f"{shown(name)} reaches past the end of the file")
        return mapped[start:start + entry.file_size]

    big_endian = folder + "byteorder" in entries and content(folder + "byteorder").tobytes() == b"big"

    def storage(reference):
        kind, key, _ = parts_of(reference)
        data = content(f"{folder}data/{key}")
        return Storage(kind.code, len(data), data, big_endian)

    return load(Reader(io.BytesIO(content(pickles[0])), storage))


# ---------------------------------------------------------------------------------------------------------------------
# Sorting


class Contents:
    """What comes out of an object. Names are made of the keys and places that lead to a thing, with dots between."""

    def __init__(self, size, are_apart):
        self.tensors, self.tables, self.notes, self.left_out = {}, [], {}, []
        self.visits_left, self.bytes_left = size + 1000, TENSOR_TIMES * size + TENSOR_BYTES
        self.notes_left, self.are_apart = NOTES_MAX_BYTES, are_apart

    def take(self, value, path=()):
        self.visits_left -= 1
        if len(path) > LEVELS_MAX or self.visits_left < 0:
            refuse(f"it is nested deeper than {LEVELS_MAX} levels, or contains itself, or repeats its parts without end")
        if isinstance(value, Array):
            if value.code:
                self.add(path or ("array",), value)
            else:
                self.leave_out(path, value.lack)
        elif isinstance(value, dict):
            if not self.take_table(value, path):
                for key, item in value.items():
                    self.take(item, (*path, name_of(key)))
        elif isinstance(value, (list, tuple)):
            self.take_list(value, path)
        elif value is None or isinstance(value, (str, int, float)):
            self.note(path, value)
        else:
            self.leave_out(path, f"a {value.name if isinstance(value, (Known, Kind, Dtype)) else type(value).__name__}")

    def take_table(self, value, path):
        """A dict of vectors of one length: a matrix for each of their types, and the keys of its rows."""
        vectors = None if self.are_apart or len(value) < 2 else all_vectors(value.values())
        if not vectors or not {vector.code for vector in vectors} <= OF_A_MATRIX:
            return False
        path, by_code, keys = path or ("vectors",), {}, []
        for key, vector in zip(value, vectors):
            of_code = by_code.setdefault(vector.code, [])
            keys.append((name_of(key), vector.code, len(of_code)))
            of_code.append(vector)
        names = {code: path if len(by_code) == 1 else (*path, NAMES[code]) for code in by_code}
        for code, of_code in by_code.items():
            self.add(names[code], Matrix(of_code))
        self.tables.append((path, [(key, ".".join(names[code]), row) for key, code, row in keys]))
        return True

    def take_list(self, value, path):
        whole = vector_of(value)
        vectors = all_vectors(value) if whole is None else None
        if whole is not None:
            self.add(path or ("array",), whole)
        elif vectors and len({vector.code for vector in vectors}) == 1:
            self.add(path or ("vectors",), Matrix(vectors))
        elif all(item is None or isinstance(item, (str, int, float)) for item in value):
            self.note(path, value)
        else:
            for at, item in enumerate(value):
                self.take(item, (*path, str(at)))

    def add(self, path, tensor):
        name = ".".join(path)
        if name in self.tensors or name == "__metadata__":
            refuse(f"two entries are called {shown(name)}, or one that is a word of the format: rename it where it was made")
        self.bytes_left -= bytes_of(tensor)
        if self.bytes_left < 0:
            refuse(f"its arrays would take more than {TENSOR_TIMES} times the file's size: the same data again and again")
        self.tensors[name] = tensor

    def note(self, path, value):
        try:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            length = len(text.encode())
        except ValueError as error:  # a lone surrogate, or a number of thousands of digits
            return self.leave_out(path, f"a {type(value).__name__}: {shown(str(error))}")
        if length > self.notes_left:
            return self.leave_out(path, f"a {type(value).__name__} of {length:,} bytes, too long for a header")
        name = ".".join(path) or "value"
        if name in self.notes:
            refuse(f"two entries are called {shown(name)}: rename one where it was made")
        self.notes_left -= length
        self.notes[name] = text

    def leave_out(self, path, what):
        self.left_out.append((".".join(path) or "the whole", what))

    def keys(self):
        """Lines that say which row belongs to which key."""
        tensors = {tensor for _, table in self.tables for _, tensor, _ in table}
        seen = set()
        for path, table in self.tables:
            for key, tensor, row in table:
                name = key if len(self.tables) == 1 else ".".join((*path, key))
                if name in seen:
                    refuse(f"two keys are called {shown(name)}: rename one where it was made")
                seen.add(name)
                yield {"id": name, "row": row} if len(tensors) == 1 else {"id": name, "tensor": tensor, "row": row}


def bytes_of(tensor):
    return math.prod(tensor.shape) * SIZES[tensor.code]


def name_of(key, levels=LEVELS_MAX):
    """A key as a part of a name."""
    if isinstance(key, tuple) and levels:
        return ".".join(name_of(part, levels - 1) for part in key)
    if isinstance(key, bytes):
        try:
            return key.decode()
        except UnicodeDecodeError:
            return key.hex()
    if key is None or isinstance(key, (str, int, float)):
        return str(key)
    return refuse(f"a key of a dict is a {type(key).__name__}; keys can be text, numbers, bytes and tuples of these")


def vector_of(value):
    """A list of numbers as an array: of float64 if there is a float, else of int64."""
    if isinstance(value, Array):
        return value.vector()
    types = set(map(type, value)) if isinstance(value, (list, tuple)) else None
    if not types or not types <= {int, float}:
        return None
    code, letter = ("F64", "d") if float in types else ("I64", "q")
    try:
        data = array.array(letter, value).tobytes()
    except OverflowError:
        return None
    return Array().lay(code, (len(value),), (1,), 0, data, sys.byteorder == "big")


def all_vectors(values):
    """All of them as vectors of one length; None if one is none."""
    vectors = []
    for value in values:
        vector = vector_of(value)
        if vector is None or vectors and vector.shape != vectors[0].shape:
            return None
        vectors.append(vector)
    return vectors


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def safetensors_header(contents):
    """The header, and the tensors in the order of their data: the largest elements first, so that all are aligned."""
    ordered = sorted(contents.tensors.items(), key=lambda tensor: -SIZES[tensor[1].code])
    header, at = {}, 0
    if contents.notes:
        header["__metadata__"] = contents.notes
    for name, tensor in ordered:
        end = at + bytes_of(tensor)
        header[name] = {"dtype": tensor.code, "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_MAX_BYTES:
        refuse(f"it holds {len(ordered):,} tensors, whose names and shapes are too long for a safetensors header")
    return struct.pack("<Q", len(text)) + text, [tensor for _, tensor in ordered]


def npy_header(contents):
    tensors = contents.tensors
    if len(tensors) != 1:
        names = ", ".join(shown(name, 40) for name in list(tensors)[:5])
        raise Mistaken(f"an .npy holds one array, and there are {len(tensors):,} ({names}{', ...' if len(tensors) > 5 else ''}); "
                       "write a .safetensors")
    [tensor] = tensors.values()
    if tensor.code not in TO_NUMPY:
        raise Mistaken(f"an .npy has no {NAMES[tensor.code]}; write a .safetensors")
    for name in contents.notes:
        contents.leave_out((name,), "an .npy has no place for text and single numbers")
    kind = ("|" if SIZES[tensor.code] == 1 else "<") + TO_NUMPY[tensor.code]
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {tuple(tensor.shape)}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text, [tensor]


class Output:
    """Files that get their names when all of them are whole."""

    def __init__(self):
        self.parts = {}

    def write(self, path, pieces):
        part = self.parts[path] = path + ".part"
        try:
            with open(part, "wb", buffering=CHUNK_BYTES) as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"write {part}: {error.strerror or error}") from None

    def complete(self):
        for path, part in self.parts.items():
            os.replace(part, path)
        self.parts.clear()

    def drop(self):
        for part in self.parts.values():
            try:
                os.unlink(part)
            except OSError:
                pass


def write(contents, to, is_forced):
    """Writes what is there; the lines to report on what was made and on what is not in it."""
    header, tensors = (npy_header if to.endswith(".npy") else safetensors_header)(contents)
    keys_path = os.path.splitext(to)[0] + ".keys.jsonl"
    keys = [json.dumps(key, ensure_ascii=False) for key in contents.keys()]
    if keys and not is_forced and os.path.lexists(keys_path):
        raise Mistaken(f"{keys_path} exists, where the keys of the rows would be; name another file, or say --force")
    output = Output()
    try:
        # The keys get their name first: whoever sees the tensors sees which rows they are.
        if keys:
            output.write(keys_path, (line.encode() + b"\n" for line in keys))
        output.write(to, (piece for part in ([header], *(tensor.chunks() for tensor in tensors)) for piece in part))
        output.complete()
    finally:
        output.drop()
    made = few([f"{to}: {shown(name)}, {NAMES[tensor.code]}, {times(tensor.shape)}"
                for name, tensor in contents.tensors.items()])
    if contents.notes and to.endswith(".safetensors"):
        made.append(f"{to}: {len(contents.notes):,} note{'s' if len(contents.notes) > 1 else ''} in __metadata__")
    if keys:
        made.append(f"{keys_path}: {len(keys):,} keys, each with its row")
    left_out = few([f"left out: {shown(name)}, {what}" for name, what in contents.left_out])
    if not keys and os.path.lexists(keys_path):
        left_out.append(f"{keys_path} is of another import: this file has no keys")
    return made, left_out


def few(lines):
    more = len(lines) - LISTED_MAX
    return lines if more <= 0 else [*lines[:LISTED_MAX], f"... and {more:,} more"]


def run(source, to, are_apart, is_forced):
    with open(source, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        # A file that asks for more than this is killed or told so; the machine does not feel it.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES + MEMORY_TIMES * size, resource.RLIM_INFINITY))
        seconds = CPU_SECONDS + size // CPU_BYTES_A_SECOND
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        magic = file.read(6)
        file.seek(0)
        if not magic:
            refuse("the file is empty")
        if magic.startswith(b"\x1f\x8b"):
            refuse("it is compressed; gunzip it first")
        if magic == b"\x93NUMPY":
            refuse("it is an .npy, which can be an artifact as it is")
        contents = Contents(size, are_apart)
        contents.take(read_torch(file) if magic.startswith(b"PK\3\4") else read_pickle(file, size))
        if not contents.tensors:
            refuse("there is no array in it")
        return write(contents, to, is_forced)


def answer(status, **lines):
    """The last word, which is JSON on stdout: on stderr the interpreter itself may have spoken."""
    text = {name: "\n".join(of).encode(errors="backslashreplace").decode() for name, of in lines.items()}
    print(json.dumps(text))
    return status


def main():
    if sys.version_info < (3, 9):
        return answer(2, why=["an import needs Python 3.9 or later, and this is " + sys.version.split()[0]])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    source, to, arrangement, existing = sys.argv[1:]
    try:
        made, left_out = run(source, to, arrangement == "apart", existing == "replace")
        return answer(0, made=made, left_out=left_out)
    except Refused as error:
        return answer(3, why=[f"{source}: {error}"])
    except (MemoryError, RecursionError):
        return answer(3, why=[f"{source}: it takes more memory than a file of its size can need; is it damaged?"])
    except UnicodeError as error:
        return answer(3, why=[f"{source}: a name in it is no text that can be written: {shown(str(error))}"])
    except Mistaken as error:
        return answer(2, why=[f"{source}: {error}"])
    except OSError as error:
        return answer(5, why=[str(error)])


KNOWN = known()
sys.exit(main())
