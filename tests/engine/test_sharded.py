"""Parameters, logits and sequences spread over two processes: right, or refused in one line."""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.engine import DFA, AlignedHead
from odfa.errors import MatchError

WIDTH, TOKENS, CLASSES = 8, 4, 6
Gradients = dict[str, Tensor | None]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).tanh())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.blocks = nn.Linear(WIDTH, WIDTH), nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, CLASSES)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_BTC = torch.randn(6, TOKENS, WIDTH, generator=generator).double()
    return x_BTC, torch.randint(CLASSES, (6, TOKENS), generator=generator)


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> Gradients:
    model.zero_grad()
    F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    return {name: g.full_tensor() if hasattr(g, "full_tensor") else g for name, g in grads.items()}


def equal(ours: Gradients, expected: Gradients) -> None:
    for name, grad in expected.items():
        torch.testing.assert_close(ours[name], grad, msg=lambda m, n=name: f"{n}: {m}")  # type: ignore[misc]


def fully_sharded(mesh: dist.DeviceMesh, rank: int, expected: Gradients) -> None:
    """Attached before and after; each process has half of the batch."""
    from torch.distributed.fsdp import fully_shard

    def shard(model: Net) -> None:
        for part in (*model.blocks, model):
            fully_shard(part, mesh=mesh)

    x, y = (whole.chunk(2)[rank] for whole in data())
    attached_before, attached_after = Net(), Net()
    dfa = DFA(attached_before, "blocks.*")
    shard(attached_before)
    shard(attached_after)
    DFA(attached_after, "blocks.*")
    for model in (attached_before, attached_after):
        for _ in range(2):
            equal(gradients(model, x, y), expected)
    assert "blocks.1.up.weight" in dfa.members.blocks["blocks.1"]  # type: ignore[union-attr]
    assert "no gradient" not in repr(dfa)
    with pytest.raises(MatchError, match="measure on a copy that is not sharded"), dfa.measure_alignment():
        gradients(attached_before, x, y)
    whole = Net()
    whole.load_state_dict({name: value.full_tensor() for name, value in attached_before.state_dict().items()})
    with DFA(whole, "blocks.*").measure_alignment() as alignment:
        gradients(whole, x, y)
    assert set(alignment) == {"blocks.0", "blocks.1"}
    DFA.of(attached_after).remove()  # type: ignore[union-attr]
    with pytest.raises(MatchError, match=r"DTensor.*use RandomFeedback"):
        DFA(attached_after, "blocks.*", rule=AlignedHead(rank=1))
    late = Net()
    DFA(late, "blocks.*", rule=AlignedHead(rank=1))
    shard(late)
    with pytest.raises(MatchError, match="the head's whole weight, but fully_shard"):
        gradients(late, x, y)


def tensor_parallel(mesh: dist.DeviceMesh, _rank: int, expected: Gradients) -> None:
    """Logits spread over their classes; then a sequence of which each process has a half."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor import parallel as tp

    x, y = data()
    model = Net()
    DFA(model, "blocks.*")
    rows, columns = tp.RowwiseParallel, tp.ColwiseParallel
    for block in model.blocks:
        tp.parallelize_module(block, mesh, {"up": columns(), "down": rows()})
    tp.parallelize_module(model, mesh, {"head": columns(output_layouts=Shard(-1), use_local_output=False)})
    with tp.loss_parallel():
        equal(gradients(model, x, y), expected)
    model = Net()
    for block in model.blocks:
        plan = {"norm": tp.SequenceParallel(), "up": columns(input_layouts=Shard(1))}
        tp.parallelize_module(block, mesh, {**plan, "down": rows(output_layouts=Shard(1))})
    embed, head = rows(input_layouts=Replicate(), output_layouts=Shard(1)), columns(input_layouts=Shard(1))
    tp.parallelize_module(model, mesh, {"embed": embed, "head": head})
    DFA(model, "blocks.*")
    with pytest.raises(MatchError, match="2 of the error's 4 tokens on this process"):
        model(x)
    for gathers in (False, True):
        spread = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)).double()
        tp.parallelize_module(spread, mesh, {"0": columns(use_local_output=False)})
        if gathers:
            spread[0].register_forward_hook(lambda _module, _args, output: output.full_tensor())
        DFA(spread, ["0"])
        if gathers:
            assert gradients(spread, x, y)["0.weight"].any()  # type: ignore[union-attr]
            continue
        with pytest.raises(MatchError, match=r"let it return its full_tensor\(\)"):
            spread(x)


CASES: list[Callable[[dist.DeviceMesh, int, Gradients], None]] = [fully_sharded, tensor_parallel]


def worker(rank: int, rendezvous: str, expected: Gradients) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    mesh = dist.init_device_mesh("cpu", (2,))
    for case in CASES:
        case(mesh, rank, copy.deepcopy(expected))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may outlive the interpreter, which then aborts (pytorch/pytorch pull 179291)


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    model = Net()
    DFA(model, "blocks.*")
    expected = gradients(model, *data())
    mp.start_processes(worker, (str(tmp_path / "rendezvous"), expected), nprocs=2, start_method="spawn")
