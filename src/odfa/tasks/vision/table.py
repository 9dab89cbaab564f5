"""A table of the user: columns of numbers, and one column with the class of each row.

Shape letters: `N` rows · `D` columns of numbers.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import torch

from odfa.data import DataShape, Split, Splits, check_held_out, needs
from odfa.errors import DataError
from odfa.settings import require_counts
from odfa.tasks.vision.images import ClassData, parts_by_key

_TEST_KEY, _VALIDATION_KEY = 8, 9
"""Keys of the rows that are held out; they never change, so that all runs share the test part."""


@dataclass(frozen=True, kw_only=True)
class TableData(ClassData, kind="table"):
    """A table with column names in its first line; each column of numbers is standardised by the training rows."""

    path: Path | None = None
    """File that ends in .csv or .parquet; it has to be given."""
    label: str | None = None
    """Name of the column with the classes; none: the last column."""
    test: int = 200
    """Number of rows held out for the test part; which ones depends on the number of rows alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "test", what="a positive number of rows")

    def load(self) -> Splits:
        """The three parts, each column standardised."""
        x_ND, y_N, num_classes = self._read()
        parts = parts_by_key(x_ND, y_N, test=self.test, validation=self.validation, names=(_TEST_KEY, _VALIDATION_KEY))
        mean_D, std_D = parts[0].x_ND.mean(dim=0), parts[0].x_ND.std(dim=0)
        std_D[std_D == 0] = 1.0  # a constant column stays zero instead of becoming NaN
        train, validation, test = (Split(x_ND=((part.x_ND - mean_D) / std_D).float(), y_N=part.y_N) for part in parts)
        splits = Splits(
            train=train, validation=validation, test=test, num_classes=num_classes, source=str(self._file())
        )
        return splits.check().limited(self.limit)

    def peek(self) -> DataShape:
        """Sizes of the parts; the file is read."""
        x_ND, _, num_classes = self._read()
        check_held_out(len(x_ND), self.test)
        check_held_out(len(x_ND) - self.test, self.validation)
        return self.cut(
            DataShape(
                num_features=x_ND.shape[1],
                num_classes=num_classes,
                num_train=len(x_ND) - self.test - self.validation,
                num_validation=self.validation,
                num_test=self.test,
            )
        )

    def _file(self) -> Path:
        if self.path is None:
            raise DataError("data.path: expected a file that ends in .csv or .parquet, got none")
        file = Path(self.path).expanduser()
        if file.suffix not in (".csv", ".parquet") or not file.is_file():
            raise DataError(f"{file}: expected a file that ends in .csv or .parquet; this is none")
        return file

    def _read(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Features (N, D) in float64, number of each row's class (N,), and the number of classes."""
        file = self._file()
        with needs("pandas", "tables"):
            import pandas
        if file.suffix == ".parquet":
            with needs("pyarrow", "parquet files", otherwise="write the table as .csv"):
                import pyarrow.parquet  # noqa: F401
        try:
            table = pandas.read_csv(file) if file.suffix == ".csv" else pandas.read_parquet(file)
        except (OSError, ValueError) as error:  # pandas and pyarrow raise ValueError for damaged content
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DataError(f"{file}: expected a table ({why}); repair it") from error
        if table.index.names != [None]:  # pandas writes it beside the columns, and does not read it as one
            raise DataError(
                f"{file}: column {str(table.index.names[0])!r} is an index; write the table after reset_index()"
            )
        columns = [str(name) for name in table.columns]
        table.columns = columns
        label = self.label if self.label is not None else columns[-1] if columns else ""
        if label not in columns or len(columns) < 2:
            raise DataError(f"{file}: expected a column {label!r} and others, got {', '.join(columns) or 'none'}")
        numbers = table.drop(columns=label)
        odd = [name for name in numbers.columns if not pandas.api.types.is_numeric_dtype(numbers[name].dtype)]
        if odd:
            raise DataError(f"{file}: column {odd[0]!r} holds no numbers; leave it out or write it as numbers")
        if table.isna().any(axis=None):
            name = table.columns[table.isna().any()][0]
            raise DataError(f"{file}: column {name!r} has empty places; fill them or leave these rows out")
        if not all(isinstance(value, Hashable) for value in table[label]):
            raise DataError(f"{file}: column {label!r} holds lists or objects, expected numbers or words")
        # classes get their numbers in sorted order: in the order of the rows, another file could swap them
        numeric = pandas.api.types.is_numeric_dtype(table[label].dtype)
        names = sorted(table[label].unique(), key=None if numeric else str)
        codes = pandas.Categorical(table[label], categories=names).codes
        x_ND = torch.tensor(numbers.to_numpy(dtype="float64"))
        return x_ND, torch.tensor(codes.astype("int64")), len(names)
