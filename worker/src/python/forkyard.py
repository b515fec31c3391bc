"""What a Python node sees of its run, and a thin client of the `forkyard` command.

Inside a node's function:

    forkyard.artifact("m")     a matrix as a read-only numpy array over the mapping that all workers share (a memoryview
                               without numpy), tensors and tables as a dict of these, records (.jsonl, .json) by row
                               and by key, anything else as bytes in place
    forkyard.state["key"]      the state that nodes share, as this node sees it; what is set leaves with the result
    forkyard.inputs["name"]    results of other nodes that the node names as `inputs`
    forkyard.item              the item of a node with `foreach` or `each`
    raise forkyard.RetryAfter(seconds)    run this node again later; no worker waits meanwhile

Anywhere else, with the `forkyard` command in the PATH (or its path in FORKYARD):

    forkyard.map(function, items, artifacts={"m": "m.npy"})
    forkyard.run("manifest.toml")
    forkyard.results()["node"]

Needs Python 3.9 or later and its standard library; numpy is used where it is there.
"""

import contextvars
import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

LOG_MAX = 32 << 10
ERROR_MAX = 8 << 10


class ForkyardError(Exception):
    """Something that forkyard refuses, or a run that did not succeed."""


class RetryAfter(Exception):
    """Raised by a node's function: run the node again after so many seconds. No worker waits meanwhile."""

    def __init__(self, seconds, message=""):
        super().__init__(message or f"again in {seconds} s")
        self.seconds = float(seconds)
        if not 0 <= self.seconds <= 86400:
            raise ValueError(f"RetryAfter takes seconds from 0 to 86400, not {seconds}")


# ---------------------------------------------------------------------------------------------------------------------
# Inside a function


class _Task:
    """One attempt to run a node."""

    __slots__ = ("node", "attempt", "item", "inputs", "artifacts", "results", "writes", "log", "has_ended")

    def __init__(self, message):
        references = message.get("b") or {}
        self.node = message["n"]
        self.attempt = message["a"]
        self.item = message["i"] if "i" in message else _load(references["item"]) if "item" in references else None
        inputs = {name[7:]: at for name, at in references.items() if name.startswith("inputs.")} if references else None
        self.inputs = _Inputs(inputs) if inputs else _NO_INPUTS
        self.artifacts = message.get("A") or ()
        self.results = message.get("r") or {}
        self.writes = {}
        self.log = _Log()
        self.has_ended = False


_of_context = contextvars.ContextVar("forkyard")


def _task_or_none():
    task = _of_context.get(None)
    return None if task is None or task.has_ended else task


def _task():
    task = _of_context.get(None)
    if task is None:
        raise ForkyardError("no node runs here: this is known only inside the function that a node calls")
    if task.has_ended:
        raise ForkyardError("the node whose function started this has ended; what it left running is part of no node")
    return task


def _carry_context():
    """Threads belong to the task that starts them, and what an executor runs to the task that submits it."""
    from concurrent.futures import ThreadPoolExecutor

    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def start_in_context(thread):
        context, run = contextvars.copy_context(), thread.run
        thread.run = lambda: context.run(run)
        start(thread)

    def submit_in_context(executor, function, /, *arguments, **named):
        return submit(executor, contextvars.copy_context().run, function, *arguments, **named)

    threading.Thread.start, ThreadPoolExecutor.submit = start_in_context, submit_in_context
    os.chdir = _noted_chdir


def __getattr__(name):
    if name in ("item", "inputs", "attempt"):
        return getattr(_task(), name)
    raise AttributeError(f"module 'forkyard' has no attribute {name!r}")


class _Inputs(Mapping):
    """Results of other nodes, each read when it is asked for."""

    def __init__(self, at):
        self._at = at
        self._read = {}

    def __getitem__(self, name):
        if name not in self._read:
            if name not in self._at:
                raise KeyError(f"the node has no input {name!r}; inputs = {{ {name} = ... }} makes one")
            self._read[name] = _load(self._at[name])
        return self._read[name]

    def __iter__(self):
        return iter(self._at)

    def __len__(self):
        return len(self._at)


_NO_INPUTS = _Inputs({})


def artifact(name):
    """An artifact that the node names, in place: nothing is copied, and nothing can be written."""
    task = _task()
    if name in task.results:
        return _load(task.results[name])
    if name not in task.artifacts:
        known = ", ".join([*task.artifacts, *task.results]) or "none"
        raise ForkyardError(f"the node does not name artifact {name!r} (it names {known}): artifacts = [{name!r}]")
    return _artifacts[name].view()


