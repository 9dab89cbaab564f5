"""Predicts what a run will cost. The model is built on torch's meta device, which allocates nothing."""

import contextlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from odfa.data import DataShape
from odfa.flow import Light
from odfa.session.assembly import check_device, check_fit, check_threads
from odfa.session.casts import Casting
from odfa.session.config import RunConfig
from odfa.session.handle import fed, num_inputs, num_projected
from odfa.session.head_rows import learner_of
from odfa.session.memory import check_shares, new_weights
from odfa.settings import tag_of

_LEFT_OUT = "interpreter and libraries; files while they are read; the projection; checkpoints while they are written"


def dry_run(config: RunConfig) -> dict[str, Any]:
    """Parameters, memory, steps, frames, light seconds and joules of a run.

    Memory is the sum of the weights, their gradients, the optimiser's state, the activations that are alive at once
    during one step, and the data (inputs and fields as float32, labels as int64); `memory_leaves_out` names what is not
    counted.

    Raises:
        ConfigError, DataError, Incompatible: whatever the run itself would raise before its first step.
    """
    # data of another task are refused before their files are looked for
    config.task.check_data(config.data)
    check_threads(config)
    check_device(config)
    shape, network = config.data.peek(), config.network
    check_fit(config, shape)
    if network.learned:
        network.check_splits(config.task.load(config.data))
    cast = config.memory.precision == "autocast"
    with torch.device("meta"), new_weights(config.memory):
        model = network.build(shape)
        check_shares(model, config)
    with torch.device("meta"), new_weights(config.memory), Casting() if cast else contextlib.nullcontext():
        activations = _activation_bytes(
            model, network.example(shape, config.batch_size), config, network.num_outputs(shape)
        )
    steps = config.steps or config.epochs * (shape.num_train // config.batch_size)
    each = [_bytes(parameter) for parameter in model.parameters()]
    roles = config.optimizer.roles(model, network.blocks)
    remembered = [config.optimizer.moments_of(roles.get(parameter, "")) for parameter in model.parameters()]
    weights = sum(each)
    memory = {
        "weights": weights,
        # fused updates free each gradient before the next one is made
        "gradients": max(each) if config.memory.fused else weights,
        **({} if config.optimizer.average is None else {"average": weights}),
        # the forward pass and its graph keep copies in two bytes of weights that are multiplied; at most of all
        **({"cast_weights": weights // 2} if cast else {}),
        "optimizer": sum(size * moments for size, moments in zip(each, remembered, strict=True)),
        "activations": activations,
        "data": (sum(map(_bytes, network.example(shape, 1))) + _target_bytes(config, shape))
        * (shape.num_train + shape.num_validation + shape.num_test),
    }
    # mapped pages are not counted as memory: the system writes them back when it needs the room
    disk = memory.pop("weights") + memory.pop("optimizer") if config.memory.storage == "disk" else 0
    light = _light(config, shape, steps * config.batch_size * network.num_rows(shape)).figures()
    return {
        "recipe": config.recipe,
        "rule": tag_of(config.rule),
        "projection": None if config.projection is None else tag_of(config.projection),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "memory_bytes": {**memory, "total": sum(memory.values())},
        "memory_leaves_out": _LEFT_OUT,
        "disk_bytes": disk,
        "light": {key: light[key] for key in ("frames", "seconds", "joules")},
    }


def _light(config: RunConfig, shape: DataShape, rows: int) -> Light:
    """Light that a run takes if no row of the error is zero (such rows are not shown); none without an OPU."""
    if config.projection is None:
        return Light()
    vectors = config.rule.num_vectors(rows, num_outputs=config.network.num_outputs(shape))
    projection = config.projection.build(config.seed)
    return projection.shaped(num_inputs(config, shape), num_projected(config, shape)).cost(vectors)


def _activation_bytes(model: nn.Module, inputs: tuple[Tensor, ...], config: RunConfig, width: int) -> int:
    """Bytes of the inputs and of the outputs of leaf modules that are alive at once.

    keep: the outputs of all leaf modules. recompute, stream: those outside the blocks and of the largest block alone,
    because each block's are freed before the next one runs; recompute also keeps what goes from block to block.

    Args:
        width: outputs of the head.
    """
    kept = config.memory.activations
    blocks = fed(config, config.network.blocks)
    sizes, outputs = dict.fromkeys((*blocks, ""), 0), list[int]()

    def note(block: str, _module: nn.Module, _inputs: object, output: object) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        sizes[block] += sum(_bytes(part) for part in parts if isinstance(part, Tensor))

    for name, module in model.named_modules():
        if name in blocks:
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(_main_bytes(output)))
        if not list(module.children()):
            # leaf modules alone are counted: a container returns the tensors of its last child once more
            block = next((block for block in blocks if name == block or name.startswith(f"{block}.")), "")
            module.register_forward_hook(partial(note, block))
    outside = _head_bytes(model, inputs, config, width) + sum(map(_bytes, inputs)) + sizes.pop("")
    if kept == "keep":
        return outside + sum(sizes.values())
    return outside + max(sizes.values()) + (sum(outputs) if kept == "recompute" else 0)


def _head_bytes(model: nn.Module, inputs: tuple[Tensor, ...], config: RunConfig, width: int) -> int:
    """Run the model; bytes of the head's output that no module returns, as the loss computes it in rows."""
    learner = learner_of(model, config)
    if learner is model:
        model(*inputs)
        return 0
    targets = torch.zeros(inputs[0].shape, dtype=torch.long)
    loss: Tensor = learner(targets, *inputs)
    return min(config.memory.head_rows or 0, targets.numel()) * width * loss.element_size()


def _target_bytes(config: RunConfig, shape: DataShape) -> int:
    """Bytes of a sample's target: a field in float32, or one label in int64 for each row."""
    field = shape.field
    return 8 * config.network.num_rows(shape) if field is None else 4 * field[0] * field[1] * field[2]


def _main_bytes(output: Tensor | tuple[Tensor, ...]) -> int:
    main = output[0] if isinstance(output, tuple) else output
    return _bytes(main)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
