"""The moving average of the weights against its recursion, in runs that are cut and go on."""

from dataclasses import replace

import torch
from tests.cut import train_and_cut
from torch import nn

from odfa import load_run, train
from odfa.session.average import averaged


def test_the_average_follows_its_recursion():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    mean = averaged(model, 0.8)
    wanted = None
    for count in range(30):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3, dtype=torch.float64))
        mean.update_parameters(model)
        decay = min(0.8, (1 + count) / (10 + count))
        wanted = model.weight.clone() if wanted is None else decay * wanted + (1 - decay) * model.weight
        assert torch.allclose(mean.module.weight, wanted, atol=1e-12)


def test_a_run_cut_in_two_keeps_its_average(tmp_path, quick, traces):
    config = quick("odfa", rule="aligned")
    config = replace(config, optimizer=replace(config.optimizer, average=0.9))
    whole = train.run(config, tmp_path / "whole", progress=False)
    train_and_cut(config, tmp_path / "cut", after=6)
    assert train.resume(tmp_path / "cut", progress=False).metric == whole.metric
    assert traces(tmp_path / "cut") == traces(tmp_path / "whole")
    assert "average.safetensors" in traces(tmp_path / "whole")


def test_what_is_loaded_is_what_was_evaluated(tmp_path, quick):
    config = quick("bp")
    config = replace(config, optimizer=replace(config.optimizer, average=0.9))
    result = train.run(config, tmp_path / "run", progress=False)
    task = config.task
    splits = task.load(config.data)
    assert task.evaluate(load_run(tmp_path / "run").model, splits.test)["accuracy"] == result.metric["value"]
    plain = train.run(quick("bp"), tmp_path / "plain", progress=False)
    assert plain.metric["value"] != result.metric["value"] or plain.validation != result.validation
