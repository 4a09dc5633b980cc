"""Classes on loan in Detectron2's catalog: of datasets that aren't there, told by somebody else.

Detectron2's ``DefaultPredictor`` and its visualizers look the classes of a model up by the name of
a dataset. Where that dataset can't be had, they find there what is lent here. It counts for nothing
where the dataset itself is asked for, and makes room for it as soon as it comes.
"""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.data import MetadataCatalog

# The metadata's own list of what is on loan in it.
LENT = "lent_keys"


def lend(name: str, values: Mapping[str, object]) -> None:
    """Fills in what a dataset's metadata lacks; what was on loan before goes back first.

    Whoever holds the metadata of an earlier loan keeps it as it is.
    """
    if all(MetadataCatalog.get(name).get(key) == value for key, value in values.items()):
        return
    take_back(name)
    metadata = MetadataCatalog.get(name)
    lacking = {key: value for key, value in values.items() if metadata.get(key) is None}
    metadata.set(**lacking, **{LENT: list(lacking)})


def is_on_loan(name: str) -> bool:
    """Whether a dataset's metadata has its classes from somebody else."""
    return MetadataCatalog.get(name).get(LENT) is not None


def take_back(name: str) -> None:
    """Makes a dataset's metadata what it is without a loan."""
    if not is_on_loan(name):
        return
    values = MetadataCatalog.get(name).as_dict()
    gone = {"name", LENT, *values[LENT]}
    MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(**{k: v for k, v in values.items() if k not in gone})
