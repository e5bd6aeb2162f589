"""Looks a configuration over before anything is read: an error names its place in it.

What a part takes is what its constructor says, users' own parts included. Keys that nothing would
look at are warned of.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

import forebay
import forebay_trainer.models  # noqa: F401 - registers the parts
from forebay_trainer.config import ConfigError, errors_at
from forebay_trainer.datasets.builder import PER_FILE, build_dataloader
from forebay_trainer.datasets.custom import below
from forebay_trainer.engine.checkpoint_hook import output_folder
from forebay_trainer.engine.evaluation import EvalHook
from forebay_trainer.engine.hook import priority_number
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
from forebay_trainer.stages import check_stages
from forebay_trainer.unread import similar, unread
from forebay_trainer.weights import WeightsError, locate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

log = logging.getLogger("forebay_trainer")

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
# What build_dataloader gives the DataLoader.
_SET_BY_US = (
    *("dataset", "batch_size", "num_workers", "sampler", "batch_sampler"),
    *("collate_fn", "worker_init_fn", "generator"),
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
    _check_arguments(config.model, "model", MODELS, given=_GIVEN)
    _check_parts(config.model, "model", MODELS)
    check_stages(config, is_training)
    for key in ("train_cfg", "test_cfg"):
        _check_parts(config.get(key), key, MODELS)
    for split in splits:
        if split not in config.data:
            raise ConfigError(f"data.{split} is missing")
        _check_dataset(config.data[split], f"data.{split}")
    _check_loaders(config)
    if is_training:
        _check_training(config)
    return unread(config)


def check_files(config: Config, splits: Collection[str]) -> None:
    """Check that the weights can be reached, and that the data are where they should be."""
    for place, path in _weights(config):
        _locate(place, path)
    for split in splits:
        _check_paths(config.data[split], f"data.{split}")


def check_outputs(config: Config, splits: Collection[str]) -> None:
    """Check that there are the buckets to which a training writes, as far as one can see them."""
    for place, path in _outputs(config, splits):
        files = Files()
        if files.is_object(path):
            try:
                next(files.client.list(path), None)
            except FileNotFoundError as error:
                raise ConfigError(f"{place}: {error}: `forebay mb` makes one") from error
            except forebay.ForebayError as error:  # who may only write may not look
                log.warning("%s: %s", place, error)


def _outputs(config: Config, splits: Collection[str]) -> Iterator[tuple[str, str]]:
    hooks = (config.get("log_config") or {}).get("hooks") or ()
    parts = {
        "checkpoint_config": config.get("checkpoint_config"),
        "evaluation": config.get("evaluation") if "val" in splits else None,
        **{f"log_config.hooks[{number}]": hook for number, hook in enumerate(hooks)},
    }
    yield "work_dir", config.work_dir
    for place, part in parts.items():
        if part and part.get("out_dir"):
            folder = output_folder(part["out_dir"], config.work_dir, part.get("file_client_args"))
            yield f"{place}.out_dir", folder


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


@contextlib.contextmanager
def errors_of_parts(model: Mapping[str, Any]) -> Iterator[None]:
    """Turn what fails in building a model into a ConfigError with the place of the innermost part
    that cannot be built by itself either.
    """
    try:
        with errors_at("model"):
            yield
    except ConfigError:
        _build_parts(model, "model", MODELS)
        raise


def _build_parts(value: Any, place: str, registry: Registry) -> None:
    """Build all that is in a part, the innermost first; the part itself if it is within another."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, (dict, list, tuple)) and key not in _FREE:
            where = f"{place}.{key}" if isinstance(value, dict) else f"{place}[{key}]"
            within = _REGISTRIES.get(key, registry)
            _build_parts(inner, where, within)
            if isinstance(inner, dict) and "type" in inner:
                with errors_at(where):
                    within.build(inner)


