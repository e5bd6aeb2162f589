"""What a configuration names by ``type``; alone imports mmengine's Config and Registry.

As in MMDetection 2.x all parts of a model share one registry under several names, so that a custom
neck may be registered with either. Users extend each: ``@NECKS.register_module()``.
"""

from __future__ import annotations

import forebay_trainer._yapf  # noqa: F401 - before mmengine, which imports it

# isort: split
from mmengine.config import Config, ConfigDict
from mmengine.registry import Registry

__all__ = ["Config", "ConfigDict", "Registry"]


class _Registry(Registry):
    """As mmengine's, but what a user registers takes the place of ours with the same name."""

    def _register_module(
        self, module: type, module_name: str | list[str] | None = None, force: bool = False
    ) -> None:
        names = (
            [module_name or module.__name__] if not isinstance(module_name, list) else module_name
        )
        known = [self.module_dict[name] for name in names if name in self.module_dict]
        are_ours = all(each.__module__.startswith("forebay_trainer.") for each in known)
        super()._register_module(module, module_name, force or are_ours)


def _registry(name: str) -> Registry:
    return _Registry(name, scope="forebay_trainer")


MODELS = _registry("model")
BACKBONES = NECKS = HEADS = DETECTORS = LOSSES = ROI_EXTRACTORS = SHARED_HEADS = MODELS
PRIOR_GENERATORS = ANCHOR_GENERATORS = _registry("anchor generator")
BBOX_ASSIGNERS = _registry("assigner")
BBOX_SAMPLERS = _registry("sampler")
BBOX_CODERS = _registry("box coder")
IOU_CALCULATORS = _registry("overlap calculator")
PIPELINES = _registry("transform")
DATASETS = _registry("data set")
HOOKS = _registry("hook")
OPTIMIZERS = _registry("optimizer")
OPTIMIZER_BUILDERS = _registry("optimizer constructor")
RUNNERS = _registry("runner")
