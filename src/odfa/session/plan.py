"""What a run will cost, before anything is allocated: the model lives on torch's meta device."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from odfa.data import DataShape
from odfa.flow import Light
from odfa.session.assembly import check_fit, check_threads
from odfa.session.config import RunConfig
from odfa.session.handle import fed, num_inputs, num_projected
from odfa.session.memory import new_weights
from odfa.settings import tag_of

_LEFT_OUT = "interpreter and libraries; files while they are read; the projection; checkpoints while they are written"


def dry_run(config: RunConfig) -> dict[str, Any]:
    """Parameters, memory, steps, frames, light seconds and joules of a run.

    Memory counts what lives as long as the run: weights, gradients, the optimiser's state, the activations that one
    batch leaves behind, inputs and fields as float32 and labels as int64; `memory_leaves_out` names the rest.

    Raises:
        ConfigError, DataError, Incompatible: what would stop the run before its first step.
    """
    config.task.check_data(config.data)
    shape, network = config.data.peek(), config.network
    check_threads(config)
    check_fit(config, shape)
    with torch.device("meta"), new_weights(config.memory):
        model = network.build(shape)
        activations = _activation_bytes(model, network.example(shape, config.batch_size), config)
    steps = config.steps or config.epochs * (shape.num_train // config.batch_size)
    each = [_bytes(parameter) for parameter in model.parameters()]
    weights = sum(each)
    memory = {
        "weights": weights,
        "gradients": max(each) if config.memory.fused else weights,
        **({} if config.optimizer.average is None else {"average": weights}),
        "optimizer": weights * config.optimizer.moments,
        "activations": activations,
        "data": (sum(map(_bytes, network.example(shape, 1))) + _target_bytes(config, shape))
        * (shape.num_train + shape.num_validation + shape.num_test),
    }
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
    """Light that a run takes if no row of the error is zero; none where nothing is projected by light."""
    if config.projection is None:
        return Light()
    vectors = config.rule.num_vectors(rows, num_outputs=config.network.num_outputs(shape))
    projection = config.projection.build(config.seed)
    return projection.shaped(num_inputs(config, shape), num_projected(config, shape)).cost(vectors)


def _activation_bytes(model: nn.Module, inputs: tuple[Tensor, ...], config: RunConfig) -> int:
    """Bytes alive at once of the input and of what leaf modules return: all of them, or those of the largest block and
    of what lies outside the blocks, with the blocks' inputs where they are kept."""
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
            block = next((block for block in blocks if name == block or name.startswith(f"{block}.")), "")
            module.register_forward_hook(partial(note, block))
    model(*inputs)
    outside = sum(map(_bytes, inputs)) + sizes.pop("")
    if kept == "keep":
        return outside + sum(sizes.values())
    return outside + max(sizes.values()) + (sum(outputs) if kept == "recompute" else 0)


def _target_bytes(config: RunConfig, shape: DataShape) -> int:
    """What a sample is compared with: a field in float32, or a label in int64 for each row."""
    field = shape.field
    return 8 * config.network.num_rows(shape) if field is None else 4 * field[0] * field[1] * field[2]


def _main_bytes(output: Any) -> int:
    main = output[0] if isinstance(output, tuple) else output
    return _bytes(main)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