class _State:
    """The state that nodes share: a mapping from text to anything that JSON holds."""

    def __getitem__(self, key):
        found = self._find(_text(key))
        if found is None:
            raise KeyError(key)
        return json.loads(found)

    def get(self, key, default=None):
        found = self._find(_text(key))
        return default if found is None else json.loads(found)

    def __contains__(self, key):
        return self._find(_text(key)) is not None

    def __setitem__(self, key, value):
        _task().writes[_text(key)] = _encode_json(value)

    def __delitem__(self, key):
        if key not in self:
            raise KeyError(key)
        _task().writes[key] = None

    def items(self):
        """Everything that is set; the node must say reads = "state"."""
        task = _task()
        found = json.loads(_ask(2, task.node, ""))
        found.update((key, json.loads(text)) for key, text in task.writes.items() if text is not None)
        for key, text in task.writes.items():
            if text is None:
                found.pop(key, None)
        return found.items()

    def keys(self):
        return dict(self.items()).keys()

    def __iter__(self):
        return iter(self.keys())

    @staticmethod
    def _find(key):
        task = _task()
        return task.writes[key] if key in task.writes else _ask(1, task.node, key)


state = _State()


def _text(key):
    if not isinstance(key, str):
        raise TypeError(f"a key of the state is text, not {type(key).__name__}")
    return key


# ---------------------------------------------------------------------------------------------------------------------
# Values


def _numpy():
    try:
        import numpy
    except ImportError:
        return None
    return numpy


class _Artifact:
    """One mapped file, made before the fork: children only look at it."""

    def __init__(self, about, file, beside):
        import mmap

        def mapped(fd):
            if fd is None or os.fstat(fd).st_size == 0:
                return memoryview(b"")
            mapping = mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                try:
                    mapping.madvise(mmap.MADV_HUGEPAGE)
                except OSError:
                    pass
            os.close(fd)
            return memoryview(mapping)

        self.about = about
        self.bytes = mapped(file)
        self.beside = mapped(beside)
        self.seen = None

    def view(self):
        if self.seen is None:
            self.seen = self._view(self.about["format"])
        return self.seen

    def _view(self, form):
        if form == "array":
            return _array(self.bytes, **self.about["array"])
        if form == "arrays":
            return {name: _array(self.bytes, **array) for name, array in json.loads(bytes(self.beside))}
        if form == "column":
            return _array(self.beside, **self.about["array"])
        if form == "table":
            return _table(self.beside)
        return Records(self.bytes, self.beside) if form == "records" else self.bytes


_artifacts = {}
_FORMATS = {"float16": "e", "float32": "f", "float64": "d", "int8": "b", "int16": "h", "int32": "i", "int64": "q",
            "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q", "bool": "?"}
# Types that numpy learns from ml_dtypes. Without it their bits are seen as whole numbers.
_BITS = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


def _array(data, dtype, shape, offset):
    numpy = _numpy()
    count = 1
    for length in shape:
        count *= length
    if numpy is not None:
        if dtype in _BITS:
            try:
                import ml_dtypes

                dtype = getattr(ml_dtypes, dtype)
            except (ImportError, AttributeError):
                dtype = _BITS[dtype]
        if not count:
            array = numpy.empty(shape, dtype)
            array.flags.writeable = False
            return array
        kind = numpy.dtype(dtype)
        kind = kind.newbyteorder("<") if kind.kind in "iufcmM" else kind
        return numpy.frombuffer(data, dtype=kind, count=count, offset=offset).reshape(shape)
    dtype = _BITS.get(dtype, dtype)
    if dtype not in _FORMATS:
        raise ForkyardError(f"an array of {dtype} is read with numpy, which this interpreter does not have")
    elements = data[offset:offset + count * struct.calcsize(_FORMATS[dtype])]
    try:
        return elements.cast(_FORMATS[dtype], shape)
    except (ValueError, TypeError):  # this Python has no such elements: `struct` unpacks them
        return elements


def _table(data):
    """The columns of a decoded table by name. It is drawn in shared/src/artifact/table/column.rs."""
    (length,) = struct.unpack_from("<Q", data, len(data) - 8)
    return {column["name"]: _column(data, column) for column in json.loads(bytes(data[-8 - length:-8]))}


def _column(data, about):
    (kind, values), = about["values"].items() if isinstance(about["values"], dict) else [(about["values"], None)]
    missing = about["missing"]
    if kind == "array":
        time = values.pop("time")
        array = _array(data, **values)
        numpy = _numpy()
        if numpy is None:
            return array if missing is None else Column(data, about, array)
        if time is not None:
            array = array.view(time)
        if missing is None:
            return array
        mask = _array(data, "bool", [about["rows"]], missing)
        return numpy.ma.MaskedArray(array, mask if array.ndim == 1 else numpy.broadcast_to(mask[:, None], array.shape))
    if kind == "struct":
        values = {field["name"]: _column(data, field) for field in values}
    elif kind == "list":
        values = (values["offsets"], _column(data, values["items"]))
    elif kind == "coded":
        values = (values["codes"], _column(data, values["values"]))
    return Column(data, about, values)


