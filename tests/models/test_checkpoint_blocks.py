"""`model.checkpoint_blocks` saves memory and changes nothing else: not a bit of a gradient, nor a name."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from diffcli.config.resolve import resolve
from diffcli.config.sections import Precision, RunConfig
from diffcli.models.activations import activation_bytes_per_image
from diffcli.models.build import build_network
from diffcli.models.classifier import Classifier
from diffcli.models.conditioning import Conditioning
from diffcli.models.recomputation import drawing_from
from diffcli.models.unet import UNet
from diffcli.workers import Workers, WorkersSettings
from diffcli_process import fork_server
from golden_models import UNET_INDEX, golden_config

NAMES = sorted(UNET_INDEX)
DROPOUT = 0.2
IMAGES = 3
RANKS = 2


def config_of(name: str, *, recompute: bool, precision: Precision = "fp32") -> RunConfig:
    """The configuration of a golden network, with dropout."""
    config = golden_config(name)
    return replace(
        config,
        model=replace(config.model, dropout=DROPOUT, checkpoint_blocks=recompute),
        training=replace(config.training, precision=precision),
    )


Inputs = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Conditioning]


def network_of(config: RunConfig) -> UNet | Classifier:
    """A network in training with no parameter at zero; its weights depend on their shapes only."""
    torch.manual_seed(1)
    network = build_network(config).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    return network


def inputs_of(config: RunConfig, images: int = IMAGES) -> Inputs:
    """Images, timesteps and, for a U-Net, conditioning."""
    torch.manual_seed(2)
    data, classes = config.data, config.model.classes
    low = data.low_resolution
    condition = Conditioning(
        y=torch.arange(images) % classes if classes else None,
        low_res=torch.randn(images, data.channels, low, low) if low else None,
    )
    x, t = torch.randn(images, data.channels, data.resolution, data.resolution), torch.arange(images)
    return (x, t) if config.model.kind == "classifier" else (x, t, condition)


def trained(network: nn.Module, config: RunConfig, microbatches: int = 1) -> dict[str, Tensor]:
    """The gradients, the output of the last microbatch, and torch's generator after it."""
    x, *others = inputs_of(config)
    for microbatch in range(microbatches):
        torch.manual_seed(microbatch)
        output = network(x + microbatch, *others)
        output.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return {**gradients, "output": output.detach(), "generator": torch.get_rng_state()}


