"""Looks a configuration over before anything is read: an error names its place in it.

What a part takes is what its constructor says, users' own parts included. Keys that nothing would
look at are warned of.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import posixpath
import re
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

import forebay_trainer.models  # noqa: F401 - registers the parts
from forebay_trainer.config import ConfigError
from forebay_trainer.datasets.builder import PER_FILE, build_dataloader
from forebay_trainer.datasets.custom import below
from forebay_trainer.engine.evaluation import EvalHook
from forebay_trainer.engine.optimizers import DefaultOptimizerConstructor
from forebay_trainer.engine.schedules import policy_hook_name
from forebay_trainer.engine.training import GATHERING, optimizer_hook_config
from forebay_trainer.files import Files
from forebay_trainer.registry import (
    ANCHOR_GENERATORS,
    BBOX_ASSIGNERS,
    BBOX_CODERS,
    BBOX_SAMPLERS,
    DATASETS,
    HOOKS,
    IOU_CALCULATORS,
    MODELS,
    OPTIMIZER_BUILDERS,
    OPTIMIZERS,
    PIPELINES,
    RUNNERS,
    Config,
    Registry,
)
from forebay_trainer.weights import WeightsError, locate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# Keys of a model whose values another registry builds; of no registry are those after.
_REGISTRIES = {
    "anchor_generator": ANCHOR_GENERATORS,
    "assigner": BBOX_ASSIGNERS,
    "bbox_coder": BBOX_CODERS,
    "iou_calculator": IOU_CALCULATORS,
    "sampler": BBOX_SAMPLERS,
}
_FREE = ("init_cfg", "conv_cfg", "norm_cfg", "act_cfg", "upsample_cfg", "nms", "roi_layer")
# What a containing part gives its parts.
_GIVEN = ("train_cfg", "test_cfg", "pretrained")

_PATHS = ("ann_file", "img_prefix", "seg_prefix", "proposal_file")
_TOP = frozenset(
    word
    for line in (
        "model data optimizer optimizer_config lr_config runner total_epochs",
        "checkpoint_config log_config evaluation custom_hooks custom_imports dist_params",
        "log_level load_from resume_from auto_resume workflow opencv_num_threads",
        "mp_start_method auto_scale_lr work_dir seed device deterministic fp16",
        "find_unused_parameters cudnn_benchmark train_cfg test_cfg gpu_ids",
    )
    for word in line.split()
)
_STAGE_KEYS = frozenset(
    word
    for line in (
        "rpn rpn_proposal rcnn assigner sampler allowed_border pos_weight debug mask_size",
        "mask_thr_binary nms_pre nms_post max_per_img max_num nms nms_thr nms_across_levels",
        "min_bbox_size score_thr",
    )
    for word in line.split()
)


def check_config(config: Config, splits: Collection[str]) -> list[str]:
    """Check all but what is in files, of a normalized configuration.

    *splits*: which of ``train``, ``val`` and ``test`` are used; a training is one with ``train``.
    Returns warnings. Raises ConfigError for what cannot run.
    """
    is_training = "train" in splits
    wanted = ["model", "data", *(["optimizer"] if is_training else [])]
    for key in wanted:
        if config.get(key) is None:
            raise ConfigError(f"{key} is missing")
    _check_parts(config.model, "model", MODELS)
    for key in ("train_cfg", "test_cfg"):
        _check_parts(config.get(key), key, MODELS)
    for split in splits:
        if split not in config.data:
            raise ConfigError(f"data.{split} is missing")
        _check_dataset(config.data[split], f"data.{split}")
    _check_loaders(config)
    if is_training:
        _check_training(config)
    return [*_unread(config), *_unknown_keys(config)]


def check_files(config: Config, splits: Collection[str]) -> None:
    """Check that the weights can be reached, and then that the data are where they should be."""
    for place, path in _weights(config):
        _locate(place, path)
    for split in splits:
        _check_paths(config.data[split], f"data.{split}")


def _locate(place: str, path: str) -> None:
    try:
        locate(path)
    except WeightsError as error:
        raise ConfigError(f"{place}: {error}") from error


# --- parts by their constructors ----------------------------------------------------------------


def _check_parts(value: Any, place: str, registry: Registry) -> None:
    """Check what a registry builds, and all in it."""
    if isinstance(value, (list, tuple)):
        for number, each in enumerate(value):
            _check_parts(each, f"{place}[{number}]", registry)
        return
    if not isinstance(value, dict):
        return
    if "type" in value:
        _check_arguments(value, place, registry, given=_GIVEN)
    for key, inner in value.items():
        if key not in _FREE:
            _check_parts(inner, f"{place}.{key}", _REGISTRIES.get(key, registry))


def _check_arguments(
    arguments: Any,
    place: str,
    registry: Registry,
    given: Collection[str] = (),
    others: Collection[str] = (),
) -> None:
    """Check the names of arguments; *given* are what others give, *others* go somewhere else."""
    if not isinstance(arguments, dict):
        raise ConfigError(f"{place} is a dict with a type, not {arguments!r}")
    kind = arguments.get("type")
    if kind is None:
        raise ConfigError(f"{place}.type is missing")
    built = registry.get(kind) if isinstance(kind, str) else kind
    if built is None:
        similar = _similar(kind, registry.module_dict)
        raise ConfigError(f"{place}.type: {registry.name} {kind!r} is not known{similar}")
    names, needed, is_open = accepted(built)
    for key in arguments.keys() - {"type", *others} - names:
        if not is_open:
            raise ConfigError(
                f"{place}.{key}: {built.__name__} has no such argument{_similar(key, names)}"
            )
    missing = sorted(needed - arguments.keys() - set(given))
    if missing:
        raise ConfigError(f"{place}: {built.__name__} needs {', '.join(missing)}")


def accepted(built: Any) -> tuple[set[str], set[str], bool]:
    """Return the arguments that a class or function takes, those of them that it needs, and whether
    there may be more: it takes any, and so do all that it passes them to.
    """
    names: set[str] = set()
    needed: set[str] = set()
    makers = [
        vars(each)["__init__"] for each in getattr(built, "__mro__", ()) if "__init__" in vars(each)
    ]
    for number, maker in enumerate(makers or [built]):
        if maker is object.__init__:
            break
        parameters = [*inspect.signature(maker).parameters.values()][1 if makers else 0 :]
        named = [
            each
            for each in parameters
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        ]
        names.update(each.name for each in named)
        if number == 0:  # a class may give its base what that needs
            needed = {each.name for each in named if each.default is each.empty}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return names, needed, False
    return names, needed, True


def _similar(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


# --- data ---------------------------------------------------------------------------------------


def _each_dataset(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Give the data sets in lists and wrappers, with their places, the outer ones first."""
    if isinstance(value, (list, tuple)):
        for number, each in enumerate(value):
            yield from _each_dataset(each, f"{place}[{number}]")
        return
    if not isinstance(value, dict):
        raise ConfigError(f"{place} is a data set, not {value!r}")
    yield place, value
    for key in ("dataset", "datasets"):
        if key in value:
            yield from _each_dataset(value[key], f"{place}.{key}")


