"""Images of the user: a folder that holds a folder of PNG or JPEG files for each class.

Shape letters: `N` images · `D` values of all pixels and channels.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from odfa.data import DataShape, Splits, check_held_out, needs
from odfa.errors import DataError
from odfa.settings import MAX_WIDTH, require, require_counts
from odfa.tasks.vision.images import ImageData, parts_by_key

_ENDINGS = (".png", ".jpg", ".jpeg")
_TEST_KEY, _VALIDATION_KEY = 6, 7
"""Keys of the images that are held out; they never change, so that all runs share the test part."""


@dataclass(frozen=True, kw_only=True)
class ImageFolderData(ImageData, kind="images"):
    """A folder that holds a folder of PNG or JPEG files for each class; the folders' names are the classes' names."""

    path: Path | None = None
    """Folder that holds a folder for each class; it has to be given."""
    test: int = 200
    """Number of images held out for the test part; which ones depends on the number of images alone."""
    side: int | None = None
    """Images are scaled to this height and width; none: they are not scaled and must all be of one size."""
    colour: bool = True
    """true: three channels; false: one channel, images are converted to grey."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "test", what="a positive number of images")
        require(self.side is None or 0 < self.side <= MAX_WIDTH, "side", "a positive number of pixels", self.side)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers.

        Raises:
            DataError: there is no folder, or there are fewer than two folders in it.
        """
        folder = _given(self.path)
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if len(names) < 2:
            raise DataError(f"{folder}: expected a folder for each of two classes or more, got {len(names)} folders")
        return tuple(names)

    def load(self) -> Splits:
        """The three parts with pixels as bytes."""
        files, y_N = self._files()
        x_ND, size = self._read(files)
        parts = parts_by_key(x_ND, y_N, test=self.test, validation=self.validation, names=(_TEST_KEY, _VALIDATION_KEY))
        splits = Splits(
            train=parts[0],
            validation=parts[1],
            test=parts[2],
            num_classes=len(self.classes),
            image=size,
            source=str(_given(self.path)),
        )
        return splits.check().limited(self.limit)

    def peek(self) -> DataShape:
        """Sizes of the parts, from the number of files and the size of the first image."""
        files, _ = self._files()
        _, size = self._read(files[:1])
        check_held_out(len(files), self.test)
        check_held_out(len(files) - self.test, self.validation)
        return self.cut(
            DataShape(
                num_features=size[0] * size[1] * size[2],
                num_classes=len(self.classes),
                num_train=len(files) - self.test - self.validation,
                num_validation=self.validation,
                num_test=self.test,
                image=size,
            )
        )

    def _files(self) -> tuple[list[Path], Tensor]:
        """All files, class by class, and the number of each file's class."""
        # sorted: the order in which a system lists a folder would otherwise decide what is held out
        files, labels = list[Path](), list[int]()
        for number, name in enumerate(self.classes):
            folder = _given(self.path) / name
            found = sorted(file for file in folder.iterdir() if file.suffix.lower() in _ENDINGS)
            if not found:
                raise DataError(f"{folder}: expected files that end in {', '.join(_ENDINGS)}, got none")
            files += found
            labels += [number] * len(found)
        return files, torch.tensor(labels)

    def _read(self, files: list[Path]) -> tuple[Tensor, tuple[int, int, int]]:
        """Bytes (N, D) of these images, channel by channel, and (channels, height, width)."""
        with needs("pillow", "folders of images"):
            from PIL import Image
        first, rows = (0, 0), list[Tensor]()
        for file in files:
            width, height, pixels = self._decoded(Image, file)
            first = first if rows else (width, height)
            if (width, height) != first:
                raise DataError(
                    f"{file}: expected {first[0]} x {first[1]} pixels as in {files[0]}, got {width} x {height}; say "
                    "data.side=PIXELS to have all images scaled"
                )
            rows.append(pixels)
        return torch.stack(rows), (3 if self.colour else 1, first[1], first[0])

    def _decoded(self, library: ModuleType, file: Path) -> tuple[int, int, Tensor]:
        """Width, height and bytes of one image; `library` is PIL.Image, which is imported when it is needed."""
        # two formats only: Pillow's readers of rare formats are where damaged files do harm
        try:
            with library.open(file, formats=("PNG", "JPEG")) as opened:
                image = opened.convert("RGB" if self.colour else "L")
        except (OSError, SyntaxError, ValueError, library.DecompressionBombError) as error:
            raise DataError(f"{file}: expected a PNG or JPEG file ({error}); repair or remove it") from error
        if self.side is not None:
            image = image.resize((self.side, self.side), library.Resampling.BILINEAR)
        flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return image.width, image.height, flat.view(image.height * image.width, -1).T.flatten()


def _given(path: Path | None) -> Path:
    if path is None:
        raise DataError("data.path: expected a folder that holds a folder of images for each class, got none")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder that holds a folder of images for each class; this is none")
    return folder
