"""The forms of numpy's, pandas' and torch's values, as far as these are loaded."""


def numpy_form(value):
    np = sys.modules["numpy"]
    if isinstance(value, np.generic):
        return write_numpy_scalar if not isinstance(value, np.void) else None
    if type(value) is np.ndarray:
        return write_ndarray
    if isinstance(value, np.ma.MaskedArray):
        return lambda writer, value: write_tagged(writer, b"ma", [value.data, np.ma.getmaskarray(value)])
    if isinstance(value, np.ndarray):
        return lambda writer, value: write_ndarray(writer, value.view(np.ndarray))
    if isinstance(value, np.dtype):
        return lambda writer, value: write_tagged(writer, b"dt", [dtype_name(value)])
    if isinstance(value, type) and issubclass(value, np.generic) and value.__module__ == "numpy":
        return lambda writer, value: write_tagged(writer, b"nt", [value.__name__])
    return None


def dtype_name(dtype):
    return dtype.str if dtype.names is None else tuple((name, dtype_name(dtype[name])) for name in dtype.names)


def dtype_of(name):
    np = sys.modules["numpy"]
    return np.dtype(name) if isinstance(name, str) else np.dtype([(part[0], dtype_of(part[1])) for part in name])


def write_numpy_scalar(writer, value):
    if value.dtype.hasobject:
        raise CannotCross("a numpy scalar of objects")
    write_tagged(writer, b"ns", [value.dtype.str, value.tobytes()])


def write_ndarray(writer, value):
    if writer.number(value):
        return
    if value.dtype.hasobject:
        if value.dtype.names is not None:
            raise CannotCross("an array of structures with objects")
        write_tagged(writer, b"no", [tuple(value.shape)])
        writer.sequence(value.ravel().tolist() if value.dtype == object else list(value.ravel()))
    else:
        write_tagged(writer, b"na", [tuple(value.shape), dtype_name(value.dtype), value.tobytes()])


def read_ndarray(reader):
    np = sys.modules["numpy"]
    number = len(reader.containers)
    reader.numbered(None)
    shape, dtype, data = reader.values()
    item = np.frombuffer(data, dtype_of(dtype)).reshape(shape).copy() if data else np.zeros(shape, dtype_of(dtype))
    reader.containers[number] = item
    return item


def read_object_array(reader):
    np = sys.modules["numpy"]
    number = len(reader.containers)
    reader.numbered(None)
    (shape,) = reader.values()
    # Inner arrays would be spread out by a plain assignment.
    items = reader.sequence()
    item = np.empty(len(items), object)
    for index, value in enumerate(items):
        item[index] = value
    item = item.reshape(shape)
    reader.containers[number] = item
    return item


def torch_form(value):
    torch = sys.modules["torch"]
    # A module that is being imported has no names yet.
    if not hasattr(torch, "Tensor"):
        return None
    if isinstance(value, torch.Tensor):
        return write_tensor
    if isinstance(value, torch.dtype):
        return lambda writer, value: write_tagged(writer, b"th", [str(value)])
    return None


def is_plain_tensor(value):
    """Dense, and in this process's memory: others have no bytes to send."""
    torch = sys.modules["torch"]
    kind = getattr(torch, "Tensor", ())
    return isinstance(value, kind) and value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized


def write_tensor(writer, value):
    if not is_plain_tensor(value):
        return writer.other(writer, value)
    if writer.number(value):
        return
    write_tagged(writer, b"tt", [str(value.dtype), tuple(value.shape), tensor_bytes(value), bool(value.requires_grad)])


def tensor_bytes(value):
    torch = sys.modules["torch"]
    plain = value.detach()
    if hasattr(plain, "resolve_conj"):
        plain = plain.resolve_conj().resolve_neg()
    plain = plain.contiguous()
    # numpy has no such numbers.
    return (plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).numpy().tobytes()


def torch_dtype(name):
    torch = sys.modules["torch"]
    dtype = getattr(torch, name[len("torch.") :], None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError("no type of tensors")
    return dtype


def read_tensor(reader):
    torch = sys.modules["torch"]
    number = len(reader.containers)
    reader.numbered(None)
    name, shape, data, has_gradient = reader.values()
    dtype = torch_dtype(name)
    item = torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape) if data else torch.zeros(shape, dtype=dtype)
    reader.containers[number] = item.requires_grad_() if has_gradient else item
    return reader.containers[number]