class Column(Sequence):
    """A column of a table whose values are no array of numbers: a sequence, each value made when it is asked for. Text is
    `str`, bytes are `bytes`, a list of numbers is an array and any other a column, several values are a dict. Where there
    is no value it is None."""

    def __init__(self, data, about, values):
        self._data, self._rows, self._missing, self._values = data, about["rows"], about["missing"], values
        kind = about["values"]
        self._kind = next(iter(kind)) if isinstance(kind, dict) else kind

    def __len__(self):
        return self._rows

    def __getitem__(self, at):
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(self._rows))]
        row = at.__index__()
        row = row + self._rows if row < 0 else row
        if not 0 <= row < self._rows:
            raise IndexError(f"there is no row {at}: the column has {self._rows}")
        if self._kind == "nothing" or self._missing is not None and self._data[self._missing + row]:
            return None
        return getattr(self, "_" + self._kind)(self._values, row)

    def __repr__(self):
        return f"<Column of {self._rows} x {self._kind}>"

    def _span(self, offsets, row):
        return struct.unpack_from("<QQ", self._data, offsets + 8 * row)

    def _bytes(self, values, row):
        start, end = self._span(values["offsets"], row)
        return bytes(self._data[values["data"] + start:values["data"] + end])

    def _text(self, values, row):
        return self._bytes(values, row).decode()

    def _list(self, values, row):
        start, end = self._span(values[0], row)
        return values[1][start:end]

    def _coded(self, values, row):
        return values[1][struct.unpack_from("<I", self._data, values[0] + 4 * row)[0]]

    def _struct(self, values, row):
        return {name: column[row] for name, column in values.items()}

    def _array(self, values, row):
        return values[row]


class Records:
    """The records of a JSON Lines file or a JSON document: `records[7]` by row, `records["key"]` and `records.get("key")`
    by key. `keys()` are those of all rows."""

    def __init__(self, data, table):
        # The table is drawn in shared/src/artifact/records.rs.
        self._data, self._table = data, table
        self._count, self._slots, self._is_object = struct.unpack_from("<QQQ", table, 0)
        self._first_slot = 24 + 16 * self._count
        self._field = bytes(table[self._first_slot + 8 * self._slots:]).decode()

    def __len__(self):
        return self._count

    def __iter__(self):
        return (self[row] for row in range(self._count))

    def __contains__(self, key):
        return self._find(key) is not None

    def __getitem__(self, at):
        if hasattr(at, "__index__"):
            at = at.__index__()
            row = at + self._count if at < 0 else at
            if not 0 <= row < self._count:
                raise IndexError(f"there is no row {at}: the artifact has {self._count} records")
            return self._row(row)[1]
        found = self._find(at)
        if found is None:
            raise KeyError(at)
        return found[1]

    def get(self, key, default=None):
        found = self._find(key)
        return default if found is None else found[1]

    def keys(self):
        return [self._row(row)[0] for row in range(self._count)]

    def _find(self, key):
        """The key and the record with this key."""
        import hashlib

        if not isinstance(key, str):
            raise TypeError(f"a record is found by its row, a number, or its key, a text; not by {type(key).__name__}")
        wanted = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
        for step in range(self._slots):
            at = (wanted % self._slots + step) % self._slots
            (slot,) = struct.unpack_from("<Q", self._table, self._first_slot + 8 * at)
            if slot == 0:
                break
            if slot >> 40 == wanted >> 40:
                found = self._row((slot & ((1 << 40) - 1)) - 1)
                if found[0] == key:
                    return found
        return None

    def _row(self, row):
        """The key and the record of a row. The key is None if it has none."""
        start, end = struct.unpack_from("<QQ", self._table, 24 + 16 * row)
        text = bytes(self._data[start:end])
        if self._is_object:
            return next(iter(json.loads(b"{" + text + b"}").items()))
        record = json.loads(text)
        key = record.get(self._field)
        is_key = isinstance(key, str) or isinstance(key, int) and not isinstance(key, bool)
        return str(key) if is_key else None, record


def _load(reference):
    """A result of another node: [kind, path of a file, bytes in hex]."""
    kind, path, held = reference
    if kind == "list":
        return [_load(one) for one in held]
    if path is not None and kind == "npy":
        return _load_npy(path)
    if path is not None:
        with open(path, "rb") as file:
            data = file.read()
    else:
        data = bytes.fromhex(held)
    if kind == "json":
        return json.loads(data)
    if kind == "text":
        return data.decode("utf-8", "replace")
    return _load_npy(io.BytesIO(data)) if kind == "npy" else data


