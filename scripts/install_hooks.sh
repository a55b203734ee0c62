#!/bin/sh
# Have git run scripts/hooks: make hooks.  A hook of your own is never replaced.
set -eu
cd "$(dirname "$0")/.."

if ! git rev-parse --git-dir >/dev/null 2>&1; then
    echo "make hooks: this is no git checkout" >&2
    exit 6
fi
set_to=$(git config --get core.hooksPath || true)
if [ "$set_to" = scripts/hooks ]; then
    echo "hooks are set: make check runs before each push"
    exit 0
fi
own=${set_to:-$(git rev-parse --git-path hooks)}/pre-push
if [ -e "$own" ]; then
    echo "make hooks: $own is yours; have it call scripts/hooks/pre-push" >&2
    exit 8
fi
git config core.hooksPath scripts/hooks
echo "hooks are set: make check runs before each push"
