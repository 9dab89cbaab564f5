"""Tables in parquet files: the same numbers as in a csv file, the same refusals."""

import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from odfa import train
from odfa.errors import DataError, MissingExtra
from odfa.recipes import get
from odfa.session import dry_run
from odfa.settings import apply
from odfa.tasks.vision.table import TableData

HELD_OUT = {"test": 10, "validation": 8}


def _both(folder: Path, rows: int = 60) -> tuple[Path, Path]:
    draw = np.random.default_rng(0)
    x_ND = draw.normal(size=(rows, 2)) * [1, 1000] + [0, 5000]
    sort = np.where(x_ND[:, 1] > 5000, "high", "low")
    columns = {"a": x_ND[:, 0], "b": x_ND[:, 1], "whole": np.arange(rows) % 7, "odd": x_ND[:, 0] > 0, "sort": sort}
    pandas.DataFrame(columns).to_csv(folder / "t.csv", index=False, float_format="%.17g")
    pandas.read_csv(folder / "t.csv").to_parquet(folder / "t.parquet", engine="pyarrow")
    return folder / "t.csv", folder / "t.parquet"


def _table(file: Path, **columns: Any) -> Path:
    pandas.DataFrame(columns).to_parquet(file)
    return file


def test_a_parquet_file_is_the_csv_file_bit_for_bit(tmp_path: Path) -> None:
    csv, parquet = (TableData(path=file, **HELD_OUT) for file in _both(tmp_path))
    one, other = csv.load(), parquet.load()
    assert parquet.peek() == other.shape == one.shape == csv.peek()
    assert (one.shape.num_features, one.shape.num_classes) == (4, 2)
    for name in ("train", "validation", "test"):
        this, that = getattr(one, name), getattr(other, name)
        assert torch.equal(this.x_ND, that.x_ND)
        assert torch.equal(this.y_N, that.y_N)
    assert one.fingerprinted().fingerprint == other.fingerprinted().fingerprint
    by_whole = [TableData(path=data.path, label="whole", **HELD_OUT) for data in (csv, parquet)]
    for data in by_whole:
        with pytest.raises(DataError, match="column 'sort' holds no numbers"):
            data.load()


def test_a_run_by_words_alone_learns_the_same_from_either(tmp_path: Path) -> None:
    weights = []
    for file in _both(tmp_path):
        words = ["data=table", f"data.path={file}", "data.test=10", "validation=8", "limit=none", "batch_size=6"]
        config = apply(get("digits_tiny"), [*words, "steps=5", "tensorboard=false", "threads=1"])
        assert dry_run(config)["steps"] == 5
        result = train.run(config, tmp_path / file.suffix, progress=False)
        weights.append((result.metric, result.parameters))
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("columns", "changes", "told"),
    [
        ({"a": [1.0], "b": ["x"]}, {"label": "z"}, "expected a column 'z' and others, got a, b"),
        ({"a": [1.0]}, {}, "and others"),
        ({"a": [1.0, float("nan")], "b": [0, 1]}, {}, "column 'a' has empty places"),
        ({"a": [1.0, 2.0], "b": ["x", None]}, {}, "column 'b' has empty places"),
        ({"a": pandas.array([1, None], dtype="Int64"), "b": [0, 1]}, {}, "column 'a' has empty places"),
        ({"a": [1.0, float("inf")] * 20, "b": [0, 1] * 20}, HELD_OUT, "train part: sample 0 contains NaN or infinity"),
        ({"a": [1.0, 2.0], "t": ["1", "x"], "b": [0, 1]}, {}, "column 't' holds no numbers"),
        ({"a": [Decimal("1.5"), Decimal(2)], "b": [0, 1]}, {}, "column 'a' holds no numbers"),
        ({"a": [date(2020, 1, 1), date(2021, 1, 1)], "b": [0, 1]}, {}, "column 'a' holds no numbers"),
        ({"a": [[1.0], [2.0]], "b": [0, 1]}, {}, "column 'a' holds no numbers"),
        ({"a": [1.0, 2.0], "b": [[0], [1]]}, {}, "column 'b' holds lists or objects, expected numbers or words"),
        ({"a": [1.0, 2.0], "b": [{"k": 0}, {"k": 1}]}, {}, "column 'b' holds lists or objects"),
        ({"a": [1.0, 2.0, 3.0], "b": [0, 1, 0]}, {}, "cannot hold out 200 of 3"),
    ],
)
def test_parquet_files_that_are_off_are_named(tmp_path: Path, columns: dict, changes: dict, told: str) -> None:
    with pytest.raises(DataError, match=told):
        TableData(path=_table(tmp_path / "t.parquet", **columns), **changes).load()


@pytest.mark.parametrize("spoil", ["empty", "text", "cut", "foot", "middle"])
def test_a_damaged_file_is_one_line(tmp_path: Path, spoil: str) -> None:
    _, file = _both(tmp_path)
    whole = file.read_bytes()
    spoilt = {
        "empty": b"",
        "text": b"a,b\n1,0\n",
        "cut": whole[: len(whole) // 2],
        "foot": whole[:-208] + bytes(200) + whole[-8:],
        "middle": whole[:4] + bytes(range(256)) + whole[260:],
    }
    file.write_bytes(spoilt[spoil])
    with pytest.raises(DataError, match=r"t\.parquet: expected a table \(.*\); repair it"):
        TableData(path=file, **HELD_OUT).load()


def test_a_column_that_is_an_index_is_not_dropped_in_silence(tmp_path: Path) -> None:
    frame = pandas.read_csv(_both(tmp_path)[0])
    frame.set_index("a").to_parquet(tmp_path / "named.parquet")
    with pytest.raises(DataError, match=r"column 'a' is an index; write the table after reset_index\(\)"):
        TableData(path=tmp_path / "named.parquet", **HELD_OUT).load()
    frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "shuffled.parquet")  # numbers of rows, without a name
    assert TableData(path=tmp_path / "shuffled.parquet", **HELD_OUT).peek().num_features == 4


def test_two_columns_of_one_name_are_refused_in_csv_they_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,a,b\n" + "1,2,0\n3,4,1\n" * 20)
    assert TableData(path=tmp_path / "t.csv", **HELD_OUT).peek().num_features == 2


def test_without_pyarrow_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, file = _both(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install pyarrow, or write the table as \.csv"):
        TableData(path=file).load()