def _load_npy(source):
    numpy = _numpy()
    if numpy is None:
        raise ForkyardError("a result that is an array is read with numpy, which this interpreter does not have")
    if isinstance(source, str):
        # Shared: all processes that read it use the same pages.
        array = numpy.load(source, mmap_mode="r", allow_pickle=False)
        return numpy.asarray(array)
    array = numpy.load(source, allow_pickle=False)
    array.flags.writeable = False
    return array


def _unknown(value):
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        plain = value.item()
        return float(value) if isinstance(plain, numpy.generic) else plain
    name = type(value).__name__
    if numpy is not None and isinstance(value, numpy.ndarray):
        raise TypeError("an array inside another value: return it alone, or as a list (.tolist())")
    raise TypeError(f"{name} is no value of JSON, nor bytes, nor a numpy array; return one of these")


_encode_json = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_unknown
).encode

JSON, BYTES, ARRAY = 0, 1, 3  # as `shared/src/value.rs` numbers them


def _encode(value):
    """The kind of a returned value, and its bytes in one piece or more."""
    if value is None:
        return JSON, (b"null",)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BYTES, (memoryview(value).cast("B"),)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of Python objects cannot be stored; give it a dtype of numbers or text")
        if hasattr(value, "mask"):
            raise TypeError("a masked array has no .npy file; return .filled(...), or data and mask apart")
        value = numpy.asarray(value, order="C")
        head = io.BytesIO()
        about = numpy.lib.format.header_data_from_array_1_0(value)
        numpy.lib.format.write_array_header_1_0(head, about)
        return ARRAY, (head.getvalue(), value.reshape(-1).view("u1").data if value.size else b"")
    return JSON, (_encode_json(value).encode(),)


# ---------------------------------------------------------------------------------------------------------------------
# What is printed


class _Log:
    """The beginning and the end of what one task prints."""

    __slots__ = ("head", "tail", "left_out")

    def __init__(self):
        self.head, self.tail, self.left_out = b"", b"", 0

    def write(self, data):
        half = LOG_MAX // 2 - 64
        room = half - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        if data:
            self.tail += data
            if len(self.tail) > 4 * half:
                self._shorten(half)

    def _shorten(self, half):
        self.left_out += len(self.tail) - half
        self.tail = self.tail[-half:]

    def bytes(self):
        half = LOG_MAX // 2 - 64
        if len(self.tail) > half:
            self._shorten(half)
        notice = b"\n... %d bytes left out ...\n" % self.left_out if self.left_out else b""
        return self.head + notice + self.tail


class _Stream(io.TextIOBase):
    """stdout and stderr: into the log of the task that prints, else to the run's stderr."""

    encoding, errors, line_buffering = "utf-8", "backslashreplace", True

    def __init__(self, fd):
        self._fd = fd
        self.buffer = _Bytes(fd)

    def write(self, text):
        self.buffer.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def fileno(self):
        return self._fd

    def writable(self):
        return True

    def reconfigure(self, **_):
        """Nothing here depends on it."""


class _Bytes(io.RawIOBase):
    def __init__(self, fd):
        self._fd = fd

    def write(self, data):
        task, length = _task_or_none(), len(data)
        data = _hide(bytes(data))
        if task is None:
            os.write(self._fd, data)
        else:
            task.log.write(data)
        return length

    def fileno(self):
        return self._fd

    def writable(self):
        return True


_secrets = []


def _hide(data):
    """Before anything is cut: half a secret is one too."""
    for name, value in _secrets:
        data = data.replace(value, name)
    return data


# ---------------------------------------------------------------------------------------------------------------------
# Functions


_functions = {}


def _function(call):
    """The function that `module:name` or `/path/to/file.py:name` names."""
    found = _functions.get(call)
    if found is None:
        where, _, name = call.rpartition(":")
        found = _module(where)
        for part in name.split("."):
            if not hasattr(found, part):
                import difflib

                near = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ForkyardError(f"{where} has no {part!r}{hint}")
            found = getattr(found, part)
        if not callable(found):
            raise ForkyardError(f"{call} is no function but {type(found).__name__}")
        _functions[call] = found
    return found


def _module(where):
    import importlib
    import importlib.util

    if not where.endswith(".py"):
        return importlib.import_module(where)
    if where not in _modules_of_files:
        name = os.path.basename(where)[:-3]
        folder = os.path.dirname(where)
        if folder not in sys.path:
            sys.path.insert(0, folder)
            # Neighbours of the same name in the folder of another file are not these.
            for neighbour in os.listdir(folder):
                module = sys.modules.get(neighbour[:-3]) if neighbour.endswith(".py") else None
                file = getattr(module, "__file__", None)
                if file and os.path.dirname(file) in _folders and neighbour[:-3] != name:
                    del sys.modules[neighbour[:-3]]
            _folders.append(folder)
        known = sys.modules.get(name)
        if getattr(known, "__file__", None) != where:
            spec = importlib.util.spec_from_file_location(name, where)
            known = importlib.util.module_from_spec(spec)
            sys.modules[name] = known
            try:
                spec.loader.exec_module(known)
            except BaseException:
                del sys.modules[name]
                raise
        _modules_of_files[where] = known
    return _modules_of_files[where]


