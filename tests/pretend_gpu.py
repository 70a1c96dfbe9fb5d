"""A GPU that is not there: tensors that say ``cuda:0`` and compute on the CPU, raise where a real one would, and log what costs
time there.

    with pretended() as log:
        model.to("cuda")(torch.zeros(2, 3).to("cuda"))
    assert log.copies == [...]

Raises where devices are mixed, NumPy is asked for, or a tensor of the device is pinned. Knows the ways to the device that this
project and its libraries take: ``.to``, ``.cuda``, ``.cpu``, ``.copy_``, factories with ``device=``, and modules. Underneath the
tensors are torch's ``meta``, so models that are loaded by way of that are to be loaded before.
"""

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from unittest import mock

import torch
from torch.autograd.graph import _engine_run_backward
from torch.nn import functional
from torch.nn.attention.bias import CausalBias
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from geoloc.ranking.attention import Lengths

aten = torch.ops.aten
DEVICE = torch.device("cuda:0")
_FACTORIES = {
    getattr(torch, name)
    for name in (
        *("tensor", "as_tensor", "zeros", "ones", "empty", "full", "arange", "randn", "rand", "eye", "linspace"),
        *("randint", "randperm", "triu_indices", "tril_indices", "scalar_tensor"),
    )
}
_WAITING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.equal}
"""Whose result, or its size, the CPU waits for."""
_WITH_CPU_INDEX = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


@dataclass
class Log:
    copies: list[str] = field(default_factory=list)
    """``up`` or ``down``, and whether the CPU waits for it: ``up, waits at file:line``."""
    waits: list[str] = field(default_factory=list)
    """Where the CPU waits for a result."""
    kernels: Counter = field(default_factory=Counter)

    def up(self, waits: bool) -> None:
        self.copies.append(f"up{', waits' if waits else ''} at {_where()}")

    def clear(self) -> None:
        for entries in (self.copies, self.waits, self.kernels):
            entries.clear()

    def waiting_copies(self) -> list[str]:
        return [copy for copy in self.copies if ", waits" in copy]


def _where() -> str:
    """The line of this project, or of a model's code, that is at work."""
    for frame in reversed(traceback.extract_stack()):
        if "/geoloc/" in frame.filename or "/modeling_" in frame.filename or "vision_utils" in frame.filename:
            return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
    return "elsewhere"


class GpuTensor(torch.Tensor):
    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "GpuTensor":
        assert type(inner) is not cls
        size, strides = inner.size(), inner.stride()
        made = torch.Tensor._make_wrapper_subclass(
            cls, size, strides=strides, storage_offset=inner.storage_offset(), dtype=inner.dtype, device="meta"
        )
        made.inner = inner.detach() if inner.requires_grad else inner
        return made

    def __init__(self, inner: torch.Tensor) -> None:
        pass

    device = property(lambda self: DEVICE)
    is_cuda, is_cpu, is_meta = (property(lambda self, value=value: value) for value in (True, False, False))
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **_: object) -> str:
        return f"GpuTensor({tuple(self.shape)}, {self.dtype})"

    def get_device(self) -> int:
        return 0

    def numpy(self, **_: object) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: object, **__: object) -> None:
        self.numpy()

    def pin_memory(self, *_: object) -> None:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def tolist(self) -> list:
        _log.waits.append(f"tolist at {_where()}")
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


_log = Log()


def _on_gpu(device: object) -> bool:
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _inner(tree: object) -> object:
    return tree_map_only(GpuTensor, lambda tensor: tensor.inner, tree)


def _run(func, args: tuple, kwargs: dict):
    packet, device = func._overloadpacket, kwargs.get("device")
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    gpu = [tensor for tensor in tensors if isinstance(tensor, GpuTensor)]
    others = [tensor for tensor in tensors if not isinstance(tensor, GpuTensor) and tensor.dim()]
    if packet is aten._to_copy:
        return _copied(func, args, kwargs)
    if packet is aten.copy_:
        return _copied_into(*args)
    if device is not None:
        kwargs = kwargs | {"device": "cpu"}
    if not gpu and not _on_gpu(device):
        return func(*args, **kwargs)
    if gpu and others and packet not in _WITH_CPU_INDEX:
        raise RuntimeError(
            f"{func}: Expected all tensors to be on the same device, but found cuda:0 and cpu at {_where()}"
        )
    if gpu and others:
        _log.up(waits=True)
    a_mask = packet is aten.index and any(one is not None and one.dtype == torch.bool for one in args[1])
    if packet in _WAITING or a_mask:
        _log.waits.append(f"{packet} at {_where()}")
    found = func(*_inner(args), **_inner(kwargs))
    if not func.is_view and not str(packet).startswith("aten.empty"):
        _log.kernels[str(packet)] += 1
    changed = {id(tensor.inner): tensor for tensor in gpu}
    if packet is aten._local_scalar_dense:
        return found
    return tree_map_only(
        torch.Tensor, lambda tensor: changed[id(tensor)] if id(tensor) in changed else GpuTensor(tensor), found
    )


def _copied(func, args: tuple, kwargs: dict):
    source, device = isinstance(args[0], GpuTensor), kwargs.get("device")
    target = source if device is None else _on_gpu(device)
    if source != target:
        _moving(source, waits=not kwargs.get("non_blocking") or not getattr(args[0], "is_pinned_here", False))
    rest = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory", "non_blocking")}
    found = func(*_inner(args), **rest)
    return GpuTensor(found) if target else found


def _moving(from_gpu: bool, waits: bool) -> None:
    if from_gpu:
        _log.copies.append(f"down at {_where()}")
        _log.waits.append(f"copied down at {_where()}")
    else:
        _log.up(waits)


