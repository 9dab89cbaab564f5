"""DistributedDataParallel on two gloo processes equals one process."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from odfa.engine import DFA, AlignedHead, KolenPollack, LowRankHead, RandomFeedback
from odfa.engine.rules import AbstractRule

STEPS = 3
RULES: dict[str, AbstractRule] = {
    "random": RandomFeedback(),
    "aligned": AlignedHead(rank=2, every=2),
    "learned": KolenPollack(feedback_rate=0.5),
    "low_rank": LowRankHead(rank=2),
}


def build(rule: str, recompute: bool) -> tuple[nn.Module, Tensor]:
    from tests.engine.problems import _gpt2

    torch.manual_seed(0)
    model = _gpt2(use_cache=False).double()
    DFA(model, "transformer.h.*", rule=RULES[rule], recompute=recompute)
    return model, torch.randint(0, 11, (STEPS, 4, 6))


def train(model: nn.Module, batches: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for ids in batches:
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


CASES = [("random", False), ("random", True), ("aligned", False), ("learned", False), ("low_rank", False)]


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for rule, recompute in CASES:
        model, batches = build(rule, recompute)
        train(DistributedDataParallel(model), batches[:, 2 * rank : 2 * rank + 2])
        if rank == 0:
            torch.save(model.state_dict(), folder / f"{rule}-{recompute}.pt")
    dist.barrier()  # neither process may close the connection while the other still uses it
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may outlive the interpreter, which then aborts (pytorch/pytorch pull 179291)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the weights that two processes have trained, case by case: starting processes is what takes long."""
    folder = tmp_path_factory.mktemp("weights")
    mp.start_processes(worker, (folder,), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize(("rule", "recompute"), CASES)
def test_two_processes_equal_one(weights: Path, rule: str, recompute: bool) -> None:
    model, batches = build(rule, recompute)
    train(model, batches)
    theirs = torch.load(weights / f"{rule}-{recompute}.pt", weights_only=True)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