_modules_of_files, _folders = {}, []


def _trust_no_bytecode_of(folders):
    """Modules in these folders are compiled from the source whose digest is in the nodes' keys: bytecode beside it may
    be of an older one, if both were written in one second."""
    from importlib.machinery import SourceFileLoader

    original = SourceFileLoader.path_stats

    def path_stats(self, path):
        if "/site-packages/" not in path and any(path.startswith(folder) for folder in folders):
            raise OSError("read the source")
        return original(self, path)

    SourceFileLoader.path_stats = path_stats


# ---------------------------------------------------------------------------------------------------------------------
# Running tasks. The two ends of each channel are described in worker/src/python/wire.rs.

OK, ERROR, RETRY, CANCELLED, BROKEN = range(5)
_REPLY = struct.Struct("<IBBHQQQII")
_NOT_THEIRS = (os.path.dirname(json.__file__), os.path.join(os.path.dirname(os.__file__), "importlib"))
MSG_DONTWAIT = 0x40
QUICK_NS = 100_000
FLUSH_BYTES = 64 << 10
SPIN_NS = 50_000


def _failure(error):
    """What went wrong, for the person who wrote the function."""
    try:
        return _told(error)
    except BaseException as other:
        return ERROR, f"{type(error).__name__}, whose message cannot be made: {type(other).__name__}"