def _copied_into(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    if isinstance(target, GpuTensor) != isinstance(source, GpuTensor):
        _moving(isinstance(source, GpuTensor), waits=not non_blocking)
    _inner(target).copy_(_inner(source))
    return target


class _Dispatch(TorchDispatchMode):
    """What libraries make with ``device="cuda"`` themselves."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Function(TorchFunctionMode):
    """What would ask torch for its CUDA before anything is dispatched."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in _FACTORIES and _on_gpu(kwargs.get("device")):
            made = func(*args, **kwargs | {"device": "cpu"})
            if func in (torch.tensor, torch.as_tensor):
                _log.up(waits=True)
            return GpuTensor(made)
        if func is torch.Tensor.pin_memory:
            return _Pinned.of(args[0])
        if func is functional.scaled_dot_product_attention and isinstance(args[0], GpuTensor):
            return _attended(*args, **kwargs)
        if func in (torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu):
            return self._to(func, *args, **kwargs)
        if func is torch.Tensor.backward:  # which may run parts of the model again
            first = GpuTensor(torch.ones(args[0].shape, dtype=args[0].dtype))
            with self:
                return _engine_run_backward((args[0],), (first,), False, False, (), True, accumulate_grad=True)
        return func(*args, **kwargs)

    def _to(self, func, tensor: torch.Tensor, *rest: object, device=None, dtype=None, non_blocking=False, **_):
        rest = [*rest] + (["cuda"] if func is torch.Tensor.cuda else ["cpu"] if func is torch.Tensor.cpu else [])
        for one in rest:
            if isinstance(one, torch.Tensor):
                device, dtype = one.device, one.dtype
            elif isinstance(one, torch.dtype):
                dtype = one
            elif isinstance(one, bool):
                non_blocking = one
            elif one is not None:
                device = one
        source = isinstance(tensor, GpuTensor)
        target = source if device is None else _on_gpu(device)
        if source == target and dtype in (None, tensor.dtype):
            return tensor
        place = {} if source == target else {"device": "meta" if target else "cpu", "non_blocking": non_blocking}
        return torch.ops.aten._to_copy(tensor, dtype=dtype, **place)


def _attended(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """One kernel, whatever its mask is."""
    if isinstance(attn_mask, CausalBias):
        is_causal = False
        lengths = attn_mask.seq_len_q, attn_mask.seq_len_kv
        with _disable_current_modes():
            attn_mask = torch.ones(lengths, dtype=torch.bool).tril(lengths[1] - lengths[0])
        attn_mask = GpuTensor(attn_mask)
    if enable_gqa:
        key, value = (
            states.repeat_interleave(query.shape[-3] // states.shape[-3], -3, output_size=query.shape[-3])
            for states in (key, value)
        )
    before = _log.kernels.copy()
    logits = query @ key.transpose(-1, -2) * (scale or query.shape[-1] ** -0.5)
    if is_causal:
        with _disable_current_modes():
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
        attn_mask = GpuTensor(attn_mask)
    if attn_mask is not None:
        logits = logits.masked_fill(attn_mask.logical_not(), -torch.inf)
    found = logits.softmax(-1) @ value
    _log.kernels.clear()
    _log.kernels.update(before + Counter(attention=1))
    return found


def _new_bias(cls, *_: object) -> torch.Tensor:
    with _disable_current_modes():
        return torch.Tensor.__new__(cls)


class _Pinned:
    @staticmethod
    def of(tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, GpuTensor):
            tensor.pin_memory()
        pinned = tensor.clone()
        pinned.is_pinned_here = True
        return pinned


def _module_to(to, module: torch.nn.Module, *args: object, **kwargs: object) -> torch.nn.Module:
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
    if device is None or device.type != "cuda":
        return to(module, *args, **kwargs)
    if dtype is not None:
        to(module, dtype)
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and not isinstance(parameter, GpuTensor):
                with torch._C.DisableTorchFunction():
                    part._parameters[name] = torch.nn.Parameter(GpuTensor(parameter.detach()), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None and not isinstance(buffer, GpuTensor):
                part._buffers[name] = GpuTensor(buffer.detach())
    return module


def one_kernel(function):
    """What takes and gives tensors of the CPU, as one kernel of the device."""

    def run(*args: object, **kwargs: object) -> object:
        bare = [replace(one, bounds=one.bounds.inner) if isinstance(one, Lengths) else _inner(one) for one in args]
        with _disable_current_modes():
            found = function(*bare, **kwargs)
        _log.kernels[function.__name__] += 1
        return tree_map_only(torch.Tensor, GpuTensor, found)

    return run


@contextlib.contextmanager
def pretended() -> Iterator[Log]:
    to = torch.nn.Module.to
    patches = [
        mock.patch.object(torch.nn.Module, "to", lambda module, *a, **k: _module_to(to, module, *a, **k)),
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "is_bf16_supported", return_value=True),
        mock.patch.object(torch.cuda, "empty_cache"),
        mock.patch.object(torch.accelerator, "current_accelerator", return_value=None),
        mock.patch.object(CausalBias, "__new__", _new_bias),
        # in which some views of tensors like ours cannot be made
        mock.patch.object(torch._C, "_InferenceMode", lambda on: torch.no_grad() if on else contextlib.nullcontext()),
        mock.patch.object(torch.cuda, "mem_get_info", return_value=(1 << 40, 1 << 40)),
    ]
    _log.clear()
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(_Dispatch())
        stack.enter_context(_Function())
        yield _log