def _check_dataset(value: Any, place: str) -> None:
    for where, dataset in _each_dataset(value, place):
        _check_arguments(dataset, where, DATASETS, others=["separate_eval"])
        _check_parts(dataset.get("pipeline"), f"{where}.pipeline", PIPELINES)


def _check_paths(value: Any, place: str) -> None:
    """Check that annotations are there, and the folders of images."""
    for where, dataset in _each_dataset(value, place):
        files = Files.of(dataset.get("file_client_args"))
        for key in PER_FILE:
            paths = dataset.get(key)
            for path in paths if isinstance(paths, (list, tuple)) else [paths]:
                full = below(dataset.get("data_root"), path) if path else None
                if full and not (files.exists(full) or _is_folder(files, full)):
                    raise ConfigError(f"{where}.{key}: {full} does not exist")


def _below(root: str | None, path: str | None) -> str | None:
    return path if not path or "://" in path else posixpath.join(root or "", path)


def _is_folder(files: Files, path: str) -> bool:
    return files.is_object(path) and files.client.isdir(path)


def _check_loaders(config: Config) -> None:
    known = {
        *inspect.signature(build_dataloader).parameters,
        *inspect.signature(DataLoader).parameters,
    }
    for split in ("train", "val", "test"):
        for key in config.data[f"{split}_dataloader"]:
            if key not in known:
                raise ConfigError(f"data.{split}_dataloader.{key}: there is no such option")


# --- training -----------------------------------------------------------------------------------