def _told(error):
    """Type, message, and the person's own frames."""
    if isinstance(error, RetryAfter):
        return RETRY, f"{error.seconds}\n{error}"
    import traceback

    lines, seen = [], set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        title = "".join(traceback.format_exception_only(type(error), error)).strip()
        if isinstance(error, ForkyardError):
            title = str(error)
        elif isinstance(error, SystemExit):
            title = f"SystemExit: {error.code} (the function called sys.exit)"
        lines.append(title if not lines else f"caused by {title}")
        for one in getattr(error, "exceptions", ())[:5]:
            lines.append("  one of them is " + "".join(traceback.format_exception_only(type(one), one)).strip())
        frames = traceback.extract_tb(error.__traceback__)
        frames = [f for f in frames if not f.filename.startswith(("<", *_NOT_THEIRS))]
        for frame in frames[-10:]:
            said = f": {frame.line}" if frame.line else ""
            lines.append(f"  {frame.filename}:{frame.lineno} in {frame.name}{said}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return ERROR, "\n".join(lines)


def _answer(task, outcome, start):
    """The reply of a task, a header and the pieces after it; its size, how long it took, and whether it is done. `outcome` is
    what the function returned, or a failure."""
    status, kind, value = OK, JSON, ()
    if type(outcome) is _Failed:
        status, text = outcome.status, outcome.text
    else:
        try:
            kind, value = _encode(outcome)
        except BaseException as error:
            status, text = _failure(error)
    writes = b""
    if status == OK and task.writes:
        try:
            pairs = (f"{_encode_json(key)}:{'null' if said is None else '[' + said + ']'}" for key, said in task.writes.items())
            writes = ("{" + ",".join(pairs) + "}").encode()
        except UnicodeEncodeError as error:
            status, text = _failure(error)
    if status != OK:
        kind, value = JSON, (_hide(text.encode("utf-8", "backslashreplace"))[:ERROR_MAX],)
    log = task.log.bytes()
    length = len(value[0]) if len(value) == 1 else sum(len(piece) for piece in value)
    end = time.monotonic_ns()
    header = _REPLY.pack(task.node, status, kind, 0, start, end - start, length, len(writes), len(log))
    return (header, *value, writes, log), len(header) + length + len(writes) + len(log), end - start, status == OK


class _Failed:
    __slots__ = ("status", "text")

    def __init__(self, status, text):
        self.status, self.text = status, text


def _prepare(message):
    function = _function(message["c"])
    arguments, named = message.get("g") or (), message.get("k") or {}
    for name, reference in (message.get("b") or {}).items():
        if name.startswith("params."):
            named[name[7:]] = _load(reference)
    return function, arguments, named


def _run(message):
    """Runs a plain function to its end."""
    start = time.monotonic_ns()
    task = _Task(message)
    before = _of_context.set(task)
    try:
        function, arguments, named = _prepare(message)
        outcome = function(*arguments, **named)
        if hasattr(outcome, "__await__"):
            import asyncio

            outcome = asyncio.run(_awaited(outcome))
    except BaseException as error:
        outcome = _Failed(*_failure(error))
    answer = _answer(task, outcome, start)
    task.has_ended = True
    _of_context.reset(before)
    if _away:
        _away.clear()
        _chdir(_home)
    return answer


_home, _chdir, _away = os.getcwd(), os.chdir, []


def _noted_chdir(path):
    _chdir(path)
    _away.append(path)


async def _awaited(it):
    return await it


def _run_group(messages, send):
    """Runs tasks one after the other, up to the first that fails. Answers of quick ones travel together."""
    pending, held = [], 0
    for left in range(len(messages) - 1, -1, -1):
        pieces, size, took, good = _run(messages[-1 - left])
        if took > QUICK_NS:
            _kill_children()
        if not good and left:
            header = bytearray(pieces[0])
            struct.pack_into("<H", header, 6, left)
            pieces = (header, *pieces[1:])
        if size > FLUSH_BYTES:
            send(pending)
            for piece in pieces:
                send([piece])
            pending, held = [], 0
        else:
            pending += pieces
            held += size
        if not good:
            break
        if took > QUICK_NS or held > FLUSH_BYTES:
            send(pending)
            pending, held = [], 0
    send(pending)


def _kill_children():
    """Nothing that a function has started outlives its task."""
    killed = True
    while killed:
        killed = False
        for thread in os.listdir("/proc/self/task"):
            try:
                with open(f"/proc/self/task/{thread}/children") as file:
                    children = [int(pid) for pid in file.read().split()]
            except OSError:
                continue
            for pid in children:
                try:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
                    killed = True
                except (OSError, ChildProcessError):
                    pass


def _ask(what, node, key):
    """Asks the worker for a value of the state: its JSON text, or None."""
    _stay_alone()
    key = key.encode()
    with _ask_lock:
        _asks.sendall(struct.pack("<IBI", 5 + len(key), what, node) + key)
        status, length = struct.unpack("<BI", _exactly(5))
        data = _exactly(length)
    if status == 2:
        raise ForkyardError(data.decode())
    return data.decode() if status == 0 else None


def _exactly(count):
    data = b""
    while len(data) < count:
        part = _asks.recv(count - len(data))
        if not part:
            os._exit(0)
        data += part
    return data


_asks, _ask_lock = None, threading.Lock()


def _stay_alone():
    """A function may fork: its copy of us has nothing to say to the worker."""
    if os.getpid() != _pid:
        os._exit(0)


_pid = None


class _Wire:
    """Frames from the worker: a length, a letter, JSON."""

    def __init__(self, socket):
        self.socket, self.held = socket, bytearray()

    def frames(self, wait):
        """All frames that are there; with `wait`, one at least."""
        found = []
        while True:
            while len(self.held) >= 4:
                end = 4 + int.from_bytes(self.held[:4], "little")
                if len(self.held) < end:
                    break
                found.append((self.held[4:5], bytes(self.held[5:end])))
                del self.held[:end]
            if found:
                return found
            part = self._receive(wait)
            if part is None:
                return found
            if not part:
                os._exit(0)
            self.held += part

    def _receive(self, wait):
        # A moment without sleeping: waking up takes longer than most functions do.
        until = time.monotonic_ns() + SPIN_NS if wait else 0
        while True:
            try:
                return self.socket.recv(1 << 18, MSG_DONTWAIT)
            except BlockingIOError:
                if not wait:
                    return None
            if time.monotonic_ns() > until:
                return self.socket.recv(1 << 18)
            os.sched_yield()

    def send(self, pieces):
        _stay_alone()
        if len(pieces) == 1:
            self.socket.sendall(pieces[0])
        elif pieces:
            self.socket.sendall(b"".join(pieces))


def _serve(wire):
    while True:
        for _, body in wire.frames(True):
            _run_group(json.loads(body), wire.send)


def _serve_concurrently(wire):
    """The same with an event loop, for coroutines that run beside each other."""
    import asyncio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    lanes, groups = {}, []

    async def run(message):
        start = time.monotonic_ns()
        task = _Task(message)
        _of_context.set(task)
        try:
            function, arguments, named = _prepare(message)
            outcome = function(*arguments, **named)
            if hasattr(outcome, "__await__"):
                outcome = await outcome
        except asyncio.CancelledError:
            outcome = _Failed(CANCELLED, "cancelled")
        except BaseException as error:
            outcome = _Failed(*_failure(error))
        pieces, _, _, _ = _answer(task, outcome, start)
        task.has_ended = True
        lanes.pop(task.node, None)
        if not lanes:
            _kill_children()
        wire.send(pieces)

    def readable():
        for letter, body in wire.frames(False):
            if letter == b"G":
                groups.append(body)
                loop.stop()
            elif letter == b"S":
                for message in json.loads(body):
                    lanes[message["n"]] = loop.create_task(run(message))
            elif int(body) in lanes:
                # Who was only kept by another one that blocked the loop may end in this moment.
                loop.call_later(0.05, lanes[int(body)].cancel)

    loop.add_reader(wire.socket, readable)
    while True:
        loop.run_forever()
        # Outside of the loop: a plain function may run one of its own.
        while groups:
            _run_group(json.loads(groups.pop(0)), wire.send)
        asyncio.set_event_loop(loop)


# ---------------------------------------------------------------------------------------------------------------------
# Outside: the `forkyard` command


class RunFailed(ForkyardError):
    """A run that did not end well: `code` is its exit code, `errors` what failed, by node or by the item's number, and
    `results` of a `map` has None in the place of what failed."""

    def __init__(self, message, code, errors, results=None):
        super().__init__(message)
        self.code, self.errors, self.results = code, errors, results


def map(function, items, *, artifacts=None, workers=None, store=None, python=None, **options):
    """What `function` returns for each item, in their order; results that are in the store are not computed again.

    `function` is a function of a module or a script, or its name as `file.py:name`. Items are anything that JSON holds.
    `artifacts` are files by name, for `forkyard.artifact(name)`. More options are those of `forkyard map`: concurrency,
    timeout, attempts, rate, salt, preload, code, secret, path; those that may stand several times take a list.
    """
    if _is_node:
        raise ForkyardError("forkyard.map inside a node's process: put it under `if __name__ == \"__main__\":`")
    call, folders = _call_of(function)
    command = [*_command(store), "map", call, "-", "--json", "--python", python or sys.executable]
    for folder in folders:
        command += ["--path", folder]
    if workers is not None:
        command += ["--workers", str(workers)]
    for name, path in (artifacts or {}).items():
        command += ["-a", f"{name}={path}"]
    for name, value in options.items():
        for one in value if isinstance(value, (list, tuple)) else [value] * (value is not False):
            command += [f"--{name.replace('_', '-')}"] + ([] if one is True else [str(one)])
    lines = "".join(_encode_json(item) + "\n" for item in items)
    done = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE)
    results, errors = [None] * lines.count("\n"), {}
    for row in _rows(done.stdout):
        index = int(row["node"][len("map["):-1])
        if row["error"] is None:
            results[index] = _value_of(row)
        else:
            errors[index] = row["error"]
    if done.returncode:
        first = next(iter(errors.items()), None)
        said = f"item {first[0]}: {first[1]}" if first else "see stderr"
        raise RunFailed(f"forkyard map ended with code {done.returncode}: {said}", done.returncode, errors, results)
    return results