def pandas_form(value):
    pd = sys.modules["pandas"]
    if isinstance(value, pd.DataFrame):
        return write_frame
    if isinstance(value, pd.Series):
        return write_series
    if isinstance(value, pd.Index):
        return write_index
    if value is pd.NaT:
        return lambda writer, value: write_tagged(writer, b"NT", [])
    if value is pd.NA:
        return lambda writer, value: write_tagged(writer, b"NA", [])
    if isinstance(value, pd.Timestamp):
        return lambda writer, value: write_tagged(writer, b"ts", [value.value, zone(value.tzinfo), unit(value)])
    if isinstance(value, pd.Timedelta):
        return lambda writer, value: write_tagged(writer, b"td", [value.value, unit(value)])
    if isinstance(value, pd.Period):
        return lambda writer, value: write_tagged(writer, b"pe", [value.ordinal, value.freqstr])
    if isinstance(value, pd.Interval):
        return lambda writer, value: write_tagged(writer, b"iv", [value.left, value.right, value.closed])
    if isinstance(value, pd.Categorical):
        return write_categorical
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return write_extension
    if isinstance(value, pd.api.extensions.ExtensionDtype):
        return lambda writer, value: write_tagged(writer, b"ed", [str(value)])
    return None


def unit(value):
    return getattr(value, "unit", None)


def with_unit(value, unit):
    return value.as_unit(unit) if unit is not None and hasattr(value, "as_unit") else value


def write_categorical(writer, value):
    write_tagged(writer, b"ca", [value.codes, value.categories, bool(value.ordered)])


def write_extension(writer, value):
    pd = sys.modules["pandas"]
    if isinstance(value, pd.Categorical):
        return write_categorical(writer, value)
    tz = getattr(value.dtype, "tz", None)
    if tz is not None:
        return write_tagged(writer, b"tz", [value.asi8, zone(tz), str(value.dtype)])
    if type(value).__name__ in ("IntegerArray", "BooleanArray", "FloatingArray"):
        return write_tagged(writer, b"em", [str(value.dtype), value._data, value._mask])
    write_tagged(writer, b"ex", [str(value.dtype)])
    writer.values(list(value))


def read_masked(name, data, mask):
    pd = sys.modules["pandas"]
    kind = type(pd.array([], dtype=name))
    return kind(data, mask)


def read_zoned(stamps, tz, name):
    pd = sys.modules["pandas"]
    unit = name[len("datetime64[") :].split(",")[0]
    return pd.DatetimeIndex(stamps.view("M8[%s]" % unit)).tz_localize("UTC").tz_convert(zone_of(tz)).array


def write_values(writer, values):
    """A column's values. Written anew each time: they are no containers of their own."""
    np = sys.modules["numpy"]
    if type(values) is np.ndarray:
        if values.dtype.kind == "O":
            writer.out.append(b"o")
            writer.sequence(values.tolist())
        else:
            writer.out.append(b"p")
            writer.text(values.dtype.str)
            writer.blob(values.tobytes())
    else:
        writer.out.append(b"z")
        write_extension(writer, values)


def read_values(reader):
    np = sys.modules["numpy"]
    tag = bytes(reader.take(1))
    if tag == b"o":
        items = reader.sequence()
        values = np.empty(len(items), object)
        for index, item in enumerate(items):
            values[index] = item
        return values
    if tag == b"p":
        dtype = np.dtype(reader.text())
        return np.frombuffer(bytearray(reader.blob()), dtype)
    return reader.value()


def column_values(series):
    """A numpy array, or the extension array behind it."""
    np = sys.modules["numpy"]
    values = series.array
    dtype = series.dtype
    return series.to_numpy() if isinstance(dtype, np.dtype) else values


def write_series(writer, value):
    if not writer.number(value):
        write_tagged(writer, b"se", [value.name, value.index])
        write_values(writer, column_values(value))


def read_series(reader):
    pd = sys.modules["pandas"]
    number = len(reader.containers)
    reader.numbered(None)
    name, index = reader.values()
    values = read_values(reader)
    item = pd.Series(values, index=index, name=name, dtype=values.dtype, copy=False)
    reader.containers[number] = item
    return item


INDEXES = {}  # by their bytes: frames that follow each other have the same ones
MOST_INDEXES = 256


def write_index(writer, value):
    own = Writer(writer.other, (), writer.shares)
    write_labels(own, value)
    writer.out.append(b"Xix")
    writer.blob(own.bytes())


def read_index(reader):
    data = bytes(reader.blob())
    item = INDEXES.get(data)
    if item is None:
        item = Reader(memoryview(data), reader.other).value()
        if len(INDEXES) < MOST_INDEXES and len(data) < 4096:
            INDEXES[data] = item
        else:
            return item
    # Its names can be changed.
    return item.view()


def write_labels(writer, value):
    pd, np = sys.modules["pandas"], sys.modules["numpy"]
    if isinstance(value, pd.RangeIndex):
        write_tagged(writer, b"ri", [value.start, value.stop, value.step, value.name])
    elif isinstance(value, pd.MultiIndex):
        codes = tuple(tuple(map(int, codes)) for codes in value.codes)
        write_tagged(writer, b"mi", [tuple(value.levels), codes, tuple(value.names)])
    else:
        freq = getattr(value, "freqstr", None) if not isinstance(value, pd.PeriodIndex) else None
        write_tagged(writer, b"il", [value.name, freq])
        write_values(writer, value.to_numpy() if isinstance(value.dtype, np.dtype) else value.array)