def _check_training(config: Config) -> None:
    _check_arguments(config.runner, "runner", RUNNERS)
    optimizer = dict(config.optimizer)
    constructor = {"type": optimizer.pop("constructor", "DefaultOptimizerConstructor")}
    _check_arguments(constructor, "optimizer.constructor", OPTIMIZER_BUILDERS, ["optimizer_cfg"])
    for key in optimizer.pop("paramwise_cfg", None) or {}:
        is_default = constructor["type"] == DefaultOptimizerConstructor.__name__
        if is_default and key not in DefaultOptimizerConstructor.KEYS:
            raise ConfigError(f"optimizer.paramwise_cfg.{key}: there is no such rule")
    _check_arguments(optimizer, "optimizer", OPTIMIZERS, ["params"])
    if config.get("lr_config") is not None:
        schedule = dict(config.lr_config)
        if "policy" not in schedule:
            raise ConfigError("lr_config.policy is missing")
        policy = schedule.pop("policy")
        schedule["type"] = policy_hook_name(policy)
        if HOOKS.get(schedule["type"]) is None:
            raise ConfigError(f"lr_config.policy: {policy!r} is not known")
        _check_arguments(schedule, "lr_config", HOOKS)
    _check_arguments(optimizer_hook_config(config), "optimizer_config", HOOKS)
    if config.get("checkpoint_config") is not None:
        checkpoints = {"type": "CheckpointHook", **config.checkpoint_config}
        _check_arguments(checkpoints, "checkpoint_config", HOOKS)
    for number, hook in enumerate(config.custom_hooks):
        _check_arguments(hook, f"custom_hooks[{number}]", HOOKS, others=["priority"])
    for number, hook in enumerate(config.log_config.get("hooks", ())):
        _check_arguments(hook, f"log_config.hooks[{number}]", HOOKS)
    for number, (mode, _) in enumerate(config.workflow):
        if mode not in ("train", "val"):
            raise ConfigError(f"workflow[{number}]: {mode!r} is neither 'train' nor 'val'")
    if config.runner["type"] == "IterBasedRunner" and len(config.workflow) > 1:
        raise ConfigError("workflow: a run by iterations validates by `evaluation`")
    _check_evaluation(config)


def _check_evaluation(config: Config) -> None:
    if "val" not in config.data:
        return
    leaf = [dataset for _, dataset in _each_dataset(config.data.val, "data.val")][-1]
    names, _, _ = accepted(EvalHook)
    evaluate = inspect.signature(DATASETS.get(leaf["type"]).evaluate).parameters
    for key in config.get("evaluation") or {}:
        if key not in (*names, *evaluate, *GATHERING):
            raise ConfigError(f"evaluation.{key}: neither the hook nor {leaf['type']} has it")


def _weights(config: Config) -> Iterator[tuple[str, str]]:
    """Give all weights that a run begins with, with their places."""
    for key in ("load_from", "resume_from"):
        if config.get(key):
            yield key, config[key]

    def below(value: Any, place: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            if value.get("type") == "Pretrained" and "checkpoint" in value:
                yield f"{place}.checkpoint", value["checkpoint"]
            if isinstance(value.get("pretrained"), str):
                yield f"{place}.pretrained", value["pretrained"]
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in inner:
            if isinstance(each, (dict, list, tuple)):
                yield from below(
                    each, f"{place}.{key}" if isinstance(key, str) else f"{place}[{key}]"
                )

    model = config.model
    if "pretrained" in model and "backbone" in model:  # stands for the backbone's own, also if None
        model = {**model, "backbone": {**model["backbone"], "init_cfg": None}}
    yield from below(model, "model")


# --- what nothing would look at -----------------------------------------------------------------


def _unread(config: Config) -> list[str]:
    """Warn of names at the top that are no key of ours and that the file itself does not use.

    Such are misspelled keys, and a ``train_pipeline`` that is changed but given to no data set.
    """
    if not config.text:
        return [_nobody(key) for key in config.keys() - _TOP]
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
    return [_nobody(key) for key in sorted((warned | given) & config.keys() - read - _TOP)]


def _nobody(key: str) -> str:
    return f"{key} is set, but nothing reads it{_similar(key, _TOP)}"


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


def _unknown_keys(config: Config) -> list[str]:
    """Warn of keys where no constructor is: of the model's stages, and of ``data``."""
    warnings = []

    def look(value: Any, place: str) -> None:
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(each, dict) or "type" in each:
                continue
            for key, inner in each.items():
                if key not in _STAGE_KEYS:
                    warnings.append(f"{place}.{key} is set, but nothing reads it")
                elif key in ("rpn", "rpn_proposal", "rcnn"):
                    look(inner, f"{place}.{key}")

    for key in ("train_cfg", "test_cfg"):
        look(config.model.get(key), f"model.{key}")
        look(config.get(key), key)
    splits = ("train", "val", "test")
    known = {*splits, *(f"{split}_dataloader" for split in splits)}
    return warnings + [
        f"data.{key} is set, but nothing reads it" for key in config.data.keys() - known
    ]
