#!/usr/bin/env bash
# Installs into an environment that has the trainer's needs the frameworks that the plugs are for, as
# they are tested.
# Usage: deploy/dev/plugs.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/../.."

pip=("$1" -m pip install --quiet --disable-pip-version-check -c constraints.txt)
# mmengine-lite is mmengine without a desktop's OpenCV.
"${pip[@]}" 'setuptools<80' wheel mmengine-lite==0.10.7 tensorboard pandas pyarrow 'zarr>=3' datasets
# Pure Python; its set-up needs pkg_resources, which newer setuptools lack.
MMCV_WITH_OPS=0 "${pip[@]}" --no-build-isolation mmcv==1.7.2