def read_labels(reader):
    pd = sys.modules["pandas"]
    name, freq = reader.values()
    values = read_values(reader)
    item = pd.Index(values, dtype=values.dtype, name=name)
    if freq is not None and hasattr(item, "freq"):
        try:
            item.freq = freq
        except ValueError:
            pass
    return item


def read_multi_index(levels, codes, names):
    pd = sys.modules["pandas"]
    return pd.MultiIndex(levels=levels, codes=codes, names=names)


def write_frame(writer, value):
    if writer.number(value):
        return
    write_tagged(writer, b"df", [value.columns, value.index])
    blocks = getattr(getattr(value, "_mgr", None), "blocks", None)
    if blocks is None or BLOCKS is None:
        writer.out.append(b"1")
        for index in range(value.shape[1]):
            write_values(writer, column_values(value.iloc[:, index]))
        return
    # As they are kept: columns of one type lie together.
    writer.out.append(b"2")
    writer.size(len(blocks))
    for block in blocks:
        values = block.values
        writer.blob(block.mgr_locs.as_array.astype("i8").tobytes())
        if not isinstance(block.dtype, sys.modules["numpy"].dtype):
            writer.out.append(b"z")
            write_extension(writer, values.ravel() if values.ndim == 2 else values)
        else:
            plain = sys.modules["numpy"].asarray(values)
            write_values(writer, plain.ravel())


def read_frame(reader):
    pd = sys.modules["pandas"]
    number = len(reader.containers)
    reader.numbered(None)
    columns, index = reader.values()
    if bytes(reader.take(1)) == b"2":
        item = read_blocks(reader, columns, index)
    else:
        count = len(columns)
        if count > len(reader.data):
            raise ValueError("a message is cut off")
        data = {number: read_values(reader) for number in range(count)}
        item = pd.DataFrame(data, index=index, copy=False) if data else pd.DataFrame(index=index)
        item.columns = columns
    reader.containers[number] = item
    return item


def read_blocks(reader, columns, index):
    pd, np = sys.modules["pandas"], sys.modules["numpy"]
    new_block, place, manager = BLOCKS
    count, blocks, places = reader.size(), [], []
    for _ in range(count):
        at = np.frombuffer(bytes(reader.blob()), "i8")
        values = read_values(reader)
        if isinstance(values, np.ndarray):
            values = values.reshape(len(at), len(index))
            if values.dtype.kind in "mM" and ARRAYS is not None:
                values = ARRAYS(values)
        elif getattr(values.dtype, "tz", None) is not None:
            values = values.reshape(len(at), len(index))
        elif len(values) != len(index) or len(at) != 1:
            raise ValueError("a column of another length")
        places += at.tolist()
        blocks.append(new_block(values, placement=place(at), ndim=2))
    if sorted(places) != list(range(len(columns))):
        raise ValueError("columns are missing")
    made = manager(tuple(blocks), [columns, index])
    if hasattr(pd.DataFrame, "_constructor_from_mgr"):
        return pd.DataFrame._from_mgr(made, made.axes)
    return pd.DataFrame(made)


def pandas_blocks():
    """How frames are put together of blocks; `None` where this pandas is of another make."""
    try:
        from pandas.core.internals.blocks import new_block
        from pandas.core.internals.managers import BlockManager
        from pandas._libs.internals import BlockPlacement

        return new_block, BlockPlacement, BlockManager
    except ImportError:
        return None


def pandas_arrays():
    """What makes a block's values of times; `None` where they are plain."""
    try:
        from pandas.core.construction import ensure_wrapped_if_datetimelike

        return ensure_wrapped_if_datetimelike
    except ImportError:
        return None


BLOCKS = ARRAYS = None


def prepare():
    """Looks at what is loaded, once, before there are samples."""
    global BLOCKS, ARRAYS
    if "pandas" in sys.modules:
        BLOCKS, ARRAYS = pandas_blocks(), pandas_arrays()


