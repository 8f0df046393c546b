"""`fuse_`: projections of the same input run as one call of the kernel. In place, for inference.

| children of a module                | which computes                | what becomes one call |
|-------------------------------------|-------------------------------|-----------------------|
| `gate_proj`, `up_proj`, `down_proj` | `down(silu(gate(x)) * up(x))` | silu(gate) * up       |
| `q_proj`, `k_proj`, `v_proj`        | anything of q(x), k(x), v(x)  | the three             |

The layers stay in their places, under their names. Their weights lie side by side in a `_Joint`,
and what each layer holds are slices of it: no weight exists twice, and state dicts, checkpoints,
moves and copies are those of separate layers. When a layer stops holding its slice (it moved, or
was given another weight) the joint is let go, and the next run forms it again if that can be.

The module above becomes a subclass of its own class, and runs that class's `forward` where the
joint call does not serve: for a gradient, under autocast, for an input on another device, with a
layer that was replaced or has hooks. Else:
- `_GatedUp` calls the kernel instead of that `forward`.
- `_SameInput` runs that `forward` and only marks when. Meanwhile the first projection that is
  called computes all; the others hand out their part when they are called with that very tensor,
  unchanged, and compute their own otherwise. Nothing is kept afterwards. A copy of each model's
  attention would have done, too, until the next version of transformers.

What a module computes is read from the source of its `forward`, never guessed from names. The
results of q, k and v stay the same, on the CPU bit by bit, on CUDA as far as the order of the sums
lets them. silu(gate) * up is rounded once on the CPU, and was rounded four times; on CUDA three
times. Changes of a weight through `.data` go unseen.

On CUDA scales and zero points are plain, so what a layer holds of them are columns, which it copies
together whenever it runs alone.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import FunctionType
from typing import Any, ClassVar, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import Self

from marlin import ops
from marlin.linear import Int4Linear, Int8Linear
from marlin.primitives import dtype_name
from marlin.quantized_linear import QuantizedLinear
from marlin.report import SkippedLayer

__all__ = ["FuseReport", "FusedLayers", "fuse_", "release"]

# The packed layout has whole blocks of columns; only they can be put side by side.
_BLOCK_COLUMNS = 64
_DEVICES = ("cpu", "cuda")

# What may be read of the input between two projections: none of it can change the values.
_HARMLESS = {"device", "dtype", "ndim", "shape"}

_forming = threading.Lock()


@dataclass(frozen=True)
class FusedLayers:
    """Children `layers` of the module `name`, which run as one call."""

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class FuseReport:
    """What `fuse_` did. skipped: modules with such children that were left as they are."""

    fused: tuple[FusedLayers, ...]
    skipped: tuple[SkippedLayer, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain dicts, lists, strings and numbers."""
        return {
            "fused": [{"name": group.name, "layers": list(group.layers)} for group in self.fused],
            "skipped": [asdict(layer) for layer in self.skipped],
        }

    def __str__(self) -> str:
        lines = [f"{len(self.fused)} groups fused, {len(self.skipped)} left as they are"]
        lines += [f"  {group.name}: {', '.join(group.layers)}" for group in self.fused]
        lines += [f"  left: {layer.name}: {layer.reason}" for layer in self.skipped]
        return "\n".join(lines)


def fuse_(model: nn.Module) -> FuseReport:
    """Fuses the quantised projections of `model` that read the same input, in place.

    Names and state dict stay, and so does the memory that the weights take. Where a gradient is
    needed the model runs as before. A second call finds nothing left to fuse.
    """
    holders = _holders(model)
    fused: list[FusedLayers] = []
    skipped: list[SkippedLayer] = []
    for name, module in list(model.named_modules()):
        for kind in (_SameInput, _GatedUp):
            if not _is_candidate(module, kind):
                continue
            reason = _why_not(module, kind, holders)
            if reason is None:
                _fuse(module, kind)
                fused.append(FusedLayers(name, kind.joined))
            else:
                skipped.append(SkippedLayer(name, reason))
    return FuseReport(tuple(fused), tuple(skipped))


def release(module: nn.Module) -> None:
    """Lets go of what a fused layer shares with its neighbours; its own slice stays."""
    if isinstance(module, JoinedLinear):
        module._joint.drop()


@dataclass(frozen=True)
class _Slice:
    """What one layer holds of the whole: the very objects."""

    qweight: Tensor
    scales: Tensor
    qzeros: Tensor | None
    perm: Tensor | None
    bias: nn.Parameter | None


