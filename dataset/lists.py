"""Lists of images, as this and other projects write them."""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterator
from pathlib import Path, PurePosixPath

from dataset.layout import Layout
from dataset.reading import Line, contents, read_lines, refuse_name
from utils.system.errors import UserError, fault


class Lists(Layout):
    """Finds the images that the lines of a list mean.

    A line may also name the image as other projects do: with folders of the layout before it, by the name of its label,
    without an extension or with another one, or together with its label.
    """

    unfound: list[str]
    """Listed names without an image, as written."""

    @classmethod
    def listed(cls, path: str | Path) -> list[str]:
        """The names of a list file as written; for a missing one of `tree_lists`, the names found in its folder.

        Raises UserError if there are none.
        """
        return [line.name for line in cls._lines(Path(path))]

    @classmethod
    def listed_keys(cls, path: str | Path, keys: Container[str]) -> list[str]:
        """The keys of the images of a list; each line is read as one of `keys` if it can be."""
        found = []
        for name in cls.listed(path):
            words = name.split()
            written = [name, *words[: len(words) == 2]]  # perhaps an image and its label, without extensions
            likely = (cls.key(other) for each in written for other in cls._likely(each, ()))
            found.append(next((key for key in likely if key in keys), cls.key(name)))
        return found

    @classmethod
    def _lines(cls, path: Path) -> list[Line]:
        if path.name not in cls.tree_lists or fault(path) != "not found":
            return read_lines(path)
        names = cls.tree_lists[path.name](path.parent)
        if not names:
            raise UserError(
                f"{path}: list not found, and no images to make it from; expected {cls.layout}; {path.parent} holds "
                f"{contents(path.parent)}"
            )
        return [Line(number, name) for number, name in enumerate(names, start=1)]

    @classmethod
    def _likely(cls, name: str, folders: Collection[str]) -> Iterator[str]:
        """A listed name with all its folders, then without those that lead to `folders` or to folders of the layout,
        then the other spellings of these. An absolute name is never used as it is."""
        path = PurePosixPath(name)
        parts = path.parts[1:] if path.is_absolute() else path.parts
        known = {*folders, *cls.image_folders, *(PurePosixPath(folder).name for folder in cls.label_folders)}
        names = []
        for first in range(path.is_absolute(), len(parts)):
            inside = first < len(parts) - 1 and parts[first] in cls.image_folders
            if first == 0 or parts[first - 1] in known or inside:
                names.append("/".join(parts[first:]))
                yield names[-1]
        for name in names:
            yield from cls.spellings(name)

    def resolved(self, path: Path) -> list[str]:
        """The names of a list as the reader knows them; a name without an image stays as written.

        Raises UserError for a name outside of the data folder, an image that is listed twice, and an image that is
        paired with another's label.
        """
        roots = {root.absolute().name for root in (self.root, self.label_root)}
        folders = {self.split, self.image_folder(self.split).name, *roots}
        numbers: dict[str, int] = {}
        for line in self._lines(path):
            name = self._find(line.name, folders)
            words = line.name.split()
            if name is None and line.label is None and len(words) == 2:  # an image and its label, without extensions
                name = self._find(words[0], folders)
                line = line if name is None else Line(line.number, *words)
            if name is None and line.name.startswith("/"):
                refuse_name(path, line)
            if name is None and self._elsewhere(line.name):
                raise UserError(
                    f"{path}, line {line.number}: {line.name} exists, but not in {self.image_folder(self.split)}; "
                    f"expected images of split {self.split!r}: give the list of that split"
                )
            if name is None:
                name = line.name
                self.unfound.append(name)
            if name in numbers:
                raise UserError(
                    f"{path}, line {line.number}: {line.name!r} is also the image of line {numbers[name]}; expected "
                    "every image once: remove one of the lines"
                )
            numbers[name] = line.number
            if line.label is not None and self.labels is not False and self.pseudo_label_dir is None:
                self._refuse_other_label(path, line, name, folders)
        return list(numbers)

    def _find(self, listed: str, folders: Collection[str]) -> str | None:
        """The likeliest spelling of a listed name for which an image exists."""
        return next((name for name in self._likely(listed, folders) if os.path.isfile(self.image_path(name))), None)

    def _elsewhere(self, listed: str) -> bool:
        """Whether a listed name is that of a file elsewhere below the root, such as in another split."""
        places = (self.root, *(self.root / folder for folder in self.image_folders))
        return any(os.path.isfile(place / listed) for place in places)

    def _refuse_other_label(self, path: Path, line: Line, name: str, folders: Collection[str]) -> None:
        own, given = self.label_path(name), PurePosixPath(str(line.label)).parts
        if own.parts[-len(given) :] == given:
            return
        here, keys = Path(), {self.key(name)}
        for label in self._likely(str(line.label), folders):
            if any(
                keys & {self.label_key(Path(p), here), self.train_id_key(Path(p), here)}
                for p in (label, f"{label}.png")
            ):
                return
        raise UserError(
            f"{path}, line {line.number}: {line.name} is paired with {line.label}, but its label is "
            f"{own}; expected that one: correct the line, or give the image's name only"
        )
