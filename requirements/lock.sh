#!/usr/bin/env bash
# Resolve pyproject.toml into runtime.lock and test.lock: `make lock`. The argument is the uv to use.
set -euo pipefail
uv=$1
cd "$(dirname "$0")/.."

compile() {
    name=$1
    shift
    "$uv" pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
        --default-index https://pypi.org/simple --no-header --no-annotate \
        --constraint requirements/constraints.txt "$@" |
        grep -vE '^(nvidia|cuda)-' >"requirements/$name.new"
    {
        echo "# Written by \`make lock\` from pyproject.toml; for Python 3.11 to 3.13."
        cat "requirements/$name.new"
    } >"requirements/$name.lock"
    rm "requirements/$name.new"
}

compile runtime
grep -v '^triton==' requirements/runtime.lock >requirements/runtime.new # torch brings the one that it needs
mv requirements/runtime.new requirements/runtime.lock
compile test --extra test --extra bench
