"""A stage of ResNet on regions."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")

from forebay_trainer.models.backbones import ResNet  # noqa: E402
from forebay_trainer.models.roi_heads import ResLayer  # noqa: E402


def test_it_is_the_last_stage_of_a_backbone_and_takes_its_weights() -> None:
    backbone, shared = ResNet(50), ResLayer(50)
    own = {key: value for key, value in backbone.state_dict().items() if key[:7] == "layer4."}

    shared.load_state_dict(own)  # strictly

    features = torch.rand(2, 1024, 14, 14)
    assert torch.equal(shared.eval()(features), backbone.eval().layer4(features))


def test_its_statistics_stay_in_training() -> None:
    shared = ResLayer(18)
    before = shared.layer4[0].bn1.running_mean.clone()

    shared.train()(torch.rand(2, 256, 4, 4) + 3)

    assert torch.equal(shared.layer4[0].bn1.running_mean, before)
