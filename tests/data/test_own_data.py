"""Data of one's own without code: a folder of class folders, a table."""

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from odfa import train
from odfa.errors import ConfigError, DataError, MissingExtra
from odfa.recipes import get
from odfa.session import build, dry_run
from odfa.settings import apply
from odfa.tasks.vision.classify import Classify
from odfa.tasks.vision.folder import ImageFolderData
from odfa.tasks.vision.table import TableData


def _folder(place: Path, *, size: tuple[int, int] = (6, 8), each: int = 20) -> Path:
    """Cats are dark, dogs are bright; every third file is a JPEG."""
    draw = np.random.default_rng(0)
    for low, name in ((0, "cat"), (150, "dog")):
        (place / name).mkdir(parents=True)
        for k in range(each):
            pixels = draw.integers(low, low + 100, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{k:03d}.{'JPG' if k % 3 == 2 else 'png'}", format=None)
    return place


def _table(file: Path, rows: int = 60) -> Path:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(rows, 3)) * [1, 1000, 1e-3] + [0, 5000, 0]
    sort = np.where(x[:, 1] > 5000, "high", "low")
    pandas.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "constant": 3, "sort": sort}).to_csv(file, index=False)
    return file


@pytest.mark.parametrize("changes", [{}, {"colour": False}, {"side": 4}, {"limit": 7}])
def test_images_are_read_channel_by_channel_and_peek_tells_what_load_gives(tmp_path: Path, changes: dict) -> None:
    data = ImageFolderData(path=_folder(tmp_path), test=8, validation=6, **changes)
    splits = data.load()
    assert data.peek() == splits.shape
    assert splits.image == (1 if changes.get("colour") is False else 3, changes.get("side", 8), changes.get("side", 6))
    assert data.classes == ("cat", "dog")
    for part in (splits.train, splits.validation, splits.test):
        assert torch.equal(part.x_ND.float().mean(dim=1) > 120, part.y_N == 1)
    if not changes:
        file = np.asarray(Image.open(tmp_path / "dog" / "000.png"))
        wanted_D = torch.from_numpy(file.transpose(2, 0, 1).reshape(-1).copy())
        everything = torch.cat([splits.train.x_ND, splits.validation.x_ND, splits.test.x_ND])
        assert len(everything) == 40
        assert int((everything == wanted_D).all(dim=1).sum()) == 1


def test_a_folder_of_images_is_learned_by_words_alone(tmp_path: Path) -> None:
    words = ["data=images", f"data.path={_folder(tmp_path / 'pets')}", "data.test=8", "data.validation=6", "epochs=6"]
    config = apply(
        get("digits_tiny"), [*words, "limit=none", "batch_size=4", "tensorboard=false", "shift=1", "flip=true"]
    )
    assert train.run(config, tmp_path / "run", progress=False).metric["value"] == 1.0
    for network in ("cnn", "vit"):
        dry_run(apply(config, [f"network={network}", "stride=2" if network == "cnn" else "patch=2"]))


def _spoil(place: Path, how: str) -> None:
    if how == "corrupt":
        (place / "cat" / "000.png").write_bytes(b"\x89PNG and nothing")
    elif how == "cut":
        (place / "cat" / "002.JPG").write_bytes((place / "cat" / "002.JPG").read_bytes()[:200])
    elif how == "size":
        Image.new("RGB", (5, 5)).save(place / "dog" / "001.png")
    elif how == "other":
        Image.new("RGB", (6, 8)).save(place / "dog" / "001.png", format="GIF")
    elif how == "empty":
        (place / "fish").mkdir()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("corrupt", "000.png: expected a PNG or JPEG file"),
        ("cut", "002.JPG: expected a PNG or JPEG file"),
        ("other", "001.png: expected a PNG or JPEG file"),
        ("size", "data.side=PIXELS"),
        ("empty", "fish: expected files that end in .png"),
    ],
)
def test_images_that_are_off_are_named(tmp_path: Path, how: str, told: str) -> None:
    _spoil(_folder(tmp_path), how)
    with pytest.raises(DataError, match=told):
        ImageFolderData(path=tmp_path, test=8, validation=6).load()