@dataclass(frozen=True)
class _Whole:
    """The weights of neighbours as one. The biases are put together in each call: they may train.

    biases: one for each layer, zeros for one without; () when none has one.
    """

    qweight: Tensor
    scales: Tensor
    qzeros: Tensor | None
    biases: tuple[Tensor, ...]
    slices: tuple[_Slice, ...]
    columns: list[int]
    size_n: int
    in_features: int
    size_k: int
    group_size: int
    bits: int
    activation: str

    def takes(self, input: Tensor) -> bool:
        """Whether the joint call serves this input as the layers by themselves would."""
        device = self.qweight.device
        if input.device != device or input.ndim == 0 or input.shape[-1] != self.in_features:
            return False
        if torch.is_autocast_enabled(device.type):
            return False
        return not torch.is_grad_enabled() or not (
            input.requires_grad or any(bias.requires_grad for bias in self.biases)
        )

    def multiply(self, input: Tensor, epilogue: str = "none") -> Tensor:
        return ops.gemm(
            input,
            self.qweight,
            self.scales,
            self.qzeros,
            torch.cat(self.biases) if self.biases else None,
            self.size_n,
            self.size_k,
            self.group_size,
            perm=self.slices[0].perm,
            bits=self.bits,
            activation=self.activation,
            epilogue=epilogue,
        )

    def is_one_memory(self) -> bool:
        """Whether the slices are slices of this whole: a copy may have separated them."""
        return all(
            part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
            for own in self.slices
            for part, whole in (
                (own.qweight, self.qweight),
                (own.scales, self.scales),
                (own.qzeros, self.qzeros),
            )
            if part is not None and whole is not None
        )


class _Given(NamedTuple):
    """Products of `input` that wait for the layers at these places."""

    input: Tensor | None
    version: int | None
    parts: dict[int, Tensor]