def _check_arguments(
    arguments: Any,
    place: str,
    registry: Registry,
    given: Collection[str] = (),
    others: Collection[str] = (),
) -> Any:
    """Check the names of arguments; *given* are what others give, *others* go somewhere else.

    Returns what is built of them.
    """
    if not isinstance(arguments, dict):
        raise ConfigError(f"{place} is a dict with a type, not {arguments!r}")
    kind = arguments.get("type")
    if kind is None:
        raise ConfigError(f"{place}.type is missing")
    built = registry.get(kind) if isinstance(kind, str) else kind
    if built is None:
        meant = similar(kind, registry.module_dict)
        raise ConfigError(f"{place}.type: {registry.name} {kind!r} is not known{meant}")
    names, needed, is_open = accepted(built)
    for key in arguments.keys() - {"type", *others} - names:
        if not is_open:
            raise ConfigError(
                f"{place}.{key}: {built.__name__} has no such argument{similar(key, names)}"
            )
    missing = sorted(needed - arguments.keys() - set(given))
    if missing:
        raise ConfigError(f"{place}: {built.__name__} needs {', '.join(missing)}")
    return built


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
            return names, needed, number > 0
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


def _check_values(
    arguments: Any, place: str, registry: Registry, others: Collection[str] = ()
) -> None:
    """Check names, and by building it values of a part of ours; users' parts may have effects."""
    built = _check_arguments(arguments, place, registry, others=others)
    if built.__module__.startswith("forebay_trainer."):
        with errors_at(place):
            registry.build({key: arguments[key] for key in arguments.keys() - {*others}})


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
        pipeline = dataset.get("pipeline") or ()
        if not isinstance(pipeline, (list, tuple)):
            raise ConfigError(f"{where}.pipeline is a list of transforms, not {pipeline!r}")
        _check_parts(pipeline, f"{where}.pipeline", PIPELINES)
        for number, transform in enumerate(pipeline):
            _check_values(transform, f"{where}.pipeline[{number}]", PIPELINES)


def _check_paths(value: Any, place: str) -> None:
    """Check that annotations are there, and the folders of images."""
    for where, dataset in _each_dataset(value, place):
        files = Files.of(dataset.get("file_client_args"))
        for key in PER_FILE:
            paths = dataset.get(key)
            for path in paths if isinstance(paths, (list, tuple)) else [paths]:
                full = below(dataset.get("data_root"), path) if path else None
                if full:
                    _check_exists(files, full, f"{where}.{key}")
        classes = dataset.get("classes")
        if isinstance(classes, str) and not files.exists(classes):
            raise ConfigError(f"{where}.classes: there is no file {classes}; one class is a list")


def _check_exists(files: Files, path: str, place: str) -> None:
    if files.exists(path):
        return
    reason = ""
    if files.is_object(path):
        try:
            files.client.stat(path)
        except FileNotFoundError as error:  # which has the URI that a mapping has led to
            reason = f": {error}"
    raise ConfigError(f"{place}: {path} does not exist{reason}")


def _check_loaders(config: Config) -> None:
    known = {
        *inspect.signature(build_dataloader).parameters,
        *inspect.signature(DataLoader).parameters,
    }
    for split in ("train", "val", "test"):
        place = f"data.{split}_dataloader"
        options = config.data[place.partition(".")[2]]
        for key in options:
            if key not in known:
                raise ConfigError(f"{place}.{key}: there is no such option")
            if key in _SET_BY_US:
                raise ConfigError(f"{place}.{key}: say samples_per_gpu or workers_per_gpu instead")
        _check_count(options, "samples_per_gpu", place)
        _check_count(options, "workers_per_gpu", place, least=0)


def _check_count(options: Mapping[str, Any], key: str, place: str, least: int = 1) -> None:
    value = options.get(key, least)
    if not isinstance(value, int) or value < least:
        raise ConfigError(f"{place}.{key} is a whole number from {least} up, not {value!r}")


# --- training -----------------------------------------------------------------------------------


