"""`fuse_`: the same numbers, names and memory as before, and the plain way wherever fusing ends."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from marlin import Int4Linear, Int8Linear, fuse_, load_checkpoint, ops, quantize_, save_checkpoint
from marlin.errors import InvalidArgumentError

WIDTH, GATED, HEADS = 128, 192, 64


@pytest.fixture(params=["packed", "plain"])
def _groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scales and zero points as layers hold them on the CPU, and as on CUDA."""
    if request.param == "plain":
        monkeypatch.setattr(ops, "groups_of_device", lambda plain, size_n: plain)


def do_nothing(_: Tensor) -> None:
    return


def double_in_place(_: nn.Module, args: tuple[Tensor, ...], __: Tensor) -> None:
    args[0].mul_(2)


class Attention(nn.Module):
    """What attention modules do with their projections."""

    def __init__(self, biases: tuple[bool, bool, bool] = (False, False, False)) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=biases[0])
        self.k_proj = nn.Linear(WIDTH, HEADS, bias=biases[1])
        self.v_proj = nn.Linear(WIDTH, HEADS, bias=biases[2])
        self.between: Callable[[Tensor], object] = do_nothing

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.q_proj(x)
        k = self.k_proj(x)
        self.between(k)
        return q, k, self.v_proj(x)


class Mlp(nn.Module):
    def __init__(self, bias: bool = False, act_fn: nn.Module | None = None) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, GATED, bias=bias)
        self.up_proj = nn.Linear(WIDTH, GATED, bias=bias)
        self.down_proj = nn.Linear(GATED, WIDTH, bias=bias)
        self.act_fn = nn.SiLU() if act_fn is None else act_fn

    def forward(self, x: Tensor) -> Tensor:
        down_proj: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return down_proj


