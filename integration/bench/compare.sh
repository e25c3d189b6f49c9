#!/bin/bash
# compare.sh REF COUNT BENCH PACKAGE...: the Go benchmarks of packages at a commit against those of the working tree. The two run in
# turn, so that what disturbs one disturbs the other; benchstat says what is more than noise. The results stay in bin/.
set -euo pipefail
ref=$1 count=$2 bench=$3
shift 3
benchstat=golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
top=$(git rev-parse --show-toplevel)
commit=$(git rev-parse --verify --quiet "$ref^{commit}") || { echo "compare: no commit $ref" >&2; exit 2; }
tree=$(mktemp -d)
remove() { git -C "$top" worktree remove --force "$tree/old" 2>/dev/null || true; rm -rf "$tree"; }
trap remove EXIT
git -C "$top" worktree add --quiet --detach "$tree/old" "$commit"
mkdir -p "$top/bin"
old=$top/bin/bench-old.txt new=$top/bin/bench-new.txt
: >"$old" >"$new"
packages=()
for p in "$@"; do # one that is new has nothing to be compared with
  if [ -d "$tree/old/$p" ]; then packages+=("$p"); else echo "compare: $p is not in $ref" >&2; fi
done
[ ${#packages[@]} -gt 0 ] || { echo "compare: none of $* is in $ref" >&2; exit 2; }
# Test binaries are made once for each side, and are run where their package is: some read files beside them.
for p in "${packages[@]}"; do
  name=$(echo "$p" | tr -c 'a-z0-9\n' _).test
  (cd "$tree/old" && go test -c -o "$tree/old-$name" "$p")
  (cd "$top" && go test -c -o "$tree/new-$name" "$p")
  [ -x "$tree/old-$name" ] && [ -x "$tree/new-$name" ] || { echo "compare: $p has no tests" >&2; continue; }
  for _ in $(seq "$count"); do
    (cd "$tree/old/$p" && "$tree/old-$name" -test.run '^$' -test.bench "$bench" -test.benchmem) >>"$old"
    (cd "$top/$p" && "$tree/new-$name" -test.run '^$' -test.bench "$bench" -test.benchmem) >>"$new"
  done
done
cd "$top"
go run "$benchstat" "$ref=$old" "tree=$new"
