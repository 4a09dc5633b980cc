"""Configuration keys that had other names in older versions."""

from __future__ import annotations

from typing import Any

# Old names of keys. ``load_config`` reads them; Detectron2's own merging refuses them, and says the
# new ones.
RENAMED_KEYS = {
    "MODEL.DETR.TEST.BATCH_INVARIANT": "MODEL.DETR.BATCH_INVARIANT",
    "MODEL.DETR.MASK_CHUNK_SIZE": "MODEL.DETR.MASK_HEAD.CHUNK_SIZE",
    "MODEL.DETR.MASK_CHECKPOINTING": "MODEL.DETR.MASK_HEAD.CHECKPOINTING",
}


def rename_keys(loaded: dict) -> bool:
    """Renames the old keys of a file, which are nested dicts; a value under the new name stays.

    Returns:
        Whether a key had an old name.
    """
    renamed = False
    for old_name, new_name in RENAMED_KEYS.items():
        node: Any = loaded
        *above, key = old_name.split(".")
        for name in above:
            node = node.get(name) if isinstance(node, dict) else None
        if not isinstance(node, dict) or key not in node:
            continue
        renamed = True
        value = node.pop(key)
        node, (*above, key) = loaded, new_name.split(".")
        for name in above:
            node = node.setdefault(name, {})
        node.setdefault(key, value)
    return renamed
