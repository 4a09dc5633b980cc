"""Classes that are lent to datasets in Detectron2's catalog whose files are missing.

Detectron2's ``DefaultPredictor`` and its visualizers look up the classes of a model by the name of
a dataset. If its files are missing, they find the classes that were lent to it here. Lent classes
are never taken for the dataset's own, which replace them as soon as the files are read.
"""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.data import MetadataCatalog

# The key of the metadata that lists the lent keys.
LENT = "lent_keys"


def lend(name: str, values: Mapping[str, object]) -> None:
    """Adds the keys that a dataset's metadata lacks. An earlier loan is taken back first.

    Metadata objects of an earlier loan stay as they are.
    """
    if all(MetadataCatalog.get(name).get(key) == value for key, value in values.items()):
        return
    take_back(name)
    metadata = MetadataCatalog.get(name)
    lacking = {key: value for key, value in values.items() if metadata.get(key) is None}
    metadata.set(**lacking, **{LENT: list(lacking)})


def is_on_loan(name: str) -> bool:
    """Whether the classes in a dataset's metadata are lent."""
    return MetadataCatalog.get(name).get(LENT) is not None


def take_back(name: str) -> None:
    """Removes the lent keys from a dataset's metadata."""
    if not is_on_loan(name):
        return
    values = MetadataCatalog.get(name).as_dict()
    gone = {"name", LENT, *values[LENT]}
    MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(**{k: v for k, v in values.items() if k not in gone})