def run(manifest, *, workers=None, store=None, options=()):
    """Runs a manifest, with more `options` of `forkyard run` if wanted. The numbers of its last event: ran, cached, ..."""
    command = [*_command(store), "run", str(manifest), "--json", *options]
    if workers is not None:
        command += ["--workers", str(workers)]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        errors = {event["node"]: event.get("error") for event in events if event["event"] == "node_finished"}
        first = next(iter(errors.items()), None)
        said = f"{first[0]}: {first[1]}" if first else "see stderr"
        raise RunFailed(f"forkyard run ended with code {done.returncode}: {said}", done.returncode, errors)
    return events[-1]


def results(*, store=None, run=None):
    """What the nodes of a run returned (the newest, if none is named), by node."""
    command = [*_command(store), "results", "export", "--format", "jsonl", "-"]
    if run is not None:
        command += ["--run", str(run)]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        raise RunFailed(f"forkyard results ended with code {done.returncode}", done.returncode, {})
    return {row["node"]: _value_of(row) for row in _rows(done.stdout) if row["kind"] is not None}


_is_node = False


def _rows(text):
    return (json.loads(line) for line in text.splitlines())


def _value_of(row):
    import base64

    value = row["value"]
    if row["kind"] == "npy":
        return _load_npy(io.BytesIO(base64.b64decode(value["npy"])))
    return base64.b64decode(value["base64"]) if row["kind"] == "bytes" else value


def _command(store):
    import shutil

    program = os.environ.get("FORKYARD") or shutil.which("forkyard")
    if program is None:
        raise ForkyardError("there is no `forkyard` in the PATH; FORKYARD=/path/to/forkyard names one")
    return [program] if store is None else [program, "--store", str(store)]


