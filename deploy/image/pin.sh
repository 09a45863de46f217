#!/bin/sh
# Write the exact versions and hashes of all packages in the image, and the versions that CI tests with.
#
#     pip install uv && deploy/image/pin.sh [--upgrade]
#
# Without --upgrade, pinned versions stay the same while pyproject.toml allows them. The licences can change with the
# versions, so write their list again afterwards (deploy/image/README.md).
set -eu
cd "$(dirname "$0")/../.."

compile() {
    uv --quiet pip compile --universal --python-version 3.11 --no-header "$@"
}

compile "$@" --extra http --generate-hashes \
    --output-file deploy/image/requirements.txt pyproject.toml

compile "$@" --extra http --extra kubernetes --constraint deploy/image/requirements.txt --generate-hashes \
    --output-file deploy/image/requirements-kubernetes.txt pyproject.toml

sed -n '/^\[build-system\]/,/^$/s/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml |
    compile "$@" --generate-hashes --no-annotate --output-file deploy/image/build-requirements.txt -

compile "$@" --extra dev --no-annotate --output-file .ci/constraints.txt pyproject.toml
