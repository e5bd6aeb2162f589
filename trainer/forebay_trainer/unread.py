"""Warns of keys that nothing would look at, where no constructor says so."""

from __future__ import annotations

import ast
import difflib
import re
from typing import TYPE_CHECKING

from forebay_trainer.stages import STAGES, dicts_at

if TYPE_CHECKING:
    from collections.abc import Collection

    from forebay_trainer.registry import Config

_TOP = frozenset(
    word
    for line in (
        "model data optimizer optimizer_config lr_config runner total_epochs",
        "checkpoint_config log_config evaluation custom_hooks custom_imports dist_params",
        "log_level load_from resume_from auto_resume workflow opencv_num_threads",
        "mp_start_method auto_scale_lr work_dir seed device deterministic fp16",
        "find_unused_parameters cudnn_benchmark train_cfg test_cfg flush_timeout_s",
    )
    for word in line.split()
)
# The keys of what no constructor takes, by its place.
_INNER = {
    "auto_scale_lr": "enable base_batch_size",
    "data": "train val test train_dataloader val_dataloader test_dataloader",
    "dist_params": "backend",
    "log_config": "interval hooks",
    **STAGES,
    **{f"model.{place}": keys for place, keys in STAGES.items()},
}


def unread(config: Config) -> list[str]:
    """Return a warning for each key of a normalized configuration that nothing reads."""
    warnings = _names_at_the_top(config)
    for place, keys in _INNER.items():
        known = keys.split()
        for each in dicts_at(config, place):
            warnings += [_nobody(f"{place}.{key}", known) for key in each if key not in known]
    return warnings


def similar(name: str, names: Collection[str]) -> str:
    """Return what a message ends with: the question whether one of these was meant, if it is like
    one.
    """
    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _names_at_the_top(config: Config) -> list[str]:
    """Warn of names that are no key of ours and that the file itself does not use.

    Such are misspelled keys, and a ``train_pipeline`` that is changed but given to no data set.
    """
    if not config.text:
        return [_nobody(key, _TOP) for key in config.keys() - _TOP]
    warned = set()
    # The sources of the file and its bases follow lines with their paths.
    parts = re.split(
        r"^(?:/|[\w-]+://).*\.(py|json|ya?ml)\n", f"{config.text}\n", flags=re.MULTILINE
    )
    read_in_text = set(re.findall(r"\{\{\s*_base_\.(\w+)|\$\{(\w+)", config.text))
    read = {name for names in read_in_text for name in names}
    assigned_somewhere: set[str] = set()
    for suffix, source in zip(parts[1::2], parts[2::2], strict=True):
        assigned, used = _names(source) if suffix == "py" else (_keys_of(source), set())
        assigned_somewhere |= assigned
        warned |= assigned - used
    given = config.keys() - assigned_somewhere  # as an option of the command line
    return [_nobody(key, _TOP) for key in sorted((warned | given) & config.keys() - read - _TOP)]


def _nobody(place: str, known: Collection[str]) -> str:
    key = place.rpartition(".")[2]
    return f"{place} is set, but nothing reads it{similar(key, known)}"


def _names(source: str) -> tuple[set[str], set[str]]:
    """Return the names that Python code sets at its top, and those that it reads."""
    tree = ast.parse(re.sub(r"\{\{.*?\}\}", "None", source))
    targets = [
        target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    ]
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    read = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    return {target.id for target in targets if isinstance(target, ast.Name)} - {"_base_"}, read


def _keys_of(source: str) -> set[str]:
    return set(re.findall(r"^[\s{]*\"?(\w+)\"?\s*:", source, flags=re.MULTILINE))