def _check_training(config: Config) -> None:
    _check_arguments(config.runner, "runner", RUNNERS)
    for key in ("max_epochs", "max_iters"):
        _check_count(config.runner, key, "runner")
    optimizer = dict(config.optimizer)
    constructor = {"type": optimizer.pop("constructor", "DefaultOptimizerConstructor")}
    _check_arguments(constructor, "optimizer.constructor", OPTIMIZER_BUILDERS, ["optimizer_cfg"])
    rules = optimizer.pop("paramwise_cfg", None) or {}
    if constructor["type"] == DefaultOptimizerConstructor.__name__:
        _check_rules(rules)
    _check_arguments(optimizer, "optimizer", OPTIMIZERS, ["params"])
    scaling = config.get("auto_scale_lr") or {}
    if scaling.get("enable"):
        if "base_batch_size" not in scaling:
            raise ConfigError("auto_scale_lr.base_batch_size is missing")
        _check_count(scaling, "base_batch_size", "auto_scale_lr")
    if config.get("lr_config") is not None:
        schedule = dict(config.lr_config)
        if "policy" not in schedule:
            raise ConfigError("lr_config.policy is missing")
        policy = schedule.pop("policy")
        schedule["type"] = policy_hook_name(policy)
        if HOOKS.get(schedule["type"]) is None:
            raise ConfigError(f"lr_config.policy: {policy!r} is not known")
        _check_values(schedule, "lr_config", HOOKS)
    _check_values(optimizer_hook_config(config), "optimizer_config", HOOKS)
    if config.get("checkpoint_config") is not None:
        checkpoints = {"type": "CheckpointHook", **config.checkpoint_config}
        _check_values(checkpoints, "checkpoint_config", HOOKS)
    for number, hook in enumerate(config.custom_hooks):
        _check_values(hook, f"custom_hooks[{number}]", HOOKS, others=["priority"])
        with errors_at(f"custom_hooks[{number}].priority"):
            priority_number(hook.get("priority") or 0)
    for number, hook in enumerate(config.log_config.get("hooks", ())):
        _check_values(hook, f"log_config.hooks[{number}]", HOOKS)
    for number, phase in enumerate(config.workflow):
        if not isinstance(phase, (list, tuple)) or len(phase) != 2:
            raise ConfigError(f"workflow[{number}] is a pair as ('train', 1), not {phase!r}")
        if phase[0] not in ("train", "val"):
            raise ConfigError(f"workflow[{number}]: {phase[0]!r} is neither 'train' nor 'val'")
    if all(mode != "train" for mode, _ in config.workflow):
        raise ConfigError("workflow: there is no ('train', 1)")
    if config.runner["type"] == "IterBasedRunner" and len(config.workflow) > 1:
        raise ConfigError("workflow: a run by iterations validates by `evaluation`")
    _check_evaluation(config)


def _check_rules(rules: Mapping[str, Any]) -> None:
    """Check ``paramwise_cfg``."""
    place = "optimizer.paramwise_cfg"
    for key in rules:
        if key not in DefaultOptimizerConstructor.KEYS:
            raise ConfigError(f"{place}.{key}: there is no such rule")
    for name, factors in rules.get("custom_keys", {}).items():
        for key in factors:
            if key not in ("lr_mult", "decay_mult"):
                raise ConfigError(f"{place}.custom_keys.{name}.{key}: there is no such rule")


def _check_evaluation(config: Config) -> None:
    if "val" not in config.data:
        return
    *_, (_, leaf) = _each_dataset(config.data.val, "data.val")
    outermost = config.data.val
    if isinstance(outermost, dict) and not hasattr(DATASETS.get(outermost["type"]), "evaluate"):
        raise ConfigError(f"data.val.type: {outermost['type']} is to train with, not to evaluate")
    names = accepted(EvalHook)[0] - {"loader"}
    evaluate = inspect.signature(DATASETS.get(leaf["type"]).evaluate).parameters
    told = config.get("evaluation") or {}
    for key in told:
        if key not in (*names, *evaluate, *GATHERING):
            raise ConfigError(f"evaluation.{key}: neither the hook nor {leaf['type']} has it")
    with errors_at("evaluation"):
        EvalHook(None, **{key: told[key] for key in told.keys() - {*GATHERING}})
    check_metrics(config, "val", told.get("metric", ()), "evaluation.metric")


def check_metrics(config: Config, split: str, metrics: str | Collection[str], place: str) -> None:
    """Check that the data set of ``data.val`` or ``data.test`` has what is to be evaluated."""
    *_, (_, leaf) = _each_dataset(config.data[split], f"data.{split}")
    known = getattr(DATASETS.get(leaf["type"]), "METRICS", None)
    for name in [metrics] if isinstance(metrics, str) else metrics:
        if known is not None and name not in known:
            raise ConfigError(f"{place}: {leaf['type']} has {', '.join(known)}, not {name!r}")


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