def test_no_folder_and_too_much_held_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: expected a folder"):
        ImageFolderData().load()
    with pytest.raises(DataError, match="this is none"):
        ImageFolderData(path=tmp_path / "nowhere").peek()
    with pytest.raises(DataError, match="two classes"):
        ImageFolderData(path=tmp_path).peek()
    with pytest.raises(DataError, match="cannot hold out 200 of 40"):
        ImageFolderData(path=_folder(tmp_path / "pets")).load()
    config = apply(get("digits_tiny"), ["data=images", f"data.path={tmp_path / 'pets'}", "data.test=8", "validation=6"])
    with pytest.raises(ConfigError, match="fewer pixels than 6, the side"):
        build(apply(config, ["shift=6", "batch_size=4", "limit=none"]))


def test_a_table_is_standardised_column_by_column(tmp_path: Path) -> None:
    data = TableData(path=_table(tmp_path / "t.csv"), test=10, validation=8)
    splits = data.load()
    assert data.peek() == splits.shape
    assert (splits.shape.num_features, splits.shape.num_classes, len(splits.train)) == (4, 2, 42)
    assert torch.allclose(splits.train.x_ND.mean(dim=0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(splits.train.x_ND.std(dim=0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-5)
    table = pandas.read_csv(tmp_path / "t.csv")
    share = (table["sort"] == "low").mean()
    labels = torch.cat([splits.train.y_N, splits.validation.y_N, splits.test.y_N])
    assert labels.double().mean().item() == pytest.approx(share)
    config = apply(get("digits_tiny"), ["data=table", f"data.path={data.path}", "data.test=10", "validation=8"])
    config = apply(config, ["limit=none", "batch_size=6", "epochs=20", "tensorboard=false"])
    assert train.run(config, tmp_path / "run", progress=False).metric["value"] >= 0.8
    with pytest.raises(ConfigError, match="unknown setting 'shift'"):
        apply(config, ["shift=1"])
    with pytest.raises(ConfigError, match="needs images"):
        build(apply(config, ["network=cnn"]))


@pytest.mark.parametrize(
    ("text", "changes", "told"),
    [
        ("a,b\n1,x\n", {"label": "z"}, "expected a column 'z' and others, got a, b"),
        ("a\n1\n", {}, "and others"),
        ("", {}, "expected a table"),
        ("a,b,c\n1,x,0\n2,y,1\n", {}, "column 'b' holds no numbers"),
        ("a,b,c\n1,,0\n2,3,1\n", {}, "column 'b' has empty places"),
        ("a,b\n1,0\n2,1\n3,0\n", {}, "cannot hold out 200 of 3"),
        ('a,b\n"1,0\n', {}, "expected a table"),
    ],
)
def test_tables_that_are_off_are_named(tmp_path: Path, text: str, changes: dict, told: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        TableData(path=tmp_path / "t.csv", **changes).load()


def test_parquet_names_what_is_missing_or_reads_the_same(tmp_path: Path) -> None:
    table = pandas.read_csv(_table(tmp_path / "t.csv"))
    try:
        table.to_parquet(tmp_path / "t.parquet")
    except ImportError:
        (tmp_path / "t.parquet").write_bytes(b"PAR1")
        with pytest.raises(MissingExtra, match=r"pip install pyarrow, or write the table as \.csv"):
            TableData(path=tmp_path / "t.parquet").load()
        return
    one, other = (TableData(path=tmp_path / f"t.{end}", test=10, validation=8).load() for end in ("csv", "parquet"))
    assert torch.equal(one.train.x_ND, other.train.x_ND)


def test_the_path_is_no_part_of_what_makes_runs_equal(tmp_path: Path) -> None:
    one, other = (TableData(path=_table(tmp_path / f"{name}.csv"), test=10, validation=8) for name in "ab")
    assert Classify().load(one).fingerprint == Classify().load(other).fingerprint