class FunctionalMlp(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        """With the function instead of a module."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class ClampedMlp(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x).clamp(max=7)
        return self.down_proj(self.act_fn(gate) * self.up_proj(x))  # type: ignore[no-any-return]


class Clamped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(x).clamp(max=30)


class CrossAttention(Attention):
    def forward(self, x: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        other = x if other is None else other
        return self.q_proj(x), self.k_proj(other), self.v_proj(other)


class ChangingAttention(Attention):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.q_proj(x)
        x = x + 1
        return q, self.k_proj(x), self.v_proj(x)


class InPlaceAttention(Attention):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.q_proj(x)
        x.add_(1)
        return q, self.k_proj(x), self.v_proj(x)


def four_bit(module: nn.Module, group_size: int = 32, **options: Any) -> Any:  # noqa: ANN401
    """The module with its Linears in 4 bits; `Any`, as tests reach into it."""
    quantize_(module, group_size=group_size, **options)
    return module


def fused(module: nn.Module) -> Any:  # noqa: ANN401
    """A fused copy."""
    result = copy.deepcopy(module)
    assert fuse_(result).fused
    return result


def reasons(module: nn.Module) -> list[str]:
    report = fuse_(module)
    assert report.fused == ()
    return [layer.reason for layer in report.skipped]


def calls_of_gemm(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> int:
    calls = 0
    gemm = ops.gemm

    def counted(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        nonlocal calls
        calls += 1
        return gemm(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ops, "gemm", counted)
        run()
    return calls


def qkv_bytes(module: nn.Module) -> int:
    """Bytes of the distinct memory that buffers and everything fused hold."""
    tensors = list(module.buffers())
    for part in module.modules():
        whole = getattr(part.__dict__.get("_joint"), "whole", None)
        if whole is not None:
            tensors += [whole.qweight, whole.scales]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


@pytest.mark.usefixtures("_groups")
@pytest.mark.parametrize("rows", [(1,), (1, 1), (2, 3), (70,), (0,)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "biases", [(False, False, False), (True, True, True), (True, False, False)]
)
def test_q_k_and_v_are_the_same_bit_by_bit(
    rows: tuple[int, ...], symmetric: bool, dtype: torch.dtype, biases: tuple[bool, bool, bool]
) -> None:
    plain = four_bit(nn.Module.to(Attention(biases), dtype), symmetric=symmetric)
    x = torch.randn(*rows, WIDTH, dtype=dtype)
    with torch.no_grad():
        for got, wanted in zip(fused(plain)(x), plain(x), strict=True):
            assert torch.equal(got, wanted)
            assert got.is_contiguous()


@pytest.mark.usefixtures("_groups")
@pytest.mark.parametrize("kind", [Mlp, FunctionalMlp])
@pytest.mark.parametrize("rows", [(1,), (2, 3), (70,)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gated_product_is_that_of_the_formula(
    kind: type[Mlp], rows: tuple[int, ...], bias: bool, dtype: torch.dtype
) -> None:
    plain = four_bit(nn.Module.to(kind(bias), dtype))
    x = torch.randn(*rows, WIDTH, dtype=dtype)
    with torch.no_grad():
        got, wanted = fused(plain)(x).float(), plain(x).float()
    limit = 1e-5 if dtype == torch.float32 else 1e-2
    assert (got - wanted).norm() <= limit * wanted.norm()


def test_eight_bits_fuse_as_four_do(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = four_bit(nn.Sequential(Attention(), Mlp()), bits=8)
    model = fused(plain)
    assert isinstance(model[0].q_proj, Int8Linear)
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        assert calls_of_gemm(monkeypatch, lambda: model[0](x)) == 1
        assert torch.equal(model[0](x)[1], plain[0](x)[1])
        torch.testing.assert_close(model[1](x), plain[1](x))


def in_order(layer: Int4Linear, g_idx: Tensor) -> Int4Linear:
    """A layer of the same tensors whose rows belong to the groups `g_idx`."""
    return Int4Linear.from_quantized(
        layer.plain_qweight(), layer.plain_scales(), group_size=layer.group_size, g_idx=g_idx
    )


@pytest.mark.usefixtures("_groups")
def test_layers_of_one_order_of_rows_fuse() -> None:
    plain = four_bit(Attention())
    order = torch.randperm(WIDTH).to(torch.int32) // 32
    for name in ("q_proj", "k_proj", "v_proj"):
        plain.set_submodule(name, in_order(plain.get_submodule(name), order))
    model = fused(plain)
    x = torch.randn(3, WIDTH)
    with torch.no_grad():
        for got, wanted in zip(model(x), plain(x), strict=True):
            assert torch.equal(got, wanted)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name])
    plain.k_proj = in_order(plain.k_proj, order.flip(0))
    assert reasons(plain) == ["`q_proj` and `k_proj` have their rows in different orders"]


def test_a_new_number_format_of_activations_is_used_at_once() -> None:
    plain = four_bit(Attention())
    model = fused(plain)
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        for root in (plain, model):
            root.k_proj.activation = "int8"
        for got, wanted in zip(model(x), plain(x), strict=True):
            assert torch.equal(got, wanted)


def test_neighbours_run_as_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, WIDTH)
    attention, mlp = four_bit(Attention()), four_bit(Mlp())
    with torch.inference_mode():
        assert calls_of_gemm(monkeypatch, lambda: attention(x)) == 3
        assert calls_of_gemm(monkeypatch, lambda: mlp(x)) == 3
        fuse_(attention)
        fuse_(mlp)
        assert calls_of_gemm(monkeypatch, lambda: attention(x)) == 1
        assert calls_of_gemm(monkeypatch, lambda: mlp(x)) == 2


def test_a_second_call_changes_nothing() -> None:
    model = nn.Sequential(four_bit(Attention()), four_bit(Mlp()))
    first = fuse_(model)
    assert first.to_dict() == {
        "fused": [
            {"name": "0", "layers": ["q_proj", "k_proj", "v_proj"]},
            {"name": "1", "layers": ["gate_proj", "up_proj"]},
        ],
        "skipped": [],
    }
    assert "0: q_proj, k_proj, v_proj" in str(first)
    classes = [type(module) for module in model.modules()]
    assert reasons(model) == ["fused already", "fused already"]
    assert [type(module) for module in model.modules()] == classes


def test_modules_stay_what_they_were() -> None:
    plain = nn.Sequential(four_bit(Attention()), four_bit(Mlp()))
    model = fused(plain)
    assert isinstance(model[0], Attention)
    assert isinstance(model.get_submodule("0.q_proj"), Int4Linear)
    names = [name for name, _ in plain.named_modules()]
    assert [name for name, _ in model.named_modules()] == names
    for pair in zip(plain.named_buffers(), model.named_buffers(), strict=True):
        assert pair[0][0] == pair[1][0]


@pytest.mark.usefixtures("_groups")
def test_no_weight_exists_twice() -> None:
    plain = nn.Sequential(four_bit(Attention()), four_bit(Mlp()))
    assert qkv_bytes(fused(plain)) == qkv_bytes(plain)


@pytest.mark.usefixtures("_groups")
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_state_dict_is_that_of_separate_layers(symmetric: bool) -> None:
    plain = four_bit(Attention((True, False, True)), symmetric=symmetric)
    model = fused(plain)
    state, wanted = model.state_dict(), plain.state_dict()
    assert list(state) == list(wanted)
    for name, tensor in state.items():
        assert torch.equal(tensor, wanted[name]), name
        assert tensor.is_contiguous()
    memory = [tensor.untyped_storage().data_ptr() for tensor in state.values()]
    assert len(set(memory)) == len(memory)


@pytest.mark.usefixtures("_groups")
def test_a_checkpoint_is_that_of_separate_layers(tmp_path: Path) -> None:
    plain = nn.Sequential(four_bit(Attention()), four_bit(Mlp()))
    save_checkpoint(plain, tmp_path / "plain.safetensors")
    save_checkpoint(fused(plain), tmp_path / "fused.safetensors")
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("plain", "fused")]
    assert files[0] == files[1]


@pytest.mark.usefixtures("_groups")
@pytest.mark.parametrize("assign", [True, False])
def test_loads_a_state_dict(assign: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = fused(four_bit(Attention())), four_bit(Attention())
    size = qkv_bytes(model)
    model.load_state_dict(other.state_dict(), assign=assign)
    x = torch.randn(2, WIDTH)
    with torch.no_grad():
        assert calls_of_gemm(monkeypatch, lambda: model(x)) == 1
        for got, wanted in zip(model(x), other(x), strict=True):
            assert torch.equal(got, wanted)
    assert qkv_bytes(model) == size


def test_a_checkpoint_is_loaded_into_a_fused_model(tmp_path: Path) -> None:
    other = nn.Sequential(four_bit(Attention()), four_bit(Mlp()))
    save_checkpoint(other, tmp_path / "other.safetensors")
    model = fused(nn.Sequential(four_bit(Attention()), four_bit(Mlp())))
    size = qkv_bytes(model)
    load_checkpoint(model, tmp_path / "other.safetensors")
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        for got, wanted in zip(model[0](x), other[0](x), strict=True):
            assert torch.equal(got, wanted)
        torch.testing.assert_close(model[1](x), other[1](x))
    assert qkv_bytes(model) == size


@pytest.mark.usefixtures("_groups")
def test_a_move_to_another_dtype_stays_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.Sequential(four_bit(Attention((True, True, True))), four_bit(Mlp()))
    model = fused(plain)
    nn.Module.to(model, torch.bfloat16)
    nn.Module.to(plain, torch.bfloat16)
    assert qkv_bytes(model) == qkv_bytes(plain)
    x = torch.randn(1, WIDTH, dtype=torch.bfloat16)
    with torch.no_grad():
        assert calls_of_gemm(monkeypatch, lambda: model[0](x)) == 1
        assert calls_of_gemm(monkeypatch, lambda: model[1](x)) == 2
        for got, wanted in zip(model[0](x), plain[0](x), strict=True):
            assert torch.equal(got, wanted)


@pytest.mark.usefixtures("_groups")
def test_goes_to_the_meta_device_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = four_bit(Attention())
    model = fused(plain)
    nn.Module.to(model, "meta")
    assert model.get_submodule("q_proj").qweight.shape == (WIDTH // 8, WIDTH)
    assert model._joint.whole is None
    x = torch.randn(1, WIDTH)
    assert model(x.to("meta"))[0].is_meta
    nn.Module.to_empty(model, device="cpu")
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert calls_of_gemm(monkeypatch, lambda: model(x)) == 1
        assert torch.equal(model(x)[1], plain(x)[1])


def test_a_layer_that_moved_alone_ends_the_fusion() -> None:
    plain = nn.Sequential(four_bit(Attention()), four_bit(Mlp()))
    model = fused(plain)
    for name in ("0.k_proj", "1.up_proj"):
        for root in (model, plain):
            nn.Module.to(root.get_submodule(name), torch.bfloat16)
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        for got, wanted in zip(model[0](x), plain[0](x), strict=True):
            assert torch.equal(got, wanted)
        assert torch.equal(model[1](x), plain[1](x))
    assert reasons(model) == ["fused once, and changed since"] * 2


@pytest.mark.usefixtures("_groups")
@pytest.mark.parametrize("name", ["gate_proj", "up_proj", "q_proj", "v_proj"])
def test_a_new_weight_is_used_at_once(name: str) -> None:
    plain = four_bit(Attention() if name in ("q_proj", "v_proj") else Mlp())
    model = fused(plain)
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        model(x)
        for root in (plain, model):
            layer = root.get_submodule(name)
            layer.scales = layer.scales * 2
        for got, wanted in zip(model(x), plain(x), strict=True):
            assert torch.equal(got, wanted)


@pytest.mark.usefixtures("_groups")
def test_a_change_in_place_is_used_at_once() -> None:
    plain = four_bit(Attention((True, True, True)))
    model = fused(plain)
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        for root in (plain, model):
            root.get_submodule("k_proj").scales.mul_(3)
            root.get_submodule("v_proj").bias.add_(1)
        for got, wanted in zip(model(x), plain(x), strict=True):
            assert torch.equal(got, wanted)


def test_a_wrapped_projection_keeps_its_wrapper() -> None:
    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.inner(x)  # type: ignore[no-any-return]

    plain = nn.Sequential(four_bit(Attention()), four_bit(Mlp()))
    model = fused(plain)
    for root in (plain, model):
        attention, mlp = root.children()
        attention.k_proj = Doubled(attention.get_submodule("k_proj"))
        mlp.gate_proj = Doubled(mlp.get_submodule("gate_proj"))
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        for got, wanted in zip(model[0](x), plain[0](x), strict=True):
            assert torch.equal(got, wanted)
        assert torch.equal(model[1](x), plain[1](x))


def test_hooks_run_with_what_their_layer_takes_and_gives() -> None:
    plain = nn.Sequential(four_bit(Attention()), four_bit(Mlp()))
    model = fused(plain)
    seen: list[Tensor] = []

    def forward_hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(output)
        return output + args[0].sum()

    def pre_hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] * 2,)

    for root in (plain, model):
        root.get_submodule("0.q_proj").register_forward_hook(forward_hook)
        root.get_submodule("0.k_proj").register_forward_pre_hook(pre_hook)
        root.get_submodule("1.gate_proj").register_forward_hook(forward_hook)
        root.get_submodule("1.up_proj").register_forward_pre_hook(pre_hook)
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        for got, wanted in zip(model[0](x), plain[0](x), strict=True):
            assert torch.equal(got, wanted)
        assert torch.equal(model[1](x), plain[1](x))
    assert len(seen) == 4


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_hook_may_change_the_input_in_place(mode: Callable[[], Any]) -> None:
    plain = four_bit(Attention())
    model = fused(plain)
    for root in (plain, model):
        root.q_proj.register_forward_hook(double_in_place)
    with mode():
        x = torch.ones(1, WIDTH)
        got, wanted = model(x.clone()), plain(x.clone())
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("_groups")
def test_gradients_are_those_of_separate_layers() -> None:
    plain = nn.Sequential(four_bit(Attention((True, True, False))), four_bit(Mlp(bias=True)))
    model = fused(plain)
    grads: list[list[Tensor]] = []
    for root in (plain, model):
        x = torch.linspace(-1, 1, WIDTH).repeat(3, 1).requires_grad_()
        loss = sum(part.square().sum() for part in root[0](x)) + root[1](x).square().sum()
        loss.backward()
        parameters = [p.grad for p in root.parameters() if p.grad is not None]
        assert x.grad is not None
        grads.append([x.grad, *parameters])
    assert len(grads[0]) == len(grads[1]) == 6
    for got, wanted in zip(grads[1], grads[0], strict=True):
        assert torch.equal(got, wanted)


def test_without_a_need_for_gradients_grad_mode_stays_fused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = fused(nn.Sequential(four_bit(Attention()), four_bit(Mlp())))
    x = torch.randn(1, WIDTH)
    assert calls_of_gemm(monkeypatch, lambda: model[0](x)) == 1
    assert calls_of_gemm(monkeypatch, lambda: model[1](x)) == 2


def test_autocast_is_that_of_separate_layers() -> None:
    plain = nn.Sequential(four_bit(Attention()), four_bit(Mlp()))
    model = fused(plain)
    x = torch.randn(2, WIDTH)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for got, wanted in zip(model[0](x), plain[0](x), strict=True):
            assert got.dtype == torch.bfloat16
            assert torch.equal(got, wanted)
        assert torch.equal(model[1](x), plain[1](x))


def test_a_wrong_input_is_refused_as_before() -> None:
    model = fused(nn.Sequential(four_bit(Attention()), four_bit(Mlp())))
    with torch.no_grad():
        for child in model.children():
            for shape in ((), (2, WIDTH - 1)):
                with pytest.raises(InvalidArgumentError, match="must have 128 columns"):
                    child(torch.zeros(shape))
    x = torch.randn(1, WIDTH)
    assert model[0](x)[0].shape == (1, WIDTH)


def test_nothing_is_kept_after_a_call() -> None:
    model = fused(four_bit(Attention()))
    x = torch.randn(1, WIDTH)

    def fail(_: Tensor) -> None:
        raise ValueError("between")

    with torch.no_grad():
        model(x)
        assert model._joint.given is None
        model.between = fail
        with pytest.raises(ValueError, match="between"):
            model(x)
        assert model._joint.given is None
        model.get_submodule("q_proj")(x)
        assert model._joint.given is None


def test_a_projection_by_itself_computes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = four_bit(Attention())
    model = fused(plain)
    x = torch.randn(1, WIDTH)
    for name in ("q_proj", "k_proj", "v_proj"):
        layer, wanted = model.get_submodule(name), plain.get_submodule(name)
        with torch.no_grad():
            assert torch.equal(layer(x), wanted(x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_two_inputs_interleaved(mode: Callable[[], Any]) -> None:
    plain = four_bit(Attention())
    model = fused(plain)
    x, y = torch.randn(1, WIDTH), torch.randn(1, WIDTH)
    inner: list[tuple[Tensor, ...]] = []

    def run_another(_: Tensor) -> None:
        model.between = do_nothing
        inner.append(model(y))

    model.between = run_another
    with mode():
        outer = model(x)
        for got, wanted in zip((*outer, *inner[0]), (*plain(x), *plain(y)), strict=True):
            assert torch.equal(got, wanted)


def test_a_changed_input_is_never_answered_with_an_old_product() -> None:
    plain = four_bit(Attention())
    model = fused(plain)
    for root in (plain, model):
        x = torch.ones(1, WIDTH)
        root.between = lambda _, x=x: x.mul_(2)
        with torch.no_grad():
            root.result = root(x)
    for got, wanted in zip(model.result, plain.result, strict=True):
        assert torch.equal(got, wanted)


def test_threads_get_their_own_products() -> None:
    plain = four_bit(Attention())
    model = fused(plain)
    shared = torch.randn(1, WIDTH)
    failures: list[str] = []

    def run(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            for turn in range(200):
                x = shared if turn % 2 else torch.randn(1, WIDTH, generator=generator)
                for got, wanted in zip(model(x), plain(x), strict=True):
                    if not torch.equal(got, wanted):
                        failures.append(f"{seed}: {turn}")

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert model._joint.given is None


@pytest.mark.usefixtures("_groups")
def test_a_copy_is_fused_and_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = four_bit(Attention((True, True, True)))
    first = fused(plain)
    second = copy.deepcopy(first)
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        wanted = plain(x)
        first.get_submodule("k_proj").scales.zero_()
        first.get_submodule("k_proj").bias.zero_()
        assert calls_of_gemm(monkeypatch, lambda: second(x)) == 1
        assert torch.equal(second(x)[1], wanted[1])
        assert not torch.equal(first(x)[1], wanted[1])
        second.get_submodule("q_proj").scales.zero_()
        assert float(second(x)[0].abs().max()) == float(plain.q_proj.bias.abs().max())
    assert qkv_bytes(second) == qkv_bytes(plain)


@pytest.mark.usefixtures("_groups")
def test_a_saved_module_comes_back_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = four_bit(Attention())
    file = io.BytesIO()
    torch.save(fused(plain), file)
    file.seek(0)
    model = torch.load(file, weights_only=False)
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        assert calls_of_gemm(monkeypatch, lambda: model(x)) == 1
        assert torch.equal(model(x)[2], plain(x)[2])
    assert qkv_bytes(model) == qkv_bytes(plain)


def test_fusing_in_inference_mode_leaves_weights_that_can_be_loaded_into() -> None:
    model, other = four_bit(Attention()), four_bit(Attention())
    with torch.inference_mode():
        fuse_(model)
    model.load_state_dict(other.state_dict())
    x = torch.randn(1, WIDTH)
    assert torch.equal(model(x)[0], other(x)[0])


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_break_and_stays_fused(dynamic: bool) -> None:
    torch.compiler.reset()
    plain = nn.Sequential(four_bit(Attention((True, False, True))), four_bit(Mlp()))
    model = fused(plain)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    def run(x: Tensor) -> tuple[Tensor, ...]:
        return (*model[0](x), model[1](x))

    compiled: Any = torch.compile(run, fullgraph=True, dynamic=dynamic, backend=backend)
    x = torch.randn(3, WIDTH)
    with torch.no_grad():
        for got, wanted in zip(compiled(x), run(x), strict=True):
            assert torch.equal(got, wanted)
    nodes = [node for node in graphs[0].graph.nodes if "marlin.gemm" in str(node.target)]
    assert len(nodes) == 3
    assert model[0]._joint.given is None


def test_a_compiled_model_follows_a_new_weight() -> None:
    torch.compiler.reset()
    model, other = fused(four_bit(Attention())), four_bit(Attention())
    compiled: Any = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(1, WIDTH)
    with torch.no_grad():
        compiled(x)
        model.load_state_dict(other.state_dict(), assign=True)
        for got, wanted in zip(compiled(x), other(x), strict=True):
            assert torch.equal(got, wanted)


def test_a_compiled_model_has_gradients() -> None:
    torch.compiler.reset()
    plain = four_bit(Mlp(bias=True))
    compiled: Any = torch.compile(fused(plain), fullgraph=True, backend="aot_eager")
    x = torch.randn(2, WIDTH)
    torch.testing.assert_close(compiled(x), plain(x))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Mlp(act_fn=nn.GELU()), "its activation self.act_fn is not SiLU"),
        (Mlp(act_fn=Clamped()), "its activation self.act_fn is not SiLU"),
        (ClampedMlp(), "its forward is not down_proj(act(gate_proj(x)) * up_proj(x))"),
        (CrossAttention(), "its forward does not call each projection once, with the same input"),
        (
            ChangingAttention(),
            "its forward does not call each projection once, with the same input",
        ),
        (
            InPlaceAttention(),
            "its forward does not call each projection once, with the same input",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_another_formula_is_left_alone(module: nn.Module, reason: str) -> None:
    assert reasons(four_bit(module)) == [reason]


def test_layers_that_do_not_fit_each_other_are_left_alone() -> None:
    other_groups = four_bit(Attention(), exclude="k_proj")
    quantize_(other_groups, group_size=64)
    assert reasons(other_groups) == ["`q_proj` has group_size 32, and `k_proj` has 64"]
    half = four_bit(Mlp())
    nn.Module.to(half.get_submodule("up_proj"), torch.float16)
    assert reasons(half) == ["`gate_proj` has dtype float32, and `up_proj` has float16"]
    zeros = four_bit(Mlp(), exclude="up_proj")
    quantize_(zeros, group_size=32, symmetric=False)
    assert reasons(zeros) == ["`gate_proj` has symmetric True, and `up_proj` has False"]


def test_a_padded_layer_is_left_alone() -> None:
    attention = Attention()
    attention.v_proj = nn.Linear(WIDTH, 72)
    assert reasons(four_bit(attention)) == [
        "`v_proj` has 72 outputs, which is no multiple of 64",
    ]


def test_float_layers_are_left_alone() -> None:
    assert reasons(Attention()) == []
    assert reasons(four_bit(Attention(), exclude="q_proj")) == [
        "`q_proj` is Linear, which is neither Int4Linear nor Int8Linear"
    ]


def test_shared_layers_are_left_alone() -> None:
    model = nn.ModuleList([Mlp(), Mlp()])
    model[1].up_proj = model[0].up_proj
    assert reasons(four_bit(model)) == ["`up_proj` is shared with another module"] * 2
    same = Mlp()
    same.up_proj = same.gate_proj
    assert reasons(four_bit(same)) == ["`gate_proj` is shared with another module"]


def test_a_module_with_two_names_is_fused_once() -> None:
    mlp = four_bit(Mlp())
    assert len(fuse_(nn.ModuleList([mlp, mlp])).fused) == 1


def test_hooked_and_replaced_forwards_are_left_alone() -> None:
    hooked = four_bit(Mlp())
    hooked.get_submodule("up_proj").register_forward_hook(lambda *_: None)
    assert reasons(hooked) == ["`up_proj` has hooks or a forward of its own"]
    replaced = four_bit(Attention())
    replaced.forward = lambda x: x
    assert reasons(replaced) == ["it has a forward of its own, which may compute otherwise"]


def test_layers_on_the_meta_device_are_left_alone() -> None:
    model = four_bit(Mlp())
    nn.Module.to(model, "meta")
    assert reasons(model) == ["`gate_proj` is on meta, whose layout is not put together"]


def test_a_forward_without_source_is_left_alone() -> None:
    class Hidden(Mlp):
        pass

    namespace: dict[str, Any] = {}
    source = "def forward(self, x):\n    return self.down_proj(self.gate_proj(x))"
    exec(source, namespace)
    Hidden.forward = namespace["forward"]  # type: ignore[method-assign]
    assert reasons(four_bit(Hidden())) == ["the source of its forward cannot be read"]


ARCHITECTURES: list[tuple[Any, Any, dict[str, Any], int]] = [
    (LlamaForCausalLM, LlamaConfig, {}, 4),
    (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}, 4),
    (MistralForCausalLM, MistralConfig, {}, 4),
    (Qwen2ForCausalLM, Qwen2Config, {}, 4),
    (GemmaForCausalLM, GemmaConfig, {"head_dim": 32}, 2),
    (Phi3ForCausalLM, Phi3Config, {"pad_token_id": 0}, 0),
]


@pytest.mark.parametrize(
    ("model_class", "config_class", "options", "groups"),
    ARCHITECTURES,
    ids=lambda value: getattr(value, "__name__", ""),
)
@torch.no_grad()
def test_models_of_transformers(
    model_class: Any,  # noqa: ANN401
    config_class: Any,  # noqa: ANN401
    options: dict[str, Any],
    groups: int,
) -> None:
    config = config_class(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=GATED,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
        **options,
    )
    plain = four_bit(model_class(config).eval())
    model = copy.deepcopy(plain)
    report = fuse_(model)
    assert len(report.fused) == groups
    tokens = torch.randint(1, 64, (2, 7))
    got, wanted = model(tokens), plain(tokens)
    assert (got.logits - wanted.logits).norm() <= 1e-4 * wanted.logits.norm()
    cache_name = "cache" if "cache" in got else "past_key_values"
    step = torch.randint(1, 64, (2, 1))
    steps = [
        root(step, **{cache_name: out[cache_name]}).logits
        for root, out in ((model, got), (plain, wanted))
    ]
    assert (steps[0] - steps[1]).norm() <= 1e-4 * steps[1].norm()
    assert list(model.state_dict()) == list(plain.state_dict())