class _Joint:
    """What neighbouring layers and the module above them share.

    whole: None when the layers hold tensors of their own.
    was_dropped: since then nobody tried to form the whole again.
    given: None unless `_SameInput` runs. It is replaced as a whole and parts are taken out one by
        one, so threads that run the same model get in each other's way, but never a wrong result.
    """

    def __init__(self) -> None:
        self.whole: _Whole | None = None
        self.was_dropped = False
        self.given: _Given | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The end of a copy. `deepcopy` keeps what is one memory together; pickles do not."""
        self.__dict__.update(state, given=None)
        if self.whole is not None and not self.whole.is_one_memory():
            self.drop()

    def drop(self) -> None:
        """Forgets the whole, whose memory goes with the last slice of it."""
        self.whole = None
        self.was_dropped = True

    def form(self, layers: Sequence[QuantizedLinear]) -> None:
        """Puts the weights of `layers` side by side, and slices in their places."""
        # An inference tensor could not be loaded into later.
        with torch.inference_mode(False), torch.no_grad():
            qweight = _side_by_side("qweight", layers)
            scales = _side_by_side("scales", layers)
            qzeros = None if layers[0].symmetric else _side_by_side("qzeros", layers)
            biases: tuple[Tensor, ...] = ()
            if any(layer.bias is not None for layer in layers):
                biases = tuple(
                    layer.scales.new_zeros(layer.size_n) if layer.bias is None else layer.bias
                    for layer in layers
                )
        self.whole = _Whole(
            qweight,
            scales,
            qzeros,
            biases,
            tuple(
                _Slice(each.qweight, each.scales, each.qzeros, each.perm, each.bias)
                for each in layers
            ),
            [layer.size_n for layer in layers],
            sum(layer.size_n for layer in layers),
            layers[0].in_features,
            layers[0].size_k,
            layers[0].group_size,
            layers[0].bits,
            layers[0].activation,
        )
        self.was_dropped = False

    def product(self, whole: _Whole, place: int, input: Tensor) -> Tensor | None:
        """The product of the layer at `place`; computes those of its neighbours with it.

        None outside of `_SameInput`, and for an input that the joint call does not serve.
        """
        given = self.given
        if given is None:
            return None
        # An inference tensor has no version, and in a trace nothing changes unseen.
        knows_version = not torch.compiler.is_compiling() and not input.is_inference()
        version = input._version if knows_version else None
        if given.input is input and given.version == version:
            part = given.parts.pop(place, None)
            if part is not None:
                return part
        if not whole.takes(input):
            return None
        products = whole.multiply(input).split_with_sizes(whole.columns, -1)
        parts = {at: product.contiguous() for at, product in enumerate(products)}
        own = parts.pop(place)
        self.given = _Given(input, version, parts)
        return own


_RUNS = _Given(None, None, {})


class JoinedLinear(QuantizedLinear):
    """A layer whose tensors are slices of what it shares with its neighbours."""

    _joint: _Joint
    _place: int

    def holds(self, whole: _Whole) -> bool:
        """Whether the tensors of this layer still are slices of `whole`."""
        own, buffers = whole.slices[self._place], self._buffers
        return (
            buffers["qweight"] is own.qweight
            and buffers["scales"] is own.scales
            and buffers["qzeros"] is own.qzeros
            and buffers["perm"] is own.perm
            and self._activation == whole.activation
            and self._parameters["bias"] is own.bias
        )

    def forward(self, input: Tensor) -> Tensor:
        """As its class; in a fused module perhaps with what a neighbour has computed."""
        whole = self._joint.whole
        if whole is not None and self.holds(whole):
            product = self._joint.product(whole, self._place, input)
            if product is not None:
                return product
        return super().forward(input)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._drop_unless_held()
        return self

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401  # as the base has them
        super()._load_from_state_dict(*args)
        self._drop_unless_held()

    def _drop_unless_held(self) -> None:
        whole = self._joint.whole
        if whole is None or not self.holds(whole):
            self._joint.drop()


class JoinedInt4Linear(JoinedLinear, Int4Linear):
    """An `Int4Linear` that shares its memory with its neighbours."""


class JoinedInt8Linear(JoinedLinear, Int8Linear):
    """An `Int8Linear` that shares its memory with its neighbours."""


_JOINED: dict[type[nn.Module], type[JoinedLinear]] = {
    Int4Linear: JoinedInt4Linear,
    Int8Linear: JoinedInt8Linear,
}


class _Fused(nn.Module):
    """Base of what the module above becomes, by `_fused_class`.

    joined: names of the children that run as one call.
    children_read: names of all children that make it a candidate.
    """

    joined: ClassVar[tuple[str, ...]]
    children_read: ClassVar[tuple[str, ...]]
    _joint: _Joint

    @staticmethod
    def why_not(module: nn.Module) -> str | None:
        """The obstacle in the module itself."""
        raise NotImplementedError

    def whole_in_use(self) -> _Whole | None:
        """The weights as one, unless a layer was replaced, changed or hooked."""
        whole = self.whole()
        if whole is None:
            return None
        for name in self.joined:
            layer = self._modules[name]
            if not _is_joined_in(layer, self._joint) or not layer.holds(whole) or _has_hooks(layer):
                return None
        return whole

    def whole(self) -> _Whole | None:
        """The weights as one, formed again if that is possible and a change calls for it."""
        joint = self._joint
        if joint.was_dropped and not torch.compiler.is_compiling():
            self._form_again()
        return joint.whole

    def _form_again(self) -> None:
        joint = self._joint
        with _forming:
            if not joint.was_dropped:
                return
            joint.was_dropped = False
            layers = [self._modules[name] for name in self.joined]
            ours = [layer for layer in layers if _is_joined_in(layer, joint)]
            if len(ours) == len(layers) and _why_not_together(self.joined, ours) is None:
                joint.form(ours)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.whole()
        return self

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        """A pickle knows the classes that are written down, and not the one made of them."""
        kind, base = type(self).__bases__
        return _empty_fused, (kind, base), self.__dict__.copy()


class _SameInput(_Fused):
    joined = ("q_proj", "k_proj", "v_proj")
    children_read = joined

    @staticmethod
    def why_not(module: nn.Module) -> str | None:
        source = _source(type(module).forward)
        if source is None:
            return "the source of its forward cannot be read"
        if not _calls_with_one_input(source, _SameInput.joined):
            return "its forward does not call each projection once, with the same input"
        return None

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as its class has them
        joint = self._joint
        if self.whole_in_use() is None:
            return super().forward(*args, **kwargs)
        joint.given = _RUNS
        try:
            return super().forward(*args, **kwargs)
        finally:
            joint.given = None


class _GatedUp(_Fused):
    joined = ("gate_proj", "up_proj")
    children_read = (*joined, "down_proj")

    @staticmethod
    def why_not(module: nn.Module) -> str | None:
        source = _source(type(module).forward)
        if source is None:
            return "the source of its forward cannot be read"
        activation = _gated_formula(source)
        if activation is None:
            return "its forward is not down_proj(act(gate_proj(x)) * up_proj(x))"
        if not _is_silu(_resolved(activation, module)):
            return f"its activation {activation} is not SiLU"
        hooked = [name for name in _GatedUp.joined if _has_hooks(module.get_submodule(name))]
        return f"`{hooked[0]}` has hooks or a forward of its own" if hooked else None

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as its class has them
        whole = self.whole_in_use()
        if whole is None or len(args) != 1 or kwargs or not whole.takes(args[0]):
            return super().forward(*args, **kwargs)
        return self.down_proj(whole.multiply(args[0], "silu_mul"))  # type: ignore[operator]


def _fuse(module: nn.Module, kind: type[_Fused]) -> None:
    layers: list[Any] = [module._modules[name] for name in kind.joined]
    joint = _Joint()
    joint.form(layers)
    for place, layer in enumerate(layers):
        layer.__class__ = _JOINED[type(layer)]
        layer._joint, layer._place = joint, place
    fused: Any = module
    fused._joint = joint
    fused.__class__ = _fused_class(kind, type(module))  # type: ignore[arg-type]  # hashable


@functools.cache
def _fused_class(kind: type[_Fused], base: type[nn.Module]) -> type[_Fused]:
    name = f"Fused{base.__name__}"
    return type(name, (kind, base), {"__module__": base.__module__, "__doc__": kind.__doc__})


def _empty_fused(kind: type[_Fused], base: type[nn.Module]) -> _Fused:
    made = _fused_class(kind, base)  # type: ignore[arg-type]  # hashable
    return made.__new__(made)


def _side_by_side(name: str, layers: Sequence[QuantizedLinear]) -> Tensor:
    tensors: list[Tensor] = [getattr(layer, name) for layer in layers]
    # Plain tensors are matrices with the columns last; packed ones begin with blocks of columns.
    is_plain = tensors[0].ndim == 2
    along = 1 if is_plain else 0
    whole = torch.cat(tensors, along) if is_plain else ops.join(tensors)
    parts: Sequence[Tensor] = torch.split(whole, [tensor.shape[along] for tensor in tensors], along)
    for layer, part in zip(layers, parts, strict=True):
        layer._buffers[name] = part.detach()
    return whole


def _is_candidate(module: nn.Module, kind: type[_Fused]) -> bool:
    children = [module._modules.get(name) for name in kind.children_read]
    some = any(isinstance(module._modules.get(name), QuantizedLinear) for name in kind.joined)
    return some and all(child is not None for child in children)


def _why_not(
    module: nn.Module, kind: type[_Fused], holders: Mapping[int, set[tuple[int, str]]]
) -> str | None:
    if isinstance(module, kind):
        return "fused already" if module.whole() is not None else "fused once, and changed since"
    if "forward" in module.__dict__:
        return "it has a forward of its own, which may compute otherwise"
    layers: list[QuantizedLinear] = []
    for name in kind.joined:
        layer = module._modules[name]
        if isinstance(layer, JoinedLinear):
            return f"`{name}` is fused in another module"
        if not isinstance(layer, QuantizedLinear) or type(layer) not in _JOINED:
            return f"`{name}` is {type(layer).__name__}, which is neither Int4Linear nor Int8Linear"
        if len(holders[id(layer.qweight)]) > 1:
            return f"`{name}` is shared with another module"
        layers.append(layer)
    return _why_not_together(kind.joined, layers) or kind.why_not(module)


def _why_not_together(names: Sequence[str], layers: Sequence[QuantizedLinear]) -> str | None:
    """The obstacle in the layers themselves."""
    for name, layer in zip(names, layers, strict=True):
        if layer.qweight.device.type not in _DEVICES:
            return f"`{name}` is on {layer.qweight.device.type}, whose layout is not put together"
        if layer.out_features % _BLOCK_COLUMNS:
            return (
                f"`{name}` has {layer.out_features} outputs, which is no multiple of "
                f"{_BLOCK_COLUMNS}"
            )
    settings = [_settings(layer) for layer in layers]
    for name, other in zip(names, settings, strict=True):
        for key, value in other.items():
            if value != settings[0][key]:
                return f"`{names[0]}` has {key} {settings[0][key]}, and `{name}` has {value}"
    for name, layer in zip(names, layers, strict=True):
        if not _same_order(layers[0], layer):
            return f"`{names[0]}` and `{name}` have their rows in different orders"
    return None


def _settings(layer: QuantizedLinear) -> dict[str, object]:
    return {
        "device": str(layer.qweight.device),
        "in_features": layer.in_features,
        "bits": layer.bits,
        "group_size": layer.group_size,
        "symmetric": layer.symmetric,
        "dtype": dtype_name(layer.scales.dtype),
        "activation": layer.activation,
    }


def _same_order(one: QuantizedLinear, other: QuantizedLinear) -> bool:
    if one.perm is None or other.perm is None:
        return one.perm is other.perm
    return torch.equal(one.perm, other.perm)


def _holders(model: nn.Module) -> dict[int, set[tuple[int, str]]]:
    """id of a `qweight` -> (id of the module, name in it) of every place of a layer with it."""
    holders: dict[int, set[tuple[int, str]]] = {}
    for module in model.modules():
        for name, child in module._modules.items():
            if isinstance(child, QuantizedLinear):
                holders.setdefault(id(child.qweight), set()).add((id(module), name))
    return holders


def _is_joined_in(layer: nn.Module | None, joint: _Joint) -> TypeGuard[JoinedLinear]:
    return isinstance(layer, JoinedLinear) and layer._joint is joint


def _has_hooks(layer: nn.Module) -> bool:
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
    )


@functools.cache
def _source(forward: Callable[..., object]) -> ast.FunctionDef | None:
    """The source of a method, below its decorators."""
    try:
        text = inspect.getsource(inspect.unwrap(forward))
        function = ast.parse(textwrap.dedent(text)).body[0]
    except (OSError, SyntaxError, TypeError):
        return None
    return function if isinstance(function, ast.FunctionDef) and function.args.args else None


def _calls_with_one_input(function: ast.FunctionDef, names: Sequence[str]) -> bool:
    """Whether it calls each child in `names` once, with one variable that stays between them."""
    owner = function.args.args[0].arg
    wanted = {f"{owner}.{name}" for name in names}
    calls = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in wanted
    ]
    if len(calls) != len(names) or {ast.unparse(call.func) for call in calls} != wanted:
        return False
    inputs = [call.args[0] for call in calls if len(call.args) == 1 and not call.keywords]
    variables = [node for node in inputs if isinstance(node, ast.Name)]
    if len(variables) != len(calls) or len({node.id for node in variables}) > 1:
        return False
    first, last = min(map(_position, calls)), max(map(_position, calls))
    harmless = {
        id(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in _HARMLESS
    }
    harmless |= {id(node) for node in variables}
    return not any(
        isinstance(node, ast.Name)
        and node.id == variables[0].id
        and first < _position(node) < last
        and id(node) not in harmless
        for node in ast.walk(function)
    )


def _position(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _gated_formula(function: ast.FunctionDef) -> str | None:
    """What stands for act in `return self.down_proj(act(self.gate_proj(x)) * self.up_proj(x))`."""
    names = [argument.arg for argument in function.args.args]
    text = "; ".join(ast.unparse(node) for node in function.body if not _is_docstring(node))
    formula = r"{0}\.down_proj\(([\w.]+)\({0}\.gate_proj\({1}\)\) \* {0}\.up_proj\({1}\)\)"
    formula = formula.format(*names) if len(names) == 2 else "(?!)"
    match = re.fullmatch(rf"return {formula}|(\w+)(?:: \w+)? = {formula}; return \2", text)
    return match and (match[1] or match[3])


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _resolved(dotted: str, module: nn.Module) -> object:
    """The object that a dotted name stands for in the forward of `module`."""
    first, *rest = dotted.split(".")
    forward = inspect.unwrap(type(module).forward)
    assert isinstance(forward, FunctionType)
    value = forward.__globals__.get(first, module)  # else it is `self`
    for name in rest:
        value = getattr(value, name, None)
    return value


def _is_silu(activation: object) -> bool:
    if not callable(activation):
        return False
    probe = torch.linspace(-50, 50, 1001)
    with torch.inference_mode(False), torch.no_grad():
        try:
            result = activation(probe.clone())
        except (RuntimeError, TypeError, ValueError):
            return False
    return isinstance(result, Tensor) and torch.equal(result, functional.silu(probe))
