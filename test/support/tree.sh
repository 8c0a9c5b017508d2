#!/usr/bin/env bash
# Prints the names of the project's files, each followed by a NUL byte: what git knows and what it
# would (not what it ignores), else, outside a git clone, all but what was built.
cd "$(dirname "$0")/../.." || exit 1
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' name; do [ ! -e "$name" ] || printf '%s\0' "$name"; done
else
    find . -name _build -prune -o -name .git -prune -o -name '*.so' -prune -o -type f -print0
fi
