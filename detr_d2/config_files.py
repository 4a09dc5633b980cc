"""Finds config files: those that come with the package, and those of the user."""

from __future__ import annotations

from pathlib import Path


def config_file(name: str) -> str:
    """Path of a config that comes with the package, e.g. ``config_file("detr_panoptic.yaml")``.

    The config is found in a checkout and in an installed wheel. The name may begin with
    ``configs/``, as paths in a checkout do.

    Raises:
        FileNotFoundError: there is no such config; the message lists all configs.
    """
    package = Path(__file__).resolve().parent
    roots = (package / "configs", package.parent / "configs")
    root = next((folder for folder in roots if folder.is_dir()), roots[0])
    path = root / name.removeprefix("configs/")
    if not path.is_file():
        known = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.yaml"))
        raise FileNotFoundError(
            f"There is no config file {name!r}, and none of that name comes with detr_d2, but "
            f"these do: {', '.join(known)}."
        )
    return str(path)


def find_config_file(path: str) -> str:
    """The path itself if a file is there, else the path of the package's config of this name.

    Raises:
        FileNotFoundError: there is neither; the message lists the configs of the package.
    """
    if Path(path).is_file():
        return path
    from detectron2.utils.file_io import PathManager  # knows addresses, too

    return path if PathManager.isfile(path) else config_file(path)