def _call_of(function):
    """A function as `forkyard map` is told it, and the folders in which its module is found."""
    import inspect

    if isinstance(function, str):
        return function, []
    name = getattr(function, "__qualname__", repr(function))
    file = inspect.getsourcefile(function) if inspect.isfunction(function) else None
    if not name.replace(".", "_").isidentifier() or file is None or not os.path.exists(file):
        raise ForkyardError(f"{name} cannot be found by name in another process: give a function of a module")
    module = function.__module__
    if "." in module:
        parts = module.count(".") + (os.path.basename(file) == "__init__.py") + 1
        folder = os.path.abspath(file)
        for _ in range(parts):
            folder = os.path.dirname(folder)
        return f"{module}:{name}", [folder]
    return f"{os.path.abspath(file)}:{name}", []


# ---------------------------------------------------------------------------------------------------------------------
# Processes


def _threads():
    return len(os.listdir("/proc/self/task"))


def _zygote(control):
    """Imports everything once, then forks a child for each worker that asks. Never returns."""
    import gc
    import socket

    global _is_node
    _is_node = True
    # These are needed in every child: loaded here, they are shared.
    import difflib, faulthandler, fcntl, hashlib, importlib.util, mmap, select, signal, traceback  # noqa: F401, E401

    try:
        import ctypes
    except ImportError:
        ctypes = None
    sys.stdout, sys.stderr = _Stream(2), _Stream(2)
    control = socket.socket(fileno=control)
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 20, 4)
        if not message:
            os._exit(0)
        message = json.loads(message)
        if "artifact" not in message:
            break
        about = message["artifact"]
        _artifacts[about["name"]] = _Artifact(about, fds[0], fds[1] if len(fds) > 1 else None)
    setup = message
    for name in setup["secrets"]:
        if len(os.environb.get(name.encode(), b"")) >= 6:
            _secrets.append((f"[secret {name}]".encode(), os.environb[name.encode()]))
    _carry_context()
    sys.argv = ["forkyard"]
    sys.path[:] = setup["path"] + [folder for folder in sys.path if folder and folder not in setup["path"]]
    _trust_no_bytecode_of(setup["path"])
    warnings = []
    if setup["concurrent"]:
        import asyncio  # noqa: F401
    matrices = any(one.about["format"] not in ("raw", "records") for one in _artifacts.values())
    wanted = [("numpy", False)] * matrices
    wanted += [(name, True) for name in setup["preload"]] + [(name, False) for name in setup["modules"]]
    for name, must in wanted:
        before = _threads()
        try:
            _module(name)
        except BaseException as error:
            if must:
                why = _failure(error)[1]
                control.send(json.dumps({"error": f"preload {name}: {why[:ERROR_MAX]}"}).encode())
                os._exit(1)
        if _threads() > before:
            warnings.append(
                f"importing {name} starts {_threads() - before} thread(s): forking is not safe beside threads, and they are "
                "missing in the workers. Start them inside the function, or take the module out of `preload`"
            )
    libc = ctypes.CDLL(None) if ctypes else None
    # Processes that only fork need not be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.flush()
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": warnings}).encode())
    while True:
        request, fds, _, _ = socket.recv_fds(control, 64, 4)
        if not request:
            os._exit(0)
        try:
            middle = os.fork()
        except OSError as error:
            text = f"fork a Python process: {error}".encode()
            header = _REPLY.pack(0, BROKEN, JSON, 0, 0, 0, len(text), 0, 0)
            os.write(fds[0], header + text)
            middle = -1
        if middle == 0:
            # Whose parent ends at once, its new parent is the zygote of all workers, which waits for it.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            child = os.fork()
            if child == 0:
                _child(control, fds, libc, setup["concurrent"])
            control.send(json.dumps({"child": child, "worker": int(request)}).encode())
            os._exit(0)
        for fd in fds:
            os.close(fd)


def _child(control, fds, libc, concurrent):
    """The life of a child. It ends with its worker, by the kernel: a pipe that only the worker holds open sends it
    SIGKILL when it closes."""
    global _asks, _pid
    import faulthandler
    import fcntl
    import select
    import signal
    import socket

    try:
        control.close()
        tasks, asks, alive, printed = fds
        fcntl.fcntl(alive, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(alive, getattr(fcntl, "F_SETSIG", 10), signal.SIGKILL)
        fcntl.fcntl(alive, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        if select.select([alive], [], [], 0)[0]:
            os._exit(0)
        if libc:
            libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what a function starts cannot escape
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.close(printed)
        faulthandler.enable(file=2, all_threads=False)  # where it was, if it is killed by its own fault
        sys.stdout, sys.stderr = _Stream(1), _Stream(2)
        numpy = sys.modules.get("numpy")
        if numpy is not None and "numpy.random" in sys.modules:
            numpy.random.seed()
        _asks = socket.socket(fileno=asks)
        wire = _Wire(socket.socket(fileno=tasks))
        _pid = os.getpid()
        wire.send([_REPLY.pack(_pid, OK, JSON, 0, 0, 0, 0, 0, 0)])
        (_serve_concurrently if concurrent else _serve)(wire)
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(70)