def different(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """The names of what is not the same bit by bit."""
    assert found.keys() == expected.keys()
    return [name for name in expected if not torch.equal(found[name], expected[name])]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_random_numbers_are_the_same_bits(name: str) -> None:
    kept, recomputed = (config_of(name, recompute=recompute) for recompute in (False, True))
    expected = trained(network_of(kept), kept, microbatches=2)
    assert different(trained(network_of(recomputed), recomputed, microbatches=2), expected) == []
    # the comparison sees dropout: other masks give other gradients
    without = replace(kept, model=replace(kept.model, dropout=0.0))
    assert len(different(trained(network_of(without), without, microbatches=2), expected)) > 20


@pytest.mark.parametrize(
    "name", ["improved_superres", "guided_updown_hc8_neworder", "guided_classifier_attention"]
)
def test_gradients_are_the_same_bits_under_autocast(name: str) -> None:
    results = []
    for recompute in (False, True):
        config = config_of(name, recompute=recompute)
        network = network_of(config)
        dtypes: list[torch.dtype] = []
        network.middle.register_forward_hook(lambda _block, _inputs, h, seen=dtypes: seen.append(h.dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(*inputs_of(config))
        # as in training, the backward pass, and what it computes again, begins outside
        output.square().mean().backward()
        assert set(dtypes) == {torch.bfloat16}
        gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
        results.append(gradients | {"output": output})
    assert different(results[1], results[0]) == []


# ---- as `train` wraps it ----


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gradients_are_the_same_bits_in_two_ranks(precision: Precision, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        fork_server().Process(target=_train_rank, args=(rank, port, precision, tmp_path))
        for rank in range(RANKS)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0] * RANKS
    for rank in range(RANKS):
        kept, recomputed = (load_file(_results(tmp_path, rank, recompute)) for recompute in (False, True))
        assert different(recomputed, kept) == []
        assert kept["output"].dtype == torch.float32


def _results(directory: Path, rank: int, recompute: bool) -> Path:
    return directory / f"{rank}-{recompute}.safetensors"


def _train_rank(rank: int, port: int, precision: Precision, directory: Path) -> None:
    os.environ.update(
        ACCELERATE_USE_CPU="true",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        WORLD_SIZE=str(RANKS),
        LOCAL_WORLD_SIZE=str(RANKS),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
    )
    workers = Workers(WorkersSettings(device="cpu", precision=precision, threads=1, deterministic=False))
    assert (workers.rank, workers.world_size) == (rank, RANKS)
    for recompute in (False, True):
        config = config_of("improved_ssn1_sig0_cls1_h1", recompute=recompute, precision=precision)
        network = network_of(config)
        wrapped = workers.wrap(network)
        assert isinstance(wrapped, nn.parallel.DistributedDataParallel)
        assert wrapped.find_unused_parameters
        x, *others = inputs_of(config, images=1)
        # twice: the first backward pass of DDP may order its buckets anew
        for step in range(2):
            network.zero_grad(set_to_none=True)
            torch.manual_seed(10 * step + rank)
            output = wrapped(x + rank, *others)
            output.square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        save_file({**gradients, "output": output.detach()}, _results(directory, rank, recompute))
    workers.close()


# ---- what it does to everything else ----


def test_nothing_but_the_setting_changes() -> None:
    networks = [network_of(config_of("guided_superres", recompute=recompute)) for recompute in (False, True)]
    kept, recomputed = (network.state_dict() for network in networks)
    assert list(kept) == list(recomputed)
    assert different(dict(recomputed), dict(kept)) == []
    networks[0].load_state_dict(recomputed)


def calls_of_blocks(network: UNet | Classifier, config: RunConfig, *, backward: bool) -> set[int]:
    """How many times each block is called in a forward and, if it is asked for, a backward pass."""
    counts: dict[str, int] = {}
    blocks = [
        (name, module)
        for name, module in network.named_modules()
        if type(module).__name__ in ("ResidualAttention", "Middle")
    ]
    assert len(blocks) == (3 if isinstance(network, Classifier) else 7)
    for name, block in blocks:
        counts[name] = 0

        def count(_module: nn.Module, _inputs: tuple[Tensor, ...], name: str = name) -> None:
            counts[name] += 1

        block.register_forward_pre_hook(count)
    output = network(*inputs_of(config))
    if backward:
        output.sum().backward()
    return set(counts.values())


@pytest.mark.parametrize("name", ["guided_superres", "guided_classifier_spatial"])
def test_blocks_are_computed_again_while_training_only(name: str) -> None:
    kept, recomputed = (config_of(name, recompute=recompute) for recompute in (False, True))
    assert calls_of_blocks(network_of(kept), kept, backward=True) == {1}
    assert calls_of_blocks(network_of(recomputed), recomputed, backward=True) == {2}
    assert calls_of_blocks(network_of(recomputed).eval(), recomputed, backward=True) == {1}
    with torch.no_grad():
        assert calls_of_blocks(network_of(recomputed), recomputed, backward=False) == {1}


# ---- memory ----


def kept_bytes(network: UNet | Classifier, inputs: Inputs) -> int:
    """What autograd really keeps of a forward pass, weights aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        network(*inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", NAMES)
def test_less_than_half_is_kept(name: str) -> None:
    kept, recomputed = (
        kept_bytes(network_of(config), inputs_of(config))
        for config in (config_of(name, recompute=recompute) for recompute in (False, True))
    )
    assert recomputed < 0.5 * kept


@pytest.mark.parametrize(
    "name",
    [
        "guided_superres",
        "improved_ssn1_sig1_cls1_h4",
        "guided_conv_h4_legacy",
        "guided_classifier_attention",
        "guided_classifier_adaptive",
        "guided_classifier_spatial",
        "guided_classifier_spatial_v2",
    ],
)
def test_the_estimate_is_what_is_kept_and_little_more(name: str) -> None:
    config = config_of(name, recompute=False)
    kept = kept_bytes(network_of(config), inputs_of(config, images=1))
    generator = torch.get_rng_state()
    assert kept < activation_bytes_per_image(config) < 1.3 * kept
    half = config_of(name, recompute=False, precision="bf16")
    assert activation_bytes_per_image(half) < 0.65 * activation_bytes_per_image(config)
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_estimate_of_every_preset_honours_the_setting() -> None:
    for preset in ("digits", "cifar10", "lsun_bedroom"):
        config = resolve(preset=preset).config
        recomputed = resolve(preset=preset, overrides=("model.checkpoint_blocks=true",)).config
        assert activation_bytes_per_image(recomputed) < 0.5 * activation_bytes_per_image(config)


# ---- on MPS, whose generator torch's checkpoint forgets ----


def test_numbers_are_drawn_again_and_the_generator_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = torch.rand(4)
    later = torch.get_rng_state()
    with drawing_from(state, torch):
        assert torch.equal(torch.rand(4), first)
    assert torch.equal(torch.get_rng_state(), later)
    with pytest.raises(ZeroDivisionError), drawing_from(state, torch):
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), later)