TAGGED.update({
    b"ns": read_parts(lambda dtype, data: sys.modules["numpy"].frombuffer(data, dtype)[0]),
    b"na": read_ndarray,
    b"no": read_object_array,
    b"ma": read_parts(lambda data, mask: sys.modules["numpy"].ma.MaskedArray(data, mask)),
    b"dt": read_parts(dtype_of),
    b"nt": read_parts(lambda name: sys.modules["numpy"].dtype(name.rstrip("_")).type),
    b"tt": read_tensor,
    b"th": read_parts(torch_dtype),
    b"NT": read_parts(lambda: sys.modules["pandas"].NaT),
    b"NA": read_parts(lambda: sys.modules["pandas"].NA),
    b"ts": read_parts(
        lambda value, tz, unit: with_unit(
            sys.modules["pandas"].Timestamp(value).tz_localize("UTC").tz_convert(zone_of(tz)), unit
        )
        if tz is not None
        else with_unit(sys.modules["pandas"].Timestamp(value), unit)
    ),
    b"td": read_parts(lambda value, unit: with_unit(sys.modules["pandas"].Timedelta(value), unit)),
    b"pe": read_parts(lambda ordinal, freq: sys.modules["pandas"].Period(ordinal=ordinal, freq=freq)),
    b"iv": read_parts(lambda left, right, closed: sys.modules["pandas"].Interval(left, right, closed)),
    b"ca": read_parts(
        lambda codes, categories, ordered: sys.modules["pandas"].Categorical.from_codes(codes, categories, ordered)
    ),
    b"tz": read_parts(read_zoned),
    b"em": read_parts(read_masked),
    b"ex": lambda reader: (lambda name: sys.modules["pandas"].array(reader.values(), dtype=name))(*reader.values()),
    b"ed": read_parts(lambda name: sys.modules["pandas"].api.types.pandas_dtype(name)),
    b"se": read_series,
    b"ix": read_index,
    b"il": read_labels,
    b"ri": read_parts(lambda start, stop, step, name: sys.modules["pandas"].RangeIndex(start, stop, step, name=name)),
    b"mi": read_parts(read_multi_index),
    b"df": read_frame,
})
LIBRARIES += [("pandas", pandas_form), ("numpy", numpy_form), ("torch", torch_form)]


def numpy_snapshot(item):
    np = sys.modules["numpy"]
    return item.copy() if type(item) is np.ndarray else None


def numpy_changed(item, before):
    np = sys.modules["numpy"]
    if type(item) is not np.ndarray:
        return None
    if item.dtype != before.dtype or item.shape != before.shape:
        return True
    if item.dtype.hasobject:
        return any(a is not b for a, b in zip(item.ravel().tolist(), before.ravel().tolist()))
    return item.tobytes() != before.tobytes()


def numpy_become(item, new):
    np = sys.modules["numpy"]
    if type(item) is not np.ndarray:
        return False
    if item.shape == new.shape and item.dtype == new.dtype:
        item[...] = new
    return True


def blocks_of(item):
    """The arrays behind a frame or series, as they are now."""
    return [block.values for block in item._mgr.blocks]


def pandas_snapshot(item):
    pd = sys.modules["pandas"]
    if not isinstance(item, (pd.DataFrame, pd.Series)):
        return None
    names = [list(axis.names) for axis in item.axes]
    return item.axes, names, [(values, values.copy()) for values in blocks_of(item)]


def pandas_changed(item, before):
    pd = sys.modules["pandas"]
    np = sys.modules["numpy"]
    if not isinstance(item, (pd.DataFrame, pd.Series)):
        return None
    axes, names, values = before
    if any(now is not then for now, then in zip(item.axes, axes)):
        return True
    if any(list(axis.names) != then for axis, then in zip(axes, names)):
        return True
    now = blocks_of(item)
    if len(now) != len(values):
        return True
    for array, (same, copy) in zip(now, values):
        if array is not same:
            return True
        if type(array) is np.ndarray:
            if numpy_changed(array, copy):
                return True
        elif not array.equals(copy):
            return True
    return False


def pandas_become(item, new):
    pd = sys.modules["pandas"]
    if not isinstance(item, (pd.DataFrame, pd.Series)):
        return False
    item._update_inplace(new)
    if isinstance(item, pd.Series):
        object.__setattr__(item, "_name", new.name)
    return True


def torch_snapshot(item):
    return (str(item.dtype), tuple(item.shape), tensor_bytes(item)) if is_plain_tensor(item) else None


def torch_changed(item, before):
    return torch_snapshot(item) != before if is_plain_tensor(item) else None


def torch_become(item, new):
    if not is_plain_tensor(item):
        return False
    item.data = new.data
    return True


def torch_copy(item):
    return item.detach().clone().requires_grad_(item.requires_grad) if is_plain_tensor(item) else None


SNAPSHOTS += [
    ("numpy", numpy_snapshot, numpy_changed),
    ("pandas", pandas_snapshot, pandas_changed),
    ("torch", torch_snapshot, torch_changed),
]
BECOMES += [("numpy", numpy_become), ("pandas", pandas_become), ("torch", torch_become)]
COPIES.append(("torch", torch_copy))
# Last: everything that has attributes.
SNAPSHOTS.append(("sys", object_snapshot, object_changed))
BECOMES.append(("sys", object_become))
