#!/usr/bin/env bash
# What `make demo` shows: a daemon, commands in, events out.  No key, no network; everything is made in a temporary
# directory and removed again.  Another nous than .venv's: scripts/demo.sh COMMAND...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

nous=("$@")
[ "${#nous[@]}" -gt 0 ] || nous=(.venv/bin/nous)

place=$(mktemp -d "${TMPDIR:-/tmp}/nous-demo.XXXXXX")
trap 'rm -rf "$place"' EXIT
mkdir "$place/work"
cp fixtures/demo/shopping.txt "$place/work"

# Explanations go to stderr, so that stdout holds what nous writes and nothing else.
bold='' plain=''
if [ -t 2 ]; then
    bold=$'\e[1m' plain=$'\e[0m'
fi
say() { printf '\n%s# %s%s\n' "$bold" "$1" "$plain" >&2; }

# An environment of its own: the demo needs no key, and no setting of yours changes it.
demo_nous() {
    local command=$1
    shift
    env -i PATH="$PATH" HOME="$place" "${nous[@]}" "$command" \
        --provider mock --script fixtures/demo/model.yaml --state-dir "$place/state" --workdir "$place/work" "$@"
}

commands=(
    '{"id":"1","type":"ping"}'
    '{"id":"2","type":"prompt","payload":{"text":"What is on my shopping list?","wait":false}}'
    '{"id":"3","type":"follow_up","payload":{"text":"And again, shorter?"}}'
)

say 'Three commands, one JSON object per line:'
printf '%s\n' "${commands[@]}" >&2

say 'go into the stdin of nous serve. Out come an answer to each, by its id, and the run as it happens: the model is
# played from fixtures/demo/model.yaml, the tool `read` really reads shopping.txt.'
printf '%s\n' "${commands[@]}" | demo_nous serve --bootstrap

say 'Stdin has ended, so the daemon finished the run, said bye and exited. The same from the shell, for people:'
demo_nous prompt 'What is on my shopping list?'

say 'And every run is on disk, as it was:'
(cd "$place/state" && wc -l traces/*.ndjson sessions/*.ndjson | sed '$d') >&2
